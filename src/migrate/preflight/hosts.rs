//! The two hosts: that they are two, that one reaches the other, and that the destination has what the guest needs.

use super::{GuestFacts, version};
use crate::libvirt::xml;
use crate::migrate::facts::{HostFacts, PROBED_PORT, PortSeen};
use crate::model::{Finding, FindingCode, Severity};

pub(super) fn versions_of(host: &HostFacts) -> String {
    format!("host {}: libvirt {}, QEMU {}", host.host, version(host.node.libvirt), version(host.node.qemu))
}

pub(super) fn identity(guest: &GuestFacts, from: &HostFacts, to: &HostFacts, out: &mut Vec<Finding>) {
    if from.node.uuid == to.node.uuid {
        out.push(
            guest
                .finding(
                    Severity::Error,
                    FindingCode::HostUuidEqual,
                    "both hosts have the same host UUID, so libvirt takes them for one",
                )
                .evidence(format!("host {}: {}", from.host, from.node.uuid))
                .evidence(format!("host {}: {}", to.host, to.node.uuid))
                .remedy("set host_uuid_source = \"machine-id\" in /etc/libvirt/libvirtd.conf on both and restart it"),
        );
    }
}

pub(super) fn reach(guest: &GuestFacts, from: &HostFacts, to: &HostFacts, out: &mut Vec<Finding>) {
    let Some(peer) = &from.peer else { return };
    match &peer.reached {
        Err(reason) => out.push(
            guest
                .finding(
                    Severity::Error,
                    FindingCode::TrustMissing,
                    "the source's root cannot reach the destination's libvirt daemon",
                )
                .on(&from.host)
                .evidence(format!("host {}: {} : {reason}", from.host, peer.uri))
                .remedy(if reason.contains("in time") {
                    "see whether libvirtd answers there: `systemctl status libvirtd`, `virsh list`"
                } else {
                    "run `stor apply`: it makes the hypervisors' keys and accepts them on the others"
                }),
        ),
        Ok(uuid) if *uuid != to.node.uuid => {
            let whom = if *uuid == from.node.uuid { "to the source itself" } else { "to another host" };
            let message = format!("the destination's address {} leads {whom}", to.address);
            out.push(
                guest
                    .finding(Severity::Error, FindingCode::NameUnresolvable, message)
                    .on(&from.host)
                    .evidence(format!("host {}: {} answers with host UUID {uuid}", from.host, to.address))
                    .evidence(format!("host {}: host UUID {}", to.host, to.node.uuid))
                    .remedy("give the host its real address in the cluster file, or mend name resolution"),
            );
        }
        Ok(_) => {}
    }
    let (severity, message, evidence) = match &peer.port {
        PortSeen::Reachable => return,
        PortSeen::Blocked(reason) => {
            (Severity::Warning, "the ports of migration streams cannot be reached from the source", reason)
        }
        PortSeen::Unclear(reason) => {
            (Severity::Advice, "it is unclear whether the ports of migration streams can be reached", reason)
        }
    };
    out.push(
        guest
            .finding(severity, FindingCode::PortBlocked, message)
            .on(&to.host)
            .evidence(format!("host {}: {}:{PROBED_PORT} : {evidence}", from.host, to.address))
            .remedy(format!("open TCP ports 49152-49215 on {} for {}", to.host, from.address)),
    );
}

pub(super) fn capacity(guest: &GuestFacts, from: &HostFacts, to: &HostFacts, out: &mut Vec<Finding>) {
    cpu(guest, from, to, out);
    memory(guest, to, out);
    machine(guest, from, to, out);
}

pub(super) fn memory(guest: &GuestFacts, to: &HostFacts, out: &mut Vec<Finding>) {
    if let Some(needed) = guest.summary.memory {
        let (message, evidence) = match &to.memory_available {
            Ok(available) if *available >= needed => (None, String::new()),
            Ok(available) => (
                Some("the destination has less free memory than the guest may use"),
                format!(
                    "host {}: {} KiB available, the guest has {} KiB",
                    to.host,
                    available.kib(),
                    needed.kib()
                ),
            ),
            Err(reason) => (Some("the destination's free memory is unknown"), reason.clone()),
        };
        if let Some(message) = message {
            out.push(
                guest
                    .finding(Severity::Warning, FindingCode::MemoryShort, message)
                    .on(&to.host)
                    .evidence(evidence)
                    .remedy(format!("move other guests away from {}", to.host)),
            );
        }
    }
}

