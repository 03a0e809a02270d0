//! NFS with what goes wrong around it: firewalls, a server that runs guests itself, squashed clients, QEMU as another user,
//! directories moved away, files edited by hand.

use std::time::{Duration, Instant};

use crate::harness::Lab;

const CLUSTER: &str = include_str!("../../playbooks/nfs-live-migration/cluster.yaml");
const GUEST: &str = include_str!("../../playbooks/nfs-live-migration/guests/onlynat.xml");
const DISC: &[u8] = include_bytes!("../../playbooks/nfs-live-migration/tools.iso");
const IMAGE: &str = "nfs://10.77.0.11/data/vmstore/onlynat.img";
/// A careful administrator's: what is not named is dropped.
const RULES: &str = "flush ruleset
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		iif \"lo\" accept
		icmp type echo-request accept
		tcp dport 22 accept
	}
}
";
const BEATS: &str = "version: 1
title: beats
cluster: cluster.yaml
steps:
  - expect: { heartbeat: { guest: onlynat, beats: 30, within: 60 } }
";

fn lab(name: &str, cluster: &str) -> Lab {
    let files: [(&str, &[u8]); 3] =
        [("guests/onlynat.xml", GUEST.as_bytes()), ("tools.iso", DISC), ("beats.yaml", BEATS.as_bytes())];
    Lab::up_with(name, cluster, &files)
}

fn beats(lab: &Lab) {
    lab.lab(&["run", "beats.yaml"]).exits(0).says(&["none lost, none doubled, one writer"]);
}

#[test]
fn through_firewalls_and_faults_every_cause_is_named_and_a_running_guest_goes_on() {
    let stranger = CLUSTER
        .replace("      allow: [10.77.0.1]\n", "")
        .replace("  kvm1: {", "  other: { address: 10.77.0.31 }\n  kvm1: {");
    assert!(stranger.contains("other") && !stranger.contains("allow"));
    let lab = lab("e2e-nfs-faults", &stranger);
    let before = guard(&lab);
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    lab.lab(&["verify"]).exits(0);
    lab.lab(&["start", "onlynat"]).exits(0);
    for to in ["kvm2", "kvm1"] {
        lab.lab(&["migrate", "onlynat", "--to", to]).exits(0);
    }

    a_hypervisor_that_is_blocked_is_named_and_no_destination(&lab);
    a_client_that_nobody_can_find_changes_nothing(&lab);
    a_host_that_is_no_client_is_kept_out_twice(&lab);
    a_directory_moved_away_under_the_server_is_named(&lab);
    of_two_exports_one_goes_and_the_other_serves_on(&lab);
    an_include_removed_by_hand_is_put_back_under_a_running_guest(&lab);

    beats(&lab);
    lab.on("kvm1", "virsh -q destroy onlynat");
    lab.lab(&["destroy", "--yes"]).exits(0);
    assert_eq!(rulesets(&lab), before);
    assert_eq!(lab.on("store1", "systemctl is-failed nfs-ganesha; true").trim(), "inactive");
}

/// Puts nftables up on the server and both hypervisors, and returns what they hold.
fn guard(lab: &Lab) -> [String; 3] {
    for host in ["store1", "kvm1", "kvm2"] {
        lab.on(host, &format!("cat > /etc/nftables.conf <<'END'\n{RULES}END"));
        lab.on(host, "systemctl unmask nftables; systemctl enable --quiet --now nftables");
    }
    rulesets(lab)
}

fn rulesets(lab: &Lab) -> [String; 3] {
    ["store1", "kvm1", "kvm2"].map(|host| lab.on(host, "nft -s list ruleset"))
}

