//! The volume: creation, options, start.

use std::collections::{BTreeMap, BTreeSet};

use super::Subject;
use super::servers::Servers;
use crate::model::{Difference, Effect, Owned, OwnedKind, Proposal, Record, Risk, Step, StorageId, Wave};
use crate::storage::gluster::commands;
use crate::storage::gluster::facts::{Volume, VolumeStatus};
use crate::storage::gluster::spec::Arbiter;
use crate::storage::mount_client;
use crate::storage::planning::Service;

/// Options that decide how files are laid out: changed under files that exist, they make them unreadable.
const LAYOUT: [&str; 2] = ["features.shard", "features.shard-block-size"];

/// The volume as the record of the first server keeps it.
pub(in crate::storage::gluster) fn owned(id: &StorageId) -> Owned {
    Owned::new(OwnedKind::GlusterVolume, id.as_str()).of_storage(id)
}

/// Plans a volume that does not exist.
pub(super) fn create(subject: &Subject<'_>, servers: &Servers<'_>, out: &mut Proposal) {
    let (id, spec) = (subject.id, subject.spec);
    let effect = Effect::Run(vec![commands::create(subject.cluster, id, spec)]);
    let mut step = Step::new(
        Wave::Export,
        servers.first,
        subject.volume(),
        format!("create volume {id} ({})", shape(spec.replica, u32::from(spec.arbiter == Arbiter::Yes))),
        effect,
    )
    .serving(id)
    .because(Difference::new(format!("volume.{id}"), "present", "absent"))
    .owning(owned(id))
    .undone_by(Effect::Run(commands::stop_and_delete(id.as_str())));
    for brick in bricks(subject) {
        step = step.because(Difference::new(format!("volume.{id}.bricks"), brick, "absent"));
    }
    out.steps.push(step);
    let own = own_options(subject);
    let effect = match servers.group() {
        // The file is known: everything goes into one call.
        Some(group) => {
            let mut all = group.clone();
            all.extend(own.clone());
            vec![commands::set_options(id, &all)]
        }
        None => vec![commands::set_group(id), commands::set_options(id, &own)],
    };
    let title =
        format!("set the options of volume {id} (group {}, {} of its own)", commands::GROUP, own.len());
    let mut step =
        Step::new(Wave::Export, servers.first, subject.volume(), title, Effect::Run(effect)).serving(id);
    step = step.because(Difference::new(format!("volume.{id}.options.group"), commands::GROUP, "absent"));
    for (name, value) in &own {
        step = step.because(Difference::new(format!("volume.{id}.options.{name}"), value, "absent"));
    }
    out.steps.push(step);
    out.steps.push(start(subject, servers, "absent"));
}

fn start(subject: &Subject<'_>, servers: &Servers<'_>, observed: &str) -> Step {
    let id = subject.id;
    let effect = Effect::Run(vec![commands::start(id)]);
    Step::new(Wave::Export, servers.first, subject.volume(), format!("start volume {id}"), effect)
        .serving(id)
        .because(Difference::new(format!("volume.{id}.status"), "started", observed))
}

fn shape(replica: u32, arbiter: u32) -> String {
    if arbiter == 0 { format!("replica {replica}") } else { format!("replica {replica}, arbiter {arbiter}") }
}

/// The bricks as glusterd will write them.
fn bricks(subject: &Subject<'_>) -> Vec<String> {
    let bricks = subject.spec.bricks.iter();
    bricks.map(|brick| commands::brick_name(subject.cluster.address_of(&brick.host), &brick.path)).collect()
}

