//! Observing: asks every host what the planner needs to know, one batch per host, all hosts at once.
//!
//! Imports `host` and `model`. What to ask is `plan`'s business; a host that does not answer is recorded as unobserved
//! with its reason and never as empty.

use std::collections::{BTreeMap, BTreeSet};

use crate::host::claim::Locks;
use crate::host::{Fleet, Holder, HostError};
pub use crate::model::Observations;
use crate::model::{Answer, HostId, HostSeen, Query};

/// What each host is asked.
pub type Batches = BTreeMap<HostId, Vec<Query>>;

/// Asks all hosts, each query once.
#[must_use]
pub fn observe(fleet: &Fleet, batches: &Batches) -> Observations {
    let hosts: Vec<HostId> = batches.keys().cloned().collect();
    let answers = fleet.each(&hosts, |id| {
        let batch = distinct(&batches[id]);
        let seen = fleet.host(id).map(|host| host.query(&batch));
        match seen {
            Some(Ok(answers)) => answered(batch, answers),
            Some(Err(error)) => HostSeen::Unobserved(reason(id, &error)),
            None => HostSeen::Unobserved("it is not in the fleet".to_owned()),
        }
    });
    collect(answers)
}

/// Takes the lock of every host and asks it in the same round trip; a host that does not answer is unobserved.
///
/// # Errors
/// [`HostError::Busy`] of every host whose lock somebody else holds; then none is kept.
pub fn observe_locked(
    fleet: &Fleet,
    holder: &Holder,
    batches: &Batches,
) -> Result<(Observations, Locks), Vec<HostError>> {
    let asked: Batches = batches.iter().map(|(id, batch)| (id.clone(), distinct(batch))).collect();
    let mut locks = Locks::default();
    let taken = locks.take(fleet, holder, &asked)?;
    let seen = |(id, result): (HostId, Result<Vec<Answer>, HostError>)| {
        let seen = match result {
            Ok(answers) => answered(asked[&id].clone(), answers),
            Err(error) => HostSeen::Unobserved(reason(&id, &error)),
        };
        (id, seen)
    };
    Ok((collect(taken.into_iter().map(seen).collect()), locks))
}

/// Each query once, in the order in which it was first named.
fn distinct(batch: &[Query]) -> Vec<Query> {
    let mut named = BTreeSet::new();
    batch.iter().filter(|query| named.insert(*query)).cloned().collect()
}

fn answered(batch: Vec<Query>, answers: Vec<Answer>) -> HostSeen {
    HostSeen::Answered(batch.into_iter().zip(answers).collect())
}

fn collect(hosts: BTreeMap<HostId, HostSeen>) -> Observations {
    let mut seen = Observations::default();
    for (id, host) in hosts {
        seen.insert(id, host);
    }
    seen
}

/// The reason without the host's name, which whoever shows it says first, and with what the user can do.
fn reason(id: &HostId, error: &HostError) -> String {
    let text = crate::model::chain(error);
    let text = text.strip_prefix(&format!("host {id}: ")).unwrap_or(&text);
    match error {
        HostError::Unreachable { hint: Some(hint), .. } => format!("{text} (hint: {hint})"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
