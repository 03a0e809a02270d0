//! `stor run`: a playbook with its progress and its summary.

use std::path::Path;

use serde_json::json;

use super::args::{Cli, RunArgs};
use super::render::Screen;
use super::session::{Session, lab_failure, load};
use super::{guests, lab};
use crate::apply::{Consent, Shell};
use crate::error::{Exit, Failure};
use crate::execute::ExecuteEvent;
use crate::lab::{LabError, Settings};
use crate::migrate::run::MigrateEvent;
use crate::model::{Cancel, Risk};
use crate::plan::Plan;
use crate::playbook::{self, Report, Show, StepReport};
use crate::spec::Cluster;
use crate::verify::VerifyEvent;

/// Runs a playbook; with `--lab`, brings the lab up first.
pub fn run(cli: &Cli, args: &RunArgs, screen: &Screen, cancel: &Cancel) -> Result<Exit, Failure> {
    let invalid = |error: playbook::PlaybookError| Failure::new(Exit::InvalidFile, &error).hint(error.hint());
    let book = playbook::load(&args.playbook).map_err(invalid)?;
    let directory = args.playbook.parent().unwrap_or_else(|| Path::new("."));
    let cluster = load(&directory.join(&book.cluster))?;
    book.check(&cluster).map_err(invalid)?;
    let fresh = cli.global.lab && !lab_is_up(&cluster)?;
    if cli.global.lab {
        lab::bring_up(&cluster, screen, cancel)?;
    }
    let session = Session::of(cluster, cli.global.lab, cli.global.parallel.get())?;
    let session = session.heeding(cancel).with_secrets()?;
    let options = guests::options(&session, "run");
    let states = playbook::directory(&options.receipts);
    let failed = |error: playbook::StateError| Failure::new(Exit::Unexpected, &error);
    if args.restart || fresh {
        playbook::restart(session.site(), &book, &states).map_err(failed)?;
    }
    let show = Shown { screen };
    let report = playbook::run(session.site(), &book, &options, &states, cancel, &show).map_err(failed)?;
    let value = json!({ "playbook": book.title, "report": report });
    screen.document("run", value, || summary(&book.title, &report))?;
    Ok(if report.complete { Exit::Done } else { Exit::Incomplete })
}

fn lab_is_up(cluster: &Cluster) -> Result<bool, Failure> {
    let settings = Settings::from_env().map_err(|error| lab_failure(&error))?;
    match crate::lab::open(&cluster.name, &settings) {
        Ok(_) => Ok(true),
        Err(LabError::NotUp { .. }) => Ok(false),
        Err(error) => Err(lab_failure(&error)),
    }
}

struct Shown<'a> {
    screen: &'a Screen,
}

impl Shell for Shown<'_> {
    fn consent(&self, plan: &Plan) -> Consent {
        match plan.steps().find(|step| step.risk > Risk::Safe) {
            None => Consent::Given,
            Some(step) => Consent::Refused(format!(
                "the plan removes or interrupts something (host {}: {}); run `stor apply --prune` to allow that",
                step.host, step.title
            )),
        }
    }
    fn executing(&self, event: ExecuteEvent<'_>) {
        self.screen.executing(event);
    }
    fn verifying(&self, event: VerifyEvent) {
        self.screen.verifying(&event);
    }
}

impl Show for Shown<'_> {
    fn begins(&self, number: usize, of: usize, title: &str) {
        let value = || json!({ "event": "begins", "step": number, "of": of, "title": title });
        self.screen.event(value, || format!("[{number}/{of}] {title}"));
    }
    fn resumed(&self, number: usize, of: usize, title: &str) {
        let value = || json!({ "event": "resumed", "step": number, "of": of, "title": title });
        self.screen.event(value, || format!("[{number}/{of}] {title}: done by an earlier run"));
    }
    fn ends(&self, report: &StepReport) {
        self.screen.clear();
        let value = || json!({ "event": "ends", "report": report });
        self.screen.event(value, || match &report.failed {
            None => format!("      {} ({:.1} s)", report.seen, seconds(report.millis)),
            Some(reason) => format!("      FAILED: {reason}"),
        });
    }
    fn migrating(&self, event: &MigrateEvent) {
        self.screen.migrating(event);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a duration for people")]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

/// The summary for people: what every migration cost, and what the guest's own heartbeat says.
fn summary(title: &str, report: &Report) -> String {
    let done = report.steps.iter().filter(|step| step.failed.is_none()).count();
    let mut out =
        format!("\n{title}: {} ({done} steps done)\n", if report.complete { "done" } else { "NOT done" });
    let moves: Vec<_> = report.steps.iter().filter_map(|step| step.moved.as_ref()).collect();
    if !moves.is_empty() {
        out.push_str(
            "  guest     from     to       migration  downtime (QEMU)  longest ping gap  disk copied\n",
        );
    }
    let ms = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value} ms"));
    for moved in moves {
        let copied = moved.disk_copied.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes} bytes"));
        out.push_str(&format!(
            "  {:9} {:8} {:8} {:10} {:16} {:17} {copied}\n",
            moved.guest,
            moved.from,
            moved.to,
            format!("{} ms", moved.total_ms),
            ms(moved.downtime_ms),
            ms(moved.ping_gap_ms),
        ));
    }
    if let Some(beats) = report.steps.iter().rev().find_map(|step| step.beats) {
        out.push_str(&format!(
            "  heartbeat: {beats} beats on the image, none lost, none doubled, one writer\n"
        ));
    }
    out
}