/// Plans what differs about a volume that exists.
pub(super) fn reconcile(
    subject: &Subject<'_>,
    servers: &Servers<'_>,
    volume: &Volume,
    out: &mut Proposal,
) -> Service {
    if let Some((reason, hint)) =
        foreign(subject, servers, volume).or_else(|| reshaped(subject, servers, volume))
    {
        out.blocked.push(subject.blocked(Wave::Export, subject.volume(), reason).hint(hint));
        return Service::Refused;
    }
    let mut steps = Vec::new();
    let (options, mut layout) = differing_options(subject, servers, volume);
    let dropped = dropped_options(subject, servers, volume);
    let frozen = dropped.iter().filter(|name| is_layout(name, volume));
    layout.extend(frozen.map(|name| (name.clone(), "its default".to_owned())));
    if let Some((name, value)) = layout.first_key_value() {
        let observed = volume.options.get(name).map_or("its default", String::as_str);
        let reason = format!(
            "option {name} is {observed} and should be {value}: changing it makes existing images unreadable"
        );
        let hint = format!(
            "set `options: {{ {name}: ... }}` to what the volume has, or move the images to a new volume"
        );
        out.blocked.push(subject.blocked(Wave::Export, subject.volume(), reason).hint(hint));
        return Service::Refused;
    }
    if !dropped.is_empty() {
        steps.push(reset_options(subject, servers, volume, &dropped));
    }
    if !options.is_empty() {
        steps.push(change_options(subject, servers, volume, &options));
    }
    if volume.status != VolumeStatus::Started {
        let observed = if volume.status == VolumeStatus::Created { "never started" } else { "stopped" };
        steps.push(start(subject, servers, observed));
    }
    // Any server could run these, but the record of what stor changes lies with the first.
    if !steps.is_empty() && !servers.facts.contains_key(servers.first) {
        let reason =
            format!("host {} was not observed, and changes to the volume start there", servers.first);
        let mut blocked = subject.blocked(Wave::Export, subject.volume(), reason).on(servers.first);
        blocked.unknown = true;
        out.blocked.push(blocked);
        return Service::Unknown;
    }
    out.steps.extend(steps);
    Service::Coming
}

/// Says why a volume of this name is not stor's.
fn foreign(subject: &Subject<'_>, servers: &Servers<'_>, volume: &Volume) -> Option<(String, String)> {
    let (id, cluster) = (subject.id, subject.cluster.name.as_str());
    let mark = volume.options.get(commands::CLUSTER_OPTION).map(String::as_str);
    let record = Record::observed(subject.seen, &subject.cluster.name, servers.first);
    let reason = match (mark, record) {
        (Some(mark), _) if mark == cluster => return None,
        (Some(mark), _) => format!("volume {id} was made by stor for cluster {mark}"),
        (None, Ok(record)) if record.owns(OwnedKind::GlusterVolume, id.as_str()) => return None,
        (None, Ok(_)) => format!("volume {id} exists, and stor did not make it"),
        (None, Err(error)) => {
            format!("volume {id} exists, and it is not known whether stor made it: {error}")
        }
    };
    let hint = format!(
        "give the storage another name; or hand the volume over: `gluster volume set {id} {} {cluster}`",
        commands::CLUSTER_OPTION
    );
    Some((reason, hint))
}

/// Says how the volume's bricks differ from the file's: stor neither adds nor removes bricks.
fn reshaped(subject: &Subject<'_>, servers: &Servers<'_>, volume: &Volume) -> Option<(String, String)> {
    let id = subject.id;
    let spec = subject.spec;
    let desired = shape(spec.replica, u32::from(spec.arbiter == Arbiter::Yes));
    let observed = shape(volume.replica, volume.arbiter);
    let hint = "stor does not add, remove or move bricks: let the file say what the volume has, or change the volume yourself";
    if desired != observed {
        return Some((format!("volume {id} is {observed}, the file wants {desired}"), hint.to_owned()));
    }
    let same = spec.bricks.len() == volume.bricks.len()
        && spec.bricks.iter().zip(&volume.bricks).all(|(want, have)| {
            let uuid = servers
                .facts
                .get(&want.host)
                .and_then(|facts| facts.said.as_ref())
                .map(|said| &said.own_uuid);
            let named = commands::brick_name(subject.cluster.address_of(&want.host), &want.path);
            // A server known by another name is still the same server.
            let same_host = uuid == Some(&have.host_uuid) && have.path == want.path.as_str();
            have.name == named || same_host
        });
    if same {
        return None;
    }
    let have: Vec<&str> = volume.bricks.iter().map(|brick| brick.name.as_str()).collect();
    let reason = format!(
        "volume {id} has the bricks {}; the file wants {}",
        have.join(" "),
        bricks(subject).join(" ")
    );
    Some((reason, hint.to_owned()))
}

/// Options of the file beyond the group's.
fn own_options(subject: &Subject<'_>) -> BTreeMap<String, String> {
    let allowed = commands::allowed(subject.cluster, subject.spec);
    commands::own_options(
        &subject.cluster.name,
        subject.spec,
        &allowed,
        mount_client::qemu_owner(subject.cluster, subject.seen),
    )
}

