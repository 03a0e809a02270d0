//! `access: direct`: nothing is mounted; QEMU and the proof reach the volume through libgfapi.

use crate::harness::{DEMO, Lab};

#[test]
fn a_guest_on_a_volume_that_nobody_mounts_is_proved_and_moves() {
    let direct = DEMO.replace("      mount: /var/lib/libvirt/images/gfs\n", "      access: direct\n");
    assert!(direct.contains("access: direct"));
    let lab = Lab::up("e2e-direct", &direct);
    lab.lab(&["apply", "--yes"]).exits(0).says(&["gluster-direct-deprecated"]);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    lab.lab(&["verify"]).exits(0);
    lab.lab(&["start", "web1"]).exits(0);
    assert!(!lab.on("kvm1", "cat /proc/self/mounts").contains("fuse.glusterfs"));
    lab.lab(&["migrate", "web1", "--to", "kvm2"]).exits(0);
    assert!(lab.on("kvm2", "virsh domstate web1").contains("running"));
    assert!(lab.on("kvm1", "virsh -q list --all --name").trim().is_empty());
    lab.lab(&["migrate", "web1", "--to", "kvm1"]).exits(0);
    lab.lab(&["verify"]).exits(0);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    lab.on("kvm1", "virsh -q destroy web1");
    lab.lab(&["destroy", "--yes"]).exits(0);
}
