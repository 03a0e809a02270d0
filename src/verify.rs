//! Verify: proves that every hypervisor reaches the very same images, and keeps what was seen.
//!
//! Four rounds, each one batch per hypervisor, all hypervisors at once ([`rounds`]); then everything is judged at once
//! ([`judge`], pure) into an evidence matrix ([`matrix`]). Imports `storage` (how a storage is probed), `host`,
//! `libvirt` (readers), `spec` and `model`. What a matrix looks like on a screen is in `cli`. `docs/verify.md` explains
//! each check to users.

pub mod evidence;
pub mod judge;
pub mod matrix;
mod rounds;

pub use matrix::{Cell, Check, CheckKind, ClientNote, Matrix, Verdict};

use crate::host::Fleet;
use crate::libvirt::qemu_conf::QemuUser;
use crate::model::{Cancel, HostId, ImageFormat, ImageId, StorageId};
use crate::spec::Cluster;
use crate::storage;
use crate::storage::probe::{Client, ClientAnswer, ClientRequest, NoClient};
use evidence::{Scope, ScopedImage, ScopedStorage, Sized};

/// What is being done, for progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyEvent {
    /// A round begins.
    Round {
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// What it does: `write and lock`.
        doing: &'static str,
    },
}

/// The protocol clients on the machine that runs stor; a test brings its own.
pub trait Clients: Sync {
    /// Asks one storage.
    ///
    /// # Errors
    /// [`NoClient`]
    fn look(&self, client: &Client, request: &ClientRequest) -> Result<ClientAnswer, NoClient>;
}

/// The real clients.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalClients;

impl Clients for LocalClients {
    fn look(&self, client: &Client, request: &ClientRequest) -> Result<ClientAnswer, NoClient> {
        storage::look(client, request)
    }
}

/// Proves all images on all hypervisors.
#[must_use]
pub fn verify(cluster: &Cluster, fleet: &Fleet, cancel: &Cancel, on_event: &dyn Fn(VerifyEvent)) -> Matrix {
    let hosts: Vec<HostId> = cluster.hypervisors().map(|host| host.id.clone()).collect();
    verify_scope(cluster, fleet, &scope(cluster, &hosts, None), &LocalClients, cancel, on_event)
}

/// Proves certain images on certain hypervisors, e.g. a guest's before it moves.
#[must_use]
pub fn verify_images(
    cluster: &Cluster,
    fleet: &Fleet,
    hosts: &[HostId],
    images: &[ImageId],
    cancel: &Cancel,
    on_event: &dyn Fn(VerifyEvent),
) -> Matrix {
    verify_scope(cluster, fleet, &scope(cluster, hosts, Some(images)), &LocalClients, cancel, on_event)
}

/// What is proved: these images (`None`: all, and storages without any) on these hosts.
#[must_use]
pub fn scope(cluster: &Cluster, hosts: &[HostId], images: Option<&[ImageId]>) -> Scope {
    let mut hosts = hosts.to_vec();
    hosts.sort();
    hosts.dedup();
    let wanted = |id: &ImageId| images.is_none_or(|images| images.contains(id));
    let scoped = |storage: &StorageId| {
        let probe = storage::backend(cluster, storage)?.probe();
        let images: Vec<ScopedImage> = cluster
            .images_on(storage)
            .filter(|image| wanted(&image.id))
            .map(|image| ScopedImage {
                id: image.id.clone(),
                file: image.file_name(),
                sized: match image.format {
                    ImageFormat::Raw => Sized::Fixed,
                    ImageFormat::Qcow2 => Sized::Grows,
                },
            })
            .collect();
        Some(ScopedStorage { probe, images })
    };
    let storages = cluster
        .storage
        .keys()
        .filter_map(scoped)
        .filter(|storage| images.is_none() || !storage.images.is_empty())
        .collect();
    let user = |host: &HostId| Some((host.clone(), QemuUser::unconfigured(cluster.driver_of(host)?)?));
    let users = hosts.iter().filter_map(user).collect();
    Scope { hosts, users, storages }
}

/// Proves a scope with the given protocol clients.
#[must_use]
pub fn verify_scope(
    cluster: &Cluster,
    fleet: &Fleet,
    scope: &Scope,
    clients: &dyn Clients,
    cancel: &Cancel,
    on_event: &dyn Fn(VerifyEvent),
) -> Matrix {
    let run = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
    let evidence = rounds::gather(&cluster.name, fleet, scope, clients, &run, cancel, on_event);
    judge::judge(&cluster.name, scope, &evidence)
}
