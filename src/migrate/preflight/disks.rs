//! The disks: that both hosts reach the very same image, and that caches cannot hide a write.

use super::GuestFacts;
use crate::libvirt::domain_xml::{DiskAccess, DiskSource, DiskSummary};
use crate::migrate::facts::{BlockDevice, FileFacts, HostFacts, Known, Mount, disk_path, disk_url};
use crate::model::{Finding, FindingCode, Severity};
use crate::spec::Cluster;

/// File systems that libvirt takes as shared (`virFileIsSharedFSType`), by the type that `findmnt` shows.
const SHARED: [&str; 13] = [
    "nfs",
    "nfs4",
    "gfs2",
    "ocfs2",
    "afs",
    "cifs",
    "smb3",
    "ceph",
    "gpfs",
    "fuse.quobyte",
    "acfs",
    "fuse.glusterfs",
    "beegfs",
];

pub(super) fn images(
    guest: &GuestFacts,
    from: &HostFacts,
    to: &HostFacts,
    cluster: &Cluster,
    out: &mut Vec<Finding>,
) {
    for disk in &guest.summary.disks {
        let found = match (&disk.source, disk_path(&disk.source, cluster)) {
            (DiskSource::Empty, _) => None,
            (DiskSource::Network { protocol, name, .. }, _) => {
                remote(guest, disk, (protocol, name), (from, to), cluster)
            }
            (_, Some(path)) => file(guest, disk, &path, from, to),
            (DiskSource::Block(path), None) => device(guest, disk, path, from, to),
            (other, None) => Some(guest.finding(
                Severity::Error,
                FindingCode::ImageNotShared,
                format!("disk {} is of a kind that cannot be checked: {other:?}", disk.target),
            )),
        };
        out.extend(found);
    }
}

/// Whether both hosts can open a disk that QEMU reaches itself; its URL names the server, so it is the same file.
fn remote(
    guest: &GuestFacts,
    disk: &DiskSummary,
    (protocol, name): (&str, &str),
    (from, to): (&HostFacts, &HostFacts),
    cluster: &Cluster,
) -> Option<Finding> {
    let Some(url) = disk_url(&disk.source, cluster) else {
        let message = format!("disk {} is on {protocol} {name}, which stor cannot look at", disk.target);
        let finding = guest.finding(Severity::Warning, FindingCode::ImageNotShared, message);
        return Some(finding.remedy("make sure that both hosts reach it, then allow it"));
    };
    let failed = |host: &HostFacts| match host.remote.get(&url) {
        Some(Ok(())) => None,
        Some(Err(reason)) => Some(reason.clone()),
        None => Some("it was not asked".to_owned()),
    };
    let (host, reason) = [to, from].into_iter().find_map(|host| Some((host, failed(host)?)))?;
    let message = format!("disk {}: {url} cannot be opened", disk.target);
    let finding = guest.finding(Severity::Error, FindingCode::ImageUnreadable, message).on(&host.host);
    let evidence = format!("host {}: {reason}", host.host);
    Some(
        finding.evidence(evidence).remedy("see whether the server runs and lets this host in: `stor verify`"),
    )
}

/// Compares one block device as both hosts see it: the same name may lead to two devices.
fn device(
    guest: &GuestFacts,
    disk: &DiskSummary,
    path: &str,
    from: &HostFacts,
    to: &HostFacts,
) -> Option<Finding> {
    const REACH: &str = "let the destination reach the same device: log in to its target there";
    let (here, there) = (from.devices.get(path), to.devices.get(path));
    let found = |code, message: String, remedy: &str| {
        let finding = guest.finding(Severity::Error, code, format!("disk {}: {message}", disk.target));
        let finding = finding.evidence(format!("host {}: {}", from.host, shown_device(here)));
        Some(finding.evidence(format!("host {}: {}", to.host, shown_device(there))).remedy(remedy))
    };
    let (home, away) = match (here, there) {
        (Some(Ok(Some(home))), Some(Ok(Some(away)))) => (home, away),
        (Some(Ok(_)), Some(Ok(_))) => {
            let message = format!("{path} is not on both hosts");
            return found(FindingCode::ImageMissing, message, REACH);
        }
        _ => {
            let message = format!("{path} could not be looked at");
            return found(FindingCode::ProbeTimedOut, message, "look at that device: its path may hang");
        }
    };
    if home.identity().is_none() || away.identity().is_none() {
        let message = format!("{path} lacks a WWN or a serial number, so nothing proves it the same");
        return found(FindingCode::ImageNotShared, message, "move its data to an image on shared storage");
    }
    if home.identity() != away.identity() {
        let message = format!("{path} is another device on the destination");
        return found(FindingCode::ImageNotShared, message, REACH);
    }
    if home.size != away.size {
        let message = format!("{path} has another size on the destination");
        let remedy = "have both hosts look again: `iscsiadm -m session --rescan`";
        return found(FindingCode::ImageSizeDiffers, message, remedy);
    }
    None
}

