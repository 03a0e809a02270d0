//! Starts ssh: the one-shot call with a deadline, and control commands to a master.
//!
//! Imports `model`. What to send and what a reply means is decided in `ssh`.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::HostError;
use crate::model::HostId;

/// Where ssh's standard input comes from.
pub(super) enum Input {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A file of this machine.
    File(File),
}

/// How ssh ended.
pub(super) struct Ended {
    /// Whether it ended before the deadline.
    pub in_time: bool,
    /// Its exit status, if it exited.
    pub status: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// The end of its standard error.
    pub stderr: String,
}

/// The end of standard error that is kept, in bytes.
const STDERR_MAX: u64 = 16 << 10;
/// The longest standard output that is read, in bytes: what a reply may hold, and some noise before it.
const STDOUT_MAX: u64 = super::batch::OUTPUT_MAX + (1 << 20);
/// Time for ssh to end after it was killed.
const REAP: Duration = Duration::from_secs(2);
/// Time for a master to answer a control command.
const CONTROL_DEADLINE: Duration = Duration::from_secs(5);

/// Runs `ssh -F config host remote` to its end or the deadline.
///
/// Standard error goes to a file and not to a pipe: the first ssh forks the master, which may keep standard error open
/// for as long as it lives, and a pipe would then not end.
pub(super) fn run(
    config: &Path,
    host: &HostId,
    remote: &str,
    input: Input,
    deadline: Duration,
) -> Result<Ended, HostError> {
    let mut stderr = scratch()?;
    let (reader, writer) = std::io::pipe().map_err(|error| local("open a pipe", error))?;
    let end = Instant::now() + deadline;
    let handle = start(ssh(config, &["-T", "--", host.as_str(), remote]), input, writer, &stderr)?;
    let output = read_limited(reader);
    let status = handle.wait_deadline(end).map_err(|error| local("wait for ssh", error))?;
    let status = status.map(|output| output.status.code());
    let Some(status) = status else {
        handle.kill().map_err(|error| local("end ssh", error))?;
        handle.wait_timeout(REAP).map_err(|error| local("wait for ssh", error))?;
        return Ok(Ended { in_time: false, status: None, stdout: Vec::new(), stderr: tail(&mut stderr)? });
    };
    match output.recv_timeout(REAP) {
        Ok(read) => {
            let stdout = read.map_err(|error| local("read from ssh", error))?;
            Ok(Ended { in_time: true, status, stdout, stderr: tail(&mut stderr)? })
        }
        Err(_) => Err(local("read from ssh", std::io::ErrorKind::TimedOut.into())),
    }
}

/// Starts ssh. No expression may outlive this: each holds the writing end of the pipe, which would then not end.
fn start(
    ssh: duct::Expression,
    input: Input,
    stdout: std::io::PipeWriter,
    stderr: &File,
) -> Result<duct::Handle, HostError> {
    let stderr = stderr.try_clone().map_err(|error| local("open a temporary file", error))?;
    let expression = ssh.stdout_file(stdout).stderr_file(stderr).unchecked();
    let expression = match input {
        Input::Bytes(bytes) => expression.stdin_bytes(bytes),
        Input::File(file) => expression.stdin_file(file),
    };
    expression.start().map_err(|error| local("start ssh", error))
}

/// Reads at most [`STDOUT_MAX`] bytes in a thread of its own; beyond that the pipe closes, and ssh ends.
fn read_limited(reader: std::io::PipeReader) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = reader.take(STDOUT_MAX).read_to_end(&mut bytes).map(|_| bytes);
        if sender.send(read).is_err() {
            tracing::debug!("ssh's output ended after its deadline");
        }
    });
    receiver
}

/// Sends a control command (`exit`, `stop`, `check`) to the master of a host; tells whether there was one.
pub(super) fn control(config: &Path, host: &HostId, command: &str) -> Result<bool, HostError> {
    let handle = ssh(config, &["-O", command, "--", host.as_str()])
        .stdin_null()
        .stdout_null()
        .stderr_null()
        .unchecked()
        .start()
        .map_err(|error| local("start ssh", error))?;
    match handle.wait_timeout(CONTROL_DEADLINE).map_err(|error| local("wait for ssh", error))? {
        Some(output) => Ok(output.status.success()),
        None => {
            handle.kill().map_err(|error| local("end ssh", error))?;
            handle.wait_timeout(REAP).map_err(|error| local("wait for ssh", error))?;
            Ok(false)
        }
    }
}

/// ssh in a process group of its own, so that Ctrl-C reaches stor alone and no command is cut in the middle.
fn ssh(config: &Path, args: &[&str]) -> duct::Expression {
    let mut words = vec![std::ffi::OsString::from("-F"), config.into()];
    words.extend(args.iter().map(std::ffi::OsString::from));
    super::secrets::withheld(duct::cmd("ssh", words)).env("LC_ALL", "C").before_spawn(|command| {
        command.process_group(0);
        Ok(())
    })
}

/// An ssh that stays open, with pipes that its caller sets; duct has no child with a pipe that stays open.
#[expect(clippy::disallowed_methods, reason = "this is where processes start")]
pub(super) fn long_lived(config: &Path, host: &HostId, remote: &str) -> std::process::Command {
    let mut command = std::process::Command::new("ssh");
    command.arg("-F").arg(config).args(["-T", "--", host.as_str(), remote]);
    super::secrets::hidden().iter().for_each(|name| _ = command.env_remove(name));
    command.env("LC_ALL", "C").process_group(0);
    command
}

/// A file without a name for standard error.
pub(super) fn scratch() -> Result<File, HostError> {
    tempfile::tempfile().map_err(|error| local("open a temporary file", error))
}

/// The end of what was written to a file of [`scratch`].
pub(super) fn tail(file: &mut File) -> Result<String, HostError> {
    let read = |file: &mut File| {
        let length = file.seek(std::io::SeekFrom::End(0))?;
        file.seek(std::io::SeekFrom::Start(length.saturating_sub(STDERR_MAX)))?;
        let mut bytes = Vec::new();
        file.take(STDERR_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read(file).map_err(|error| local("read a temporary file", error))
}

fn local(action: &str, source: std::io::Error) -> HostError {
    HostError::Local { action: action.to_owned(), source }
}
