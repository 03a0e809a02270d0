//! What a GlusterFS storage needs: differences between the file and the facts, and the steps that end them. Pure.
//!
//! Imports `spec`, `model`, `facts` and `commands`. The order: `servers` (packages, daemon, pool, bricks), `volume`
//! (creation, options, start), `clients` (mount, pool). Command lines belong in `commands`, reading answers in `facts`.

mod bricks;
mod clients;
mod servers;
mod volume;

pub(super) use clients::queries as client_queries;

use super::commands;
use super::spec::GlusterSpec;
use crate::model::{
    Blocked, Finding, FindingCode, HostId, Observations, Owned, Proposal, ResourceId, ResourceKind, Severity,
    StorageId, Wave,
};
use crate::spec::{Cluster, Role};
use crate::storage::mount_client;
use crate::storage::spec::Access;

/// One storage entry with everything that planning for it looks at.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub cluster: &'a Cluster,
    pub id: &'a StorageId,
    pub spec: &'a GlusterSpec,
    pub seen: &'a Observations,
}

impl Subject<'_> {
    fn volume(&self) -> ResourceId {
        ResourceId::new(ResourceKind::Volume, self.id)
    }

    fn blocked(&self, wave: Wave, subject: ResourceId, reason: impl std::fmt::Display) -> Blocked {
        Blocked::new(wave, subject, reason).serving(self.id)
    }
}

/// Whether hypervisors may count on the volume once the servers' steps have run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Service {
    /// It is there, or the plan brings it about.
    Coming,
    /// Something about the servers is unknown: hypervisors get what they need of themselves only.
    Unknown,
    /// It is refused: nothing at all is changed for this storage.
    Refused,
}

/// Plans for all hosts.
pub(super) fn plan(subject: Subject<'_>) -> Proposal {
    let mut out = Proposal { findings: advice(&subject), ..Proposal::default() };
    let service = servers::plan(&subject, &mut out);
    if service == Service::Refused {
        // What is refused is refused as a whole: no package, no directory, no mount.
        out.steps.clear();
        return out;
    }
    for host in subject.cluster.hypervisors() {
        clients::plan(&subject, &host.id, service, &mut out);
    }
    out
}

fn advice(subject: &Subject<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if subject.spec.replica == 2 {
        findings.push(
            Finding::new(
                Severity::Warning,
                FindingCode::ReplicaTwo,
                subject.volume(),
                "two copies cannot tell which one is right when they part: the volume stops for writing, or splits",
            )
            .remedy("use `replica: 3`, or `replica: 3` with `arbiter: true` and a small third brick"),
        );
    }
    if subject.spec.access == Access::Direct {
        findings.push(
            Finding::new(
                Severity::Warning,
                FindingCode::GlusterDirectDeprecated,
                subject.volume(),
                "QEMU's own GlusterFS client is deprecated since QEMU 9.2 and takes 10 s longer for each migration",
            )
            .remedy("use `access: mount`"),
        );
    }
    findings
}

/// The subject of a step on one host's package set.
fn packages_of(host: &HostId) -> ResourceId {
    ResourceId::new(ResourceKind::Package, host)
}

/// All that stor would own on `host` once everything is in place.
pub(super) fn claims(cluster: &Cluster, id: &StorageId, spec: &GlusterSpec, host: &HostId) -> Vec<Owned> {
    let servers = commands::server_ids(spec);
    let mut claims = Vec::new();
    if servers.contains(&host) {
        claims.push(servers::daemon());
        let bricks = spec.bricks.iter().filter(|brick| brick.host == *host);
        claims.extend(bricks.map(|brick| bricks::owned(id, &brick.path)));
    }
    if servers.first() == Some(&host) {
        claims.push(volume::owned(id));
        claims.extend(servers[1..].iter().map(|other| servers::peer(cluster.address_of(other))));
    }
    let uses = cluster.hosts.get(host).is_some_and(|host| host.role == Role::Hypervisor);
    if uses && spec.access == Access::Mount {
        claims.extend(mount_client::claims(id, &spec.mount));
    }
    claims
}
