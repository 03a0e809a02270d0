//! Where the bricks of a new volume go: nothing that holds anything is ever taken.

use super::Subject;
use super::servers::Servers;
use crate::model::{
    AbsPath, Difference, Effect, HostId, Owned, OwnedKind, Proposal, ResourceId, ResourceKind, Step, Wave,
};
use crate::storage::gluster::commands;
use crate::storage::gluster::facts::{BrickPlace, ServerFacts};
use crate::storage::gluster::spec::Force;

/// Why a place cannot become a brick, and what the user can do.
struct Refusal {
    reason: String,
    hint: String,
}

fn refuse<T>(reason: impl Into<String>, hint: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { reason: reason.into(), hint: hint.into() })
}

/// What has to be done to a place.
enum Work {
    Nothing,
    Make,
    Renew,
}

/// Plans the directories of a volume that does not exist yet, or says what is in the way.
///
/// stor looks itself, because `force` makes glusterd take a directory that another volume uses.
pub(super) fn prepare(subject: &Subject<'_>, servers: &Servers<'_>, out: &mut Proposal) {
    // It was written before the first try to create the volume.
    let tried = subject.record(servers.first).owns(OwnedKind::GlusterVolume, subject.id.as_str());
    for brick in &subject.spec.bricks {
        let Some(facts) = servers.facts.get(&brick.host) else { continue };
        let Some(place) = facts.bricks.get(&brick.path) else { continue };
        let what = ResourceId::new(
            ResourceKind::Brick,
            commands::brick_name(subject.cluster.address_of(&brick.host), &brick.path),
        );
        match judge(subject, facts, &brick.path, place, tried) {
            Ok(Work::Nothing) => {}
            Ok(Work::Make) => out.steps.push(make(subject, &brick.host, &brick.path, what)),
            Ok(Work::Renew) => out.steps.push(renew(subject, &brick.host, &brick.path, what)),
            Err(Refusal { reason, hint }) => {
                let reason = format!("host {}: {reason}", brick.host);
                out.blocked
                    .push(subject.blocked(Wave::Prerequisites, what, reason).on(&brick.host).hint(hint));
            }
        }
    }
}

fn judge(
    subject: &Subject<'_>,
    facts: &ServerFacts,
    path: &AbsPath,
    place: &BrickPlace,
    tried: bool,
) -> Result<Work, Refusal> {
    taken(facts, path, place)?;
    if subject.spec.force == Force::No {
        file_system(path, place)?;
    }
    match &place.kind {
        None => return Ok(Work::Make),
        Some(kind) if kind != "directory" => {
            return refuse(
                format!("{path} is a {kind}, not a directory"),
                "name another directory for the brick",
            );
        }
        Some(_) => {}
    }
    if place.marked && (place.used || place.entry.is_some() || !tried) {
        return refuse(
            format!("{path} holds the data of a volume that glusterd does not know (any more)"),
            "name another directory; or, if nobody needs that data, remove the directory yourself",
        );
    }
    if let Some(entry) = &place.entry {
        return refuse(
            format!("{path} is not empty: it holds {entry}"),
            "a brick starts empty: name another directory",
        );
    }
    // With `force`, glusterd takes its own marks.
    if place.marked && subject.spec.force == Force::No { Ok(Work::Renew) } else { Ok(Work::Nothing) }
}

/// Refuses what another volume uses, and glusterd's own directory.
fn taken(facts: &ServerFacts, path: &AbsPath, place: &BrickPlace) -> Result<(), Refusal> {
    const OTHER: &str = "name another directory for the brick";
    if path.is_within(&own_directory()) {
        return refuse(format!("{path} lies in glusterd's own directory"), OTHER);
    }
    if let Some(above) = &place.inside_brick {
        return refuse(format!("{path} lies within {above}, which is a brick itself"), OTHER);
    }
    let said = facts.said.iter();
    let own_bricks = said.flat_map(|said| {
        let bricks =
            said.volumes.iter().flat_map(|volume| volume.bricks.iter().map(move |brick| (volume, brick)));
        bricks.filter(|(_, brick)| brick.host_uuid == said.own_uuid)
    });
    for (volume, brick) in own_bricks {
        let Ok(other) = AbsPath::new(brick.path.as_str()) else { continue };
        if other.is_within(path) || path.is_within(&other) {
            return refuse(format!("{path} is used by volume {}, brick {}", volume.name, brick.name), OTHER);
        }
    }
    Ok(())
}

fn own_directory() -> AbsPath {
    #[expect(clippy::expect_used, reason = "a constant")]
    AbsPath::new("/var/lib/glusterd").expect("a valid path")
}

/// What glusterd itself refuses without `force` (glusterd_validate_and_create_brickpath in glusterd-utils.c).
fn file_system(path: &AbsPath, place: &BrickPlace) -> Result<(), Refusal> {
    if place.is_mount_point {
        return refuse(
            format!(
                "{path} is a mount point: were it not mounted one day, the brick would fill the directory below"
            ),
            format!("use a directory below it ({path}/brick), or say `force: true`"),
        );
    }
    if place.on_root {
        return refuse(
            format!("{path} lies on the root file system, which the volume could fill up"),
            "mount a file system of its own there, or say `force: true`",
        );
    }
    Ok(())
}

/// A brick's directory as the record keeps it.
pub(in crate::storage::gluster) fn owned(subject: &crate::model::StorageId, path: &AbsPath) -> Owned {
    Owned::new(OwnedKind::DataDirectory, path.as_str()).of_storage(subject)
}

fn make(subject: &Subject<'_>, host: &HostId, path: &AbsPath, what: ResourceId) -> Step {
    let effect = Effect::Run(vec![commands::make_brick(path)]);
    Step::new(Wave::Prerequisites, host, what, format!("make the brick's directory {path}"), effect)
        .serving(subject.id)
        .because(Difference::new(format!("brick.{path}"), "directory", "absent"))
        .owning(owned(subject.id, path))
}

fn renew(subject: &Subject<'_>, host: &HostId, path: &AbsPath, what: ResourceId) -> Step {
    let effect = Effect::Run(commands::renew_brick(path));
    let observed = "marked by a creation that failed, empty";
    Step::new(Wave::Prerequisites, host, what, format!("make the brick's directory {path} anew"), effect)
        .serving(subject.id)
        .because(Difference::new(format!("brick.{path}"), "directory", observed))
        .owning(owned(subject.id, path))
}
