//! The runbook that `plan --script` prints, carried out by hand: what a person gets who does not let stor do it.

use crate::harness::{DEMO, Lab};
use stor::model::HostId;

#[test]
fn a_person_who_follows_the_runbook_ends_where_apply_would() {
    let lab = Lab::up("e2e-runbook", DEMO);
    let runbook = lab.lab(&["plan", "--script"]).exits(0).stdout;
    let sections: Vec<(&str, &str)> = runbook
        .lines()
        .filter_map(|line| line.trim_start_matches('#').trim().strip_prefix("sh RUNBOOK ")?.split_once(' '))
        .collect();
    assert!(sections.len() > 10, "{runbook}");
    for (host, section) in sections {
        let data = lab.machinery().data_directory(&HostId::new(host).unwrap()).unwrap();
        std::fs::write(data.join("runbook"), &runbook).unwrap();
        // The runbook asks for what exists only once its earlier sections have run.
        let keys: String = ["kvm1", "kvm2"].map(|peer| key_of(&lab, peer)).concat();
        lab.on(host, &format!("{keys} sh /data/runbook {host} {section}"));
    }
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    lab.lab(&["verify"]).exits(0);
    lab.lab(&["start", "web1"]).exits(0);
    lab.lab(&["migrate", "web1", "--to", "kvm2"]).exits(0);
}

/// The assignment that hands one hypervisor's public key to the runbook; nothing before the key exists.
fn key_of(lab: &Lab, host: &str) -> String {
    let text = lab.on(host, "cat /var/lib/stor/e2e-runbook/migrate_ed25519.pub 2>/dev/null || true");
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    if words.is_empty() { String::new() } else { format!("KEY_{host}='{}' ", words.join(" ")) }
}
