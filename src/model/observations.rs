//! What the hosts answered in one round. A host that did not answer is unobserved, which never means absent.

use std::collections::BTreeMap;

use super::{Answer, HostId, Query};

/// One host's part of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostSeen {
    /// The host answered; each query of the batch has its answer.
    Answered(BTreeMap<Query, Answer>),
    /// The host could not be asked, for the reason given.
    Unobserved(String),
}

/// The answers of all hosts of one round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observations {
    hosts: BTreeMap<HostId, HostSeen>,
}

/// Says that a fact is unknown, which is not the same as absent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The host did not answer in this round.
    #[error("host {host} was not observed: {reason}")]
    Host {
        /// The host.
        host: HostId,
        /// Why it was not.
        reason: String,
    },
    /// The host answered but was killed at the deadline of this query.
    #[error("host {host}: `{query}` did not finish within {}", humantime::format_duration(query.command().deadline))]
    Deadline {
        /// The host.
        host: HostId,
        /// The query.
        query: Box<Query>,
    },
    /// The query was not part of the round: a defect of stor.
    #[error("host {host}: `{query}` was not asked")]
    NotAsked {
        /// The host.
        host: HostId,
        /// The query.
        query: Box<Query>,
    },
}

impl Observations {
    /// Records what one host showed.
    pub fn insert(&mut self, host: HostId, seen: HostSeen) {
        self.hosts.insert(host, seen);
    }

    /// The part of one host; `None` when it was not in the round at all.
    #[must_use]
    pub fn host(&self, host: &HostId) -> Option<&HostSeen> {
        self.hosts.get(host)
    }

    /// All hosts of the round with what they showed, sorted.
    pub fn hosts(&self) -> impl Iterator<Item = (&HostId, &HostSeen)> {
        self.hosts.iter()
    }

    /// The answer of `host` to `query`.
    ///
    /// # Errors
    /// [`Unknown`] when the host was not observed, the query was not asked, or was killed at its deadline.
    pub fn answer(&self, host: &HostId, query: &Query) -> Result<&Answer, Unknown> {
        let answers = match self.hosts.get(host) {
            Some(HostSeen::Answered(answers)) => answers,
            Some(HostSeen::Unobserved(reason)) => {
                return Err(Unknown::Host { host: host.clone(), reason: reason.clone() });
            }
            None => return Err(Unknown::Host { host: host.clone(), reason: "it was not asked".to_owned() }),
        };
        match answers.get(query) {
            Some(answer) if answer.status.is_some() => Ok(answer),
            Some(_) => Err(Unknown::Deadline { host: host.clone(), query: Box::new(query.clone()) }),
            None => Err(Unknown::NotAsked { host: host.clone(), query: Box::new(query.clone()) }),
        }
    }
}
