//! What an NFS storage needs: differences between the file and the facts, and the steps that end them. Pure.
//!
//! Imports `spec`, `model`, `facts` and `commands`. The order: `server` (what both servers have in common: the directory,
//! what stands in the way), then `kernel` or `ganesha`, then `clients` (packages, mount, pool).

mod clients;
mod ganesha;
mod kernel;
mod server;

pub(super) use clients::queries as client_queries;

use super::commands;
use super::spec::{MountedBy, NfsSpec, Provider};
use crate::model::{
    Blocked, Finding, FindingCode, HostId, Owned, OwnedKind, Proposal, ResourceId, ResourceKind, Severity,
    StorageId, Wave,
};
use crate::spec::Cluster;
use crate::storage::mount_client;
use crate::storage::planning;
use crate::storage::spec::StorageSpec;

/// One storage entry of this kind with everything that planning for it looks at.
pub(super) type Subject<'a> = planning::Subject<'a, NfsSpec>;

impl Subject<'_> {
    fn export(&self) -> ResourceId {
        ResourceId::new(ResourceKind::Export, format!("{}:{}", self.spec.server, self.spec.path))
    }

    fn refused(&self, wave: Wave, reason: impl std::fmt::Display, hint: impl Into<String>) -> Blocked {
        let reason = format!("host {}: {reason}", self.spec.server);
        Blocked::new(wave, self.export(), reason).on(&self.spec.server).serving(self.id).hint(hint)
    }

    fn field(&self, name: &str) -> String {
        format!("export.{}.{name}", self.spec.path)
    }
}

/// Plans for all hosts.
pub(super) fn plan(subject: Subject<'_>) -> Proposal {
    let mut out = Proposal { findings: advice(&subject), ..Proposal::default() };
    let (service, anew) = server::plan(&subject, &mut out);
    planning::hypervisors(&subject, service, out, |host, out| {
        clients::plan(&subject, host, service, anew, out)
    })
}

fn advice(subject: &Subject<'_>) -> Vec<Finding> {
    if subject.spec.mount.is_some() {
        return Vec::new();
    }
    let message = "QEMU's own NFS client takes no locks, so nothing refuses a second writer";
    vec![
        Finding::new(Severity::Advice, FindingCode::LockNotHonoured, subject.export(), message)
            .remedy("use `access: mount` where the hypervisors' kernels can mount NFS"),
    ]
}

fn kernel_export(subject: (&Cluster, &StorageId, &NfsSpec)) -> Owned {
    let (cluster, id, spec) = subject;
    let file = commands::kernel::exports_path(cluster, id);
    Owned::new(OwnedKind::KernelExport, file.as_str()).of_storage(id).with("path", spec.path.as_str())
}

fn ganesha_export(subject: (&Cluster, &StorageId, &NfsSpec)) -> Owned {
    let (cluster, id, spec) = subject;
    let file = commands::ganesha::export_path(cluster, id);
    Owned::new(OwnedKind::GaneshaExport, file.as_str())
        .of_storage(id)
        .with("path", spec.path.as_str())
        .with("marker", commands::ganesha::marker(cluster, id))
}

/// The exported directory as the record keeps it.
fn directory(id: &StorageId, spec: &NfsSpec) -> Owned {
    Owned::new(OwnedKind::DataDirectory, spec.path.as_str()).of_storage(id)
}

/// A server's daemon as the record keeps it. It serves every export of its host, so it belongs to no single storage.
fn daemon(unit: &str) -> Owned {
    Owned::new(OwnedKind::Service, unit)
}

/// All that stor would own on `host` once everything is in place. With `provider: auto` that is what either server has:
/// the one that has the export already keeps it.
pub(super) fn claims(cluster: &Cluster, id: &StorageId, spec: &NfsSpec, host: &HostId) -> Vec<Owned> {
    let mut claims = Vec::new();
    if spec.server == *host {
        claims.push(directory(id, spec));
        if spec.provider != Provider::Ganesha {
            claims.extend([kernel_export((cluster, id, spec)), daemon(commands::kernel::SERVICE)]);
            claims.extend(kernel::ports_claims());
        }
        if spec.provider != Provider::Kernel {
            claims.extend([ganesha_export((cluster, id, spec)), daemon(commands::ganesha::SERVICE)]);
        }
    }
    if let (true, Some(mount)) = (cluster.is_hypervisor(host), &spec.mount) {
        let [unit, point, pool] = mount_client::claims(id, &mount.path);
        claims.extend([point, pool]);
        claims.extend((mount.by == MountedBy::Systemd).then_some(unit));
    }
    claims
}

/// Other NFS storage of the file on the same server, and which server that is to have.
fn siblings<'a>(subject: &Subject<'a>) -> impl Iterator<Item = (&'a StorageId, Provider)> {
    let (id, server) = (subject.id, &subject.spec.server);
    subject.cluster.storage.iter().filter_map(move |(other, spec)| match spec {
        StorageSpec::Nfs(spec) if other != id && spec.server == *server => Some((other, spec.provider)),
        _ => None,
    })
}
