//! iSCSI by the kernel's target (LIO) with CHAP, reached by QEMU itself: several LUNs, live and cold moves, every host booted,
//! drift, another secret, growth, removal.

use crate::harness::{Machines, Packages, Traces, cluster};

const WEB1: &str = "/srv/iscsi/web1.img";
const WEB2: &str = "/srv/iscsi/web2.img";
const IQN: &str = "iqn.2026-01.org.example:san";
const ACLS: &str = "/sys/kernel/config/target/iscsi/iqn.2026-01.org.example:san/tpgt_1/acls";

const INSTALLED: Packages = Packages(
    "iscsi",
    &[("store1", "targetcli-fb"), ("kvm1", "qemu-block-extra"), ("kvm2", "qemu-block-extra")],
);

#[test]
#[ignore = "needs virtual machines: make test-vm"]
fn guests_on_luns_of_the_kernels_target_move_and_every_host_boots() {
    let machines = Machines::fresh(&cluster("cluster-iscsi.yaml"));
    let before = Traces::of(&machines);
    machines.apply();
    both_start(&machines);
    machines.stor(&["migrate", "web1", "web2", "--to", "kvm2"]).exits(0).says(&["0 bytes"]);
    both_beat(&machines);
    machines.stor(&["migrate", "web1", "--to", "kvm1"]).exits(0);
    machines.on("kvm2", "virsh -q destroy web2");
    machines.stor(&["migrate", "web2", "--to", "kvm1", "--cold"]).exits(0);
    machines.stor(&["start", "web2"]).exits(0).says(&["kvm1"]);
    both_beat(&machines);
    assert_eq!(machines.on("kvm2", "virsh -q list --all --name").trim(), "");

    machines.reboot("kvm2");
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    machines.reboot("store1");
    // The guests waited, and went on by themselves.
    both_beat(&machines);
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    machines.stor(&["migrate", "web1", "web2", "--to", "kvm2"]).exits(0);
    machines.reboot("kvm1");
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    machines.stor(&["verify"]).exits(0);

    is_intact(&machines);
    machines.stor(&["destroy", "--yes"]).exits(6).says(&["web1"]);
    machines.on("kvm2", "virsh -q destroy web1; virsh -q destroy web2");
    machines.stor(&["destroy", "--yes"]).exits(0);
    assert!(machines.on("store1", "ls /srv/iscsi").contains("web1.img"), "the data is gone");
    before.are_those_of(&machines);
}

#[test]
#[ignore = "needs virtual machines: make test-vm"]
fn a_target_changed_by_hand_is_set_right_and_grows_under_guests() {
    let machines = Machines::with_packages(&INSTALLED, &cluster("cluster-iscsi.yaml"));
    let before = Traces::of(&machines);
    machines.stor(&["apply", "--yes"]).exits(0);
    both_start(&machines);

    // Who may log in: another CHAP user, then nobody.
    machines.on("store1", &format!("printf other > \"$(ls -d {ACLS}/*/auth/userid | head -1)\""));
    mended_after(&machines, &["let in otherwise"]);
    machines.on("store1", &format!("targetcli /iscsi/{IQN}/tpg1/acls delete \"$(ls {ACLS} | head -1)\""));
    mended_after(&machines, &["kept out"]);
    both_beat(&machines);

    // The guests wait for the target, which comes back under them.
    machines.on("store1", &format!("targetcli /iscsi delete {IQN}"));
    machines.stor(&["verify"]).exits(7).says(&["target-missing"]);
    mended_after(&machines, &["have the kernel offer target"]);
    both_beat(&machines);

    machines.secret("another-4711");
    machines.stor(&["verify"]).exits(7).says(&["access-denied"]);
    mended_after(&machines, &["another secret"]);
    // Guests that run kept the secret that they began with; those that move have the new one.
    machines.stor(&["migrate", "web1", "web2", "--to", "kvm2"]).exits(0);
    both_beat(&machines);

    luns_come_and_grow(&machines);
    is_intact(&machines);
    machines.on("kvm2", "virsh -q destroy web1; virsh -q destroy web2");
    machines.stor(&["destroy", "--yes"]).exits(0);
    before.are_those_of(&machines);
}

/// A third LUN comes, and one that a guest uses grows: the guest sees it when its host is told (docs/adr/0108).
fn luns_come_and_grow(machines: &Machines) {
    machines.edit(
        "luns:\n",
        "luns:\n        - { name: data, number: 7, size: 32MiB, backing: /srv/iscsi/data.img }\n",
    );
    machines.edit("images:\n", "images:\n  data: { storage: san, size: 32MiB }\n");
    machines.edit("{ name: web1, size", "{ name: web1, number: 1, size");
    machines.edit("{ name: web2, size: 64MiB", "{ name: web2, number: 2, size: 96MiB");
    machines.edit("web2: { storage: san, size: 64MiB }", "web2: { storage: san, size: 96MiB }");
    machines.apply_and_prune().says(&["grow to 96MiB"]);
    machines.on("kvm2", "virsh -q blockresize web2 vda 96M");
    assert!(machines.on("kvm2", "virsh -q domblkinfo web2 vda").contains("100663296"));
    both_beat(machines);
    machines.stor(&["migrate", "web2", "--to", "kvm1"]).exits(0);
    machines.stor(&["migrate", "web2", "--to", "kvm2"]).exits(0);
    assert!(machines.on("kvm2", "virsh -q domblkinfo web2 vda").contains("100663296"));
    both_beat(machines);
}

/// What was changed by hand is in the plan by these words, and is gone after it was applied.
fn mended_after(machines: &Machines, texts: &[&str]) {
    machines.stor(&["plan", "--detailed-exitcode"]).exits(4).says(texts);
    machines.apply_and_prune();
}

fn both_start(machines: &Machines) {
    for guest in ["web1", "web2"] {
        machines.stor(&["start", guest]).exits(0);
    }
    both_beat(machines);
}

fn both_beat(machines: &Machines) {
    machines.beats_on("store1", WEB1, 3);
    machines.beats_on("store1", WEB2, 3);
}

/// Nothing that the first guest wrote is lost, and it ran all the time.
fn is_intact(machines: &Machines) {
    let beats = machines.heartbeat("store1", WEB1);
    assert!(beats.is_intact() && beats.boots.len() == 1, "{beats}: {:?}", beats.faults);
    let beats = machines.heartbeat("store1", WEB2);
    assert!(beats.is_intact(), "{beats}: {:?}", beats.faults);
}
