//! The ownership record as a plan changes it: intent first, forget last.
//!
//! Pure. Imports `model` and the scene. Before anything is made, the record of its host names it; after it is removed,
//! the record forgets it. A run that dies in between leaves an entry too many, never a resource that nobody owns.
//! What leaves the file, and how it is removed, is in `release`.

use std::collections::BTreeMap;

use super::join::Notes;
use super::scene::Scene;
use crate::model::{
    Blocked, Command, Difference, Effect, FileContent, FileMode, FileSpec, HostId, Owned, Proposal, Record,
    ResourceId, ResourceKind, Step, Wave,
};

/// Blocks every host whose record cannot be used: without it stor cannot tell its own from others'.
pub(super) fn unusable(scene: &Scene<'_>) -> Proposal {
    let mut proposal = Proposal::default();
    for (host, record) in &scene.records {
        let Err(error) = record else { continue };
        let subject = ResourceId::new(ResourceKind::Host, host);
        proposal.blocked.push(match error {
            crate::model::RecordError::Unknown(unknown) => {
                Blocked::unknown(Wave::Record, subject, unknown).on(host)
            }
            error => {
                Blocked::new(Wave::Record, ResourceId::new(ResourceKind::Record, host), error).on(host).hint(
                    "restore the file from a backup, or remove it if nothing of stor's is left on the host",
                )
            }
        });
    }
    proposal
}

/// Plans the record steps around `steps`: before them the intents, after them what is forgotten.
///
/// `forgotten` names entries that go without a step: what they stand for is gone already, or stays as the user's data.
pub(super) fn records(
    scene: &Scene<'_>,
    steps: &[Step],
    notes: &Notes,
    forgotten: &BTreeMap<HostId, Vec<Owned>>,
) -> Vec<Step> {
    let mut made: BTreeMap<&HostId, Vec<&Owned>> = BTreeMap::new();
    for step in steps {
        made.entry(&step.host).or_default().extend(step.owns.as_deref());
    }
    for (host, notes) in &notes.taken_up {
        made.entry(host).or_default().extend(notes);
    }
    let mut out = Vec::new();
    for (host, record) in &scene.records {
        let Ok(before) = record else { continue };
        let mut during = merged(before, made.get(host).map_or(&[], Vec::as_slice));
        let outdated: &[Owned] = notes.outdated.get(host).map_or(&[], Vec::as_slice);
        during.owned.retain(|entry| !outdated.iter().any(|old| old.same_resource(entry)));
        if during != *before {
            out.push(write(scene, host, Wave::Record, before, &during));
        }
        let mut after = during.clone();
        let gone: &[Owned] = forgotten.get(host).map_or(&[], Vec::as_slice);
        after.owned.retain(|entry| !gone.iter().any(|gone| gone.same_resource(entry)));
        if after != during {
            out.push(if after.owned.is_empty() {
                remove(scene, host)
            } else {
                write(scene, host, Wave::Settle, &during, &after)
            });
        }
    }
    out
}

/// An entry that is there keeps what it was made with; the new one adds to it and says which storage it serves now.
fn merged(before: &Record, made: &[&Owned]) -> Record {
    let mut record = before.clone();
    for new in made {
        let mut entry = (*new).clone();
        if let Some(old) = record.owned.iter().find(|old| old.same_resource(new)).cloned() {
            record.owned.remove(&old);
            for (key, value) in old.detail {
                entry.detail.entry(key).or_insert(value);
            }
        }
        record.owned.insert(entry);
    }
    record
}

fn write(scene: &Scene<'_>, host: &HostId, wave: Wave, from: &Record, to: &Record) -> Step {
    let (path, mode) = (Record::path(&scene.cluster.name), FileMode(0o600));
    let content = FileContent::Text(to.render().into());
    let title = match wave {
        Wave::Record => "record what stor is about to create",
        _ => "forget what was removed",
    };
    let counted = |record: &Record| format!("{} resources", record.owned.len());
    Step::new(wave, host, subject(scene), title, Effect::WriteFile(FileSpec { path, mode, content }))
        .because(Difference::new("record", counted(to), counted(from)))
}

/// Removes the record, and its directory when no other cluster has a record there.
///
/// One process does both, children first (find(1), `-depth`), so that a killed run leaves no empty directory behind.
fn remove(scene: &Scene<'_>, host: &HostId) -> Step {
    let path = Record::path(&scene.cluster.name);
    let (file, directory) = (path.as_str(), path.parent());
    let both = Command::new("find").args([directory.as_str(), "-depth", "-path", file, "-delete"]).args([
        "-o",
        "-path",
        directory.as_str(),
        "-empty",
        "-delete",
    ]);
    let title = "remove the record, nothing is left to own";
    Step::new(Wave::Settle, host, subject(scene), title, Effect::Run(vec![both]))
        .because(Difference::new("record", "absent", "present"))
}

fn subject(scene: &Scene<'_>) -> ResourceId {
    ResourceId::new(ResourceKind::Record, &scene.cluster.name)
}
