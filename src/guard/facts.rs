//! What is asked of a host about its guards, and how the answer is read. Pure; imports `model`.
//!
//! One constant script asks all tools (`docs/adr/0070`): where there is none it starts no other process.

use std::collections::BTreeMap;

use super::{Firewall, Mark, firewalld, nftables, selinux, ufw};
use crate::model::{Command, HostId, Observations, Query, Unknown};

/// See its first line.
const ASK: &str = include_str!("ask.sh");
/// What introduces a section of the answer.
const SECTION: &str = "\n%stor:";

/// What guards one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The firewall, if one lets through only what it is told.
    pub firewall: Option<Firewall>,
    /// ufw's rules, also where ufw is switched off and the ownership record names it.
    pub ufw: Option<ufw::State>,
    /// SELinux booleans that were asked for and that its policy has; `None` where SELinux is off.
    pub booleans: Option<BTreeMap<String, bool>>,
}

/// Says why a fact about a host's guards is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// The host or its answer is unknown.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// The host has a firewall that does not say whether it guards.
    #[error("host {host}: whether its firewall is on is not known: {said}")]
    Silent {
        /// The host.
        host: HostId,
        /// What was said instead.
        said: String,
    },
    /// The rules of nftables cannot be read.
    #[error("host {host}: the rules of nftables cannot be read")]
    Ruleset {
        /// The host.
        host: HostId,
        /// What is wrong with them.
        #[source]
        source: nftables::RulesetError,
    },
}

/// Asks for firewall and booleans.
#[must_use]
pub fn query(mark: &Mark, booleans: &[&str]) -> Query {
    let words = ["-c", ASK, "guard", &mark.own(), mark.cluster.as_str()];
    Query::new(Command::new("sh").args(words).args(booleans.iter().copied()))
}

/// Reads the answer to [`query`].
///
/// # Errors
/// [`FactsError`]
pub fn read(seen: &Observations, host: &HostId, mark: &Mark, booleans: &[&str]) -> Result<Facts, FactsError> {
    let answer = seen.answer(host, &query(mark, booleans))?;
    let sections: BTreeMap<&str, &str> =
        answer.stdout.split(SECTION).skip(1).filter_map(|section| section.split_once('\n')).collect();
    let section = |name: &str| sections.get(name).copied();
    let text = |name: &str| section(name).unwrap_or_default();
    if let Some(said) = section("unknown") {
        return Err(FactsError::Silent { host: host.clone(), said: said.trim_end().to_owned() });
    }
    let added = section("ufw-rules").map(|text| ufw::parse(text, mark));
    let firewall = if section("firewalld").is_some() {
        Some(Firewall::Firewalld(firewalld::State::read(firewalld::Answers {
            version: text("version"),
            runtime: text("runtime"),
            permanent: text("permanent"),
            zones: text("zones"),
            permanent_zones: text("permanent-zones"),
        })))
    } else if let (Some(_), Some(added)) = (section("ufw"), &added) {
        Some(Firewall::Ufw(added.clone()))
    } else if let Some(ruleset) = section("nftables") {
        let answers = nftables::Answers {
            ruleset,
            rules_file: section("rules"),
            unit_file: section("unit"),
            unit: text("unit-state"),
        };
        nftables::State::read(answers, mark)
            .map_err(|source| FactsError::Ruleset { host: host.clone(), source })?
            .map(Firewall::Nftables)
    } else {
        None
    };
    let enforced = section("selinux").map(|text| {
        let known =
            booleans.iter().filter_map(|name| Some(((*name).to_owned(), selinux::parse(text, name)?)));
        known.collect()
    });
    Ok(Facts { firewall, ufw: added, booleans: enforced })
}
