//! Control groups: each host has its own, so that nothing of it escapes, whoever runs the groups on this machine.
//!
//! Where systemd runs this machine with cgroup v2, a host is a transient scope with delegation. Elsewhere (an init that
//! is not systemd, a container, cgroup v1 with the v2 tree beside it) stor makes the groups itself.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::{LabError, names, state};
use crate::model::{ClusterName, HostId};

/// The place where a machine mounts its control groups.
pub(super) const MOUNT: &str = "/sys/fs/cgroup";

/// Who makes the groups on this machine, and where the cgroup v2 tree is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Groups {
    /// systemd, asked by systemd-run.
    Systemd,
    /// stor.
    Own {
        /// Where the tree is mounted.
        tree: PathBuf,
    },
}

/// Moving this process into a group and out again concerns all its threads.
static MOVING: Mutex<()> = Mutex::new(());

impl Groups {
    /// Finds out how this machine does it.
    ///
    /// # Errors
    /// [`LabError::Unsupported`] when no cgroup v2 tree is mounted.
    pub fn find() -> Result<Self, LabError> {
        let is_tree =
            |path: &Path| statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC);
        let [unified, hybrid] = [PathBuf::from(MOUNT), Path::new(MOUNT).join("unified")];
        if is_tree(&unified) {
            let systemd = Path::new("/run/systemd/system").is_dir();
            return Ok(if systemd { Self::Systemd } else { Self::Own { tree: unified } });
        }
        if is_tree(&hybrid) {
            return Ok(Self::Own { tree: hybrid });
        }
        Err(LabError::Unsupported {
            what: "control groups version 2",
            hint: "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
            source: ErrorKind::NotFound.into(),
        })
    }

    /// The groups of the lab's hosts that exist, sorted.
    ///
    /// # Errors
    /// [`LabError::System`] when the tree cannot be read.
    pub fn existing(&self, lab: &ClusterName) -> Result<Vec<PathBuf>, LabError> {
        let parent = self.parent(lab);
        let mut found = state::directory_names(&parent)?;
        match self {
            Self::Systemd => found.retain(|name| names::host_of_scope(lab, name).is_some()),
            Self::Own { .. } => found.retain(|name| parent.join(name).is_dir()),
        }
        Ok(found.into_iter().map(|name| parent.join(name)).collect())
    }

    /// One host's group.
    pub fn host(&self, lab: &ClusterName, host: &HostId) -> PathBuf {
        match self {
            Self::Systemd => self.parent(lab).join(names::scope(lab, host.as_str())),
            Self::Own { .. } => self.parent(lab).join(host.as_str()),
        }
    }

    /// Removes the group that holds the hosts' groups, if stor made it.
    ///
    /// # Errors
    /// [`LabError::System`].
    pub fn remove_parent(&self, lab: &ClusterName) -> Result<(), LabError> {
        match self {
            Self::Systemd => Ok(()),
            Self::Own { .. } => remove(&self.parent(lab)),
        }
    }

    fn parent(&self, lab: &ClusterName) -> PathBuf {
        match self {
            Self::Systemd => Path::new(MOUNT).join("system.slice"),
            Self::Own { tree } => tree.join(names::group(lab)),
        }
    }

    /// Prepares to start processes in a host's group; to be called before the caller changes its mounts.
    ///
    /// # Errors
    /// [`LabError::System`] when the group cannot be made.
    pub fn entrance(&self, lab: &ClusterName, host: &HostId) -> Result<Entrance, LabError> {
        let Self::Own { tree } = self else {
            return Ok(Entrance { there_and_back: None });
        };
        let group = self.host(lab, host);
        fs::create_dir_all(&group)
            .map_err(LabError::system(format!("make control group {}", group.display())))?;
        let open = |group: &Path| {
            let path = group.join("cgroup.procs");
            OpenOptions::new()
                .write(true)
                .open(&path)
                .map_err(LabError::system(format!("open {}", path.display())))
        };
        let own =
            fs::read_to_string("/proc/self/cgroup").map_err(LabError::system("read /proc/self/cgroup"))?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        Ok(Entrance { there_and_back: Some((open(&group)?, open(&tree.join(own))?)) })
    }
}

/// The way into a host's group.
#[derive(Debug)]
pub(super) struct Entrance {
    there_and_back: Option<(File, File)>,
}

impl Entrance {
    /// Runs `start`, whose child processes are born in the group.
    ///
    /// This process itself goes there and comes back: without `unsafe` there is no other way to have a child begin in
    /// a group, and systemd-nspawn must not begin elsewhere. Where systemd makes the group, systemd-run does that.
    ///
    /// # Errors
    /// What `start` returns, or [`LabError::System`] when the kernel refuses to move this process.
    pub fn born_inside<T>(self, start: impl FnOnce() -> Result<T, LabError>) -> Result<T, LabError> {
        let Some((mut there, mut back)) = self.there_and_back else {
            return start();
        };
        let _alone = MOVING.lock().unwrap_or_else(PoisonError::into_inner);
        there.write_all(b"0").map_err(LabError::system("enter the host's control group"))?;
        let result = start();
        back.write_all(b"0").map_err(LabError::system("leave the host's control group"))?;
        result
    }
}

/// The processes in a group and the groups below it, sorted; none when it does not exist.
pub(super) fn processes(group: &Path) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    for group in below(group) {
        // A group that vanishes meanwhile has no processes.
        let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        found.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    found
}

/// Kills every process in a group and the groups below it at once (cgroup.kill, Linux 5.14).
///
/// # Errors
/// [`LabError::System`] when the kernel refuses.
pub(super) fn kill(group: &Path) -> Result<(), LabError> {
    match fs::write(group.join("cgroup.kill"), "1") {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(LabError::system(format!("kill the processes of {}", group.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Removes a group and the groups below it; processes that are ending get two seconds.
///
/// # Errors
/// [`LabError::System`] when processes remain.
pub(super) fn remove(group: &Path) -> Result<(), LabError> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let failed = below(group).into_iter().rev().find_map(|group| match fs::remove_dir(&group) {
            Err(error) if error.kind() != ErrorKind::NotFound => Some((group, error)),
            _ => None,
        });
        match failed {
            None => return Ok(()),
            Some((group, error)) if Instant::now() >= deadline => {
                return Err(LabError::system(format!("remove control group {}", group.display()))(error));
            }
            Some(_) => sleep(Duration::from_millis(20)),
        }
    }
}

/// A group and all below it, each after its parent.
fn below(group: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![group.to_path_buf()];
    while let Some(group) = open.pop() {
        // A group that vanishes meanwhile has nothing below it.
        let Ok(entries) = fs::read_dir(&group) else { continue };
        open.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
        found.push(group);
    }
    found
}
