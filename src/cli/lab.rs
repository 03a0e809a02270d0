//! The lab's commands.

use serde_json::json;

use super::args::{Cli, LabDownArgs, LabShellArgs};
use super::render::Screen;
use super::session::{lab_failure, load};
use crate::error::{Exit, Failure};
use crate::lab::{self, Down, Lab, LabError, LabSpec, Settings};
use crate::model::Cancel;
use crate::spec::Cluster;

/// Makes and boots every host of the cluster file.
pub fn up(cli: &Cli, screen: &Screen, cancel: &Cancel) -> Result<Exit, Failure> {
    let lab = bring_up(&load(&cli.file())?, screen, cancel)?;
    let status = lab.status().map_err(|error| lab_failure(&error))?;
    screen.document("lab up", json!({ "lab": status }), || screen.lab(&status))?;
    Ok(Exit::Done)
}

/// Makes and boots every host of a cluster.
pub fn bring_up(cluster: &Cluster, screen: &Screen, cancel: &Cancel) -> Result<Lab, Failure> {
    let up = |settings: Settings| {
        lab::up(&LabSpec::of(cluster)?, &settings, cancel, &mut |event| screen.lab_event(&event))
    };
    Settings::from_env().and_then(up).map_err(|error| lab_failure(&error))
}

/// Removes a lab with all its data.
pub fn down(cli: &Cli, args: &LabDownArgs, screen: &Screen) -> Result<Exit, Failure> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => load(&cli.file())?.name,
    };
    let down = |settings: Settings| lab::down(&name, &settings, &mut |event| screen.lab_event(&event));
    let ended = Settings::from_env().and_then(down).map_err(|error| lab_failure(&error))?;
    let text = match ended {
        Down::Removed => format!("lab {name}: removed\n"),
        Down::NothingThere => format!("lab {name}: there was none\n"),
    };
    screen.document("lab down", json!({ "lab": name }), || text)?;
    Ok(Exit::Done)
}

/// Shows the lab's hosts.
pub fn status(cli: &Cli, screen: &Screen) -> Result<Exit, Failure> {
    let status = open(cli)?.status().map_err(|error| lab_failure(&error))?;
    screen.document("lab status", json!({ "lab": status }), || screen.lab(&status))?;
    Ok(Exit::Done)
}

/// Opens a shell on a lab host; ends with that shell's own status.
pub fn shell(cli: &Cli, args: &LabShellArgs) -> Result<Exit, Failure> {
    let status = open(cli)?.shell(&args.host, &args.command).map_err(|error| lab_failure(&error))?;
    // The status of somebody else's command is not one of stor's own exit codes, so it leaves here.
    std::process::exit(status.code().unwrap_or(i32::from(Exit::Unexpected.code())))
}

fn open(cli: &Cli) -> Result<Lab, Failure> {
    let name = load(&cli.file())?.name;
    let opened: Result<Lab, LabError> = Settings::from_env().and_then(|settings| lab::open(&name, &settings));
    opened.map_err(|error| lab_failure(&error))
}
