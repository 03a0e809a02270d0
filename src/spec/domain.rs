//! The user's own domain XML: its name, and which of the cluster's images it uses.
//!
//! Imports `libvirt::domain_xml` (the reader), `cluster` and `model`. Whether the guest could migrate is preflight's matter.

use super::cluster::ImageEntry;
use super::resolve::Storages;
use crate::libvirt::LibvirtError;
use crate::libvirt::domain_xml::{DiskAccess, DiskSource, DiskUse, read as read_xml, uses};
use crate::libvirt::is_uuid;
use crate::model::{ClusterName, GuestId, ImageFormat, ImageId, StorageId};
use crate::storage::spec::{Leads, Source, StorageSpec};

/// What a guest uses.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Disks {
    /// All its images, sorted.
    pub all: Vec<ImageId>,
    /// Those that it may write.
    pub written: Vec<ImageId>,
    /// Those that it only reads, as a disk or as a layer of one.
    pub read: Vec<ImageId>,
    /// What it uses outside of the cluster's storage.
    pub outside: Vec<DiskUse>,
}

/// Says what is wrong with a domain XML.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// It cannot be read.
    #[error("{0}")]
    Xml(LibvirtError),
    /// The name is not the guest's.
    #[error("the domain is called {found:?}, not {guest}")]
    Name {
        /// Name in the XML.
        found: String,
        /// Name in the cluster file.
        guest: GuestId,
    },
    /// The UUID is none.
    #[error("its UUID {found:?} is none")]
    Uuid {
        /// What stands there.
        found: String,
    },
    /// A disk lies on a storage of the cluster but is no image of the file.
    #[error("disk {target} uses {place}, which is no image of the cluster file")]
    NoImage {
        /// Name in the guest.
        target: String,
        /// Path, or volume and path.
        place: String,
    },
    /// A disk opens an image as something that it is not.
    #[error("disk {target} opens image {image} as {found}, but the image is {format}")]
    Format {
        /// Name in the guest.
        target: String,
        /// The image.
        image: ImageId,
        /// The format in the XML; libvirt takes raw where there is none.
        found: String,
        /// The image's.
        format: ImageFormat,
    },
}

impl DomainError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Xml(_) => None,
            Self::Name { .. } => Some("give both the same name".to_owned()),
            Self::Uuid { .. } => {
                Some("write one as `uuidgen` prints it, or leave the element out".to_owned())
            }
            Self::Format { format, .. } => Some(format!("write <driver name='qemu' type='{format}'/>")),
            Self::NoImage { .. } => Some(
                "declare it under images; a file is called NAME.img or NAME.qcow2, a LUN NAME; a file that is only read needs <readonly/>".to_owned(),
            ),
        }
    }
}

/// Reads a guest's XML and finds its images.
///
/// Disks outside the cluster's storage are let through: whether the guest can move with them is seen at preflight.
pub fn read(
    xml: &str,
    guest: &GuestId,
    cluster: Option<&ClusterName>,
    images: &[&ImageEntry],
    storage: &Storages,
) -> Result<Disks, DomainError> {
    let domain = read_xml(xml).map_err(DomainError::Xml)?;
    if domain.name != guest.as_str() {
        return Err(DomainError::Name { found: domain.name, guest: guest.clone() });
    }
    if let Some(uuid) = &domain.uuid
        && !is_uuid(uuid)
    {
        return Err(DomainError::Uuid { found: uuid.clone() });
    }
    let mut disks = Disks::default();
    for used in uses(xml).map_err(DomainError::Xml)? {
        let here = |id: &StorageId, spec: &StorageSpec| leads(cluster, id, spec, &used.source);
        let image = images.iter().find(|image| {
            storage.get(&image.storage).is_some_and(|spec| is_image(image, &here(&image.storage, spec)))
        });
        let reads_a_file = || {
            let is_file = |(id, spec)| matches!(here(id, spec), Leads::File(_));
            used.access == DiskAccess::ReadOnly && storage.iter().any(is_file)
        };
        let on_storage = || storage.iter().any(|(id, spec)| here(id, spec) != Leads::Elsewhere);
        // A layer that nobody declares is read from wherever it is, and so is a file that is only read, like a CD-ROM's;
        // every other disk has to be known.
        let disk = domain.disks.iter().find(|disk| disk.target == used.target && disk.source == used.source);
        if let (Some(image), Some(disk)) = (image, disk)
            && disk.format.as_deref().unwrap_or("raw") != image.format.to_string()
        {
            return Err(DomainError::Format {
                target: disk.target.clone(),
                image: image.id.clone(),
                found: disk.format.clone().unwrap_or_else(|| "raw".to_owned()),
                format: image.format,
            });
        }
        match image {
            None if disk.is_some() && on_storage() && !reads_a_file() => {
                let (target, place) = (used.target, shown(&used.source));
                return Err(DomainError::NoImage { target, place });
            }
            None if on_storage() => {}
            None => disks.outside.push(used),
            Some(image) if used.access == DiskAccess::ReadOnly => disks.read.push(image.id.clone()),
            Some(image) => disks.written.push(image.id.clone()),
        }
    }
    disks.read.retain(|image| !disks.written.contains(image));
    disks.all = disks.written.iter().chain(&disks.read).cloned().collect();
    for list in [&mut disks.all, &mut disks.written, &mut disks.read] {
        list.sort();
        list.dedup();
    }
    Ok(disks)
}

/// Where a source is, for a person.
pub fn shown(source: &DiskSource) -> String {
    match source {
        DiskSource::File(path) | DiskSource::Block(path) | DiskSource::Other(path) => tidy(path),
        DiskSource::Network { protocol, name, .. } => format!("{protocol} {}", tidy(name)),
        DiskSource::Volume { pool, volume } => format!("{volume} in pool {pool}"),
        DiskSource::Empty => "nothing".to_owned(),
    }
}

/// Where a source leads, seen from one storage.
pub fn leads(
    cluster: Option<&ClusterName>,
    id: &StorageId,
    spec: &StorageSpec,
    source: &DiskSource,
) -> Leads {
    match source {
        DiskSource::File(path) | DiskSource::Block(path) => {
            spec.leads(cluster, id, &Source::Path(&tidy(path)))
        }
        DiskSource::Volume { pool, volume } => spec.leads(cluster, id, &Source::Volume { pool, volume }),
        DiskSource::Network { protocol, name, .. } => {
            spec.leads(cluster, id, &Source::Network { protocol, name: &tidy(name) })
        }
        DiskSource::Empty | DiskSource::Other(_) => Leads::Elsewhere,
    }
}

/// Tells whether what a source leads to on an image's storage is this image: its file, or the LUN of its name.
pub fn is_image(image: &ImageEntry, leads: &Leads) -> bool {
    match leads {
        Leads::File(name) => *name == image.file_name(),
        Leads::Lun(name) => *name == image.id,
        Leads::Elsewhere | Leads::Undeclared => false,
    }
}

/// The same path or name without doubled slashes, `.` and `..`, which libvirt leaves as they are.
fn tidy(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    format!("{}{}", if path.starts_with('/') { "/" } else { "" }, parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_compared_as_the_kernel_walks_it() {
        for (path, same) in [
            ("/a//b/./c", "/a/b/c"),
            ("/a/b/../c.img", "/a/c.img"),
            ("gfs//web1.img", "gfs/web1.img"),
            ("/../x", "/x"),
        ] {
            assert_eq!(tidy(path), same);
        }
    }
}
