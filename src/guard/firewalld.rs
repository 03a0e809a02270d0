//! firewalld: a policy of stor's own, from any zone to the host, with one rich rule per peer and range of ports.
//!
//! Pure; imports `model`. A policy and not a zone with sources: a zone takes over all traffic of its sources, a policy
//! that continues adds to what their zones say. Sources: firewall-cmd(1), firewalld.policies(5),
//! firewalld.richlanguage(5).

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Mark, Refused, Rule, Tool, missing, surplus, ufw};
use crate::model::{Command, Difference, Effect};

/// Where the packets come from: any zone.
const INGRESS: &str = "ANY";
/// Where they go: the host itself.
const EGRESS: &str = "HOST";

/// What firewalld shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Its version; only asked while the policy is not in force.
    pub version: String,
    /// stor's policy as it is in force.
    pub runtime: Option<Policy>,
    /// stor's policy as it will be after a reload.
    pub permanent: Option<Policy>,
    /// Zones whose rules in force are not those that are saved; only known while the policy is not in force.
    pub unsaved: Vec<String>,
}

/// A policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    target: String,
    ingress: BTreeSet<String>,
    egress: BTreeSet<String>,
    rules: BTreeSet<String>,
}

/// The answers that [`State::read`] reads, by the marks of the query.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Answers<'a> {
    pub version: &'a str,
    pub runtime: &'a str,
    pub permanent: &'a str,
    pub zones: &'a str,
    pub permanent_zones: &'a str,
}

impl State {
    pub(super) fn read(answers: Answers<'_>) -> Self {
        let (now, saved) = (zones(answers.zones), zones(answers.permanent_zones));
        let differs = |name: &&&str| now.get(**name) != saved.get(**name);
        let names: BTreeSet<&str> = now.keys().chain(saved.keys()).copied().collect();
        Self {
            version: answers.version.trim().to_owned(),
            runtime: Policy::parse(answers.runtime),
            permanent: Policy::parse(answers.permanent),
            unsaved: names.iter().filter(differs).map(|name| (*name).to_owned()).collect(),
        }
    }

    fn sides(&self) -> [(Side, Option<&Policy>); 2] {
        [(Side::Permanent, self.permanent.as_ref()), (Side::Runtime, self.runtime.as_ref())]
    }

    /// The rules in the policy, in force or saved.
    #[must_use]
    pub fn own(&self) -> BTreeSet<String> {
        self.sides()
            .iter()
            .filter_map(|(_, policy)| *policy)
            .flat_map(|policy| policy.rules.clone())
            .collect()
    }

    /// Tells whether this firewalld has policies, which came with 0.9.0.
    fn has_policies(&self) -> bool {
        if self.runtime.is_some() {
            return true;
        }
        let mut numbers = self.version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(0), Some(9))
    }
}

impl Policy {
    /// Reads `firewall-cmd --info-policy`; `None` for its error.
    fn parse(text: &str) -> Option<Self> {
        let mut policy = Self::default();
        for line in text.lines() {
            if let Some((key, value)) = line.trim_start().split_once(':') {
                let words = || value.split_whitespace().map(str::to_owned);
                match key {
                    "target" => value.trim().clone_into(&mut policy.target),
                    "ingress-zones" => policy.ingress.extend(words()),
                    "egress-zones" => policy.egress.extend(words()),
                    _ => {}
                }
            }
            if line.trim_start().starts_with("rule ") {
                policy.rules.insert(line.trim().to_owned());
            }
        }
        (!policy.target.is_empty()).then_some(policy)
    }
}

/// Reads `firewall-cmd --list-all-zones`: what each zone lets in. Interfaces come and go with the network and survive a
/// reload, so they count as no change.
fn zones(text: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut zones: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        match line.starts_with([' ', '\t']) {
            false => name = line.split(' ').next().unwrap_or(""),
            true if line.trim_start().starts_with("interfaces:") => {}
            true => _ = zones.entry(name).or_default().insert(line.trim()),
        }
    }
    zones
}

/// What a change of a policy applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Permanent,
    Runtime,
}

impl Side {
    fn command(self) -> Command {
        match self {
            Self::Permanent => Command::new("firewall-cmd").args(["--quiet", "--permanent"]),
            Self::Runtime => Command::new("firewall-cmd").arg("--quiet"),
        }
    }
}

/// The rule as firewalld lists it.
#[must_use]
pub fn text(rule: &Rule) -> String {
    let Rule { peer, protocol, .. } = rule;
    let ports = rule.ports('-');
    format!(
        "rule family=\"ipv4\" source address=\"{peer}\" port port=\"{ports}\" protocol=\"{protocol}\" accept"
    )
}

