//! Progress of a migration that never runs backwards, and its ETA. Pure.

use std::time::Duration;

use serde::Serialize;

use crate::libvirt::JobStats;

/// The most that is shown before the guest was seen at the destination, in thousandths.
const ALMOST: u16 = 990;

/// One sample of a migration under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Share that is done, in thousandths; never less than in an earlier sample.
    pub permille: u16,
    /// Time until it ends at the present rates; absent while the guest dirties memory as fast as it is copied.
    #[serde(rename = "eta_ms", serialize_with = "super::outcome::maybe_millis")]
    pub eta: Option<Duration>,
    /// Time since it began.
    #[serde(rename = "elapsed_ms", serialize_with = "super::outcome::millis")]
    pub elapsed: Duration,
    /// Iteration, from 1.
    pub iteration: u64,
    /// Memory that remains, in bytes.
    pub remaining: u64,
    /// Bandwidth, in bytes per second.
    pub bandwidth: u64,
    /// Memory dirtied, in bytes per second.
    pub dirty_rate: u64,
}

/// Turns samples of the job into progress.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    permille: u16,
}

impl Meter {
    /// Takes one sample.
    ///
    /// What remains grows again with every iteration over dirtied memory, so the share done is held at its highest.
    pub fn sample(&mut self, stats: &JobStats, elapsed: Duration) -> Progress {
        let done = stats.memory_total.saturating_sub(stats.memory_remaining);
        let permille = (u128::from(done) * 1000).checked_div(u128::from(stats.memory_total)).unwrap_or(0);
        self.permille = self.permille.max(u16::try_from(permille).unwrap_or(ALMOST).min(ALMOST));
        // QEMU counts no bandwidth before its first pass over all memory is well under way.
        let bandwidth = match stats.bandwidth {
            0 => average(stats.memory_processed, elapsed),
            counted => counted,
        };
        let dirty_rate = stats.dirty_pages_per_second.saturating_mul(stats.page_size);
        Progress {
            permille: self.permille,
            eta: eta(stats.memory_remaining, bandwidth, dirty_rate),
            elapsed,
            iteration: stats.iteration,
            remaining: stats.memory_remaining,
            bandwidth,
            dirty_rate,
        }
    }
}

fn average(bytes: u64, elapsed: Duration) -> u64 {
    let millis = elapsed.as_millis().max(1);
    u64::try_from(u128::from(bytes) * 1000 / millis).unwrap_or(u64::MAX)
}

fn eta(remaining: u64, bandwidth: u64, dirty_rate: u64) -> Option<Duration> {
    let gained = bandwidth.checked_sub(dirty_rate).filter(|gained| *gained > 0)?;
    Some(Duration::from_secs(remaining.div_ceil(gained)))
}
