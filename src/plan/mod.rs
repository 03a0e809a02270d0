//! The plan: what every part asks for, joined, checked and put into waves. Pure and deterministic.
//!
//! Imports `storage`, `spec`, `libvirt` (XML builders) and `model`. No I/O: nothing here can reach a host.

pub mod expand;

use serde::Serialize;

use crate::model::{Blocked, Finding, Step, Wave};

/// Everything that would change, in the order in which it would.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Waves that have a step, in order; within a wave sorted by host, then in the order in which steps run.
    pub waves: Vec<(Wave, Vec<Step>)>,
    /// What cannot be planned now, and why.
    pub blocked: Vec<Blocked>,
    /// What the user should know.
    pub findings: Vec<Finding>,
}

impl Plan {
    /// Tells whether the hosts match the file: nothing to do and nothing unknown.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waves.is_empty() && self.blocked.is_empty()
    }

    /// All steps in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.waves.iter().flat_map(|(_, steps)| steps)
    }
}
