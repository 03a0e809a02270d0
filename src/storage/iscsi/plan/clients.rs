//! Hypervisors where QEMU logs in itself: its client, the CHAP secret in libvirt, and a pool if the file wants one.

use super::{Subject, pool, sessions};
use crate::model::{HostId, Proposal, Query, ResourceId, ResourceKind, Step, StorageId, Wave};
use crate::spec::Cluster;
use crate::storage::chap_secret::ChapSecret;
use crate::storage::iscsi::commands;
use crate::storage::iscsi::spec::{IscsiAccess, IscsiSpec};
use crate::storage::packages::{self, Need};
use crate::storage::planning::{self, Service, Stop};

/// All packages that may be needed.
const NEEDS: &[Need] = &[commands::DIRECT, commands::DIRECT_POOL];

/// The CHAP secret of a target in libvirt, if it has one.
pub(in crate::storage::iscsi) fn chap<'a>(
    cluster: &'a Cluster,
    id: &'a StorageId,
    spec: &'a IscsiSpec,
) -> Option<ChapSecret<'a>> {
    spec.chap.as_ref().map(|chap| ChapSecret { cluster, storage: id, reference: &chap.secret })
}

/// Everything that planning for a hypervisor wants answered.
pub(in crate::storage::iscsi) fn queries(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec) -> Vec<Query> {
    let mut queries = match spec.access {
        IscsiAccess::Direct => {
            let mut queries = packages::queries(NEEDS);
            queries.extend(pool::queries(id, spec));
            queries
        }
        IscsiAccess::Session => sessions::queries(cluster, id, spec),
    };
    queries.extend(chap(cluster, id, spec).into_iter().flat_map(|chap| chap.queries()));
    queries
}

/// Plans for one hypervisor.
pub(super) fn plan(subject: &Subject<'_>, host: &HostId, service: Service, out: &mut Proposal) {
    const WAVE: Wave = Wave::ClientPrerequisites;
    let Subject { cluster, id, spec, seen } = *subject;
    let packages = (WAVE, ResourceId::new(ResourceKind::Package, host));
    let planned = software(subject, host).map(|steps| out.steps.extend(steps));
    if !planning::keep(planned, packages, (id, host), out) {
        return;
    }
    if let Some(chap) = chap(cluster, id, spec) {
        let planned = chap.plan(host, seen).map(|step| out.steps.extend(step));
        if !planning::keep(planned, (WAVE, chap.subject()), (id, host), out) {
            return;
        }
    }
    if pool::kind(spec).is_some() && service == Service::Coming {
        let planned = pool::direct(subject, host).map(|step| out.steps.extend(step));
        planning::keep(planned, (Wave::Pool, ResourceId::new(ResourceKind::Pool, id)), (id, host), out);
    }
}

/// QEMU's client, and libvirt's backend of the pool.
fn software(subject: &Subject<'_>, host: &HostId) -> Result<Vec<Step>, Stop> {
    const WAVE: Wave = Wave::ClientPrerequisites;
    let Subject { id, spec, seen, .. } = *subject;
    let kind = pool::kind(spec).filter(|kind| kind.is_missing(seen, host));
    let wanted: Vec<Need> = [commands::DIRECT].into_iter().chain(kind.map(|kind| kind.package)).collect();
    let (family, missing) = packages::missing_among(seen, host, NEEDS, &wanted)?;
    let mut steps: Vec<Step> = packages::step(WAVE, host, id, family, &missing).into_iter().collect();
    steps.extend(kind.map(|kind| {
        let (title, why, effect) = kind.load();
        let what = ResourceId::new(ResourceKind::Pool, id);
        Step::new(WAVE, host, what, title, effect).serving(id).because(why)
    }));
    Ok(steps)
}
