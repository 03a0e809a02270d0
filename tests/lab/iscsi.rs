//! iSCSI without sessions, which this kernel may lack: tgt with CHAP, and QEMU's libiscsi on the hypervisors.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use crate::harness::Lab;

const CLUSTER: &str = include_str!("../../playbooks/iscsi-live-migration/cluster.yaml");
const BOOK: &str = include_str!("../../playbooks/iscsi-live-migration/playbook.yaml");
const CONF: &str = "/etc/tgt/conf.d/stor-e2e-iscsi-san.conf";
const SECRET: &str = "canary-4711-canary";
const IQN: &str = "iqn.2026-01.org.example:san";

#[test]
fn the_playbook_runs_and_the_target_is_guarded_mended_grown_and_given_back() {
    let lab = Lab::up_with("e2e-iscsi", CLUSTER, &[("secrets/chap", SECRET.as_bytes())]);
    lab.write("playbook.yaml", BOOK);
    lab.lab(&["run", "playbook.yaml"]).exits(0).says(&["none lost, none doubled, one writer", "0 bytes"]);

    assert_eq!(volumes(&lab, "kvm2"), ["unit:0:0:0", "unit:0:0:1"], "the first is tgt's controller");
    the_secret_is_nowhere_but_where_it_belongs(&lab);
    a_lun_is_added_and_a_secret_changed_while_the_guest_runs(&lab);
    who_is_not_named_is_refused(&lab);
    what_was_changed_by_hand_is_named_and_mended(&lab);
    a_server_that_does_not_answer_is_named(&lab);
    what_others_made_is_not_touched(&lab);

    lab.lab(&["destroy", "--yes"]).exits(6).says(&["iscsi1"]);
    lab.on("kvm1", "virsh -q destroy iscsi1");
    a_lun_grows_when_nobody_uses_it(&lab);
    lab.lab(&["destroy", "--yes"]).exits(0);
    let left = lab.on(
        "store1",
        "ls /etc/tgt/conf.d; tgtadm --lld iscsi --op show --mode target; tgtadm --lld iscsi --op show --mode account; ls -A /var/lib/stor 2>&1; true",
    );
    assert!(!left.contains("san") && !left.contains("stor-e2e") && !left.contains("    stor"), "{left}");
    assert!(lab.on("store1", "ls /data/luns").contains("iscsi1.img"));
    assert!(!lab.on("kvm1", "virsh -q secret-list").contains("stor-e2e-iscsi"));
    assert_eq!(lab.on("kvm1", "virsh -q pool-list --all").trim(), "");
}

