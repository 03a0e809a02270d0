//! The storage entries of the cluster file. Belongs to the level of `spec`: imports only `model`, the building blocks of
//! `spec` (`input`, `scalar`, `problem`, `space`) and the backends' `spec.rs`.

use schemars::JsonSchema;
use serde::Deserialize;

pub use super::gluster::spec::GlusterSpec;
use super::gluster::spec::RawGluster;
pub use super::iscsi::spec::IscsiSpec;
use super::iscsi::spec::{LunPath, RawIscsi};
pub use super::nfs::spec::NfsSpec;
use super::nfs::spec::RawNfs;
use crate::model::{AbsPath, ByteSize, ClusterName, ImageFormat, ImageId, SecretRef, StorageId};
use crate::spec::Declared;
use crate::spec::input::Text;
use crate::spec::problem::Problem;

/// How hypervisors reach files on a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Access {
    /// They mount it, and libvirt has a pool on the mount.
    Mount,
    /// QEMU's own client reaches it; nothing is mounted, there is no pool.
    Direct,
}

/// The source of a guest's disk, paths and names without doubled slashes and dots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// A file or block device.
    Path(&'a str),
    /// A volume of a pool.
    Volume {
        /// Pool.
        pool: &'a str,
        /// Volume.
        volume: &'a str,
    },
    /// Reached by QEMU itself.
    Network {
        /// `gluster`, `nfs`, `iscsi`, `rbd` ...
        protocol: &'a str,
        /// Name within the protocol.
        name: &'a str,
    },
}

/// Where the source of a disk leads, seen from one storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leads {
    /// To another place.
    Elsewhere,
    /// To this storage, but to nothing of it that the file names.
    Undeclared,
    /// To this file of it, below its directory.
    File(String),
    /// To the LUN of this name.
    Lun(ImageId),
}

impl Leads {
    fn to_lun(path: LunPath<'_>) -> Self {
        match path {
            LunPath::Elsewhere => Self::Elsewhere,
            LunPath::Undeclared => Self::Undeclared,
            LunPath::Lun(lun) => Self::Lun(lun.name.clone()),
        }
    }
}

/// One entry of `storage:`; exactly one backend key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageSpec {
    /// A replicated GlusterFS volume.
    Gluster(GlusterSpec),
    /// A directory that an NFS server exports.
    Nfs(NfsSpec),
    /// An iSCSI target, whose LUNs are the images.
    Iscsi(IscsiSpec),
}

/// Why an image cannot be on a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which key of the image says what cannot be.
    pub key: RefusedKey,
    /// Why not.
    pub reason: String,
    /// What the user can do.
    pub hint: String,
}

/// A key of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedKey {
    /// `storage`.
    Storage,
    /// `format`.
    Format,
    /// `size`.
    Size,
}

impl StorageSpec {
    /// Where hypervisors mount it; `None` when they do not.
    #[must_use]
    pub fn mounted_at(&self) -> Option<&AbsPath> {
        match self {
            Self::Gluster(spec) => (spec.access == Access::Mount).then_some(&spec.mount),
            Self::Nfs(spec) => spec.mount.as_ref().map(|mount| &mount.path),
            Self::Iscsi(_) => None,
        }
    }

