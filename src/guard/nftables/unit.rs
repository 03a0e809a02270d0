//! What puts stor's rules back: the file with its chains, and the unit that loads it and has it asked. Pure.
//!
//! Both texts are safe to run again at any time: a chain is flushed and filled in one transaction, and a jump is added
//! only where there is none. Sources: nft(8), systemd.unit(5) (`PartOf=`, `ReloadPropagatedFrom=`), systemd.service(5).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Chain, Table};
use crate::guard::Mark;

/// Services that load and flush a host's own rules.
const LOADERS: &str = "nftables.service netfilter-persistent.service iptables.service";
/// What starts the unit: the host, and nftables.service when it was stopped and starts again.
pub(super) const TARGETS: [&str; 2] = ["multi-user.target", "nftables.service"];

/// Inserts a jump unless it is there. Parameters: family, table, chain, stor's chain, its comment with its quotes.
const JUMP: &str = r#"nft list chain "$$1" "$$2" "$$3" | grep -q "jump $$4 " || nft insert rule "$$1" "$$2" "$$3" jump "$$4" comment "$$5""#;

/// The file of rules.
pub(super) fn rules(mark: &Mark, tables: &BTreeSet<&Table>, rules: &BTreeSet<String>) -> String {
    let own = mark.own();
    let mut out = format!("# Written by {}. stor apply overwrites changes made here.\n", mark.comment());
    for table in tables {
        // Writing to a String cannot fail.
        writeln!(out, "add chain {table} {own}\nflush chain {table} {own}").unwrap_or_default();
        for rule in rules {
            writeln!(out, "add rule {table} {own} {rule}").unwrap_or_default();
        }
    }
    out
}

/// The unit.
pub(super) fn unit(mark: &Mark, chains: &BTreeSet<Chain>) -> String {
    let (own, comment) = (mark.own(), mark.comment());
    let load = format!("/usr/sbin/nft -f {}", mark.rules_file());
    let jumps = chains.iter().map(|chain| format!("/bin/sh -c '{JUMP}' sh {chain} {own} '\"{comment}\"'"));
    let commands: Vec<String> = [load].into_iter().chain(jumps).collect();
    let lines = |key: &str| commands.iter().map(|command| format!("{key}={command}\n")).collect::<String>();
    format!(
        "# Written by {comment}. stor apply overwrites changes made here.\n\n\
         [Unit]\n\
         Description=Openings for the storage of {comment}\n\
         After={LOADERS}\n\
         PartOf={LOADERS}\n\
         ReloadPropagatedFrom=nftables.service\n\
         Before=network-online.target\n\n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         {}{}\n\
         [Install]\n\
         WantedBy={}\n",
        lines("ExecStart"),
        lines("ExecReload"),
        TARGETS.join(" ")
    )
}
