//! The locks of several hosts at once: taken so that of two stors one wins, proved, and let go together.
//!
//! Imports `model`. One host's lock is in `lock`; who needs which hosts is the caller's matter.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Fleet, Holder, HostError, LockGuard};
use crate::model::{Answer, HostId, Query};

/// How long the one of two stors that will win waits for the other to let go.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two tries.
const RETRY: Duration = Duration::from_millis(100);

/// What each host answered while its lock was taken, or why it could not be taken.
pub type Taken = BTreeMap<HostId, Result<Vec<Answer>, HostError>>;

/// Held locks; dropped, they are free again.
#[derive(Default)]
pub struct Locks(BTreeMap<HostId, Box<dyn LockGuard>>);

impl std::fmt::Debug for Locks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Locks {
    /// The hosts whose lock is held, sorted.
    pub fn hosts(&self) -> impl Iterator<Item = &HostId> {
        self.0.keys()
    }

    /// Lets all go.
    pub fn release(&mut self) {
        self.0.clear();
    }

    /// Takes the locks of more hosts, each with a batch in the same round trip; one that is held already is not asked again.
    ///
    /// Of two stors that begin at the same time each may get some hosts first. The one that holds the first of all hosts that
    /// answer waits for the other, which gives up at once: so one of them wins.
    ///
    /// # Errors
    /// [`HostError::Busy`] of every host whose lock somebody else holds; then none of this call's is kept.
    pub fn take(
        &mut self,
        fleet: &Fleet,
        holder: &Holder,
        batches: &BTreeMap<HostId, Vec<Query>>,
    ) -> Result<Taken, Vec<HostError>> {
        let mut wanted: Vec<HostId> =
            batches.keys().filter(|id| !self.0.contains_key(*id)).cloned().collect();
        let (mut taken, mut guards) = (Taken::new(), BTreeMap::new());
        let end = Instant::now() + PATIENCE;
        loop {
            let mut busy = BTreeMap::new();
            for (id, result) in fleet.each(&wanted, |id| lock_one(fleet, holder, id, &batches[id])) {
                match result {
                    Ok((guard, answers)) => {
                        guards.insert(id.clone(), guard);
                        taken.insert(id, Ok(answers));
                    }
                    Err(error @ HostError::Busy { .. }) => {
                        busy.insert(id, error);
                    }
                    Err(error) => {
                        taken.insert(id, Err(error));
                    }
                }
            }
            let Some(first_busy) = busy.keys().next() else {
                self.0.extend(guards);
                return Ok(taken);
            };
            let winning = self.hosts().chain(guards.keys()).any(|held| held < first_busy);
            if !winning || Instant::now() >= end {
                return Err(busy.into_values().collect());
            }
            wanted = busy.into_keys().collect();
            std::thread::sleep(RETRY);
        }
    }

    /// Proves that every one of these locks is still held.
    ///
    /// # Errors
    /// Of each host whose lock is lost, or that cannot tell.
    pub fn prove(&self, fleet: &Fleet) -> Result<(), Vec<HostError>> {
        let hosts: Vec<HostId> = self.hosts().cloned().collect();
        let proved = fleet.each(&hosts, |id| fleet.host(id).map_or(Ok(()), |host| host.holds_lock()));
        let errors: Vec<HostError> = proved.into_values().filter_map(Result::err).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

fn lock_one(
    fleet: &Fleet,
    holder: &Holder,
    id: &HostId,
    batch: &[Query],
) -> Result<(Box<dyn LockGuard>, Vec<Answer>), HostError> {
    let host = fleet.host(id).ok_or_else(|| HostError::Unreachable {
        host: id.clone(),
        reason: "it is not in the fleet".to_owned(),
        hint: None,
    })?;
    host.lock(holder, batch)
}
