//! The file beside a secret that stor gave away, which tells later whether the value is still the same (`docs/adr/0112`). Pure.
//!
//! Imports `model`. Who was given a secret, and when its stamp is written, is decided by whoever plans that.

use crate::model::{AbsPath, ClusterName, Command, FileContent, FileMode, FileSpec, Query, Stamp, StorageId};

/// Who was given a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenTo {
    /// A hypervisor's libvirt.
    Libvirt,
    /// The kernel's target.
    Target,
    /// The records of a hypervisor's open-iscsi.
    Node,
}

/// Where a host keeps the stamp of a storage's secret.
#[must_use]
pub fn path(cluster: &ClusterName, storage: &StorageId, to: GivenTo) -> AbsPath {
    let name = match to {
        GivenTo::Libvirt => "stamp",
        GivenTo::Target => "target-stamp",
        GivenTo::Node => "node-stamp",
    };
    #[expect(clippy::expect_used, reason = "both names are [a-z0-9-], always valid path components")]
    AbsPath::new(format!("/var/lib/stor/{cluster}.{storage}.{name}")).expect("a valid path")
}

/// Asks for the stamp.
#[must_use]
pub fn query(cluster: &ClusterName, storage: &StorageId, to: GivenTo) -> Query {
    Query::new(Command::new("cat").arg(path(cluster, storage, to).as_str()))
}

/// The file with a stamp.
#[must_use]
pub fn file(cluster: &ClusterName, storage: &StorageId, to: GivenTo, stamp: Stamp) -> FileSpec {
    let content = FileContent::Secret(stamp.render());
    FileSpec { path: path(cluster, storage, to), mode: FileMode(0o600), content }
}
