//! nftables by hand: a chain of stor's own in each table that drops what comes in, asked first by the chain that drops.
//!
//! Pure; imports `model` and the readers of units. A table of one's own would not do: there, accepting ends one base
//! chain and the packet still meets the others (nft(8), "VERDICT STATEMENTS"). A unit of stor's own puts chain and jump
//! back after a start of the host or of nftables.service.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Change, Mark, Rule, Tool, missing, surplus, ufw};
use crate::model::{AbsPath, Command, Difference, Effect, FileContent, FileMode, FileSpec};
use crate::storage::mount_unit::{self, UnitState};

mod ruleset;
mod unit;

pub use ruleset::{Chain, Table};

/// Removes every jump to a chain and the chain itself, wherever they are; does nothing where nft is gone or knows neither.
/// The handles are looked up as they are used: one that was read before may name another rule by now.
const FORGET: &str = include_str!("nftables/forget.sh");

/// What a host shows of its rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Base chains that see what comes in and do not accept all of it, sorted.
    pub guarded: BTreeSet<Chain>,
    /// stor's own chains by table, each with its rules.
    pub chains: BTreeMap<Table, BTreeSet<String>>,
    /// Base chains that ask stor's own chain.
    pub jumps: BTreeSet<Chain>,
    /// Rules in stor's own chains that stor does not write.
    pub strange: usize,
    /// The file from which the rules are put back.
    pub rules_file: Option<String>,
    /// The unit that does it.
    pub unit_file: Option<String>,
    /// What systemd says of the unit.
    pub unit: UnitState,
}

/// Says why a ruleset cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesetError {
    /// nft printed something else than its JSON.
    #[error("nft printed no JSON: {0}")]
    NoJson(String),
    /// A table or chain has a name that has to be quoted.
    #[error("the name {0:?} of a table or chain cannot be written in a rule")]
    Name(String),
}

/// The rule as nft lists it.
#[must_use]
pub fn text(rule: &Rule) -> String {
    format!("ip saddr {} {} dport {} accept", rule.peer, rule.protocol, rule.ports('-'))
}

/// What [`State::read`] reads, by the marks of the query.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Answers<'a> {
    pub ruleset: &'a str,
    pub rules_file: Option<&'a str>,
    pub unit_file: Option<&'a str>,
    pub unit: &'a str,
}

impl State {
    /// Reads the rules; `None` where no base chain refuses anything and nothing of stor's is left.
    pub(super) fn read(answers: Answers<'_>, mark: &Mark) -> Result<Option<Self>, RulesetError> {
        let json: Value = match serde_json::from_str(answers.ruleset) {
            Ok(json) => json,
            Err(_) => return Err(RulesetError::NoJson(first_line(answers.ruleset))),
        };
        let mut state = ruleset::read(&json, &mark.own())?;
        if state.guarded.is_empty() {
            return Ok(None);
        }
        state.rules_file = answers.rules_file.map(str::to_owned);
        state.unit_file = answers.unit_file.map(str::to_owned);
        state.unit = mount_unit::parse_state(answers.unit).unwrap_or_default();
        Ok(Some(state))
    }

    /// The rules of stor's own, in any table.
    #[must_use]
    pub fn own(&self) -> BTreeSet<String> {
        self.chains.values().flatten().cloned().collect()
    }

    fn tables(&self) -> BTreeSet<&Table> {
        self.guarded.iter().map(|chain| &chain.table).collect()
    }

    /// stor's chains in tables that refuse nothing any more.
    fn stray(&self) -> impl Iterator<Item = &Table> {
        let tables = self.tables();
        self.chains.keys().filter(move |table| !tables.contains(table))
    }

    /// What is in stor's own place and not its own.
    #[must_use]
    pub fn strange(&self, mark: &Mark) -> Vec<String> {
        let written =
            (self.strange > 0).then(|| format!("{} by others in {}", ufw::count(self.strange), mark.own()));
        written
            .into_iter()
            .chain(self.stray().map(|table| format!("{} in table {table}", mark.own())))
            .collect()
    }

