//! How a storage is doing, in the same words for every backend. Pure data; a backend fills it from its own tools.
//!
//! Imports `model`. What is done about it is the operator's matter; `status` shows it.

use serde::Serialize;

use crate::model::Finding;

/// How well a storage serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// Everything is up.
    Healthy,
    /// It serves, with less redundancy than it should have.
    Degraded,
    /// It does not serve.
    Down,
    /// Nobody could tell.
    Unknown,
}

/// One part of a storage: a brick, a peer, a portal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Part {
    /// What it is, in the field's word.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Whether it is up.
    pub up: bool,
}

/// How one storage is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// In one word.
    pub state: HealthState,
    /// In one line.
    pub summary: String,
    /// Its parts, sorted.
    pub parts: Vec<Part>,
    /// What the user should know.
    pub findings: Vec<Finding>,
}

impl Health {
    /// Nobody could tell, for this reason.
    #[must_use]
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self { state: HealthState::Unknown, summary: reason.into(), parts: Vec::new(), findings: Vec::new() }
    }
}