fn a_hypervisor_that_is_blocked_is_named_and_no_destination(lab: &Lab) {
    let rule = "ip saddr 10.77.0.22 tcp dport 2049";
    for (verdict, said) in [("drop", "no answer from"), ("reject with tcp reset", "connection refused by")] {
        lab.on("store1", &format!("nft insert rule inet filter input {rule} {verdict}"));
        let begin = Instant::now();
        let shown = lab.lab(&["verify"]).exits(7);
        assert!(begin.elapsed() < Duration::from_secs(40), "{:?}", begin.elapsed());
        let line = format!(
            "error port-blocked: host kvm2: storage vmstore: QEMU's NFS client cannot connect to the server: {said} 10.77.0.11:2049"
        );
        let shown = shown.says(&[&line, "let host kvm2 through the firewalls"]);
        assert!(!shown.stdout.contains("host kvm1: storage"), "{}", shown.stdout);
        assert_eq!(shown.stdout.matches("error ").count(), 1, "one cause, one finding:\n{}", shown.stdout);
        lab.lab(&["migrate", "onlynat", "--to", "kvm2"]).exits(8).says(&["host kvm2", "10.77.0.11:2049"]);
        let handle = "nft -a list chain inet filter input | sed -n \"s/.*10.77.0.22 .*# handle //p\"";
        lab.on("store1", &format!("nft delete rule inet filter input handle $({handle})"));
    }
    lab.lab(&["verify"]).exits(0);
}

/// ganesha would leave it out, with a word in its log.
fn a_client_that_nobody_can_find_changes_nothing(lab: &Lab) {
    let conf = "cat /etc/ganesha/exports.d/* /etc/ganesha/ganesha.conf";
    let before = lab.on("store1", conf);
    lab.edit("      access: direct\n", "      access: direct\n      allow: [nobody.example]\n");
    lab.lab(&["apply", "--yes"]).exits(6).says(&["nobody.example", "leads to no address", "host store1"]);
    assert_eq!(lab.on("store1", conf), before);
    lab.edit("      allow: [nobody.example]\n", "");
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
}

fn a_host_that_is_no_client_is_kept_out_twice(lab: &Lab) {
    lab.on("other", "apt-get -qq update && apt-get install -y -qq qemu-utils qemu-block-extra");
    let info = |lab: &Lab| lab.on("other", &format!("timeout 3 qemu-img info {IMAGE} 2>&1; echo status $?"));
    assert!(info(lab).contains("status 124"), "the firewall drops it");
    lab.on("store1", "nft insert rule inet filter input ip saddr 10.77.0.31 accept");
    let shown = info(lab);
    assert!(shown.contains("Permission denied") && shown.contains("status 1"), "{shown}");
    let handle = "nft -a list chain inet filter input | sed -n \"s/.*10.77.0.31 .*# handle //p\"";
    lab.on("store1", &format!("nft delete rule inet filter input handle $({handle})"));
}

fn a_directory_moved_away_under_the_server_is_named(lab: &Lab) {
    lab.on("store1", "mv /data/vmstore /data/away && mkdir /data/vmstore");
    lab.lab(&["verify"]).exits(7).says(&[
        "error image-missing: host store1: storage vmstore: hypervisors open onlynat, tools, but /data/vmstore does not hold it",
        "put the old directory back at /data/vmstore",
    ]);
    // An empty image in the guest's place would be its end at the next restart of the server.
    lab.lab(&["apply", "--yes"]).exits(6).says(&["guest onlynat runs on kvm1 with it"]);
    assert!(!lab.on("store1", "ls /data/vmstore").contains("onlynat"));
    lab.on("store1", "rm -rf /data/vmstore");
    lab.lab(&["verify"]).exits(7).says(&["host store1: storage vmstore", "no directory /data/vmstore"]);
    lab.on("store1", "mv /data/away /data/vmstore");
    lab.lab(&["verify"]).exits(0);
}

fn of_two_exports_one_goes_and_the_other_serves_on(lab: &Lab) {
    let second = "  second:\n    nfs: { server: store1, path: /data/second, access: direct, allow: [other] }\n\nimages:";
    lab.edit("images:", second);
    // A name is no rule for nftables.
    lab.lab(&["apply", "--yes"]).exits(6).says(&["nftables", "other"]);
    lab.edit("allow: [other]", "allow: [10.77.0.31]");
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.edit(&second.replace("[other]", "[10.77.0.31]"), "images:");
    lab.lab(&["apply", "--yes", "--prune"]).exits(0);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    let left = lab.on("store1", "ls /etc/ganesha/exports.d; nft list ruleset");
    assert!(!left.contains("second") && !left.contains("10.77.0.31"), "{left}");
    beats(lab);
}

