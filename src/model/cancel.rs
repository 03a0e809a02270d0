//! The user's wish to stop: the first Ctrl-C asks for a clean end, the second for an end at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Says that the user wants to stop, and whether there is still time to wait; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    cancelled: AtomicBool,
    abandoned: OnceLock<Instant>,
}

impl Cancel {
    /// Asks everything that holds this flag to stop at the next safe point.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }
    /// Asks everything that holds this flag to wait for no answer any more.
    pub fn abandon(&self) {
        self.0.abandoned.get_or_init(Instant::now);
        self.cancel();
    }
    /// Tells whether the user wants to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Relaxed)
    }
    /// Tells whether the user no longer waits for what is under way.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.0.abandoned.get().is_some()
    }
    /// Tells since when the user no longer waits for what is under way.
    #[must_use]
    pub fn abandoned_for(&self) -> Option<Duration> {
        self.0.abandoned.get().map(Instant::elapsed)
    }
}
