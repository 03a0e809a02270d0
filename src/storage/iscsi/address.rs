//! By what a LUN is known that is reached by its target's name: through QEMU's libiscsi, a session of the kernel, or udev's links. Pure.

use crate::storage::address::Address;

/// The protocol of libiscsi's URLs.
const PROTOCOL: &str = "iscsi";

/// `IQN/LUN`; a name alone means LUN 0 (`virStorageSourceNetwork`).
pub(in crate::storage) fn of_network(protocol: &str, name: &str) -> Option<Address> {
    let (target, lun) = name.rsplit_once('/').unwrap_or((name, "0"));
    (protocol == PROTOCOL).then(|| of_lun(target, lun))
}

/// A LUN of a target; the portal does not matter.
pub(in crate::storage) fn of_lun(target: &str, lun: &str) -> Address {
    Address::new(PROTOCOL, format!("{target}/{lun}"))
}

/// `ip-ADDRESS:PORT-iscsi-IQN-lun-NUMBER`, as udev's links and libvirt's pools write it; a partition is not its LUN.
pub(in crate::storage) fn of_path(path: &str) -> Vec<Address> {
    let found = path.split_once("-iscsi-").and_then(|(_, rest)| rest.rsplit_once("-lun-"));
    let whole = found.filter(|(_, lun)| !lun.is_empty() && lun.bytes().all(|byte| byte.is_ascii_digit()));
    whole.map(|(target, lun)| of_lun(target, lun)).into_iter().collect()
}
