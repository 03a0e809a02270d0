//! The URIs by which libvirt's clients and daemons reach each other.
//!
//! Pure. Imports `model`. Source: <https://libvirt.org/uri.html>, section "Remote URIs".

use std::net::Ipv6Addr;
use std::path::Path;

use crate::model::{ClusterName, Driver, HostId};

/// How the machine that runs stor reaches a host's daemon: through `wrapper`, which runs ssh with stor's own
/// configuration, in which the host's name is an alias.
#[must_use]
pub fn control(host: &HostId, driver: Driver, wrapper: &Path) -> String {
    format!("{}+ssh://{host}/system?command={}", driver.scheme(), escaped(&wrapper.to_string_lossy()))
}

/// How one hypervisor's QEMU daemon reaches another's during a peer-to-peer migration.
///
/// It is resolved on the source host, so it names the address, and the wrapper that `stor apply` put there.
#[must_use]
pub fn peer(cluster: &ClusterName, address: &str) -> String {
    format!("qemu+ssh://root@{}/system?command={}", authority(address), peer_wrapper(cluster))
}

/// The ssh wrapper on each hypervisor that [`peer`] names.
#[must_use]
pub fn peer_wrapper(cluster: &ClusterName) -> String {
    format!("/var/lib/stor/{cluster}/ssh")
}

/// Where the migration stream goes; the destination's libvirt chooses the port.
#[must_use]
pub fn stream(address: &str) -> String {
    format!("tcp://{}", authority(address))
}

/// An IPv6 address stands in brackets (RFC 3986 section 3.2.2).
fn authority(address: &str) -> String {
    if address.parse::<Ipv6Addr>().is_ok() { format!("[{address}]") } else { address.to_owned() }
}

/// Percent-encodes all but unreserved characters and the slash (RFC 3986 section 2.3).
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_paths_of_any_kind_make_well_formed_uris() {
        let cluster = ClusterName::new("homelab").unwrap();
        let host = HostId::new("kvm1").unwrap();
        assert_eq!(
            control(&host, Driver::Qemu, Path::new("/run/a b&c=d/ssh")),
            "qemu+ssh://kvm1/system?command=/run/a%20b%26c%3Dd/ssh"
        );
        assert_eq!(control(&host, Driver::Xen, Path::new("/w")), "xen+ssh://kvm1/system?command=/w");
        assert_eq!(
            peer(&cluster, "10.77.0.22"),
            "qemu+ssh://root@10.77.0.22/system?command=/var/lib/stor/homelab/ssh"
        );
        assert_eq!(stream("10.77.0.22"), "tcp://10.77.0.22");
        assert_eq!(stream("fd00::2"), "tcp://[fd00::2]");
    }
}
