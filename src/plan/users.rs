//! Which guests use storage that is about to go.
//!
//! Pure. Imports `storage` (what a path leads to), `model` and the scene. A guest of stor's own that is shut off and goes as well is no user.

use std::collections::{BTreeMap, BTreeSet};

use super::domains::{DiskUse, Domain};
use super::release::Data;
use super::scene::Scene;
use crate::model::members::REMEDY;
use crate::model::{AbsPath, Blocked, HostId, Owned, OwnedKind, ResourceId, ResourceKind, StorageId, Wave};
use crate::storage::spec::StorageSpec;
use crate::storage::traces::{self, Traces};
use crate::storage::{Backend, iscsi};

/// Why storage cannot go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InUse {
    /// These guests use it, each as `web1 on kvm1 (running)`, sorted.
    By(Vec<String>),
    /// These mounts of it stay, each as `10.0.0.1:/gfs at /mnt on kvm1`, sorted.
    Mounted(Vec<String>),
    /// A hypervisor did not say which guests it has.
    Unknown(String),
    /// A hypervisor left the file and was not asked.
    ByLost(String),
}

/// Whether what goes comes back in another form, with the same files at the same place: another server for the same
/// directory, another mount at the same place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stays {
    Yes,
    No,
}

fn comes_back(scene: &Scene<'_>, host: &HostId, entry: &Owned) -> bool {
    let path = entry.detail.get("path").map(String::as_str);
    let storage = entry.storage.as_deref();
    let spec =
        scene.cluster.storage.iter().find(|(id, _)| Some(id.as_str()) == storage).map(|(_, spec)| spec);
    match (entry.kind, spec) {
        (OwnedKind::KernelExport | OwnedKind::GaneshaExport, Some(StorageSpec::Nfs(spec))) => {
            spec.server == *host && path == Some(spec.path.as_str())
        }
        // Another program offers the same LUNs under the same name.
        (OwnedKind::IscsiTarget, Some(StorageSpec::Iscsi(spec))) => {
            spec.server == *host && entry.detail.get("iqn").map(String::as_str) == Some(spec.iqn.as_str())
        }
        (OwnedKind::LioTarget, Some(StorageSpec::Iscsi(spec))) => {
            spec.server == *host && entry.name == spec.iqn.as_str()
        }
        // What a program's service waits for at boot goes with the program.
        (OwnedKind::File | OwnedKind::Directory, Some(StorageSpec::Iscsi(_))) => {
            entry.name.starts_with("/etc/systemd/system/")
        }
        (OwnedKind::Unit, Some(spec)) => path.is_some() && path == spec.mounted_at().map(AbsPath::as_str),
        _ => false,
    }
}

/// What belongs to one storage that is about to go.
#[derive(Default)]
struct Going<'a> {
    traces: Traces,
    guests: BTreeSet<&'a str>,
    /// Whether something goes that hosts other than its own may use.
    server_side: bool,
    /// Whether it is only this host that has to let go, because it is no hypervisor any more.
    only: Option<&'a HostId>,
}

/// Storage, and the one host that lets it go; `None` where it goes from all of them.
pub(super) type Part = (String, Option<HostId>);

/// The storage that is in use, among what `going` names; `moved` is what stays under its name but leads elsewhere.
pub(super) fn of(
    scene: &Scene<'_>,
    going: &BTreeMap<&HostId, Vec<&Owned>>,
    moved: &BTreeMap<&HostId, Vec<&Owned>>,
    data: Data<'_>,
) -> BTreeMap<Part, InUse> {
    let mut storages: BTreeMap<Part, Going<'_>> = BTreeMap::new();
    let entries =
        going.iter().chain(moved).flat_map(|(host, all)| all.iter().map(move |entry| (host, *entry)));
    for (host, entry) in entries {
        let Some(storage) = entry.storage.clone() else { continue };
        let of_client = traces::is_client_side(entry.kind) || entry.kind == OwnedKind::Directory;
        let leaves = of_client && scene.plain.contains_key(host) && matches!(data, Data::Keep);
        let only = Some(host).filter(|_| leaves && names(scene, &storage)).copied();
        storages.entry((storage, only.cloned())).or_default().add(entry, host, only, scene);
    }
    let own: BTreeSet<&str> = going
        .iter()
        .filter(|(host, _)| matches!(data, Data::Leave(_)) || !scene.plain.contains_key(**host))
        .flat_map(|(_, entries)| entries)
        .filter(|entry| entry.kind == OwnedKind::Guest)
        .map(|entry| entry.name.as_str())
        .collect();
    let returning = |storage: &str| {
        let all =
            going.iter().chain(moved).flat_map(|(host, all)| all.iter().map(move |entry| (host, entry)));
        let mut entries = all.filter(|(_, entry)| entry.storage.as_deref() == Some(storage));
        let returns =
            matches!(data, Data::Keep) && entries.all(|(host, entry)| comes_back(scene, host, entry));
        if returns { Stays::Yes } else { Stays::No }
    };
    let used = storages.into_iter().filter_map(|(part, what)| {
        let stays = returning(&part.0);
        let used = what.in_use(scene, &part.0, &own, stays).or_else(|| what.mounted(scene, going, stays));
        Some((part, used?))
    });
    used.collect()
}

