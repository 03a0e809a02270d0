//! The storage entries of the cluster file. Belongs to the level of `spec`: imports only `model` and the backends' `spec.rs`.

pub use super::gluster::spec::GlusterSpec;

/// One entry of `storage:`; exactly one backend key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageSpec {
    /// A replicated GlusterFS volume.
    Gluster(GlusterSpec),
}
