//! By what a disk, a mount or a session on any host shows that it is of a storage, as it is now or as it was made once. Pure.
//!
//! Imports the backends' names and `model`. What follows from a use is decided in `plan`.

use std::collections::BTreeSet;

use super::gluster;
use super::mount_probe::mount_table::Mount;
use crate::model::{AbsPath, HostSpec, Owned, OwnedKind};

/// What leads to one storage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    /// Directories: where it is mounted, what its server exports.
    pub paths: BTreeSet<AbsPath>,
    /// Pools of libvirt.
    pub pools: BTreeSet<String>,
    /// GlusterFS volumes.
    pub volumes: BTreeSet<String>,
    /// iSCSI targets.
    pub targets: BTreeSet<String>,
    /// Devices that sessions made.
    pub devices: BTreeSet<String>,
    /// Sources of mounts, as the kernel's mount table may have them.
    pub sources: BTreeSet<String>,
    /// Whom the file lets in, by address or name.
    pub clients: BTreeSet<String>,
}

impl Traces {
    /// Adds what an entry of a record leads to, as it was made on `host`.
    pub fn add(&mut self, entry: &Owned, host: Option<&HostSpec>) {
        let name = entry.name.clone();
        match entry.kind {
            OwnedKind::Pool => _ = self.pools.insert(name),
            OwnedKind::GlusterVolume => _ = self.volumes.insert(name),
            OwnedKind::IscsiTarget => self.targets.extend(entry.detail.get("iqn").cloned()),
            OwnedKind::LioTarget => _ = self.targets.insert(name),
            OwnedKind::IscsiSession => {
                self.targets.insert(name);
                let devices = entry.detail.get("devices").into_iter().flat_map(|list| list.split(' '));
                self.devices.extend(devices.map(str::to_owned));
            }
            OwnedKind::KernelExport | OwnedKind::GaneshaExport => {
                let names = host.map_or([""; 2], |host| [host.address.as_str(), host.id.as_str()]);
                let path = entry.detail.get("path").map_or("", String::as_str);
                let both = |name: &str| [format!("{name}:{path}"), format!("{name}:{path}/")];
                self.sources.extend(names.iter().flat_map(|name| both(name)));
            }
            _ => {}
        }
        if !entry.kind.is_note() {
            let texts = entry.detail.values().map(String::as_str).chain([entry.name.as_str()]);
            self.paths.extend(texts.filter_map(|text| AbsPath::new(text).ok()));
        }
    }

    /// Tells whether a mount is of this storage.
    #[must_use]
    pub fn is_mounted_as(&self, mount: &Mount) -> bool {
        self.sources.contains(&mount.source)
            || self.volumes.iter().any(|volume| gluster::commands::is_mount_of(volume, mount))
    }
}

/// Tells whether an entry stands for a storage on its server, which clients elsewhere may use.
#[must_use]
pub fn is_server_side(kind: OwnedKind) -> bool {
    use OwnedKind::{
        BackingDevice, BackingFile, DataDirectory, GaneshaExport, GlusterVolume, IscsiTarget, KernelExport,
        LioTarget, LogicalVolume,
    };
    matches!(
        kind,
        GlusterVolume
            | KernelExport
            | GaneshaExport
            | IscsiTarget
            | LioTarget
            | BackingFile
            | BackingDevice
            | LogicalVolume
            | DataDirectory
    )
}

/// Tells whether an entry stands for what only a hypervisor has.
#[must_use]
pub fn is_client_side(kind: OwnedKind) -> bool {
    use OwnedKind::{Guest, IscsiSession, Pool, Secret, Unit};
    matches!(kind, Guest | Pool | Unit | IscsiSession | Secret)
}
