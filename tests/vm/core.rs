//! The short tests: kernel NFS and LIO at once, each under a guest that moves there and back, and a hypervisor that boots.

use crate::harness::{Machines, Traces, cluster};

/// Where each guest's heart beats: the machine that has the file, and the file.
const WEB1: (&str, &str) = ("store1", "/srv/vmstore/web1.img");
const DB1: (&str, &str) = ("store1", "/srv/iscsi/db1.img");

#[test]
#[ignore = "needs virtual machines: scripts/test-vm"]
fn guests_on_kernel_nfs_and_lio_move_there_and_back_past_a_reboot() {
    let machines = Machines::fresh(&cluster("cluster-core.yaml"));
    let before = Traces::of(&machines);

    machines.apply();
    assert!(machines.on("kvm2", "findmnt -n /var/lib/libvirt/images/vmstore").contains("vers=4.2"));
    assert!(
        machines.on("store1", "ls /sys/kernel/config/target/iscsi").contains("iqn.2026-01.org.example:san")
    );

    machines.stor(&["start", "web1"]).exits(0);
    machines.stor(&["start", "db1"]).exits(0);
    hearts_beat(&machines);
    machines
        .stor(&["migrate", "web1", "db1", "--to", "kvm2"])
        .exits(0)
        .says(&["disk copied           0 bytes"]);
    hearts_beat(&machines);

    machines.reboot("kvm1");
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    machines.stor(&["migrate", "web1", "db1", "--to", "kvm1"]).exits(0);
    hearts_beat(&machines);
    machines.stor(&["verify"]).exits(0);

    for (machine, image) in [WEB1, DB1] {
        let beats = machines.heartbeat(machine, image);
        assert!(beats.is_intact() && beats.boots.len() == 1, "{image}: {beats}: {:?}", beats.faults);
    }
    machines.on("kvm1", "virsh -q destroy web1; virsh -q destroy db1");
    machines.stor(&["destroy", "--yes"]).exits(0);
    before.are_those_of(&machines);
}

fn hearts_beat(machines: &Machines) {
    for (machine, image) in [WEB1, DB1] {
        machines.beats_on(machine, image, 3);
    }
}
