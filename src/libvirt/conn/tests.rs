//! Against the test driver inside libvirt's client library: real calls, no daemon.

use super::*;
use crate::libvirt::{DomainState, pool_xml};
use crate::model::{AbsPath, StorageId};

fn daemon() -> SshHypervisor {
    start_events().unwrap();
    let uri = "test:///default".to_owned();
    let connect = Connect::open(Some(&uri)).unwrap();
    SshHypervisor { host: HostId::new("kvm1").unwrap(), driver: Driver::Qemu, uri, connect }
}

fn guest(name: &str, uuid: u8) -> String {
    format!(
        "<domain type='test'><name>{name}</name><uuid>00000000-0000-4000-8000-0000000000{uuid:02x}</uuid>
         <memory>8192</memory><vcpu>1</vcpu><os><type>hvm</type></os></domain>"
    )
}

#[test]
fn a_guest_is_defined_started_paused_and_stopped_and_its_state_is_told_each_time() {
    let daemon = daemon();
    let state = |name| daemon.domain(name).unwrap().map(|facts| facts.state);
    assert_eq!(state("web1"), None);
    daemon.define_domain(&guest("web1", 1)).unwrap();
    assert_eq!(state("web1"), Some(DomainState::ShutOff));
    daemon.start_domain("web1").unwrap();
    assert_eq!(state("web1"), Some(DomainState::Running));
    daemon.suspend_domain("web1").unwrap();
    assert_eq!(state("web1"), Some(DomainState::Paused(crate::libvirt::PauseReason::User)));
    daemon.resume_domain("web1").unwrap();
    daemon.set_autostart("web1", true).unwrap();
    assert!(daemon.domain("web1").unwrap().is_some_and(|facts| facts.autostart && facts.persistent));
    let refused = daemon.undefine_domain("web1").unwrap_err();
    assert_eq!(refused.to_string(), "host kvm1: cannot undefine guest web1: it is not shut off");
    daemon.destroy_domain("web1").unwrap();
    assert!(daemon.domains().unwrap().iter().any(|facts| facts.name == "web1"));
    assert_eq!(state("web1"), Some(DomainState::ShutOff));
}

#[test]
fn a_guest_whose_name_or_uuid_is_taken_is_not_defined_again() {
    let daemon = daemon();
    daemon.define_domain(&guest("db1", 2)).unwrap();
    let by_name = daemon.define_domain(&guest("db1", 3)).unwrap_err();
    assert_eq!(by_name.to_string(), "host kvm1: cannot define guest db1: the host has a guest of this name");
    let by_uuid = daemon.define_domain(&guest("db2", 2)).unwrap_err();
    assert!(
        by_uuid.to_string().contains("a guest with UUID 00000000-0000-4000-8000-000000000002"),
        "{by_uuid}"
    );
}

#[test]
fn a_pool_is_made_active_with_autostart_rescanned_and_removed() {
    // The test driver cannot show a persistent definition apart, so updates are tried in the lab.
    let daemon = daemon();
    let xml = pool_xml::dir_pool(&StorageId::new("gfs").unwrap(), &AbsPath::new("/mnt/a").unwrap());
    daemon.ensure_pool("gfs", &xml).unwrap();
    let pool = daemon.connect.lookup_storage_pool_by_name("gfs").unwrap();
    assert!(pool.is_active().unwrap() && pool.autostart().unwrap());
    daemon.refresh_pool("gfs").unwrap();
    daemon.remove_pool("gfs").unwrap();
    daemon.remove_pool("gfs").unwrap();
    assert!(daemon.refresh_pool("gfs").is_err());
}

#[test]
fn asking_a_guest_that_is_not_there_for_its_job_is_no_error() {
    let daemon = daemon();
    assert_eq!(daemon.job("nobody").unwrap(), None);
    let error = daemon.start_domain("nobody").unwrap_err();
    assert!(matches!(error, LibvirtError::Call { code: 42, .. }), "{error:?}");
}

#[test]
fn a_host_that_no_wrapper_leads_to_is_refused_and_a_failing_wrapper_gives_its_own_words() {
    let host = |name| HostId::new(name).unwrap();
    let wrappers = BTreeMap::from([(host("kvm1"), (Driver::Qemu, PathBuf::from("/bin/false")))]);
    let connector = SshConnector::from_wrappers(wrappers);
    assert!(connector.open(&host("kvm9")).is_err());
    let error = connector.open(&host("kvm1")).map(drop).unwrap_err();
    assert!(error.to_string().starts_with("host kvm1: cannot connect to libvirt: "), "{error}");
}
