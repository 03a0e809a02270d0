//! The storage entries of the cluster file. Belongs to the level of `spec`: imports only `model`, the building blocks of
//! `spec` (`input`, `scalar`, `problem`, `space`) and the backends' `spec.rs`.

use schemars::JsonSchema;
use serde::Deserialize;

pub use super::gluster::spec::GlusterSpec;
use super::gluster::spec::RawGluster;
pub use super::nfs::spec::NfsSpec;
use super::nfs::spec::RawNfs;
use crate::model::{AbsPath, SecretRef, StorageId};
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

/// One entry of `storage:`; exactly one backend key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageSpec {
    /// A replicated GlusterFS volume.
    Gluster(GlusterSpec),
    /// A directory that an NFS server exports.
    Nfs(NfsSpec),
}

impl StorageSpec {
    /// Where hypervisors mount it; `None` when they do not.
    #[must_use]
    pub fn mounted_at(&self) -> Option<&AbsPath> {
        match self {
            Self::Gluster(spec) => (spec.access == Access::Mount).then_some(&spec.mount),
            Self::Nfs(spec) => spec.mount.as_ref().map(|mount| &mount.path),
        }
    }

    /// Tells whether a file can be copied in when an image is created: through a mount, or on the server that has the
    /// directory itself.
    #[must_use]
    pub fn takes_sources(&self) -> bool {
        match self {
            Self::Gluster(_) => self.mounted_at().is_some(),
            Self::Nfs(_) => true,
        }
    }

    /// The secrets that it refers to.
    #[must_use]
    pub fn secrets(&self) -> Vec<&SecretRef> {
        match self {
            Self::Gluster(_) | Self::Nfs(_) => Vec::new(),
        }
    }

    /// The name of a file in a guest's `<source protocol=.. name=..>` when QEMU reaches it itself: protocol and name.
    #[must_use]
    pub fn network_name(&self, id: &StorageId, file: &str) -> (&'static str, String) {
        match self {
            Self::Gluster(_) => ("gluster", format!("{id}/{file}")),
            Self::Nfs(spec) => ("nfs", format!("{}/{file}", spec.path)),
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
}

impl RawStorage {
    /// Gives the entry its meaning; what is wrong goes to `declared.problems`.
    pub fn resolve(self, id: &StorageId, declared: &mut Declared<'_>) -> Option<StorageSpec> {
        match self {
            Self::Gluster(raw) => raw.resolve(id, declared).map(StorageSpec::Gluster),
            Self::Nfs(raw) => raw.resolve(id, declared).map(StorageSpec::Nfs),
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
