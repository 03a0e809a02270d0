//! From bare hosts to a live migration and back, then away with it all; and what a user breaks by hand on the way.

use crate::harness::{DEMO, Lab};

/// Everything outside the directories that packages, data and logs own: what stor could have left behind.
const LEFTOVERS: &str = "find /etc/systemd/system /etc/libvirt/storage /etc/libvirt/qemu /var/lib/stor /root/.ssh \
     -newer /etc/machine-id 2>/dev/null | sort; cat /root/.ssh/authorized_keys | wc -l; \
     ls /var/lib/libvirt/images 2>/dev/null; grep fuse.glusterfs /proc/self/mounts; \
     systemctl is-enabled glusterd 2>/dev/null; gluster --mode=script volume list 2>/dev/null; \
     gluster pool list 2>/dev/null | grep Connected | grep -v localhost; true";

#[test]
fn bare_hosts_become_a_cluster_whose_guest_moves_and_everything_leaves_again() {
    let lab = Lab::up("e2e-story", DEMO);

    // plan, apply, and nothing more to do
    lab.lab(&["plan", "--detailed-exitcode"]).exits(4).says(&["volume gfs", "kvm2"]);
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    let again = lab.lab(&["apply", "--yes", "--format", "json"]).exits(0).json();
    assert_eq!(steps_in(&again), 0, "a second apply plans nothing: {again}");

    // the evidence
    lab.lab(&["verify"]).exits(0);

    // the guest moves there and back without losing a beat
    lab.lab(&["start", "web1"]).exits(0);
    wait_for_beats(&lab, "kvm1", 20);
    lab.lab(&["migrate", "web1", "--to", "kvm1"]).exits(0);
    lab.lab(&["migrate", "web1", "--to", "kvm2"]).exits(0);
    assert_eq!(running_on(&lab), ["kvm2"]);
    lab.lab(&["migrate", "web1", "--to", "kvm1"]).exits(0);
    assert_eq!(running_on(&lab), ["kvm1"]);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    lab.lab(&["verify"]).exits(0);

    a_mount_undone_by_hand_is_caught(&lab);
    a_unit_edited_by_hand_is_drift(&lab);
    a_changed_option_is_one_step(&lab);
    a_new_hypervisor_gets_just_its_own_steps(&lab);

    // destroy refuses while the guest runs, then leaves the data and nothing else
    lab.lab(&["destroy", "--yes"]).exits(6).says(&["web1"]);
    assert_eq!(running_on(&lab), ["kvm1"]);
    lab.on("kvm1", "virsh -q destroy web1");
    lab.lab(&["destroy", "--yes"]).exits(0);
    nothing_of_stor_is_left_but_data(&lab);
}

fn a_mount_undone_by_hand_is_caught(lab: &Lab) {
    lab.on("kvm2", "umount /var/lib/libvirt/images/gfs");
    lab.lab(&["verify"]).exits(7).says(&["kvm2", "not-mounted"]);
    assert_eq!(
        lab.on("kvm2", "ls -A /var/lib/libvirt/images/gfs").trim(),
        "",
        "verify wrote into the empty directory"
    );
    lab.lab(&["migrate", "web1", "--to", "kvm2"]).exits(8).says(&["not-mounted", "kvm2"]);
    assert_eq!(running_on(lab), ["kvm1"]);
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["verify"]).exits(0);
    let volumes = lab.on("kvm2", "virsh -q vol-list gfs; stat -c %a:%U /var/lib/libvirt/images/gfs/web1.img");
    assert!(volumes.contains("web1.img") && volumes.contains("600:root"), "{volumes}");
}

fn a_unit_edited_by_hand_is_drift(lab: &Lab) {
    let unit = "/etc/systemd/system/var-lib-libvirt-images-gfs.mount";
    lab.on("kvm2", &format!("echo \"# mine\" >> {unit}"));
    lab.lab(&["plan", "--detailed-exitcode"]).exits(4).says(&["kvm2", "edited"]);
    lab.lab(&["apply", "--yes", "--prune"]).exits(0);
    assert!(!lab.on("kvm2", &format!("cat {unit}")).contains("# mine"));
}

fn a_changed_option_is_one_step(lab: &Lab) {
    lab.edit("force: true", "force: true\n      options: { performance.cache-size: 64MB }");
    let plan = lab.lab(&["plan", "--format", "json"]).exits(0).json();
    assert_eq!(steps_in(&plan), 1, "{plan:#}");
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    assert!(lab.on("store1", "gluster volume info gfs").contains("performance.cache-size: 64MB"));
    lab.edit("\n      options: { performance.cache-size: 64MB }", "");
    let plan = lab.lab(&["plan", "--format", "json"]).exits(0).json();
    assert_eq!(steps_in(&plan), 1, "{plan:#}");
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    assert!(!lab.on("store1", "gluster volume info gfs").contains("performance.cache-size"));
}

fn a_new_hypervisor_gets_just_its_own_steps(lab: &Lab) {
    lab.edit("address: 10.77.0.13 }", "address: 10.77.0.13, hypervisor: true }");
    let plan = lab.lab(&["plan", "--format", "json"]).exits(0).json();
    let text = plan.to_string();
    assert!(!text.contains("volume create") && !text.contains("peer probe"), "{plan:#}");
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["verify"]).exits(0);
    assert!(lab.on("store3", "grep gfs /proc/self/mounts").contains("fuse.glusterfs"));
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
}

fn nothing_of_stor_is_left_but_data(lab: &Lab) {
    for host in ["store1", "store2", "store3", "kvm1", "kvm2"] {
        let left = lab.on(host, LEFTOVERS);
        assert!(
            !["e2e-story", "/var/lib/stor", "gfs", "fuse.glusterfs", "10.77."]
                .iter()
                .any(|word| left.contains(word)),
            "{host}:\n{left}"
        );
    }
    for host in ["store1", "store2"] {
        assert!(lab.on(host, "ls /data/bricks/gfs").contains("web1.img"), "{host} lost its data");
    }
}

/// Number of steps in the JSON of plan or apply.
fn steps_in(json: &serde_json::Value) -> usize {
    json["plan"]["waves"]
        .as_array()
        .expect("waves")
        .iter()
        .map(|wave| wave["steps"].as_array().expect("steps").len())
        .sum()
}

/// The hypervisors on which QEMU runs the guest: asked of the kernel, not of libvirt.
fn running_on(lab: &Lab) -> Vec<&'static str> {
    let runs = |host: &&str| {
        !lab.on(host, "pgrep -f \"^/usr/bin/qemu-system.*guest=web1\" || true").trim().is_empty()
    };
    ["kvm1", "kvm2"].into_iter().filter(runs).collect()
}

fn wait_for_beats(lab: &Lab, host: &str, beats: usize) {
    let read = format!(
        "dd if=/var/lib/libvirt/images/gfs/web1.img bs=512 skip=1 count={beats} iflag=direct 2>/dev/null | grep -ac ^HB || true"
    );
    for _ in 0..120 {
        if lab.on(host, &read).trim().parse::<usize>().unwrap_or(0) >= beats {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    panic!("the guest did not write {beats} beats within a minute");
}
