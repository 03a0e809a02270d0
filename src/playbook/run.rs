//! The runner: one step after the other, each remembered once it ended well; the first failure ends the run.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::file::{Action, Expect, Migrate, Playbook};
use super::{StateError, expect, state};
use crate::apply::{End, Goal, Shell, apply};
use crate::migrate::Site;
use crate::migrate::outcome::Outside;
use crate::migrate::run::cold::{self, Cold, Stop};
use crate::migrate::run::{MigrateEvent, Options, migrate};
use crate::migrate::start::{Started, start_locked};
use crate::model::{Cancel, Dead};
use crate::verify::{Verdict, verify};

/// Time that a guest gets to shut down before it is moved; the same as on the command line.
const SHUTDOWN_LIMIT: std::time::Duration = std::time::Duration::from_secs(180);

/// Who shows what a playbook does.
pub trait Show: Shell {
    /// A step begins; `number` counts from 1.
    fn begins(&self, number: usize, of: usize, title: &str);
    /// A step was done by an earlier run.
    fn resumed(&self, number: usize, of: usize, title: &str);
    /// A step ended.
    fn ends(&self, report: &StepReport);
    /// A guest moves.
    fn migrating(&self, event: &MigrateEvent);
}

/// How one step ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step in words.
    pub title: String,
    /// Why it failed; absent when it ended well.
    pub failed: Option<String>,
    /// What was seen.
    pub seen: String,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// What a migration measured.
    pub moved: Option<Moved>,
    /// Beats that a heartbeat check proved.
    pub beats: Option<u64>,
}

/// What one migration measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// The guest.
    pub guest: String,
    /// Where from.
    pub from: String,
    /// Where to.
    pub to: String,
    /// Time of the migration, in milliseconds.
    pub total_ms: u64,
    /// Pause as QEMU counted it, in milliseconds.
    pub downtime_ms: Option<u64>,
    /// Longest time between two replies to ping, in milliseconds.
    pub ping_gap_ms: Option<u64>,
    /// Disk copied, in bytes.
    pub disk_copied: Option<u64>,
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// All steps that were reached.
    pub steps: Vec<StepReport>,
    /// Whether every step of the playbook ended well.
    pub complete: bool,
}

/// Runs a playbook from the first step that no earlier run ended.
///
/// # Errors
/// [`StateError`] when the run cannot be remembered; what was done stands.
pub fn run(
    site: Site<'_>,
    playbook: &Playbook,
    options: &Options,
    state_directory: &Path,
    cancel: &Cancel,
    show: &dyn Show,
) -> Result<Report, StateError> {
    let path = state::path(state_directory, &site.cluster.name, &playbook.text);
    let mut state = state::read(&path);
    let of = playbook.steps.len();
    let run = Run { site, options, cancel, show };
    for (index, action) in playbook.steps.iter().enumerate() {
        if index < state.done.len() {
            show.resumed(index + 1, of, &action.title());
            continue;
        }
        show.begins(index + 1, of, &action.title());
        let begun = Instant::now();
        let mut report = if cancel.is_cancelled() { failed("cancelled") } else { run.action(action) };
        report.title = action.title();
        report.millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        show.ends(&report);
        if report.failed.is_some() {
            state.done.push(report);
            return Ok(Report { steps: state.done, complete: false });
        }
        state.done.push(report);
        state::write(&path, &state)?;
    }
    state::forget(&path)?;
    Ok(Report { steps: state.done, complete: true })
}

/// Forgets an earlier run of a playbook.
///
/// # Errors
/// [`StateError`]
pub fn restart(site: Site<'_>, playbook: &Playbook, state_directory: &Path) -> Result<(), StateError> {
    state::forget(&state::path(state_directory, &site.cluster.name, &playbook.text))
}

struct Run<'a> {
    site: Site<'a>,
    options: &'a Options,
    cancel: &'a Cancel,
    show: &'a dyn Show,
}

fn failed(reason: impl Into<String>) -> StepReport {
    StepReport { failed: Some(reason.into()), ..StepReport::default() }
}

fn seen(seen: impl Into<String>) -> StepReport {
    StepReport { seen: seen.into(), ..StepReport::default() }
}

fn of(result: Result<String, String>) -> StepReport {
    result.map_or_else(failed, seen)
}