    /// The state once [`set`] has run for `rules`.
    #[must_use]
    pub fn after(&self, mark: &Mark, rules: &BTreeSet<String>) -> Self {
        Self {
            guarded: self.guarded.clone(),
            chains: self.tables().into_iter().map(|table| (table.clone(), rules.clone())).collect(),
            jumps: self.guarded.clone(),
            strange: 0,
            rules_file: Some(unit::rules(mark, &self.tables(), rules)),
            unit_file: Some(unit::unit(mark, &self.guarded)),
            unit: UnitState {
                load: "loaded".to_owned(),
                active: "active".to_owned(),
                enabled: "enabled".to_owned(),
                ..UnitState::default()
            },
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing").to_owned()
}

fn file(path: AbsPath, text: String) -> FileSpec {
    FileSpec { path, mode: FileMode(0o644), content: FileContent::Text(text.into()) }
}

/// Makes stor's chains hold just `rules`: the file, the unit, and, through the unit, what is in force.
#[must_use]
pub(super) fn set(state: &State, mark: &Mark, rules: &BTreeSet<String>, verb: &str) -> Vec<Change> {
    let (rules_text, unit_text) =
        (unit::rules(mark, &state.tables(), rules), unit::unit(mark, &state.guarded));
    let mut changes = Vec::new();
    let mut write = |path: AbsPath, observed: Option<&String>, text: String| {
        if observed == Some(&text) {
            return;
        }
        let shown = observed.map_or("absent", |_| "different");
        let why = vec![Difference::new(format!("file {path}"), "as stor writes it", shown)];
        changes.push(Change {
            title: format!("write {path}"),
            why,
            effect: Effect::WriteFile(file(path, text)),
        });
    };
    write(mark.rules_file(), state.rules_file.as_ref(), rules_text);
    write(mount_unit::unit_file(&mark.unit()), state.unit_file.as_ref(), unit_text);
    let why = reasons(state, mark, rules);
    if changes.is_empty() && why.is_empty() {
        return changes;
    }
    let unit = mark.unit();
    let systemctl =
        |words: &[&str]| Command::new("systemctl").args(words.iter().copied()).args(["--", &unit]);
    let commands = vec![
        Command::new("systemctl").arg("daemon-reload"),
        systemctl(&["enable", "--quiet"]),
        systemctl(&["restart"]),
    ];
    let title = format!("{verb} the firewall (nftables): {} in all", ufw::count(rules.len()));
    let why = if why.is_empty() {
        vec![Difference::new("firewall.nftables", "as the files say", "as before")]
    } else {
        why
    };
    changes.push(Change { title, why, effect: Effect::Run(commands) });
    changes
}

fn reasons(state: &State, mark: &Mark, rules: &BTreeSet<String>) -> Vec<Difference> {
    let everywhere = |text: &&String| {
        let mut tables = state.tables().into_iter();
        tables.all(|table| state.chains.get(table).is_some_and(|chain| chain.contains(*text)))
    };
    let mut why = missing(Tool::Nftables, rules.iter().filter(|text| !everywhere(text)));
    let written = (state.strange > 0).then(|| format!("{} by others", ufw::count(state.strange)));
    why.extend(surplus(Tool::Nftables, state.own().difference(rules).chain(&written)));
    for chain in state.guarded.difference(&state.jumps) {
        why.push(Difference::new(
            format!("firewall.chain {chain}"),
            format!("asks {} first", mark.own()),
            "does not",
        ));
    }
    let unit = &state.unit;
    if !unit.is_active() || !unit.is_enabled() || unit.needs_reload {
        let shown = match (unit.load.is_empty(), unit.needs_reload) {
            (true, _) => "absent".to_owned(),
            (false, true) => "changed since systemd read it".to_owned(),
            (false, false) => unit.summary(),
        };
        why.push(Difference::new(format!("unit {}", mark.unit()), "enabled, active", shown));
    }
    why
}

/// Leaves just `kept` in stor's chains, and no chain in a table that refuses nothing any more.
#[must_use]
pub(super) fn close(state: &State, mark: &Mark, kept: &BTreeSet<String>) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut left = state.clone();
    if state.stray().next().is_some() {
        // The script takes all of them out, so all that are still needed come back after it.
        (left.chains, left.jumps) = (BTreeMap::new(), BTreeSet::new());
        let stray = state
            .stray()
            .map(|table| Difference::new(format!("firewall.table {table}"), "absent", mark.own()));
        let (title, why) =
            ("take stor's chains out of tables that refuse nothing".to_owned(), stray.collect());
        changes.push(Change { title, why, effect: Effect::Run(vec![forget(mark)]) });
    }
    changes.extend(set(&left, mark, kept, "close"));
    changes
}

fn forget(mark: &Mark) -> Command {
    Command::new("sh").args(["-c", FORGET, "forget", &mark.own()])
}

/// Removes unit, file, jumps and chains.
#[must_use]
pub fn remove(mark: &Mark) -> Vec<Command> {
    let unit = mark.unit();
    let (first, rest) = unit.split_at(1);
    let wants = unit::TARGETS.map(|target| format!("/etc/systemd/system/{target}.wants/{unit}"));
    vec![
        // A pattern, because `stop` fails for a unit that is gone (`mount_unit::remove`).
        Command::new("systemctl").args(["stop", "--", &format!("[{first}]{rest}")]),
        Command::new("rm")
            .args(["-f", "--", mount_unit::unit_file(&unit).as_str(), mark.rules_file().as_str()])
            .args(wants),
        Command::new("systemctl").arg("daemon-reload"),
        forget(mark),
        Command::new("find").arg("/etc/systemd/system").args([
            "-maxdepth",
            "1",
            "-name",
            "nftables.service.wants",
            "-empty",
            "-delete",
        ]),
    ]
}