type Options = BTreeMap<String, String>;

/// Options that differ: those that can be changed, and those that decide the layout of files that may exist.
fn differing_options(subject: &Subject<'_>, servers: &Servers<'_>, volume: &Volume) -> (Options, Options) {
    let mut desired = servers.group().cloned().unwrap_or_default();
    desired.extend(own_options(subject));
    let differing = desired.into_iter().filter(|(name, value)| {
        volume.options.get(name).is_none_or(|observed| !same_value(name, value, observed))
    });
    differing.partition(|(name, _)| !is_layout(name, volume))
}

/// Tells whether an option decides the layout of files that may exist.
fn is_layout(name: &str, volume: &Volume) -> bool {
    volume.status != VolumeStatus::Created && LAYOUT.contains(&name)
}

/// Options that the file named once and names no more, and that the group does not have either.
fn dropped_options(subject: &Subject<'_>, servers: &Servers<'_>, volume: &Volume) -> Vec<String> {
    let own = own_options(subject);
    let group = servers.group();
    let wanted = |name: &str| own.contains_key(name) || group.is_some_and(|group| group.contains_key(name));
    let named = commands::named_before(&volume.options).filter(|name| !wanted(name));
    named.filter(|name| volume.options.contains_key(*name)).map(str::to_owned).collect()
}

fn reset_options(subject: &Subject<'_>, servers: &Servers<'_>, volume: &Volume, names: &[String]) -> Step {
    let id = subject.id;
    let effect = Effect::Run(commands::reset_options(id, names, subject.spec));
    let title = format!("reset {} of volume {id}", names.join(", "));
    let mut step = Step::new(Wave::Export, servers.first, subject.volume(), title, effect).serving(id);
    for name in names {
        let observed = volume.options.get(name).map_or("its default", String::as_str);
        step = step.because(Difference::new(format!("volume.{id}.options.{name}"), "its default", observed));
    }
    step.risking(Risk::Safe)
}

/// Compares values as glusterd understands them.
fn same_value(name: &str, desired: &str, observed: &str) -> bool {
    if name == commands::ALLOW_OPTION {
        let set = |text: &str| {
            text.split(',').map(|word| word.trim().to_owned()).collect::<std::collections::BTreeSet<_>>()
        };
        return set(desired) == set(observed);
    }
    boolean(desired).map_or(desired == observed, |value| boolean(observed) == Some(value))
}

/// The words that glusterd takes for a switch (gf_string2boolean in common-utils.c); 0 and 1 may be numbers.
fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" | "enable" => Some(true),
        "off" | "no" | "false" | "disable" => Some(false),
        _ => None,
    }
}

fn change_options(subject: &Subject<'_>, servers: &Servers<'_>, volume: &Volume, options: &Options) -> Step {
    let id = subject.id;
    let names: Vec<&str> = options.keys().map(String::as_str).collect();
    let shown = if names.len() > 4 { format!("{} options", names.len()) } else { names.join(", ") };
    let effect = Effect::Run(vec![commands::set_options(id, options)]);
    let title = format!("set {shown} of volume {id}");
    let mut step = Step::new(Wave::Export, servers.first, subject.volume(), title, effect).serving(id);
    for (name, value) in options {
        let observed = volume.options.get(name).map_or("its default", String::as_str);
        step = step.because(Difference::new(format!("volume.{id}.options.{name}"), value, observed));
    }
    step.taking(shut_out(volume, options))
}

/// Whom the new list of clients leaves out. A volume that was never started has let nobody in, whatever it says.
fn shut_out(volume: &Volume, options: &Options) -> Vec<String> {
    let Some(wanted) = options.get(commands::ALLOW_OPTION).filter(|_| volume.status != VolumeStatus::Created)
    else {
        return Vec::new();
    };
    let words =
        |text: &str| -> BTreeSet<String> { text.split(',').map(|word| word.trim().to_owned()).collect() };
    // Without the option, glusterd lets everybody in.
    let before = volume.options.get(commands::ALLOW_OPTION).map_or("*", String::as_str);
    words(before).difference(&words(wanted)).cloned().collect()
}
