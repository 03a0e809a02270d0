//! Takes a lab down to nothing: no process, mount, namespace, control group or file of it stays.
//!
//! Works from what is found, not from what should be there, so that it also clears what a killed `up` left.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    LabError, LabEvent,
    group::{self, Groups},
    names, network, prerequisites, process,
    process::word,
    settings::{LabFiles, Settings},
    state::{self, Process},
};
use crate::model::{ClusterName, Command, HostId};

/// How long the hosts' systemd may take to shut down before everything in them is killed.
///
/// It needs half a second, which gives back what the kernel holds for a host. Only a daemon that misses the signal needs
/// longer, as libvirtd 11.3 does while it starts; nothing of it is worth waiting for.
const SHUTDOWN: Duration = Duration::from_secs(4);

/// How long processes may take to end once they were told to.
const ENDING: Duration = Duration::from_secs(3);

/// Whether there was a lab to take down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// There was, or parts of one.
    Removed,
    /// There was nothing.
    NothingThere,
}

/// Takes down the lab of this name, or what is left of it, with all its data.
///
/// # Errors
/// [`LabError::Busy`] when another stor is changing it; [`LabError::Survivors`] and [`LabError::System`] when
/// something cannot be removed. It can be called again.
pub fn down(
    lab: &ClusterName,
    settings: &Settings,
    progress: &mut dyn FnMut(LabEvent),
) -> Result<Down, LabError> {
    prerequisites::check_root()?;
    settings.check()?;
    let groups = Groups::find()?;
    let files = settings.lab(lab);
    let control = names::control_directory(lab);
    let switch = names::switch_namespace(lab);
    let namespaces = network::host_namespaces(lab)?;
    let there = files.directory.is_dir();
    let nothing = !there
        && namespaces.is_empty()
        && !control.exists()
        && !names::namespace_file(&switch).exists()
        && groups.existing(lab)?.is_empty();
    if nothing {
        groups.remove_parent(lab)?;
        return Ok(Down::NothingThere);
    }
    let _lock = there.then(|| state::lock(lab, &files)).transpose()?;

    end_masters(&control)?;
    stop_hosts(lab, &groups, &files, progress)?;
    let mut all = namespaces;
    all.push(switch);
    end_processes(lab, || processes_in(&all))?;
    for namespace in &all {
        network::remove(namespace)?;
    }
    state::remove(&control)?;
    if let Some(parent) = control.parent() {
        state::remove_if_empty(parent)?;
    }
    state::remove(&files.directory)?;
    state::remove_if_empty(&settings.labs)?;
    Ok(Down::Removed)
}

/// Ends what runs in one host's group, if anything does, and removes the group: a host about to start must be alone.
///
/// # Errors
/// [`LabError::System`].
pub(super) fn clear_group(group: &Path) -> Result<(), LabError> {
    group::kill(group)?;
    let deadline = Instant::now() + ENDING;
    while !group::processes(group).is_empty() && Instant::now() < deadline {
        sleep(Duration::from_millis(20));
    }
    group::remove(group)
}

/// Asks the ssh masters of the lab to end; they may serve another stor that is about to lose the lab anyway.
fn end_masters(control: &Path) -> Result<(), LabError> {
    for name in state::directory_names(control)? {
        let socket = control.join(name);
        let is_socket = fs::symlink_metadata(&socket).is_ok_and(|found| found.file_type().is_socket());
        if is_socket {
            let path = format!("-oControlPath={}", word(&socket));
            let ended =
                process::succeeds(&Command::new("ssh").args(["-F", "none", "-O", "exit", &path, "lab"]))?;
            tracing::debug!(socket = %socket.display(), ended, "ssh master");
        }
    }
    Ok(())
}

/// Shuts all hosts down together, and kills what has not ended in time.
fn stop_hosts(
    lab: &ClusterName,
    groups: &Groups,
    files: &LabFiles,
    progress: &mut dyn FnMut(LabEvent),
) -> Result<(), LabError> {
    let mut running = Vec::new();
    for name in state::directory_names(&files.hosts())? {
        let Ok(host) = HostId::new(name) else { continue };
        let saved = Process::load(&files.host(&host).process());
        if let Some(process) = saved.filter(|process| process.is_alive()) {
            // nspawn passes it on as "power off"; the process may have ended meanwhile.
            signal(process.pid(), Signal::SIGTERM)?;
            running.push((host, process));
        }
    }
    let deadline = Instant::now() + SHUTDOWN;
    while !running.is_empty() && Instant::now() < deadline {
        sleep(Duration::from_millis(50));
        running.retain(|(host, process)| {
            let alive = process.is_alive();
            if !alive {
                progress(LabEvent::HostStopped { host: host.clone() });
            }
            alive
        });
    }
    for group in groups.existing(lab)? {
        clear_group(&group)?;
    }
    groups.remove_parent(lab)?;
    // What never reached its group, because `up` was killed in between.
    let left: Vec<_> = running.into_iter().map(|(_, process)| process).collect();
    end_processes(lab, || {
        left.iter().filter(|process| process.is_alive()).map(|process| process.pid()).collect()
    })
}

/// Ends the processes that `find` gives, asked first and then killed, until it gives none.
fn end_processes(lab: &ClusterName, find: impl Fn() -> BTreeSet<Pid>) -> Result<(), LabError> {
    for how in [Signal::SIGTERM, Signal::SIGKILL] {
        for pid in find() {
            signal(pid, how)?;
        }
        let deadline = Instant::now() + ENDING;
        while Instant::now() < deadline {
            if find().is_empty() {
                return Ok(());
            }
            sleep(Duration::from_millis(20));
        }
    }
    match find() {
        left if left.is_empty() => Ok(()),
        left => {
            Err(LabError::Survivors { lab: lab.clone(), pids: left.into_iter().map(Pid::as_raw).collect() })
        }
    }
}

/// The processes that stand in one of the namespaces, except this one.
fn processes_in(namespaces: &[String]) -> BTreeSet<Pid> {
    let identity = |path: PathBuf| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let wanted: BTreeSet<_> =
        namespaces.iter().filter_map(|name| identity(names::namespace_file(name))).collect();
    let Ok(processes) = fs::read_dir("/proc") else { return BTreeSet::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .filter(|pid| *pid != Pid::this())
        // Processes that end meanwhile have no namespace any more.
        .filter(|pid| {
            identity(format!("/proc/{pid}/ns/net").into()).is_some_and(|found| wanted.contains(&found))
        })
        .collect()
}

fn signal(pid: Pid, signal: Signal) -> Result<(), LabError> {
    match kill(pid, signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(LabError::errno(format!("end process {pid}"))(errno)),
    }
}
