//! What the lab remembers between two runs of stor: its record, the lock on it, and which process runs which host.

use std::{
    fs::{self, File, Permissions},
    io::{ErrorKind, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::wait::{WaitPidFlag, waitpid},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use super::{LabError, LabHost, settings::LabFiles};
use crate::model::{ClusterName, HostId};

/// What a lab consists of, kept as `lab.json` from before the first host starts until the lab is down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// The lab.
    pub name: ClusterName,
    /// The root that its hosts are layers over.
    pub root: PathBuf,
    /// Its hosts, sorted by name.
    pub hosts: Vec<LabHost>,
}

impl Record {
    /// Reads a lab's record; `None` when there is no such lab.
    ///
    /// # Errors
    /// [`LabError::System`] when the file cannot be read, [`LabError::State`] when it cannot be understood.
    pub fn load(files: &LabFiles) -> Result<Option<Self>, LabError> {
        let path = files.record();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LabError::system(format!("read {}", path.display()))(error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|source| LabError::State { path, source })
    }

    /// Writes the record, replacing an older one as a whole.
    ///
    /// # Errors
    /// [`LabError::System`].
    pub fn save(&self, files: &LabFiles) -> Result<(), LabError> {
        let path = files.record();
        let text = serde_json::to_vec_pretty(self)
            .map_err(|source| LabError::State { path: path.clone(), source })?;
        write_atomically(&path, &text)
    }

    /// One of the lab's hosts.
    pub fn host(&self, id: &HostId) -> Option<&LabHost> {
        self.hosts.iter().find(|host| host.id == *id)
    }
}

/// How long a lock may stay taken after its owner was killed: a child that was just being started holds it too, until it
/// becomes another program.
const HANDOVER: Duration = Duration::from_secs(1);

/// Takes the lab for the caller alone; given back when dropped. The directory must exist.
///
/// # Errors
/// [`LabError::Busy`] when another process has it.
pub(super) fn lock(lab: &ClusterName, files: &LabFiles) -> Result<Flock<File>, LabError> {
    let directory = &files.directory;
    let action = || format!("lock {}", directory.display());
    let mut file = File::open(directory).map_err(LabError::system(action()))?;
    let opened = file.metadata().map_err(LabError::system(action()))?.ino();
    let deadline = Instant::now() + HANDOVER;
    let lock = loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => break lock,
            Err((same, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = same,
            Err((_, Errno::EWOULDBLOCK)) => return Err(LabError::Busy { lab: lab.clone() }),
            Err((_, errno)) => return Err(LabError::errno(action())(errno)),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // A `down` may have removed the directory between opening and locking.
    match fs::metadata(directory) {
        Ok(now) if now.ino() == opened => Ok(lock),
        _ => Err(LabError::Busy { lab: lab.clone() }),
    }
}

/// A process told apart from every later one with the same number by the time of its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Process {
    pid: i32,
    /// In clock ticks since the machine's start: field 22 of /proc/PID/stat (proc_pid_stat(5)).
    started: u64,
}

impl Process {
    /// Identifies a process that exists.
    ///
    /// # Errors
    /// [`LabError::System`] when it does not exist.
    pub fn identify(number: u32) -> Result<Self, LabError> {
        let pid = i32::try_from(number).ok();
        let found = pid.and_then(|pid| start_of(pid).map(|started| Self { pid, started }));
        found
            .ok_or_else(|| LabError::system(format!("identify process {number}"))(ErrorKind::NotFound.into()))
    }

    /// Reads what [`Process::save`] wrote; `None` when nothing usable is there.
    pub fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Writes it to a file.
    ///
    /// # Errors
    /// [`LabError::System`].
    pub fn save(&self, path: &Path) -> Result<(), LabError> {
        let text = serde_json::to_vec(self)
            .map_err(|source| LabError::State { path: path.to_path_buf(), source })?;
        write_atomically(path, &text)
    }

    /// Its number.
    pub fn pid(self) -> Pid {
        Pid::from_raw(self.pid)
    }

    /// Tells whether it still runs. Collects it when it ended and was started by this very process.
    pub fn is_alive(self) -> bool {
        // ECHILD: not a child of ours, nothing to collect.
        let collected = waitpid(self.pid(), Some(WaitPidFlag::WNOHANG));
        tracing::trace!(pid = self.pid, ?collected, "looked at process");
        start_of(self.pid) == Some(self.started)
    }
}

/// When a process started; `None` when there is none, or only what its parent has not collected.
fn start_of(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; fields are counted after its end, which is field 2.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The names in a directory, sorted; none when it does not exist.
///
/// # Errors
/// [`LabError::System`] when it cannot be read.
pub(super) fn directory_names(path: &Path) -> Result<Vec<String>, LabError> {
    let action = || format!("list {}", path.display());
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LabError::system(action())(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(LabError::system(action()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Makes a directory with its parents and gives it its mode, whatever the caller's umask.
///
/// # Errors
/// [`LabError::System`].
pub(super) fn make_directory(path: &Path, mode: u32) -> Result<(), LabError> {
    let action = || format!("make directory {}", path.display());
    fs::create_dir_all(path).map_err(LabError::system(action()))?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(LabError::system(action()))
}

/// Writes a file and gives it its mode, whatever the caller's umask.
///
/// # Errors
/// [`LabError::System`].
pub(super) fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) -> Result<(), LabError> {
    let action = || format!("write {}", path.display());
    fs::write(path, content).map_err(LabError::system(action()))?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(LabError::system(action()))
}

/// Removes a file or a whole directory; one that is not there is fine.
///
/// # Errors
/// [`LabError::System`].
pub(super) fn remove(path: &Path) -> Result<(), LabError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.map_err(LabError::system(format!("remove {}", path.display()))),
    }
}

/// Removes a directory if nothing is in it.
///
/// # Errors
/// [`LabError::System`] when it is empty and still cannot be removed.
pub(super) fn remove_if_empty(path: &Path) -> Result<(), LabError> {
    match fs::remove_dir(path) {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
            Err(LabError::system(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

fn write_atomically(path: &Path, content: &[u8]) -> Result<(), LabError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(content)?;
        file.persist(path).map_err(|error| error.error)
    };
    write().map(drop).map_err(LabError::system(format!("write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_alive_and_a_reused_number_is_not() {
        let me = Process::identify(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(!Process { started: me.started + 1, ..me }.is_alive());
    }

    #[test]
    fn second_lock_on_a_lab_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let files = LabFiles { directory: directory.path().into() };
        let lab = ClusterName::new("x").unwrap();
        let first = lock(&lab, &files).unwrap();
        assert!(matches!(lock(&lab, &files), Err(LabError::Busy { .. })));
        drop(first);
        assert!(lock(&lab, &files).is_ok());
    }

    #[test]
    fn record_reads_back_as_saved_and_unknown_fields_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let files = LabFiles { directory: directory.path().into() };
        assert_eq!(Record::load(&files).unwrap(), None);
        let hosts = vec![LabHost {
            id: HostId::new("kvm1").unwrap(),
            address: [10, 1, 1, 1].into(),
            hypervisor: true,
        }];
        let record = Record { name: ClusterName::new("x").unwrap(), root: "/r".into(), hosts };
        record.save(&files).unwrap();
        assert_eq!(Record::load(&files).unwrap(), Some(record));
        fs::write(files.record(), r#"{"name":"x","root":"/r","hosts":[],"other":1}"#).unwrap();
        assert!(matches!(Record::load(&files), Err(LabError::State { .. })));
    }
}
