//! One image, one active guest: which other domain is on an image that a guest of the file writes, by what all hypervisors show.
//!
//! Pure. Imports `spec` (which source means which image), `libvirt`, `model` and the scene. Other names of the same file, and what an
//! image builds on, are looked at before a guest is defined or starts (`writers`).

use super::domains::Domain;
use super::scene::Scene;
use crate::libvirt::domain_xml::{self, DiskAccess, DiskSource};
use crate::model::{
    Blocked, Finding, FindingCode, HostId, ImageId, ImageLocation, Proposal, ResourceId, ResourceKind,
    Severity, Wave,
};
use crate::spec::domain::{is_image, leads};
use crate::spec::{GuestDefinition, GuestEntry};

/// Blocks a guest one of whose images is in use by a domain that is active, and reports one that is only defined.
pub(super) fn look(
    scene: &Scene<'_>,
    guest: &GuestEntry,
    uuid: &str,
    proposal: &mut Proposal,
) -> Result<(), Box<Blocked>> {
    let subject = ResourceId::new(ResourceKind::Guest, &guest.id);
    let others = || scene.all_domains().filter(|(_, domain)| domain.uuid != uuid);
    for image in written(scene, guest) {
        let users =
            others().filter(|(_, domain)| domain.disks.iter().any(|disk| is(scene, &image, &disk.source())));
        for (host, domain) in users {
            let reason = format!("its image {image} is in use: {}", shown(host, domain));
            if domain.active {
                let name = &domain.name;
                let hint = format!(
                    "call the guest {name} in the file if it is the same; else shut {name} down and `virsh undefine` it on {host}"
                );
                return Err(Box::new(Blocked::new(Wave::Guest, subject, reason).on(&guest.on).hint(hint)));
            }
            let finding = Finding::new(Severity::Warning, FindingCode::ImageInUse, subject.clone(), reason);
            proposal.findings.push(finding.on(host).remedy(format!(
                "give each domain an image of its own, or `virsh undefine {}` on {host}; never start both",
                domain.name
            )));
        }
    }
    Ok(())
}

/// Blocks the removal of a domain whose image a guest of the file is to write from now on, while its firmware variables or TPM would stay
/// behind under its own name and UUID: the new guest would begin without them.
pub(super) fn has_no_heir(scene: &Scene<'_>, host: &HostId, domain: &Domain) -> Result<(), Box<Blocked>> {
    if domain.state.is_empty() {
        return Ok(());
    }
    let uses = |image: &ImageId| domain.disks.iter().any(|disk| is(scene, image, &disk.source()));
    let heir = |guest: &&GuestEntry| {
        scene.cluster.guest_uuid(&guest.id) != domain.uuid && written(scene, guest).iter().any(uses)
    };
    let Some(guest) = scene.cluster.guests.values().find(heir) else { return Ok(()) };
    let kept: Vec<String> = domain.state.iter().map(ToString::to_string).collect();
    let (name, uuid, kept) = (&domain.name, &domain.uuid, kept.join(" and "));
    let reason = format!("guest {} of the file takes over its image, but not its {kept}", guest.id);
    let hint = format!(
        "if it is a new name only: `virsh domrename {name} {0}` on {host}, and UUID {uuid} into {0}'s domain XML; else undefine {name} \
         yourself (`virsh undefine --keep-nvram --keep-tpm {name}`)",
        guest.id
    );
    let subject = ResourceId::new(ResourceKind::Guest, name);
    Err(Box::new(Blocked::new(Wave::ReleaseGuest, subject, reason).on(host).hint(hint)))
}

fn shown(host: &HostId, domain: &Domain) -> String {
    let state = if domain.active { "runs" } else { "is defined" };
    format!("domain {}, UUID {}, {state} on {host} with it", domain.name, domain.uuid)
}

/// The images that a guest writes.
fn written(scene: &Scene<'_>, guest: &GuestEntry) -> Vec<ImageId> {
    match &guest.definition {
        GuestDefinition::Generated(shape) => vec![shape.image.clone()],
        GuestDefinition::Written { xml, images } => {
            let mut uses = domain_xml::uses(xml).unwrap_or_default();
            uses.retain(|used| used.access != DiskAccess::ReadOnly);
            let writes = |image: &&ImageId| uses.iter().any(|used| is(scene, image, &used.source));
            images.iter().filter(writes).cloned().collect()
        }
    }
}

/// Tells whether a source means this image.
fn is(scene: &Scene<'_>, image: &ImageId, source: &DiskSource) -> bool {
    let Some(entry) = scene.cluster.images.get(image) else { return false };
    let Some(spec) = scene.cluster.storage.get(&entry.storage) else { return false };
    if is_image(entry, &leads(Some(&scene.cluster.name), &entry.storage, spec, source)) {
        return true;
    }
    let located = scene.backend(&entry.storage).map(|backend| backend.locate(entry));
    match (located, source) {
        (
            Some(ImageLocation::File(path) | ImageLocation::Device(path)),
            DiskSource::File(used) | DiskSource::Block(used),
        ) => path.as_str() == used,
        _ => false,
    }
}