    /// Says why no file can be copied in when an image is created, and what to do: it goes through a mount, or to the server
    /// that has the directory itself.
    #[must_use]
    pub fn refuses_sources(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Gluster(_) if self.mounted_at().is_some() => None,
            Self::Gluster(_) => Some((
                "is mounted nowhere, so nothing can be copied into it",
                "write access: mount for the storage, or leave out source and fill the image yourself",
            )),
            Self::Nfs(_) => None,
            Self::Iscsi(_) => Some((
                "has LUNs, into which stor copies nothing",
                "leave out source; fill the LUN's backing file before the first apply, which keeps it as it is",
            )),
        }
    }

    /// Says why an image cannot be on this storage, and what to do; only a LUN has to be declared with its storage.
    #[must_use]
    pub fn refuses(&self, image: &ImageId, format: ImageFormat, size: Option<ByteSize>) -> Option<Refusal> {
        match self {
            Self::Gluster(_) | Self::Nfs(_) => None,
            Self::Iscsi(spec) => spec.refuses(image, format, size),
        }
    }

    /// The secrets that it refers to.
    #[must_use]
    pub fn secrets(&self) -> Vec<&SecretRef> {
        match self {
            Self::Gluster(_) | Self::Nfs(_) => Vec::new(),
            Self::Iscsi(spec) => spec.chap.iter().map(|chap| &chap.secret).collect(),
        }
    }

    /// Which file or LUN of this storage the source of a guest's disk means, by whatever way: its mount, its pool, a protocol of QEMU, a
    /// device.
    #[must_use]
    pub fn leads(&self, cluster: Option<&ClusterName>, id: &StorageId, source: &Source<'_>) -> Leads {
        let file = |name: &str| Leads::File(name.to_owned());
        match (self, source) {
            (Self::Iscsi(spec), Source::Path(path)) => Leads::to_lun(spec.at_path(cluster, id, path)),
            (Self::Iscsi(spec), Source::Volume { pool, volume }) if *pool == id.as_str() => {
                Leads::to_lun(spec.numbered(volume.rsplit(':').next().unwrap_or_default()))
            }
            (Self::Iscsi(spec), Source::Network { protocol, name }) => {
                let (own, iqn) = self.network_place(id);
                let (target, lun) = name.rsplit_once('/').unwrap_or((name, "0"));
                let here = *protocol == own && target == iqn;
                if here { Leads::to_lun(spec.numbered(lun)) } else { Leads::Elsewhere }
            }
            (Self::Gluster(_) | Self::Nfs(_), Source::Path(path)) => {
                let below = self.mounted_at().and_then(|mount| path.strip_prefix(mount.as_str()));
                below.and_then(|below| below.strip_prefix('/')).map_or(Leads::Elsewhere, file)
            }
            (Self::Gluster(_) | Self::Nfs(_), Source::Volume { pool, volume }) if *pool == id.as_str() => {
                file(volume)
            }
            (Self::Gluster(_) | Self::Nfs(_), Source::Network { protocol, name }) => {
                let (own, place) = self.network_place(id);
                let below = name.strip_prefix(&place).and_then(|below| below.strip_prefix('/'));
                below.filter(|_| *protocol == own).map_or(Leads::Elsewhere, file)
            }
            (_, Source::Volume { .. }) => Leads::Elsewhere,
        }
    }

    /// What the names of all its files begin with, before a slash: protocol and name.
    #[must_use]
    pub fn network_place(&self, id: &StorageId) -> (&'static str, String) {
        match self {
            Self::Gluster(_) => ("gluster", id.to_string()),
            Self::Nfs(spec) => ("nfs", spec.path.to_string()),
            Self::Iscsi(spec) => ("iscsi", spec.iqn.to_string()),
        }
    }
}

/// One storage entry as it is written: its backend is the one key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Storage")]
pub enum RawStorage {
    /// A replicated GlusterFS volume, named like the entry.
    Gluster(Box<RawGluster>),
    /// A directory that an NFS server exports to the hypervisors.
    Nfs(Box<RawNfs>),
    /// An iSCSI target, whose LUNs are the images.
    Iscsi(Box<RawIscsi>),
}

impl RawStorage {
    /// Gives the entry its meaning; what is wrong goes to `declared.problems`.
    pub fn resolve(self, id: &StorageId, declared: &mut Declared<'_>) -> Option<StorageSpec> {
        match self {
            Self::Gluster(raw) => raw.resolve(id, declared).map(StorageSpec::Gluster),
            Self::Nfs(raw) => raw.resolve(id, declared).map(StorageSpec::Nfs),
            Self::Iscsi(raw) => raw.resolve(id, declared).map(StorageSpec::Iscsi),
        }
    }
}

/// Where hypervisors mount a storage, and the claim on that place; a place that is given although nothing is mounted is
/// a problem. The place is known even when nothing is mounted.
pub(super) fn resolve_mount(
    word: Option<&Text<AbsPath>>,
    id: &StorageId,
    access: Access,
    declared: &mut Declared<'_>,
) -> Option<AbsPath> {
    let place = word.map_or(declared.place, |word| word.place);
    let subject = format!("storage {id}: mount");
    let mount = match word {
        None => AbsPath::new(format!("/var/lib/libvirt/images/{id}")).ok(),
        Some(word) => {
            if access == Access::Direct {
                declared.problems.add(|| {
                    Problem::new(place, format!("{subject}: nothing is mounted with access: direct"))
                        .hint("remove the key, or write access: mount")
                });
            }
            word.parse(&subject, declared.problems)
        }
    }?;
    if access == Access::Mount {
        declared.space.mount(&mount, place, format!("storage {id}"), declared.problems);
    }
    Some(mount)
}
