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
    Blocked, Finding, FindingCode, HostId, Owned, Proposal, ResourceId, ResourceKind, Severity, StorageId,
    Wave,
};
use crate::spec::Cluster;
use crate::storage::mount_client;
use crate::storage::planning;
use crate::storage::spec::Access;

/// One storage entry of this kind with everything that planning for it looks at.
pub(super) type Subject<'a> = planning::Subject<'a, GlusterSpec>;

impl Subject<'_> {
    fn volume(&self) -> ResourceId {
        ResourceId::new(ResourceKind::Volume, self.id)
    }

    fn blocked(&self, wave: Wave, subject: ResourceId, reason: impl std::fmt::Display) -> Blocked {
        Blocked::new(wave, subject, reason).serving(self.id)
    }
}

/// Plans for all hosts.
pub(super) fn plan(subject: Subject<'_>) -> Proposal {
    let mut out = Proposal { findings: advice(&subject), ..Proposal::default() };
    let service = servers::plan(&subject, &mut out);
    planning::hypervisors(&subject, service, out, |host, out| clients::plan(&subject, host, service, out))
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

/// All that stor would own on `host` once everything is in place.
pub(super) fn claims(cluster: &Cluster, id: &StorageId, spec: &GlusterSpec, host: &HostId) -> Vec<Owned> {
    let servers = commands::server_ids(spec);
    let mut claims = Vec::new();
    if servers.contains(&host) {
        claims.push(servers::daemon());
        let bricks = spec.bricks.iter().filter(|brick| brick.host == *host);
        claims.extend(bricks.map(|brick| bricks::owned(id, &brick.path)));
    }
    // Whichever server's record has them: which brick comes first in the file may change.
    if servers.contains(&host) {
        claims.push(volume::owned(id));
        let others = servers.iter().filter(|other| **other != host);
        claims.extend(others.map(|other| servers::peer(cluster.address_of(other))));
    }
    if cluster.is_hypervisor(host) && spec.access == Access::Mount {
        claims.extend(mount_client::claims(id, &spec.mount));
    }
    claims
}
