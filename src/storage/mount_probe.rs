//! Probes of a mounted directory: the commands, and pure readers of what they print ([`seen`], [`mount_table`]).
//!
//! Every backend that is mounted uses these (GlusterFS through FUSE, NFS through the kernel). The scripts beside this
//! file are constant texts; values come as their positional parameters, so no value is ever shell text. Each script
//! that writes first enters the directory, only if it is the right mount, and then works relative to it. Imports
//! `model` and `probe`. What the answers mean together is judged in `verify`.

pub mod mount_table;
pub mod seen;

use std::time::Duration;

use super::probe::MountedDirectory;
use crate::model::{ClusterName, Command, HostId, Query};

/// Deadline of one probe on one host: what a hung mount costs at most.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(5);
/// Time after which a lock on a probe file ends by itself if stor does not end it.
const HOLD_SECONDS: u32 = 20;

const WRITE: &str = concat!(include_str!("mount_probe/enter.sh"), include_str!("mount_probe/write.sh"));
const READ: &str = concat!(include_str!("mount_probe/enter.sh"), include_str!("mount_probe/read.sh"));
const RELEASE: &str = concat!(include_str!("mount_probe/enter.sh"), include_str!("mount_probe/release.sh"));
const MOUNTED: &str = include_str!("mount_probe/mounted.sh");
const REMOVE: &str = concat!(include_str!("mount_probe/enter.sh"), include_str!("mount_probe/remove.sh"));

/// Name of the probe file of one host in one run, at the top of the storage.
///
/// The run is part of it: a client may still know an earlier file of the same name (FUSE keeps names for a second) and
/// would answer "Stale file handle"; and two runs at once do not meet.
#[must_use]
pub fn probe_file(cluster: &ClusterName, host: &HostId, run: &str) -> String {
    format!(".stor-probe-{cluster}-{host}.{run}")
}

/// The user that QEMU runs as, and whether libvirt gives it the images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// User name or number.
    pub user: String,
    /// Group name or number.
    pub group: String,
}

/// What one host is to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// Images, by file name.
    pub images: Vec<String>,
    /// Other hosts' probe files to read.
    pub nonces: Vec<String>,
    /// Other hosts' locks to try.
    pub locks: Vec<Rival>,
}

/// A lock that another host holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// The host.
    pub host: HostId,
    /// Its probe file.
    pub file: String,
    /// The kind of lock, as [`seen::Hold`] tells it.
    pub kind: String,
}

impl Rival {
    fn word(&self) -> String {
        format!("{}:{}", self.kind, self.file)
    }
}

fn script(name: &'static str, text: &'static str, directory: &MountedDirectory) -> Command {
    Command::new("sh")
        .args(["-c", text, name, directory.path.as_str(), directory.fs_type])
        .arg(directory.sources.join(" "))
        .deadline(PROBE_DEADLINE)
}

/// Asks for the kernel's mount table; never hangs, whatever the mounts do.
#[must_use]
pub fn mounts() -> Query {
    Query::new(Command::new("cat").arg("/proc/self/mountinfo"))
}

/// Fails, with the reason, unless the storage is mounted where it belongs: for a step that would otherwise write somewhere else.
#[must_use]
pub fn mounted(directory: &MountedDirectory) -> Command {
    script("stor-mounted", MOUNTED, directory)
}

/// Writes a nonce into the host's own probe file and leaves a lock on it behind.
#[must_use]
pub fn write(directory: &MountedDirectory, probe: &str, nonce: &str) -> Query {
    let command = script("stor-probe-write", WRITE, directory);
    Query::probe(command.args([probe, nonce]).arg(HOLD_SECONDS.to_string()))
}

/// Looks at images and at other hosts' probe files, and tries access as `actor`, if it is known.
#[must_use]
pub fn read(directory: &MountedDirectory, probe: &str, actor: Option<&Actor>, reading: &Reading) -> Query {
    let xattrs: Vec<&str> = directory.identity.into_iter().chain(directory.split_brain).collect();
    let (user, group) = actor.map_or(("", ""), |actor| (actor.user.as_str(), actor.group.as_str()));
    let command = script("stor-probe-read", READ, directory)
        .args([user, group, probe])
        .arg(xattrs.join(" "))
        .args(reading.images.iter().map(|name| format!("i:{name}")))
        .args(reading.nonces.iter().map(|name| format!("p:{name}")))
        .args(reading.locks.iter().map(|rival| format!("l:{}", rival.word())));
    Query::probe(command)
}

/// Ends the lock on the host's own probe file (`pid` as [`write`] told, if it did), then waits for others to be free.
#[must_use]
pub fn release(directory: &MountedDirectory, probe: &str, pid: Option<u32>, locks: &[Rival]) -> Query {
    let command = script("stor-probe-release", RELEASE, directory);
    Query::probe(command.arg(probe).arg(pid.unwrap_or(0).to_string()).args(locks.iter().map(Rival::word)))
}

/// Removes the host's own probe file.
#[must_use]
pub fn remove(directory: &MountedDirectory, probe: &str) -> Query {
    Query::probe(script("stor-probe-remove", REMOVE, directory).arg(probe))
}
