//! The guest: its state, what ties it to its host, and whether its name is free at the destination.

use super::GuestFacts;
use crate::libvirt::domain_xml::LocalEffect;
use crate::libvirt::{DomainState, JobOperation, PauseReason};
use crate::migrate::facts::HostFacts;
use crate::model::{Finding, FindingCode, Severity};

pub(super) fn state(guest: &GuestFacts, from: &HostFacts, out: &mut Vec<Finding>) {
    match guest.domain.state {
        DomainState::Running => {}
        DomainState::Paused(PauseReason::User | PauseReason::Other) => out.push(
            guest
                .finding(Severity::Advice, FindingCode::GuestPaused, "the guest is paused and arrives paused")
                .on(&from.host),
        ),
        DomainState::Paused(PauseReason::IoError) => out.push(
            guest
                .finding(
                    Severity::Error,
                    FindingCode::GuestPaused,
                    "an I/O error on its disk paused the guest",
                )
                .on(&from.host)
                .remedy(format!("mend the storage, then `virsh resume {}` on {}", guest.id, from.host)),
        ),
        other => out.push(
            guest
                .finding(
                    Severity::Error,
                    FindingCode::GuestNotRunning,
                    "the guest does not run, so it cannot be moved live",
                )
                .on(&from.host)
                .evidence(format!("host {}: state {other:?}", from.host)),
        ),
    }
    job(guest, from, out);
}

/// A migration, backup or snapshot under way.
pub(super) fn job(guest: &GuestFacts, from: &HostFacts, out: &mut Vec<Finding>) {
    if let Some(job) = &from.job {
        let what = match job.operation {
            JobOperation::MigrationOut => "a migration of the guest is already under way",
            JobOperation::MigrationIn => "the guest is just arriving",
            JobOperation::Other => "another job (backup, snapshot or dump) holds the guest",
        };
        out.push(
            guest
                .finding(Severity::Error, FindingCode::JobActive, what)
                .on(&from.host)
                .evidence(format!(
                    "host {}: job {:?} since {}",
                    from.host,
                    job.operation,
                    humantime::format_duration(job.elapsed)
                ))
                .remedy(format!("wait for it, or `virsh domjobabort {}` on {}", guest.id, from.host)),
        );
    }
}

pub(super) fn devices(guest: &GuestFacts, to: &HostFacts, out: &mut Vec<Finding>) {
    for device in &guest.summary.local_devices {
        out.push(match device.effect {
            LocalEffect::Blocks => guest
                .finding(
                    Severity::Error,
                    FindingCode::DeviceLocal,
                    format!("the guest holds a {}", device.what),
                )
                .remedy("detach it from the guest"),
            LocalEffect::StaysBehind => guest.finding(
                Severity::Advice,
                FindingCode::DeviceLocal,
                format!("the {} stays behind; a new one begins at the destination", device.what),
            ),
        });
    }
    for interface in &guest.summary.interfaces {
        let Some(source) = &interface.source else { continue };
        let missing = match interface.kind.as_str() {
            "bridge" => to.bridges.get(source) == Some(&false),
            "network" => to.networks.as_ref().is_ok_and(|networks| !networks.contains(source)),
            _ => false,
        };
        if missing {
            let message = format!("the destination has no {} {source}", interface.kind);
            let remedy = format!("create {} {source} on {} as on the source", interface.kind, to.host);
            out.push(
                guest
                    .finding(Severity::Error, FindingCode::BridgeMissing, message)
                    .on(&to.host)
                    .remedy(remedy),
            );
        }
    }
    for (path, _) in to.boot_files.iter().filter(|(_, readable)| !**readable) {
        let message = format!("the destination has no {path}, which the guest boots from");
        out.push(
            guest
                .finding(Severity::Error, FindingCode::BootFileMissing, message)
                .on(&to.host)
                .remedy(format!("copy {path} to {}", to.host)),
        );
    }
}

/// A name or a UUID that another guest has at the destination is never waived: libvirt would refuse, or worse, replace
/// a definition that somebody needs.
pub(super) fn name_clash(guest: &GuestFacts, to: &HostFacts, out: &mut Vec<Finding>) {
    for other in &to.domains {
        let same_name = other.name == guest.domain.name;
        let same_uuid = other.uuid == guest.domain.uuid;
        let stuck = same_uuid && !other.state.is_active() && !other.persistent;
        let (severity, message) = match (same_name, same_uuid) {
            // Seen with libvirt 11.3 after the destination lost its network and storage in the middle of a migration.
            (true, true) if stuck => (
                Severity::Error,
                "a broken migration left the guest half started in the destination's libvirt daemon"
                    .to_owned(),
            ),
            (true, true) if !other.state.is_active() => (
                Severity::Advice,
                "the destination has an old definition of this guest, which the migration replaces"
                    .to_owned(),
            ),
            (true, true) => (Severity::Error, "the guest is active at the destination as well".to_owned()),
            (true, false) => {
                (Severity::Error, "the destination has another guest of the same name".to_owned())
            }
            (false, true) => {
                (Severity::Error, format!("guest {} at the destination has the same UUID", other.name))
            }
            (false, false) => continue,
        };
        let remedy = if stuck {
            format!("`systemctl restart libvirtd` on {}; its guests run on", to.host)
        } else {
            format!("rename or undefine that guest on {}", to.host)
        };
        out.push(
            guest
                .finding(severity, FindingCode::NameClash, message)
                .on(&to.host)
                .evidence(format!("the guest: {} {}", guest.domain.name, guest.domain.uuid))
                .evidence(format!("host {}: {} {} {:?}", to.host, other.name, other.uuid, other.state))
                .remedy(remedy),
        );
    }
}
