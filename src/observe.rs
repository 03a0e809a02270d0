//! Observing: asks every host what the planner needs to know, one batch per host, all hosts at once.
//!
//! Imports `host` and `model`. What to ask is `plan`'s business; a host that does not answer is recorded as unobserved
//! with its reason and never as empty.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::host::{Fleet, Holder, HostError, LockGuard};
pub use crate::model::Observations;
use crate::model::{Answer, HostId, HostSeen, Query};

/// What each host is asked.
pub type Batches = BTreeMap<HostId, Vec<Query>>;

/// How long the one of two applies that will win waits for the other to let go.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two tries.
const RETRY: Duration = Duration::from_millis(100);

/// The locks of all hosts that answered; dropped, they are free again.
#[derive(Default)]
pub struct Locks(BTreeMap<HostId, Box<dyn LockGuard>>);

impl Locks {
    /// The hosts whose lock is held, sorted.
    pub fn hosts(&self) -> impl Iterator<Item = &HostId> {
        self.0.keys()
    }
}

impl std::fmt::Debug for Locks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

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
/// Of two that begin at the same time each may get some hosts first. The one that holds the first of all hosts that
/// answer waits for the other, which gives up at once: so one of them wins.
///
/// # Errors
/// [`HostError::Busy`] of every host whose lock somebody else holds; then none is kept.
pub fn observe_locked(
    fleet: &Fleet,
    holder: &Holder,
    batches: &Batches,
) -> Result<(Observations, Locks), Vec<HostError>> {
    let mut wanted: Vec<HostId> = batches.keys().cloned().collect();
    let (mut seen, mut locks) = (BTreeMap::new(), Locks::default());
    let end = Instant::now() + PATIENCE;
    loop {
        let mut busy = BTreeMap::new();
        for (id, result) in fleet.each(&wanted, |id| lock_one(fleet, holder, id, &batches[id])) {
            match result {
                Ok((guard, answers)) => {
                    locks.0.insert(id.clone(), guard);
                    seen.insert(id, answers);
                }
                Err(error @ HostError::Busy { .. }) => {
                    busy.insert(id, error);
                }
                Err(error) => {
                    let reason = reason(&id, &error);
                    seen.insert(id, HostSeen::Unobserved(reason));
                }
            }
        }
        let Some(first_busy) = busy.keys().next() else { return Ok((collect(seen), locks)) };
        let winning = locks.0.keys().next().is_some_and(|held| held < first_busy);
        if !winning || Instant::now() >= end {
            return Err(busy.into_values().collect());
        }
        wanted = busy.into_keys().collect();
        std::thread::sleep(RETRY);
    }
}

fn lock_one(
    fleet: &Fleet,
    holder: &Holder,
    id: &HostId,
    batch: &[Query],
) -> Result<(Box<dyn LockGuard>, HostSeen), HostError> {
    let batch = distinct(batch);
    let host = fleet.host(id).ok_or_else(|| HostError::Unreachable {
        host: id.clone(),
        reason: "it is not in the fleet".to_owned(),
        hint: None,
    })?;
    let (guard, answers) = host.lock(holder, &batch)?;
    Ok((guard, answered(batch, answers)))
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
