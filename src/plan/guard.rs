//! What guards the hosts: firewalls let the named peers in, SELinux lets guests use what is mounted.
//!
//! Pure. Imports `guard` (tools and their commands), `storage`, `spec`, `model` and the scene. Joins what the storage and
//! migration need on a host into one set of rules, and compares it with what the host's own tool shows. A guard that
//! cannot be read or changed blocks nothing else: whether a peer is let in shows when it is used.

use std::collections::{BTreeMap, BTreeSet};

use super::scene::Scene;
use crate::guard::facts::{self, Facts, FactsError};
use crate::guard::{
    Change, Firewall, Mark, Opening, Protocol, Rule, Tool, firewalld, nftables, selinux, ufw,
};
use crate::model::{
    Blocked, Command, Difference, Driver, Effect, HostId, Observations, Owned, OwnedKind, Proposal, Query,
    ResourceId, ResourceKind, Risk, Step, Unknown, Wave,
};
use crate::spec::{Cluster, HostSpec, Role};
use crate::storage::Backend;

/// Where libvirt listens for a migration (`migration_port_min` and `migration_port_max` of qemu.conf).
const MIGRATION_PORTS: (u16, u16) = (49152, 49215);

fn booleans(backends: &[Box<dyn Backend + '_>], host: &HostId) -> BTreeSet<&'static str> {
    backends.iter().flat_map(|backend| backend.booleans(host)).copied().collect()
}

/// What has to be asked on `host`.
pub(super) fn query(cluster: &Cluster, backends: &[Box<dyn Backend + '_>], host: &HostId) -> Query {
    let booleans: Vec<_> = booleans(backends, host).into_iter().collect();
    facts::query(&Mark::new(&cluster.name), &booleans)
}

/// Reads what `host` answered.
pub(super) fn read(
    cluster: &Cluster,
    backends: &[Box<dyn Backend + '_>],
    seen: &Observations,
    host: &HostId,
) -> Result<Facts, FactsError> {
    let booleans: Vec<_> = booleans(backends, host).into_iter().collect();
    facts::read(seen, host, &Mark::new(&cluster.name), &booleans)
}

/// What stor would own on `host`; as long as its guards are unknown, all that it may own.
pub(super) fn claims(scene: &Scene<'_>, host: &HostSpec) -> Vec<Owned> {
    let firewall = |tool: Tool| Owned::new(OwnedKind::Firewall, tool.name());
    let firewalls: Vec<Owned> = match scene.guards.get(&host.id) {
        Some(Ok(Facts { firewall: Some(found), .. }))
            if !Wanted::of(scene, host, found.tool()).is_empty() =>
        {
            vec![firewall(found.tool())]
        }
        Some(Ok(_)) => Vec::new(),
        Some(Err(_)) | None => Tool::ALL.into_iter().map(firewall).collect(),
    };
    let booleans = booleans(scene.backends, &host.id).into_iter();
    firewalls.into_iter().chain(booleans.map(|name| Owned::new(OwnedKind::Boolean, name))).collect()
}

/// What peers have to reach on one host.
struct Wanted {
    /// Rules in the words of the host's tool, and in words for people.
    rules: BTreeMap<String, String>,
    /// Peers that are DNS names, with what they are to reach.
    names: BTreeMap<String, BTreeSet<&'static str>>,
    /// When the rules have to be there.
    wave: Wave,
}

impl Wanted {
    fn of(scene: &Scene<'_>, host: &HostSpec, tool: Tool) -> Self {
        let served: Vec<Opening> =
            scene.backends.iter().flat_map(|backend| backend.openings(&host.id)).collect();
        let wave = match served.is_empty() {
            true => Wave::ClientPrerequisites,
            false => Wave::Prerequisites,
        };
        let mut wanted = Self { rules: BTreeMap::new(), names: BTreeMap::new(), wave };
        for opening in served.iter().chain(&migration(scene.cluster, host)) {
            wanted.add(opening, host, tool);
        }
        wanted
    }

    fn add(&mut self, opening: &Opening, host: &HostSpec, tool: Tool) {
        let Opening { protocol, first, last, purpose, ref peers } = *opening;
        for peer in peers.iter().filter(|peer| **peer != host.address) {
            match peer.parse() {
                Ok(peer) => {
                    let rule = Rule { peer, protocol, first, last };
                    self.rules.entry(tool.text(&rule)).or_insert_with(|| format!("{rule} ({purpose})"));
                }
                Err(_) => _ = self.names.entry(peer.clone()).or_default().insert(purpose),
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

/// What a hypervisor's peers reach of its QEMU while a guest comes.
fn migration(cluster: &Cluster, host: &HostSpec) -> Option<Opening> {
    let (first, last) = MIGRATION_PORTS;
    let peers = || cluster.peers().map(|host| host.address.clone()).collect();
    let opening = || Opening { protocol: Protocol::Tcp, first, last, purpose: "migration", peers: peers() };
    host.role.driver().is_some_and(Driver::moves_running_guests).then(opening)
}

/// Plans openings and booleans of all hosts; `stopped` tells whether a step would have to wait.
pub(super) fn plan(scene: &Scene<'_>, stopped: &dyn Fn(&Step) -> bool) -> Proposal {
    let mut proposal = Proposal::default();
    for host in scene.cluster.hosts.values() {
        match scene.guards.get(&host.id) {
            Some(Ok(facts)) => {
                if let Some(firewall) = &facts.firewall {
                    Guard { scene, host, firewall, mark: Mark::new(&scene.cluster.name) }
                        .plan(stopped, &mut proposal);
                }
                proposal.steps.extend(set_booleans(scene, host, facts));
            }
            // That the whole host was not observed is said once, for all of it.
            None | Some(Err(FactsError::Unknown(Unknown::Host { .. }))) => {}
            Some(Err(error)) => proposal.blocked.push(unread(Wave::Guest, &host.id, error)),
        }
    }
    proposal
}

fn unread(wave: Wave, host: &HostId, error: &FactsError) -> Blocked {
    let subject = ResourceId::new(ResourceKind::Firewall, host);
    let refused = |hint| Blocked::new(wave, subject.clone(), crate::model::chain(error)).on(host).hint(hint);
    match error {
        FactsError::Unknown(unknown) => Blocked::unknown(wave, subject, unknown).on(host),
        FactsError::Silent { .. } => refused("set it right, or run stor again once it answers"),
        FactsError::Ruleset { .. } => refused("open the ports by hand (docs/security.md)"),
    }
}

/// One host's firewall.
struct Guard<'a> {
    scene: &'a Scene<'a>,
    host: &'a HostSpec,
    firewall: &'a Firewall,
    mark: Mark,
}

impl Guard<'_> {
    /// What is no longer needed goes before anything new comes, and only if nothing else that goes has to wait: a guest
    /// may still use storage that left the file.
    fn plan(&self, stopped: &dyn Fn(&Step) -> bool, proposal: &mut Proposal) {
        let tool = self.firewall.tool();
        let wanted = Wanted::of(self.scene, self.host, tool);
        proposal.blocked.extend(self.named(&wanted));
        let texts: BTreeSet<String> = wanted.rules.keys().cloned().collect();
        let own = self.firewall.own();
        let surplus =
            own.iter().any(|text| !texts.contains(text)) || !self.firewall.strange(&self.mark).is_empty();
        if wanted.is_empty() && (self.is_owned(tool) || !surplus) {
            return;
        }
        let kept: BTreeSet<String> = own.intersection(&texts).cloned().collect();
        let closing: Vec<Step> = match surplus {
            true => self
                .firewall
                .close(&self.mark, &kept)
                .into_iter()
                .map(|change| self.closing(change).taking(shut_out(own.difference(&texts))))
                .collect(),
            false => Vec::new(),
        };
        let waits = closing.iter().any(stopped);
        proposal.steps.extend(closing);
        let target = if waits { texts.union(&own).cloned().collect() } else { texts };
        let after = match surplus && !waits {
            true => self.firewall.closed(&self.mark, &kept),
            false => self.firewall.clone(),
        };
        match after.open(&self.mark, &target) {
            Ok(changes) => {
                proposal.steps.extend(changes.into_iter().map(|change| self.opening(change, &wanted, tool)));
            }
            Err(refused) => proposal.blocked.push(self.blocked(&refused).hint(refused.hint())),
        }
    }

    fn is_owned(&self, tool: Tool) -> bool {
        let record = self.scene.records.get(&self.host.id);
        record.is_some_and(|record| {
            record.as_ref().is_ok_and(|record| record.owns(OwnedKind::Firewall, tool.name()))
        })
    }

    fn step(&self, wave: Wave, change: Change) -> Step {
        let subject = ResourceId::new(ResourceKind::Firewall, &self.host.id);
        let mut step = Step::new(wave, &self.host.id, subject, change.title, change.effect);
        step.why = change.why;
        step
    }

    fn closing(&self, change: Change) -> Step {
        self.step(Wave::ReleaseHost, change).risking(Risk::Disruptive)
    }

    fn opening(&self, mut change: Change, wanted: &Wanted, tool: Tool) -> Step {
        for why in &mut change.why {
            if let Some(words) = wanted.rules.get(&why.desired) {
                why.desired.clone_from(words);
            }
        }
        self.step(wanted.wave, change).owning(Owned::new(OwnedKind::Firewall, tool.name()))
    }

    /// In the last wave that anything waits for: nothing else stops.
    fn blocked(&self, reason: &dyn std::fmt::Display) -> Blocked {
        let subject = ResourceId::new(ResourceKind::Firewall, &self.host.id);
        let reason = format!("host {}: {reason}", self.host.id);
        Blocked::new(Wave::Guest, subject, reason).on(&self.host.id)
    }

    fn named(&self, wanted: &Wanted) -> Option<Blocked> {
        if wanted.names.is_empty() {
            return None;
        }
        let peers: Vec<String> = wanted
            .names
            .iter()
            .map(|(peer, purposes)| {
                format!("{peer} ({})", purposes.iter().copied().collect::<Vec<_>>().join(", "))
            })
            .collect();
        let tool = self.firewall.tool().name();
        let reason = format!("{tool} cannot be told to let in a name: {}", peers.join("; "));
        Some(self.blocked(&reason).hint("write these hosts' IPv4 addresses into the cluster file"))
    }
}

/// The peers that rules in any tool's words name.
fn shut_out<'t>(rules: impl Iterator<Item = &'t String>) -> BTreeSet<String> {
    let words = rules.flat_map(|rule| rule.split(|c: char| !c.is_ascii_digit() && c != '.'));
    words.filter(|word| word.parse::<std::net::Ipv4Addr>().is_ok()).map(str::to_owned).collect()
}

/// Sets what the storage needs and the policy has; what is on already is somebody else's.
fn set_booleans(scene: &Scene<'_>, host: &HostSpec, facts: &Facts) -> Vec<Step> {
    let wave = match host.role {
        Role::Hypervisor(_) => Wave::ClientPrerequisites,
        Role::Server => Wave::Prerequisites,
    };
    let known = facts.booleans.iter().flatten();
    let off = known.filter(|(name, on)| !**on && booleans(scene.backends, &host.id).contains(name.as_str()));
    off.map(|(name, on)| {
        let title = format!("set SELinux boolean {name}");
        let effect = Effect::Run(vec![selinux::set(name, selinux::word(true))]);
        Step::new(wave, &host.id, ResourceId::new(ResourceKind::Boolean, name), title, effect)
            .because(Difference::new(format!("selinux.{name}"), selinux::word(true), selinux::word(*on)))
            .owning(Owned::new(OwnedKind::Boolean, name.as_str()).with("former", selinux::word(*on)))
    })
    .collect()
}

/// The facts that a removal goes by.
fn known<'s>(scene: &'s Scene<'_>, host: &HostId) -> Result<&'s Facts, Box<Blocked>> {
    match scene.guards.get(host) {
        Some(Ok(facts)) => Ok(facts),
        Some(Err(error)) => Err(Box::new(unread(Wave::ReleaseHost, host, error))),
        None => {
            let subject = ResourceId::new(ResourceKind::Firewall, host);
            Err(Box::new(Blocked::unknown(Wave::ReleaseHost, subject, "it was not asked").on(host)))
        }
    }
}

/// What takes stor's rules out of a tool, whether it is in force or not; nothing where there are none.
pub(super) fn close(scene: &Scene<'_>, host: &HostId, tool: &str) -> Result<Vec<Command>, Box<Blocked>> {
    let mark = Mark::new(&scene.cluster.name);
    let facts = known(scene, host)?;
    let Some(tool) = Tool::ALL.into_iter().find(|known| known.name() == tool) else { return Ok(Vec::new()) };
    Ok(match tool {
        Tool::Firewalld => match &facts.firewall {
            Some(Firewall::Firewalld(state)) => firewalld::remove(Some(state), &mark),
            _ => firewalld::remove(None, &mark),
        },
        Tool::Ufw => facts.ufw.as_ref().map_or_else(Vec::new, ufw::remove),
        Tool::Nftables => nftables::remove(&mark),
    })
}

/// What sets a boolean back to what it was; nothing where it is that already, or SELinux is off.
pub(super) fn former(
    scene: &Scene<'_>,
    host: &HostId,
    entry: &Owned,
) -> Result<Option<Command>, Box<Blocked>> {
    let facts = known(scene, host)?;
    let former = entry.detail.get("former").map_or(selinux::word(false), String::as_str);
    // Storage that left the file no longer says which booleans to ask for.
    let now = facts.booleans.as_ref().map(|known| known.get(&entry.name));
    let differs = now.is_some_and(|on| on.is_none_or(|on| selinux::word(*on) != former));
    Ok(differs.then(|| selinux::set(&entry.name, former)))
}
