//! What a resolved cluster file says: the types that every later stage works with.
//!
//! Imports `model`, `libvirt::domain_xml` (a guest's UUID) and the backends' `spec.rs`. No parsing and no defaults here: `raw` and `resolve` make these values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::libvirt::domain_xml;
use crate::model::{
    AbsPath, ByteSize, ClusterName, Driver, GuestId, GuestShape, HostId, HostSpec, ImageFormat, ImageId,
    Rate, SecretRef, Secrets, StorageId,
};
use crate::storage::spec::StorageSpec;

/// A resolved cluster file.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Names everything that stor owns on the hosts.
    pub name: ClusterName,
    /// Directory of the cluster file: relative paths in it start here.
    pub base: PathBuf,
    /// All hosts.
    pub hosts: BTreeMap<HostId, HostSpec>,
    /// All storage.
    pub storage: BTreeMap<StorageId, StorageSpec>,
    /// All images.
    pub images: BTreeMap<ImageId, ImageEntry>,
    /// All guests.
    pub guests: BTreeMap<GuestId, GuestEntry>,
    /// How guests may migrate.
    pub migration: MigrationPolicy,
    /// The values of the secrets that the file refers to; empty until a command that needs them has read them.
    pub secrets: Secrets,
}

impl Cluster {
    /// Every secret that the file refers to, each once, sorted.
    #[must_use]
    pub fn secret_refs(&self) -> BTreeSet<&SecretRef> {
        self.storage.values().flat_map(StorageSpec::secrets).collect()
    }

    /// The hosts that run guests, sorted.
    pub fn hypervisors(&self) -> impl Iterator<Item = &HostSpec> {
        self.hosts.values().filter(|host| host.role.is_hypervisor())
    }

    /// The hypervisors whose guests one of libvirt's drivers runs, sorted: guests move between no others.
    pub fn hypervisors_with(&self, driver: Driver) -> impl Iterator<Item = &HostSpec> {
        self.hosts.values().filter(move |host| host.role.driver() == Some(driver))
    }

    /// The hypervisors that send each other running guests, sorted.
    pub fn peers(&self) -> impl Iterator<Item = &HostSpec> {
        let moves = |host: &&HostSpec| host.role.driver().is_some_and(Driver::moves_running_guests);
        self.hosts.values().filter(moves)
    }

    /// Which of libvirt's drivers runs a host's guests; `None` for a host that runs none.
    #[must_use]
    pub fn driver_of(&self, host: &HostId) -> Option<Driver> {
        self.hosts.get(host)?.role.driver()
    }

    /// Tells whether a host runs guests.
    #[must_use]
    pub fn is_hypervisor(&self, host: &HostId) -> bool {
        self.driver_of(host).is_some()
    }

    /// A host's address; empty for a host that the file does not have, which no resolved entry names.
    #[must_use]
    pub fn address_of(&self, host: &HostId) -> &str {
        self.hosts.get(host).map_or("", |host| host.address.as_str())
    }

    /// The UUID of a guest's domain, which alone tells it from another of the same name: that of the user's own XML, or else
    /// one that follows from the names of cluster and guest and is written into what stor defines.
    #[must_use]
    pub fn guest_uuid(&self, guest: &GuestId) -> String {
        let written = self.guests.get(guest).and_then(|entry| match &entry.definition {
            GuestDefinition::Generated(_) => None,
            GuestDefinition::Written { xml, .. } => domain_xml::read(xml).ok()?.uuid,
        });
        written.unwrap_or_else(|| domain_xml::guest_uuid(&self.name, guest).to_string())
    }

    /// The images on one storage, sorted.
    pub fn images_on<'a>(&'a self, storage: &'a StorageId) -> impl Iterator<Item = &'a ImageEntry> {
        self.images.values().filter(move |image| image.storage == *storage)
    }
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageEntry {
    /// Its name; the file is called `NAME.img` (raw) or `NAME.qcow2`.
    pub id: ImageId,
    /// The storage that holds it.
    pub storage: StorageId,
    /// Virtual size.
    pub size: ByteSize,
    /// Format.
    pub format: ImageFormat,
    /// A file on the machine that runs stor, copied in once when the image is created.
    pub source: Option<PathBuf>,
}

impl ImageEntry {
    /// The image's file in a directory of its storage.
    #[must_use]
    pub fn path_in(&self, directory: &AbsPath) -> AbsPath {
        #[expect(clippy::expect_used, reason = "the names of images are [a-z0-9-] with one of two suffixes")]
        directory.join(&self.file_name()).expect("names of images are valid in paths")
    }

    /// The image's file name on its storage.
    #[must_use]
    pub fn file_name(&self) -> String {
        match self.format {
            ImageFormat::Raw => format!("{}.img", self.id),
            ImageFormat::Qcow2 => format!("{}.qcow2", self.id),
        }
    }
}

/// One guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestEntry {
    /// Its name; also the libvirt domain's name.
    pub id: GuestId,
    /// The hypervisor that it is first defined on; where it runs later is the operator's matter.
    pub on: HostId,
    /// What it is made of.
    pub definition: GuestDefinition,
}

/// Where a guest's domain XML comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestDefinition {
    /// stor writes it from these few values.
    Generated(GuestShape),
    /// The user's own XML, read when the file was loaded; its name equals the guest's and its disks are the images.
    Written {
        /// The XML.
        xml: String,
        /// The images of the file that it uses.
        images: Vec<ImageId>,
    },
}

/// How guests may migrate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationPolicy {
    /// Upper bound; absent = as fast as the link allows.
    pub bandwidth: Option<Rate>,
    /// The pause at the end that the guest may suffer.
    pub max_downtime: Duration,
    /// stor's own deadline for one migration.
    pub timeout: Duration,
    /// What happens at the deadline.
    pub on_timeout: OnTimeout,
    /// Migrations at once per host, source and destination each.
    pub per_host: u32,
    /// Migrations at once in the cluster.
    pub per_cluster: u32,
}

/// What happens when a migration reaches its deadline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnTimeout {
    /// The migration is cancelled; the guest runs on at the source.
    #[default]
    Abort,
    /// The guest is paused so that the rest can be copied.
    Pause,
    /// The guest switches to the destination and fetches the rest from there.
    PostCopy,
}