impl Run<'_> {
    fn action(&self, action: &Action) -> StepReport {
        match action {
            Action::Apply(_) => self.apply(),
            Action::Verify(_) => self.verify(),
            Action::Start(guest) => {
                match start_locked(self.site, &guest.guest, &self.options.holder, self.cancel) {
                    Ok(Started::Now(host)) => seen(format!("started on {host}")),
                    Ok(Started::Already(host)) => seen(format!("runs on {host} already")),
                    Err(error) => failed(error.to_string()),
                }
            }
            Action::Migrate(wanted) => self.migrate(wanted),
            Action::Expect(Expect::PlanEmpty(_)) => of(expect::plan_empty(self.site)),
            Action::Expect(Expect::RunsOn(at)) => of(expect::runs_on(self.site, at)),
            Action::Expect(Expect::Heartbeat(beats)) => match expect::beats(self.site, beats, self.cancel) {
                Ok(proved) => StepReport { beats: Some(proved.beats), ..seen(proved.to_string()) },
                Err(reason) => failed(reason),
            },
        }
    }

    fn apply(&self) -> StepReport {
        let Site { cluster, fleet, connector } = self.site;
        match apply(
            cluster,
            fleet,
            connector,
            &Goal::Match(Dead::default()),
            &self.options.holder,
            self.cancel,
            self.show,
        ) {
            Err(busy) => failed(busy.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
            Ok(applied) if applied.end == End::Nothing && applied.is_complete() => seen("nothing to do"),
            Ok(applied) if !applied.is_complete() => failed("not everything could be applied"),
            Ok(applied) if !applied.is_proved() => failed("applied, but the evidence is missing"),
            Ok(applied) => seen(format!("{} steps done", applied.journal.entries.len())),
        }
    }

    fn verify(&self) -> StepReport {
        let matrix =
            verify(self.site.cluster, self.site.fleet, self.cancel, &|event| self.show.verifying(event));
        let checks = matrix.cells.iter().flat_map(|cell| &cell.checks).count();
        match matrix.verdict() {
            Verdict::Pass | Verdict::NotApplicable => {
                seen(format!("{checks} checks on {} images and hosts", matrix.cells.len()))
            }
            Verdict::Fail | Verdict::Unknown => {
                let findings = matrix.findings();
                failed(findings.iter().map(|finding| finding.message.clone()).collect::<Vec<_>>().join("; "))
            }
        }
    }

    fn migrate(&self, wanted: &Migrate) -> StepReport {
        let options = Options { ping: wanted.ping, ..self.options.clone() };
        let guests = [wanted.guest.clone()];
        let show = |event: MigrateEvent| self.show.migrating(&event);
        let outcomes = if wanted.cold {
            let (stop, start) = (Stop::Ask(SHUTDOWN_LIMIT), cold::Start::AsBefore);
            let cold = Cold { stop, start };
            cold::cold(self.site, &guests, &wanted.to, &options, &cold, self.cancel, &show)
        } else {
            migrate(self.site, &guests, &wanted.to, &options, self.cancel, &show)
        };
        let Some(outcome) = outcomes.first() else { return failed("there was no outcome") };
        if outcome.exit_code() != 0 {
            let findings = outcome.findings.iter().map(|finding| finding.message.clone());
            let reasons: Vec<String> =
                [format!("{:?}", outcome.verdict)].into_iter().chain(findings).collect();
            return failed(reasons.join("; "));
        }
        let from = outcome.from.as_ref().map_or_else(String::new, ToString::to_string);
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let moved = outcome.figures.as_ref().map(|figures| Moved {
            guest: wanted.guest.to_string(),
            from: from.clone(),
            to: wanted.to.to_string(),
            total_ms: millis(figures.total),
            downtime_ms: figures.downtime.map(millis),
            ping_gap_ms: match &figures.ping {
                Some(Outside::Seen(ping)) => Some(millis(ping.longest_gap)),
                Some(Outside::Failed(_)) | None => None,
            },
            disk_copied: figures.disk_copied,
        });
        let text = if moved.is_some() || outcome.cold.is_some() {
            format!("moved from {from} to {}", wanted.to)
        } else {
            "was there".to_owned()
        };
        StepReport { moved, ..seen(text) }
    }
}
