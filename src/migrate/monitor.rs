//! What to do about a migration under way, decided anew at every poll. Pure.

use std::time::Duration;

use serde::Serialize;

use super::strategy::{AtDeadline, Strategy};

/// What is known about a migration under way besides its strategy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watch {
    /// Time since it began.
    pub elapsed: Duration,
    /// Time since it began at which stor paused the guest, if it did.
    pub paused_at: Option<Duration>,
    /// Whether the user wants to stop.
    pub cancelled: bool,
}

/// Why a migration is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AbortReason {
    /// The user asked for it.
    Cancelled,
    /// The deadline passed.
    Deadline,
    /// The guest was paused at the deadline, and the rest still could not be copied.
    PausedTooLong,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Wait,
    /// Pause the guest.
    Pause,
    /// Cancel the migration.
    Abort(AbortReason),
}

/// Decides what to do about a migration that has not ended.
#[must_use]
pub fn decide(strategy: &Strategy, watch: Watch) -> Decision {
    if watch.cancelled {
        return Decision::Abort(AbortReason::Cancelled);
    }
    match (watch.paused_at, strategy.at_deadline) {
        (Some(at), _) if watch.elapsed >= at.saturating_add(strategy.pause_limit) => {
            Decision::Abort(AbortReason::PausedTooLong)
        }
        (Some(_), _) => Decision::Wait,
        (None, _) if watch.elapsed < strategy.deadline => Decision::Wait,
        (None, AtDeadline::Abort) => Decision::Abort(AbortReason::Deadline),
        (None, AtDeadline::Pause) => Decision::Pause,
    }
}
