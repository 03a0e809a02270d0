//! Which program offers a target, and what becomes of the other one.
//!
//! Both listen at the same port, so all targets of one host are offered by the same. A target that passes from one to the
//! other is withdrawn there (`plan::release`) before it is made here, in one plan.

use super::Subject;
use super::server::Server;
use crate::model::{Blocked, OwnedKind, Proposal, Record, StorageId, Wave};
use crate::spec::Cluster;
use crate::storage::iscsi::commands;
use crate::storage::iscsi::facts::backing::Daemon;
use crate::storage::iscsi::facts::{KERNEL, ServerFacts, Software};
use crate::storage::iscsi::spec::{IscsiProvider, IscsiSpec};
use crate::storage::packages::Family;
use crate::storage::planning::Service;
use crate::storage::spec::StorageSpec;

/// The program that the file names; the one that has the target; the one that other targets of this host have; the kernel's
/// where there is one.
pub(super) fn choose(subject: &Subject<'_>, record: &Record, facts: &ServerFacts) -> Software {
    if let Some(named) = named(subject.spec.provider) {
        return named;
    }
    let both = [Software::Lio, Software::Tgt];
    let has = both.into_iter().find(|software| owns(subject, record, *software));
    let others = || siblings(subject).find_map(|(_, spec)| named(spec.provider));
    let made = |software: &Software| record.owned.iter().any(|entry| entry.kind == kind(*software));
    has.or_else(others).or_else(|| both.into_iter().find(made)).unwrap_or(if facts.kernel_has_lio {
        Software::Lio
    } else {
        Software::Tgt
    })
}

fn named(provider: IscsiProvider) -> Option<Software> {
    match provider {
        IscsiProvider::Auto => None,
        IscsiProvider::Lio => Some(Software::Lio),
        IscsiProvider::Tgt => Some(Software::Tgt),
    }
}

fn kind(software: Software) -> OwnedKind {
    match software {
        Software::Lio => OwnedKind::LioTarget,
        Software::Tgt => OwnedKind::IscsiTarget,
    }
}

/// Whether stor made the target with this program, or was about to.
pub(super) fn owns(subject: &Subject<'_>, record: &Record, software: Software) -> bool {
    let Subject { cluster, id, spec, .. } = *subject;
    match software {
        Software::Lio => record.owns(OwnedKind::LioTarget, spec.iqn.as_str()),
        Software::Tgt => record.owns(OwnedKind::IscsiTarget, commands::tgt::conf_path(cluster, id).as_str()),
    }
}

/// Other targets of the file on the same server.
pub(super) fn siblings<'a>(subject: &Subject<'a>) -> impl Iterator<Item = (&'a StorageId, &'a IscsiSpec)> {
    let (cluster, id, server): (&'a Cluster, _, _) = (subject.cluster, subject.id, &subject.spec.server);
    cluster.storage.iter().filter_map(move |(other, spec)| match spec {
        StorageSpec::Iscsi(spec) if other != id && spec.server == *server => Some((other, spec)),
        _ => None,
    })
}

/// Who has iSCSI's port, besides the program that is to offer the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// Nobody, or a program that lets it go when stor has withdrawn this target from it.
    ByOwn,
    /// Somebody else, or the other program for targets of others.
    ByOthers,
}

/// Tells whether the port becomes free by what this plan withdraws.
pub(super) fn held(server: &Server<'_>) -> Held {
    let Subject { cluster, id, spec, .. } = *server.subject;
    let facts = &server.facts;
    let own = match (facts.port_holder.as_deref(), server.software) {
        (None, _) => true,
        (Some("tgtd"), Software::Lio) => {
            // tgt is stopped with its last target only where stor started it.
            let families = [Some(Family::Debian), Some(Family::RedHat)].map(commands::tgt::service);
            let started = families.iter().any(|unit| server.record.owns(OwnedKind::Service, unit));
            started
                && server.owns(Software::Tgt)
                && facts.targets.keys().all(|name| name == spec.iqn.as_str())
        }
        (Some(KERNEL), Software::Tgt) => {
            let mine = format!("stor-{}.{id}.", cluster.name);
            let mut kernels = facts.behind.iter().filter(|behind| behind.daemon == Daemon::Lio);
            server.owns(Software::Lio) && kernels.all(|behind| behind.owner.starts_with(&mine))
        }
        _ => false,
    };
    if own { Held::ByOwn } else { Held::ByOthers }
}

/// Refuses two programs on one host, a kernel's target where the kernel has none, and a change of the program while somebody is
/// logged in.
pub(super) fn obstacles(server: &Server<'_>, out: &mut Proposal) {
    let (spec, id) = (server.subject.spec, server.subject.id);
    let mut refuse = |reason: String, hint: &str| {
        out.blocked.push(server.subject.refused(Wave::Prerequisites, reason, hint));
    };
    let own = named(spec.provider);
    let other = siblings(server.subject)
        .find(|(_, other)| own.is_some() && named(other.provider).is_some_and(|other| Some(other) != own));
    if let Some((other, _)) = other {
        let reason = format!("storage {other} is to be offered by another program than storage {id}");
        refuse(reason, "both listen at the same port: give all iSCSI storage of one host the same provider:");
    }
    if server.software == Software::Lio && !server.facts.kernel_has_lio {
        let reason = "the kernel has no target of its own (module iscsi_target_mod)".to_owned();
        refuse(reason, "write provider: tgt, or install a kernel with that module");
    }
    let (before, connected) = match server.software {
        Software::Lio => {
            let users = server.facts.targets.get(spec.iqn.as_str());
            (Software::Tgt, users.and_then(|target| target.connected.first().cloned()))
        }
        Software::Tgt => {
            let target = server.facts.lio.now.targets.get(spec.iqn.as_str());
            (Software::Lio, target.and_then(|target| target.connected().next().map(str::to_owned)))
        }
    };
    if let Some(user) = connected.filter(|_| server.owns(before)) {
        let reason =
            format!("{user} uses the target, which has to be withdrawn before another program offers it");
        refuse(
            reason,
            "shut the guests down that use this target, and log its hypervisors out, then apply again",
        );
    }
}

/// Keeps the target with the program that offers it now unless everything about the other one is planned.
pub(super) fn keep_former(subject: &Subject<'_>, record: &Record, (service, out): (Service, &mut Proposal)) {
    let former = match named(subject.spec.provider) {
        Some(Software::Lio) => Software::Tgt,
        Some(Software::Tgt) => Software::Lio,
        None => return,
    };
    if service == Service::Coming || !owns(subject, record, former) {
        return;
    }
    let reason =
        "the target stays with the program that offers it, because the other one cannot offer it now";
    let hint = "end what is said about this target, or write back its former provider:";
    let blocked = subject.refused(Wave::ReleaseGuest, reason, hint);
    out.blocked.push(Blocked { unknown: service == Service::Unknown, ..blocked });
}
