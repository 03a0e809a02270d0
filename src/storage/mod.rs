//! The storage backends: one folder each, one arm of one match here.
//!
//! Imports `spec`, `libvirt` (pool XML), `host` (probes only) and `model`. What joins the backends' steps is in `plan`.

pub mod gluster;
pub mod spec;

use crate::model::{HostId, ImageLocation, Observations, Owned, Proposal, Query, StorageId};
use crate::spec::ImageEntry;

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
}
