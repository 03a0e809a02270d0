//! Packages, daemon and pool of the storage servers; then the volume.

use std::collections::BTreeMap;

use super::{Subject, bricks, volume};
use crate::model::{
    Blocked, Difference, Effect, Finding, FindingCode, HostId, Owned, OwnedKind, Proposal, ResourceId,
    ResourceKind, Severity, Step, Wave,
};
use crate::storage::facts::FactsError;
use crate::storage::gluster::commands;
use crate::storage::gluster::facts::{self, Peer, Said, ServerFacts, Volume};
use crate::storage::packages;
use crate::storage::planning::Service;
use crate::storage::service::enable_and_start;

/// The servers, as far as they are known.
pub(super) struct Servers<'a> {
    /// The server that speaks for the pool: the one whose record has the volume, else the first brick's. The order of the
    /// bricks in the file says nothing about a volume that is there.
    pub first: &'a HostId,
    /// All servers in the order of their bricks.
    pub ids: Vec<&'a HostId>,
    pub facts: BTreeMap<&'a HostId, ServerFacts>,
    pub errors: BTreeMap<&'a HostId, FactsError>,
}

impl<'a> Servers<'a> {
    fn read(subject: &Subject<'a>) -> Option<Self> {
        let ids = commands::server_ids(subject.spec);
        let made = |id: &&&HostId| subject.record(id).owns(OwnedKind::GlusterVolume, subject.id.as_str());
        let first = ids.iter().find(made).or_else(|| ids.first()).copied()?;
        let mut servers = Self { first, ids, facts: BTreeMap::new(), errors: BTreeMap::new() };
        for id in &servers.ids {
            match facts::server(subject.seen, subject.spec, id) {
                Ok(facts) => drop(servers.facts.insert(id, facts)),
                Err(error) => drop(servers.errors.insert(id, error)),
            }
        }
        Some(servers)
    }

    /// What each server said whose glusterd runs, in the order of the bricks.
    pub fn said(&self) -> impl Iterator<Item = (&'a HostId, &Said)> {
        self.ids.iter().filter_map(|id| Some((*id, self.facts.get(id)?.said.as_ref()?)))
    }

    /// The volume as the first server that knows it describes it.
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.said().find_map(|(_, said)| said.volumes.iter().find(|volume| volume.name == name))
    }

    /// The virt group's options, as the first server that has them has them.
    pub fn group(&self) -> Option<&BTreeMap<String, String>> {
        self.ids.iter().find_map(|id| self.facts.get(id)?.group.as_ref())
    }
}

/// Plans for the servers and the volume, and tells whether hypervisors may count on it.
pub(super) fn plan(subject: &Subject<'_>, out: &mut Proposal) -> Service {
    let Some(servers) = Servers::read(subject) else {
        return Service::Refused;
    };
    let existing = servers.volume(subject.id.as_str());
    let before = out.blocked.len();
    unobserved(subject, &servers, existing, out);
    let all_known = out.blocked.len() == before;
    for id in &servers.ids {
        if let Some(facts) = servers.facts.get(id) {
            prerequisites(subject, id, facts, out);
        }
    }
    disconnected(subject, &servers, out);
    let refusals = out.blocked.len();
    match existing {
        Some(volume) => {
            if all_known {
                join(subject, &servers, out);
            }
            let service = volume::reconcile(subject, &servers, volume, out);
            if out.blocked.len() > refusals && service == Service::Coming {
                Service::Refused
            } else {
                service
            }
        }
        None if !all_known => Service::Unknown,
        None => {
            join(subject, &servers, out);
            meet(subject, &servers, out);
            bricks::prepare(subject, &servers, out);
            let service = Service::after(&out.blocked[refusals..]);
            if service == Service::Coming {
                volume::create(subject, &servers, out);
            }
            service
        }
    }
}

