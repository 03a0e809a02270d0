//! What is planned for the hosts' firewalls, from what real hosts showed (`scripts/capture-guard`), kept in
//! `fixtures/outputs/{nft,ufw,firewall-cmd}`. Each plan is kept in `fixtures/plans/guard`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "guard_plans/scene.rs"]
mod scene;
mod support;

use std::os::unix::fs::PermissionsExt;

use scene::{Hosts, SECTION};
use stor::host::local;
use stor::model::{Command, Wave};
use support::CLUSTER;

/// Compares with the kept plan; `INSTA_UPDATE=always` renews it.
fn golden(case: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/plans/guard"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(case, text));
}

const NFT: &str = "nft/debian13-nftables1.1.3";
const UFW: &str = "ufw/debian13-ufw0.36.2";
const FIREWALLD: &str = "firewall-cmd/debian13-firewalld2.3.1";

/// Hosts that show nothing of stor's in their firewalls, each with another one.
fn closed() -> Hosts {
    Hosts::bare()
        .show("store1", NFT, "policy-drop")
        .show("store2", UFW, "active")
        .show("store3", FIREWALLD, "running")
        .show("kvm1", NFT, "hypervisor-policy-drop")
        .show("kvm2", FIREWALLD, "hypervisor-running")
}

/// The same hosts after `stor apply`.
fn opened() -> Hosts {
    Hosts::bare()
        .show("store1", NFT, "opened")
        .owned("store1", "nftables")
        .show("store2", UFW, "opened")
        .owned("store2", "ufw")
        .show("store3", FIREWALLD, "opened")
        .owned("store3", "firewalld")
        .show("kvm1", NFT, "hypervisor-opened")
        .owned("kvm1", "nftables")
        .show("kvm2", FIREWALLD, "hypervisor-opened")
        .owned("kvm2", "firewalld")
}

fn without_kvm2() -> String {
    let kept = CLUSTER.lines().filter(|line| !line.contains("kvm2"));
    kept.filter(|line| !line.contains("db1")).collect::<Vec<_>>().join("\n") + "\n"
}

#[test]
fn each_firewall_lets_the_named_peers_in_in_its_own_way() {
    golden("closed", &closed().plan(CLUSTER));
}

#[test]
fn hosts_without_a_firewall_are_left_alone() {
    assert_eq!(Hosts::bare().plan(CLUSTER), "");
    assert_eq!(Hosts::bare().show("store1", NFT, "no-rules").plan(CLUSTER), "");
}

#[test]
fn rules_that_no_peer_meets_are_no_firewall() {
    assert_eq!(Hosts::bare().show("store1", NFT, "nothing-refused").plan(CLUSTER), "");
}

#[test]
fn a_chain_that_hands_packets_to_one_that_rejects_is_a_firewall() {
    let hosts = Hosts::bare().show("store1", NFT, "rejected-in-a-called-chain").show(
        "kvm1",
        NFT,
        "iptables1.8.11-reject",
    );
    golden("called-chains", &hosts.plan(CLUSTER));
}

#[test]
fn open_firewalls_need_nothing() {
    assert_eq!(opened().plan(CLUSTER), "");
}

#[test]
fn what_somebody_changed_by_hand_is_shown_and_put_back() {
    let hosts = opened().show("store1", NFT, "changed-by-hand").show("store2", UFW, "changed-by-hand").show(
        "store3",
        FIREWALLD,
        "changed-by-hand",
    );
    golden("changed-by-hand", &hosts.plan(CLUSTER));
    golden("unit-stopped", &opened().show("store1", NFT, "unit-stopped").plan(CLUSTER));
}

#[test]
fn chains_move_with_the_chain_that_refuses() {
    let hosts = opened().show("kvm1", NFT, "hypervisor-other-chain-refuses");
    golden("other-chain-refuses", &hosts.plan(CLUSTER));
}

#[test]
fn a_rule_of_the_users_own_serves_and_another_clusters_is_not_seen() {
    let plan = opened().show("store2", UFW, "changed-by-hand").plan(CLUSTER);
    assert!(!plan.contains("24007 from 10.77.0.11"), "{plan}");
    assert!(!plan.contains("10.77.0.99"), "{plan}");
}

#[test]
fn peers_that_left_the_file_lose_their_rules() {
    golden("peer-left", &opened().plan(&without_kvm2()));
}

#[test]
fn nothing_is_closed_while_anything_else_that_goes_has_to_wait() {
    let plan = opened().down("kvm1").plan(&without_kvm2());
    assert!(plan.lines().filter(|line| line.starts_with('[')).count() == 0, "{plan}");
    assert!(plan.contains("waits for host kvm1"), "{plan}");
}

#[test]
fn destroy_takes_out_just_what_is_stors() {
    golden("destroy", &opened().destroy(CLUSTER));
    let hosts = Hosts::bare().show("store2", UFW, "switched-off").owned("store2", "ufw");
    golden("destroy-switched-off", &hosts.destroy(CLUSTER));
}

#[test]
fn a_firewall_that_gave_way_to_another_loses_its_rules() {
    let hosts = Hosts::bare().show("store2", UFW, "active").owned("store2", "nftables");
    golden("other-firewall", &hosts.plan(CLUSTER));
}

