//! The plan: what every part asks for, joined, checked and put into waves. Pure and deterministic.
//!
//! Imports `storage`, `guard`, `spec`, `libvirt` (XML builders), `host::quote` (only to render a script) and `model`. No I/O:
//! nothing here can reach a host.

pub mod expand;
pub mod script;

mod access;
mod domains;
mod guard;
mod guests;
mod images;
mod join;
mod marks;
mod notes;
mod occupants;
mod ownership;
mod release;
mod scene;
mod trust;
mod users;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use self::join::{Notes, Stays};
use self::release::{Data, Kept};
use self::scene::Scene;
use crate::model::{
    Blocked, Dead, Driver, Finding, HostId, Observations, Owned, Proposal, Query, Record, Severity, Step,
    StorageId, Wave,
};
use crate::spec::Cluster;
use crate::storage::mount_probe::mounts;
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

    /// Tells whether something is wrong that no step of stor's ends.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
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
    plan_without(cluster, seen, &Dead::default())
}

/// Plans what makes every host match the file, where the user named hosts as gone for good.
#[must_use]
pub fn plan_without(cluster: &Cluster, seen: &Observations, dead: &Dead) -> Plan {
    plan_with(cluster, seen, &backends(cluster), dead)
}

/// Plans the removal of everything that stor made, but for data that `delete` does not name.
#[must_use]
pub fn plan_destroy(cluster: &Cluster, seen: &Observations, delete: &DeleteData) -> Plan {
    plan_destroy_without(cluster, seen, delete, &Dead::default())
}

/// Likewise, where the user named hosts as gone for good.
#[must_use]
pub fn plan_destroy_without(
    cluster: &Cluster,
    seen: &Observations,
    delete: &DeleteData,
    dead: &Dead,
) -> Plan {
    destroy_with(cluster, seen, &backends(cluster), delete, dead)
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
        queries.extend([marks::query(&cluster.name), mounts()]);
        // A host that is no hypervisor may have been one, with guests that nobody moved away.
        let drivers =
            spec.role.driver().map_or_else(|| vec![Driver::Qemu, Driver::Xen], |driver| vec![driver]);
        for driver in drivers {
            queries.extend([domains::query(driver), domains::sources_query(driver)]);
        }
        if spec.role.is_hypervisor() {
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
    dead: &Dead,
) -> Plan {
    let scene = Scene::new(cluster, seen, backends, dead);
    let mut storage = Proposal::default();
    let mut kept = Kept::default();
    for backend in backends {
        let proposal = backend.plan(seen);
        let refused = |blocked: &Blocked| !blocked.unknown || blocked.wave.is_server_side();
        kept.refused.extend(proposal.blocked.iter().any(refused).then(|| backend.id().clone()));
        storage.extend(proposal);
    }
    let misnamed = access::misnamed(&scene, dead, &storage);
    let nobody = Dead::default();
    let dead = if misnamed.blocked.is_empty() { dead } else { &nobody };
    let judged = access::judge(&scene, storage);
    let released = release::plan(&scene, &claims(&scene), &kept, Data::Keep);
    let (mut proposal, apart) = unusable(&scene, Data::Keep);
    proposal.extend(misnamed);
    proposal.extend(released.proposal);
    proposal.extend(guests::without_libvirt(&scene));
    proposal.extend(judged.proposal);
    proposal.extend(trust::plan(&scene));
    let mut joined = join::join(proposal, Stays { frozen: released.frozen, kept: judged.kept });
    // What is no longer needed stays open as long as anything else that goes has to wait.
    let guards = guard::plan(&scene, &|step| joined.is_broken(step));
    joined.add(guards);
    // An image is created by a hypervisor whose mount is planned and not blocked, so it comes after the others.
    let (images, states) = images::plan(&scene, &|step| joined.is_broken(step));
    joined.add(images);
    joined.add(guests::plan(&scene, &states));
    let mut forgotten = released.forgotten;
    for (host, entries) in notes::forgotten(&scene) {
        forgotten.entry(host).or_default().extend(entries);
    }
    let taken_up = notes::taken_up(&scene, dead, &apart);
    joined.finish(&scene, &Notes { taken_up, outdated: notes::outdated(&scene), forgotten })
}

/// What stands in the way of everything on a host: a record that cannot be used, or that was lost. A hypervisor that left the
/// file unasked stands in the way of every removal.
fn unusable(scene: &Scene<'_>, data: Data<'_>) -> (Proposal, BTreeSet<HostId>) {
    let mut proposal = ownership::unusable(scene);
    let lost = marks::unrecorded(scene, data);
    // Where one record was lost, no other is begun anew: it would look as if nothing had been in it.
    let apart = match lost.blocked.is_empty() {
        true => proposal.blocked.iter().filter_map(|blocked| blocked.host.clone()).collect(),
        false => scene.records.keys().cloned().collect(),
    };
    proposal.extend(lost);
    proposal.extend(access::unasked(scene));
    (proposal, apart)
}

fn destroy_with<'a>(
    cluster: &'a Cluster,
    seen: &'a Observations,
    backends: &'a [Box<dyn Backend + 'a>],
    delete: &DeleteData,
    dead: &Dead,
) -> Plan {
    let scene = Scene::new(cluster, seen, backends, dead);
    let released = release::plan(&scene, &BTreeMap::new(), &Kept::default(), Data::Leave(delete));
    let (mut proposal, _) = unusable(&scene, Data::Leave(delete));
    proposal.extend(access::misnamed(&scene, dead, &Proposal::default()));
    proposal.extend(released.proposal);
    proposal.extend(release::without_data(&scene, delete));
    let notes = Notes { forgotten: released.forgotten, ..Notes::default() };
    join::join(proposal, Stays::default()).finish(&scene, &notes)
}
