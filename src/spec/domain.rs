//! The user's own domain XML: its name, and which of the cluster's images it uses.
//!
//! Imports `libvirt::domain_xml` (the reader), `cluster` and `model`. Whether the guest could migrate is preflight's matter.

use super::cluster::ImageEntry;
use super::resolve::Storages;
use crate::libvirt::LibvirtError;
use crate::libvirt::domain_xml::{DiskAccess, DiskSource, read as read_xml};
use crate::model::{AbsPath, GuestId, ImageFormat, ImageId, StorageId};
use crate::storage::spec::StorageSpec;

/// The images of a guest.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Disks {
    /// All of them, sorted.
    pub all: Vec<ImageId>,
    /// Those that it may write.
    pub written: Vec<ImageId>,
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
            Self::NoImage { .. } => {
                Some("declare it under images; the file is called NAME.img or NAME.qcow2".to_owned())
            }
            Self::Format { format, .. } => Some(format!("write <driver name='qemu' type='{format}'/>")),
        }
    }
}

/// Reads a guest's XML and finds its images.
///
/// Disks outside the cluster's storage are let through: whether the guest can move with them is seen at preflight.
pub fn read(
    xml: &str,
    guest: &GuestId,
    images: &[&ImageEntry],
    storage: &Storages,
) -> Result<Disks, DomainError> {
    let domain = read_xml(xml).map_err(DomainError::Xml)?;
    if domain.name != guest.as_str() {
        return Err(DomainError::Name { found: domain.name, guest: guest.clone() });
    }
    let mut disks = Disks::default();
    for disk in &domain.disks {
        let Some((place, on_storage)) = place(&disk.source, storage) else { continue };
        let image = images
            .iter()
            .find(|image| storage.get(&image.storage).is_some_and(|spec| file_at(image, spec, &disk.source)));
        match image {
            None if on_storage => return Err(DomainError::NoImage { target: disk.target.clone(), place }),
            None => {}
            Some(image) if disk.format.as_deref().unwrap_or("raw") != image.format.to_string() => {
                return Err(DomainError::Format {
                    target: disk.target.clone(),
                    image: image.id.clone(),
                    found: disk.format.clone().unwrap_or_else(|| "raw".to_owned()),
                    format: image.format,
                });
            }
            Some(image) => {
                disks.all.push(image.id.clone());
                // A CD-ROM drive never writes, whether or not the XML says so.
                if disk.access != DiskAccess::ReadOnly && disk.device != "cdrom" {
                    disks.written.push(image.id.clone());
                }
            }
        }
    }
    disks.all.sort();
    disks.all.dedup();
    Ok(disks)
}

/// Where a disk is, for a person, and whether that is on a storage of the cluster.
fn place(source: &DiskSource, storage: &Storages) -> Option<(String, bool)> {
    match source {
        DiskSource::File(path) => {
            let within =
                |mount: &AbsPath| AbsPath::new(path.as_str()).is_ok_and(|path| path.is_within(mount));
            let on_mount = |spec: &StorageSpec| spec.mounted_at().is_some_and(within);
            Some((path.clone(), storage.values().any(on_mount)))
        }
        DiskSource::Network { protocol, name, .. } => {
            let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
            let is_here = |(id, spec): (&StorageId, &StorageSpec)| {
                let (own, place) = spec.network_place(id);
                own == protocol && place == directory
            };
            Some((format!("{protocol} {name}"), storage.iter().any(is_here)))
        }
        DiskSource::Volume { pool, volume } => {
            Some((format!("{volume} in pool {pool}"), storage.keys().any(|id| id.as_str() == pool)))
        }
        DiskSource::Block(_) | DiskSource::Empty | DiskSource::Other(_) => None,
    }
}

/// Tells whether a disk source is this image.
fn file_at(image: &ImageEntry, spec: &StorageSpec, source: &DiskSource) -> bool {
    let file = image.file_name();
    match source {
        DiskSource::File(path) => AbsPath::new(path.as_str())
            .is_ok_and(|path| spec.mounted_at() == Some(&path.parent()) && path.file_name() == file),
        DiskSource::Network { protocol, name, .. } => {
            spec.network_name(&image.storage, &image.id, &file) == (protocol, name.clone())
        }
        DiskSource::Volume { pool, volume } => pool == image.storage.as_str() && *volume == file,
        DiskSource::Block(_) | DiskSource::Empty | DiskSource::Other(_) => false,
    }
}
