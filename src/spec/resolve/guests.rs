//! Guests: described in the file, or by the user's own domain XML. Imports what `resolve` imports.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::cluster::{GuestDefinition, GuestEntry, ImageEntry};
use super::super::domain;
use super::super::files;
use super::super::input::{At, Entries, Place};
use super::super::problem::{Problem, Problems};
use super::super::raw::{RawAccel, RawBoot, RawGuest};
use super::super::scalar::Mac;
use super::{Storages, lookup, named, number, optional};
use crate::libvirt::domain_xml::{self, DiskAccess};
use crate::model::{
    Accel, Autostart, ByteSize, ClusterName, Driver, GuestId, GuestShape, HostId, ImageId, KernelBoot, Role,
};

mod shared;

/// What guests refer to.
#[derive(Debug)]
pub struct Around<'a> {
    /// The cluster's name, if it has a proper one.
    pub cluster: Option<&'a ClusterName>,
    /// The declared hosts.
    pub roles: &'a BTreeMap<HostId, Role>,
    /// The declared images.
    pub images: &'a BTreeMap<ImageId, Option<ImageEntry>>,
    /// The storage that could be resolved.
    pub storage: &'a Storages,
    /// Where relative paths start.
    pub base: &'a Path,
}

/// What only one guest may have.
#[derive(Debug, Default)]
struct Taken {
    images: BTreeMap<ImageId, (GuestId, Place)>,
    /// Images that a guest only reads.
    read: Vec<(ImageId, GuestId, Place)>,
    /// What guests use outside of the cluster's storage, by what tells it from all else.
    outside: BTreeMap<String, Vec<(GuestId, Place, DiskAccess)>>,
    uuids: BTreeMap<String, (GuestId, Place)>,
    macs: BTreeMap<Mac, (GuestId, Place)>,
}

/// Resolves the guests.
pub fn resolve(
    raw: Entries<GuestId, RawGuest>,
    around: &Around<'_>,
    problems: &mut Problems,
) -> BTreeMap<GuestId, GuestEntry> {
    let mut taken = Taken::default();
    let mut guests = BTreeMap::new();
    for (At { value: id, place }, raw) in named("guests", raw, problems) {
        let on = on(&id, &raw, around, problems);
        let definition = match &raw.domain {
            Some(_) => written(&id, &raw, on.as_ref().map(|(host, _)| host), around, &mut taken, problems),
            None => shape(&id, place, &raw, around, &mut taken, problems).map(GuestDefinition::Generated),
        };
        if let (Some((host, driver)), Some(definition)) = (&on, &definition) {
            fits(&id, place, (host, *driver), definition, &raw, around, problems);
        }
        let on = on.map(|(host, _)| host);
        if let (Some(on), Some(definition)) = (on, definition) {
            take_uuid(&id, place, &definition, around, &mut taken, problems);
            guests.insert(id.clone(), GuestEntry { id, on, definition });
        }
    }
    shared::check(&taken, problems);
    guests
}

