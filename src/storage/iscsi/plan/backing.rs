//! The files behind the LUNs: made when they are missing, grown when the file says so, never overwritten or shrunk.

use super::server::Server;
use super::{Subject, backing};
use crate::model::{Blocked, ByteSize, Difference, Effect, OwnedKind, Proposal, Step, Wave};
use crate::storage::iscsi::commands;
use crate::storage::iscsi::facts::Place;
use crate::storage::iscsi::spec::{Allocation, LunSpec};

/// Whether a LUN's file grows in this plan, so that tgtd has to open it again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Grown {
    Yes,
    No,
}

/// Plans all backing files.
pub(super) fn plan(server: &Server<'_>, out: &mut Proposal) -> Grown {
    let mut grown = Grown::No;
    for lun in &server.subject.spec.luns {
        match one(server, lun, out) {
            Ok(Grown::Yes) => grown = Grown::Yes,
            Ok(Grown::No) => {}
            Err(blocked) => out.blocked.push(*blocked),
        }
    }
    grown
}

fn refuse<T>(server: &Server<'_>, lun: &LunSpec, reason: String, hint: &str) -> Result<T, Box<Blocked>> {
    let blocked = server.subject.refused(Wave::Prerequisites, reason, hint);
    Err(Box::new(Blocked { subject: server.subject.lun(lun), ..blocked }))
}

fn one(server: &Server<'_>, lun: &LunSpec, out: &mut Proposal) -> Result<Grown, Box<Blocked>> {
    let path = &lun.backing;
    if let Some(other) = also_behind(server, lun) {
        let reason = format!("{path} is already behind {other}, and two LUNs over one file destroy its data");
        return refuse(server, lun, reason, "give the LUN a backing file of its own");
    }
    let shown = server.shown().and_then(|target| target.luns.get(&u32::from(lun.number)));
    match server.facts.backing.get(path) {
        None | Some(Place::Absent) => {
            if shown.is_some_and(|shown| shown.path == path.as_str()) {
                let reason =
                    format!("{path} was removed while tgt offers it: its data is lost when tgt closes it");
                let hint =
                    "shut its guest down, and copy the data from /proc/PID/fd of tgtd before anything else";
                return refuse(server, lun, reason, hint);
            }
            out.steps.push(make(server, lun));
            Ok(Grown::No)
        }
        Some(Place::Other(kind)) => {
            let reason = format!("{path} is a {kind}, not a file");
            refuse(server, lun, reason, "name a file with backing:")
        }
        Some(Place::File { looped: Some(device), .. }) => {
            let reason = format!("{path} is in use as {device}");
            let hint = "take the loop device away (`losetup --detach`), or name another file with backing:";
            refuse(server, lun, reason, hint)
        }
        Some(Place::File { size, looped: None, unfinished }) => {
            if *unfinished {
                out.steps.push(tidy(server, lun));
            }
            match ByteSize::from_bytes(*size) {
                size if size == lun.size => Ok(Grown::No),
                size => resize(server, lun, size, out),
            }
        }
    }
}

/// What else on the server has this file: a LUN of another target.
fn also_behind(server: &Server<'_>, lun: &LunSpec) -> Option<String> {
    let (own, path) = (server.subject.spec.iqn.as_str(), lun.backing.as_str());
    server.facts.targets.iter().filter(|(name, _)| *name != own).find_map(|(name, target)| {
        let (number, _) = target.luns.iter().find(|(_, other)| other.path == path)?;
        Some(format!("LUN {number} of target {name}"))
    })
}

fn make(server: &Server<'_>, lun: &LunSpec) -> Step {
    let (path, how) = (&lun.backing, lun.allocation);
    let kind = if how == Allocation::Full { "all blocks taken" } else { "sparse" };
    let title = format!("make {path} for LUN {} ({}, {kind})", lun.name, lun.size);
    let run = Effect::Run(commands::make_backing(path, lun.size, how));
    server
        .step(Wave::Prerequisites, server.subject.lun(lun), title, run)
        .because(Difference::new(server.subject.field(&format!("luns.{}.backing", lun.name)), path, "absent"))
        .owning(backing(server.subject.id, lun))
}

/// The file has its name already; only the other one of the same file is left.
fn tidy(server: &Server<'_>, lun: &LunSpec) -> Step {
    let partial = commands::partial(&lun.backing);
    let run = Effect::Run(vec![commands::remove_partial(&lun.backing)]);
    let why = Difference::new(format!("file {partial}"), "absent", "left by a run that was interrupted");
    let title = format!("remove the unfinished {partial}");
    server.step(Wave::Prerequisites, server.subject.lun(lun), title, run).because(why)
}

fn resize(
    server: &Server<'_>,
    lun: &LunSpec,
    size: ByteSize,
    out: &mut Proposal,
) -> Result<Grown, Box<Blocked>> {
    let Subject { id, .. } = *server.subject;
    let path = &lun.backing;
    if size > lun.size {
        let reason = format!("{path} has {size}, the file says {}: a LUN never shrinks", lun.size);
        return refuse(server, lun, reason, "write the size that it has, for the LUN and its image");
    }
    if !server.record.owns(OwnedKind::BackingFile, path.as_str()) {
        let reason = format!("{path} has {size}, not {}, and stor did not make it", lun.size);
        let hint =
            "write the size that it has, for the LUN and its image, or name another file with backing:";
        return refuse(server, lun, reason, hint);
    }
    if let Some(user) = server.shown().and_then(|target| target.connected.first()) {
        let reason = format!(
            "LUN {} cannot grow while {user} uses the target, which would have to take it away",
            lun.name
        );
        return refuse(server, lun, reason, "shut the guests down that use this target, then apply again");
    }
    let title = format!("let {path} grow to {}", lun.size);
    let run = Effect::Run(commands::grow_backing(path, lun.size, lun.allocation));
    let field = server.subject.field(&format!("luns.{}.size", lun.name));
    let step = server.step(Wave::Prerequisites, server.subject.lun(lun), title, run);
    out.steps.push(step.because(Difference::new(field, lun.size, size)).owning(backing(id, lun)));
    Ok(Grown::Yes)
}
