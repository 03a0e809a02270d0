//! Builds the status from what the hosts answered. Pure.

use std::collections::BTreeMap;

use super::{
    GuestStatus, HostStatus, ImageStatus, SeatStatus, Size, Status, StorageStatus, health, mounted,
    pools_query, sizes, sizes_on_server, targets,
};
use crate::libvirt::{domstates, pools};
use crate::model::{
    AbsPath, Answer, ByteSize, Finding, FindingCode, GuestId, HostId, HostSeen, Observations, Query,
    ResourceId, ResourceKind, Severity, StorageId, Unknown,
};
use crate::spec::{Cluster, ImageEntry, Role};
use crate::storage;
use crate::storage::health::Health;
use crate::storage::lun_probe;
use crate::storage::mount_probe::{self, mount_table};
use crate::storage::probe::{KernelSessions, LunTarget, MountedDirectory};

/// A fact, or the sentence that says why there is none.
type Known<T> = Result<T, String>;

fn read<T>(
    seen: &Observations,
    host: &HostId,
    query: &Query,
    reader: impl FnOnce(&Answer) -> Known<T>,
) -> Known<T> {
    match seen.answer(host, query) {
        Ok(answer) => reader(answer),
        Err(Unknown::Host { reason, .. }) => Err(reason),
        Err(unknown) => Err(unknown.to_string()),
    }
}

/// Builds the status from what the hosts answered.
#[must_use]
pub fn build(cluster: &Cluster, seen: &Observations) -> Status {
    let hosts: Vec<HostStatus> =
        cluster.hosts.values().map(|host| host_status(seen, &host.id, host.role)).collect();
    let storage: Vec<StorageStatus> =
        cluster.storage.keys().map(|id| storage_status(cluster, seen, id)).collect();
    let guests: Vec<GuestStatus> =
        cluster.guests.keys().map(|guest| guest_status(cluster, seen, guest)).collect();
    let images = cluster.images.values().map(|image| {
        let size = image_size(cluster, seen, &storage, image);
        let unknown = size.as_ref().err().cloned();
        ImageStatus { image: image.id.clone(), storage: image.storage.clone(), size: size.ok(), unknown }
    });
    let mut status = Status {
        cluster: cluster.name.to_string(),
        images: images.collect(),
        findings: Vec::new(),
        hosts,
        storage,
        guests,
    };
    status.findings = findings(&status);
    status
}

fn host_status(seen: &Observations, host: &HostId, role: Role) -> HostStatus {
    let unreachable = match seen.host(host) {
        Some(HostSeen::Answered(_)) => None,
        Some(HostSeen::Unobserved(reason)) => Some(reason.clone()),
        None => Some("it was not asked".to_owned()),
    };
    HostStatus { host: host.clone(), hypervisor: role.is_hypervisor(), unreachable }
}

fn storage_status(cluster: &Cluster, seen: &Observations, id: &StorageId) -> StorageStatus {
    let health = storage::backend(cluster, id).map(|backend| health(&*backend, seen));
    let directory = mounted(cluster).find(|(other, _)| *other == id).map(|(_, directory)| directory);
    let target = targets(cluster).find(|(other, _)| *other == id).map(|(_, target)| target);
    let seats = cluster.hypervisors().map(|host| match (&directory, &target) {
        (Some(directory), _) => seat(cluster, seen, &host.id, directory),
        (None, Some(target)) => target_seat(cluster, seen, &host.id, target),
        (None, None) => {
            SeatStatus { host: host.id.clone(), mount: None, mounted: None, pool: None, unknown: None }
        }
    });
    StorageStatus {
        storage: id.clone(),
        health: health.unwrap_or_else(|| Health::unknown("this storage has no health")),
        seats: seats.collect(),
    }
}

