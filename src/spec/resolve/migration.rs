//! The migration policy. Imports what `resolve` imports.

use std::time::Duration;

use super::super::cluster::{MigrationPolicy, OnTimeout};
use super::super::input::Text;
use super::super::problem::{Problem, Problems};
use super::super::raw::{RawMigration, RawOnTimeout};
use super::super::scalar::Span;
use super::{number, optional};

/// Resolves the policy.
pub fn resolve(raw: RawMigration, problems: &mut Problems) -> MigrationPolicy {
    let bandwidth = optional(raw.bandwidth.as_ref(), "migration: bandwidth", problems);
    // QEMU takes at most 2000 s (MAX_MIGRATE_DOWNTIME_SECONDS); libvirt wants at least 1 ms.
    let max_downtime =
        span(raw.max_downtime.as_ref(), ms(300), (ms(1), secs(2000)), "migration: max_downtime", problems);
    let timeout =
        span(raw.timeout.as_ref(), secs(600), (secs(1), secs(7 * 86_400)), "migration: timeout", problems);
    if timeout <= max_downtime
        && let Some(word) = raw.timeout.as_ref().or(raw.max_downtime.as_ref())
    {
        problems.add(|| {
            let (timeout, pause) =
                (humantime::format_duration(timeout), humantime::format_duration(max_downtime));
            Problem::new(
                word.place,
                format!("migration: timeout {timeout} is not longer than max_downtime {pause}"),
            )
        });
    }
    let concurrent = raw.concurrent.unwrap_or_default();
    MigrationPolicy {
        bandwidth: bandwidth.and_then(|at| at.value.0),
        max_downtime,
        timeout,
        on_timeout: match raw.on_timeout {
            None | Some(RawOnTimeout::Abort) => OnTimeout::Abort,
            Some(RawOnTimeout::Pause) => OnTimeout::Pause,
            Some(RawOnTimeout::PostCopy) => OnTimeout::PostCopy,
        },
        per_host: number(concurrent.per_host, 2, 1..=1000, "migration: concurrent.per_host", problems),
        per_cluster: number(concurrent.cluster, 5, 1..=1000, "migration: concurrent.cluster", problems),
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn span(
    word: Option<&Text<Span>>,
    default: Duration,
    (low, high): (Duration, Duration),
    subject: &str,
    problems: &mut Problems,
) -> Duration {
    let Some(at) = optional(word, subject, problems) else { return default };
    if (low..=high).contains(&at.value.0) {
        return at.value.0;
    }
    problems.add(|| {
        let show = humantime::format_duration;
        let (found, low, high) = (show(at.value.0), show(low), show(high));
        Problem::new(at.place, format!("{subject} is {found}, it must be {low} to {high}"))
    });
    default
}
