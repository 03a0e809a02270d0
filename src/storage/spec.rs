//! The storage entries of the cluster file. Belongs to the level of `spec`: imports only `model`, the building blocks of
//! `spec` (`input`, `scalar`, `problem`, `space`) and the backends' `spec.rs`.

use schemars::JsonSchema;
use serde::Deserialize;

pub use super::gluster::spec::GlusterSpec;
use super::gluster::spec::{Access, RawGluster};
use crate::model::StorageId;
use crate::spec::Declared;

/// One entry of `storage:`; exactly one backend key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageSpec {
    /// A replicated GlusterFS volume.
    Gluster(GlusterSpec),
}

impl StorageSpec {
    /// Tells whether hypervisors mount it, so that files can be copied into it.
    #[must_use]
    pub fn is_mounted(&self) -> bool {
        match self {
            Self::Gluster(spec) => spec.access == Access::Mount,
        }
    }
}

/// One storage entry as it is written: its backend is the one key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Storage")]
pub enum RawStorage {
    /// A replicated GlusterFS volume, named like the entry.
    Gluster(RawGluster),
}

impl RawStorage {
    /// Gives the entry its meaning; what is wrong goes to `declared.problems`.
    pub fn resolve(self, id: &StorageId, declared: &mut Declared<'_>) -> Option<StorageSpec> {
        match self {
            Self::Gluster(raw) => raw.resolve(id, declared).map(StorageSpec::Gluster),
        }
    }
}
