//! What lies behind LUNs on a real kernel: logical volumes and devices under guests, grown in use, there again after a boot.

use crate::harness::{Machines, Traces, cluster};

const WEB1: &str = "/dev/vg0/web1";
const WEB2: &str = "/dev/vg0/given";

#[test]
#[ignore = "needs virtual machines: make test-vm"]
fn volumes_and_devices_behind_luns_grow_and_come_back_under_guests() {
    let file = cluster("cluster-iscsi.yaml")
        .replace("access: direct", "access: session")
        .replace("backing: /srv/iscsi/web1.img", "volume: vg0/web1")
        .replace("backing: /srv/iscsi/web2.img", "device: /dev/vg0/given");
    let machines = Machines::fresh(&file);
    machines.install("store1", "lvm2");
    machines.on("store1", "vgcreate --quiet vg0 /dev/vdb && lvcreate --quiet --yes --name given --size 64M vg0 && mkfs.ext4 -q /dev/vg0/given");
    let before = Traces::of(&machines);

    machines.stor(&["plan"]).says(&["/dev/vg0/given", "ext4", "adopt:"]);
    machines.edit("device: /dev/vg0/given", "device: /dev/vg0/given, adopt: /dev/vg0/given");
    machines.apply_and_prune();
    for guest in ["web1", "web2"] {
        machines.stor(&["start", guest]).exits(0);
    }
    hearts_beat(&machines);
    machines.stor(&["migrate", "web1", "web2", "--to", "kvm2"]).exits(0).says(&["0 bytes"]);
    hearts_beat(&machines);

    machines.edit(
        "{ name: web1, size: 64MiB",
        "{ name: data, number: 7, size: 32MiB, volume: vg0/data }\n        - { name: web1, number: 1, size: 128MiB",
    );
    machines.edit("{ name: web2, size", "{ name: web2, number: 2, size");
    machines.edit(
        "web1: { storage: san, size: 64MiB }",
        "web1: { storage: san, size: 128MiB }\n  data: { storage: san, size: 32MiB }",
    );
    machines.apply_and_prune();
    for machine in ["kvm1", "kvm2"] {
        let sizes =
            machines.on(machine, "lsblk --bytes --noheadings --nodeps --output SIZE /dev/sd? | sort -n");
        assert_eq!(sizes.split_whitespace().collect::<Vec<_>>(), ["33554432", "67108864", "134217728"]);
    }

    machines.reboot("store1");
    hearts_beat(&machines);
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    machines.stor(&["verify"]).exits(0);
    machines.stor(&["migrate", "web1", "web2", "--to", "kvm1"]).exits(0);
    hearts_beat(&machines);
    for image in [WEB1, WEB2] {
        let beats = machines.heartbeat("store1", image);
        assert!(beats.is_intact() && beats.boots.len() == 1, "{image}: {beats}: {:?}", beats.faults);
    }

    machines.on("kvm1", "virsh -q destroy web1; virsh -q destroy web2");
    machines.stor(&["destroy", "--yes", "--delete-data", "san"]).exits(0);
    assert_eq!(machines.on("store1", "lvs --noheadings --options lv_name").trim(), "given");
    before.are_those_of(&machines);
}

fn hearts_beat(machines: &Machines) {
    machines.beats_on("store1", WEB1, 3);
    machines.beats_on("store1", WEB2, 3);
}
