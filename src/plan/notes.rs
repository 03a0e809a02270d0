//! What the records remember besides resources: the cluster's hypervisors, hosts that the user named as dead, guests of
//! which a host that leaves kept the entry, and the UUIDs of those that an older stor defined.
//!
//! Pure. Imports `model` and the scene. A note is written before anything else of a plan, and forgotten with what was removed.

use std::collections::{BTreeMap, BTreeSet};

use super::access;
use super::scene::Scene;
use crate::model::{Dead, HostId, Member, Owned, OwnedKind, Record, Standing};

type PerHost = BTreeMap<HostId, Vec<Owned>>;

/// What every record takes up; `apart` are hosts on which nothing may be written.
pub(super) fn taken_up(scene: &Scene<'_>, dead: &Dead, apart: &BTreeSet<HostId>) -> PerHost {
    let cluster = scene.cluster;
    let names: BTreeSet<String> =
        dead.0.iter().filter(|name| name.is_single()).map(ToString::to_string).collect();
    // By name and by address, so that the access lists are understood when the member is forgotten.
    let both =
        scene.members.all().filter(|member| names.contains(&member.host) || names.contains(&member.address));
    let both: Vec<String> = both.flat_map(|member| [member.host.clone(), member.address.clone()]).collect();
    let dead: BTreeSet<String> = names.into_iter().chain(both).collect();
    let on = |host: &HostId| {
        let members = cluster.hypervisors().map(|hypervisor| Member::entry(hypervisor, host));
        let dead = dead.iter().map(|name| Owned::new(OwnedKind::DeadHost, name.as_str()));
        // Those that only an older stor's keys show are gone from there with the next step.
        let lost = scene.members.lost(&cluster.hosts).into_iter().map(Member::entry_of_absent);
        let mut notes: Vec<Owned> = members.chain(dead).chain(lost).collect();
        notes.extend(guests(scene, host));
        notes.extend(identified(scene, host));
        notes
    };
    let known = scene.records.iter().filter(|(host, record)| record.is_ok() && !apart.contains(*host));
    known.map(|(host, _)| (host.clone(), on(host))).collect()
}

/// Entries of an older stor, which hold no UUID, with the one that the file and a domain agree on: without it nothing tells which domain
/// is the guest once it left the file.
fn identified(scene: &Scene<'_>, host: &HostId) -> Vec<Owned> {
    let Some(Ok(record)) = scene.records.get(host) else { return Vec::new() };
    let old = record
        .owned
        .iter()
        .filter(|entry| entry.kind == OwnedKind::Guest && !entry.detail.contains_key("uuid"));
    let with_uuid = |entry: &Owned| {
        let guest = scene.cluster.guests.keys().find(|guest| guest.as_str() == entry.name)?;
        let uuid = scene.cluster.guest_uuid(guest);
        let seen = scene.all_domains().any(|(_, domain)| domain.uuid == uuid && domain.name == entry.name);
        seen.then(|| entry.clone().with("uuid", uuid.as_str()))
    };
    old.filter_map(with_uuid).collect()
}

/// Entries of guests that are on `host` now, while a host that is no hypervisor any more has the entry.
fn guests(scene: &Scene<'_>, host: &HostId) -> Vec<Owned> {
    let here = |name: &str| match scene.domains.get(host) {
        Some(Ok(domains)) if !scene.plain.contains_key(host) => {
            domains.iter().any(|domain| domain.name == name)
        }
        _ => false,
    };
    let in_file = |name: &str| scene.cluster.guests.keys().any(|guest| guest.as_str() == name);
    let left = scene.plain.keys().filter_map(|plain| scene.records.get(plain)?.as_ref().ok());
    let entries =
        left.flat_map(|record: &Record| &record.owned).filter(|entry| entry.kind == OwnedKind::Guest);
    entries.filter(|entry| in_file(&entry.name) && here(&entry.name)).cloned().collect()
}

/// Hosts that a record calls dead and that the file names again. Forgotten first of all, whatever else waits or fails: the next time
/// that they leave the file they have to be asked.
pub(super) fn outdated(scene: &Scene<'_>) -> PerHost {
    let hosts = &scene.cluster.hosts;
    let is_back = |entry: &Owned| {
        let name = entry.name.as_str();
        entry.kind == OwnedKind::DeadHost
            && (hosts.values().any(|host| host.id.as_str() == name || host.address == name)
                || scene.backends.iter().any(|backend| backend.traces().clients.contains(name)))
    };
    entries(scene, is_back)
}

/// What the records need not remember any more.
pub(super) fn forgotten(scene: &Scene<'_>) -> PerHost {
    let hosts = &scene.cluster.hosts;
    let is_done = |entry: &Owned| match Member::of(entry).map(|member| scene.members.standing(hosts, &member))
    {
        None | Some(Standing::Hypervisor | Standing::Lost) => false,
        Some(Standing::Renamed(_) | Standing::Dead) => true,
        Some(Standing::Plain(host)) => access::uses_nothing_at_all(scene, &host),
    };
    entries(scene, is_done)
}

/// The entries of all records that are so.
fn entries(scene: &Scene<'_>, is: impl Fn(&Owned) -> bool) -> PerHost {
    let of = |record: &Record| record.owned.iter().filter(|entry| is(entry)).cloned().collect::<Vec<_>>();
    let known = scene.records.iter().filter_map(|(host, record)| Some((host, record.as_ref().ok()?)));
    known.map(|(host, record)| (host.clone(), of(record))).filter(|(_, found)| !found.is_empty()).collect()
}
