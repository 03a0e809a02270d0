//! What more than one guest would use: a guest must not read what another writes, nor two write one disk.
//!
//! Imports what `resolve` imports. Only what the file shows counts here; what the hosts show is looked at before a guest starts.

use super::super::super::problem::{Problem, Problems};
use super::Taken;
use crate::libvirt::domain_xml::{DiskAccess, DiskSource};
use crate::model::HostId;
use crate::spec::domain::shown;

/// What tells a disk outside of the cluster's storage from all others; `None` where the file does not show it. A file, a pool and a
/// name like `/dev/sdb` are their host's own; a device by a name that stays (`/dev/disk/by-id/..`) is one and the same on all hosts.
pub(super) fn identity(source: &DiskSource, on: Option<&HostId>) -> Option<String> {
    let local = on.map_or("", HostId::as_str);
    match source {
        DiskSource::File(path) | DiskSource::Block(path) if lasts(path) => Some(shown(source)),
        DiskSource::File(_) | DiskSource::Block(_) => Some(format!("{} on host {local}", shown(source))),
        DiskSource::Volume { .. } => Some(format!("{} of host {local}", shown(source))),
        // A server of one export (NBD) is told by its port or socket alone.
        DiskSource::Network { name, .. } if name.is_empty() => None,
        DiskSource::Network { hosts, .. } => Some(format!("{} of {}", shown(source), hosts.join(", "))),
        DiskSource::Empty | DiskSource::Other(_) => None,
    }
}

/// Whether a device's name follows from the device, not from the order in which its host found it.
fn lasts(path: &str) -> bool {
    path.starts_with("/dev/disk/") || path.starts_with("/dev/mapper/")
}

/// Adds a problem for every pair of guests of which one writes what the other uses.
pub(super) fn check(taken: &Taken, problems: &mut Problems) {
    for (image, guest, place) in &taken.read {
        let Some((writer, first)) = taken.images.get(image).filter(|(writer, _)| writer != guest) else {
            continue;
        };
        problems.add(|| {
            Problem::new(
                *place,
                format!("guest {guest}: it reads image {image}, which guest {writer} writes"),
            )
            .and(*first, "written here")
            .hint("give each guest an image of its own; an image that others build on must never change")
        });
    }
    for (disk, users) in &taken.outside {
        for (index, (guest, place, access)) in users.iter().enumerate() {
            let clashes = |other: &DiskAccess| {
                let writes = [access, other].iter().any(|access| **access != DiskAccess::ReadOnly);
                writes && [access, other].iter().any(|access| **access == DiskAccess::Exclusive)
            };
            let before =
                users.iter().take(index).find(|(other, _, access)| other != guest && clashes(access));
            let Some((other, first, _)) = before else { continue };
            problems.add(|| {
                Problem::new(
                    *place,
                    format!("guest {guest}: it uses {disk}, which guest {other} uses as well"),
                )
                .and(*first, "first used here")
                .hint("two guests on one disk destroy its content: give each guest a disk of its own")
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_file_shows_to_be_one_disk_is_one() {
        let kvm1: HostId = "kvm1".parse().unwrap();
        let kvm2: HostId = "kvm2".parse().unwrap();
        let same = |source: DiskSource| {
            identity(&source, Some(&kvm1)).is_some_and(|one| Some(one) == identity(&source, Some(&kvm2)))
        };
        let block = |path: &str| DiskSource::Block(path.to_owned());
        assert!(same(block("/dev/disk/by-id/wwn-0x5")) && same(block("/dev/mapper/mpatha")));
        assert!(!same(block("/dev/sdb")) && !same(block("/dev/vg0/data")));
        assert!(!same(DiskSource::Other("vhostuser".to_owned())));
        let nbd = |name: &str| DiskSource::Network {
            protocol: "nbd".to_owned(),
            name: name.to_owned(),
            hosts: Vec::new(),
        };
        assert!(same(nbd("web1")) && !same(nbd("")));
        assert_eq!(identity(&nbd(""), Some(&kvm1)), None);
    }
}
