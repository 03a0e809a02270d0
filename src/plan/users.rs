//! Which guests use storage that is about to go.
//!
//! Pure. Imports `storage` (what a path leads to), `model` and the scene. A guest of stor's own that is shut off and goes as well is no user.

use std::collections::{BTreeMap, BTreeSet};

use super::domains::{DiskUse, Domain};
use super::release::Data;
use super::scene::Scene;
use crate::model::{AbsPath, HostId, Owned, OwnedKind};
use crate::storage::iscsi;
use crate::storage::spec::StorageSpec;

/// Why storage cannot go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InUse {
    /// These guests use it, each as `web1 on kvm1 (running)`, sorted.
    By(Vec<String>),
    /// A hypervisor did not say which guests it has.
    Unknown(String),
}

/// Whether what goes comes back in another form, with the same files at the same place: another server for the same
/// directory, another mount at the same place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stays {
    Yes,
    No,
}

fn comes_back(scene: &Scene<'_>, entry: &Owned) -> bool {
    let path = entry.detail.get("path").map(String::as_str);
    let storage = entry.storage.as_deref();
    let spec =
        scene.cluster.storage.iter().find(|(id, _)| Some(id.as_str()) == storage).map(|(_, spec)| spec);
    match (entry.kind, spec) {
        (OwnedKind::KernelExport | OwnedKind::GaneshaExport, Some(StorageSpec::Nfs(spec))) => {
            path == Some(spec.path.as_str())
        }
        // Another program offers the same LUNs under the same name.
        (OwnedKind::IscsiTarget, Some(StorageSpec::Iscsi(spec))) => {
            entry.detail.get("iqn").map(String::as_str) == Some(spec.iqn.as_str())
        }
        (OwnedKind::LioTarget, Some(StorageSpec::Iscsi(spec))) => entry.name == spec.iqn.as_str(),
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
    paths: BTreeSet<AbsPath>,
    pools: BTreeSet<&'a str>,
    volumes: BTreeSet<&'a str>,
    targets: BTreeSet<&'a str>,
    devices: BTreeSet<&'a str>,
    guests: BTreeSet<&'a str>,
}

/// The storage that is in use, among what `going` names.
pub(super) fn of(
    scene: &Scene<'_>,
    going: &BTreeMap<&HostId, Vec<&Owned>>,
    data: Data<'_>,
) -> BTreeMap<String, InUse> {
    let mut storages: BTreeMap<&str, Going<'_>> = BTreeMap::new();
    for entry in going.values().flatten() {
        let Some(storage) = entry.storage.as_deref() else { continue };
        storages.entry(storage).or_default().add(entry);
    }
    let own: BTreeSet<&str> = going
        .values()
        .flatten()
        .filter(|entry| entry.kind == OwnedKind::Guest)
        .map(|entry| entry.name.as_str())
        .collect();
    let returning = |storage: &str| {
        let mut entries = going.values().flatten().filter(|entry| entry.storage.as_deref() == Some(storage));
        let returns = matches!(data, Data::Keep) && entries.all(|entry| comes_back(scene, entry));
        if returns { Stays::Yes } else { Stays::No }
    };
    let used = storages.into_iter().filter_map(|(storage, what)| {
        Some((storage.to_owned(), what.in_use(scene, storage, &own, returning(storage))?))
    });
    used.collect()
}

impl<'a> Going<'a> {
    fn add(&mut self, entry: &'a Owned) {
        let name = entry.name.as_str();
        match entry.kind {
            OwnedKind::Pool => {
                self.pools.insert(name);
            }
            OwnedKind::GlusterVolume => {
                self.volumes.insert(name);
            }
            OwnedKind::IscsiTarget => {
                self.targets.extend(entry.detail.get("iqn").map(String::as_str));
            }
            OwnedKind::LioTarget => {
                self.targets.insert(name);
            }
            OwnedKind::IscsiSession => {
                self.targets.insert(name);
                let devices = entry.detail.get("devices").into_iter().flat_map(|list| list.split(' '));
                self.devices.extend(devices);
            }
            OwnedKind::Guest => {
                self.guests.insert(name);
            }
            _ => {}
        }
        let texts = entry.detail.values().map(String::as_str).chain([name]);
        self.paths.extend(texts.filter_map(|text| AbsPath::new(text).ok()));
    }

    /// `stays`: the same files come back at the same place, so that whoever is shut off can wait.
    fn in_use(&self, scene: &Scene<'_>, storage: &str, own: &BTreeSet<&str>, stays: Stays) -> Option<InUse> {
        // What only a guest entry names is no storage that goes.
        if self.pools.is_empty() && self.volumes.is_empty() && self.paths.is_empty() {
            return None;
        }
        let mut users = Vec::new();
        for (host, domains) in &scene.domains {
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

    fn is_lun(&self, path: &str) -> bool {
        let leads = |target: &&str| iscsi::commands::open_iscsi::leads_to(path, target);
        self.devices.contains(path) || self.targets.iter().any(leads)
    }

    fn is_below(&self, path: &str) -> bool {
        AbsPath::new(path).is_ok_and(|path| self.paths.iter().any(|root| path.is_within(root)))
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
        by_file
            || self.guests.contains(domain.name.as_str())
            || domain.disks.iter().any(|disk| match disk {
                DiskUse::Path(path) if self.is_lun(path) => true,
                DiskUse::Path(path) => self.is_below(path),
                DiskUse::Pool { pool, .. } => self.pools.contains(pool.as_str()),
                // A path on a server, or a volume or target and what is on it.
                DiskUse::Network { name, .. } => {
                    let first = name.split('/').next().unwrap_or_default();
                    self.is_below(name) || self.volumes.contains(first) || self.targets.contains(first)
                }
            })
    }
}