/// What libvirt lists in the pool of the target.
fn volumes(lab: &Lab, host: &str) -> Vec<String> {
    let listed = lab.on(host, "virsh -q vol-list san");
    listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn the_secret_is_nowhere_but_where_it_belongs(lab: &Lab) {
    assert_eq!(lab.on("store1", &format!("stat --format=%a {CONF}")).trim(), "600");
    for host in ["store1", "kvm1", "kvm2"] {
        let found = lab.on(host, &format!("journalctl --no-pager -o cat | grep -c {SECRET}; grep -l {SECRET} /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | grep -v self; true"));
        // The search itself has it in its arguments.
        let seen: Vec<&str> = found.lines().filter(|line| !line.ends_with("/cmdline")).collect();
        assert_eq!(seen, ["0"], "{host}: {found}");
    }
    let ended = lab.lab(&["-vv", "plan"]).exits(0);
    assert!(!ended.stdout.contains(SECRET) && !ended.stderr.contains(SECRET));
    let xml = lab.on("kvm1", "virsh dumpxml --security-info iscsi1");
    assert!(xml.contains("usage='stor-e2e-iscsi-san'") && !xml.contains(SECRET), "{xml}");
}

fn a_lun_is_added_and_a_secret_changed_while_the_guest_runs(lab: &Lab) {
    let one = "        - { name: iscsi1, size: 64MiB, backing: /data/luns/iscsi1.img }\n";
    lab.edit(
        one,
        &format!(
            "{one}        - {{ name: spare, size: 16MiB, backing: /data/luns/spare.img, allocation: full }}\n"
        ),
    );
    lab.edit("images:\n", "images:\n  spare: { storage: san, size: 16MiB }\n");
    let secret = lab.path("secrets/chap");
    std::fs::write(&secret, "another-4711-canary").expect("write");
    lab.lab(&["verify"]).exits(7).says(&["access-denied", "does not accept the CHAP"]);
    // Reads the arguments and environments of all processes, again and again, while tgtd and libvirt get the secret.
    let watch = "systemd-run --quiet --unit=watch sh -c \"while :; do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ; done >/run/watched 2>/dev/null\"";
    ["store1", "kvm1"].iter().for_each(|host| _ = lab.on(host, watch));
    lab.lab(&["apply", "--yes"])
        .exits(0)
        .says(&["offer LUN spare as number 2", "give CHAP user stor its secret"]);
    for host in ["store1", "kvm1"] {
        // The search has it in its own arguments.
        lab.on(host, "systemctl stop watch");
        let seen = lab.on(
            host,
            "grep -a -c another-4711 /run/watched; grep -a -q -e stor-tgt-conf -e stor-probe-luns /run/watched && echo watched; rm /run/watched",
        );
        assert_eq!(seen.trim(), "0\nwatched", "{host}");
    }
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    assert_eq!(volumes(lab, "kvm1"), ["unit:0:0:0", "unit:0:0:1", "unit:0:0:2"]);
    lab.lab(&["migrate", "iscsi1", "--to", "kvm2"]).exits(0);
    lab.lab(&["migrate", "iscsi1", "--to", "kvm1"]).exits(0);
    std::fs::set_permissions(&secret, Permissions::from_mode(0o644)).expect("chmod");
    lab.lab(&["plan"]).exits(3).says(&["chmod 0600"]);
    std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("chmod");
}

fn who_is_not_named_is_refused(lab: &Lab) {
    lab.lab(&["verify"]).exits(0).says(&["san through iSCSI: pass (looked at 2 images"]);
    lab.edit("      allow: [10.77.0.1]\n", "");
    lab.lab(&["apply", "--yes", "--prune"]).exits(6).says(&["10.77.0.1 would lose access"]);
    let dead = ["apply", "--yes", "--prune", "--dead", "10.77.0.1", "--confirm-dead", "10.77.0.1"];
    lab.lab(&dead).exits(0).says(&[
        "keep 10.77.0.1 from target",
        "shows itself to none but its initiators",
        "server store1 looked at",
    ]);
    // Opened by hand: the initiator on this machine gets in, which is no proof that passes.
    lab.on("store1", &format!("tgtadm --lld iscsi --op bind --mode target --tid {} -I ALL", tid(lab)));
    lab.lab(&["verify"]).exits(7).says(&["export-open", "lets this machine"]);
    lab.lab(&["apply", "--yes", "--prune"]).exits(0).says(&["keep ALL from target"]);
    lab.lab(&["verify"]).exits(0);
}

fn tid(lab: &Lab) -> String {
    let show = "tgtadm --lld iscsi --op show --mode target";
    lab.on("store1", &format!("{show} | sed -n 's/^Target \\([0-9]*\\): {IQN}$/\\1/p'")).trim().to_owned()
}

fn what_was_changed_by_hand_is_named_and_mended(lab: &Lab) {
    lab.on("store1", &format!("echo \"# mine\" >>{CONF}; chmod 0644 {CONF}"));
    lab.lab(&["plan", "--detailed-exitcode"]).exits(4).says(&["store1", "edited"]);
    lab.lab(&["apply", "--yes"]).exits(0);
    assert_eq!(lab.on("store1", &format!("grep -c mine {CONF}; stat --format=%a {CONF}")).trim(), "0\n600");
    // Another LUN behind the same number.
    let tid = tid(lab);
    let lun = format!("--lld iscsi --mode logicalunit --tid {tid} --lun 2");
    lab.on(
        "store1",
        &format!("truncate -s 16M /data/other.img; tgtadm {lun} --op delete; tgtadm {lun} --op new -b /data/other.img"),
    );
    lab.lab(&["verify"]).exits(7).says(&["lun-swapped", "spare"]);
    lab.lab(&["plan"]).says(&["cannot change meanwhile"]);
    lab.on("store1", &format!("tgtadm {lun} --op delete; rm /data/other.img"));
    lab.lab(&["apply", "--yes"]).exits(0).says(&["offer LUN spare as number 2"]);
    lab.lab(&["verify"]).exits(0);
}

/// The guest runs on meanwhile: it waits for its disk.
fn a_server_that_does_not_answer_is_named(lab: &Lab) {
    lab.on("store1", "systemctl kill -s STOP tgt");
    let begin = std::time::Instant::now();
    lab.lab(&["verify"]).exits(7).says(&["kvm1", "kvm2"]);
    assert!(begin.elapsed().as_secs() < 90, "{:?}", begin.elapsed());
    lab.lab(&["migrate", "iscsi1", "--to", "kvm2"]).exits(8).says(&["cannot be opened"]);
    lab.on("store1", "systemctl kill -s CONT tgt");
    lab.lab(&["verify"]).exits(0);
    assert!(lab.on("kvm1", "virsh domstate iscsi1").contains("running"));
}

fn what_others_made_is_not_touched(lab: &Lab) {
    lab.on(
        "store1",
        "tgtadm --lld iscsi --op new --mode target --tid 77 -T iqn.2020-01.org.else:x && \
         tgtadm --lld iscsi --op new --mode logicalunit --tid 77 --lun 1 -b /data/luns/spare.img",
    );
    lab.lab(&["apply", "--yes"]).exits(6).says(&["already behind a LUN of target iqn.2020-01.org.else:x"]);
    lab.on("store1", "tgtadm --lld iscsi --op delete --mode target --tid 77 --force");
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
}

fn a_lun_grows_when_nobody_uses_it(lab: &Lab) {
    lab.edit("name: iscsi1, size: 64MiB", "name: iscsi1, size: 96MiB");
    lab.edit("iscsi1: { storage: san, size: 64MiB }", "iscsi1: { storage: san, size: 96MiB }");
    lab.lab(&["apply", "--yes"]).exits(0).says(&["grow to 96MiB", "100663296 bytes"]);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
}
