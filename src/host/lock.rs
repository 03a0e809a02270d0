//! The host's lock: a remote shell holds it with flock(1) for as long as its standard input stays open.
//!
//! Nothing has to be cleaned up: when stor ends in any way, the kernel closes the pipe, ssh passes the end on, and the
//! remote shell ends, and the lock with it; when the link goes silent, the signs of life stay away. Imports `model`.

use std::fs::File;
use std::io::{BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::batch::{self, Ended, Frame, Job, Lock, Reply, ReplyError};
use super::ssh::{Held, MARGIN, SshHost};
use super::{Holder, Host, HostError, LockGuard, LockKind, diagnose, process};

/// Time for the remote shell to end once its standard input is closed.
const RELEASE: Duration = Duration::from_secs(3);

/// An open session.
#[derive(Debug)]
struct Session {
    child: Child,
}

/// A held lock: the session, the thread that shows it signs of life, and the host's note of it.
struct Guard {
    session: Session,
    life: Option<(mpsc::Sender<()>, std::thread::JoinHandle<()>)>,
    held: Held,
}

impl LockGuard for Guard {}

impl Drop for Guard {
    /// Waits until the lock is free, so that the next stor does not find it held by one that has ended.
    fn drop(&mut self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some((end, thread)) = self.life.take() {
            drop(end);
            if thread.join().is_err() {
                tracing::warn!("the thread of a lock panicked");
            }
        }
        if let Err(error) = self.session.ended() {
            tracing::warn!(%error, "cannot end the session of a lock");
        }
    }
}

/// Writes a byte now and then until the sender is dropped; then standard input closes, and the lock goes.
fn show_life(mut stdin: ChildStdin) -> (mpsc::Sender<()>, std::thread::JoinHandle<()>) {
    let (end, ended) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        while ended.recv_timeout(batch::SIGN_OF_LIFE) == Err(mpsc::RecvTimeoutError::Timeout) {
            if let Err(error) = stdin.write_all(b".").and_then(|()| stdin.flush()) {
                // The next effect on the host finds out that the lock is lost.
                return tracing::warn!(%error, "the session of a lock ended early");
            }
        }
    });
    (end, thread)
}

impl Session {
    /// Waits for ssh to end by itself, not longer than [`RELEASE`], and tells its exit status.
    fn ended(&mut self) -> std::io::Result<Option<i32>> {
        let end = Instant::now() + RELEASE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(None)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        match self.child.try_wait() {
            Ok(Some(_)) => {}
            Ok(None) => {
                if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
                    tracing::warn!(%error, "cannot end the session of a lock");
                }
            }
            Err(error) => tracing::warn!(%error, "cannot wait for the session of a lock"),
        }
    }
}

/// Takes the lock and runs a batch under it, in one round trip.
pub(super) fn take(
    host: &SshHost,
    holder: &Holder,
    jobs: &[Job],
) -> Result<(Box<dyn LockGuard>, Vec<Ended>), HostError> {
    let file = format!("/run/stor/{}.lock", holder.cluster);
    let note = match holder.kind {
        LockKind::Exclusive => None,
        LockKind::Shared => Some(format!("{file}.shared.{}", uuid::Uuid::new_v4().simple())),
    };
    let lock = Lock { file, holder: holder.text.replace(char::is_control, " ").trim().to_owned(), note };
    let script = batch::script(jobs, Frame::Locked(&lock), host.driver());
    let mut stderr = process::scratch()?;
    let (mut session, replies) = open(host, script, &stderr)?;
    let limit = batch::time_limit(jobs) + MARGIN;
    let Ok((stdin, reply)) = replies.recv_timeout(limit) else {
        session.child.kill().map_err(|error| local("end ssh", error))?;
        host.forsake_master()?;
        let (host, command) = (host.id().clone(), "take the lock and observe".to_owned());
        return Err(HostError::Deadline { host, command, deadline: limit });
    };
    if matches!(reply, Ok(Some(Reply::Ended(_)))) {
        let ended = host.answers(reply, "observe", jobs.len(), None, "")?;
        *host.held().lock().unwrap_or_else(PoisonError::into_inner) = Some(lock);
        let guard = Guard { session, life: Some(show_life(stdin)), held: Held::clone(host.held()) };
        return Ok((Box::new(guard), ended));
    }
    // Without answers ssh has ended or is about to: its status and its message say why.
    drop(stdin);
    let status = session.ended().map_err(|error| local("wait for ssh", error))?;
    let said = process::tail(&mut stderr)?;
    match host.answers(reply, "observe", jobs.len(), status, &said) {
        Ok(_) => Err(diagnose::broke_off(host.id(), "observe", &said)),
        Err(error) => Err(error),
    }
}

/// The end of the pipe that keeps the session open, and what the host replied.
type Opened = (ChildStdin, Result<Option<Reply>, ReplyError>);

/// Starts the session; its reply arrives through a channel, so that waiting for it can have a deadline.
fn open(
    host: &SshHost,
    script: Vec<u8>,
    stderr: &File,
) -> Result<(Session, mpsc::Receiver<Opened>), HostError> {
    let stderr = stderr.try_clone().map_err(|error| local("open a temporary file", error))?;
    let mut child = host
        .session()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .map_err(|error| local("start ssh", error))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let session = Session { child };
    match (stdin, stdout) {
        (Some(stdin), Some(stdout)) => Ok((session, exchange(stdin, stdout, script))),
        _ => Err(local("start ssh", std::io::ErrorKind::BrokenPipe.into())),
    }
}

/// Sends the script and reads the reply in a thread of its own.
fn exchange(mut stdin: ChildStdin, stdout: ChildStdout, script: Vec<u8>) -> mpsc::Receiver<Opened> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let sent = stdin.write_all(&script).and_then(|()| stdin.flush());
        let reply = batch::read_reply(&mut BufReader::new(stdout));
        let reply = match (sent, reply) {
            // A host that answers before it has read everything refused for a reason that the answer gives.
            (Err(error), Ok(None)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(ReplyError::Short(error))
            }
            (_, reply) => reply,
        };
        // Once the deadline has passed nobody listens any more, and the end of the pipe is dropped here.
        if sender.send((stdin, reply)).is_err() {
            tracing::debug!("a lock's reply came after its deadline");
        }
    });
    receiver
}

fn local(action: &str, source: std::io::Error) -> HostError {
    HostError::Local { action: action.to_owned(), source }
}
