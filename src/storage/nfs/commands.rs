//! What every NFS storage says, whichever server exports it: clients, names of packages, the mount on a hypervisor. Pure.
//!
//! Imports `model`, `spec`, and the shared builders of `storage`. What the kernel's server is told is in [`kernel`], what
//! nfs-ganesha is told in [`ganesha`]; when each is needed is decided in `plan`.

pub mod ganesha;
pub mod kernel;

use std::collections::BTreeSet;

use super::spec::{MountSpec, NfsSpec, Protocols};
use crate::guard::Protocol;
use crate::model::{AbsPath, ClusterName, Command, StorageId};
use crate::spec::Cluster;
use crate::storage::mount_unit::MountUnit;
use crate::storage::packages::Need;

/// The port of NFS itself.
pub const NFS_PORT: u16 = 2049;
/// The port of rpcbind, which tells NFSv3 clients the other ports (RFC 1833).
pub const RPCBIND_PORT: u16 = 111;
/// The port on which stor has the MOUNT protocol listen (RFC 1813 appendix I); nfs-utils registers it by default, too.
pub const MOUNTD_PORT: u16 = 20048;
/// The port on which stor has the lock manager listen (NLM, RFC 1813 appendix II).
pub const LOCKD_PORT: u16 = 32803;
/// The port on which stor has the status monitor listen (NSM).
pub const STATD_PORT: u16 = 32765;
/// The port from which the status monitor sends.
pub const STATD_OUTGOING_PORT: u16 = 32766;

/// The ports of a server that clients need: what protocol, which port, what for.
#[must_use]
pub fn ports(protocols: Protocols) -> Vec<(Protocol, u16, &'static str)> {
    let mut ports = vec![(Protocol::Tcp, NFS_PORT, "nfs")];
    if protocols.v3 {
        ports.push((Protocol::Tcp, RPCBIND_PORT, "rpcbind"));
        ports.push((Protocol::Udp, RPCBIND_PORT, "rpcbind"));
        for (port, purpose) in [(MOUNTD_PORT, "mountd"), (LOCKD_PORT, "lockd"), (STATD_PORT, "statd")] {
            ports.extend([(Protocol::Tcp, port, purpose), (Protocol::Udp, port, purpose)]);
        }
    }
    ports
}

/// What a hypervisor needs to mount an export.
pub const MOUNTING: Need = Need { debian: &["nfs-common"], red_hat: &["nfs-utils"], suse: &["nfs-client"] };
/// What a hypervisor needs for QEMU's own client.
pub const DIRECT: Need =
    Need { debian: &["qemu-block-extra"], red_hat: &["qemu-block-nfs"], suse: &["qemu-block-nfs"] };
/// What a server needs to create images where no hypervisor mounts the export.
pub const IMAGES: Need = Need { debian: &["qemu-utils"], red_hat: &["qemu-img"], suse: &["qemu-img"] };

/// The first line of every file that stor writes for `cluster`.
#[must_use]
pub fn header(cluster: &ClusterName) -> String {
    format!("# Written by stor for cluster {cluster}. stor apply overwrites changes made here.\n")
}

/// The addresses that may use an export: hypervisors, and what the file adds.
#[must_use]
pub fn clients(cluster: &Cluster, spec: &NfsSpec) -> BTreeSet<String> {
    let hypervisors = cluster.hypervisors().map(|host| host.address.clone());
    hypervisors.chain(spec.allow.iter().cloned()).collect()
}

/// Tells whether the clients that a server shows are those that it should have.
///
/// A server shows names where it resolved them, also for addresses: exportfs(8) writes `kvm1` for `10.0.0.21` once any export
/// of the host names `kvm1`. So a host's name stands for one entry that is not shown as it was written. Patterns, networks
/// and netgroups stand for nothing that stor would write.
#[must_use]
pub fn same_clients(desired: &BTreeSet<String>, shown: &BTreeSet<String>) -> bool {
    let strangers: Vec<&String> = shown.difference(desired).collect();
    strangers.iter().all(|client| is_plain_name(client))
        && strangers.len() == desired.difference(shown).count()
}

/// Tells whether a client is the name of one host: no address, network, pattern or netgroup.
#[must_use]
pub fn is_plain_name(client: &str) -> bool {
    client.parse::<std::net::Ipv4Addr>().is_err() && !client.contains(['*', '?', '[', '/', '@', ':'])
}

/// Makes an export's directory with all its parents.
#[must_use]
pub fn make_directory(path: &AbsPath) -> Command {
    Command::new("mkdir").args(["-p", "--", path.as_str()])
}

/// Gives an export's directory, and nothing in it, to `owner` (`UID` or `UID:GID`).
#[must_use]
pub fn give_directory(path: &AbsPath, owner: &str) -> Command {
    Command::new("chown").args([owner, "--", path.as_str()])
}

/// What is mounted: `ADDRESS:/PATH`.
#[must_use]
pub fn source(cluster: &Cluster, spec: &NfsSpec) -> String {
    format!("{}:{}", cluster.address_of(&spec.server), spec.path)
}

/// What the mount table may call this export: by the server's address or its name in the file, with or without a slash at
/// its end.
#[must_use]
pub fn mount_sources(cluster: &Cluster, spec: &NfsSpec) -> BTreeSet<String> {
    let path = spec.path.as_str();
    let names = [cluster.address_of(&spec.server), spec.server.as_str()];
    names.iter().flat_map(|name| [format!("{name}:{path}"), format!("{name}:{path}/")]).collect()
}

/// The options with which an export is mounted (nfs(5)).
///
/// `hard`: a guest waits for its disk as long as the server is away; `soft` would hand it an I/O error and lose writes.
#[must_use]
pub fn mount_options(mount: &MountSpec) -> Vec<String> {
    let mut options = vec!["hard".to_owned(), format!("vers={}", mount.version)];
    options.extend(mount.nconnect.map(|count| format!("nconnect={count}")));
    options.extend(mount.options.iter().cloned());
    options
}

/// The mount on a hypervisor.
#[must_use]
pub fn mount_unit(cluster: &Cluster, id: &StorageId, spec: &NfsSpec, mount: &MountSpec) -> MountUnit {
    let mut options = mount_options(mount);
    options.push("_netdev".to_owned());
    MountUnit {
        cluster: cluster.name.clone(),
        description: format!("NFS export {id}"),
        source: source(cluster, spec),
        path: mount.path.clone(),
        fs_type: "nfs",
        options,
        // On a hypervisor that is the server itself.
        after: vec![kernel::SERVICE, ganesha::SERVICE],
    }
}