fn seat(cluster: &Cluster, seen: &Observations, host: &HostId, directory: &MountedDirectory) -> SeatStatus {
    let mount = read(seen, host, &mount_probe::mounts(), |answer| {
        Ok(mount_table::at(&mount_table::parse(&answer.stdout), &directory.path).cloned())
    });
    let right = |mount: &Option<mount_table::Mount>| {
        mount.as_ref().is_some_and(|mount| {
            mount.fs_type == directory.fs_type
                && directory.sources.contains(&mount.source)
                && !mount.read_only()
        })
    };
    let pool = pool_state(cluster, seen, host, &directory.pool);
    let shown = |mount: Option<mount_table::Mount>| match mount {
        Some(mount) if mount.read_only() => format!("{mount}, read-only"),
        Some(mount) => mount.to_string(),
        None => "not mounted".to_owned(),
    };
    let unknown = mount.as_ref().err().or(pool.as_ref().err()).cloned();
    let mounted = mount.as_ref().ok().map(right);
    SeatStatus { host: host.clone(), mounted, mount: mount.ok().map(shown), pool: pool.ok(), unknown }
}

fn pool_state(cluster: &Cluster, seen: &Observations, host: &HostId, pool: &str) -> Known<String> {
    read(seen, host, &pools_query(cluster), |answer| {
        Ok(match pools::parse(answer)?.get(pool) {
            Some(pool) if pool.active => "active".to_owned(),
            Some(_) => "inactive".to_owned(),
            None => "not defined".to_owned(),
        })
    })
}

/// A target: the sessions of the host's kernel, where it should have some, and libvirt's pool, where there is to be one.
fn target_seat(cluster: &Cluster, seen: &Observations, host: &HostId, target: &LunTarget) -> SeatStatus {
    let sessions = target.kernel.as_ref().map(|kernel| sessions(seen, host, target, kernel));
    let pool = target.pool.as_ref().map(|pool| pool_state(cluster, seen, host, &pool.name));
    let why = |known: Option<&Known<String>>| known.and_then(|known| known.as_ref().err()).cloned();
    let unknown = sessions.as_ref().and_then(|known| known.as_ref().err()).cloned();
    let unknown = unknown.or_else(|| why(pool.as_ref()));
    let (mounted, mount) = sessions.and_then(Result::ok).unzip();
    SeatStatus { host: host.clone(), mounted, mount, pool: pool.and_then(Result::ok), unknown }
}

/// Whether a host's kernel is logged in at every portal, and how that reads.
fn sessions(
    seen: &Observations,
    host: &HostId,
    target: &LunTarget,
    kernel: &KernelSessions,
) -> Known<(bool, String)> {
    let query = lun_probe::sessions(target).ok_or_else(|| "it was not asked".to_owned())?;
    let shown = read(seen, host, &query, |answer| lun_probe::seen(answer).map_err(|why| why.to_string()))?;
    let state = |portal: &String| shown.sessions.get(portal).map_or("not logged in", String::as_str);
    let each = kernel.portals.iter().map(|portal| match state(portal) {
        "LOGGED_IN" => (true, format!("logged in at {portal}")),
        "not logged in" => (false, format!("not logged in at {portal}")),
        lost => (false, format!("session at {portal} lost ({lost})")),
    });
    let (fine, texts): (Vec<bool>, Vec<String>) = each.unzip();
    Ok((fine.iter().all(|fine| *fine), texts.join(", ")))
}

/// The size of an image as the first hypervisor shows it that has the right mount.
fn image_size(
    cluster: &Cluster,
    seen: &Observations,
    storage: &[StorageStatus],
    image: &ImageEntry,
) -> Known<Size> {
    let seats = storage.iter().find(|storage| storage.storage == image.storage).map(|storage| &storage.seats);
    let directory = mounted(cluster).find(|(id, _)| **id == image.storage).map(|(_, directory)| directory);
    let Some(directory) = directory else {
        let made = storage::backend(cluster, &image.storage).and_then(|backend| backend.made_on(image));
        let query = sizes_on_server(cluster, &image.storage);
        let ((_, path), (server, query)) =
            made.zip(query).ok_or("QEMU reaches the volume itself; see `stor verify`")?;
        return read(seen, &server, &query, |answer| size(answer, &path));
    };
    let query = sizes(cluster, &image.storage, &directory).ok_or("the image has no path")?;
    let path = directory.path.join(&image.file_name()).map_err(|error| error.to_string())?;
    let mut last = Err("no hypervisor has the storage mounted".to_owned());
    for seat in seats.into_iter().flatten().filter(|seat| seat.mounted == Some(true)) {
        last = read(seen, &seat.host, &query, |answer| size(answer, &path));
        if last.is_ok() {
            break;
        }
    }
    last
}

