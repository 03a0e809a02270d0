//! What goes wrong while stor works, or after it has worked: the rest goes on, and running it again converges.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use stor::model::HostId;

use crate::harness::{DEMO, Lab};

#[test]
fn whatever_breaks_on_the_way_is_named_and_the_next_run_converges() {
    let lab = Lab::up("e2e-faults", DEMO);
    of_two_applies_one_is_told_who_holds_the_hosts(&lab);
    a_missing_image_stops_start_and_migration(&lab);
    a_host_that_loses_power_during_apply_is_named_and_taken_up_later(&lab);
}

fn of_two_applies_one_is_told_who_holds_the_hosts(lab: &Lab) {
    let mut first = lab
        .command(&["--lab", "apply", "--yes"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = BufReader::new(first.stderr.take().unwrap());
    let mut lines = begun.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("done")), "the first apply ended before it did anything");
    lab.lab(&["apply", "--yes"]).exits(5).says(&["stor apply by", "process"]);
    lab.lab(&["destroy", "--yes"]).exits(5).says(&["stor apply by"]);
    lines.for_each(drop);
    assert!(first.wait().unwrap().success());
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
}

fn a_missing_image_stops_start_and_migration(lab: &Lab) {
    let image = "/var/lib/libvirt/images/gfs/web1.img";
    lab.on("kvm1", &format!("mv {image} {image}.away"));
    lab.lab(&["start", "web1"]).exits(8).says(&["web1.img", "kvm1"]);
    lab.on("kvm1", &format!("mv {image}.away {image}"));
    lab.lab(&["start", "web1"]).exits(0);
    lab.on("kvm1", &format!("mv {image} {image}.away"));
    lab.lab(&["migrate", "web1", "--to", "kvm2"]).exits(8).says(&["web1.img"]);
    assert!(lab.on("kvm1", "virsh domstate web1").contains("running"));
    lab.on("kvm1", &format!("mv {image}.away {image}"));
    lab.lab(&["migrate", "web1", "--to", "kvm2"]).exits(0);
    lab.lab(&["migrate", "web1", "--to", "kvm2"]).exits(0).says(&["already"]);
}

fn a_host_that_loses_power_during_apply_is_named_and_taken_up_later(lab: &Lab) {
    lab.edit(
        "images:",
        "  more:\n    gluster:\n      replica: 3\n      force: true\n      \
        bricks: [store1:/data/bricks/more, store2:/data/bricks/more, store3:/data/bricks/more]\n\nimages:",
    );
    let mut apply = lab
        .command(&["--lab", "apply", "--yes"])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(apply.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("done") && line.contains("record")));
    lab.machinery().power_off(&HostId::new("kvm1").unwrap()).unwrap();
    let said: Vec<String> = lines.collect();
    let status = apply.wait().unwrap();
    assert_eq!(status.code(), Some(6), "{said:#?}");
    assert!(said.iter().any(|line| line.contains("kvm1")), "{said:#?}");
    // The others got all of theirs.
    assert!(lab.on("kvm2", "grep more /proc/self/mounts").contains("fuse.glusterfs"));
    assert!(lab.on("kvm2", "virsh domstate web1").contains("running"));
    lab.stor(&["lab", "up"]).exits(0);
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    lab.lab(&["verify"]).exits(0);
}
