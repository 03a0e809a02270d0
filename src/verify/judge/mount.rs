//! Mounted, and not just a directory there; and the pool on it.

use super::{View, listed};
use crate::model::{AbsPath, FindingCode, HostId};
use crate::storage::mount_probe::mount_table;
use crate::storage::mount_probe::seen::NoFacts;
use crate::storage::probe::MountedDirectory;
use crate::verify::matrix::{Check, CheckKind, Verdict};

/// The kernel's mount table shows the right mount at the path, writable, and it answers.
pub(super) fn mounted(view: &View<'_>, directory: &MountedDirectory, host: &HostId) -> Check {
    const KIND: CheckKind = CheckKind::Mounted;
    let Some(seen) = view.host(host) else { return view.uncovered(KIND, host) };
    let table = match &seen.mounts {
        Ok(table) => table,
        Err(why) => return view.missing(KIND, host, why),
    };
    let path = &directory.path;
    let wanted = format!("{} from {}", directory.fs_type, listed(&directory.sources));
    let wrong = |code, message: String| view.failed(KIND, host, code, message);
    let again = format!("run `stor apply`, or on host {host}: `systemctl restart` the mount unit of {path}");
    let Some(mount) = mount_table::at(table, path) else {
        return wrong(
            FindingCode::NotMounted,
            format!("host {host}: nothing is mounted at {path}; what is written there stays on this host"),
        )
        .evidence([format!("expected {wanted}")])
        .remedy(again);
    };
    if mount.fs_type != directory.fs_type || !directory.sources.contains(&mount.source) || mount.root != "/" {
        return wrong(FindingCode::WrongMount, format!("host {host}: {path} is {mount}"))
            .evidence([format!("expected {wanted}")])
            .remedy(format!("unmount it on host {host}, then run `stor apply`"));
    }
    if mount.read_only() {
        return wrong(FindingCode::ReadOnlyMount, format!("host {host}: {path} is mounted read-only"))
            .evidence([format!("{mount}, options {}", mount.options.join(","))])
            .remedy(again);
    }
    match seen.mounted.get(view.id()).map(|seen| &seen.written) {
        Some(Err(NoFacts::TimedOut)) => {
            let message = format!("host {host}: {path} is mounted but gives {}", NoFacts::TimedOut);
            wrong(FindingCode::ProbeTimedOut, message).evidence([mount.to_string()]).remedy(format!(
                "see whether host {host} reaches {}, then unmount {path} (`umount -l`) and run `stor apply`",
                listed(&directory.sources)
            ))
        }
        Some(Err(NoFacts::Refused(what))) if what.contains("Stale file handle") => {
            let message = format!("host {host}: the server no longer knows what is mounted at {path}");
            wrong(FindingCode::StaleHandle, message).evidence([mount.to_string(), what.clone()]).remedy(format!(
                "shut down the guests that use it on host {host}, then `umount -l {path}` and `stor apply`"
            ))
        }
        // The table agrees, but the directory entered was another one: changed in between, or st_dev differs.
        Some(Err(NoFacts::Refused(what))) => {
            wrong(FindingCode::WrongMount, format!("host {host}: entering {path} led elsewhere: {what}"))
                .evidence([format!("expected {wanted}")])
                .remedy(again)
        }
        Some(Err(why @ (NoFacts::Unreachable(_) | NoFacts::Malformed(_)))) => view.missing(KIND, host, why),
        _ => Check::new(KIND, Verdict::Pass, format!("{mount} at {path}")),
    }
}

/// Takes the finding from a check that a read-only mount explains: one cause, one finding.
pub(super) fn explained(mounted: &Check, mut check: Check) -> Check {
    let code = |check: &Check| check.finding.as_ref().map(|finding| finding.code);
    if code(mounted) == Some(FindingCode::ReadOnlyMount) && code(&check) == Some(FindingCode::ReadOnlyMount) {
        check.finding = None;
    }
    check
}

/// The pool is active and has its volumes at the path.
pub(super) fn pool(view: &View<'_>, (name, path): (&str, Option<&AbsPath>), host: &HostId) -> Check {
    const KIND: CheckKind = CheckKind::Pool;
    let Some(seen) = view.host(host) else { return view.uncovered(KIND, host) };
    let pools = match &seen.pools {
        Ok(pools) => pools,
        Err(NoFacts::Malformed(why)) => {
            return view
                .failed(
                    KIND,
                    host,
                    FindingCode::DaemonDown,
                    format!("host {host}: cannot ask libvirt for its pools"),
                )
                .evidence([why.clone()])
                .remedy(format!("see whether libvirtd runs on host {host}: `systemctl status libvirtd`"));
        }
        Err(why) => return view.missing(KIND, host, why),
    };
    let wrong = |code, message: String| view.failed(KIND, host, code, message);
    match pools.get(name) {
        None => wrong(FindingCode::PoolInactive, format!("host {host}: libvirt has no pool {name}"))
            .remedy("run `stor apply`"),
        Some(pool) if path.is_some_and(|path| pool.target.as_ref() != Some(path)) => {
            let shown =
                |path: Option<&AbsPath>| path.map_or_else(|| "no path".to_owned(), AbsPath::to_string);
            let message = format!("host {host}: pool {name} lies at {}", shown(pool.target.as_ref()));
            wrong(FindingCode::PoolWrongPath, message)
                .evidence([format!("expected {}", shown(path))])
                .remedy("run `stor apply`")
        }
        Some(pool) if !pool.active => {
            wrong(FindingCode::PoolInactive, format!("host {host}: pool {name} is not active"))
                .remedy(format!("run `stor apply`, or on host {host}: `virsh pool-start {name}`"))
        }
        Some(_) => {
            let at = path.map(|path| format!(" at {path}")).unwrap_or_default();
            Check::new(KIND, Verdict::Pass, format!("pool {name} active{at}"))
        }
    }
}
