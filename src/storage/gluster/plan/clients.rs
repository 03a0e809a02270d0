//! Hypervisors: packages; then, as `storage::mount_client` has it, mount and pool.

use super::Subject;
use crate::libvirt::{pool_xml, qemu_conf};
use crate::model::{HostId, Proposal, Query, StorageId, Wave};
use crate::storage::gluster::commands;
use crate::storage::gluster::spec::GlusterSpec;
use crate::storage::mount_client::{self, Anew, MountClient};
use crate::storage::packages;
use crate::storage::planning::{self, Service};
use crate::storage::spec::Access;

/// Everything that planning for a hypervisor wants answered.
pub(in crate::storage::gluster) fn queries(id: &StorageId, spec: &GlusterSpec) -> Vec<Query> {
    let mut queries = packages::queries(commands::client_needs(spec.access));
    queries.extend([qemu_conf::configuration(), qemu_conf::users()]);
    if spec.access == Access::Mount {
        queries.extend(mount_client::queries(id, &spec.mount));
    }
    queries
}

/// Plans for one hypervisor.
pub(super) fn plan(subject: &Subject<'_>, host: &HostId, service: Service, out: &mut Proposal) {
    let Subject { cluster, id, spec, seen } = *subject;
    if !planning::install(subject, host, commands::client_needs(spec.access), out) {
        return;
    }
    if spec.access == Access::Direct || service != Service::Coming {
        return;
    }
    let (unit, sources) =
        (commands::mount_unit(cluster, id, spec), commands::mount_sources(cluster, id, spec));
    let what = format!("volume {id}");
    let (unit, sources, what) = (&unit, &sources, what.as_str());
    let client = MountClient {
        cluster,
        id,
        seen,
        host,
        what,
        unit,
        fs_type: commands::KERNEL_TYPE,
        other_types: &[],
        pool: &pool_xml::dir_pool(id, &spec.mount),
        sources,
        anew: Anew::No,
    };
    let mount = client.mount(&mut out.steps);
    if !planning::keep(mount, (Wave::Mount, client.mount_id()), (id, host), out) {
        return;
    }
    let pool = client.pool(&mut out.steps);
    planning::keep(pool, (Wave::Pool, client.pool_id()), (id, host), out);
}
