//! Hosts: the only place that starts a process or quotes a word.
//!
//! [`Host`] is one machine as stor reaches it; [`Fleet`] all of them. Imports `model` and `spec` (how to log in).
//! What to ask or run is decided elsewhere.

mod batch;
pub mod block;
pub mod claim;
mod config;
mod diagnose;
pub mod fake;
mod files;
pub mod local;
mod lock;
mod process;
pub mod quote;
pub mod secrets;
pub mod ssh;
pub mod virsh;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Answer, BlockSpec, Command, FileSpec, HostId, Output, Query};

/// Says what went wrong on one host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// ssh could not log in, or the connection broke.
    #[error("host {host}: cannot be reached over ssh: {reason}")]
    Unreachable {
        /// The host.
        host: HostId,
        /// The last lines of ssh's own message.
        reason: String,
        /// What the user can do.
        hint: Option<String>,
    },
    /// The login worked, but commands cannot become root.
    #[error("host {host}: cannot become root: {reason}")]
    Elevation {
        /// The host.
        host: HostId,
        /// sudo's own message.
        reason: String,
    },
    /// Another stor holds the host's lock.
    #[error("host {host}: busy: {holder} holds the lock")]
    Busy {
        /// The host.
        host: HostId,
        /// Who holds it, since when.
        holder: String,
    },
    /// The lock that this stor held is gone: the connection that held it ended.
    #[error("host {host}: the lock was lost, so nothing more is done: another stor may be at work there")]
    LockLost {
        /// The host.
        host: HostId,
    },
    /// A command ended with a status other than 0.
    #[error("host {host}: `{command}` exited {status}: {stderr}")]
    Failed {
        /// The host.
        host: HostId,
        /// Its words (stdin is never shown).
        command: String,
        /// Exit status, or `killed`.
        status: String,
        /// The end of its standard error, or of its output when that is empty.
        stderr: String,
    },
    /// A command or a whole round did not end in time and was killed.
    #[error("host {host}: `{command}` did not finish within {}", humantime::format_duration(*deadline))]
    Deadline {
        /// The host.
        host: HostId,
        /// Its words.
        command: String,
        /// The deadline.
        deadline: Duration,
    },
    /// ssh or another local program could not be started, or a local file could not be used.
    #[error("cannot {action}")]
    Local {
        /// What was being done.
        action: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The host answered something that the protocol between stor and its shell does not allow.
    #[error("host {host}: unexpected answer: {reason}")]
    Protocol {
        /// The host.
        host: HostId,
        /// What was wrong.
        reason: String,
    },
}

/// Turns how a command ended into the result of [`Host::run`].
///
/// # Errors
/// [`HostError::Failed`] for a status other than 0, [`HostError::Deadline`] when it was killed.
pub(crate) fn judge(host: &HostId, command: &Command, ended: Answer) -> Result<Output, HostError> {
    match ended.status {
        Some(0) => Ok(Output { stdout: ended.stdout, stderr: ended.stderr }),
        Some(status) => Err(HostError::Failed {
            host: host.clone(),
            command: command.to_string(),
            status: status.to_string(),
            stderr: last_lines(if ended.stderr.trim().is_empty() { &ended.stdout } else { &ended.stderr }),
        }),
        None => Err(HostError::Deadline {
            host: host.clone(),
            command: command.to_string(),
            deadline: command.deadline,
        }),
    }
}

/// Lines of a command's output that an error shows.
const SHOWN_LINES: usize = 5;

/// The last few lines that hold anything, joined by `; `: why a program failed stands at the end.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("; ")
}

/// Whom a lock keeps away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Everybody: apply, destroy and cold moves.
    Exclusive,
    /// Whoever takes it exclusively: live moves go on beside each other.
    Shared,
}

/// Who asks for a host's lock; shown to whoever comes second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The cluster; one lock per cluster and host.
    pub cluster: crate::model::ClusterName,
    /// Whom it keeps away.
    pub kind: LockKind,
    /// `stor apply by alice@admin, process 4711, since 2026-11-21T01:02:03Z`.
    pub text: String,
}

/// A held lock; dropped, it is free again. Also freed by the host when the connection or stor dies.
pub trait LockGuard: Send {}

