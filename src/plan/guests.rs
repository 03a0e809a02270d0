//! Guests: defined once on the host that the file names, if no hypervisor has a domain of that name; never started here.
//!
//! Pure. Imports `libvirt` (domain XML), `storage` (where images are), `spec`, `model` and the scene. Where a guest runs
//! later is the operator's matter and no difference.

use std::collections::BTreeMap;

use super::domains::{Domain, DomainsError};
use super::images::ImageState;
use super::occupants;
use super::scene::Scene;
use crate::libvirt::domain_xml::{self, DomainType, GuestDisk};
use crate::model::{
    Blocked, Command, Difference, Driver, Effect, Finding, FindingCode, HostId, ImageId, Owned, OwnedKind,
    Proposal, Query, ResourceId, ResourceKind, Severity, Step, StorageId, Wave,
};
use crate::spec::{Accel, Autostart, Cluster, GuestDefinition, GuestEntry, GuestShape};

/// The images that a guest uses.
pub(super) fn images(guest: &GuestEntry) -> Vec<&ImageId> {
    match &guest.definition {
        GuestDefinition::Generated(shape) => vec![&shape.image],
        GuestDefinition::Written { images, .. } => images.iter().collect(),
    }
}

fn kvm() -> Query {
    Query::new(Command::new("test").args(["-w", "/dev/kvm"]))
}

/// What has to be asked on a hypervisor: whether it offers KVM, if a guest may use it.
pub(super) fn queries(cluster: &Cluster) -> Vec<Query> {
    let wanted = cluster.guests.values().any(|guest| match &guest.definition {
        GuestDefinition::Generated(shape) => shape.accel == Accel::Auto,
        GuestDefinition::Written { .. } => false,
    });
    if wanted { vec![kvm()] } else { Vec::new() }
}

/// What stor would own on any hypervisor: a guest moves, its entry stays where it was first defined.
pub(super) fn claims(cluster: &Cluster) -> Vec<Owned> {
    cluster.guests.keys().map(|guest| Owned::new(OwnedKind::Guest, guest.as_str())).collect()
}

/// Names every hypervisor that has no libvirt, or whose libvirt is silent: pools and guests wait for it.
pub(super) fn without_libvirt(scene: &Scene<'_>) -> Proposal {
    let mut proposal = Proposal::default();
    for (host, domains) in scene.domains.iter().filter(|(host, _)| scene.cluster.is_hypervisor(host)) {
        let subject = ResourceId::new(ResourceKind::Host, host);
        let blocked = match domains {
            Err(error @ DomainsError::NoLibvirt(_)) => Blocked::new(Wave::Pool, subject, error).hint(
                "install libvirt's daemon and virsh (Debian: libvirt-daemon-system and libvirt-clients)",
            ),
            Err(error @ (DomainsError::Daemon { .. } | DomainsError::Answer { .. })) => {
                Blocked::unknown(Wave::Pool, subject, error).hint(match scene.cluster.driver_of(host) {
                    Some(Driver::Xen) => {
                        "see `xl info` and `systemctl status libvirtd` on the host: it must have booted under Xen, and libvirt \
                         needs its Xen driver (Debian: libvirt-daemon-driver-xen)"
                    }
                    _ => "see `systemctl status libvirtd` on the host",
                })
            }
            Ok(_) | Err(DomainsError::Unknown(_)) => continue,
        };
        proposal.blocked.push(blocked.on(host));
    }
    proposal
}

/// Plans all guests; `images` says which images are there or will be.
pub(super) fn plan(scene: &Scene<'_>, images: &BTreeMap<ImageId, ImageState>) -> Proposal {
    let mut proposal = Proposal::default();
    for guest in scene.cluster.guests.values() {
        match one(scene, guest, images) {
            Ok(one) => proposal.extend(one),
            Err(blocked) => proposal.blocked.push(*blocked),
        }
    }
    proposal
}

fn subject(guest: &GuestEntry) -> ResourceId {
    ResourceId::new(ResourceKind::Guest, &guest.id)
}

fn storage_of(scene: &Scene<'_>, guest: &GuestEntry) -> Option<StorageId> {
    let image = scene.cluster.images.get(*images(guest).first()?)?;
    Some(image.storage.clone())
}

