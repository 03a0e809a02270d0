//! ufw: rules with a comment of stor's own among the user's.
//!
//! Pure; imports `model`. Source: ufw(8). `ufw show added` prints the commands that would make the rules.

use std::collections::BTreeSet;

use super::{Change, Mark, Protocol, Rule, Tool, missing, surplus};
use crate::model::{Command, Effect};

/// What ufw has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Rules with stor's comment.
    pub own: BTreeSet<String>,
    /// Rules of the same form without it. ufw keeps equal rules once, so one of these serves as well and stays the user's.
    pub others: BTreeSet<String>,
}

/// The rule as [`open`] says it.
#[must_use]
pub fn text(rule: &Rule) -> String {
    format!("allow proto {} from {} to any port {}", rule.protocol, rule.peer, rule.ports(':'))
}

/// Reads `ufw show added`.
#[must_use]
pub fn parse(text: &str, mark: &Mark) -> State {
    let mut state = State::default();
    for line in text.lines() {
        let (rule, comment) = line.split_once(" comment ").unwrap_or((line, ""));
        let Some(rule) = parse_rule(rule) else { continue };
        match comment.trim_matches('\'') == mark.comment() {
            true => state.own.insert(self::text(&rule)),
            false => state.others.insert(self::text(&rule)),
        };
    }
    state
}

fn parse_rule(line: &str) -> Option<Rule> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["ufw", "allow", "from", peer, "to", "any", "port", ports, "proto", protocol] = words.as_slice()
    else {
        return None;
    };
    let (first, last) = ports.split_once(':').unwrap_or((ports, ports));
    let protocol = match *protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    Some(Rule { peer: peer.parse().ok()?, protocol, first: first.parse().ok()?, last: last.parse().ok()? })
}

/// Adds what is missing.
#[must_use]
pub fn open(state: &State, mark: &Mark, wanted: &BTreeSet<String>) -> Vec<Change> {
    let texts: Vec<&String> =
        wanted.iter().filter(|text| !state.own.contains(*text) && !state.others.contains(*text)).collect();
    let allow = |text: &&String| {
        Command::new("ufw").args(text.split(' ')).args(["comment".to_owned(), mark.comment()])
    };
    change("open the firewall (ufw)", texts.iter().map(allow).collect(), missing(Tool::Ufw, texts))
}

/// Deletes stor's own rules but for `kept`.
#[must_use]
pub fn close(state: &State, kept: &BTreeSet<String>) -> Vec<Change> {
    let texts: Vec<&String> = state.own.difference(kept).collect();
    let commands = texts.iter().map(|text| delete(text)).collect();
    change("close the firewall (ufw)", commands, surplus(Tool::Ufw, texts))
}

/// Deletes all of stor's own rules.
#[must_use]
pub fn remove(state: &State) -> Vec<Command> {
    state.own.iter().map(|text| delete(text)).collect()
}

/// ufw ends with 0 for a rule that is gone already.
fn delete(text: &str) -> Command {
    Command::new("ufw").arg("delete").args(text.split(' '))
}

fn change(title: &str, commands: Vec<Command>, why: Vec<crate::model::Difference>) -> Vec<Change> {
    if commands.is_empty() {
        return Vec::new();
    }
    vec![Change { title: format!("{title}: {}", count(commands.len())), why, effect: Effect::Run(commands) }]
}

/// A number of rules, for people.
pub(super) fn count(rules: usize) -> String {
    match rules {
        1 => "1 rule".to_owned(),
        more => format!("{more} rules"),
    }
}