fn shown_device(seen: Option<&Known<Option<BlockDevice>>>) -> String {
    match seen {
        None => "it was not asked".to_owned(),
        Some(Ok(Some(device))) => device.to_string(),
        Some(Ok(None)) => "no such device".to_owned(),
        Some(Err(reason)) => reason.clone(),
    }
}

/// Compares one file as both hosts see it; the first thing that speaks against it is the finding.
fn file(
    guest: &GuestFacts,
    disk: &DiskSummary,
    path: &str,
    from: &HostFacts,
    to: &HostFacts,
) -> Option<Finding> {
    let (here, there) = (from.files.get(path)?, to.files.get(path)?);
    let writable = disk.access != DiskAccess::ReadOnly;
    let (severity, code, host, message, remedy) = if writable {
        shared(path, here, there)
            .map(|(code, host, message, remedy)| (Severity::Error, code, host, message, remedy))
    } else {
        read_only(path, here, there)
    }?;
    let finding = guest
        .finding(severity, code, format!("disk {}: {message}", disk.target))
        .evidence(format!("host {}: {}", from.host, shown(here)))
        .evidence(format!("host {}: {}", to.host, shown(there)));
    let finding = match host {
        Where::Source => finding.on(&from.host),
        Where::Target => finding.on(&to.host),
        Where::Both => finding,
    };
    Some(finding.remedy(remedy))
}

/// Which host a finding is about.
#[derive(Clone, Copy)]
enum Where {
    Source,
    Target,
    Both,
}

