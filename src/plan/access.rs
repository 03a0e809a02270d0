//! Who loses access to storage, and whether nothing of theirs can be cut by it.
//!
//! Pure. Imports `storage`, `model` and the scene. Backends say which clients a step takes access from; here it is decided
//! whether it may. A client may lose access when it is a host of the file that was asked in this round and uses nothing, or
//! when the user named it as dead. Otherwise nothing of that storage is changed.

use std::collections::{BTreeMap, BTreeSet};

use super::scene::Scene;
use super::users;
use crate::model::members::REMEDY;
use crate::model::{
    Blocked, Dead, HostId, HostSpec, OwnedKind, Proposal, ResourceId, ResourceKind, Risk, Standing,
    StorageId, Wave,
};
use crate::storage::Backend;

/// What access lists call everybody (auth.allow, exports(5), tgtadm(8)).
const EVERYBODY: [&str; 4] = ["*", "ALL", "0.0.0.0/0", "::/0"];

/// Why a client keeps its access.
struct Refusal {
    reason: String,
    hint: String,
    unknown: bool,
    on: Option<HostId>,
}

fn refuse(reason: String, hint: impl Into<String>) -> Result<(), Refusal> {
    Err(Refusal { reason, hint: hint.into(), unknown: false, on: None })
}

/// What may not be taken from whom.
#[derive(Default)]
pub(super) struct Judged {
    /// The backends' proposals without the storage that stays as it is.
    pub proposal: Proposal,
    /// Clients that keep their access, everywhere.
    pub kept: BTreeSet<String>,
}

/// Hypervisors that left the file without having been asked: nothing is removed meanwhile.
pub(super) fn unasked(scene: &Scene<'_>) -> Proposal {
    let mut proposal = Proposal::default();
    for member in scene.members.lost(&scene.cluster.hosts) {
        let reason = format!("host {member} left the file and was not asked what it still uses");
        let subject = ResourceId::new(ResourceKind::Host, &member.host);
        proposal.blocked.push(Blocked::new(Wave::ReleaseGuest, subject, reason).hint(REMEDY));
    }
    proposal
}

/// Names that the user called dead and that nothing knows: a mistake, so nothing at all is done.
pub(super) fn misnamed(scene: &Scene<'_>, dead: &Dead, storage: &Proposal) -> Proposal {
    let known = |name: &str| {
        scene.members.named(name).is_some()
            || scene.owned_anywhere(OwnedKind::DeadHost, name)
            || storage.steps.iter().any(|step| step.takes.contains(name))
    };
    let mut proposal = Proposal::default();
    for name in dead.0.iter().filter(|name| !known(name.as_str())) {
        let reason = format!("--dead {name}: neither the records nor an access list name it");
        let blocked = Blocked::new(Wave::Record, ResourceId::new(ResourceKind::Host, name), reason);
        proposal
            .blocked
            .push(blocked.hint("name a hypervisor that left the file, or a client by its address"));
    }
    proposal
}

/// Judges every step that takes access; storage of which one is refused gets no step at all.
pub(super) fn judge(scene: &Scene<'_>, mut proposal: Proposal) -> Judged {
    let mut taken: BTreeMap<(StorageId, HostId), BTreeSet<String>> = BTreeMap::new();
    for step in &mut proposal.steps {
        let Some(storage) = step.storage.as_ref().filter(|_| !step.takes.is_empty()) else { continue };
        let clients = scene.backend(storage).map(|backend| backend.traces().clients).unwrap_or_default();
        step.takes.retain(|client| !stays_in(scene, &clients, client));
        if step.takes.is_empty() {
            continue;
        }
        step.risk = step.risk.max(Risk::Disruptive);
        let key = (storage.clone(), step.host.clone());
        taken.entry(key).or_default().extend(step.takes.iter().cloned());
    }
    let mut kept: BTreeSet<String> =
        scene.members.lost(&scene.cluster.hosts).into_iter().map(|member| member.address.clone()).collect();
    let mut frozen = BTreeSet::new();
    for ((storage, server), clients) in taken {
        let Some(backend) = scene.backend(&storage) else { continue };
        for client in clients {
            let Err(refusal) = may_lose(scene, backend, &client) else { continue };
            let reason = format!("{client} would lose access to storage {storage}: {}", refusal.reason);
            let subject = ResourceId::new(ResourceKind::Storage, &storage);
            let blocked =
                Blocked::new(Wave::Prerequisites, subject, reason).serving(&storage).hint(refusal.hint);
            let on = refusal.on.as_ref().unwrap_or(&server);
            proposal.blocked.push(Blocked { unknown: refusal.unknown, ..blocked.on(on) });
            kept.insert(client);
            frozen.insert(storage.clone());
        }
    }
    proposal.steps.retain(|step| step.storage.as_ref().is_none_or(|storage| !frozen.contains(storage)));
    Judged { proposal, kept }
}

