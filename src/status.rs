//! Status: what the hosts show now, as facts. Nothing is proved (that is `verify`) and nothing planned.
//!
//! One batch per host; [`build`] is pure. A storage's health is asked of one of its servers, and of the next one when that
//! cannot tell. Imports `observe`, `storage`, `libvirt` (readers), `host`, `spec` and `model`. Showing it is `cli`'s.

mod build;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::host::Fleet;
use crate::libvirt::{DomainState, domstates, pools};
use crate::model::{
    AbsPath, ByteSize, Command, Finding, GuestId, HostId, ImageId, Observations, Query, StorageId,
};
use crate::observe::observe;
use crate::spec::Cluster;
use crate::storage::health::{Health, HealthState};
use crate::storage::probe::{LunTarget, MountedDirectory, Way};
use crate::storage::{self, Backend};
use crate::storage::{lun_probe, mount_probe};

pub use build::build;

/// Everything, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The cluster's name.
    pub cluster: String,
    /// All hosts.
    pub hosts: Vec<HostStatus>,
    /// All storage.
    pub storage: Vec<StorageStatus>,
    /// All images.
    pub images: Vec<ImageStatus>,
    /// All guests.
    pub guests: Vec<GuestStatus>,
    /// What the user should look at, worst first.
    pub findings: Vec<Finding>,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostStatus {
    /// Its name.
    pub host: HostId,
    /// Whether it runs guests.
    pub hypervisor: bool,
    /// Why it could not be asked, if it could not.
    pub unreachable: Option<String>,
}

/// One storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StorageStatus {
    /// Its name.
    pub storage: StorageId,
    /// How it is doing.
    pub health: Health,
    /// How each hypervisor reaches it.
    pub seats: Vec<SeatStatus>,
}

/// One storage on one hypervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeatStatus {
    /// The hypervisor.
    pub host: HostId,
    /// What is mounted, or where the host is logged in, for people; `None` where neither is to be, or it is unknown.
    pub mount: Option<String>,
    /// Whether the right thing is mounted, writable, or the host logged in at every portal.
    pub mounted: Option<bool>,
    /// `active`, `inactive` or `not defined`; `None` where there is no pool, or it is unknown.
    pub pool: Option<String>,
    /// Why something is unknown.
    pub unknown: Option<String>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageStatus {
    /// Its name.
    pub image: ImageId,
    /// Its storage.
    pub storage: StorageId,
    /// Size of the file and what it takes up, if it is there and a hypervisor could look at it.
    pub size: Option<Size>,
    /// Why there is no size.
    pub unknown: Option<String>,
}

/// The size of an image's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Its length.
    pub length: ByteSize,
    /// What it takes up on the storage.
    pub allocated: ByteSize,
}

/// One guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GuestStatus {
    /// Its name.
    pub guest: GuestId,
    /// Where it is defined, with its state.
    pub places: BTreeMap<HostId, DomainState>,
    /// Hypervisors that could not tell.
    pub unknown: BTreeMap<HostId, String>,
}

impl GuestStatus {
    /// Where it is active: running or paused. More than one host would be a catastrophe.
    pub fn active(&self) -> impl Iterator<Item = &HostId> {
        let idle = |state: &DomainState| matches!(state, DomainState::ShutOff | DomainState::Crashed);
        self.places.iter().filter(move |(_, state)| !idle(state)).map(|(host, _)| host)
    }
}

/// Asks all hosts.
#[must_use]
pub fn status(cluster: &Cluster, fleet: &Fleet) -> Status {
    let mut batches = queries(cluster);
    let mut seen = observe(fleet, &batches);
    // A storage whose first server could not tell asks the next.
    for backend in storage::backends(cluster) {
        let (servers, query) = backend.health_query();
        for server in servers.iter().skip(1) {
            if health(&*backend, &seen).state != HealthState::Unknown {
                break;
            }
            let batch = batches.entry(server.clone()).or_default();
            batch.push(query.clone());
            let only = BTreeMap::from([(server.clone(), batch.clone())]);
            for (host, answers) in observe(fleet, &only).hosts() {
                seen.insert(host.clone(), answers.clone());
            }
        }
    }
    build(cluster, &seen)
}

