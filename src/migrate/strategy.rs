//! How a guest is moved, chosen from the policy before it starts. Pure.

use std::time::Duration;

use serde::Serialize;

use crate::libvirt::DomainState;
use crate::model::Rate;
use crate::spec::{MigrationPolicy, OnTimeout};

/// Says why no strategy serves the policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrategyError {
    /// Post-copy is not built yet.
    #[error("migration.on_timeout: post-copy is not available yet")]
    PostCopyNotAvailable,
}

impl StrategyError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::PostCopyNotAvailable => "use on_timeout: abort or on_timeout: pause",
        }
    }
}

/// What happens at the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AtDeadline {
    /// The migration is cancelled.
    Abort,
    /// The guest is paused so that the rest can be copied; the migration is cancelled when that takes too long as well.
    Pause,
}

/// Whether the guest runs when it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrival {
    /// It runs.
    Running,
    /// It stays paused, as its user left it.
    Paused,
}

/// How one guest is moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Strategy {
    /// Upper bound of the bandwidth.
    pub bandwidth: Option<Rate>,
    /// The pause at the end that the guest may suffer.
    #[serde(rename = "max_downtime_ms", serialize_with = "super::outcome::millis")]
    pub max_downtime: Duration,
    /// stor's own deadline; libvirt's job may hang for as long as a link is down.
    #[serde(rename = "deadline_ms", serialize_with = "super::outcome::millis")]
    pub deadline: Duration,
    /// What happens at the deadline.
    pub at_deadline: AtDeadline,
    /// Time for the rest to be copied once the guest was paused at the deadline.
    #[serde(rename = "pause_limit_ms", serialize_with = "super::outcome::millis")]
    pub pause_limit: Duration,
    /// Whether the guest runs when it arrives.
    pub arrival: Arrival,
}

/// Chooses the strategy for a guest in this state.
///
/// # Errors
/// [`StrategyError`] when the policy asks for what is not built yet.
pub fn choose(state: DomainState, policy: &MigrationPolicy) -> Result<Strategy, StrategyError> {
    let at_deadline = match policy.on_timeout {
        OnTimeout::Abort => AtDeadline::Abort,
        OnTimeout::Pause => AtDeadline::Pause,
        OnTimeout::PostCopy => return Err(StrategyError::PostCopyNotAvailable),
    };
    let arrival = match state {
        DomainState::Paused(_) => Arrival::Paused,
        _ => Arrival::Running,
    };
    Ok(Strategy {
        bandwidth: policy.bandwidth,
        max_downtime: policy.max_downtime,
        deadline: policy.timeout,
        at_deadline,
        pause_limit: policy.timeout,
        arrival,
    })
}
