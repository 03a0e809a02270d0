//! Hosts on which something is wrong from the beginning: each is named with its cause, and nothing changes.

use crate::harness::{DEMO, Lab};

#[test]
fn whatever_is_wrong_on_the_hosts_is_named_and_nothing_changes() {
    let lab = Lab::up("e2e-refusals", DEMO);
    a_changed_host_key_gets_no_command(&lab);
    a_login_that_is_refused_is_named(&lab);
    sudo_that_asks_for_a_password_fails_at_once(&lab);
    an_unreachable_package_repository_is_named(&lab);
    a_brick_of_another_volume_is_refused(&lab);
    a_foreign_volume_of_the_same_name_is_refused(&lab);
}

/// Nothing of stor's lies on a host.
#[track_caller]
fn nothing_was_made(lab: &Lab, host: &str) {
    let seen = lab.on(host, "ls -A /var/lib/stor /data /etc/systemd/system/*stor* 2>/dev/null || true");
    assert!(!seen.contains(".json") && !seen.contains("bricks"), "{host}:\n{seen}");
}

fn a_changed_host_key_gets_no_command(lab: &Lab) {
    lab.with_wrong_key_of("store2", || {
        lab.lab(&["plan"]).exits(5).says(&["store2", "host key"]);
        lab.lab(&["apply", "--yes"]).exits(6).says(&["store2", "host key"]);
    });
    nothing_was_made(lab, "store2");
    let volumes = lab.on("store1", "gluster --mode=script volume list 2>&1 || true");
    assert!(!volumes.contains("gfs"), "a volume was made although a brick host was unknown: {volumes}");
    lab.lab(&["destroy", "--yes"]).exits(0);
}

fn a_login_that_is_refused_is_named(lab: &Lab) {
    let nobody =
        DEMO.replace("user: root", &format!("user: nobody-here, identity_file: {}", lab.key().display()));
    lab.write("nobody.yaml", &nobody);
    lab.neighbour(&["plan", "nobody.yaml"]).exits(5).says(&[
        "store1",
        "kvm2",
        "nobody-here@10.77.0.11",
        "login was refused",
    ]);
    lab.neighbour(&["apply", "--yes", "nobody.yaml"]).exits(6).says(&["store1", "login was refused"]);
    for host in ["store1", "kvm1"] {
        nothing_was_made(lab, host);
    }
}

fn sudo_that_asks_for_a_password_fails_at_once(lab: &Lab) {
    let hosts = ["store1", "store2", "store3", "kvm1", "kvm2"];
    for host in hosts {
        lab.on(
            host,
            "useradd -m -s /bin/sh ops && install -d -o ops -m 700 /home/ops/.ssh && \
             install -o ops -m 600 /root/.ssh/authorized_keys /home/ops/.ssh/ && \
             echo 'ops ALL=(ALL) ALL' > /etc/sudoers.d/ops && chmod 440 /etc/sudoers.d/ops",
        );
    }
    let ops = format!("user: ops, become: sudo, identity_file: {}", lab.key().display());
    lab.write("ops.yaml", &DEMO.replace("user: root", &ops));
    lab.neighbour(&["plan", "ops.yaml"]).exits(5).says(&["store1", "sudo", "password"]);
    lab.neighbour(&["apply", "--yes", "ops.yaml"]).exits(6).says(&["kvm1", "sudo"]);
    for host in hosts {
        nothing_was_made(lab, host);
        // The same user without a password: stor works through sudo.
        lab.on(host, "echo 'ops ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ops");
    }
    lab.neighbour(&["plan", "--detailed-exitcode", "ops.yaml"]).exits(4).says(&["create volume gfs"]);
    for host in hosts {
        lab.on(host, "rm /etc/sudoers.d/ops");
    }
}

fn a_brick_of_another_volume_is_refused(lab: &Lab) {
    for host in ["store1", "store2", "store3"] {
        lab.on(host, "systemctl enable -q --now glusterd");
    }
    lab.on("store1", "mkdir -p /data/bricks && gluster --mode=script volume create other 10.77.0.11:/data/bricks/gfs force");
    lab.lab(&["plan"]).exits(6).says(&["blocked", "store1", "/data/bricks/gfs", "other"]);
    lab.lab(&["apply", "--yes"]).exits(6).says(&["store1", "/data/bricks/gfs"]);
    assert_eq!(lab.on("store1", "gluster --mode=script volume list").trim(), "other");
    lab.on("store1", "gluster --mode=script volume delete other && rm -rf /data/bricks");
    lab.lab(&["destroy", "--yes"]).exits(0);
}

fn a_foreign_volume_of_the_same_name_is_refused(lab: &Lab) {
    lab.on(
        "store1",
        "systemctl start glusterd && mkdir -p /data/mine && \
         gluster --mode=script volume create gfs 10.77.0.11:/data/mine force",
    );
    lab.lab(&["plan"]).exits(6).says(&["blocked", "gfs"]);
    lab.lab(&["apply", "--yes"]).exits(6).says(&["gfs"]);
    assert!(lab.on("store1", "gluster --mode=script volume info gfs").contains("/data/mine"));
    lab.lab(&["destroy", "--yes"]).exits(0);
    assert!(lab.on("store1", "gluster --mode=script volume info gfs").contains("/data/mine"));
    lab.on("store1", "gluster --mode=script volume delete gfs && rm -rf /data/mine");
}

fn an_unreachable_package_repository_is_named(lab: &Lab) {
    lab.on("store2", "mv /etc/apt/sources.list /root/kept.list && rm -rf /var/lib/apt/lists/*");
    lab.on("store2", "echo deb http://127.0.0.1:9/debian trixie main > /etc/apt/sources.list");
    lab.lab(&["apply", "--yes"]).exits(6).says(&["store2", "glusterfs-server"]);
    let volumes = lab.on("store1", "gluster --mode=script volume list 2>&1 || true");
    assert!(!volumes.contains("gfs"), "{volumes}");
    lab.on("store2", "mv /root/kept.list /etc/apt/sources.list && apt-get -qq update");
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    lab.lab(&["destroy", "--yes"]).exits(0);
    for host in ["store1", "store2", "store3"] {
        lab.on(host, "rm -rf /data/bricks");
    }
}