fn one(
    scene: &Scene<'_>,
    guest: &GuestEntry,
    images: &BTreeMap<ImageId, ImageState>,
) -> Result<Proposal, Box<Blocked>> {
    let mut proposal = Proposal::default();
    let name = guest.id.as_str();
    let uuid = scene.cluster.guest_uuid(&guest.id);
    let found: Vec<_> = scene.domains_of(name, &uuid).collect();
    if let Some((host, domain)) =
        found.iter().find(|(_, domain)| (domain.uuid != uuid) || (domain.name != name))
    {
        return Err(Box::new(other_identity(guest, host, domain, &uuid)));
    }
    occupants::look(scene, guest, &uuid, &mut proposal)?;
    if found.is_empty() {
        proposal.steps.extend(define(scene, guest, &uuid, images)?);
        return Ok(proposal);
    }
    if found.len() > 1 {
        proposal.findings.push(clash(guest, &found));
    }
    if wants_autostart(guest)
        && let [(host, domain)] = found.as_slice()
        && !domain.autostart
        && !scene.plain.contains_key(*host)
    {
        let why = Difference::new(format!("guest {name} autostart"), "on", "off");
        proposal.steps.push(start_with_host(scene, guest, host, &uuid).because(why));
    }
    Ok(proposal)
}

/// A domain that has a guest's name or its UUID, but not both.
fn other_identity(guest: &GuestEntry, host: &HostId, domain: &Domain, uuid: &str) -> Blocked {
    let (name, found) = (&domain.name, &domain.uuid);
    let (reason, hint) = if domain.uuid == uuid {
        let state = if domain.active { "runs" } else { "is defined" };
        (
            format!("the guest {state} on host {host} under the name {name}, UUID {uuid}"),
            format!(
                "call it {name} in the file again, or shut it down and `virsh domrename {name} {}`",
                guest.id
            ),
        )
    } else {
        (
            format!("host {host} has another domain of this name, UUID {found}; the guest's is {uuid}"),
            match &guest.definition {
                GuestDefinition::Generated(_) => {
                    "rename that domain, or give the guest another name in the file".to_owned()
                }
                GuestDefinition::Written { .. } => format!(
                    "if that domain is the guest, write <uuid>{found}</uuid> into its domain file; else rename it, or give the guest another name"
                ),
            },
        )
    };
    Blocked::new(Wave::Guest, subject(guest), reason).on(&guest.on).hint(hint)
}

/// Tells whether a domain is a guest.
pub(super) fn is_ours(scene: &Scene<'_>, guest: &GuestEntry, domain: &Domain) -> bool {
    domain.uuid == scene.cluster.guest_uuid(&guest.id)
}

/// A guest that several hosts have; while it moves, two of them do.
fn clash(guest: &GuestEntry, found: &[(&HostId, &Domain)]) -> Finding {
    let moves = found.iter().filter(|(_, domain)| !domain.transit).count() <= 1;
    let finding = if moves {
        let message = format!("guest {} is on its way between hosts", guest.id);
        Finding::new(Severity::Advice, FindingCode::JobActive, subject(guest), message)
            .remedy("`stor migrate` watches it to its end")
    } else {
        let message = format!("guest {} is defined on {} hosts", guest.id, found.len());
        Finding::new(Severity::Error, FindingCode::NameClash, subject(guest), message)
            .remedy("undefine it on every host but the one where it belongs; never start it on two")
    };
    found.iter().fold(finding, |finding, (host, domain)| {
        let state = match (domain.transit, domain.active) {
            (true, _) => "held by a migration",
            (false, true) => "active",
            (false, false) => "shut off",
        };
        finding.evidence(format!("host {host}: {}, {state}", guest.id))
    })
}

fn wants_autostart(guest: &GuestEntry) -> bool {
    matches!(&guest.definition, GuestDefinition::Generated(shape) if shape.autostart == Autostart::On)
}