/// Tells whether the file has storage of this name.
fn names(scene: &Scene<'_>, storage: &str) -> bool {
    scene.cluster.storage.keys().any(|id| id.as_str() == storage)
}

/// What on `host`, which is no hypervisor any more, uses a storage of the file: guests, mounts and sessions that are not
/// stor's to remove.
pub(super) fn on_plain(
    scene: &Scene<'_>,
    backend: &dyn Backend,
    host: &HostId,
) -> Result<Vec<String>, String> {
    let what = Going { traces: backend.traces(), only: Some(host), ..Going::default() };
    let storage = backend.id().as_str();
    let mut found = match what.in_use(scene, storage, &BTreeSet::new(), Stays::No) {
        Some(InUse::Unknown(reason) | InUse::ByLost(reason)) => return Err(reason),
        Some(InUse::By(guests)) => guests.into_iter().map(|guest| format!("guest {guest}")).collect(),
        Some(InUse::Mounted(_)) | None => Vec::new(),
    };
    let record = match scene.records.get(host) {
        Some(Ok(record)) => record,
        Some(Err(error)) => return Err(error.to_string()),
        None => return Err(format!("host {host} was not asked")),
    };
    let own = |point: &str| record.owned.iter().any(|entry| leads_to_mount(entry, point));
    let table = scene.mounts.get(host).and_then(|table| table.as_ref().ok());
    let table = table.ok_or_else(|| format!("host {host}: its mounts are not known"))?;
    let strange = table.iter().filter(|mount| what.traces.is_mounted_as(mount) && !own(&mount.point));
    found.extend(strange.map(|mount| format!("mount of {} at {}", mount.source, mount.point)));
    let marks = scene.marks.get(host).and_then(|marks| marks.as_ref().ok());
    let marks = marks.ok_or_else(|| format!("host {host}: its sessions are not known"))?;
    let sessions = marks.sessions.iter().filter(|iqn| what.traces.targets.contains(*iqn));
    let strange = sessions.filter(|iqn| !record.owns(OwnedKind::IscsiSession, iqn));
    found.extend(strange.map(|iqn| format!("session with {iqn}")));
    Ok(found)
}

/// Tells whether what an entry stands for is, or makes, the mount at `point`.
fn leads_to_mount(entry: &Owned, point: &str) -> bool {
    matches!(entry.kind, OwnedKind::Unit | OwnedKind::Directory | OwnedKind::Pool)
        && (entry.name == point || entry.detail.values().any(|value| value == point))
}

impl<'a> Going<'a> {
    fn add(&mut self, entry: &'a Owned, host: &HostId, only: Option<&'a HostId>, scene: &Scene<'_>) {
        if entry.kind == OwnedKind::Guest {
            self.guests.insert(entry.name.as_str());
        }
        self.only = only;
        self.server_side |= traces::is_server_side(entry.kind);
        self.traces.add(entry, scene.cluster.hosts.get(host));
    }

    /// `stays`: the same files come back at the same place, so that whoever is shut off can wait.
    fn in_use(&self, scene: &Scene<'_>, storage: &str, own: &BTreeSet<&str>, stays: Stays) -> Option<InUse> {
        let Traces { paths, pools, volumes, targets, .. } = &self.traces;
        // What only a guest entry names is no storage that goes.
        if pools.is_empty() && volumes.is_empty() && paths.is_empty() && targets.is_empty() {
            return None;
        }
        if let (true, Some(lost)) = (self.server_side, scene.lost()) {
            return Some(InUse::ByLost(lost));
        }
        let mut users = Vec::new();
        let asked = scene.domains.iter().filter(|(host, _)| self.only.is_none_or(|only| only == *host));
        for (host, domains) in asked {
            let domains = match domains {
                Ok(domains) => domains,
                Err(super::domains::DomainsError::NoLibvirt(_)) => continue,
                Err(error) => return Some(InUse::Unknown(error.to_string())),
            };
            for domain in domains.iter().filter(|domain| self.is_user(scene, storage, domain)) {
                let state = if domain.active { "running" } else { "defined" };
                if domain.active || !(own.contains(domain.name.as_str()) || stays == Stays::Yes) {
                    users.push(format!("{} on {host} ({state})", domain.name));
                }
            }
        }
        users.sort();
        (!users.is_empty()).then_some(InUse::By(users))
    }