/// Names every server that is not known. Where the volume runs, nothing else has to wait for it.
fn unobserved(subject: &Subject<'_>, servers: &Servers<'_>, existing: Option<&Volume>, out: &mut Proposal) {
    let wave = match existing {
        Some(volume) if volume.is_started() => Wave::Settle,
        _ => Wave::Service,
    };
    for (id, error) in &servers.errors {
        let what = ResourceId::new(ResourceKind::Service, format!("{} on {id}", commands::DAEMON));
        let mut blocked = subject.blocked(wave, what, error).on(id);
        blocked.unknown = error.is_unknown();
        out.blocked.push(blocked);
    }
    for (id, facts) in &servers.facts {
        if facts.said.is_none() && facts.has_state && existing.is_none() {
            let what = ResourceId::new(ResourceKind::Service, format!("{} on {id}", commands::DAEMON));
            let reason =
                format!("host {id}: glusterd does not run, so its pool and its volumes are not known");
            let hint = "once it runs, `stor apply` again goes on from there";
            let blocked = subject.blocked(wave, what, reason).on(id).hint(hint);
            out.blocked.push(Blocked { unknown: true, ..blocked });
        }
    }
}

fn prerequisites(subject: &Subject<'_>, id: &HostId, facts: &ServerFacts, out: &mut Proposal) {
    out.steps.extend(packages::step(Wave::Prerequisites, id, subject.id, facts.family, &facts.missing));
    if facts.daemon.is_active() && facts.daemon.is_enabled() {
        return;
    }
    let what = ResourceId::new(ResourceKind::Service, commands::DAEMON);
    let effect = Effect::Run(vec![enable_and_start(commands::DAEMON)]);
    let difference =
        Difference::new(format!("service.{}", commands::DAEMON), "enabled, active", facts.daemon.summary());
    let mut step = Step::new(Wave::Prerequisites, id, what, "enable and start glusterd", effect)
        .serving(subject.id)
        .because(difference);
    if !facts.daemon.is_enabled() {
        step = step.owning(daemon());
    }
    out.steps.push(step);
}

/// The daemon as the record keeps it. It serves every volume of its host, so it belongs to no single storage.
pub(in crate::storage::gluster) fn daemon() -> Owned {
    Owned::new(OwnedKind::Service, commands::DAEMON)
}

/// A peer as the record of the first server keeps it; likewise.
pub(in crate::storage::gluster) fn peer(address: &str) -> Owned {
    Owned::new(OwnedKind::GlusterPeer, address)
}

/// Takes the other servers into the first one's pool.
fn join(subject: &Subject<'_>, servers: &Servers<'_>, out: &mut Proposal) {
    let first = servers.facts.get(servers.first).and_then(|facts| facts.said.as_ref());
    for id in servers.ids.iter().filter(|id| **id != servers.first) {
        let address = subject.cluster.address_of(id);
        let Some(facts) = servers.facts.get(id) else { continue };
        let known = first.and_then(|first| find(first, facts.said.as_ref(), address));
        match (known, facts.said.as_ref()) {
            (Some(peer), _) if peer.is_member() => {}
            (Some(peer), _) => out.blocked.push(halfway(subject, servers.first, id, peer)),
            (None, Some(said)) if !said.peers.is_empty() => {
                let names: Vec<&str> = said.peers.iter().map(|peer| peer.name.as_str()).collect();
                let reason = format!("host {id}: is in another pool, with {}", names.join(", "));
                let blocked = subject.blocked(Wave::Service, peer_id(address), reason).on(id).hint(format!(
                    "detach it there (`gluster peer detach {address}`), or name a server of that pool as the first brick"
                ));
                out.blocked.push(blocked);
            }
            (None, Some(said)) if !said.volumes.is_empty() => {
                let names: Vec<&str> = said.volumes.iter().map(|volume| volume.name.as_str()).collect();
                let reason = format!("host {id}: has volumes of its own: {}", names.join(", "));
                let hint = "glusterd takes only servers without volumes: name this host as the first brick, or delete them";
                out.blocked.push(subject.blocked(Wave::Service, peer_id(address), reason).on(id).hint(hint));
            }
            (None, _) => out.steps.push(probe(subject, servers.first, address)),
        }
    }
}

