//! Starts one host: its file system, its control group, its container with systemd as PID 1.
//!
//! The argument vector is pure; [`start`] does the rest.

use std::{fs, path::Path};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::statfs::{CGROUP2_SUPER_MAGIC, statfs},
};

use super::{
    LabError,
    group::{self, Groups},
    names, process,
    process::word,
    settings::HostFiles,
    state::{self, Process},
};
use crate::model::{ClusterName, Command, HostId};

/// Where systemd-nspawn keeps locks and directories of the containers that it runs.
const NSPAWN_STATE: &str = "/run/systemd/nspawn";

/// The words that run one host until it stops.
fn container(groups: &Groups, lab: &ClusterName, host: &HostId, files: &HostFiles) -> Command {
    let command = match groups {
        Groups::Systemd => Command::new("systemd-run")
            .args(["--scope", "--quiet", "--collect", "--property=Delegate=yes"])
            .arg(format!("--unit={}", names::scope(lab, host.as_str())))
            .arg("env"),
        Groups::Own { .. } => Command::new("env"),
    };
    command
        // The hosts' systemd wants cgroup v2 whatever this machine runs on; the filter costs gluster and QEMU calls
        // that a real host has.
        .args(["SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "SYSTEMD_SECCOMP=0"])
        .args(["systemd-nspawn", "--quiet", "--settings=no", "--boot", "--register=no", "--keep-unit"])
        .arg(format!("--machine={}", names::machine(lab, host)))
        .arg(format!("--hostname={host}"))
        .arg(format!("--directory={}", word(&files.root())))
        .arg(format!(
            "--network-namespace-path={}",
            word(&names::namespace_file(&names::host_namespace(lab, host)))
        ))
        .args(["--capability=all", "--resolv-conf=off", "--timezone=off", "--link-journal=no"])
        // Never /dev/kvm: on nested machines it can exist, open, and then hang any guest.
        .args(["--bind=/dev/fuse", "--bind=/dev/net/tun"])
        .arg(format!("--bind={}:/data", word(&files.data())))
        .arg("--console=pipe")
}

/// Options of the overlay that is a host's file system.
///
/// `volatile`: nothing is ever synced to disk, which only a crash of the whole machine could tell. /data is not part of it.
fn overlay(root: &Path, files: &HostFiles) -> String {
    let [lower, upper, work] = [root, &files.upper(), &files.work()].map(word);
    format!("lowerdir={lower},upperdir={upper},workdir={work},volatile")
}

/// Starts a host whose identity and network are there, and remembers its process.
///
/// # Errors
/// [`LabError::System`] when a mount, the control group or the program fails. Whether the host then boots is seen later.
pub(super) fn start(
    groups: &Groups,
    lab: &ClusterName,
    host: &HostId,
    files: &HostFiles,
    root: &Path,
) -> Result<(), LabError> {
    state::make_directory(&files.root(), 0o755)?;
    state::make_directory(&files.work(), 0o755)?;
    // A volatile overlay leaves this mark so that a crash is noticed at the next mount; see `overlay`.
    state::remove(&files.work().join("work/incompat"))?;
    let command = container(groups, lab, host, files);
    let entrance = groups.entrance(lab, host)?;
    // The thread alone leaves this process's mounts; the child is born with the thread's.
    let started = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            leave_mounts()?;
            mount_host(groups, root, files)?;
            entrance.born_inside(|| process::detach(&command, &files.console()))
        });
        thread.join()
    });
    let pid = started.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Process::identify(pid)?.save(&files.process())
}

/// Gives the calling thread mounts of its own; what this machine unmounts still vanishes from them.
pub(super) fn leave_mounts() -> Result<(), LabError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(LabError::errno("make a mount namespace"))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)
        .map_err(LabError::errno("separate the mount namespace"))
}

fn mount_host(groups: &Groups, root: &Path, files: &HostFiles) -> Result<(), LabError> {
    // systemd-nspawn leaves locks and directories there when it is killed; here they end with the mount namespace.
    state::make_directory(Path::new(NSPAWN_STATE), 0o755)?;
    mount(Some("tmpfs"), NSPAWN_STATE, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .map_err(LabError::errno(format!("cover {NSPAWN_STATE}")))?;
    if matches!(groups, Groups::Own { .. }) {
        let found = statfs(group::MOUNT).map_err(LabError::errno("look at /sys/fs/cgroup"))?;
        if found.filesystem_type() != CGROUP2_SUPER_MAGIC {
            umount2(group::MOUNT, MntFlags::MNT_DETACH).map_err(LabError::errno("hide cgroup v1"))?;
            mount(Some("cgroup2"), group::MOUNT, Some("cgroup2"), MsFlags::empty(), None::<&str>)
                .map_err(LabError::errno("mount cgroup v2"))?;
        }
    }
    let options = overlay(root, files);
    mount(Some("overlay"), &files.root(), Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(LabError::errno(format!("mount the overlay {}", files.root().display())))
}

/// The end of what a host printed on its console.
pub(super) fn console_end(files: &HostFiles) -> String {
    let text = fs::read(files.console()).unwrap_or_default();
    process::last_lines(&String::from_utf8_lossy(&text), 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(groups: &Groups) -> String {
        let [lab, host] = ["demo", "kvm1"];
        let files = HostFiles { directory: "/var/lib/stor-lab/demo/hosts/kvm1".into() };
        container(groups, &ClusterName::new(lab).unwrap(), &HostId::new(host).unwrap(), &files).to_string()
    }

    #[test]
    fn container_without_systemd_outside() {
        insta::assert_snapshot!(words(&Groups::Own { tree: "/t".into() }), @"env SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_SECCOMP=0 systemd-nspawn --quiet --settings=no --boot --register=no --keep-unit --machine=demo.kvm1 --hostname=kvm1 --directory=/var/lib/stor-lab/demo/hosts/kvm1/root --network-namespace-path=/run/netns/stor-demo.kvm1 --capability=all --resolv-conf=off --timezone=off --link-journal=no --bind=/dev/fuse --bind=/dev/net/tun --bind=/var/lib/stor-lab/demo/hosts/kvm1/data:/data --console=pipe");
    }

    #[test]
    fn container_under_systemd_gets_a_delegated_scope() {
        let words = words(&Groups::Systemd);
        let own = self::words(&Groups::Own { tree: "/t".into() });
        assert_eq!(
            words,
            format!(
                "systemd-run --scope --quiet --collect --property=Delegate=yes --unit=stor-lab-demo.kvm1.scope {own}"
            )
        );
    }

    #[test]
    fn kvm_is_never_offered() {
        assert!(!words(&Groups::Systemd).contains("/dev/kvm"));
    }

    #[test]
    fn overlay_layers_the_host_over_the_root() {
        let files = HostFiles { directory: "/l/h".into() };
        assert_eq!(
            overlay(Path::new("/c/root"), &files),
            "lowerdir=/c/root,upperdir=/l/h/upper,workdir=/l/h/work,volatile"
        );
    }
}
