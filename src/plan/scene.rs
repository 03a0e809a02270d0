//! What every part of the planner looks at: the cluster, what the hosts showed, their records and their domains.
//!
//! Pure. Imports `storage`, `guard`, `spec` and `model`. Reads the shared facts once, so that every part sees the same.

use std::collections::BTreeMap;

use super::domains::{self, Domain, DomainsError};
use super::guard;
use super::marks::{self, Marks};
use crate::guard::facts::{Facts, FactsError};
use crate::model::{
    Dead, Driver, HostId, HostSpec, Members, Observations, OwnedKind, Record, RecordError, StorageId, Unknown,
};
use crate::spec::Cluster;
use crate::storage::mount_probe::mount_table::{self, Mount};
use crate::storage::mount_probe::mounts;
use crate::storage::{Backend, traces};

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
    /// What the records remember of the cluster's hypervisors, and whom the user named as dead.
    pub members: Members,
    /// Hosts of the file that were hypervisors, and are none any more.
    pub plain: BTreeMap<HostId, Driver>,
    /// What each host shows besides its record.
    pub marks: BTreeMap<HostId, Result<Marks, Unknown>>,
    /// What each host has mounted.
    pub mounts: BTreeMap<HostId, Result<Vec<Mount>, Unknown>>,
    /// The domains of each hypervisor, and of each host that was one.
    pub domains: BTreeMap<HostId, Result<Vec<Domain>, DomainsError>>,
    /// What guards each host.
    pub guards: BTreeMap<HostId, Result<Facts, FactsError>>,
}

impl<'a> Scene<'a> {
    /// Reads the shared facts.
    pub fn new(
        cluster: &'a Cluster,
        seen: &'a Observations,
        backends: &'a [Box<dyn Backend + 'a>],
        dead: &Dead,
    ) -> Self {
        let hosts = || cluster.hosts.keys();
        let records: BTreeMap<_, _> =
            hosts().map(|host| (host.clone(), Record::observed(seen, &cluster.name, host))).collect();
        let known = records.iter().filter_map(|(host, record)| Some((host, record.as_ref().ok()?)));
        let mut members = Members::read(known.clone(), dead);
        let marks: BTreeMap<_, _> =
            hosts().map(|host| (host.clone(), marks::read(seen, &cluster.name, host))).collect();
        let of_older = marks.iter().filter(|(host, _)| {
            known.clone().any(|(other, record)| other == *host && !record.owned.is_empty())
        });
        members.or_shown(
            of_older.filter_map(|(_, marks)| marks.as_ref().ok()).flat_map(|marks| marks.peers.clone()),
        );
        let mut plain = members.plain(&cluster.hosts);
        let was_client =
            |record: &Record| record.owned.iter().any(|entry| traces::is_client_side(entry.kind));
        for (host, _) in known.filter(|(host, record)| !cluster.is_hypervisor(host) && was_client(record)) {
            plain.entry(host.clone()).or_insert(Driver::Qemu);
        }
        let driver = |host: &HostSpec| host.role.driver().or_else(|| plain.get(&host.id).copied());
        let domains = cluster
            .hosts
            .values()
            .filter_map(|host| Some((host.id.clone(), domains::read(seen, &host.id, driver(host)?))));
        let domains = domains.collect();
        let table = |host| seen.answer(host, &mounts()).map(|answer| mount_table::parse(&answer.stdout));
        let mounts = hosts().map(|host| (host.clone(), table(host)));
        let guards =
            cluster.hosts.keys().map(|host| (host.clone(), guard::read(cluster, backends, seen, host)));
        let guards = guards.collect();
        let mounts = mounts.collect();
        Self { cluster, seen, backends, records, members, plain, marks, mounts, domains, guards }
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

    /// Says which hypervisors left the file unasked: whether they have a guest, or use a storage, is not known.
    pub fn lost(&self) -> Option<String> {
        let lost = self.members.lost(&self.cluster.hosts);
        let names: Vec<String> = lost.into_iter().map(ToString::to_string).collect();
        let one = names.len() == 1;
        let words = if one { "left the file and was" } else { "left the file and were" };
        let host = if one { "host" } else { "hosts" };
        (!names.is_empty()).then(|| format!("{host} {} {words} not asked", names.join(", ")))
    }

    /// Tells whether any host's record says that stor made this.
    pub fn owned_anywhere(&self, kind: OwnedKind, name: &str) -> bool {
        self.records.values().flatten().any(|record| record.owns(kind, name))
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