fn define(
    scene: &Scene<'_>,
    guest: &GuestEntry,
    uuid: &str,
    images: &BTreeMap<ImageId, ImageState>,
) -> Result<Vec<Step>, Box<Blocked>> {
    let blocked = |reason: String| Box::new(Blocked::new(Wave::Guest, subject(guest), reason).on(&guest.on));
    for (host, domains) in &scene.domains {
        if let Err(error) = domains {
            let (reason, is_fact) = match error {
                DomainsError::NoLibvirt(_) if *host != guest.on => continue,
                error => (error.to_string(), matches!(error, DomainsError::NoLibvirt(_))),
            };
            let reason = format!("cannot tell whether host {host} has this guest: {reason}");
            let mut out = *blocked(reason);
            out.unknown = !is_fact;
            return Err(Box::new(out));
        }
    }
    if let Some(lost) = scene.lost() {
        let reason = format!("cannot tell whether it is there already: {lost}");
        return Err(Box::new(blocked(reason).hint(crate::model::members::REMEDY)));
    }
    for image in self::images(guest) {
        if let Some(ImageState::Blocked { unknown }) = images.get(image) {
            let blocked = blocked(format!("its image {image} is blocked"));
            return Err(Box::new(Blocked { unknown: *unknown, ..*blocked }));
        }
    }
    let storage = storage_of(scene, guest);
    let xml = match &guest.definition {
        GuestDefinition::Written { xml, .. } => {
            domain_xml::with_uuid(xml, uuid).map_err(|error| blocked(error.to_string()))?
        }
        GuestDefinition::Generated(shape) => generate(scene, guest, shape)
            .ok_or_else(|| blocked(format!("its image {} is on no storage of the file", shape.image)))?,
    };
    let name = guest.id.to_string();
    let mut owned = Owned::new(OwnedKind::Guest, name.clone());
    owned.storage = storage.as_ref().map(ToString::to_string);
    owned = owned.with("uuid", uuid);
    let title = format!("define guest {name} on {}, without starting it", guest.on);
    // A host without libvirt has no domains; one that is silent stopped this above.
    let asked = scene.domains.iter().filter(|(_, domains)| domains.is_ok());
    let hypervisors = asked.map(|(host, _)| host.clone()).collect();
    let effect = Effect::DefineGuest { name: name.clone(), uuid: uuid.to_owned(), hypervisors, xml };
    let mut step = Step::new(Wave::Guest, &guest.on, subject(guest), title, effect)
        .because(Difference::new(format!("guest {name}"), "defined", "absent"))
        .undone_by(Effect::UndefineGuest { name, uuid: uuid.to_owned() })
        .owning(owned);
    step.storage = storage;
    let mut steps = vec![step];
    if wants_autostart(guest) {
        let why = Difference::new(format!("guest {} autostart", guest.id), "on", "off");
        steps.push(start_with_host(scene, guest, &guest.on, uuid).because(why));
    }
    Ok(steps)
}

fn start_with_host(scene: &Scene<'_>, guest: &GuestEntry, host: &HostId, uuid: &str) -> Step {
    let autostart = Command::new("virsh").args(["autostart", "--", uuid]);
    let title = format!("start guest {} with host {host}", guest.id);
    let mut step = Step::new(Wave::Guest, host, subject(guest), title, Effect::Run(vec![autostart]));
    step.storage = storage_of(scene, guest);
    step
}

fn generate(scene: &Scene<'_>, guest: &GuestEntry, shape: &GuestShape) -> Option<String> {
    let image = scene.cluster.images.get(&shape.image)?;
    let location = scene.backend(&image.storage)?.locate(image);
    let kind = match shape.accel {
        _ if scene.cluster.driver_of(&guest.on) == Some(Driver::Xen) => DomainType::Xen,
        Accel::Kvm => DomainType::Kvm,
        Accel::Qemu => DomainType::Qemu,
        Accel::Auto if everywhere(scene) => DomainType::Kvm,
        Accel::Auto => DomainType::Qemu,
    };
    let disk = GuestDisk { location: &location, format: image.format };
    Some(domain_xml::generate(&scene.cluster.name, &guest.id, shape, disk, kind))
}

/// Tells whether every hypervisor but Xen's showed a KVM device that root may use.
fn everywhere(scene: &Scene<'_>) -> bool {
    let usable = |host: &HostId| scene.seen.answer(host, &kvm()).is_ok_and(|answer| answer.ok());
    scene.cluster.hypervisors_with(Driver::Qemu).all(|host| usable(&host.id))
}