pub(super) fn machine(guest: &GuestFacts, from: &HostFacts, to: &HostFacts, out: &mut Vec<Finding>) {
    let (Some(machine), Some(arch)) = (&guest.summary.machine, &guest.summary.arch) else { return };
    match knows_machine(&to.node.capabilities, arch, machine) {
        Ok(true) => {}
        Ok(false) => out.push(
            guest
                .finding(
                    Severity::Error,
                    FindingCode::MachineTypeUnknown,
                    format!("the destination's QEMU has no machine type {machine} for {arch}"),
                )
                .on(&to.host)
                .evidence(versions_of(from))
                .evidence(versions_of(to))
                .remedy(format!(
                    "update QEMU on {}, or restart the guest with an older machine type",
                    to.host
                )),
        ),
        Err(reason) => out.push(
            guest
                .finding(
                    Severity::Warning,
                    FindingCode::MachineTypeUnknown,
                    "the destination's machine types are unknown",
                )
                .on(&to.host)
                .evidence(reason),
        ),
    }
}

pub(super) fn cpu(guest: &GuestFacts, from: &HostFacts, to: &HostFacts, out: &mut Vec<Finding>) {
    if matches!(guest.summary.cpu.mode.as_deref(), Some("host-passthrough" | "maximum")) {
        let (here, there) = (host_cpu(&from.node.capabilities), host_cpu(&to.node.capabilities));
        if here.is_none() || here != there {
            out.push(
                guest
                    .finding(
                        Severity::Warning,
                        FindingCode::CpuIncompatible,
                        "the guest has the source's own CPU, and the destination's differs",
                    )
                    .on(&to.host)
                    .remedy("give the guest a CPU model that both hosts have (mode host-model or custom)"),
            );
        }
        return;
    }
    let (severity, message, evidence) = match &to.cpu {
        Ok(Ok(())) => return,
        Ok(Err(missing)) => {
            (Severity::Error, "the destination's CPU lacks what the guest's CPU has", missing)
        }
        Err(reason) => {
            (Severity::Warning, "the guest's CPU could not be compared with the destination's", reason)
        }
    };
    out.push(
        guest
            .finding(severity, FindingCode::CpuIncompatible, message)
            .on(&to.host)
            .evidence(format!("host {}: {evidence}", to.host))
            .remedy("restart the guest with a CPU model that both hosts have"),
    );
}

/// The host's CPU (model, vendor, features) in its capabilities, byte for byte.
fn host_cpu(capabilities: &str) -> Option<&str> {
    xml::cut(capabilities, "cpu", "the capabilities").ok().flatten()
}

/// Whether a host's capabilities list a machine type, or an alias, for this architecture.
fn knows_machine(capabilities: &str, arch: &str, machine: &str) -> Result<bool, String> {
    let root = xml::parse(capabilities, "the capabilities").map_err(|error| error.to_string())?;
    let known = root
        .all("guest")
        .filter_map(|guest| guest.first("arch"))
        .filter(|element| element.attribute("name") == Some(arch))
        .any(|element| {
            let domains = element.all("domain").flat_map(|domain| domain.all("machine"));
            element.all("machine").chain(domains).any(|known| known.text == machine)
        });
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPABILITIES: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/fixtures/outputs/virsh/debian13-libvirt11.3-capabilities.xml"
    ));

    #[test]
    fn machine_types_and_their_aliases_are_known_by_architecture() {
        let knows = |arch, machine| knows_machine(CAPABILITIES, arch, machine).unwrap();
        assert!(knows("x86_64", "pc-q35-10.0") && knows("x86_64", "q35") && knows("i686", "pc-q35-10.0"));
        assert!(!knows("x86_64", "pc-q35-11.0") && !knows("aarch64", "virt"));
        assert!(knows_machine("<capabilities>", "x86_64", "q35").is_err());
    }

    #[test]
    fn xen_knows_the_machine_type_of_its_paravirtualised_guests() {
        let capabilities = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/outputs/virsh/debian13-libvirt11.3-xen-capabilities.xml"
        ));
        let knows = |machine| knows_machine(capabilities, "x86_64", machine).unwrap();
        assert!(knows("xenpv") && !knows("q35"));
    }

    #[test]
    fn machine_types_of_a_newer_qemu_are_unknown_to_an_older_one() {
        let older = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/outputs/virsh/debian12-libvirt9.0-guest-capabilities.xml"
        ));
        let known_to_older = |machine| knows_machine(older, "x86_64", machine).unwrap();
        assert!(known_to_older("pc-q35-7.2") && known_to_older("q35") && !known_to_older("pc-q35-10.0"));
        assert!(knows_machine(CAPABILITIES, "x86_64", "pc-q35-7.2").unwrap());
    }

    #[test]
    fn the_host_cpu_is_the_first_cpu_of_the_capabilities() {
        let cpu = host_cpu(CAPABILITIES).unwrap();
        assert!(cpu.contains("<arch>x86_64</arch>") && cpu.ends_with("</cpu>"), "{cpu}");
    }
}