fn size(answer: &Answer, path: &AbsPath) -> Known<Size> {
    let line = answer.stdout.lines().find_map(|line| line.strip_suffix(&format!(" {path}")));
    let numbers: Vec<u64> = line.unwrap_or("").split(' ').filter_map(|word| word.parse().ok()).collect();
    match numbers.as_slice() {
        [length, blocks, block] => Ok(Size {
            length: ByteSize::from_bytes(*length),
            allocated: ByteSize::from_bytes(blocks.saturating_mul(*block)),
        }),
        _ => {
            let said = answer.stderr.lines().find(|line| line.contains(path.as_str()));
            Err(said.and_then(|line| line.rsplit_once(": ")).map_or("missing", |(_, why)| why).to_owned())
        }
    }
}

fn guest_status(cluster: &Cluster, seen: &Observations, guest: &GuestId) -> GuestStatus {
    let mut status = GuestStatus { guest: guest.clone(), places: BTreeMap::new(), unknown: BTreeMap::new() };
    for host in cluster.hypervisors() {
        let Some(driver) = host.role.driver() else { continue };
        match read(seen, &host.id, &domstates::query(driver), |answer| domstates::parse(driver, answer)) {
            Ok(domains) => {
                if let Some(state) = domains.get(guest.as_str()) {
                    status.places.insert(host.id.clone(), *state);
                }
            }
            Err(why) => {
                status.unknown.insert(host.id.clone(), why);
            }
        }
    }
    status
}

fn findings(status: &Status) -> Vec<Finding> {
    let mut all: Vec<Finding> =
        status.storage.iter().flat_map(|storage| storage.health.findings.clone()).collect();
    for host in &status.hosts {
        if let Some(reason) = &host.unreachable {
            let subject = ResourceId::new(ResourceKind::Host, &host.host);
            let message = format!("host {} could not be asked", host.host);
            let finding = Finding::new(Severity::Error, FindingCode::HostUnobserved, subject, message);
            all.push(finding.on(&host.host).evidence(reason.clone()));
        }
    }
    for storage in &status.storage {
        for seat in storage.seats.iter().filter(|seat| seat.mounted == Some(false)) {
            let subject = ResourceId::new(ResourceKind::Mount, &storage.storage);
            let what = seat.mount.clone().unwrap_or_default();
            let message = format!("host {}: storage {} is {what}", seat.host, storage.storage);
            let code = match what.as_str() {
                "not mounted" => FindingCode::NotMounted,
                what if what.contains("not logged in at") => FindingCode::NotLoggedIn,
                what if what.contains(" lost (") => FindingCode::SessionLost,
                _ => FindingCode::WrongMount,
            };
            all.push(
                Finding::new(Severity::Error, code, subject, message)
                    .on(&seat.host)
                    .remedy("run `stor apply`"),
            );
        }
    }
    for guest in &status.guests {
        let active: Vec<String> = guest.active().map(ToString::to_string).collect();
        if active.len() > 1 {
            let subject = ResourceId::new(ResourceKind::Guest, &guest.guest);
            let message = format!("guest {} is active on {}", guest.guest, active.join(" and "));
            let finding = Finding::new(Severity::Error, FindingCode::NameClash, subject, message);
            all.push(
                finding.remedy("a person must look: during a migration this is normal, at rest it is not"),
            );
        }
    }
    all.sort_by(|a, b| {
        (b.severity, &a.host, a.code, &a.message).cmp(&(a.severity, &b.host, b.code, &b.message))
    });
    all
}
