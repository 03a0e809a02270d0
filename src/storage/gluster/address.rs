//! By what a file on a GlusterFS volume is known: the volume may be mounted from any of its servers, or reached by libgfapi. Pure.

use crate::storage::address::{Address, join};
use crate::storage::mount_probe::mount_table::Mount;

/// The protocol of libgfapi's URLs.
const PROTOCOL: &str = "gluster";
/// The type of a mount.
const FS_TYPE: &str = "fuse.glusterfs";

/// `SERVER:/VOLUME[/DIRECTORY]`, the slash may be left out (mount.glusterfs(8)).
pub(in crate::storage) fn of_mount(mount: &Mount, inner: &str) -> Vec<Address> {
    let volume = mount.source.rsplit_once(':').map(|(_, volume)| volume);
    let volume = volume.filter(|_| mount.fs_type == FS_TYPE);
    volume.map(|volume| Address::new(PROTOCOL, join(volume, inner))).into_iter().collect()
}

/// `VOLUME/PATH`.
pub(in crate::storage) fn of_network(protocol: &str, name: &str) -> Option<Address> {
    (protocol == PROTOCOL).then(|| Address::new(PROTOCOL, join(name, "")))
}
