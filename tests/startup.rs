//! libvirt is loaded by the first connection and not before: it costs twice what `stor --version` may take.

use std::collections::BTreeMap;
use std::path::PathBuf;

use stor::libvirt::Connector;
use stor::libvirt::conn::SshConnector;
use stor::model::{Driver, HostId};

/// Whether a library of this name is mapped into this process.
fn mapped(name: &str) -> bool {
    std::fs::read_to_string("/proc/self/maps").unwrap().contains(name)
}

#[test]
fn libvirt_is_not_in_the_process_until_a_connection_is_opened() {
    assert!(!mapped("libvirt.so"), "a function is missing in src/libvirt/lazy/symbols.rs");
    let host = HostId::new("kvm1").unwrap();
    let connector = SshConnector::from_wrappers(BTreeMap::from([(
        host.clone(),
        (Driver::Qemu, PathBuf::from("/bin/false")),
    )]));
    assert!(connector.open(&host).is_err());
    assert!(mapped("libvirt.so"));
}
