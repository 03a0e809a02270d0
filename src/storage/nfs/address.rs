//! By what a file on an NFS export is known: its server, by name and by address, and its path there. Pure.

use crate::storage::address::{Address, join};
use crate::storage::mount_probe::mount_table::Mount;

/// The protocol of libnfs' URLs.
const PROTOCOL: &str = "nfs";
/// The types of the kernel's mounts (nfs(5)).
const FS_TYPES: [&str; 2] = ["nfs", "nfs4"];

/// `SERVER:/PATH`; the option `addr` holds the address that the name led to.
pub(in crate::storage) fn of_mount(mount: &Mount, inner: &str) -> Vec<Address> {
    let Some((server, path)) = mount.source.rsplit_once(":/").filter(|_| is_nfs(&mount.fs_type)) else {
        return Vec::new();
    };
    let addresses = mount.options.iter().filter_map(|option| option.strip_prefix("addr="));
    addresses.chain([server]).map(|server| at(server, &join(path, inner))).collect()
}

/// The path on the server.
pub(in crate::storage) fn of_network(protocol: &str, name: &str, hosts: &[String]) -> Vec<Address> {
    if protocol != PROTOCOL {
        return Vec::new();
    }
    hosts.iter().map(|host| at(host, &join(name, ""))).collect()
}

/// A client in user space shows itself as `fuse.` and its own name.
fn is_nfs(fs_type: &str) -> bool {
    FS_TYPES.contains(&fs_type) || (fs_type.starts_with("fuse.") && fs_type.contains(PROTOCOL))
}

fn at(server: &str, path: &str) -> Address {
    Address::new(PROTOCOL, format!("{}:{path}", server.trim_matches(['[', ']'])))
}
