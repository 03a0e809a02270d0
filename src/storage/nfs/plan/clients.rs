//! Hypervisors: packages; then, as `storage::mount_client` has it, mount and pool.

use super::Subject;
use super::server::owner_queries;
use crate::libvirt::pool_xml;
use crate::model::{HostId, Proposal, Query, StorageId, Wave};
use crate::spec::Cluster;
use crate::storage::mount_client::{self, Anew, MountClient};
use crate::storage::nfs::commands;
use crate::storage::nfs::spec::{MountSpec, MountedBy, NfsSpec};
use crate::storage::packages::{self, Need};
use crate::storage::planning::{self, Service};

fn needs(spec: &NfsSpec) -> &'static [Need] {
    if spec.mount.is_some() { &[commands::MOUNTING] } else { &[commands::DIRECT] }
}

/// Everything that planning for a hypervisor wants answered.
pub(in crate::storage::nfs) fn queries(id: &StorageId, spec: &NfsSpec) -> Vec<Query> {
    let mut queries = packages::queries(needs(spec));
    queries.extend(owner_queries());
    if let Some(mount) = &spec.mount {
        queries.extend(mount_client::queries(id, &mount.path));
    }
    queries
}

/// Plans for one hypervisor.
pub(super) fn plan(subject: &Subject<'_>, host: &HostId, service: Service, anew: Anew, out: &mut Proposal) {
    if !planning::install(subject, host, needs(subject.spec), out) {
        return;
    }
    if let (Some(mount), Service::Coming) = (&subject.spec.mount, service) {
        mount_and_pool(subject, host, mount, anew, out);
    }
}

fn mount_and_pool(subject: &Subject<'_>, host: &HostId, mount: &MountSpec, anew: Anew, out: &mut Proposal) {
    let Subject { cluster, id, spec, seen } = *subject;
    let unit = commands::mount_unit(cluster, id, spec, mount);
    let sources = commands::mount_sources(cluster, spec);
    let what = format!("export {id}");
    let pool = match mount.by {
        MountedBy::Systemd => pool_xml::dir_pool(id, &mount.path),
        MountedBy::Libvirt => netfs(cluster, id, spec, mount),
    };
    let fs_type = mount.version.kernel_type();
    let client = MountClient {
        cluster,
        id,
        seen,
        host,
        what: &what,
        unit: &unit,
        fs_type,
        other_types: &["nfs", "nfs4"],
        pool: &pool,
        sources: &sources,
        anew,
    };
    let mounted = match mount.by {
        MountedBy::Systemd => client.mount(&mut out.steps),
        MountedBy::Libvirt => client.leave_to_pool(&mut out.steps),
    };
    if !planning::keep(mounted, (Wave::Mount, client.mount_id()), (id, host), out) {
        return;
    }
    let pool = client.pool(&mut out.steps);
    planning::keep(pool, (Wave::Pool, client.pool_id()), (id, host), out);
}

fn netfs(cluster: &Cluster, id: &StorageId, spec: &NfsSpec, mount: &MountSpec) -> String {
    let server = cluster.address_of(&spec.server);
    pool_xml::netfs_pool(id, server, &spec.path, &mount.path, &commands::mount_options(mount))
}