#[test]
fn an_empty_policy_that_destroy_left_is_filled_without_a_reload() {
    let plan = Hosts::bare().show("store3", FIREWALLD, "after-destroy").plan(CLUSTER);
    assert!(!plan.contains("--reload"), "{plan}");
    golden("after-destroy", &plan);
}

#[test]
fn changes_that_a_reload_would_undo_are_not_undone() {
    golden("unsaved", &Hosts::bare().show("store3", FIREWALLD, "unsaved").plan(CLUSTER));
}

#[test]
fn a_firewalld_without_policies_is_refused_and_nothing_else() {
    // Debian 13 has no firewalld that old; only the version differs from what a host showed.
    let answer = scene::fixture(FIREWALLD, "running").replace("\n2.3.1\n", "\n0.8.6\n");
    golden("old-firewalld", &Hosts::bare().say("store3", &answer).plan(CLUSTER));
}

#[test]
fn a_peer_by_name_is_refused_and_the_others_let_in() {
    let named = CLUSTER.replace("10.77.0.22", "kvm2.example.com");
    let hosts = closed();
    golden("peer-by-name", &hosts.plan(&named));
    let (_, steps) = hosts.waves(&named);
    assert!(steps.contains(&Wave::Export) && steps.contains(&Wave::Guest), "{steps:?}");
}

#[test]
fn a_guard_that_did_not_answer_stops_nothing_else() {
    let hosts = Hosts::bare().silent("store1");
    let (blocked, steps) = hosts.waves(CLUSTER);
    assert_eq!(blocked, 1, "{}", hosts.plan(CLUSTER));
    assert!(steps.contains(&Wave::Export) && steps.contains(&Wave::Guest), "{steps:?}");
}

#[test]
fn rules_that_cannot_be_read_are_refused() {
    let json = "Error: JSON support not compiled-in\n";
    golden("no-json", &Hosts::bare().say("store1", &format!("{SECTION}nftables\n{json}")).plan(CLUSTER));
}

// No machine of the lab runs SELinux: the form of these lines is that of libselinux 3.8, utils/getsebool.c.
#[test]
fn a_boolean_is_set_once_and_set_back() {
    let (off, on) = ("virt_use_fusefs --> off\n", "virt_use_fusefs --> on\n");
    let say = |lines: &str| Hosts::bare().say("kvm1", &format!("{SECTION}selinux\n{lines}"));
    golden("boolean", &say(off).plan(CLUSTER));
    assert_eq!(say(on).plan(CLUSTER), "");
    assert_eq!(say("Error getting active value for virt_use_fusefs\n").plan(CLUSTER), "");
    assert_eq!(say(on).owned_boolean("kvm1", "virt_use_fusefs", "off").plan(CLUSTER), "");
    golden("boolean-back", &say(on).owned_boolean("kvm1", "virt_use_fusefs", "off").destroy(CLUSTER));
    assert_eq!(say(off).owned_boolean("kvm1", "virt_use_fusefs", "off").destroy(CLUSTER), "");
}

#[test]
fn a_long_name_fits_the_name_of_a_policy() {
    let long = CLUSTER.replace("name: homelab", "name: the-storage-of-the-second-floor");
    let plan = closed().plan(&long);
    assert!(plan.contains("--new-policy=stor-") && !plan.contains("--new-policy=stor-the"), "{plan}");
    let name = plan.split("--new-policy=").nth(1).unwrap().split(['\'', '\n']).next().unwrap();
    assert_eq!(name.len(), 17, "{name}");
}

#[test]
fn the_query_says_nothing_where_there_is_nothing_to_ask() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/guard/ask.sh");
    let ask = Command::new("env").args(["PATH=/nonexistent", "/bin/sh", script, "stor-x", "x"]);
    let shown = local::run(&ask).unwrap();
    assert!(shown.stdout.is_empty() || shown.stdout.starts_with("\n%stor:selinux\n"), "{}", shown.stdout);
    assert_eq!(shown.stderr, "");
}

/// What the query says on a host whose systemctl says of firewalld one of `states` after the other.
fn asked(states: &str) -> String {
    let host = tempfile::tempdir().unwrap();
    let tool = |name: &str, script: &str| {
        let path = host.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let said = host.path().join("states");
    std::fs::write(&said, states).unwrap();
    let said = said.display();
    tool(
        "systemctl",
        &format!("read -r state < {said}; printf '%s\\n' \"$state\"; sed -i '1{{$!d}}' {said}"),
    );
    tool("firewall-cmd", "echo running");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/guard/ask.sh");
    let path = format!("PATH={}:/usr/bin:/bin", host.path().display());
    local::run(&Command::new("env").args([path.as_str(), "sh", script, "stor-x", "x"])).unwrap().stdout
}

#[test]
fn a_firewall_that_is_just_starting_is_waited_for() {
    assert!(asked("activating\nactivating\nactive\n").contains("\n%stor:firewalld\n"));
    assert!(!asked("deactivating\ninactive\n").contains("firewalld"));
}

#[test]
fn a_firewall_of_which_nothing_can_be_said_is_not_taken_for_none() {
    let shown = asked("Failed to connect to bus: Connection timed out\n");
    assert!(
        shown.ends_with("\n%stor:unknown\nfirewalld: Failed to connect to bus: Connection timed out\n"),
        "{shown}"
    );
    golden("unknown", &Hosts::bare().say("store1", &shown).plan(CLUSTER));
}
