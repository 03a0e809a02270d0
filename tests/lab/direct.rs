//! `access: direct`: nothing is mounted; QEMU and the proof reach the volume through libgfapi.

use crate::harness::{DEMO, Lab};

const THERE_AND_BACK: &str = "version: 1
title: there and back
cluster: cluster.yaml
steps:
  - start: { guest: web1 }
  - expect: { heartbeat: { guest: web1, beats: 20, within: 60 } }
  - migrate: { guest: web1, to: kvm2, ping: 10.77.0.101 }
  - expect: { runs-on: { guest: web1, host: kvm2 } }
  - migrate: { guest: web1, to: kvm1, ping: 10.77.0.101 }
  - expect: { runs-on: { guest: web1, host: kvm1 } }
  - expect: { heartbeat: { guest: web1, beats: 60, within: 60 } }
";

#[test]
fn a_guest_on_a_volume_that_nobody_mounts_is_proved_and_moves() {
    let direct = DEMO.replace("      mount: /var/lib/libvirt/images/gfs\n", "      access: direct\n");
    assert!(direct.contains("access: direct"));
    let lab = Lab::up("e2e-direct", &direct);
    lab.lab(&["apply", "--yes"]).exits(0).says(&["gluster-direct-deprecated"]);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    lab.lab(&["verify"]).exits(0);
    lab.write("book.yaml", THERE_AND_BACK);
    lab.lab(&["run", "book.yaml"]).exits(0).says(&["none lost, none doubled, one writer"]);
    assert!(!lab.on("kvm1", "cat /proc/self/mounts").contains("fuse.glusterfs"));
    assert!(lab.on("kvm2", "virsh -q list --all --name").trim().is_empty());
    lab.lab(&["verify"]).exits(0);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    lab.on("kvm1", "virsh -q destroy web1");
    lab.lab(&["destroy", "--yes"]).exits(0);
}
