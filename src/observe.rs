//! Observing: asks every host what the planner needs to know, one batch per host, all hosts at once.
//!
//! Imports `host` and `model`. What is asked is decided in `plan`, `storage` and `status`.

use std::collections::BTreeMap;

use crate::host::{Fleet, Holder, Host, HostError, LockGuard};
use crate::model::{Answer, HostId, HostSeen, Observations, Query};

/// The held locks of an apply; dropped, they are free again.
pub type Locks = Vec<Box<dyn LockGuard>>;

/// Asks every host its batch; a host that cannot be asked is unobserved, with the reason.
#[must_use]
pub fn observe(fleet: &Fleet, batches: &BTreeMap<HostId, Vec<Query>>) -> Observations {
    let mut seen = Observations::default();
    for (host, answers) in each(fleet, batches, |host, batch| host.query(batch)) {
        seen.insert(host.clone(), shown(&batches[&host], answers));
    }
    seen
}

/// Takes every host's lock and asks its batch in the same round trip.
///
/// # Errors
/// All [`HostError::Busy`] when somebody else holds a lock; the locks that were taken are free again then. A host that
/// cannot be reached is unobserved, and nothing is planned on it.
pub fn observe_locked(
    fleet: &Fleet,
    holder: &Holder,
    batches: &BTreeMap<HostId, Vec<Query>>,
) -> Result<(Observations, Locks), Vec<HostError>> {
    let (mut seen, mut locks, mut busy) = (Observations::default(), Locks::new(), Vec::new());
    for (host, result) in each(fleet, batches, |host, batch| host.lock(holder, batch)) {
        let answers = match result {
            Ok((lock, answers)) => {
                locks.push(lock);
                Ok(answers)
            }
            Err(error @ HostError::Busy { .. }) => {
                busy.push(error);
                continue;
            }
            Err(error) => Err(error),
        };
        seen.insert(host.clone(), shown(&batches[&host], answers));
    }
    if busy.is_empty() { Ok((seen, locks)) } else { Err(busy) }
}

fn each<T: Send>(
    fleet: &Fleet,
    batches: &BTreeMap<HostId, Vec<Query>>,
    ask: impl Fn(&dyn Host, &[Query]) -> Result<T, HostError> + Sync,
) -> BTreeMap<HostId, Result<T, HostError>> {
    let hosts: Vec<HostId> = batches.keys().cloned().collect();
    fleet.each(&hosts, |id| match fleet.host(id) {
        Some(host) => ask(host.as_ref(), &batches[id]),
        None => {
            Err(HostError::Protocol { host: id.clone(), reason: "the cluster has no such host".to_owned() })
        }
    })
}

fn shown(batch: &[Query], answers: Result<Vec<Answer>, HostError>) -> HostSeen {
    match answers {
        Ok(answers) => HostSeen::Answered(batch.iter().cloned().zip(answers).collect()),
        Err(error) => HostSeen::Unobserved(reason(&error)),
    }
}

/// The error's words without the host's name, which whoever shows it adds again.
fn reason(error: &HostError) -> String {
    match error {
        HostError::Unreachable { reason, hint: Some(hint), .. } => format!("{reason} (hint: {hint})"),
        HostError::Unreachable { reason, .. } | HostError::Protocol { reason, .. } => reason.clone(),
        HostError::Elevation { reason, .. } => format!("cannot become root: {reason}"),
        HostError::Local { source, .. } => format!("{error}: {source}"),
        HostError::Busy { .. } | HostError::Failed { .. } | HostError::Deadline { .. } => error.to_string(),
    }
}