/// Has every server wait until it sees all of the pool, which a volume can be created in only then.
fn meet(subject: &Subject<'_>, servers: &Servers<'_>, out: &mut Proposal) {
    if servers.ids.len() < 2 {
        return;
    }
    let first = servers.facts.get(servers.first).and_then(|facts| facts.said.as_ref());
    // Members that serve this volume not at all may be down; they are counted only if they are connected now.
    let is_server = |peer: &Peer| {
        servers.ids.iter().any(|id| {
            let said = servers.facts.get(id).and_then(|facts| facts.said.as_ref());
            first.and_then(|first| find(first, said, subject.cluster.address_of(id))) == Some(peer)
        })
    };
    let peers = first.map_or(&[][..], |first| &first.peers);
    let others = peers.iter().filter(|peer| peer.connected && !is_server(peer)).count();
    let members = servers.ids.len() + others;
    for id in &servers.ids {
        let said = servers.facts.get(id).and_then(|facts| facts.said.as_ref());
        let met = said.map_or(0, |said| 1 + said.peers.iter().filter(|peer| peer.connected).count());
        if met >= members {
            continue;
        }
        let what = ResourceId::new(ResourceKind::Service, commands::DAEMON);
        let title = format!("wait until {id} sees all {members} servers of the pool");
        let step = Step::new(Wave::Meeting, id, what, title, Effect::Run(vec![commands::meet(members)]));
        let difference = Difference::new("pool.connected", members.to_string(), met.to_string());
        out.steps.push(step.serving(subject.id).because(difference));
    }
}

fn peer_id(address: &str) -> ResourceId {
    ResourceId::new(ResourceKind::Peer, address)
}

/// The peer that a server is to `first`: by its UUID, or by its address when it could not tell its UUID.
fn find<'s>(first: &'s Said, said: Option<&Said>, address: &str) -> Option<&'s Peer> {
    first.peers.iter().find(|peer| match said {
        Some(said) => peer.uuid == said.own_uuid,
        None => peer.name == address || peer.names.contains(address),
    })
}

fn halfway(subject: &Subject<'_>, first: &HostId, id: &HostId, peer: &Peer) -> Blocked {
    let reason = format!("host {first}: glusterd says of {id}: {}", peer.state);
    subject.blocked(Wave::Service, peer_id(&peer.name), reason).on(id).hint(
        "see `gluster peer status` on both; a rejected peer has other volume data than its pool \
         (https://docs.gluster.org/en/latest/Administrator-Guide/Resolving-Peer-Rejected/)",
    )
}

fn probe(subject: &Subject<'_>, first: &HostId, address: &str) -> Step {
    let effect = Effect::Run(vec![commands::probe_peer(address)]);
    Step::new(Wave::Service, first, peer_id(address), format!("take {address} into the pool"), effect)
        .serving(subject.id)
        .because(Difference::new(format!("peer.{address}"), "in the pool", "absent"))
        .owning(peer(address))
        .undone_by(Effect::Run(commands::detach(address)))
}

/// Reports servers that the pool has lost sight of.
fn disconnected(subject: &Subject<'_>, servers: &Servers<'_>, out: &mut Proposal) {
    let Some((witness, said)) = servers.said().next() else { return };
    for id in &servers.ids {
        let own = servers.facts.get(id).and_then(|facts| facts.said.as_ref());
        let address = subject.cluster.address_of(id);
        let Some(peer) = find(said, own, address).filter(|peer| !peer.connected) else { continue };
        let message =
            format!("server {id} is not connected to the others: its brick misses what is written now");
        out.findings.push(
            Finding::new(Severity::Warning, FindingCode::PeerDisconnected, peer_id(address), message)
                .on(id)
                .evidence(format!("host {witness}: {}, disconnected", peer.state))
                .remedy("start glusterd on it, and open TCP port 24007 between the servers"),
        );
    }
}
