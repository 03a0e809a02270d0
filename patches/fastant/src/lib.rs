//! The clock that `fastrace` (a dependency of `iscsi-client-rs`) asks for, over the standard library's.
//!
//! It takes the place of the crate of this name, which calibrates the processor's time stamp counter in a constructor that runs
//! before `main`: 20 ms of every start of stor, for spans that stor never records. The reasons are in `docs/adr/0082`.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point of a monotonic clock, in nanoseconds since the first that this process asked for.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// Before every other.
    pub const ZERO: Self = Self(0);

    /// Now; never [`Instant::ZERO`], by which `fastrace` knows a span that has not ended.
    #[must_use]
    pub fn now() -> Self {
        static FIRST: OnceLock<std::time::Instant> = OnceLock::new();
        Self(nanos(FIRST.get_or_init(std::time::Instant::now).elapsed()).max(1))
    }

    /// Time since then.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(Self::now().0.saturating_sub(self.0))
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub fn as_unix_nanos(&self, anchor: &Anchor) -> u64 {
        anchor.unix.saturating_sub(anchor.monotonic.0).saturating_add(self.0)
    }
}

/// One moment on both clocks.
#[derive(Debug, Copy, Clone)]
pub struct Anchor {
    unix: u64,
    monotonic: Instant,
}

impl Anchor {
    /// This moment.
    #[must_use]
    pub fn new() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map(nanos).unwrap_or_default();
        Self { unix, monotonic: Instant::now() }
    }
}

impl Default for Anchor {
    fn default() -> Self {
        Self::new()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
