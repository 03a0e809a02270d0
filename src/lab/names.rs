//! What everything of a lab is called on this machine, so that several labs live side by side and `down` finds all of one.
//!
//! Pure. A `.` joins the lab's and the host's name: neither can hold one, so two labs never share a name.

use std::path::PathBuf;

use crate::model::{ClusterName, HostId};

/// Where `ip netns` keeps namespaces.
pub(super) const NAMESPACES: &str = "/run/netns";
/// The interface of the bridge in the lab's switch namespace.
pub(super) const SWITCH: &str = "switch";
/// The longest name of a network interface in bytes (IFNAMSIZ without the zero byte).
const INTERFACE_MAX: usize = 15;
/// The longest name of a machine in bytes (HOST_NAME_MAX, which systemd-nspawn -M holds to).
const MACHINE_MAX: usize = 64;

/// The network namespace that holds the lab's switch and the admin's place on it.
pub(super) fn switch_namespace(lab: &ClusterName) -> String {
    format!("stor-{lab}")
}

/// The network namespace of one host.
pub(super) fn host_namespace(lab: &ClusterName, host: &HostId) -> String {
    format!("stor-{lab}.{host}")
}

/// What the host namespaces of a lab begin with.
pub(super) fn host_namespace_prefix(lab: &ClusterName) -> String {
    format!("stor-{lab}.")
}

/// The file that names a network namespace.
pub(super) fn namespace_file(namespace: &str) -> PathBuf {
    PathBuf::from(NAMESPACES).join(namespace)
}

/// The switch's port for one host.
pub(super) fn port(host: &HostId) -> String {
    let plain = format!("p-{host}");
    if plain.len() <= INTERFACE_MAX {
        return plain;
    }
    format!("h-{:08x}", crc32fast::hash(host.as_str().as_bytes()))
}

/// The name that systemd-nspawn knows a host by.
pub(super) fn machine(lab: &ClusterName, host: &HostId) -> String {
    let plain = format!("{lab}.{host}");
    if plain.len() <= MACHINE_MAX {
        return plain;
    }
    format!("stor-{:08x}", crc32fast::hash(plain.as_bytes()))
}

/// The MAC address of a hypervisor's bridge: fixed, so that no port that joins later changes it.
pub(super) fn bridge_mac(host: &HostId) -> String {
    let [a, b, c, d] = crc32fast::hash(host.as_str().as_bytes()).to_be_bytes();
    format!("02:57:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// The control group of the whole lab, where stor itself makes the groups.
pub(super) fn group(lab: &ClusterName) -> String {
    format!("stor-lab-{lab}")
}

/// The unit that holds one host, where systemd makes the groups.
pub(super) fn scope(lab: &ClusterName, host: &str) -> String {
    format!("stor-lab-{lab}.{host}.scope")
}

/// The host's name in one of the lab's scopes; the counterpart of [`scope`].
pub(super) fn host_of_scope<'a>(lab: &ClusterName, unit: &'a str) -> Option<&'a str> {
    unit.strip_prefix(&format!("stor-lab-{lab}."))?.strip_suffix(".scope")
}

/// The directory of the lab's ssh control sockets: short, because the path of a socket has at most 107 bytes (unix(7)).
pub(super) fn control_directory(lab: &ClusterName) -> PathBuf {
    let name = match lab.as_str() {
        short if short.len() <= 24 => short.to_owned(),
        long => format!("{:08x}", crc32fast::hash(long.as_bytes())),
    };
    PathBuf::from("/run/stor-lab").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab(name: &str) -> ClusterName {
        ClusterName::new(name).unwrap()
    }

    fn host(name: &str) -> HostId {
        HostId::new(name).unwrap()
    }

    #[test]
    fn labs_whose_names_overlap_share_no_name() {
        let (a, ab) = (lab("a"), lab("a-b"));
        assert_ne!(host_namespace(&a, &host("b-c")), host_namespace(&ab, &host("c")));
        assert!(!switch_namespace(&ab).starts_with(&host_namespace_prefix(&a)));
        assert_eq!(host_of_scope(&a, &scope(&ab, "c")), None);
        assert_eq!(host_of_scope(&ab, &scope(&ab, "c")), Some("c"));
    }

    #[test]
    fn every_interface_name_fits_the_kernel() {
        for name in ["a", "store1", "exactly-13-ch", "exactly-14-cha", &"x".repeat(63)] {
            let port = port(&host(name));
            assert!(port.len() <= INTERFACE_MAX, "{port}");
        }
        assert_eq!(port(&host("exactly-13-ch")), "p-exactly-13-ch");
        assert_ne!(port(&host("a-rather-long-host-1")), port(&host("a-rather-long-host-2")));
    }

    #[test]
    fn control_sockets_have_room_for_their_name() {
        let longest = control_directory(&lab(&"x".repeat(63)));
        assert!(longest.as_os_str().len() + "/".len() + 40 + ".0123456789abcdef".len() < 107, "{longest:?}");
    }

    #[test]
    fn machine_names_fit_systemd() {
        let machine = machine(&lab(&"l".repeat(63)), &host(&"h".repeat(63)));
        assert!(machine.len() <= MACHINE_MAX, "{machine}");
    }
}
