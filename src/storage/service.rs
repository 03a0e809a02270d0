//! Services of a host that run because stor had them started.

use std::time::Duration;

use crate::model::Command;

/// Longer than systemd's own 90 s for a start and for a stop (DefaultTimeoutStartSec, DefaultTimeoutStopSec: systemd-system.conf(5)), so
/// that it is systemd that gives up and says why.
const DEADLINE: Duration = Duration::from_secs(200);

/// Has a service run now and with the host.
#[must_use]
pub fn enable_and_start(unit: &str) -> Command {
    systemctl("enable", unit)
}

/// Has a service run no more, neither now nor with the host.
#[must_use]
pub fn stop_and_disable(unit: &str) -> Command {
    systemctl("disable", unit)
}

fn systemctl(verb: &str, unit: &str) -> Command {
    Command::new("systemctl").args([verb, "--quiet", "--now", "--", unit]).deadline(DEADLINE)
}