/// One machine as stor reaches it. Every call is blocking and has a deadline.
pub trait Host: Send + Sync {
    /// Its name.
    fn id(&self) -> &HostId;
    /// Runs a batch of queries in one round trip, each under its own deadline; answers in the order of the batch.
    ///
    /// # Errors
    /// [`HostError`] when the host as a whole could not be asked. A query that fails is an answer.
    fn query(&self, batch: &[Query]) -> Result<Vec<Answer>, HostError>;
    /// Takes the host's lock and runs a batch under it, in the same round trip.
    ///
    /// # Errors
    /// [`HostError::Busy`] when somebody else holds it; otherwise as [`Host::query`].
    fn lock(&self, holder: &Holder, batch: &[Query]) -> Result<(Box<dyn LockGuard>, Vec<Answer>), HostError>;
    /// Proves that the lock that this stor took is still held; nothing to prove when it took none. What changes something
    /// by another way than this trait (libvirt) asks before; what goes through this trait asks by itself.
    ///
    /// # Errors
    /// [`HostError::LockLost`] when it is gone, and the other kinds when the host cannot tell.
    fn holds_lock(&self) -> Result<(), HostError>;
    /// Runs a command.
    ///
    /// # Errors
    /// [`HostError::Failed`] when it ends with a status other than 0, and the other kinds.
    fn run(&self, command: &Command) -> Result<Output, HostError>;
    /// Writes a file atomically: temporary file in the same directory, fsync, rename, fsync of the directory.
    ///
    /// # Errors
    /// [`HostError`]; the old file is then intact.
    fn write_file(&self, file: &FileSpec) -> Result<(), HostError>;
    /// Runs a command whose standard input is a file of this machine, with the file's length as one more argument: a connection
    /// that breaks ends standard input like a whole file does.
    ///
    /// # Errors
    /// As [`Host::run`], and [`HostError::Local`] when the file cannot be read.
    fn feed(&self, command: &Command, source: &std::path::Path) -> Result<Output, HostError>;
    /// Sets or removes a marked block; every other byte of the file stays.
    ///
    /// `keys` holds the public keys for the block's lines that name a key of another host, in order.
    ///
    /// # Errors
    /// [`HostError`]; the old file is then intact.
    fn edit_block(&self, block: &BlockSpec, keys: &[String]) -> Result<(), HostError>;
}

/// All hosts of a cluster, asked in parallel with a cap.
#[derive(Clone)]
pub struct Fleet {
    hosts: BTreeMap<HostId, Arc<dyn Host>>,
    cap: usize,
}

/// Hosts worked on at once unless the user says otherwise.
pub const PARALLEL_HOSTS: usize = 32;

impl Fleet {
    /// Makes a fleet; at most `cap` hosts are worked on at once.
    #[must_use]
    pub fn new(hosts: impl IntoIterator<Item = Arc<dyn Host>>, cap: usize) -> Self {
        let hosts = hosts.into_iter().map(|host| (host.id().clone(), host)).collect();
        Self { hosts, cap: cap.max(1) }
    }

    /// One host; `None` when the cluster has no host of this name.
    #[must_use]
    pub fn host(&self, id: &HostId) -> Option<&Arc<dyn Host>> {
        self.hosts.get(id)
    }

    /// All hosts' names, sorted.
    pub fn ids(&self) -> impl Iterator<Item = &HostId> {
        self.hosts.keys()
    }

    /// Runs `work` once for each key, at most `cap` at once, and collects all results, sorted by key.
    pub fn each<K, T, F>(&self, keys: &[K], work: F) -> BTreeMap<K, T>
    where
        K: Ord + Clone + Send + Sync,
        T: Send,
        F: Fn(&K) -> T + Sync,
    {
        use std::sync::Mutex;
        use std::sync::atomic::{AtomicUsize, Ordering};
        let next = AtomicUsize::new(0);
        let done = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..self.cap.min(keys.len()) {
                scope.spawn(|| {
                    while let Some(key) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = work(key);
                        done.lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner)
                            .insert(key.clone(), result);
                    }
                });
            }
        });
        done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