type Problem = (FindingCode, Where, String, &'static str);

const APPLY: &str = "run `stor apply`, then `stor verify`";
const SHARE: &str = "move the image to shared storage";

/// What speaks against `path` being one image on both hosts: evidence of now, never the file's word.
fn shared(path: &str, here: &FileFacts, there: &FileFacts) -> Option<Problem> {
    let timed_out = |host, reason: &String| {
        let message = format!("{path} could not be looked at: {reason}");
        (FindingCode::ProbeTimedOut, host, message, "look at the mount on that host: it may hang")
    };
    let (home, home_stat) = match (&here.mount, &here.stat) {
        (Err(reason), _) | (_, Err(reason)) => return Some(timed_out(Where::Source, reason)),
        (Ok(mount), Ok(stat)) => (mount.as_ref(), *stat),
    };
    let local = |mount: &Mount| {
        let message = format!("{path} is on {} ({}), which is not shared", mount.source, mount.kind);
        (FindingCode::ImageNotShared, Where::Source, message, SHARE)
    };
    let Some((home, home_stat)) = home.zip(home_stat) else {
        let message = format!("{path} is not there, although the guest uses it");
        return Some((FindingCode::ImageMissing, Where::Source, message, "look at the source's mount"));
    };
    if !is_shared(home) {
        return Some(local(home));
    }
    let (away, away_stat) = match (&there.mount, &there.stat) {
        (Err(reason), _) | (_, Err(reason)) => return Some(timed_out(Where::Target, reason)),
        (Ok(mount), Ok(stat)) => (mount.as_ref(), *stat),
    };
    let Some(away) = away.filter(|away| is_shared(away)) else {
        let message = format!("{} is not mounted on {}", home.source, home.target);
        return Some((FindingCode::NotMounted, Where::Target, message, APPLY));
    };
    if away.kind != home.kind || !same_export(home, away) {
        let message = format!("{path} lies on different storage on the two hosts");
        return Some((FindingCode::ImageNotShared, Where::Both, message, APPLY));
    }
    if away.options.split(',').any(|option| option == "ro") {
        let message = format!("{} is mounted read-only", away.target);
        return Some((FindingCode::ReadOnlyMount, Where::Target, message, "mount it read-write"));
    }
    let Some(away_stat) = away_stat else {
        return Some((FindingCode::ImageMissing, Where::Target, format!("{path} is not there"), APPLY));
    };
    if away_stat.inode != home_stat.inode {
        let message = format!("{path} is another file on the destination");
        return Some((
            FindingCode::ImageNotShared,
            Where::Both,
            message,
            "find out which of the two is the image",
        ));
    }
    (path.ends_with(".img") && away_stat.size != home_stat.size).then(|| {
        let message = format!("{path} has another size on the destination");
        (FindingCode::ImageSizeDiffers, Where::Both, message, "look for a stale cache or a split brain")
    })
}

/// A disk that the guest only reads may be a copy, but it must be there.
fn read_only(
    path: &str,
    here: &FileFacts,
    there: &FileFacts,
) -> Option<(Severity, FindingCode, Where, String, &'static str)> {
    match &there.stat {
        Err(reason) => {
            let message = format!("{path} could not be looked at: {reason}");
            Some((Severity::Error, FindingCode::ProbeTimedOut, Where::Target, message, "look at that mount"))
        }
        Ok(None) => {
            let message = format!("{path} is not on the destination");
            Some((
                Severity::Error,
                FindingCode::DeviceLocal,
                Where::Target,
                message,
                "eject it, or copy it there",
            ))
        }
        Ok(Some(_)) if shared(path, here, there).is_none() => None,
        Ok(Some(_)) => {
            let message = format!("{path} is not shared; the destination's file may differ");
            Some((
                Severity::Warning,
                FindingCode::DeviceLocal,
                Where::Target,
                message,
                "eject it, or compare them",
            ))
        }
    }
}

fn is_shared(mount: &Mount) -> bool {
    SHARED.contains(&mount.kind.as_str())
}

/// Whether two mounts lead to the same export. A GlusterFS volume may be mounted from any of its servers: the volume's
/// name and, later, the inode (made of the gfid) tell. Of others the whole source must be equal.
fn same_export(a: &Mount, b: &Mount) -> bool {
    let volume = |mount: &Mount| {
        let (_, volume) = mount.source.rsplit_once(':')?;
        Some(volume.trim_matches('/').to_owned())
    };
    let plain = |mount: &Mount| mount.source.trim_end_matches('/').to_owned();
    match a.kind.as_str() {
        "fuse.glusterfs" => volume(a).is_some() && volume(a) == volume(b),
        _ => plain(a) == plain(b),
    }
}

fn shown(file: &FileFacts) -> String {
    let mount = match &file.mount {
        Ok(Some(mount)) => format!("{} ({}) on {}", mount.source, mount.kind, mount.target),
        Ok(None) => "no such directory".to_owned(),
        Err(reason) => reason.clone(),
    };
    match &file.stat {
        Ok(Some(stat)) => format!("{mount}, inode {}, {} bytes", stat.inode, stat.size),
        Ok(None) => format!("{mount}, no such file"),
        Err(reason) => format!("{mount}, {reason}"),
    }
}

/// The pool on a storage of the cluster file, where it has one.
pub(super) fn pools(guest: &GuestFacts, to: &HostFacts, cluster: &Cluster, out: &mut Vec<Finding>) {
    for (id, storage) in &cluster.storage {
        let Some(mount) = storage.mounted_at() else { continue };
        let below = format!("{mount}/");
        let on_it = |disk: &&DiskSummary| {
            disk_path(&disk.source, cluster).is_some_and(|path| path.starts_with(&below))
        };
        let Some(disk) = guest.summary.disks.iter().find(on_it) else { continue };
        let needs = matches!(disk.source, DiskSource::Volume { .. });
        let severity = if needs { Severity::Error } else { Severity::Warning };
        let message = match &to.pools {
            Ok(pools) if pools.contains(id.as_str()) => continue,
            Ok(_) => format!("pool {id} is not active at the destination"),
            Err(reason) => format!("the destination's pools are unknown: {reason}"),
        };
        out.push(guest.finding(severity, FindingCode::PoolInactive, message).on(&to.host).remedy(APPLY));
    }
}

/// libvirt accepts any cache mode once QEMU can drop its caches: libvirt 5.6 with QEMU 4.0
/// (`qemuMigrationSrcIsSafe`, capability `migration-file-drop-cache`).
pub(super) fn cache_modes(guest: &GuestFacts, from: &HostFacts, to: &HostFacts, out: &mut Vec<Finding>) {
    let drops = |host: &HostFacts| host.node.libvirt >= 5_006_000 && host.node.qemu >= 4_000_000;
    if drops(from) && drops(to) {
        return;
    }
    for disk in &guest.summary.disks {
        let exempt = disk.access == DiskAccess::ReadOnly || disk.source == DiskSource::Empty;
        let cache = disk.cache.as_deref().unwrap_or("default");
        if exempt || matches!(cache, "none" | "directsync") {
            continue;
        }
        let message = format!(
            "disk {} uses cache mode {cache}, which is only safe to move with libvirt 5.6 and QEMU 4.0 on both hosts",
            disk.target
        );
        out.push(
            guest
                .finding(Severity::Error, FindingCode::CacheModeUnsafe, message)
                .evidence(super::hosts::versions_of(from))
                .evidence(super::hosts::versions_of(to))
                .remedy("set cache='none' for the disk and restart the guest"),
        );
    }
}
