//! The plan: what every part asks for, joined, checked and put into waves. Pure and deterministic.
//!
//! Imports `storage`, `guard`, `spec`, `libvirt` (XML builders), `host::quote` (only to render a script) and `model`. No I/O:
//! nothing here can reach a host.

pub mod expand;
pub mod script;

mod domains;
mod guard;
mod guests;
mod images;
mod join;
mod occupants;
mod ownership;
mod release;
mod scene;
mod trust;
mod users;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use self::release::Data;
use self::scene::Scene;
use crate::model::{Blocked, Finding, HostId, Observations, Owned, Query, Record, Step, StorageId, Wave};
use crate::spec::Cluster;
use crate::storage::{self, Backend};

/// Everything that would change, in the order in which it would.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Waves that have a step, in order; within a wave sorted by host, then in the order in which steps run.
    pub waves: Vec<(Wave, Vec<Step>)>,
    /// What cannot be planned now, and why.
    pub blocked: Vec<Blocked>,
    /// What the user should know.
    pub findings: Vec<Finding>,
}

impl Plan {
    /// Tells whether the hosts match the file: nothing to do and nothing unknown.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waves.is_empty() && self.blocked.is_empty()
    }

    /// All steps in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.waves.iter().flat_map(|(_, steps)| steps)
    }
}

/// Storage whose data the user named for deletion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteData(pub BTreeSet<StorageId>);

/// What has to be asked on each host before planning: each query once, in a stable order; every host is asked something.
#[must_use]
pub fn queries(cluster: &Cluster) -> BTreeMap<HostId, Vec<Query>> {
    queries_with(cluster, &backends(cluster))
}

/// Plans what makes every host match the file.
#[must_use]
pub fn plan(cluster: &Cluster, seen: &Observations) -> Plan {
    plan_with(cluster, seen, &backends(cluster))
}

/// Plans the removal of everything that stor made, but for data that `delete` does not name.
#[must_use]
pub fn plan_destroy(cluster: &Cluster, seen: &Observations, delete: &DeleteData) -> Plan {
    destroy_with(cluster, seen, &backends(cluster), delete)
}

fn backends(cluster: &Cluster) -> Vec<Box<dyn Backend + '_>> {
    cluster.storage.keys().filter_map(|id| storage::backend(cluster, id)).collect()
}

fn queries_with<'a>(
    cluster: &'a Cluster,
    backends: &[Box<dyn Backend + 'a>],
) -> BTreeMap<HostId, Vec<Query>> {
    let all = || backends.iter().map(|backend| &**backend);
    // Hosts of one kind are asked the same: one copy serves all of them.
    let mut shared: BTreeSet<Query> = BTreeSet::new();
    let mut on_host = |host: &HostId| {
        let spec = &cluster.hosts[host];
        let mut queries = vec![Record::query(&cluster.name)];
        if let Some(driver) = spec.role.driver() {
            queries.extend([domains::query(driver), domains::sources_query(driver)]);
            queries.extend(guests::queries(cluster));
        }
        queries.extend(all().flat_map(|backend| backend.queries(host)));
        queries.extend(trust::queries(cluster, spec));
        queries.push(guard::query(cluster, backends, host));
        queries.extend(images::queries(cluster, all(), host));
        let mut asked = BTreeSet::new();
        queries.retain(|query| asked.insert(query.clone()));
        for query in &mut queries {
            match shared.get(query) {
                Some(same) => *query = same.clone(),
                None => _ = shared.insert(query.clone()),
            }
        }
        queries.shrink_to_fit();
        queries
    };
    cluster.hosts.keys().map(|host| (host.clone(), on_host(host))).collect()
}

/// All that stor would own on each host once everything is in place.
fn claims(scene: &Scene<'_>) -> BTreeMap<HostId, Vec<Owned>> {
    let all = || scene.backends.iter().map(|backend| &**backend);
    let guests = guests::claims(scene.cluster);
    let on_host = |host: &HostId| {
        let spec = &scene.cluster.hosts[host];
        let mut claims: Vec<Owned> = all().flat_map(|backend| backend.claims(host)).collect();
        claims.extend(trust::claims(scene.cluster, spec));
        claims.extend(guard::claims(scene, spec));
        if spec.role.is_hypervisor() {
            claims.extend(guests.iter().cloned());
        }
        claims.extend(images::claims(scene.cluster, all(), host));
        claims
    };
    scene.cluster.hosts.keys().map(|host| (host.clone(), on_host(host))).collect()
}

fn plan_with<'a>(
    cluster: &'a Cluster,
    seen: &'a Observations,
    backends: &'a [Box<dyn Backend + 'a>],
) -> Plan {
    let scene = Scene::new(cluster, seen, backends);
    let released = release::plan(&scene, &claims(&scene), Data::Keep);
    let mut proposal = ownership::unusable(&scene);
    proposal.extend(released.proposal);
    proposal.extend(guests::without_libvirt(&scene));
    for backend in backends {
        proposal.extend(backend.plan(seen));
    }
    proposal.extend(trust::plan(&scene));
    let mut joined = join::join(proposal);
    // What is no longer needed stays open as long as anything else that goes has to wait.
    let guards = guard::plan(&scene, &|step| joined.is_broken(step));
    joined.add(guards);
    // An image is created by a hypervisor whose mount is planned and not blocked, so it comes after the others.
    let (images, states) = images::plan(&scene, &|step| joined.is_broken(step));
    joined.add(images);
    joined.add(guests::plan(&scene, &states));
    joined.finish(&scene, &released.forgotten)
}

fn destroy_with<'a>(
    cluster: &'a Cluster,
    seen: &'a Observations,
    backends: &'a [Box<dyn Backend + 'a>],
    delete: &DeleteData,
) -> Plan {
    let scene = Scene::new(cluster, seen, backends);
    let released = release::plan(&scene, &BTreeMap::new(), Data::Leave(delete));
    let mut proposal = ownership::unusable(&scene);
    proposal.extend(released.proposal);
    proposal.extend(release::without_data(&scene, delete));
    join::join(proposal).finish(&scene, &released.forgotten)
}
