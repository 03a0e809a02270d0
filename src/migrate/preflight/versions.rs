//! What is known to go wrong between versions of libvirt and QEMU.

use super::GuestFacts;
use crate::migrate::facts::HostFacts;
use crate::model::{Finding, FindingCode, Severity};

/// A version as libvirt counts it (`major * 1_000_000 + minor * 1_000 + release`), shown with dots.
#[must_use]
pub fn version(number: u64) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000)
}

/// Major and minor, which is what decides.
fn minor(number: u64) -> u64 {
    number / 1_000
}

/// What a row of the table looks at.
struct Pair<'a> {
    from: &'a HostFacts,
    to: &'a HostFacts,
    kvm: bool,
    nfs: bool,
}

impl Pair<'_> {
    /// Whether one of the hosts has a libvirt from `first` to `last` (major and minor).
    fn libvirt_within(&self, first: u64, last: u64) -> bool {
        let within = |host: &HostFacts| (first..=last).contains(&minor(host.node.libvirt));
        within(self.from) || within(self.to)
    }
}

struct Advisory {
    severity: Severity,
    applies: fn(&Pair<'_>) -> bool,
    text: &'static str,
}

/// Each row was reported by users of libvirt; the versions are those of the reports.
const ADVISORIES: [Advisory; 5] = [
    Advisory {
        severity: Severity::Warning,
        applies: |pair| minor(pair.to.node.qemu) < minor(pair.from.node.qemu),
        text: "the destination's QEMU is older than the source's; QEMU only promises to move guests to the same or a newer version",
    },
    Advisory {
        severity: Severity::Warning,
        applies: |pair| minor(pair.to.node.libvirt) < minor(pair.from.node.libvirt),
        text: "the destination's libvirt is older than the source's; it may not know what the source sends",
    },
    Advisory {
        severity: Severity::Advice,
        applies: |pair| pair.nfs && pair.libvirt_within(10_001, 10_003),
        text: "libvirt 10.1 to 10.3 fails with \"Unknown error 255\" on NFS exports with root_squash",
    },
    Advisory {
        severity: Severity::Advice,
        applies: |pair| {
            pair.kvm && pair.libvirt_within(9_010, 10_001) && pair.from.node.libvirt != pair.to.node.libvirt
        },
        text: "libvirt 9.10 to 10.1 names vmx-* CPU features that other versions refuse",
    },
    Advisory {
        severity: Severity::Advice,
        applies: |pair| {
            pair.kvm && minor(pair.to.node.libvirt) < 11_010 && minor(pair.from.node.qemu) >= 10_000
        },
        text: "libvirt before 11.10 with QEMU 10 may refuse the guest's CPU with \"extra features: ht\"",
    },
];

pub(super) fn advisories(guest: &GuestFacts, from: &HostFacts, to: &HostFacts, out: &mut Vec<Finding>) {
    let on_nfs = |host: &HostFacts| {
        let mounts =
            host.places.files.values().filter_map(|file| file.mount.as_ref().ok().and_then(Option::as_ref));
        mounts.into_iter().any(|mount| mount.kind.starts_with("nfs"))
    };
    let pair = Pair { from, to, kvm: guest.summary.kind == "kvm", nfs: on_nfs(from) };
    for row in ADVISORIES.iter().filter(|row| (row.applies)(&pair)) {
        out.push(
            guest
                .finding(row.severity, FindingCode::VersionAdvisory, row.text)
                .evidence(super::hosts::versions_of(from))
                .evidence(super::hosts::versions_of(to)),
        );
    }
}
