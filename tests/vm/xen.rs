//! Two Xen hosts and a paravirtualised guest on kernel NFS: from bare hosts to cold moves there and back, and to bare hosts again.

use std::path::Path;

use crate::harness::{Machines, Traces, cluster};

/// The guest's image, on the server: its disk is written past all caches of the hosts.
const IMAGE: &str = "/data/test01.img";

#[test]
#[ignore = "needs virtual machines with Xen: make test-vm-xen"]
fn a_paravirtualised_guest_moves_shut_off_and_never_running() {
    let machines = Machines::fresh(&cluster("../playbooks/xen-migration-nfs/cluster.yaml"));
    let before = Traces::of(&machines);

    let playbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("playbooks/xen-migration-nfs/playbook.yaml");
    machines.stor(&["run", &playbook.to_string_lossy()]).exits(0);
    let shown = |host: &str, what: &str| machines.on(host, &format!("virsh -q -c xen:///system {what}"));
    assert!(!shown("xen2", "list --all --name").contains("test01"), "it is defined where it is not");
    for host in ["xen1", "xen2"] {
        assert!(shown(host, "pool-list").contains("data"), "{host} has no pool");
        let keys = machines.on(host, "grep -c virt-ssh-helper /root/.ssh/authorized_keys || true");
        assert_eq!(keys.trim(), "0", "{host}: nothing streams between Xen hosts");
    }

    machines.stor(&["status"]).exits(0).says(&["running on xen1"]);
    let refused = machines.stor(&["migrate", "test01", "--to", "xen2"]);
    refused.exits(8).says(&["live-unsupported", "without shadow paging", "virt_caps"]);
    machines.stor(&["migrate", "test01", "--to", "xen2", "--cold"]).exits(8).says(&["guest-running"]);
    machines.beats_on("store1", IMAGE, 5);

    machines.reboot("xen2");
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    machines.stor(&["verify"]).exits(0);
    let beats = machines.heartbeat("store1", IMAGE);
    assert!(beats.is_intact() && beats.boots.len() == 3, "{beats}: {:?}", beats.faults);

    machines.stor(&["destroy", "--yes"]).exits(6).says(&["test01"]);
    shown("xen1", "destroy test01");
    machines.stor(&["destroy", "--yes"]).exits(0);
    assert!(machines.on("store1", "ls /data").contains("test01.img"), "the data is gone");
    before.are_those_of(&machines);
}
