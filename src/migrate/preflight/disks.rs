//! The disks: that both hosts reach the very same image and every layer below it, and that caches cannot hide a write.

use super::shared::{Lies, Use};
use super::{Arrival, GuestFacts};
use crate::libvirt::domain_xml::{DiskAccess, DiskSource, DiskSummary, Layer, LayerRole};
use crate::migrate::facts::{BlockDevice, HostFacts, Known, chain, disk_path, disk_url};
use crate::model::{Finding, FindingCode, Severity};
use crate::spec::Cluster;

const APPLY: &str = "run `stor apply`, then `stor verify`";

/// One image of a disk: its own, or a layer below it.
struct Part<'a> {
    /// `disk vda`.
    label: String,
    source: &'a DiskSource,
    used: Use,
}

/// Every image of every disk.
pub(super) fn images(guest: &GuestFacts, arrival: Arrival, lies: Lies<'_>, out: &mut Vec<Finding>) {
    for disk in &guest.summary.disks {
        let used = if disk.access == DiskAccess::ReadOnly { Use::ReadOnly } else { Use::Written };
        let own = Part { label: format!("disk {}", disk.target), source: &disk.source, used };
        let fault = part(guest, arrival, &own, lies);
        // Of an image that is refused already, what nobody knows is no news.
        let refused = fault.as_ref().is_some_and(|fault| fault.severity == Severity::Error);
        out.extend(fault);
        let mut more = Vec::new();
        format(guest, arrival, disk, lies, &mut more);
        layers(guest, arrival, disk, lies, &mut more);
        more.retain(|finding| {
            !refused || !matches!(finding.code, FindingCode::ImageUnreadable | FindingCode::ChainUnknown)
        });
        out.extend(more);
        if disk.mirrored {
            let message = format!("disk {}: a block job copies it to another place", disk.target);
            let remedy = format!("wait for it, or `virsh blockjob {} {} --abort`", guest.id, disk.target);
            let finding = guest.finding(Severity::Error, FindingCode::JobActive, message);
            out.push(finding.on(&lies.from.host).remedy(remedy));
        }
    }
}

/// What lies below a disk's own image has to be the same on both hosts as well.
fn layers(guest: &GuestFacts, arrival: Arrival, disk: &DiskSummary, lies: Lies<'_>, out: &mut Vec<Finding>) {
    let found = match chain::layers(disk, &lies.from.images, lies.cluster) {
        Ok(found) => found,
        Err(reason) => {
            let message = format!("disk {}: what its image builds on is not known", disk.target);
            let finding = guest.finding(Severity::Error, FindingCode::ChainUnknown, message);
            let evidence = format!("host {}: {reason}", lies.from.host);
            let remedy = "see `qemu-img info --backing-chain -U` of the image there";
            out.push(finding.on(&lies.from.host).evidence(evidence).remedy(remedy));
            return;
        }
    };
    for layer in &found {
        let label = format!("disk {}, {}", disk.target, words(layer));
        let part = self::part(guest, arrival, &Part { label, source: &layer.source, used: Use::Layer }, lies);
        // Nobody can vouch for what a guest reads as its own data.
        out.extend(part.map(|finding| Finding { severity: Severity::Error, ..finding }));
    }
}

fn words(layer: &Layer) -> &'static str {
    match layer.role {
        LayerRole::Backing => "image below it",
        LayerRole::Data => "data file",
    }
}

/// The first thing that speaks against one image being the same on both hosts.
fn part(guest: &GuestFacts, arrival: Arrival, part: &Part<'_>, lies: Lies<'_>) -> Option<Finding> {
    match (part.source, disk_path(part.source, lies.cluster)) {
        (DiskSource::Empty, _) => None,
        (DiskSource::Network { protocol, name, .. }, _) => remote(guest, part, (protocol, name), lies),
        (_, Some(path)) => file(guest, arrival, part, &path, lies),
        (DiskSource::Block(path), None) => device(guest, part, path, lies.from, lies.to),
        (other, None) => {
            let message = format!("{} is of a kind that cannot be checked: {other:?}", part.label);
            let finding = guest.finding(Severity::Error, FindingCode::ImageNotShared, message);
            Some(finding.remedy("make it a file on shared storage, or a block device that both hosts reach"))
        }
    }
}