/// Tells whether a client stays let in by another of its names.
fn stays_in(scene: &Scene<'_>, clients: &BTreeSet<String>, client: &str) -> bool {
    let is = |host: &&HostSpec| host.address == client || host.id.as_str() == client;
    let host = scene.cluster.hosts.values().find(is);
    host.is_some_and(|host| clients.contains(&host.address) || clients.contains(host.id.as_str()))
}

fn may_lose(scene: &Scene<'_>, backend: &dyn Backend, client: &str) -> Result<(), Refusal> {
    let hosts = &scene.cluster.hosts;
    let logs_in_as = |host: &HostSpec| {
        let marks = scene.marks.get(&host.id).and_then(|marks| marks.as_ref().ok());
        marks.is_some_and(|marks| marks.initiator.as_deref() == Some(client))
    };
    let is = |host: &&HostSpec| host.address == client || host.id.as_str() == client || logs_in_as(host);
    if let Some(host) = hosts.values().find(is) {
        return match host.role.is_hypervisor() {
            // By this name only: it is let in by another.
            true => Ok(()),
            false => uses_nothing(scene, backend, &host.id),
        };
    }
    if let Some(member) = scene.members.named(client) {
        return match scene.members.standing(hosts, member) {
            Standing::Dead => Ok(()),
            Standing::Renamed(host) => address_is_gone(scene, &host, client),
            Standing::Plain(host) => {
                address_is_gone(scene, &host, client)?;
                uses_nothing(scene, backend, &host)
            }
            Standing::Hypervisor => Ok(()),
            Standing::Lost => refuse(format!("host {member} left the file and was not asked"), REMEDY),
        };
    }
    if scene.members.is_dead(client) {
        return Ok(());
    }
    // Who made a hole for everybody named nobody; closing it is disruptive, and cuts no hypervisor that the records know.
    if EVERYBODY.contains(&client) {
        return match scene.lost() {
            None => Ok(()),
            Some(lost) => refuse(format!("{lost}, and may use it"), REMEDY),
        };
    }
    refuse(
        "neither the file nor the records say which host it is, so nobody knows whether it uses the storage"
            .to_owned(),
        format!(
            "if it was a hypervisor, write it back under hosts: without `hypervisor: true`, so that it is asked; if it is a client without \
             guests, let it in with `allow:`; or, if nothing on it uses the storage any more, `stor apply --dead '{client}'`"
        ),
    )
}

/// A host has another address now: it must not have the old one besides, by which connections may stand.
fn address_is_gone(scene: &Scene<'_>, host: &HostId, address: &str) -> Result<(), Refusal> {
    let unknown = |reason: String| {
        Err(Refusal {
            reason,
            hint: "run it again once the host answers".to_owned(),
            unknown: true,
            on: Some(host.clone()),
        })
    };
    match scene.marks.get(host) {
        Some(Ok(marks)) if marks.addresses.is_empty() => refuse(
            format!("host {host} does not show its addresses"),
            format!("`stor apply --dead '{address}'`, if nothing uses it any more"),
        ),
        Some(Ok(marks))
            if !marks.addresses.contains(address) && address.parse::<std::net::IpAddr>().is_ok() =>
        {
            Ok(())
        }
        Some(Ok(_)) => refuse(
            format!("it was the address of {host} and may still be used there"),
            format!(
                "take the address off {host} first; or `stor apply --dead '{address}'`, if nothing uses it any more"
            ),
        ),
        Some(Err(error)) => unknown(error.to_string()),
        None => unknown(format!("host {host} was not asked")),
    }
}

/// Tells whether a host of the file that is no hypervisor uses nothing of a storage.
pub(super) fn uses_nothing_at_all(scene: &Scene<'_>, host: &HostId) -> bool {
    scene.backends.iter().all(|backend| uses_nothing(scene, &**backend, host).is_ok())
}

fn uses_nothing(scene: &Scene<'_>, backend: &dyn Backend, host: &HostId) -> Result<(), Refusal> {
    match users::on_plain(scene, backend, host) {
        Ok(used) if used.is_empty() => Ok(()),
        Ok(used) => Err(Refusal {
            reason: format!("host {host} uses it: {}", used.join(", ")),
            hint: format!(
                "write `hypervisor: true` of {host} back, move its guests away (`stor migrate`), unmount what stor did not \
                 mount, then take it away again"
            ),
            unknown: false,
            on: Some(host.clone()),
        }),
        Err(reason) => Err(Refusal {
            reason: format!("cannot tell whether host {host} uses it: {reason}"),
            hint: "run it again once the host answers".to_owned(),
            unknown: true,
            on: Some(host.clone()),
        }),
    }
}
