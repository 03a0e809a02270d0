//! What is behind the LUNs: files and logical volumes, made when they are missing and grown when the file says so, and devices,
//! which are offered as they are. Nothing is ever overwritten or shrunk, and nothing is offered twice.

mod device;
mod volume;

use super::server::Server;
use super::{Subject, backing, software};
use crate::model::{Blocked, ByteSize, Difference, Effect, OwnedKind, Proposal, Step, Wave};
use crate::storage::iscsi::commands::{self, lio};
use crate::storage::iscsi::facts::backing::{Behind, Daemon, Place};
use crate::storage::iscsi::facts::{self, Software};
use crate::storage::iscsi::spec::{Allocation, Backing, LunSpec};

/// Whether what is behind a LUN grows in this plan, so that tgtd has to open it again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Grown {
    Yes,
    No,
}

/// Plans what is behind all LUNs.
pub(super) fn plan(server: &Server<'_>, out: &mut Proposal) -> Grown {
    let mut grown = Grown::No;
    for lun in &server.subject.spec.luns {
        match one(server, lun, out) {
            Ok(Grown::Yes) => grown = Grown::Yes,
            Ok(Grown::No) => {}
            Err(blocked) => out.blocked.push(*blocked),
        }
    }
    volume::room(server, out);
    device::advice(server, out);
    grown
}

fn refuse<T>(
    server: &Server<'_>,
    lun: &LunSpec,
    reason: String,
    hint: impl Into<String>,
) -> Result<T, Box<Blocked>> {
    let blocked = server.subject.refused(Wave::Prerequisites, reason, hint);
    Err(Box::new(Blocked { subject: server.subject.lun(lun), ..blocked }))
}

fn one(server: &Server<'_>, lun: &LunSpec, out: &mut Proposal) -> Result<Grown, Box<Blocked>> {
    if let Some(other) = also_behind(server, lun) {
        let path = &lun.backing;
        let reason = format!("{path} is already behind {other}, and two LUNs over one destroy its data");
        return refuse(server, lun, reason, "give each LUN a file, device or volume of its own");
    }
    match &lun.kind {
        Backing::File(how) => file(server, lun, *how, out),
        Backing::Device { adopted } => device::plan(server, lun, *adopted, out),
        Backing::Volume(name) => volume::plan(server, lun, name, out),
    }
}

/// Whether stor's target offers now what is behind a LUN, by whichever program.
fn is_offered(server: &Server<'_>, lun: &LunSpec) -> bool {
    let identity = server.facts.backing.get(&lun.backing).and_then(Place::identity);
    server.facts.behind.iter().filter(|behind| is_own(server, lun, behind)).any(|behind| {
        let software = if behind.daemon == Daemon::Lio { Software::Lio } else { Software::Tgt };
        let same = behind.path == lun.backing.as_str()
            || (identity.is_some() && behind.identity.as_ref() == identity);
        same && server.owns(software)
    })
}

/// Whether something that is offered has the name that a LUN has there.
fn is_own(server: &Server<'_>, lun: &LunSpec, behind: &Behind) -> bool {
    let Subject { cluster, id, spec, .. } = *server.subject;
    match behind.daemon {
        Daemon::Lio => behind.owner == lio::object(cluster, id, lun),
        Daemon::Tgt => behind.owner == spec.iqn.as_str(),
    }
}

fn file(
    server: &Server<'_>,
    lun: &LunSpec,
    how: Allocation,
    out: &mut Proposal,
) -> Result<Grown, Box<Blocked>> {
    let path = &lun.backing;
    match server.facts.backing.get(path) {
        None | Some(Place::Absent { .. }) => {
            if is_offered(server, lun) {
                let reason = format!(
                    "{path} was removed while it is offered: its data is lost when its target closes it"
                );
                let hint =
                    "shut its guest down, and copy the data from /proc/PID/fd of tgtd before anything else";
                return refuse(server, lun, reason, hint);
            }
            out.steps.push(make(server, lun, how));
            Ok(Grown::No)
        }
        Some(Place::Other(kind)) => {
            let reason = format!("{path} is a {kind}, not a file");
            refuse(server, lun, reason, "name a file with backing:")
        }
        Some(Place::Device(_)) => {
            let reason = format!("{path} is a block device, not a file");
            refuse(server, lun, reason, "name it with device: instead, by its name below /dev")
        }
        Some(Place::File { looped: Some(device), .. }) => {
            let reason = format!("{path} is in use as {device}");
            let hint = "take the loop device away (`losetup --detach`), or name another file with backing:";
            refuse(server, lun, reason, hint)
        }
        Some(Place::File { size, unfinished, .. }) => {
            if *unfinished {
                out.steps.push(tidy(server, lun));
            }
            match ByteSize::from_bytes(*size) {
                size if size == lun.size => Ok(Grown::No),
                size => resize(server, lun, (size, how), out),
            }
        }
    }
}

