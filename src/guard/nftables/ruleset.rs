//! Reads `nft --json list ruleset`: which base chains refuse packets, and what of stor's is there. Pure.
//!
//! Source: libnftables-json(5).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::{RulesetError, State, text};
use crate::guard::{Protocol, Rule};

/// A table that sees IPv4.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table {
    /// `inet` or `ip`.
    pub family: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// A chain of such a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chain {
    /// Its table.
    pub table: Table,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.table, self.name)
    }
}

/// Everything of a ruleset that matters here.
#[derive(Default)]
struct Ruleset<'j> {
    /// Base chains on the way in; whether their policy is to drop.
    base: BTreeMap<Chain, bool>,
    /// All chains.
    chains: BTreeSet<Chain>,
    /// The expressions of each chain's rules.
    rules: BTreeMap<Chain, Vec<&'j [Value]>>,
}

pub(super) fn read(json: &Value, own: &str) -> Result<State, RulesetError> {
    let ruleset = Ruleset::read(json);
    let mut state = State::default();
    for (chain, drops) in &ruleset.base {
        if *drops || ruleset.refuses(chain, own, &mut BTreeSet::new()) {
            writable(&chain.table.name)?;
            writable(&chain.name)?;
            state.guarded.insert(chain.clone());
        }
        if ruleset.of(chain).any(|rule| targets(rule).contains(&own)) {
            state.jumps.insert(chain.clone());
        }
    }
    for chain in ruleset.chains.iter().filter(|chain| chain.name == own) {
        let rules: Vec<_> = ruleset.of(chain).map(own_rule).collect();
        state.strange += rules.iter().filter(|rule| rule.is_none()).count();
        state.chains.insert(chain.table.clone(), rules.iter().flatten().map(text).collect());
    }
    Ok(state)
}

/// Refuses names that only fit in quotes.
fn writable(name: &str) -> Result<(), RulesetError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    match name.bytes().all(plain)
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
    {
        true => Ok(()),
        false => Err(RulesetError::Name(name.to_owned())),
    }
}

impl<'j> Ruleset<'j> {
    fn read(json: &'j Value) -> Self {
        let mut ruleset = Self::default();
        for object in json["nftables"].as_array().into_iter().flatten() {
            if let Some(chain) = object.get("chain") {
                let Some(name) = chain_of(chain, "name") else { continue };
                if chain["hook"] == "input" && chain["type"] == "filter" {
                    ruleset.base.insert(name.clone(), chain["policy"] == "drop");
                }
                ruleset.chains.insert(name);
            }
            if let Some(rule) = object.get("rule") {
                let Some(name) = chain_of(rule, "chain") else { continue };
                let expressions = rule["expr"].as_array().map_or(&[][..], Vec::as_slice);
                ruleset.rules.entry(name).or_default().push(expressions);
            }
        }
        ruleset
    }

    fn of(&self, chain: &Chain) -> impl Iterator<Item = &'j [Value]> {
        self.rules.get(chain).into_iter().flatten().copied()
    }

    /// Tells whether a chain, or one that it hands packets to, drops or rejects any that could be a peer's.
    fn refuses(&self, chain: &Chain, own: &str, seen: &mut BTreeSet<Chain>) -> bool {
        if !seen.insert(chain.clone()) {
            return false;
        }
        self.of(chain).any(|rule| {
            let next = targets(rule).into_iter().filter(|target| *target != own).map(str::to_owned);
            let next: Vec<_> = next.map(|name| Chain { table: chain.table.clone(), name }).collect();
            (has_refusal(rule) && !is_hygiene(rule)) || next.iter().any(|next| self.refuses(next, own, seen))
        })
    }
}

/// The chain that an object names; `None` for families that IPv4 packets to this host do not pass.
fn chain_of(object: &Value, field: &str) -> Option<Chain> {
    let text = |field: &str| object[field].as_str().map(str::to_owned);
    let family = text("family").filter(|family| family == "ip" || family == "inet")?;
    Some(Chain { table: Table { family, name: text("table")? }, name: text(field)? })
}

/// The chains that a rule hands packets to, by `jump`, `goto` or a verdict map.
fn targets(rule: &[Value]) -> Vec<&str> {
    fn collect<'v>(value: &'v Value, into: &mut Vec<&'v str>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(key, value)| match key.as_str() {
                "jump" | "goto" => into.extend(value["target"].as_str()),
                _ => collect(value, into),
            }),
            Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
            _ => {}
        }
    }
    let mut targets = Vec::new();
    rule.iter().for_each(|expression| collect(expression, &mut targets));
    targets
}

/// Tells whether a rule drops or rejects; iptables over nftables has targets of its own.
fn has_refusal(rule: &[Value]) -> bool {
    let verdict = |value: &Value| value.get("drop").is_some() || value.get("reject").is_some();
    rule.iter().any(|expression| {
        let target = &expression["xt"];
        let legacy = target["type"] == "target" && (target["name"] == "REJECT" || target["name"] == "DROP");
        let map = expression["vmap"]["data"]["set"].as_array();
        let mapped = map.into_iter().flatten().any(|pair| verdict(&pair[1]));
        verdict(expression) || legacy || mapped
    })
}

/// Tells whether a rule refuses only what no peer sends, or who is in a list that somebody keeps (as fail2ban does):
/// packets of no connection, and addresses of a named set.
fn is_hygiene(rule: &[Value]) -> bool {
    let is_state = |key: &Value| key["ct"]["key"] == "state";
    let invalid = |word: &Value| word == "invalid" || word == "untracked";
    rule.iter().any(|expression| {
        let test = &expression["match"];
        let (left, right) = (&test["left"], &test["right"]);
        let states = right.as_array().map_or(invalid(right), |words| words.iter().all(invalid));
        let listed = right.as_str().is_some_and(|set| set.starts_with('@'));
        let narrow = (is_state(left) && states) || (left["payload"]["field"] == "saddr" && listed);
        (narrow && test["op"] != "!=") || is_state(&expression["vmap"]["key"])
    })
}

/// Reads a rule as stor writes it.
fn own_rule(rule: &[Value]) -> Option<Rule> {
    let [source, ports, verdict] = rule else { return None };
    let (source, ports) = (&source["match"], &ports["match"]);
    let is = |side: &Value, protocol: &str, field: &str| {
        side["op"] == "=="
            && side["left"]["payload"]["protocol"] == protocol
            && side["left"]["payload"]["field"] == field
    };
    let protocol = match () {
        () if is(ports, "tcp", "dport") => Protocol::Tcp,
        () if is(ports, "udp", "dport") => Protocol::Udp,
        () => return None,
    };
    if !is(source, "ip", "saddr") || verdict.get("accept").is_none() {
        return None;
    }
    let port = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
    let (first, last) = match ports["right"]["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => (port(first)?, port(last)?),
        _ => (port(&ports["right"])?, port(&ports["right"])?),
    };
    Some(Rule { peer: source["right"].as_str()?.parse().ok()?, protocol, first, last })
}
