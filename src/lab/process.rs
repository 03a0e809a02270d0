//! Runs the programs that the lab uses, through `host::local`, with the lab's errors.

use std::path::Path;
use std::process::ExitStatus;

use super::LabError;
use crate::host::{HostError, local};
use crate::model::{Answer, Command, Output};

/// Runs a program to its end and gives what it printed.
///
/// # Errors
/// [`LabError::Command`] when it ends with a status other than 0 or has to be killed at its deadline,
/// [`LabError::Program`] when it cannot be started.
pub(super) fn run(command: &Command) -> Result<Output, LabError> {
    let answer = ask(command)?;
    match answer.status {
        Some(0) => Ok(Output { stdout: answer.stdout, stderr: answer.stderr }),
        Some(status) => Err(failed(command, format!("exited {status}"), &answer)),
        None => {
            let deadline = humantime::format_duration(command.deadline);
            Err(failed(command, format!("was killed or did not end within {deadline}"), &answer))
        }
    }
}

/// Runs a program to its end and tells whether its status was 0.
///
/// # Errors
/// [`LabError::Program`] when it cannot be started.
pub(super) fn succeeds(command: &Command) -> Result<bool, LabError> {
    Ok(ask(command)?.ok())
}

fn ask(command: &Command) -> Result<Answer, LabError> {
    local::ask(command).map_err(failure)
}

/// Starts a program that outlives stor, with its output appended to `log`, and gives its process number.
///
/// # Errors
/// [`LabError::Program`] when it cannot be started.
pub(super) fn detach(command: &Command, log: &Path) -> Result<u32, LabError> {
    local::spawn(command, &[], log).map(|child| child.id()).map_err(failure)
}

/// Runs a program on the caller's terminal and gives its status.
///
/// # Errors
/// [`LabError::Program`] when it cannot be started.
pub(super) fn interactive(command: &Command) -> Result<ExitStatus, LabError> {
    local::interactive(command).map_err(failure)
}

fn failure(error: HostError) -> LabError {
    LabError::Program(Box::new(error))
}

/// Finds a program as a shell would, also where an ordinary user's `PATH` does not lead.
pub(super) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(Into::into);
    std::env::split_paths(&path).chain(system).any(|directory| directory.join(program).is_file())
}

fn failed(command: &Command, outcome: String, output: &Answer) -> LabError {
    let text = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
    LabError::Command { command: command.to_string(), outcome, stderr: last_lines(text, 8) }
}

/// The last `count` lines of a text.
pub(super) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The path as an argument.
pub(super) fn word(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