    /// Mounts of what goes that stay: a volume or export is not taken from under them.
    fn mounted(
        &self,
        scene: &Scene<'_>,
        going: &BTreeMap<&HostId, Vec<&Owned>>,
        stays: Stays,
    ) -> Option<InUse> {
        if stays == Stays::Yes || self.only.is_some() || !self.server_side {
            return None;
        }
        let mut mounts = Vec::new();
        for (host, table) in &scene.mounts {
            let Ok(table) = table else { continue };
            let goes = |point: &str| {
                going.get(host).is_some_and(|all| all.iter().any(|entry| leads_to_mount(entry, point)))
            };
            let left = table.iter().filter(|mount| self.traces.is_mounted_as(mount) && !goes(&mount.point));
            mounts.extend(left.map(|mount| format!("{} at {} on {host}", mount.source, mount.point)));
        }
        (!mounts.is_empty()).then_some(InUse::Mounted(mounts))
    }

    fn is_lun(&self, path: &str) -> bool {
        let leads = |target: &String| iscsi::commands::open_iscsi::leads_to(path, target);
        self.traces.devices.contains(path) || self.traces.targets.iter().any(leads)
    }

    fn is_below(&self, path: &str) -> bool {
        AbsPath::new(path).is_ok_and(|path| self.traces.paths.iter().any(|root| path.is_within(root)))
    }

    fn is_user(&self, scene: &Scene<'_>, storage: &str, domain: &Domain) -> bool {
        let by_file = scene
            .cluster
            .guests
            .values()
            .filter(|guest| guest.id.as_str() == domain.name)
            .flat_map(|guest| super::guests::images(guest))
            .filter_map(|image| scene.cluster.images.get(image))
            .any(|image| image.storage.as_str() == storage);
        let traces = &self.traces;
        by_file
            || self.guests.contains(domain.name.as_str())
            || domain.disks.iter().any(|disk| match disk {
                DiskUse::Path(path) if self.is_lun(path) => true,
                DiskUse::Path(path) => self.is_below(path),
                DiskUse::Pool { pool, .. } => traces.pools.contains(pool),
                // A path on a server, or a volume or target and what is on it.
                DiskUse::Network { name, .. } => {
                    let first = name.split('/').next().unwrap_or_default();
                    self.is_below(name) || traces.volumes.contains(first) || traces.targets.contains(first)
                }
            })
    }
}

/// Says that storage cannot go because it is used, or because nobody knows whether it is.
impl InUse {
    pub fn blocked(&self, storage: &str, only: Option<&HostId>) -> Option<Blocked> {
        let subject = ResourceId::new(ResourceKind::Storage, storage);
        let blocked = match self {
            Self::Unknown(reason) => {
                let reason = format!("cannot tell whether guests use it: {reason}");
                Blocked::unknown(Wave::ReleaseGuest, subject, reason)
            }
            Self::ByLost(hosts) => {
                let reason = format!("cannot tell whether guests use it: {hosts}");
                Blocked::new(Wave::ReleaseGuest, subject, reason).hint(REMEDY)
            }
            Self::By(guests) => {
                let reason = format!("guests use it: {}", guests.join(", "));
                let hint = match only {
                    None => {
                        "shut these guests down and undefine those that stor did not define, or keep the storage"
                    }
                    Some(_) => {
                        "write `hypervisor: true` back and move these guests away first (`stor migrate`)"
                    }
                };
                Blocked::new(Wave::ReleaseGuest, subject, reason).hint(hint)
            }
            Self::Mounted(mounts) => {
                let reason = format!("it is mounted: {}", mounts.join(", "));
                Blocked::new(Wave::ReleaseGuest, subject, reason)
                    .hint("unmount it there first; or take the storage out of the file, which removes stor's own mounts")
            }
        };
        let blocked = match only {
            Some(host) => blocked.on(host),
            None => blocked,
        };
        Some(match StorageId::new(storage) {
            Ok(id) => blocked.serving(&id),
            Err(_) => blocked,
        })
    }
}
