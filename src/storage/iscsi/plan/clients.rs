//! Hypervisors where QEMU logs in itself: its client, and the CHAP secret in libvirt.
//!
//! There is no pool: libvirt's `iscsi-direct` pool only lists the LUNs, which guests name themselves, and would be one more
//! thing to be active before a guest can start.

use super::{Subject, sessions};
use crate::model::{HostId, Proposal, Query, StorageId, Wave};
use crate::spec::Cluster;
use crate::storage::chap_secret::ChapSecret;
use crate::storage::iscsi::commands;
use crate::storage::iscsi::spec::{IscsiAccess, IscsiSpec};
use crate::storage::packages::{self, Need};
use crate::storage::planning;

const NEEDS: &[Need] = &[commands::DIRECT];

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
        IscsiAccess::Direct => packages::queries(NEEDS),
        IscsiAccess::Session => sessions::queries(cluster, id, spec),
    };
    queries.extend(chap(cluster, id, spec).into_iter().flat_map(|chap| chap.queries()));
    queries
}

/// Plans for one hypervisor.
pub(super) fn plan(subject: &Subject<'_>, host: &HostId, out: &mut Proposal) {
    if !planning::install(subject, host, NEEDS, out) {
        return;
    }
    let Subject { cluster, id, spec, seen } = *subject;
    if let Some(chap) = chap(cluster, id, spec) {
        let planned = chap.plan(host, seen).map(|step| out.steps.extend(step));
        planning::keep(planned, (Wave::ClientPrerequisites, chap.subject()), (id, host), out);
    }
}