fn on(
    id: &GuestId,
    raw: &RawGuest,
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<(HostId, Driver)> {
    let at = raw.on.parse_at(format_args!("guest {id}: on"), problems)?;
    match lookup(around.roles, &at.value, "host", at.place, format_args!("guest {id}: on"), problems)? {
        Role::Hypervisor(driver) => Some((at.value, *driver)),
        Role::Server => {
            problems.add(|| {
                Problem::new(at.place, format!("guest {id}: on: host {} is not a hypervisor", at.value))
                    .hint(format!("name a hypervisor, or give {} the key hypervisor: true", at.value))
            });
            None
        }
    }
}

/// What a guest needs to be one of its host's driver: stor writes Xen guests paravirtualised (PV), which boot a kernel of
/// their host from a file or a block device; XML of the user's own must be for the driver.
fn fits(
    id: &GuestId,
    place: Place,
    (host, driver): (&HostId, Driver),
    definition: &GuestDefinition,
    raw: &RawGuest,
    around: &Around<'_>,
    problems: &mut Problems,
) {
    let mut problem = |place, message: String, hint: &str| {
        problems.add(|| Problem::new(place, format!("guest {id}: {message}")).hint(hint));
    };
    match definition {
        GuestDefinition::Written { xml, .. } => {
            let kind = domain_xml::read(xml).map(|summary| summary.kind).unwrap_or_default();
            if !driver.runs(&kind) {
                let message = format!("domain: its type is {kind:?}, and host {host} runs {driver}");
                problem(place, message, "name another host, or write the domain for that one");
            }
        }
        GuestDefinition::Generated(shape) if driver == Driver::Xen => {
            if shape.boot.is_none() {
                let hint = "name the kernel on the hosts that it boots, or give domain: FILE with your own domain XML";
                problem(place, format!("key \"boot\" is missing, and host {host} runs Xen"), hint);
            }
            if let Some(accel) = &raw.accel {
                problem(
                    accel.place,
                    format!("accel has no meaning on host {host}, which runs Xen"),
                    "remove the key",
                );
            }
            let image = around.images.get(&shape.image).and_then(Option::as_ref);
            let storage = image.and_then(|image| around.storage.get(&image.storage));
            if storage.is_some_and(|storage| storage.mounted_at().is_none()) {
                let message =
                    format!("host {host} runs Xen, which cannot use image {} where it is", shape.image);
                problem(place, message, "put the image on storage that is mounted (access: mount)");
            }
        }
        GuestDefinition::Generated(_) => {}
    }
}

/// Gives an image to a guest; the second guest that asks for it is a problem: two guests would write it (one writer).
fn take_image(image: &ImageId, guest: &GuestId, place: Place, taken: &mut Taken, problems: &mut Problems) {
    if let Some((other, first)) = taken.images.get(image) {
        if other != guest {
            problems.add(|| {
                let message = format!("guest {guest}: image {image} already belongs to guest {other}");
                Problem::new(place, message)
                    .and(*first, "first used here")
                    .hint("two guests on one image destroy its content: give each guest an image of its own")
            });
        }
        return;
    }
    taken.images.insert(image.clone(), (guest.clone(), place));
}

/// Gives a guest its UUID; libvirt takes two domains with one UUID for one.
fn take_uuid(
    id: &GuestId,
    place: Place,
    definition: &GuestDefinition,
    around: &Around<'_>,
    taken: &mut Taken,
    problems: &mut Problems,
) {
    let own = match definition {
        GuestDefinition::Generated(_) => None,
        GuestDefinition::Written { xml, .. } => domain_xml::read(xml).ok().and_then(|summary| summary.uuid),
    };
    let derived = || around.cluster.map(|cluster| domain_xml::guest_uuid(cluster, id).to_string());
    let Some(uuid) = own.or_else(derived) else { return };
    match taken.uuids.get(&uuid) {
        None => _ = taken.uuids.insert(uuid, (id.clone(), place)),
        Some((other, first)) => problems.add(|| {
            Problem::new(place, format!("guest {id}: its UUID {uuid} is also that of guest {other}"))
                .and(*first, "first used here")
                .hint("leave the <uuid> out of one of the domains: stor derives one")
        }),
    }
}

fn shape(
    id: &GuestId,
    place: Place,
    raw: &RawGuest,
    around: &Around<'_>,
    taken: &mut Taken,
    problems: &mut Problems,
) -> Option<GuestShape> {
    let image = required(raw.image.is_some(), id, "image", place, problems)
        .and_then(|()| optional(raw.image.as_ref(), format_args!("guest {id}: image"), problems))
        .filter(|at| {
            lookup(around.images, &at.value, "image", at.place, format_args!("guest {id}"), problems)
                .is_some()
        });
    let memory = required(raw.memory.is_some(), id, "memory", place, problems)
        .and_then(|()| memory(id, raw, problems));
    if let Some(at) = &image {
        take_image(&at.value, id, at.place, taken, problems);
    }
    let mac = optional(raw.mac.as_ref(), format_args!("guest {id}: mac"), problems);
    if let Some(at) = &mac {
        check_mac(id, at, raw, taken, problems);
    }
    let bridge = optional(raw.bridge.as_ref(), format_args!("guest {id}: bridge"), problems);
    let boot = raw.boot.as_ref().map(|raw| boot(id, raw, problems));
    Some(GuestShape {
        vcpus: number(raw.vcpus, 1, 1..=4096, format_args!("guest {id}: vcpus"), problems),
        image: image?.value,
        memory: memory?,
        bridge: bridge.map(|at| at.value.0),
        mac: mac.map(|at| at.value.0),
        boot: match boot {
            None => None,
            Some(boot) => Some(boot?),
        },
        accel: match raw.accel.map(|at| at.value) {
            None | Some(RawAccel::Auto) => Accel::Auto,
            Some(RawAccel::Kvm) => Accel::Kvm,
            Some(RawAccel::Qemu) => Accel::Qemu,
        },
        autostart: if raw.autostart.is_some_and(|at| at.value) { Autostart::On } else { Autostart::Off },
    })
}

fn required(given: bool, id: &GuestId, key: &str, place: Place, problems: &mut Problems) -> Option<()> {
    if !given {
        problems.add(|| {
            Problem::new(place, format!("guest {id}: key {key:?} is missing"))
                .hint("a guest has image and memory, or domain: FILE with your own domain XML")
        });
    }
    given.then_some(())
}

/// A guest below 1 MiB is a slip of the unit: no machine type starts with so little.
fn memory(id: &GuestId, raw: &RawGuest, problems: &mut Problems) -> Option<ByteSize> {
    let at = optional(raw.memory.as_ref(), format_args!("guest {id}: memory"), problems)?;
    if at.value.bytes() < 1 << 20 {
        problems.add(|| Problem::new(at.place, format!("guest {id}: memory {} is less than 1MiB", at.value)));
        return None;
    }
    Some(at.value)
}

fn check_mac(id: &GuestId, mac: &At<Mac>, raw: &RawGuest, taken: &mut Taken, problems: &mut Problems) {
    if raw.bridge.is_none() {
        problems.add(|| {
            Problem::new(mac.place, format!("guest {id}: mac without bridge: it has no network interface"))
                .hint("add the key bridge, or remove mac")
        });
    }
    if let Some((other, first)) = taken.macs.insert(mac.value.clone(), (id.clone(), mac.place)) {
        problems.add(|| {
            let message = format!("guest {id}: mac {} is also that of guest {other}", mac.value.0);
            Problem::new(mac.place, message)
                .and(first, "first used here")
                .hint("remove the key: stor derives one")
        });
    }
}

fn boot(id: &GuestId, raw: &RawBoot, problems: &mut Problems) -> Option<KernelBoot> {
    let kernel = raw.kernel.parse(format_args!("guest {id}: boot.kernel"), problems);
    let initrd =
        raw.initrd.as_ref().map(|word| word.parse(format_args!("guest {id}: boot.initrd"), problems));
    let cmdline = optional(raw.cmdline.as_ref(), format_args!("guest {id}: boot.cmdline"), problems);
    Some(KernelBoot {
        kernel: kernel?,
        initrd: match initrd {
            None => None,
            Some(path) => Some(path?),
        },
        cmdline: cmdline.map(|at| at.value.0).unwrap_or_default(),
    })
}

fn written(
    id: &GuestId,
    raw: &RawGuest,
    on: Option<&HostId>,
    around: &Around<'_>,
    taken: &mut Taken,
    problems: &mut Problems,
) -> Option<GuestDefinition> {
    for (key, place) in described_keys(raw) {
        problems.add(|| {
            Problem::new(place, format!("guest {id}: key {key:?} has no meaning beside domain"))
                .hint("the domain XML says it; keep one of the two")
        });
    }
    let subject = format!("guest {id}: domain");
    let at = optional(raw.domain.as_ref(), &subject, problems)?;
    let path = files::locate(&at, around.base, &subject, problems)?;
    let xml = files::read_domain(&path, &at, &subject, problems)?;
    let known: Vec<_> = around.images.values().flatten().collect();
    match domain::read(&xml, id, around.cluster, &known, around.storage) {
        Err(why) => {
            problems.add(|| {
                let message = format!("{subject}: {}: {why}", at.value.0);
                Problem::new(at.place, message).maybe_hint(why.hint())
            });
            None
        }
        Ok(disks) => {
            for image in &disks.written {
                take_image(image, id, at.place, taken, problems);
            }
            taken.read.extend(disks.read.into_iter().map(|image| (image, id.clone(), at.place)));
            for used in disks.outside {
                let Some(disk) = shared::identity(&used.source, on) else { continue };
                taken.outside.entry(disk).or_default().push((id.clone(), at.place, used.access));
            }
            Some(GuestDefinition::Written { xml, images: disks.all })
        }
    }
}

/// The keys given beside `domain` that describe a guest.
fn described_keys(raw: &RawGuest) -> Vec<(&'static str, Place)> {
    let boot = raw.boot.as_ref().map(|boot| boot.kernel.place);
    let given = [
        ("image", raw.image.as_ref().map(|word| word.place)),
        ("memory", raw.memory.as_ref().map(|word| word.place)),
        ("vcpus", raw.vcpus.map(|at| at.place)),
        ("bridge", raw.bridge.as_ref().map(|word| word.place)),
        ("mac", raw.mac.as_ref().map(|word| word.place)),
        ("boot", boot),
        ("autostart", raw.autostart.map(|at| at.place)),
        ("accel", raw.accel.map(|at| at.place)),
    ];
    given.into_iter().filter_map(|(key, place)| Some((key, place?))).collect()
}
