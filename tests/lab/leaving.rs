//! What leaves the file or moves in it while a guest uses it: nothing is cut, and no second writer starts.

use crate::harness::{DEMO, Lab};

const BEATS: &str = "version: 1
title: beats
cluster: full.yaml
steps:
  - expect: { heartbeat: { guest: web1, beats: 20, within: 60 } }
";

#[track_caller]
fn beats(lab: &Lab) {
    lab.lab(&["run", "--restart", "beats.yaml"]).exits(0).says(&["none lost, none doubled, one writer"]);
}

fn allowed(lab: &Lab) -> String {
    lab.on("store2", "gluster --mode=script volume get gfs auth.allow")
}

/// The hosts on which libvirt knows the guest.
fn defined(lab: &Lab) -> Vec<&'static str> {
    let has = |host: &&str| lab.on(host, "virsh list --all --name").contains("web1");
    ["kvm1", "kvm2"].into_iter().filter(has).collect()
}

#[test]
fn a_hypervisor_leaves_step_by_step_and_nothing_is_cut_or_doubled_meanwhile() {
    let lab = Lab::up("e2e-leaving", DEMO);
    lab.write("full.yaml", DEMO);
    lab.write("beats.yaml", BEATS);
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["start", "web1"]).exits(0);
    beats(&lab);
    bricks_in_another_order_remove_nothing(&lab);
    lost_records_are_an_error(&lab);
    a_hypervisor_that_vanished_keeps_its_disks(&lab);
    one_that_is_plain_goes_after_its_guest(&lab);
    one_that_is_dead_goes_by_the_users_word(&lab);
}

fn bricks_in_another_order_remove_nothing(lab: &Lab) {
    let (one, other) = ("[store1:/data/bricks/gfs, store2:", "[store2:/data/bricks/gfs, store1:");
    lab.edit(one, other);
    let ended = lab.lab(&["apply", "--yes", "--prune"]).exits(6).says(&["volume gfs has the bricks"]);
    assert!(!ended.stdout.contains("stop and delete"), "{}", ended.stdout);
    assert!(lab.on("store1", "gluster --mode=script volume info gfs").contains("Status: Started"));
    lab.edit(other, one);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    beats(lab);
}

fn lost_records_are_an_error(lab: &Lab) {
    let hosts = ["store1", "store2", "store3", "kvm1", "kvm2"];
    let record = "/var/lib/stor/e2e-leaving.json";
    hosts.iter().for_each(|host| _ = lab.on(host, &format!("mv {record} /root/kept.json")));
    let named =
        ["carry the marks of cluster e2e-leaving", "/root/.ssh/authorized_keys", ".mount", "volume gfs"];
    // A volume that is in the file may be taken over by its mark.
    lab.lab(&["apply", "--yes"]).exits(6).says(&named[..3]);
    lab.lab(&["destroy", "--yes"]).exits(6).says(&named);
    lab.lab(&["destroy", "--yes", "--delete-data", "gfs"]).exits(6).says(&named);
    hosts.iter().for_each(|host| _ = lab.on(host, &format!("mv /root/kept.json {record}")));
    // On one host only.
    lab.on("kvm2", &format!("mv {record} /root/kept.json"));
    lab.lab(&["destroy", "--yes"]).exits(6).says(&["kvm2", "carry the marks"]);
    lab.on("kvm2", &format!("mv /root/kept.json {record}"));
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    beats(lab);
}

const HYPERVISOR: &str = "  kvm1: { address: 10.77.0.21, hypervisor: true }\n";
const PLAIN: &str = "  kvm1: { address: 10.77.0.21 }\n";

fn a_hypervisor_that_vanished_keeps_its_disks(lab: &Lab) {
    lab.edit("    on: kvm1", "    on: kvm2");
    lab.edit(HYPERVISOR, "");
    let ended = lab
        .lab(&["apply", "--yes", "--prune"])
        .exits(6)
        .says(&["host kvm1 (10.77.0.21) left the file and was not asked", "without `hypervisor: true`"]);
    assert!(
        !ended.stdout.contains("auth.allow") && !ended.stdout.contains("define guest"),
        "{}",
        ended.stdout
    );
    lab.lab(&["start", "web1"]).exits(5).says(&["kvm1 (10.77.0.21), which left the file"]);
    lab.lab(&["destroy", "--yes"]).exits(6).says(&["left the file"]);
    assert!(allowed(lab).contains("10.77.0.21"));
    assert_eq!(defined(lab), ["kvm1"]);
    beats(lab);
}

