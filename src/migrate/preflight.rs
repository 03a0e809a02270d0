//! What speaks against moving a guest, judged from what was observed now on both hosts. Pure.
//!
//! One function per question, grouped by what it looks at: the guest, its disks, the two hosts, their drivers, their versions. Safety
//! findings are [`Severity::Error`] and never waived; `--allow CODE` waives a [`Severity::Warning`].

use std::collections::BTreeSet;

use self::shared::Lies;
use super::facts::HostFacts;
use crate::libvirt::DomainFacts;
use crate::libvirt::domain_xml::DomainSummary;
use crate::model::{Finding, FindingCode, GuestId, ResourceId, ResourceKind, Severity};
use crate::spec::Cluster;

mod disks;
mod drivers;
mod guest;
mod hosts;
mod shared;
mod state;
mod versions;

pub use versions::version;

/// How a guest is at its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// It runs on: its disks stay open.
    Runs,
    /// It is started there.
    Starts,
    /// It stays off.
    StaysOff,
}

/// The guest that is to move, as its host shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFacts {
    /// Its name.
    pub id: GuestId,
    /// What libvirt at the source says.
    pub domain: DomainFacts,
    /// Its live XML, read.
    pub summary: DomainSummary,
}

impl GuestFacts {
    /// The guest as the subject of a finding.
    #[must_use]
    pub fn subject(&self) -> ResourceId {
        ResourceId::new(ResourceKind::Guest, &self.id)
    }

    fn finding(&self, severity: Severity, code: FindingCode, message: impl Into<String>) -> Finding {
        Finding::new(severity, code, self.subject(), message)
    }
}

/// Everything that speaks against moving the guest, gravest first, then by code.
#[must_use]
pub fn preflight(guest: &GuestFacts, from: &HostFacts, to: &HostFacts, cluster: &Cluster) -> Vec<Finding> {
    let mut findings = Vec::new();
    guest::state(guest, from, &mut findings);
    drivers::same(guest, from, to, cluster, &mut findings);
    if cluster.driver_of(&from.host).is_some_and(|driver| !driver.moves_running_guests()) {
        // Nothing that only a running guest needs is worth looking at.
        drivers::no_live_move(guest, from, to, &mut findings);
        sort(&mut findings);
        return findings;
    }
    guest::devices(guest, to, &mut findings);
    guest::name_clash(guest, to, &mut findings);
    disks::images(guest, Arrival::Runs, Lies { from, to, cluster }, &mut findings);
    super::image_locks::findings(guest, &to.host, &to.silent_locks, &mut findings);
    disks::pools(guest, to, cluster, &mut findings);
    disks::cache_modes(guest, from, to, &mut findings);
    hosts::identity(guest, from, to, &mut findings);
    hosts::reach(guest, from, to, &mut findings);
    hosts::capacity(guest, from, to, &mut findings);
    versions::advisories(guest, from, to, &mut findings);
    sort(&mut findings);
    findings
}

/// Whether a guest is to run at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starts {
    /// It is started there.
    Yes,
    /// It stays off.
    No,
}

/// Everything that speaks against moving the guest shut off: what its next start at the destination needs. What only a
/// stream between two QEMUs needs (trust, ports, cache modes, versions) is left out.
#[must_use]
pub fn cold(
    guest: &GuestFacts,
    starts: Starts,
    from: &HostFacts,
    to: &HostFacts,
    cluster: &Cluster,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    guest::job(guest, from, &mut findings);
    drivers::same(guest, from, to, cluster, &mut findings);
    guest::devices(guest, to, &mut findings);
    guest::name_clash(guest, to, &mut findings);
    // A definition of the same guest at the destination is an earlier move of stor's, or was refused before.
    findings.retain(|finding| (finding.code, finding.severity) != (FindingCode::NameClash, Severity::Advice));
    let arrival = match starts {
        Starts::Yes => Arrival::Starts,
        Starts::No => Arrival::StaysOff,
    };
    let lies = Lies { from, to, cluster };
    disks::images(guest, arrival, lies, &mut findings);
    state::kept(guest, lies, &mut findings);
    super::image_locks::findings(guest, &to.host, &to.silent_locks, &mut findings);
    disks::pools(guest, to, cluster, &mut findings);
    // Any other mode is made for the host on which the guest starts.
    if guest.summary.cpu.mode.as_deref() == Some("custom") {
        hosts::cpu(guest, from, to, &mut findings);
    }
    if starts == Starts::Yes {
        hosts::memory(guest, to, &mut findings);
    }
    hosts::machine(guest, from, to, &mut findings);
    sort(&mut findings);
    findings
}

/// Gravest first, then by code.
fn sort(findings: &mut [Finding]) {
    findings.sort_by(|a, b| {
        b.severity.cmp(&a.severity).then(a.code.cmp(&b.code)).then(a.message.cmp(&b.message))
    });
}

/// The findings that forbid the migration: every error, and every warning that the user did not allow.
#[must_use]
pub fn refusals<'a>(findings: &'a [Finding], allow: &BTreeSet<FindingCode>) -> Vec<&'a Finding> {
    let forbids = |finding: &&Finding| match finding.severity {
        Severity::Error => true,
        Severity::Warning => !allow.contains(&finding.code),
        Severity::Advice => false,
    };
    findings.iter().filter(forbids).collect()
}
