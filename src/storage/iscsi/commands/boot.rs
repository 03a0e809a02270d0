//! What has the program that offers targets wait for its devices at boot. Pure.
//!
//! The services of both programs start as soon as the network is up, and leave out what is not there yet: volumes are activated
//! one by one. Source: systemd.device(5), systemd.unit(5).

use super::header;
use crate::model::{AbsPath, Command, FileContent, FileMode, FileSpec, Query, StorageId};
use crate::spec::Cluster;
use crate::storage::iscsi::spec::{IscsiSpec, LunSpec};
use crate::storage::mount_unit;

/// The directory of a service's drop-in files.
#[must_use]
pub fn directory(service: &str) -> AbsPath {
    #[expect(clippy::expect_used, reason = "names of services are constants")]
    AbsPath::new(format!("/etc/systemd/system/{service}.d")).expect("a valid path")
}

/// Where the drop-in file of a storage lies.
#[must_use]
pub fn path(service: &str, cluster: &Cluster, id: &StorageId) -> AbsPath {
    #[expect(clippy::expect_used, reason = "names of clusters and storage are [a-z0-9-]")]
    directory(service).join(&format!("stor-{}-{id}.conf", cluster.name)).expect("a valid path")
}

/// Asks for it.
#[must_use]
pub fn query(path: &AbsPath) -> Query {
    Query::new(Command::new("cat").arg(path.as_str()))
}

/// The drop-in file. A device that never comes is waited for a minute and a half, and then left out.
#[must_use]
pub fn file(service: &str, cluster: &Cluster, id: &StorageId, spec: &IscsiSpec) -> FileSpec {
    let content = FileContent::Text(text(cluster, spec).into());
    FileSpec { path: path(service, cluster, id), mode: FileMode(0o644), content }
}

/// What it holds.
#[must_use]
pub fn text(cluster: &Cluster, spec: &IscsiSpec) -> String {
    let mut text = header(&cluster.name) + "[Unit]\n";
    for lun in spec.luns.iter().filter(|lun| lun.is_block()) {
        let unit = mount_unit::unit_name(&lun.backing);
        let device = unit.trim_end_matches(".mount");
        text.push_str(&format!("Wants={device}.device\nAfter={device}.device\n"));
    }
    text
}

/// Whether a target needs it.
#[must_use]
pub fn is_needed(spec: &IscsiSpec) -> bool {
    spec.luns.iter().any(LunSpec::is_block)
}
