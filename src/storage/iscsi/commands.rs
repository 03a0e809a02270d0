//! What every target says, whichever server offers it: clients, names, packages. Pure.
//!
//! Imports `model`, `spec`, and the shared builders of `storage`. What is behind LUNs is made in
//! [`backing`], what tgt is told is in [`tgt`]; when each command is needed is decided in `plan`.

pub mod backing;
pub mod boot;
pub mod lio;
pub mod open_iscsi;
pub mod tgt;

use std::collections::BTreeSet;

use super::spec::{IscsiAccess, IscsiSpec, LunSpec, PORT, Portal};
use crate::libvirt::secrets;
use crate::model::{ClusterName, Command, HostId, ImageLocation, IscsiAuth, Query, StorageId};
use crate::spec::Cluster;
use crate::storage::packages::Need;

/// What a hypervisor needs for QEMU's own client.
pub const DIRECT: Need =
    Need { debian: &["qemu-block-extra"], red_hat: &["qemu-block-iscsi"], suse: &["qemu-block-iscsi"] };
/// libvirt's backend of `iscsi` pools, where it is a package of its own.
pub const SESSION_POOL: Need = Need {
    debian: &["libvirt-daemon-driver-storage-iscsi"],
    red_hat: &["libvirt-daemon-driver-storage-iscsi"],
    suse: &["libvirt-daemon-driver-storage-iscsi"],
};
/// Likewise of `iscsi-direct` pools.
pub const DIRECT_POOL: Need = Need {
    debian: &["libvirt-daemon-driver-storage-iscsi-direct"],
    red_hat: &["libvirt-daemon-driver-storage-iscsi-direct"],
    suse: &["libvirt-daemon-driver-storage-iscsi-direct"],
};

/// The first line of every file that stor writes for `cluster`.
#[must_use]
pub fn header(cluster: &ClusterName) -> String {
    format!("# Written by stor for cluster {cluster}. stor apply overwrites changes made here.\n")
}

/// The addresses that may use a target: hypervisors, and what the file adds.
#[must_use]
pub fn clients(cluster: &Cluster, spec: &IscsiSpec) -> BTreeSet<String> {
    let hypervisors = cluster.hypervisors().map(|host| host.address.clone());
    hypervisors.chain(spec.allow.iter().cloned()).collect()
}

/// Where hypervisors reach a target; QEMU's own client and libvirt take the first portal only.
#[must_use]
pub fn portals(cluster: &Cluster, spec: &IscsiSpec) -> Vec<Portal> {
    if spec.portals.is_empty() {
        return vec![Portal { address: cluster.address_of(&spec.server).to_owned(), port: PORT }];
    }
    spec.portals.clone()
}

/// The first of the portals.
#[must_use]
pub fn portal(cluster: &Cluster, spec: &IscsiSpec) -> Portal {
    portals(cluster, spec).swap_remove(0)
}

/// The serial number of a LUN, from which initiators make its WWID: the same after a restart, on whatever file its data lies.
#[must_use]
pub fn serial(cluster: &ClusterName, id: &StorageId, lun: &LunSpec) -> String {
    lun.serial(cluster, id)
}

/// The name with which a guest logs in to a target. The same on every hypervisor, because a guest moves with its definition.
#[must_use]
pub fn guest_initiator(cluster: &ClusterName, spec: &IscsiSpec, lun: &LunSpec) -> String {
    spec.iqn.sibling(&format!("stor-{cluster}.guest.{}", lun.name))
}

/// The name with which a host's tools log in to a target; stor itself is a host of the name `stor`.
#[must_use]
pub fn host_initiator(cluster: &ClusterName, spec: &IscsiSpec, host: Option<&HostId>) -> String {
    let host = host.map_or_else(|| "stor".to_owned(), |host| format!("host.{host}"));
    spec.iqn.sibling(&format!("stor-{cluster}.{host}"))
}

/// Where QEMU reaches a LUN.
#[must_use]
pub fn location(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec, lun: &LunSpec) -> ImageLocation {
    if spec.access == IscsiAccess::Session {
        return ImageLocation::Device(open_iscsi::device(cluster, id, spec, lun));
    }
    let portal = portal(cluster, spec);
    let auth = spec
        .chap
        .as_ref()
        .map(|chap| IscsiAuth { user: chap.user.to_string(), usage: secrets::usage(&cluster.name, id) });
    ImageLocation::Iscsi {
        address: portal.address,
        port: portal.port,
        target: spec.iqn.to_string(),
        lun: lun.number,
        initiator: guest_initiator(&cluster.name, spec, lun),
        auth,
    }
}

/// Shows the target's server as the kernel has it, or tgt; a constant, the target's name and the kernel's look are arguments.
const SHOWN: &str = r#"[ ! -d /sys/kernel/config/target/iscsi/"$1" ] || exec python3 -c "$2"
exec tgtadm --lld iscsi --op show --mode target"#;

/// Asks whichever program offers a target for all of its targets.
#[must_use]
pub fn shown(spec: &IscsiSpec) -> Query {
    let words = ["-c", SHOWN, "stor-shown", spec.iqn.as_str(), lio::SHOW];
    Query::patient(Command::new("sh").args(words))
}
