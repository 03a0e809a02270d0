//! Hosts with firewalls of three kinds: the named peers get in, nobody else does, and nothing of stor's stays.

use crate::harness::{DEMO, Lab};

/// Rules that a careful administrator keeps: what is not named is dropped.
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

#[test]
fn firewalls_let_the_named_peers_in_and_nobody_else_and_are_left_as_they_were() {
    let lab = Lab::up("e2e-guard", DEMO);
    guard(&lab);
    let before = rulesets(&lab);

    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    lab.lab(&["verify"]).exits(0);

    lab.lab(&["start", "web1"]).exits(0);
    for to in ["kvm2", "kvm1"] {
        lab.lab(&["migrate", "web1", "--to", to]).exits(0);
    }

    a_stranger_is_kept_out(&lab);
    the_users_own_restart_keeps_the_openings(&lab);
    rules_removed_by_hand_come_back(&lab);
    a_peer_that_leaves_the_file_loses_its_rules(&lab);

    lab.on("kvm1", "virsh -q destroy web1");
    lab.lab(&["destroy", "--yes"]).exits(0);
    assert_eq!(rulesets(&lab), before);
    for host in ["store1", "kvm1", "kvm2"] {
        let left = lab.on(host, "find /etc/systemd /var/lib/stor -name '*e2e-guard*' 2>/dev/null; true");
        assert_eq!(left, "", "{host}");
    }
}

/// nftables on one server and the hypervisors, ufw and firewalld on the other servers.
fn guard(lab: &Lab) {
    for host in ["store1", "kvm1", "kvm2"] {
        lab.on(host, &format!("cat > /etc/nftables.conf <<'END'\n{RULES}END"));
        lab.on(host, "systemctl unmask nftables; systemctl enable --quiet --now nftables");
    }
    let install = "apt-get -qq update && apt-get install -y -qq";
    lab.on("store2", &format!("{install} ufw && ufw default deny incoming && ufw allow 22/tcp"));
    lab.on("store2", "ufw --force enable");
    lab.on("store3", &format!("{install} firewalld && firewall-cmd --state"));
}

/// What each firewall holds, without counters; of firewalld what is saved.
fn rulesets(lab: &Lab) -> Vec<String> {
    let nft = ["store1", "kvm1", "kvm2"].map(|host| lab.on(host, "nft -s list ruleset"));
    let ufw = lab.on("store2", "ufw show added; ufw status");
    let in_force = "nft -s list ruleset | grep -c 24007";
    let saved = "firewall-cmd --permanent --list-all-zones; firewall-cmd --permanent --list-all-policies";
    let firewalld = lab.on("store3", &format!("{saved}; {in_force}; ls /etc/firewalld/policies"));
    nft.into_iter().chain([ufw, firewalld]).collect()
}

fn a_stranger_is_kept_out(lab: &Lab) {
    lab.on("kvm1", "ip address add 10.77.0.99/24 dev br0");
    for server in ["10.77.0.11", "10.77.0.12", "10.77.0.13"] {
        let reach = |from: &str| {
            let to = format!("(\"{server}\", 24007), 3, (\"{from}\", 0)");
            let connect = format!("import socket; socket.create_connection({to})");
            lab.on("kvm1", &format!("python3 -c '{connect}' 2>/dev/null && echo in || echo out"))
        };
        assert_eq!((reach("10.77.0.21").trim(), reach("10.77.0.99").trim()), ("in", "out"), "{server}");
    }
    lab.on("kvm1", "ip address del 10.77.0.99/24 dev br0");
}

fn the_users_own_restart_keeps_the_openings(lab: &Lab) {
    let restarts = [
        ("store1", "systemctl restart nftables"),
        ("kvm1", "systemctl reload nftables"),
        ("kvm2", "systemctl stop nftables && systemctl start nftables"),
        ("store2", "ufw reload"),
        ("store3", "systemctl restart firewalld"),
    ];
    for (host, command) in restarts {
        lab.on(host, command);
    }
    // What systemd started with them may take a moment.
    lab.on("store1", "systemctl is-active --wait stor-e2e-guard-firewall nftables");
    std::thread::sleep(std::time::Duration::from_secs(2));
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    lab.lab(&["verify"]).exits(0);
}

fn rules_removed_by_hand_come_back(lab: &Lab) {
    lab.on("store1", "nft flush chain inet filter stor-e2e-guard");
    lab.on("store2", "ufw delete allow proto tcp from 10.77.0.21 to any port 24007");
    lab.on("store3", "rm /etc/firewalld/policies/stor-e2e-guard.xml && firewall-cmd --reload");
    let shown = lab.lab(&["plan", "--detailed-exitcode"]).exits(4);
    shown.says(&["nftables", "ufw", "firewalld", "tcp 24007 from 10.77.0.21 (glusterd)"]);
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
}

fn a_peer_that_leaves_the_file_loses_its_rules(lab: &Lab) {
    let peer = "10.77.0.1 ";
    let held = |lab: &Lab| lab.on("store1", "nft list chain inet filter stor-e2e-guard").contains(peer);
    assert!(held(lab));
    lab.edit("allow: [10.77.0.1]", "allow: []");
    lab.lab(&["apply", "--yes", "--prune"]).exits(6).says(&["10.77.0.1 would lose access"]);
    assert!(held(lab));
    let dead = ["apply", "--yes", "--dead", "10.77.0.1", "--confirm-dead", "10.77.0.1"];
    lab.lab(&dead).exits(6).says(&["--prune"]);
    lab.lab(&[&dead[..], &["--prune"]].concat()).exits(0);
    assert!(!held(lab));
    assert!(!lab.on("store2", "ufw show added").contains(peer));
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
}
