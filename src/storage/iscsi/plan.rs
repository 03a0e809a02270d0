//! What an iSCSI storage needs: differences between the file and the facts, and the steps that end them. Pure.
//!
//! Imports `spec`, `model`, `facts` and `commands`. The order: `software` (which program offers the target), `server` (what
//! stands in the way), `backing` (what is behind the LUNs), `tgt` (account, configuration, target) or `lio` (the kernel's target), then
//! the hypervisors: `clients` where QEMU logs in itself (packages, CHAP secret), `sessions` where their kernels do (the
//! initiator, its sessions); `pool` has libvirt's pool of both.

mod backing;
mod boot;
mod clients;
mod initiators;
mod lio;
mod pool;
mod server;
mod sessions;
mod software;
mod tgt;

pub(super) use clients::queries as client_queries;

use super::commands;
use super::spec::{Backing, IscsiAccess, IscsiProvider, IscsiSpec, LunSpec};
use crate::model::{
    Blocked, Finding, FindingCode, HostId, Owned, OwnedKind, Proposal, ResourceId, ResourceKind, Severity,
    StorageId, Wave,
};
use crate::spec::Cluster;
use crate::storage::packages::Family;
use crate::storage::planning;
use crate::storage::stamp_file::{self, GivenTo};

/// One storage entry of this kind with everything that planning for it looks at.
pub(super) type Subject<'a> = planning::Subject<'a, IscsiSpec>;

impl Subject<'_> {
    fn target(&self) -> ResourceId {
        ResourceId::new(ResourceKind::Target, &self.spec.iqn)
    }

    fn lun(&self, lun: &LunSpec) -> ResourceId {
        ResourceId::new(ResourceKind::Lun, format!("{}/{}", self.spec.iqn, lun.number))
    }

    fn refused(&self, wave: Wave, reason: impl std::fmt::Display, hint: impl Into<String>) -> Blocked {
        let reason = format!("host {}: {reason}", self.spec.server);
        Blocked::new(wave, self.target(), reason).on(&self.spec.server).serving(self.id).hint(hint)
    }

    fn field(&self, name: &str) -> String {
        format!("target.{}.{name}", self.id)
    }
}

/// Plans for all hosts.
pub(super) fn plan(subject: Subject<'_>) -> Proposal {
    let mut out = Proposal { findings: advice(&subject), ..Proposal::default() };
    let service = server::plan(&subject, &mut out);
    let mut out = planning::hypervisors(&subject, service, out, |host, out| match subject.spec.access {
        IscsiAccess::Direct => clients::plan(&subject, host, service, out),
        IscsiAccess::Session => sessions::plan(&subject, host, service, out),
    });
    out.findings.extend(outdated(&subject));
    out
}

/// QEMU logs in again with the secret that it began with.
fn outdated(subject: &Subject<'_>) -> Option<Finding> {
    let Subject { cluster, id, spec, seen } = *subject;
    let chap = clients::chap(cluster, id, spec).filter(|_| spec.access == IscsiAccess::Direct)?;
    cluster.hypervisors().find(|host| chap.is_outdated(&host.id, seen))?;
    let message =
        "guests that run keep the old CHAP secret, and lose their disk when their connection breaks";
    let finding = Finding::new(Severity::Warning, FindingCode::SecretOutdated, subject.target(), message);
    Some(finding.remedy("move each of them once (`stor migrate`) after this"))
}

fn advice(subject: &Subject<'_>) -> Vec<Finding> {
    let message = match subject.spec.access {
        IscsiAccess::Direct => "QEMU's own iSCSI client takes no locks, so nothing refuses a second writer",
        IscsiAccess::Session => {
            "QEMU's locks on a block device hold on one host only, so nothing refuses a second writer"
        }
    };
    vec![
        Finding::new(Severity::Advice, FindingCode::LockNotHonoured, subject.target(), message)
            .remedy("start guests with `stor start`, which looks at every hypervisor first"),
    ]
}

/// The target as the record keeps it.
fn target(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec) -> Owned {
    let file = commands::tgt::conf_path(cluster, id);
    let owned = Owned::new(OwnedKind::IscsiTarget, file.as_str()).of_storage(id);
    let owned = owned.with("iqn", spec.iqn.as_str());
    match &spec.chap {
        Some(chap) => owned.with("user", chap.user.to_string()),
        None => owned,
    }
}

/// The kernel's target as the record keeps it.
fn lio_target(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec) -> Owned {
    let objects: Vec<String> = spec.luns.iter().map(|lun| commands::lio::object(cluster, id, lun)).collect();
    Owned::new(OwnedKind::LioTarget, spec.iqn.as_str())
        .of_storage(id)
        .with("objects", objects.join(" "))
        .with("stamp", stamp_file::path(&cluster.name, id, GivenTo::Target).as_str())
}

/// What is behind a LUN, as the record keeps it.
fn backing(id: &StorageId, lun: &LunSpec) -> Owned {
    let owned = match &lun.kind {
        Backing::File(_) => Owned::new(OwnedKind::BackingFile, lun.backing.as_str()),
        Backing::Device { .. } => Owned::new(OwnedKind::BackingDevice, lun.backing.as_str()),
        Backing::Volume(name) => Owned::new(OwnedKind::LogicalVolume, name.to_string()),
    };
    owned.of_storage(id)
}

/// A server's daemon as the record keeps it. It serves every target of its host, so it belongs to no single storage.
fn daemon(unit: &str) -> Owned {
    Owned::new(OwnedKind::Service, unit)
}

/// All that stor would own on `host` once everything is in place.
pub(super) fn claims(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec, host: &HostId) -> Vec<Owned> {
    let mut claims = Vec::new();
    if spec.server == *host {
        claims.extend(spec.luns.iter().map(|lun| backing(id, lun)));
        if spec.provider != IscsiProvider::Tgt {
            claims.push(lio_target(cluster, id, spec));
        }
        if spec.provider != IscsiProvider::Lio {
            claims.push(target(cluster, id, spec));
            let families = [Some(Family::Debian), Some(Family::RedHat)];
            claims.extend(families.map(|family| daemon(commands::tgt::service(family))));
        }
    }
    claims.extend(boot::claims(cluster, id, spec, host));
    if cluster.is_hypervisor(host) {
        claims.extend(clients::chap(cluster, id, spec).map(|chap| chap.claim()));
        claims.extend(pool::kind(spec).map(|_| crate::storage::pool::claim(id)));
        if spec.access == IscsiAccess::Session {
            claims.push(sessions::claim(cluster, id, spec));
        }
    }
    claims
}
