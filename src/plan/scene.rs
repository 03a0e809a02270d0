//! What every part of the planner looks at: the cluster, what the hosts showed, their records and their domains.
//!
//! Pure. Imports `storage`, `guard`, `spec` and `model`. Reads the shared facts once, so that every part sees the same.

use std::collections::BTreeMap;

use super::domains::{self, Domain, DomainsError};
use super::guard;
use crate::guard::facts::{Facts, FactsError};
use crate::model::{HostId, Observations, Record, RecordError, StorageId};
use crate::spec::Cluster;
use crate::storage::Backend;

/// One round of observations with the facts that more than one part needs.
pub(super) struct Scene<'a> {
    /// The file.
    pub cluster: &'a Cluster,
    /// What the hosts answered.
    pub seen: &'a Observations,
    /// One per storage entry, sorted by name.
    pub backends: &'a [Box<dyn Backend + 'a>],
    /// Each host's ownership record.
    pub records: BTreeMap<HostId, Result<Record, RecordError>>,
    /// Each hypervisor's domains.
    pub domains: BTreeMap<HostId, Result<Vec<Domain>, DomainsError>>,
    /// What guards each host.
    pub guards: BTreeMap<HostId, Result<Facts, FactsError>>,
}

impl<'a> Scene<'a> {
    /// Reads the shared facts.
    pub fn new(cluster: &'a Cluster, seen: &'a Observations, backends: &'a [Box<dyn Backend + 'a>]) -> Self {
        let records =
            cluster.hosts.keys().map(|host| (host.clone(), Record::observed(seen, &cluster.name, host)));
        let domains = cluster
            .hosts
            .values()
            .filter_map(|host| Some((host.id.clone(), domains::read(seen, &host.id, host.role.driver()?))));
        let guards =
            cluster.hosts.keys().map(|host| (host.clone(), guard::read(cluster, backends, seen, host)));
        let guards = guards.collect();
        Self { cluster, seen, backends, records: records.collect(), domains: domains.collect(), guards }
    }

    /// The backend of one storage entry.
    pub fn backend(&self, storage: &StorageId) -> Option<&dyn Backend> {
        self.backends.iter().find(|backend| backend.id() == storage).map(|backend| &**backend)
    }

    /// Every domain of every hypervisor that showed its own, sorted by host.
    pub fn all_domains(&self) -> impl Iterator<Item = (&HostId, &Domain)> {
        self.domains
            .iter()
            .filter_map(|(host, domains)| Some((host, domains.as_ref().ok()?)))
            .flat_map(|(host, domains)| domains.iter().map(move |domain| (host, domain)))
    }

    /// The domains of this name, sorted by host.
    pub fn domains_named<'s>(&'s self, name: &'s str) -> impl Iterator<Item = (&'s HostId, &'s Domain)> {
        self.all_domains().filter(move |(_, domain)| domain.name == name)
    }

    /// The domains that have this name or this UUID, sorted by host.
    pub fn domains_of<'s>(
        &'s self,
        name: &'s str,
        uuid: &'s str,
    ) -> impl Iterator<Item = (&'s HostId, &'s Domain)> {
        self.all_domains().filter(move |(_, domain)| domain.name == name || domain.uuid == uuid)
    }
}
