//! A guest that is moved shut off, with real libvirt and QEMU: there and back, its disk untouched, never two that could start.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use crate::harness::{BEATS, DEMO, Lab, beats};

const IMAGE: &str = "/var/lib/libvirt/images/gfs/web1.img";

#[test]
fn a_guest_goes_there_and_back_shut_off_and_its_disk_stays_as_it_is() {
    let lab = Lab::up("e2e-cold", DEMO);
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.write("beats.yaml", BEATS);
    there_and_back(&lab);
    a_running_guest_is_refused_or_stopped_when_that_is_asked(&lab);
    what_a_host_keeps_of_a_guest_forbids_it(&lab);
    a_killed_stor_is_finished_by_the_next(&lab);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
}

fn checksum(lab: &Lab, host: &str) -> String {
    lab.on(host, &format!("sha256sum {IMAGE}"))
}

/// The hosts that have a definition of the guest, and those of them that start it with the host.
fn defined(lab: &Lab) -> (Vec<&'static str>, Vec<&'static str>) {
    let listed = |flags: &str| {
        let has = |host: &&str| lab.on(host, &format!("virsh list {flags} --name")).contains("web1");
        ["kvm1", "kvm2"].into_iter().filter(has).collect()
    };
    (listed("--all"), listed("--all --autostart"))
}

/// Where QEMU runs the guest, asked of the kernels.
fn runs(lab: &Lab) -> Vec<&'static str> {
    let runs =
        |host: &&str| lab.on(host, "pgrep -f '^/usr/bin/qemu-system.*guest=web1' || true").trim() != "";
    ["kvm1", "kvm2"].into_iter().filter(runs).collect()
}

fn xml(lab: &Lab, host: &str) -> String {
    lab.on(host, "virsh dumpxml --inactive --security-info web1")
}

fn there_and_back(lab: &Lab) {
    lab.on("kvm1", "virsh autostart web1");
    let (before, definition) = (checksum(lab, "kvm1"), xml(lab, "kvm1"));
    lab.lab(&["migrate", "web1", "--cold", "--to", "kvm2", "--dry-run"])
        .exits(0)
        .says(&["nothing speaks against"]);
    assert_eq!(defined(lab), (vec!["kvm1"], vec!["kvm1"]));
    let moved = lab.lab(&["--format", "json", "migrate", "web1", "--cold", "--to", "kvm2"]).exits(0);
    assert_eq!(moved.json()["outcomes"][0]["verdict"], "moved");
    assert_eq!(defined(lab), (vec!["kvm2"], vec!["kvm2"]));
    assert_eq!((runs(lab), checksum(lab, "kvm2"), xml(lab, "kvm2")), (vec![], before.clone(), definition));
    lab.lab(&["migrate", "web1", "--cold", "--to", "kvm2"]).exits(0).says(&["already"]);
    lab.lab(&["migrate", "web1", "--cold", "--to", "kvm1", "--start"]).exits(0);
    assert_eq!((defined(lab), runs(lab)), ((vec!["kvm1"], vec!["kvm1"]), vec!["kvm1"]));
    beats(lab);
    lab.on("kvm1", "virsh destroy web1; virsh autostart --disable web1");
    assert_ne!(checksum(lab, "kvm1"), before, "the heartbeat is on the disk");
}

