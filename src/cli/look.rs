//! The commands that change nothing on any host: init, check, plan, verify, status.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use serde_json::json;

use super::args::{Cli, PlanArgs, StatusArgs};
use super::print;
use super::render::Screen;
use super::session::{Session, load};
use crate::error::{Exit, Failure};
use crate::model::Cancel;
use crate::observe::observe;
use crate::verify::Verdict;
use crate::{plan, spec, status, verify};

/// Writes a commented cluster file; never over one that exists.
pub fn init(path: &Path) -> Result<Exit, Failure> {
    let failed = |error: std::io::Error| {
        Failure::say(
            Exit::InvalidFile,
            format!("cluster file {}: cannot be written: {error}", path.display()),
        )
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(spec::TEMPLATE.as_bytes()).map_err(failed)?;
    print(&format!("wrote {}; edit it, then run `stor check`\n", path.display()))
}

/// Validates the cluster file.
pub fn check(cli: &Cli, screen: &Screen) -> Result<Exit, Failure> {
    let cluster = load(&cli.file())?;
    let counts = json!({
        "cluster": cluster.name, "hosts": cluster.hosts.len(), "storage": cluster.storage.len(),
        "images": cluster.images.len(), "guests": cluster.guests.len(),
    });
    screen.document("check", counts, || {
        let file = cli.file();
        let (hosts, storage) = (cluster.hosts.len(), cluster.storage.len());
        let (images, guests) = (cluster.images.len(), cluster.guests.len());
        format!(
            "{}: cluster {} is valid: {hosts} hosts, {storage} storage, {images} images, {guests} guests\n",
            file.display(),
            cluster.name
        )
    })?;
    Ok(Exit::Done)
}

/// Shows what apply would do.
pub fn plan(cli: &Cli, args: &PlanArgs, screen: &Screen) -> Result<Exit, Failure> {
    let session = Session::open(cli)?.with_secrets()?;
    let seen = observe(&session.fleet, &plan::queries(&session.cluster));
    let dead = super::apply::dead(&session.cluster, &args.dead)?;
    let plan = plan::plan_without(&session.cluster, &seen, &dead);
    if args.script {
        print(&plan::script::render(&plan, &session.cluster))?;
    } else {
        screen.document("plan", json!({ "plan": screen.plan_json(&plan) }), || screen.plan(&plan))?;
    }
    Ok(match &plan {
        plan if plan.blocked.iter().any(|blocked| blocked.unknown) => Exit::Unreachable,
        plan if !plan.blocked.is_empty() || plan.has_errors() => Exit::Incomplete,
        plan if args.detailed_exitcode && !plan.is_empty() => Exit::Pending,
        _ => Exit::Done,
    })
}

/// Proves that all hypervisors reach the same images.
pub fn verify(cli: &Cli, screen: &Screen, cancel: &Cancel) -> Result<Exit, Failure> {
    let session = Session::open(cli)?.with_secrets()?;
    let matrix = verify::verify(&session.cluster, &session.fleet, cancel, &|event| screen.verifying(&event));
    let value = json!({ "verdict": matrix.verdict(), "matrix": matrix, "findings": matrix.findings() });
    screen.document("verify", value, || screen.matrix(&matrix))?;
    Ok(match matrix.verdict() {
        Verdict::Pass | Verdict::NotApplicable => Exit::Done,
        Verdict::Fail | Verdict::Unknown => Exit::NotVerified,
    })
}

/// Shows what the hosts show.
pub fn status(cli: &Cli, args: &StatusArgs, screen: &Screen, cancel: &Cancel) -> Result<Exit, Failure> {
    let session = Session::open(cli)?;
    loop {
        let status = status::status(&session.cluster, &session.fleet);
        screen.document("status", json!({ "status": status }), || screen.status(&status))?;
        let unreachable = status.hosts.iter().any(|host| host.unreachable.is_some());
        let exit = if unreachable { Exit::Unreachable } else { Exit::Done };
        let until = std::time::Instant::now() + args.every;
        while args.watch && !cancel.is_cancelled() && std::time::Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        if !args.watch || cancel.is_cancelled() {
            return Ok(exit);
        }
    }
}
