//! By what data on the network is known, whichever way a host reaches it: mounted, by a protocol of QEMU, as a device.
//!
//! Pure. The dispatch to the backends, which know their own mounts, names and links. Imports `model` and the mount table.

use super::mount_probe::mount_table::Mount;
use super::{gluster, iscsi, nfs};

/// Where data is on the network; equal addresses are the same data.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The protocol, or the type of the file system.
    pub protocol: String,
    /// The name within it.
    pub name: String,
}

impl Address {
    /// Makes one.
    #[must_use]
    pub fn new(protocol: &str, name: impl Into<String>) -> Self {
        Self { protocol: protocol.to_owned(), name: name.into() }
    }
}

/// Further file systems that several hosts can mount at once (libvirt's `virFileIsSharedFSType`).
const SHARED: [&str; 11] =
    ["gfs2", "ocfs2", "afs", "cifs", "smb3", "ceph", "gpfs", "acfs", "beegfs", "fuse.quobyte", "fuse.ceph"];

/// The addresses of what lies at `below`, a path below a mount, empty for the mount itself; none for a file system of the host's own.
#[must_use]
pub fn of_mount(mount: &Mount, below: &str) -> Vec<Address> {
    let inner = join(&mount.root, below);
    let mut found = gluster::address::of_mount(mount, &inner);
    found.extend(nfs::address::of_mount(mount, &inner));
    if found.is_empty() && SHARED.contains(&mount.fs_type.as_str()) {
        found.push(Address::new(&mount.fs_type, format!("{}:{inner}", mount.source)));
    }
    found
}

/// The addresses of the source of a network disk (`<source protocol=.. name=..><host name=../>`).
#[must_use]
pub fn of_network(protocol: &str, name: &str, hosts: &[String]) -> Vec<Address> {
    let mut found = Vec::from_iter(gluster::address::of_network(protocol, name));
    found.extend(nfs::address::of_network(protocol, name, hosts));
    found.extend(iscsi::address::of_network(protocol, name));
    // A server of one export (NBD) is told by its port or socket alone, which nobody reads here.
    if found.is_empty() && !name.is_empty() {
        found.push(Address::new(protocol, format!("{name} of {}", hosts.join(","))));
    }
    found
}

/// The addresses that a device's path, or the path of a pool's volume, tells by itself.
#[must_use]
pub fn of_path(path: &str) -> Vec<Address> {
    iscsi::address::of_path(path)
}

/// The address of a LUN that a host's initiator is logged in to.
#[must_use]
pub fn of_session(target: &str, lun: &str) -> Address {
    iscsi::address::of_lun(target, lun)
}

/// Two paths, one below the other, with single slashes and none at the end.
pub(super) fn join(above: &str, below: &str) -> String {
    let parts = above.split('/').chain(below.split('/')).filter(|part| !part.is_empty());
    parts.fold(String::new(), |path, part| path + "/" + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(fs_type: &str, source: &str, root: &str, options: &str) -> Mount {
        Mount {
            point: "/m".to_owned(),
            root: root.to_owned(),
            fs_type: fs_type.to_owned(),
            source: source.to_owned(),
            options: options.split(',').map(str::to_owned).collect(),
        }
    }

    fn shared(a: &[Address], b: &[Address]) -> bool {
        a.iter().any(|address| b.contains(address))
    }

    #[test]
    fn one_file_has_one_address_by_whatever_way_it_is_reached() {
        let fuse = of_mount(&mount("fuse.glusterfs", "10.0.0.1:/gfs", "/", "rw"), "a/web1.img");
        let other_server = of_mount(&mount("fuse.glusterfs", "store2:gfs/a", "/", "rw"), "web1.img");
        let bound = of_mount(&mount("fuse.glusterfs", "store2:/gfs", "/a", "rw"), "web1.img");
        let url = of_network("gluster", "gfs//a/web1.img", &["10.0.0.3".to_owned()]);
        for other in [&other_server, &bound, &url] {
            assert!(shared(&fuse, other), "{fuse:?} {other:?}");
        }
        let name = mount("nfs4", "store1:/srv/vm", "/", "rw,addr=10.0.0.11");
        let number = mount("nfs", "10.0.0.11:/srv", "/", "rw,addr=10.0.0.11");
        let url = of_network("nfs", "/srv/vm/web1.img", &["store1".to_owned()]);
        assert!(shared(&of_mount(&name, "web1.img"), &of_mount(&number, "vm/web1.img")));
        assert!(shared(&of_mount(&name, "web1.img"), &url));
        assert!(!shared(&of_mount(&number, "vm/web2.img"), &url));
        let v6 = mount("nfs4", "[fd00::1]:/srv", "/", "rw,addr=fd00::1");
        assert!(shared(&of_mount(&v6, "w"), &of_network("nfs", "/srv/w", &["fd00::1".to_owned()])));
        let by_path = of_path("/dev/disk/by-path/ip-10.0.0.11:3260-iscsi-iqn.2026-01.org.example:san-lun-1");
        assert!(shared(&by_path, &of_network("iscsi", "iqn.2026-01.org.example:san/1", &[])));
        assert!(shared(&by_path, &[of_session("iqn.2026-01.org.example:san", "1")]));
        assert!(of_path("/dev/disk/by-path/ip-10.0.0.11:3260-iscsi-iqn.x:a-lun-1-part2").is_empty());
        assert!(shared(&of_network("iscsi", "iqn.x:a", &[]), &of_network("iscsi", "iqn.x:a/0", &[])));
    }

    #[test]
    fn what_only_one_host_has_has_no_address() {
        assert_eq!(of_mount(&mount("ext4", "/dev/vda1", "/", "rw"), "a.img"), []);
        assert_eq!(of_mount(&mount("overlay", "overlay", "/", "rw"), "a.img"), []);
        assert_eq!(of_path("/dev/vg0/root"), []);
        assert_eq!(of_network("nbd", "", &["store1".to_owned()]), []);
    }
}