/// The health of a storage as the first of its servers tells it that knows.
fn health(backend: &dyn Backend, seen: &Observations) -> Health {
    let (servers, query) = backend.health_query();
    let told =
        servers.iter().filter_map(|server| Some(backend.read_health(seen.answer(server, &query).ok()?)));
    let (known, unknown): (Vec<Health>, Vec<Health>) =
        told.partition(|health| health.state != HealthState::Unknown);
    let nobody = || Health::unknown("no storage server answered");
    known.into_iter().next().or_else(|| unknown.into_iter().next()).unwrap_or_else(nobody)
}

fn mounted(cluster: &Cluster) -> impl Iterator<Item = (&StorageId, MountedDirectory)> {
    cluster.storage.keys().filter_map(|id| match storage::backend(cluster, id)?.probe().way {
        Way::Mounted(directory) => Some((id, directory)),
        Way::Direct(_) | Way::Luns(_) => None,
    })
}

fn targets(cluster: &Cluster) -> impl Iterator<Item = (&StorageId, LunTarget)> {
    cluster.storage.keys().filter_map(|id| match storage::backend(cluster, id)?.probe().way {
        Way::Luns(target) => Some((id, *target)),
        Way::Direct(_) | Way::Mounted(_) => None,
    })
}

fn pools_query(cluster: &Cluster) -> Query {
    let of_luns = targets(cluster).filter_map(|(_, target)| Some(target.pool?.name));
    let names: Vec<String> = mounted(cluster).map(|(_, directory)| directory.pool).chain(of_luns).collect();
    pools::query(names.iter().map(String::as_str))
}

/// Asks for the sizes of all images on one mounted storage; hangs at most to its deadline.
fn sizes(cluster: &Cluster, id: &StorageId, directory: &MountedDirectory) -> Option<Query> {
    let paths: Vec<AbsPath> =
        cluster.images_on(id).filter_map(|image| directory.path.join(&image.file_name()).ok()).collect();
    stat(&paths)
}

/// Asks the server that has the images itself for their sizes, where hypervisors mount nothing.
fn sizes_on_server(cluster: &Cluster, id: &StorageId) -> Option<(HostId, Query)> {
    let backend = storage::backend(cluster, id)?;
    let made: Vec<(HostId, AbsPath)> =
        cluster.images_on(id).filter_map(|image| backend.made_on(image)).collect();
    let (server, _) = made.first().cloned()?;
    let paths: Vec<AbsPath> = made.into_iter().map(|(_, path)| path).collect();
    Some((server, stat(&paths)?))
}

fn stat(paths: &[AbsPath]) -> Option<Query> {
    let command = Command::new("stat").args(["--format=%s %b %B %n", "--"]);
    let command = command.args(paths.iter().map(ToString::to_string)).deadline(mount_probe::PROBE_DEADLINE);
    (!paths.is_empty()).then(|| Query::new(command))
}

/// What every host is asked.
#[must_use]
pub fn queries(cluster: &Cluster) -> BTreeMap<HostId, Vec<Query>> {
    let mut batches: BTreeMap<HostId, Vec<Query>> = BTreeMap::new();
    for host in cluster.hosts.values() {
        let batch = batches.entry(host.id.clone()).or_default();
        batch.push(Query::new(Command::new("true")));
        if let Some(driver) = host.role.driver() {
            batch.extend([mount_probe::mounts(), pools_query(cluster), domstates::query(driver)]);
            batch.extend(mounted(cluster).filter_map(|(id, directory)| sizes(cluster, id, &directory)));
            batch.extend(targets(cluster).filter_map(|(_, target)| lun_probe::sessions(&target)));
        }
    }
    for id in cluster.storage.keys() {
        if let Some((server, query)) = sizes_on_server(cluster, id) {
            batches.entry(server).or_default().push(query);
        }
    }
    for backend in storage::backends(cluster) {
        let (servers, query) = backend.health_query();
        if let Some(first) = servers.first() {
            batches.entry(first.clone()).or_default().push(query);
        }
    }
    batches
}

impl Status {
    /// The worst health of all storage; [`HealthState::Unknown`] when a host could not be asked.
    #[must_use]
    pub fn worst(&self) -> HealthState {
        let worst = self.storage.iter().map(|storage| storage.health.state).max();
        match self.hosts.iter().any(|host| host.unreachable.is_some()) {
            true => HealthState::Unknown,
            false => worst.unwrap_or(HealthState::Healthy),
        }
    }
}
