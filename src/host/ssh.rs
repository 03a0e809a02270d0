//! Hosts over OpenSSH: one master per host, one `sh -s` per call.
//!
//! Imports `model`. The script is in `batch`, the ssh configuration in `config`, the words for errors in
//! `diagnose`; what to ask or change is decided elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::batch::{self, Ended, Frame, Job, Lock, Reply, ReplyError};
use super::process::{self, Input};
use super::{Fleet, Holder, Host, HostError, LockGuard, config, diagnose, files, judge, lock, quote};
use crate::model::{Answer, BlockSpec, Command, FileSpec, HostId, Output, Query, Stdin};
use crate::model::{ClusterName, Driver, Elevation, HostSpec};

pub use super::config::{SshAccess, SshConfig};

/// Time that connecting, logging in and the way back may take besides the commands' own.
pub(super) const MARGIN: Duration = Duration::from_secs(config::CONNECT_TIMEOUT as u64 + 10);

/// ssh's own exit status when the connection failed (ssh(1), EXIT STATUS).
const SSH_FAILED: i32 = 255;

/// Prepares all hosts of a cluster; contacts none.
///
/// # Errors
/// [`HostError::Local`] when the ssh configuration cannot be written.
pub fn connect(
    cluster: &ClusterName,
    hosts: &BTreeMap<HostId, HostSpec>,
    access: &SshAccess,
    cap: usize,
) -> Result<(Fleet, SshConfig), HostError> {
    let written = config::write(cluster, hosts, access)?;
    let hosts = hosts.values().map(|spec| -> Arc<dyn Host> {
        Arc::new(SshHost {
            id: spec.id.clone(),
            config: written.config().to_owned(),
            elevation: config::elevation(spec, access),
            driver: spec.role.driver(),
            held: Held::default(),
        })
    });
    let fleet = Fleet::new(hosts, cap);
    Ok((fleet, written))
}

/// One host over ssh.
#[derive(Debug)]
pub struct SshHost {
    id: HostId,
    config: PathBuf,
    elevation: Elevation,
    driver: Option<Driver>,
    held: Held,
}

/// The lock that this stor holds on the host, shared with its guard.
pub(super) type Held = Arc<Mutex<Option<Lock>>>;