fn a_running_guest_is_refused_or_stopped_when_that_is_asked(lab: &Lab) {
    lab.lab(&["start", "web1"]).exits(0);
    lab.lab(&["migrate", "web1", "--cold", "--to", "kvm2"]).exits(8).says(&["guest-running", "--shutdown"]);
    lab.on("kvm1", "virsh suspend web1");
    lab.lab(&["migrate", "web1", "--cold", "--to", "kvm2", "--shutdown", "--force"])
        .exits(8)
        .says(&["guest-paused"]);
    lab.on("kvm1", "virsh resume web1");
    assert_eq!(runs(lab), ["kvm1"]);
    beats(lab);
    let asked =
        ["--format", "json", "migrate", "web1", "--cold", "--to", "kvm2", "--shutdown", "--within", "60s"];
    let moved = lab.lab(&asked).exits(0).json();
    assert_eq!(moved["outcomes"][0]["cold"]["stopped"], "by-itself");
    assert_eq!((defined(lab).0, runs(lab)), (vec!["kvm2"], vec!["kvm2"]));
    beats(lab);
    // A system that only just boots does not hear the power button.
    lab.on("kvm2", "virsh destroy web1");
    lab.lab(&["start", "web1"]).exits(0);
    let soon = ["migrate", "web1", "--cold", "--to", "kvm1", "--shutdown", "--within", "1s"];
    lab.lab(&soon).exits(9).says(&["still on kvm2", "--force"]);
    assert_eq!((defined(lab).0, runs(lab)), (vec!["kvm2"], vec!["kvm2"]));
    lab.on("kvm2", "virsh destroy web1");
    lab.lab(&["start", "web1"]).exits(0);
    let all = [&["--format", "json"], &soon[..], &["--force"]].concat();
    assert_eq!(lab.lab(&all).exits(0).json()["outcomes"][0]["cold"]["stopped"], "power-cut");
    assert_eq!((defined(lab).0, runs(lab)), (vec!["kvm1"], vec!["kvm1"]));
    beats(lab);
    lab.on("kvm1", "virsh destroy web1");
}

fn what_a_host_keeps_of_a_guest_forbids_it(lab: &Lab) {
    lab.on("kvm1", "virsh start web1 && sleep 2 && virsh managedsave web1");
    lab.lab(&["migrate", "web1", "--cold", "--to", "kvm2"])
        .exits(8)
        .says(&["state-kept", "managedsave-remove"]);
    assert_eq!(defined(lab).0, ["kvm1"]);
    lab.on("kvm1", "virsh managedsave-remove web1");
}

/// Kills stor a little later each time, over and over, until a move gets through; then nothing is left of any of them.
fn a_killed_stor_is_finished_by_the_next(lab: &Lab) {
    lab.on("kvm1", "virsh autostart web1");
    let mut to = "kvm2";
    for round in 0..12 {
        let before = checksum(lab, "kvm1");
        let mut child = lab
            .command(&["--lab", "migrate", "web1", "--cold", "--to", to])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        sleep(Duration::from_millis(300 + 150 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let (all, started_with_host) = defined(lab);
        assert!(
            !all.is_empty() && started_with_host.len() <= 1,
            "round {round}: {all:?} {started_with_host:?}"
        );
        assert!(
            all.len() == 1 || started_with_host.is_empty(),
            "round {round}: {all:?} {started_with_host:?}"
        );
        assert!(runs(lab).is_empty());
        lab.lab(&["migrate", "web1", "--cold", "--to", to]).exits(0);
        assert_eq!(defined(lab), (vec![to], vec![to]), "round {round}");
        assert_eq!(checksum(lab, to), before);
        to = if to == "kvm1" { "kvm2" } else { "kvm1" };
    }
    lab.on(if to == "kvm1" { "kvm2" } else { "kvm1" }, "virsh autostart --disable web1");
    lab.lab(&["start", "web1"]).exits(0);
    beats(lab);
}

#[test]
fn the_playbook_of_an_offline_migration_runs() {
    let (cluster, book) = (
        include_str!("../../playbooks/iscsi-offline-migration/cluster.yaml"),
        include_str!("../../playbooks/iscsi-offline-migration/playbook.yaml"),
    );
    let lab = Lab::up_with("e2e-offline", cluster, &[("secrets/chap", b"canary-4711-canary")]);
    lab.write("playbook.yaml", book);
    lab.lab(&["run", "playbook.yaml"]).exits(0).says(&["none lost, none doubled, one writer", "moved from"]);
}