fn an_include_removed_by_hand_is_put_back_under_a_running_guest(lab: &Lab) {
    lab.on("store1", "sed -i \"/# BEGIN stor/,/# END stor/d\" /etc/ganesha/ganesha.conf");
    lab.lab(&["plan", "--detailed-exitcode"])
        .exits(4)
        .says(&["/etc/ganesha/ganesha.conf: does not -> includes"]);
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    lab.lab(&["verify"]).exits(0);
    beats(lab);
}

#[test]
fn squashed_clients_another_qemu_user_and_a_server_with_guests_of_its_own_work() {
    let both = CLUSTER
        .replace("  store1: { address: 10.77.0.11 }", "  store1: { address: 10.77.0.11, hypervisor: true }")
        .replace("  kvm2: { address: 10.77.0.22, hypervisor: true }\n", "")
        .replace("allow: [10.77.0.1]", "allow: [admin]");
    assert!(!both.contains("kvm2:") && both.contains("admin"));
    let lab = lab("e2e-nfs-users", &both);
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    lab.lab(&["start", "onlynat"]).exits(0);
    there_and_back(&lab);

    squash(&lab, "", &squashed("root", "2000:2001"));
    assert_eq!(owners(&lab), "2000:2001");
    there_and_back(&lab);
    lab.on("kvm1", "virsh -q destroy onlynat");

    let user = "s/^user = .*/user = \"libvirt-qemu\"/; s/^group = .*/group = \"kvm\"/";
    let mut numbers = String::new();
    for host in ["store1", "kvm1"] {
        lab.on(host, &format!("sed -i '{user}' /etc/libvirt/qemu.conf && systemctl restart libvirtd"));
        numbers = lab.on(host, "id -u libvirt-qemu; getent group kvm | cut -d: -f3");
    }
    let (uid, gid) = numbers.trim().split_once('\n').expect("two numbers");
    squash(&lab, &squashed("root", "2000:2001"), &squashed("all", &format!("{uid}:{gid}")));
    assert_eq!(owners(&lab), format!("{uid}:{gid}"));
    lab.lab(&["start", "onlynat"]).exits(0);
    there_and_back(&lab);
    let runs = lab.on("kvm1", "ps -eo uid,args | grep \"[q]emu-system\"");
    assert!(runs.trim_start().starts_with(uid), "{runs}");
}

/// `on` is the server, a hypervisor itself.
fn there_and_back(lab: &Lab) {
    for to in ["store1", "kvm1"] {
        lab.lab(&["migrate", "onlynat", "--to", to]).exits(0);
        lab.lab(&["verify"]).exits(0);
    }
    beats(lab);
}

/// The lines that squash clients.
fn squashed(how: &str, owner: &str) -> String {
    let (uid, gid) = owner.split_once(':').expect("two numbers");
    format!("      squash: {how}\n      anonuid: {uid}\n      anongid: {gid}\n")
}

/// Squashes clients in another way, by a plan that is applied.
fn squash(lab: &Lab, from: &str, to: &str) {
    let access = "      access: direct\n";
    lab.edit(&format!("{access}{from}"), &format!("{access}{to}"));
    lab.lab(&["plan", "--detailed-exitcode"])
        .exits(4)
        .says(&["give /data/vmstore/onlynat.img", "stor-e2e-nfs-users-vmstore.conf"]);
    // Images of a user that may be at work are only given away when that is allowed.
    lab.lab(&["apply", "--yes", "--prune"]).exits(0);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
}

/// The one owner of all images.
fn owners(lab: &Lab) -> String {
    lab.on("store1", "stat -c %u:%g /data/vmstore/*.img | sort -u").trim().to_owned()
}