fn one_that_is_plain_goes_after_its_guest(lab: &Lab) {
    lab.edit("  kvm2: {", &format!("{PLAIN}  kvm2: {{"));
    lab.lab(&["apply", "--yes", "--prune"]).exits(6).says(&["web1 on kvm1 (running)", "hypervisor: true"]);
    lab.lab(&["start", "web1"]).exits(5).says(&["kvm1, which is no hypervisor any more"]);
    assert!(allowed(lab).contains("10.77.0.21"));
    beats(lab);
    lab.lab(&["--file", "full.yaml", "migrate", "web1", "--to", "kvm2"]).exits(0);
    lab.lab(&["apply", "--yes", "--prune"]).exits(0).says(&["set auth.allow of volume gfs"]);
    assert!(!allowed(lab).contains("10.77.0.21"), "{}", allowed(lab));
    let left = lab.on("kvm1", "grep fuse.glusterfs /proc/self/mounts; ls /var/lib/stor 2>/dev/null; true");
    assert!(!left.contains("fuse.glusterfs") && !left.contains("e2e-leaving/"), "{left}");
    lab.edit(PLAIN, "");
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    lab.lab(&["start", "web1"]).exits(0).says(&["kvm2"]);
    lab.write("full.yaml", &std::fs::read_to_string(lab.path("cluster.yaml")).expect("read"));
    beats(lab);
}

fn one_that_is_dead_goes_by_the_users_word(lab: &Lab) {
    lab.edit("  kvm2: {", &format!("{HYPERVISOR}  kvm2: {{"));
    lab.lab(&["apply", "--yes"]).exits(0);
    assert!(allowed(lab).contains("10.77.0.21"));
    lab.lab(&["plan", "--dead", "kvm1"]).exits(2).says(&["kvm1 is in the file"]);
    lab.edit(HYPERVISOR, "");
    lab.lab(&["apply", "--yes", "--prune", "--dead", "kvm1"]).exits(2).says(&["--confirm-dead kvm1"]);
    lab.lab(&["apply", "--yes", "--prune"]).exits(6);
    let dead = ["apply", "--yes", "--prune", "--dead", "kvm1", "--confirm-dead", "kvm1"];
    lab.lab(&dead).exits(0).says(&["set auth.allow"]);
    assert!(!allowed(lab).contains("10.77.0.21"), "{}", allowed(lab));
    assert!(lab.on("store3", "cat /var/lib/stor/e2e-leaving.json").contains("dead-host"));
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    beats(lab);
}

const NFS: &str = include_str!("../../playbooks/nfs-live-migration/cluster.yaml");
const GUEST: &str = include_str!("../../playbooks/nfs-live-migration/guests/onlynat.xml");
const DISC: &[u8] = include_bytes!("../../playbooks/nfs-live-migration/tools.iso");

#[test]
fn an_export_whose_path_changes_under_a_guest_stays_where_it_is() {
    let beat = BEATS.replace("web1", "onlynat");
    let files: [(&str, &[u8]); 3] =
        [("guests/onlynat.xml", GUEST.as_bytes()), ("tools.iso", DISC), ("beats.yaml", beat.as_bytes())];
    let lab = Lab::up_with("e2e-moving", NFS, &files);
    lab.write("full.yaml", NFS);
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["start", "onlynat"]).exits(0);
    beats(&lab);
    let export = "/etc/ganesha/exports.d/stor-e2e-moving-vmstore.conf";
    let before = lab.on("store1", &format!("cat {export}"));
    lab.on("store1", "cp -a /data/vmstore /data/other");
    lab.edit("path: /data/vmstore", "path: /data/other");
    lab.write("guests/onlynat.xml", &GUEST.replace("/data/vmstore", "/data/other"));
    lab.lab(&["apply", "--yes", "--prune"]).exits(6).says(&["onlynat on kvm1 (running)"]);
    assert_eq!(lab.on("store1", &format!("cat {export}")), before);
    lab.edit("path: /data/other", "path: /data/vmstore");
    lab.write("guests/onlynat.xml", GUEST);
    beats(&lab);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    // Access by a list of clients: the same rule.
    lab.edit("  kvm1: { address: 10.77.0.21, hypervisor: true }\n", "");
    lab.edit("on: kvm1", "on: kvm2");
    lab.lab(&["apply", "--yes", "--prune"])
        .exits(6)
        .says(&["10.77.0.21 would lose access to storage vmstore"]);
    assert_eq!(lab.on("store1", &format!("cat {export}")), before);
    beats(&lab);
}