/// What else has the same file or device, by whatever path: a LUN of another target, or of the cluster file.
fn also_behind(server: &Server<'_>, lun: &LunSpec) -> Option<String> {
    let seen = server.subject.seen;
    let place = server.facts.backing.get(&lun.backing);
    let same = |identity: &_| match place {
        Some(Place::Device(device)) => device.identity == *identity || device.overlapping.contains(identity),
        place => place.and_then(Place::identity) == Some(identity),
    };
    let mut offered = server.facts.behind.iter().filter(|behind| !is_own(server, lun, behind));
    let other = offered
        .find(|behind| behind.path == lun.backing.as_str() || behind.identity.as_ref().is_some_and(same));
    if let Some(Behind { daemon, owner, .. }) = other {
        let what = if *daemon == Daemon::Lio { "backing object" } else { "a LUN of target" };
        return Some(format!("{what} {owner}"));
    }
    let twin = |(path, other): (&_, &Place)| *path != lun.backing && other.identity().is_some_and(same);
    if let Some((path, _)) = server.facts.backing.iter().find(|(path, other)| twin((*path, *other))) {
        return Some(format!("another LUN of this target, as {path}"));
    }
    software::siblings(server.subject).find_map(|(name, spec)| {
        let places = facts::places(seen, spec).ok()?;
        let (path, _) = places.iter().find(|(path, other)| twin((*path, *other)))?;
        Some(format!("a LUN of storage {name}, as {path}"))
    })
}

fn make(server: &Server<'_>, lun: &LunSpec, how: Allocation) -> Step {
    let path = &lun.backing;
    let kind = if how == Allocation::Full { "all blocks taken" } else { "sparse" };
    let title = format!("make {path} for LUN {} ({}, {kind})", lun.name, lun.size);
    let run = Effect::Run(commands::backing::make_file(path, lun.size, how));
    server
        .step(Wave::Prerequisites, server.subject.lun(lun), title, run)
        .because(Difference::new(server.subject.field(&format!("luns.{}.backing", lun.name)), path, "absent"))
        .owning(backing(server.subject.id, lun))
}

/// The file has its name already; only the other one of the same file is left.
fn tidy(server: &Server<'_>, lun: &LunSpec) -> Step {
    let partial = commands::backing::partial(&lun.backing);
    let run = Effect::Run(vec![commands::backing::remove_partial(&lun.backing)]);
    let why = Difference::new(format!("file {partial}"), "absent", "left by a run that was interrupted");
    let title = format!("remove the unfinished {partial}");
    server.step(Wave::Prerequisites, server.subject.lun(lun), title, run).because(why)
}

fn resize(
    server: &Server<'_>,
    lun: &LunSpec,
    (size, how): (ByteSize, Allocation),
    out: &mut Proposal,
) -> Result<Grown, Box<Blocked>> {
    let path = &lun.backing;
    refuse_smaller(server, lun, size)?;
    if !server.record.owns(OwnedKind::BackingFile, path.as_str()) {
        let reason = format!("{path} has {size}, not {}, and stor did not make it", lun.size);
        let hint =
            "write the size that it has, for the LUN and its image, or name another file with backing:";
        return refuse(server, lun, reason, hint);
    }
    refuse_opened(server, lun)?;
    let title = format!("let {path} grow to {}", lun.size);
    let run = Effect::Run(commands::backing::grow_file(path, lun.size, how));
    out.steps.push(grow(server, lun, size, title, run));
    Ok(Grown::Yes)
}

fn grow(server: &Server<'_>, lun: &LunSpec, size: ByteSize, title: String, run: Effect) -> Step {
    let field = server.subject.field(&format!("luns.{}.size", lun.name));
    let step = server.step(Wave::Prerequisites, server.subject.lun(lun), title, run);
    step.because(Difference::new(field, lun.size, size)).owning(backing(server.subject.id, lun))
}

fn refuse_smaller(server: &Server<'_>, lun: &LunSpec, size: ByteSize) -> Result<(), Box<Blocked>> {
    if size <= lun.size {
        return Ok(());
    }
    let reason = format!("{} has {size}, the file says {}: a LUN never shrinks", lun.backing, lun.size);
    refuse(server, lun, reason, format!("write size: {size}, for the LUN and its image"))
}

/// The kernel's target takes a larger size while somebody is logged in; tgtd would have to open the LUN anew.
fn refuse_opened(server: &Server<'_>, lun: &LunSpec) -> Result<(), Box<Blocked>> {
    let user = server.shown().and_then(|target| target.connected.first());
    let Some(user) = user.filter(|_| server.software == Software::Tgt) else { return Ok(()) };
    let name = &lun.name;
    let reason =
        format!("LUN {name} cannot grow while {user} uses the target, which would have to take it away");
    refuse(server, lun, reason, "shut the guests down that use this target, then apply again")
}