/// Whether the XML names the format that the image has. A guest that runs has done its damage or will not be helped by staying.
fn format(guest: &GuestFacts, arrival: Arrival, disk: &DiskSummary, lies: Lies<'_>, out: &mut Vec<Finding>) {
    let Lies { from, cluster, .. } = lies;
    let severity = match arrival {
        Arrival::Starts if disk.access != DiskAccess::ReadOnly => Severity::Error,
        Arrival::Starts | Arrival::Runs | Arrival::StaysOff => Severity::Warning,
    };
    match chain::format_fault(disk, &from.images, cluster) {
        None => {}
        Some(Ok(message)) => out.push(
            guest
                .finding(severity, FindingCode::FormatDiffers, message)
                .on(&from.host)
                .remedy("correct the format in the guest's XML before it is started again"),
        ),
        Some(Err(reason)) => {
            let message = format!("disk {}: the format of its image is not known", disk.target);
            let finding = guest.finding(severity, FindingCode::ImageUnreadable, message).on(&from.host);
            let evidence = format!("host {}: {reason}", from.host);
            out.push(finding.evidence(evidence).remedy("see why root cannot read the image there"));
        }
    }
}

/// Whether both hosts can open a disk that QEMU reaches itself; its URL names the server, so it is the same file.
fn remote(
    guest: &GuestFacts,
    part: &Part<'_>,
    (protocol, name): (&str, &str),
    Lies { from, to, cluster }: Lies<'_>,
) -> Option<Finding> {
    let Some(url) = disk_url(part.source, cluster) else {
        let message = format!("{} is on {protocol} {name}, which stor cannot look at", part.label);
        let finding = guest.finding(Severity::Warning, FindingCode::ImageNotShared, message);
        return Some(finding.remedy("make sure that both hosts reach it, then allow it"));
    };
    let failed = |host: &HostFacts| match host.places.remote.get(&url) {
        Some(Ok(())) => None,
        Some(Err(reason)) => Some(reason.clone()),
        None => Some("it was not asked".to_owned()),
    };
    let (host, reason) = [to, from].into_iter().find_map(|host| Some((host, failed(host)?)))?;
    let message = format!("{}: {url} cannot be opened", part.label);
    let finding = guest.finding(Severity::Error, FindingCode::ImageUnreadable, message).on(&host.host);
    let evidence = format!("host {}: {reason}", host.host);
    Some(
        finding.evidence(evidence).remedy("see whether the server runs and lets this host in: `stor verify`"),
    )
}

/// Compares one block device as both hosts see it: the same name may lead to two devices.
fn device(
    guest: &GuestFacts,
    part: &Part<'_>,
    path: &str,
    from: &HostFacts,
    to: &HostFacts,
) -> Option<Finding> {
    const REACH: &str = "let the destination reach the same device: log in to its target there";
    let (here, there) = (from.places.devices.get(path), to.places.devices.get(path));
    let found = |code, message: String, remedy: &str| {
        let finding = guest.finding(Severity::Error, code, format!("{}: {message}", part.label));
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

/// Compares one file as both hosts see it. A guest that runs has its file open, wherever the mount should be from.
fn file(
    guest: &GuestFacts,
    arrival: Arrival,
    part: &Part<'_>,
    path: &str,
    lies: Lies<'_>,
) -> Option<Finding> {
    let fault = lies.fault(path, part.used)?;
    let severity = match (fault.code, arrival) {
        (FindingCode::WrongMount, Arrival::Runs) => Severity::Advice,
        _ => fault.severity,
    };
    let finding = guest.finding(severity, fault.code, format!("{}: {}", part.label, fault.message));
    let finding = fault.evidence.into_iter().fold(finding, Finding::evidence).remedy(fault.remedy);
    Some(match fault.host {
        Some(host) => finding.on(&host),
        None => finding,
    })
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
