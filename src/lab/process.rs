//! Starts the programs that the lab uses: the one place of the lab where a process begins.
//!
//! Every call takes an argument vector; there is no shell.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use super::LabError;
use crate::model::{Command, Output, Stdin};

/// Runs a program to its end and gives what it printed.
///
/// # Errors
/// [`LabError::Command`] when it cannot be started, ends with a status other than 0, or has to be killed at its deadline.
pub(super) fn run(command: &Command) -> Result<Output, LabError> {
    let (status, output) = answer(command)?;
    if status.success() {
        return Ok(output);
    }
    Err(failed(command, status.to_string(), &output))
}

/// Runs a program to its end and tells whether its status was 0.
///
/// # Errors
/// [`LabError::Command`] when it cannot be started or has to be killed at its deadline.
pub(super) fn succeeds(command: &Command) -> Result<bool, LabError> {
    Ok(answer(command)?.0.success())
}

fn answer(command: &Command) -> Result<(ExitStatus, Output), LabError> {
    let cannot = |what: &str| LabError::system(format!("{what} `{}`", command.program));
    let mut stdout = tempfile::tempfile().map_err(cannot("capture"))?;
    let mut stderr = tempfile::tempfile().map_err(cannot("capture"))?;
    let mut child = prepare(command)
        .stdin(input(&command.stdin).map_err(cannot("write the input of"))?)
        .stdout(stdout.try_clone().map_err(cannot("capture"))?)
        .stderr(stderr.try_clone().map_err(cannot("capture"))?)
        .spawn()
        .map_err(cannot("start"))?;
    let status = wait_until(&mut child, Instant::now() + command.deadline).map_err(cannot("wait for"))?;
    let output = Output {
        stdout: content(&mut stdout).map_err(cannot("read the output of"))?,
        stderr: content(&mut stderr).map_err(cannot("read the output of"))?,
    };
    match status {
        Some(status) => Ok((status, output)),
        None => {
            let outcome = format!("did not end within {}", humantime::format_duration(command.deadline));
            Err(failed(command, outcome, &output))
        }
    }
}

/// Starts a program that outlives stor: in a process group of its own, so that Ctrl-C does not reach it, with its
/// output in `log`.
///
/// # Errors
/// [`LabError::System`] when it cannot be started.
pub(super) fn detach(command: &Command, log: File) -> Result<Child, LabError> {
    let cannot = || LabError::system(format!("start `{}`", command.program));
    let stderr = log.try_clone().map_err(cannot())?;
    prepare(command)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(stderr)
        .process_group(0)
        .spawn()
        .map_err(cannot())
}

/// Runs a program on the caller's terminal and gives its status.
///
/// # Errors
/// [`LabError::System`] when it cannot be started.
pub(super) fn interactive(command: &Command) -> Result<ExitStatus, LabError> {
    prepare(command).status().map_err(LabError::system(format!("start `{}`", command.program)))
}

/// Finds a program as a shell would, also where an ordinary user's `PATH` does not lead.
pub(super) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(Into::into);
    std::env::split_paths(&path).chain(system).any(|directory| directory.join(program).is_file())
}

fn prepare(command: &Command) -> std::process::Command {
    let mut process = std::process::Command::new(command.program);
    process.args(&command.args).env("LC_ALL", "C");
    process
}

fn input(stdin: &Stdin) -> std::io::Result<Stdio> {
    let text = match stdin {
        Stdin::Empty => return Ok(Stdio::null()),
        Stdin::Text(text) => text.as_bytes(),
        Stdin::Secret(secret) => secret.reveal().as_bytes(),
    };
    let mut file = tempfile::tempfile()?;
    file.write_all(text)?;
    file.rewind()?;
    Ok(file.into())
}

fn wait_until(child: &mut Child, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn content(file: &mut File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn failed(command: &Command, outcome: String, output: &Output) -> LabError {
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
