//! What planning for one storage entry has in common, whatever its backend: what it looks at, the order of servers and
//! hypervisors, why a part stops, how a hypervisor gets its packages. Pure.
//!
//! Imports `packages`, `spec` and `model`. What a storage needs is decided in each backend's `plan`.

use std::collections::BTreeSet;

use super::packages::{self, Need, PackagesError};
use crate::model::{
    Blocked, HostId, Observations, Proposal, Query, Record, RecordError, ResourceId, ResourceKind, StorageId,
    Unknown, Wave,
};
use crate::spec::Cluster;

/// One storage entry with everything that planning for it looks at; `S` is what the file says about it.
#[derive(Debug)]
pub struct Subject<'a, S> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The entry's name.
    pub id: &'a StorageId,
    /// What the file says.
    pub spec: &'a S,
    /// What the hosts showed.
    pub seen: &'a Observations,
}

// Derived, they would want the same of `S`.
impl<S> Clone for Subject<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S> Copy for Subject<'_, S> {}

impl<S> Subject<'_, S> {
    /// The record of a host; empty when it is not known, which is then reported by whoever plans the record.
    #[must_use]
    pub fn record(&self, host: &HostId) -> Record {
        Record::observed(self.seen, &self.cluster.name, host)
            .unwrap_or_else(|_| Record::empty(&self.cluster.name))
    }
}

/// Whether hypervisors may count on the storage once the servers' steps have run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// It is there, or the plan brings it about.
    Coming,
    /// Something about the servers is unknown: hypervisors get what they need of themselves only.
    Unknown,
    /// It is refused: nothing at all is changed for this storage.
    Refused,
}

impl Service {
    /// What follows from the blocked parts of the servers.
    #[must_use]
    pub fn after(blocked: &[Blocked]) -> Self {
        match blocked {
            [] => Self::Coming,
            blocked if blocked.iter().all(|blocked| blocked.unknown) => Self::Unknown,
            _ => Self::Refused,
        }
    }
}

/// Plans for all hypervisors behind the servers, for which `out` holds the plan. What is refused is refused as a whole: no
/// package, no directory, no mount.
pub fn hypervisors<S>(
    subject: &Subject<'_, S>,
    service: Service,
    mut out: Proposal,
    one: impl Fn(&HostId, &mut Proposal),
) -> Proposal {
    if service == Service::Refused {
        out.steps.clear();
        return out;
    }
    subject.cluster.hypervisors().for_each(|host| one(&host.id, &mut out));
    out
}

/// Why a hypervisor's part cannot be planned.
#[derive(Debug)]
pub enum Stop {
    /// A fact is missing.
    Unknown(String),
    /// Something stands in the way; with what the user can do.
    Refused(String, Option<String>),
}

impl Stop {
    /// What it makes of a part of the plan.
    #[must_use]
    pub fn blocked(self, wave: Wave, what: ResourceId) -> Blocked {
        match self {
            Self::Unknown(reason) => Blocked::unknown(wave, what, reason),
            Self::Refused(reason, hint) => Blocked { hint, ..Blocked::new(wave, what, reason) },
        }
    }
}

impl From<Unknown> for Stop {
    fn from(error: Unknown) -> Self {
        Self::Unknown(error.to_string())
    }
}
impl From<RecordError> for Stop {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Unknown(unknown) => unknown.into(),
            other => Self::Refused(other.to_string(), None),
        }
    }
}

impl From<PackagesError> for Stop {
    fn from(error: PackagesError) -> Self {
        match error {
            PackagesError::Unknown(unknown) => unknown.into(),
            other => {
                Self::Refused(other.to_string(), Some("install the storage's client by hand".to_owned()))
            }
        }
    }
}

/// Refuses a part, with what the user can do.
///
/// # Errors
/// Always.
pub fn refuse<T>(reason: String, hint: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Refused(reason, Some(hint.into())))
}

/// Notes why a part stopped; tells whether to go on.
pub fn keep(
    result: Result<(), Stop>,
    (wave, what): (Wave, ResourceId),
    (storage, host): (&StorageId, &HostId),
    out: &mut Proposal,
) -> bool {
    let Err(stop) = result else { return true };
    out.blocked.push(stop.blocked(wave, what).on(host).serving(storage));
    false
}

/// Plans what a hypervisor lacks of its packages; tells whether to go on.
pub fn install<S>(subject: &Subject<'_, S>, host: &HostId, needs: &[Need], out: &mut Proposal) -> bool {
    const WAVE: Wave = Wave::ClientPrerequisites;
    let missing = packages::missing(subject.seen, host, needs).map_err(Stop::from);
    let planned = missing.map(|(family, missing)| {
        out.steps.extend(packages::step(WAVE, host, subject.id, family, &missing));
    });
    keep(planned, (WAVE, ResourceId::new(ResourceKind::Package, host)), (subject.id, host), out)
}

/// What is asked on a host that has a part in the storage: its parts' queries, each once, and the record.
#[must_use]
pub fn batch(cluster: &Cluster, parts: impl IntoIterator<Item = Query>) -> Vec<Query> {
    let mut queries: Vec<Query> = parts.into_iter().collect();
    if !queries.is_empty() {
        queries.push(Record::query(&cluster.name));
    }
    let mut asked = BTreeSet::new();
    queries.retain(|query| asked.insert(query.clone()));
    queries
}