/// Adds what is missing to the policy in force and to the saved one; makes the policy where there is none.
///
/// Only a reload brings a new policy into force.
///
/// # Errors
/// [`Refused`] for a firewalld without policies, and for one whose changes a reload would undo.
pub fn open(state: &State, mark: &Mark, wanted: &BTreeSet<String>) -> Result<Vec<Change>, Refused> {
    let own = mark.own();
    let mut commands = Vec::new();
    for (side, policy) in state.sides() {
        let policy = match policy {
            Some(policy) => policy.clone(),
            // The reload brings the permanent policy as a whole.
            None if side == Side::Runtime => continue,
            None => {
                commands.push(side.command().arg(format!("--new-policy={own}")));
                Policy { target: "CONTINUE".to_owned(), ..Policy::default() }
            }
        };
        commands.extend(complete(side, &policy, &own, wanted));
    }
    let why = reasons(state, wanted);
    if state.runtime.is_none() {
        commands.push(Command::new("firewall-cmd").args(["--quiet", "--check-config"]));
        commands.push(Command::new("firewall-cmd").args(["--quiet", "--reload"]));
    }
    if why.is_empty() {
        return Ok(Vec::new());
    }
    if !state.has_policies() {
        return Err(Refused::NoPolicies { version: state.version.clone() });
    }
    if state.runtime.is_none() && !state.unsaved.is_empty() {
        return Err(Refused::Unsaved { zones: state.unsaved.clone() });
    }
    let title = format!("open the firewall (firewalld): {}", ufw::count(why.len()));
    Ok(vec![Change { title, why, effect: Effect::Run(commands) }])
}

/// What one side of the policy lacks, in one command each for zones and for rules.
fn complete(side: Side, policy: &Policy, own: &str, wanted: &BTreeSet<String>) -> Vec<Command> {
    let command = || side.command().arg(format!("--policy={own}"));
    let mut commands = Vec::new();
    if policy.target != "CONTINUE" && side == Side::Permanent {
        commands.push(command().arg("--set-target=CONTINUE"));
    }
    if !policy.ingress.contains(INGRESS) {
        commands.push(command().arg(format!("--add-ingress-zone={INGRESS}")));
    }
    if !policy.egress.contains(EGRESS) {
        commands.push(command().arg(format!("--add-egress-zone={EGRESS}")));
    }
    let rules: Vec<String> =
        wanted.difference(&policy.rules).map(|text| format!("--add-rich-rule={text}")).collect();
    if !rules.is_empty() {
        commands.push(command().args(rules));
    }
    commands
}

fn reasons(state: &State, wanted: &BTreeSet<String>) -> Vec<Difference> {
    let none = BTreeSet::new();
    let rules = |policy: &Option<Policy>| policy.as_ref().map_or(none.clone(), |policy| policy.rules.clone());
    let (now, saved) = (rules(&state.runtime), rules(&state.permanent));
    let nowhere = wanted.iter().filter(|text| !now.contains(*text) && !saved.contains(*text));
    let mut why = missing(Tool::Firewalld, nowhere);
    let field = format!("firewall.{}", Tool::Firewalld.name());
    let half = |text: &String, observed| Difference::new(field.clone(), text, observed);
    why.extend(
        wanted.difference(&now).filter(|text| saved.contains(*text)).map(|text| half(text, "not in force")),
    );
    why.extend(
        wanted.difference(&saved).filter(|text| now.contains(*text)).map(|text| half(text, "not saved")),
    );
    for (side, policy) in state.sides() {
        let Some(policy) = policy else { continue };
        let complete = policy.ingress.contains(INGRESS) && policy.egress.contains(EGRESS);
        if !complete {
            let field = match side {
                Side::Permanent => "firewall.policy.permanent",
                Side::Runtime => "firewall.policy",
            };
            let observed = format!("{:?} to {:?}", policy.ingress, policy.egress);
            why.push(Difference::new(field, format!("{INGRESS} to {EGRESS}"), observed));
        }
    }
    why
}

/// Takes rules out of the policy, in force and saved.
#[must_use]
pub fn close(state: &State, mark: &Mark, kept: &BTreeSet<String>) -> Vec<Change> {
    let commands: Vec<Command> = state
        .sides()
        .into_iter()
        .filter_map(|(side, policy)| take(side, policy?.rules.difference(kept), mark))
        .collect();
    let own = state.own();
    let why = surplus(Tool::Firewalld, own.difference(kept));
    if why.is_empty() {
        return Vec::new();
    }
    let title = format!("close the firewall (firewalld): {}", ufw::count(why.len()));
    vec![Change { title, why, effect: Effect::Run(commands) }]
}

fn take<'t>(side: Side, texts: impl Iterator<Item = &'t String>, mark: &Mark) -> Option<Command> {
    let rules: Vec<String> = texts.map(|text| format!("--remove-rich-rule={text}")).collect();
    (!rules.is_empty()).then(|| side.command().arg(format!("--policy={}", mark.own())).args(rules))
}

/// Removes the policy. In force it stays behind empty and without zones until the next reload, which may undo what
/// somebody did not save and so is not stor's to do.
#[must_use]
pub fn remove(state: Option<&State>, mark: &Mark) -> Vec<Command> {
    let own = mark.own();
    let mut commands = Vec::new();
    if let Some(policy) = state.and_then(|state| state.runtime.as_ref()) {
        let command = || Side::Runtime.command().arg(format!("--policy={own}"));
        commands.extend(take(Side::Runtime, policy.rules.iter(), mark));
        commands
            .extend(policy.ingress.iter().map(|zone| command().arg(format!("--remove-ingress-zone={zone}"))));
        commands
            .extend(policy.egress.iter().map(|zone| command().arg(format!("--remove-egress-zone={zone}"))));
    }
    if state.is_some_and(|state| state.permanent.is_some()) {
        commands.push(Side::Permanent.command().arg(format!("--delete-policy={own}")));
    }
    // It keeps a copy beside the file; and a firewalld that does not run keeps the file.
    let file = format!("/etc/firewalld/policies/{own}.xml");
    commands.push(Command::new("rm").args(["-f", "--", &file, &format!("{file}.old")]));
    commands
}
