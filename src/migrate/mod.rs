//! Moving a guest, running or (`cold`) shut off: preflight, strategy, monitor and confirm are pure; run and start are the shells around them.
//!
//! ```text
//! locate -> facts of both hosts -> preflight -> migrate, watched -> ask both hosts -> settle -> receipt
//! ```
//!
//! Imports `storage`, `spec`, `libvirt`, `host` and `model`. What happened is what both hosts show afterwards, never
//! what a call returned. Rendering belongs in `cli`.

pub mod cold;
pub mod confirm;
pub mod facts;
pub mod image_locks;
pub mod locate;
mod members;
pub mod monitor;
pub mod outcome;
pub mod outside;
pub mod preflight;
pub mod progress;
pub mod receipt;
pub mod run;
pub mod start;
pub mod strategy;

use crate::host::Fleet;
use crate::libvirt::Connector;
use crate::spec::Cluster;

/// A cluster and the two ways to its hosts.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// The resolved cluster file.
    pub cluster: &'a Cluster,
    /// The hosts over ssh.
    pub fleet: &'a Fleet,
    /// Their libvirt daemons.
    pub connector: &'a dyn Connector,
}
