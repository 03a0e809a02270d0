//! The storage backends: one folder each, one arm of one match here.
//!
//! Imports `spec`, `libvirt` (pool XML), `host` (probes only), `guard` (the shape of openings) and `model`. What joins the backends' steps is in `plan`.

pub mod address;
pub mod chap_secret;
pub mod direct_probe;
pub mod facts;
pub mod gluster;
pub mod health;
pub mod image_format;
pub mod iscsi;
pub mod keeper;
pub mod lun_probe;
pub mod mount_client;
pub mod mount_probe;
pub mod mount_unit;
pub mod nfs;
pub mod packages;
pub mod planning;
pub mod pool;
pub mod probe;
pub mod service;
pub mod spec;
pub mod stamp_file;
pub mod traces;

use crate::guard::Opening;
use crate::model::{
    AbsPath, Answer, HostId, ImageLocation, Observations, Owned, Proposal, Query, StorageId, Unknown,
};
use crate::spec::{Cluster, ImageEntry};

/// The backend of one storage entry; `None` when the cluster has no entry of this name.
#[must_use]
pub fn backend<'a>(cluster: &'a Cluster, id: &'a StorageId) -> Option<Box<dyn Backend + 'a>> {
    match cluster.storage.get(id)? {
        spec::StorageSpec::Gluster(spec) => Some(Box::new(gluster::Gluster::new(cluster, id, spec))),
        spec::StorageSpec::Nfs(spec) => Some(Box::new(nfs::Nfs::new(cluster, id, spec))),
        spec::StorageSpec::Iscsi(spec) => Some(Box::new(iscsi::Iscsi::new(cluster, id, spec))),
    }
}

/// The backends of all storage entries, sorted by name.
#[must_use]
pub fn backends(cluster: &Cluster) -> Vec<Box<dyn Backend + '_>> {
    cluster.storage.keys().filter_map(|id| backend(cluster, id)).collect()
}

/// What every backend can do for one storage entry.
///
/// A backend holds the cluster and its entry; it plans for *all* hosts from one round of observations.
pub trait Backend {
    /// The entry's name.
    fn id(&self) -> &StorageId;
    /// What has to be asked on `host` before planning; empty where the host has no part in this storage.
    fn queries(&self, host: &HostId) -> Vec<Query>;
    /// Steps, blocked parts and findings; pure.
    fn plan(&self, seen: &Observations) -> Proposal;
    /// All that stor would own on `host` for this storage once everything is in place; what the ownership record holds
    /// beyond the claims of all parts is pruned.
    fn claims(&self, host: &HostId) -> Vec<Owned>;
    /// How hypervisors reach an image on this storage.
    fn locate(&self, image: &ImageEntry) -> ImageLocation;
    /// Whether `host`, a hypervisor, has this storage where [`Backend::locate`] says, as its answers show.
    ///
    /// # Errors
    /// [`Unknown`] when the answers that tell are missing.
    fn attached(&self, host: &HostId, seen: &Observations) -> Result<Attached, Unknown>;
    /// What [`Backend::attached`] wants answered.
    fn attached_queries(&self) -> Vec<Query>;
    /// By what any host shows that it uses this storage as the file has it.
    fn traces(&self) -> traces::Traces;
    /// Ports of `host` that other hosts reach for this storage.
    fn openings(&self, host: &HostId) -> Vec<Opening>;
    /// SELinux booleans that this storage needs on `host`.
    fn booleans(&self, host: &HostId) -> &'static [&'static str];
    /// Where the servers keep this image's data themselves (its path on each brick, below an export): for looking only,
    /// when no hypervisor has the storage attached.
    fn backing(&self, image: &ImageEntry) -> Vec<(HostId, AbsPath)>;
    /// The server that makes the image itself, and the file's path there; `None` where hypervisors make it, at
    /// [`Backend::locate`].
    fn made_on(&self, _image: &ImageEntry) -> Option<(HostId, AbsPath)> {
        None
    }
    /// Whether planning for the storage makes its images, too, since they are a part of what is offered.
    fn makes_images(&self) -> bool {
        false
    }
    /// How it is proved that all hypervisors reach the same images.
    fn probe(&self) -> probe::Probe;
    /// Which hosts can tell how it is doing (the first that answers is enough), and what they are asked.
    fn health_query(&self) -> (Vec<HostId>, Query);
    /// Reads the answer to [`Backend::health_query`].
    fn read_health(&self, answer: &Answer) -> health::Health;
}

/// Whether a hypervisor has a storage attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attached {
    /// It is mounted there, from the right source: paths below it are on this storage.
    Yes,
    /// Nothing is mounted there yet.
    No,
    /// Something else is mounted there; says what.
    Other(String),
    /// It is reached through a protocol; there is nothing to mount.
    Remote,
}

/// Asks a protocol client on this machine.
///
/// # Errors
/// [`probe::NoClient`]
pub fn look(
    client: &probe::Client,
    request: &probe::ClientRequest,
) -> Result<probe::ClientAnswer, probe::NoClient> {
    match client {
        probe::Client::Gfapi { volume, allowed } => gluster::probe::look(volume, allowed, request),
        probe::Client::Nfs { export, allowed, v3 } => nfs::wire::look(export, allowed, *v3, request),
        probe::Client::Iscsi { target, allowed } => iscsi::wire::look(target, allowed, request),
    }
}
