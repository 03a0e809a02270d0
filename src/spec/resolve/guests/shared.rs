//! What more than one guest would use: a guest must not read what another writes, nor two write one disk.
//!
//! Imports what `resolve` imports. Only what the file shows counts here; what the hosts show is looked at before a guest starts.

use super::super::super::problem::{Problem, Problems};
use super::Taken;
use crate::libvirt::domain_xml::{DiskAccess, DiskSource};
use crate::model::HostId;
use crate::spec::domain::shown;

/// What tells a disk outside of the cluster's storage from all others. A file or pool is its host's own; a device is taken for one
/// and the same on all hosts, since guests move.
pub(super) fn identity(source: &DiskSource, on: Option<&HostId>) -> String {
    let local = on.map_or("", HostId::as_str);
    match source {
        DiskSource::File(path) if !path.starts_with("/dev/") => format!("{} on host {local}", shown(source)),
        DiskSource::Volume { .. } => format!("{} of host {local}", shown(source)),
        DiskSource::Network { hosts, .. } => format!("{} of {}", shown(source), hosts.join(", ")),
        DiskSource::File(_) | DiskSource::Block(_) | DiskSource::Empty | DiskSource::Other(_) => {
            shown(source)
        }
    }
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
