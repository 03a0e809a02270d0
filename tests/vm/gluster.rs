//! GlusterFS with a brick on each machine: moves, every host booted in turn, drift, removal.

use crate::harness::{Machines, Traces, cluster};

const IMAGE: &str = "/var/lib/libvirt/images/gfs/web1.img";

#[test]
#[ignore = "needs virtual machines: make test-vm"]
fn a_guest_moves_over_a_replica_whose_hosts_boot_in_turn() {
    let machines = Machines::fresh(&cluster("cluster-gluster.yaml"));
    let before = Traces::of(&machines);
    machines.apply();
    machines.stor(&["start", "web1"]).exits(0);
    machines.beats_on("kvm1", IMAGE, 3);
    machines.stor(&["migrate", "web1", "--to", "kvm2"]).exits(0).says(&["0 bytes"]);
    machines.beats_on("kvm2", IMAGE, 3);

    // A host that boots takes a brick away: the guest goes on with the two others, and what it wrote is healed.
    for host in ["store1", "kvm1"] {
        machines.reboot(host);
        machines.beats_on("kvm2", IMAGE, 3);
        healed(&machines);
        machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    }
    machines.stor(&["migrate", "web1", "--to", "kvm1"]).exits(0);
    machines.reboot("kvm2");
    healed(&machines);
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    machines.stor(&["verify"]).exits(0);

    machines.on("kvm2", "virsh -q pool-destroy gfs; umount /var/lib/libvirt/images/gfs");
    machines.stor(&["verify"]).exits(7).says(&["kvm2", "not-mounted"]);
    machines.apply_and_prune();

    let beats = machines.heartbeat("kvm1", IMAGE);
    assert!(beats.is_intact() && beats.boots.len() == 1, "{beats}: {:?}", beats.faults);
    machines.on("kvm1", "virsh -q destroy web1");
    machines.stor(&["migrate", "web1", "--cold", "--start", "--to", "kvm2"]).exits(0);
    machines.beats_on("kvm2", IMAGE, 3);
    machines.on("kvm2", "virsh -q destroy web1");
    machines.stor(&["destroy", "--yes"]).exits(0);
    before.are_those_of(&machines);
}

fn healed(machines: &Machines) {
    machines.until("the copies are healed", || {
        let shown =
            machines.on("store1", "gluster volume heal gfs info summary | grep -E 'Status|Total Number'");
        shown.matches("Connected").count() == 3 && shown.matches("entries: 0").count() == 3
    });
}
