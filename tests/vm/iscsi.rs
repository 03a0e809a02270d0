//! iSCSI by the kernel's target (LIO) with CHAP: several LUNs, live and cold moves, every host booted, drift, growth, removal.
//!
//! What does not depend on how hypervisors reach the LUNs takes a cluster file, so that another `access` needs only that.

use crate::harness::{Machines, Traces, cluster};

const WEB1: &str = "/srv/iscsi/web1.img";
const WEB2: &str = "/srv/iscsi/web2.img";
const TARGET: &str = "/sys/kernel/config/target/iscsi/iqn.2026-01.org.example:san";

#[test]
#[ignore = "needs virtual machines: make test-vm"]
fn luns_of_the_kernels_target_reached_by_qemu_itself() {
    luns_serve_moves_reboots_and_drift(&cluster("cluster-iscsi.yaml"));
}

fn luns_serve_moves_reboots_and_drift(file: &str) {
    let machines = Machines::fresh(file);
    let before = Traces::of(&machines);
    machines.stor(&["apply", "--yes"]).exits(0).says(&["every hypervisor reaches the same images"]);
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);

    guests_move_live_and_cold(&machines);
    every_host_comes_back_by_itself(&machines);
    what_is_changed_by_hand_is_shown_and_mended(&machines);

    let beats = machines.heartbeat("store1", WEB1);
    assert!(beats.is_intact() && beats.boots.len() == 1, "{beats}: {:?}", beats.faults);
    machines.stor(&["destroy", "--yes"]).exits(6).says(&["web1"]);
    machines.on("kvm1", "virsh -q destroy web1; virsh -q destroy web2");
    a_lun_grows_when_nobody_uses_it(&machines);
    machines.stor(&["destroy", "--yes"]).exits(0);
    assert!(machines.on("store1", "ls /srv/iscsi").contains("web1.img"), "the data is gone");
    before.are_those_of(&machines);
}

fn guests_move_live_and_cold(machines: &Machines) {
    for guest in ["web1", "web2"] {
        machines.stor(&["start", guest]).exits(0);
    }
    machines.beats_on("store1", WEB1, 5);
    machines.stor(&["migrate", "web1", "web2", "--to", "kvm2"]).exits(0).says(&["0 bytes"]);
    machines.beats_on("store1", WEB1, 5);
    machines.beats_on("store1", WEB2, 5);
    machines.stor(&["migrate", "web1", "--to", "kvm1"]).exits(0);
    machines.stor(&["migrate", "web2", "--to", "kvm1", "--cold", "--shutdown"]).exits(0);
    machines.beats_on("store1", WEB2, 5);
    assert_eq!(machines.on("kvm2", "virsh -q list --all --name").trim(), "");
    assert!(machines.heartbeat("store1", WEB2).is_intact());
}

fn every_host_comes_back_by_itself(machines: &Machines) {
    machines.reboot("kvm2");
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    machines.reboot("store1");
    // The guests waited, and went on by themselves.
    machines.beats_on("store1", WEB1, 5);
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    machines.stor(&["migrate", "web1", "web2", "--to", "kvm2"]).exits(0);
    machines.reboot("kvm1");
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    machines.stor(&["migrate", "web1", "web2", "--to", "kvm1"]).exits(0);
    machines.stor(&["verify"]).exits(0);
}

fn what_is_changed_by_hand_is_shown_and_mended(machines: &Machines) {
    machines
        .on("store1", &format!("printf other > \"$(ls -d {TARGET}/tpgt_1/acls/*/auth/userid | head -1)\""));
    machines.stor(&["plan", "--detailed-exitcode"]).exits(4).says(&["let in otherwise"]);
    machines.stor(&["apply", "--yes", "--prune"]).exits(0);
    machines.stor(&["verify"]).exits(0);

    // The guests wait for the target, which comes back under them.
    machines.on("store1", "targetcli /iscsi delete iqn.2026-01.org.example:san");
    machines.stor(&["verify"]).exits(7).says(&["target-missing"]);
    machines.stor(&["plan", "--detailed-exitcode"]).exits(4).says(&["have the kernel offer target"]);
    machines.stor(&["apply", "--yes", "--prune"]).exits(0);
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    machines.beats_on("store1", WEB1, 5);

    machines.secret("another-4711");
    machines.stor(&["verify"]).exits(7).says(&["access-denied"]);
    machines.stor(&["apply", "--yes", "--prune"]).exits(0);
    machines.stor(&["verify"]).exits(0);
    machines.stor(&["migrate", "web1", "--to", "kvm2"]).exits(0);
    machines.beats_on("store1", WEB1, 5);
    machines.stor(&["migrate", "web1", "--to", "kvm1"]).exits(0);
}

fn a_lun_grows_when_nobody_uses_it(machines: &Machines) {
    machines.edit("name: web2, size: 64MiB", "name: web2, size: 96MiB");
    machines.edit("web2: { storage: san, size: 64MiB }", "web2: { storage: san, size: 96MiB }");
    machines.stor(&["apply", "--yes"]).exits(0).says(&["grow to 96MiB"]);
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    machines.stor(&["start", "web2"]).exits(0);
    machines.beats_on("store1", WEB2, 5);
    machines.on("kvm1", "virsh -q domblkinfo web2 vda | grep 100663296; virsh -q destroy web2");
}
