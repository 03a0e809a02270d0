//! Bad situations that must end in a clear error with nothing changed.

use crate::harness::{DEMO, Lab};

#[test]
fn whatever_is_wrong_on_the_hosts_is_named_and_nothing_changes() {
    let lab = Lab::up("e2e-refusals", DEMO);
    a_changed_host_key_gets_no_command(&lab);
    an_unreachable_package_repository_is_named(&lab);
    a_brick_of_another_volume_is_refused(&lab);
    a_foreign_volume_of_the_same_name_is_refused(&lab);
}

fn nothing_was_made(lab: &Lab, host: &str) {
    let seen = lab.on(host, "ls -A /var/lib/stor /data 2>/dev/null || true");
    assert!(!seen.contains(".json") && !seen.contains("bricks"), "{host}:\n{seen}");
}

fn a_changed_host_key_gets_no_command(lab: &Lab) {
    // The file of known keys gets another host's key for store2; the way back is to swap it again.
    lab.with_wrong_key_of("store2", || {
        lab.lab(&["plan"]).exits(5).says(&["store2", "host key"]);
        lab.lab(&["apply", "--yes"]).exits(6).says(&["store2", "host key"]);
    });
    nothing_was_made(lab, "store2");
    let volumes = lab.on("store1", "gluster --mode=script volume list 2>&1 || true");
    assert!(!volumes.contains("gfs"), "a volume was made although a brick host was unknown: {volumes}");
    lab.lab(&["destroy", "--yes"]).exits(0);
}

fn a_brick_of_another_volume_is_refused(lab: &Lab) {
    lab.on("store1", "systemctl enable -q --now glusterd && mkdir -p /data/bricks");
    lab.on("store1", "gluster --mode=script volume create other 10.77.0.11:/data/bricks/gfs force");
    lab.lab(&["plan"]).exits(6).says(&["blocked", "store1", "/data/bricks/gfs"]);
    lab.on("store1", "gluster --mode=script volume delete other && rm -rf /data/bricks");
}

fn a_foreign_volume_of_the_same_name_is_refused(lab: &Lab) {
    lab.on(
        "store1",
        "mkdir -p /data/mine && gluster --mode=script volume create gfs 10.77.0.11:/data/mine force",
    );
    lab.lab(&["plan"]).exits(6).says(&["blocked", "gfs"]);
    lab.lab(&["apply", "--yes"]).exits(6).says(&["gfs"]);
    assert!(lab.on("store1", "gluster --mode=script volume info gfs").contains("/data/mine"));
    lab.on("store1", "gluster --mode=script volume delete gfs; rm -rf /data/mine");
    lab.lab(&["destroy", "--yes"]).exits(0);
}

fn an_unreachable_package_repository_is_named(lab: &Lab) {
    lab.on("store2", "mv /etc/apt/sources.list /root/kept.list && rm -rf /var/lib/apt/lists/*");
    lab.on("store2", "echo deb http://127.0.0.1:9/debian trixie main > /etc/apt/sources.list");
    lab.lab(&["apply", "--yes"]).exits(6).says(&["store2", "glusterfs-server"]);
    lab.on("store2", "mv /root/kept.list /etc/apt/sources.list && apt-get -qq update");
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    lab.lab(&["destroy", "--yes"]).exits(0);
    for host in ["store1", "store2", "store3"] {
        lab.on(host, "rm -rf /data/bricks");
    }
}
