//! A guest's pause as the outside sees it: the longest gap between replies to ping.
//!
//! Imports `host::local` (it starts `ping`) and `model`. The machine that runs stor is the observer.

use std::net::IpAddr;
use std::process::Child;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::host::{HostError, local};
use crate::model::Command;

/// Time between two requests, in seconds as ping wants it.
const INTERVAL: &str = "0.05";
/// ping ends by itself after this many seconds, should stor be killed.
const LIFE: &str = "7200";
/// Time that the guest gets to answer again after the migration.
const RETURN: Duration = Duration::from_secs(10);
/// Time that the guest gets to answer before the migration begins.
const WARM_UP: Duration = Duration::from_secs(1);
/// Replies before and after the migration that show that it answers again.
const SETTLED: u64 = 5;

/// Says why a guest's pause was not measured.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    /// ping could not be started.
    #[error("ping could not be started")]
    Start(#[source] HostError),
    /// What it printed could not be read.
    #[error("the output of ping could not be read")]
    Read(#[source] std::io::Error),
    /// ping ended by itself.
    #[error("ping ended: {message}")]
    Ended {
        /// The last that it printed.
        message: String,
    },
    /// The guest did not answer.
    #[error("{address} answered ping {before} times before and {after} times after the migration")]
    Silent {
        /// The guest's address.
        address: IpAddr,
        /// Replies until the migration ended.
        before: u64,
        /// Replies since.
        after: u64,
    },
}

/// What ping saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PingFigures {
    /// Replies.
    pub replies: u64,
    /// Longest time between two replies.
    #[serde(rename = "longest_gap_ms", serialize_with = "super::outcome::millis")]
    pub longest_gap: Duration,
}

/// A ping under way; dropped, it ends.
#[derive(Debug)]
pub struct Ping {
    address: IpAddr,
    child: Child,
    log: tempfile::NamedTempFile,
}

impl Ping {
    /// Starts to ping a guest.
    ///
    /// # Errors
    /// [`PingError`] when ping could not be started.
    pub fn start(address: IpAddr) -> Result<Self, PingError> {
        let local_error = |source| HostError::Local { action: "make a temporary file".to_owned(), source };
        let log = tempfile::NamedTempFile::new().map_err(|error| PingError::Start(local_error(error)))?;
        let command = Command::new("ping").args(["-D", "-n", "-i", INTERVAL, "-w", LIFE]);
        let command = command.arg(address.to_string());
        let child = local::spawn(&command, &[("LC_ALL", "C")], log.path()).map_err(PingError::Start)?;
        let ping = Self { address, child, log };
        // A gap only shows between replies, so the first ones must come before the migration begins.
        let begin = Instant::now();
        while begin.elapsed() < WARM_UP && count(&ping.read()?) < SETTLED {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(ping)
    }

    /// Waits until the guest answers again, ends ping, and says what it saw.
    ///
    /// # Errors
    /// [`PingError`] when the guest never answered, or not after the migration.
    pub fn finish(mut self) -> Result<PingFigures, PingError> {
        let begin = Instant::now();
        let before = count(&self.read()?);
        loop {
            let output = self.read()?;
            if self.child.try_wait().map_err(PingError::Read)?.is_some() {
                let message = output.trim().lines().next_back().unwrap_or("it printed nothing").to_owned();
                return Err(PingError::Ended { message });
            }
            let after = count(&output).saturating_sub(before);
            match figures(&output) {
                Some(figures) if before > 0 && after >= SETTLED => return Ok(figures),
                _ if before == 0 || begin.elapsed() >= RETURN => {
                    return Err(PingError::Silent { address: self.address, before, after });
                }
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn read(&self) -> Result<String, PingError> {
        std::fs::read_to_string(self.log.path()).map_err(PingError::Read)
    }
}

impl Drop for Ping {
    fn drop(&mut self) {
        // A ping that has ended by itself is not there to be killed; nothing is left to do either way.
        drop(self.child.kill().and_then(|()| self.child.wait()));
    }
}

fn count(output: &str) -> u64 {
    u64::try_from(times(output).len()).unwrap_or(u64::MAX)
}

/// Reads what `ping -D` printed; `None` when fewer than two replies came.
#[must_use]
pub fn figures(output: &str) -> Option<PingFigures> {
    let times = times(output);
    let gaps = times.iter().zip(times.iter().skip(1)).map(|(a, b)| b.saturating_sub(*a));
    Some(PingFigures { replies: count(output), longest_gap: gaps.max()? })
}

fn times(output: &str) -> Vec<Duration> {
    output.lines().filter_map(reply).collect()
}

/// The time stamp of a reply: `[1732150000.123456] 64 bytes from 10.77.0.101: icmp_seq=1 ttl=64 time=0.19 ms`.
fn reply(line: &str) -> Option<Duration> {
    let (stamp, rest) = line.strip_prefix('[')?.split_once("] ")?;
    if !rest.contains(" bytes from ") {
        return None;
    }
    let (seconds, micros) = stamp.split_once('.')?;
    Some(Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros.parse().ok()?))
}