impl SshHost {
    /// What runs on the host: a shell that reads the script, as root. Constant, so that sudoers can name it.
    fn shell(&self) -> &'static str {
        match self.elevation {
            Elevation::Root => "exec sh -s",
            Elevation::Sudo => "exec sudo -n sh -s",
        }
    }

    /// Runs a batch in one round trip.
    fn batch(&self, jobs: &[Job], frame: Frame<'_>) -> Result<Vec<Ended>, HostError> {
        let limit = batch::time_limit(jobs);
        let script = batch::script(jobs, frame, self.driver);
        let ended = process::run(&self.config, &self.id, self.shell(), Input::Bytes(script), limit + MARGIN)?;
        self.understand(jobs, limit, &ended)
    }

    /// Runs one command, whatever its end.
    pub(super) fn one(&self, job: &Job) -> Result<Ended, HostError> {
        let mut ended = self.batch(std::slice::from_ref(job), Frame::Effect(self.lock_held().as_ref()))?;
        ended.pop().ok_or_else(|| self.protocol("no answer"))
    }

    /// Runs one command that must end with status 0.
    pub(super) fn effect(&self, job: Job) -> Result<Ended, HostError> {
        let ended = self.one(&job)?;
        match ended.status {
            Some(0) => Ok(ended),
            _ => Err(self.failed(&job, &ended)),
        }
    }

    /// The error of a command that did not end with status 0.
    pub(super) fn failed(&self, job: &Job, ended: &Ended) -> HostError {
        let text = if ended.stderr.trim_ascii().is_empty() { &ended.stdout } else { &ended.stderr };
        let (host, command) = (self.id.clone(), job.words.clone());
        match ended.status {
            None => HostError::Deadline { host, command, deadline: job.deadline },
            Some(status) => HostError::Failed {
                host,
                command,
                status: status.to_string(),
                stderr: super::last_lines(&String::from_utf8_lossy(text)),
            },
        }
    }

    fn understand(
        &self,
        jobs: &[Job],
        limit: Duration,
        ended: &process::Ended,
    ) -> Result<Vec<Ended>, HostError> {
        let words = jobs.first().map_or_else(String::new, |job| job.words.clone());
        if !ended.in_time {
            self.forsake_master()?;
            return Err(HostError::Deadline {
                host: self.id.clone(),
                command: words,
                deadline: limit + MARGIN,
            });
        }
        let reply = batch::read_reply(&mut ended.stdout.as_slice());
        self.answers(reply, &words, jobs.len(), ended.status, &ended.stderr)
    }

    /// Turns a reply into answers, or what went wrong into an error.
    pub(super) fn answers(
        &self,
        reply: Result<Option<Reply>, ReplyError>,
        words: &str,
        count: usize,
        status: Option<i32>,
        stderr: &str,
    ) -> Result<Vec<Ended>, HostError> {
        match reply {
            Ok(Some(Reply::Ended(ended))) if ended.len() == count => Ok(ended),
            Ok(Some(Reply::Ended(ended))) => {
                Err(self.protocol(format!("{} answers to {count} commands", ended.len())))
            }
            Ok(Some(Reply::Busy(holder))) => Err(HostError::Busy { host: self.id.clone(), holder }),
            Ok(Some(Reply::Lost)) => Err(HostError::LockLost { host: self.id.clone() }),
            Ok(Some(Reply::NotRoot)) => Err(HostError::Elevation {
                host: self.id.clone(),
                reason: "the login user is not root, and the file does not say `become: sudo`".to_owned(),
            }),
            Ok(Some(Reply::Failed(reason))) => {
                Err(self.protocol(format!("{reason} {}", super::last_lines(stderr))))
            }
            Ok(None) => Err(diagnose::no_reply(&self.id, self.elevation, status, stderr)),
            Err(error @ ReplyError::Silent) if status.is_some_and(|status| status != SSH_FAILED) => {
                Err(self.protocol(format!("{error}: {}", super::last_lines(stderr))))
            }
            Err(ReplyError::Short(_) | ReplyError::Silent) => {
                Err(diagnose::broke_off(&self.id, words, stderr))
            }
            Err(ReplyError::Malformed(reason)) => {
                Err(self.protocol(format!("{reason} {}", super::last_lines(stderr)).trim_end().to_owned()))
            }
        }
    }

    pub(super) fn protocol(&self, reason: impl Into<String>) -> HostError {
        HostError::Protocol { host: self.id.clone(), reason: reason.into() }
    }

    /// Prepares a command; a word with a NUL byte is refused, no shell and no exec could carry it.
    pub(super) fn job(&self, command: &Command) -> Result<Job, HostError> {
        let stdin = match &command.stdin {
            Stdin::Empty => None,
            Stdin::Text(text) => Some(text.clone().into_bytes()),
            Stdin::Secret(secret) => Some(secret.reveal().as_bytes().to_vec()),
        };
        let argv: Vec<String> =
            std::iter::once(command.program.to_owned()).chain(command.args.iter().cloned()).collect();
        if argv.iter().any(|word| word.contains('\0')) || stdin.as_ref().is_some_and(|text| text.contains(&0))
        {
            return Err(self.protocol(format!("`{}` has a NUL byte", command.program)));
        }
        Ok(Job { argv, stdin, deadline: command.deadline, words: command.to_string() })
    }

    fn jobs(&self, queries: &[Query]) -> Result<Vec<Job>, HostError> {
        queries.iter().map(|query| self.job(query.command())).collect()
    }

    /// An ssh that runs the shell, for a session that stays open.
    pub(super) fn session(&self) -> std::process::Command {
        process::long_lived(&self.config, &self.id, self.shell())
    }

    /// Runs a remote command other than the shell of a batch, with a file of this machine as its input.
    pub(super) fn stream(
        &self,
        script: &str,
        input: std::fs::File,
        job: &Job,
    ) -> Result<Vec<Ended>, HostError> {
        let prefix = match self.elevation {
            Elevation::Root => "",
            Elevation::Sudo => "sudo -n ",
        };
        let remote = format!("{prefix}sh -c {}", quote::word(script));
        let deadline = job.deadline + MARGIN;
        let ended = process::run(&self.config, &self.id, &remote, Input::File(input), deadline)?;
        self.understand(std::slice::from_ref(job), job.deadline, &ended)
    }

    /// Which of libvirt's drivers runs the host's guests, if it is a hypervisor.
    pub(super) fn driver(&self) -> Option<Driver> {
        self.driver
    }

    /// Where the lock that this stor holds on the host is kept.
    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// The lock that this stor holds on the host.
    pub(super) fn lock_held(&self) -> Option<Lock> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets no further session wait for a master whose connection may be dead; sessions under way go on.
    pub(super) fn forsake_master(&self) -> Result<(), HostError> {
        process::control(&self.config, &self.id, "stop").map(drop)
    }
}

/// Turns raw bytes into an answer.
fn answer(ended: Ended) -> Answer {
    Answer {
        status: ended.status,
        stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
    }
}

impl Host for SshHost {
    fn id(&self) -> &HostId {
        &self.id
    }

    fn query(&self, batch: &[Query]) -> Result<Vec<Answer>, HostError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let ended = self.batch(&self.jobs(batch)?, Frame::Queries)?;
        Ok(ended.into_iter().map(answer).collect())
    }

    fn lock(&self, holder: &Holder, batch: &[Query]) -> Result<(Box<dyn LockGuard>, Vec<Answer>), HostError> {
        let (guard, ended) = lock::take(self, holder, &self.jobs(batch)?)?;
        Ok((guard, ended.into_iter().map(answer).collect()))
    }

    fn holds_lock(&self) -> Result<(), HostError> {
        match self.lock_held() {
            Some(lock) => self.batch(&[], Frame::Effect(Some(&lock))).map(drop),
            None => Ok(()),
        }
    }

    fn run(&self, command: &Command) -> Result<Output, HostError> {
        judge(&self.id, command, answer(self.one(&self.job(command)?)?))
    }

    fn write_file(&self, file: &FileSpec) -> Result<(), HostError> {
        files::write(self, file)
    }

    fn feed(&self, command: &Command, source: &Path) -> Result<Output, HostError> {
        judge(&self.id, command, answer(files::feed(self, command, source)?))
    }

    fn edit_block(&self, block: &BlockSpec, keys: &[String]) -> Result<(), HostError> {
        files::edit_block(self, block, keys)
    }
}
