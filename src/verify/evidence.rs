//! The evidence of one run: what every host and every protocol client answered, before anything is judged. Pure data.

use std::collections::BTreeMap;

use crate::libvirt::pools::Pools;
use crate::libvirt::qemu_conf::QemuUser;
use crate::model::{HostId, ImageId, StorageId};
use crate::storage::direct_probe::DirectSeen;
use crate::storage::lun_probe::LunsSeen;
use crate::storage::mount_probe::mount_table::Mount;
use crate::storage::mount_probe::seen::{LockTried, Looked, NoFacts, Written};
use crate::storage::probe::{ClientAnswer, NoClient, Probe};

/// A fact, or why there is none.
pub type Fact<T> = Result<T, NoFacts>;

/// What is proved: which images (by storage) on which hypervisors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Hypervisors, sorted.
    pub hosts: Vec<HostId>,
    /// Who opens images on those where no configuration says it.
    pub users: BTreeMap<HostId, QemuUser>,
    /// Each storage with its images and how it is probed, sorted.
    pub storages: Vec<ScopedStorage>,
}

/// One storage of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopedStorage {
    /// How it is probed.
    pub probe: Probe,
    /// Its images, sorted.
    pub images: Vec<ScopedImage>,
}

/// One image of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopedImage {
    /// Its name.
    pub id: ImageId,
    /// Its file's name on the storage.
    pub file: String,
    /// Whether the file's size is that of the disk, and so never changes by itself.
    pub sized: Sized,
}

/// Whether a file's size may change while a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sized {
    /// Raw: the file is as large as the disk.
    Fixed,
    /// qcow2: the file grows.
    Grows,
}

/// Everything that was seen in one run.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Per hypervisor of the scope.
    pub hosts: BTreeMap<HostId, HostEvidence>,
    /// Per storage with a protocol client.
    pub clients: BTreeMap<StorageId, Result<ClientAnswer, NoClient>>,
    /// What was seen of LUNs before the hypervisors looked at them.
    pub earlier: BTreeMap<StorageId, ClientAnswer>,
    /// Storages whose server was asked through ssh because the client on this machine could not look.
    pub stand_ins: BTreeMap<StorageId, StandIn>,
    /// Names this run in every nonce.
    pub run: String,
}

/// A server that was asked itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandIn {
    /// The server.
    pub host: HostId,
    /// Why the client on this machine did not look.
    pub why: NoClient,
}

impl Evidence {
    /// What a host writes into its probe file in this run.
    #[must_use]
    pub fn nonce(&self, storage: &StorageId, host: &HostId) -> String {
        format!("{}/{storage}/{host}", self.run)
    }
}

/// What one hypervisor showed.
#[derive(Debug, Clone)]
pub struct HostEvidence {
    /// The kernel's mount table.
    pub mounts: Fact<Vec<Mount>>,
    /// The pools.
    pub pools: Fact<Pools>,
    /// The user that QEMU runs as; `None` when it could not be told.
    pub user: Fact<Option<QemuUser>>,
    /// Each mounted storage.
    pub mounted: BTreeMap<StorageId, MountedEvidence>,
    /// Each volume that QEMU reaches directly.
    pub direct: BTreeMap<StorageId, Fact<DirectSeen>>,
    /// Each target whose LUNs QEMU reaches directly.
    pub luns: BTreeMap<StorageId, Fact<LunsSeen>>,
}

/// What one hypervisor showed of one mounted storage.
#[derive(Debug, Clone)]
pub struct MountedEvidence {
    /// Round 1: its own nonce and lock.
    pub written: Fact<Written>,
    /// Round 2: images, others' nonces, another's lock, access.
    pub looked: Fact<Looked>,
    /// The host whose lock it tried.
    pub rival: Option<HostId>,
    /// Round 3: the other's lock, once let go.
    pub released: Fact<BTreeMap<String, LockTried>>,
    /// Round 4: whether its probe file is gone.
    pub removed: Fact<()>,
}
