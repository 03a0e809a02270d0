//! Where a guest is before it moves or starts, judged from what all hypervisors answered. Pure.

use std::collections::BTreeMap;

use super::confirm::Seen;
use super::facts::Known;
use crate::libvirt::DomainFacts;
use crate::model::HostId;

/// Where a guest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Located {
    /// It is active on this host, which is not the destination.
    At(HostId, Box<DomainFacts>),
    /// It is active at the destination.
    There(Box<DomainFacts>),
    /// It runs nowhere; it is defined on these hosts.
    NotRunning(Vec<HostId>),
    /// It is active on more than one host.
    OnSeveral(Vec<HostId>),
    /// It is active nowhere, and a migration holds it on these hosts.
    InTransit(Vec<HostId>),
    /// It was not seen active, and a hypervisor could not be asked.
    Unknown(String),
}

/// What all hypervisors answered about one guest, sorted by what they show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Where it is active.
    pub active: Vec<(HostId, DomainFacts)>,
    /// Where a migration holds it.
    pub transit: Vec<HostId>,
    /// Where it is defined and does not run.
    pub defined: Vec<(HostId, DomainFacts)>,
    /// Which hosts could not be asked, and why.
    pub unseen: Vec<String>,
}

/// Sorts the answers of all hypervisors.
#[must_use]
pub fn survey(answers: &BTreeMap<HostId, Known<Option<DomainFacts>>>) -> Survey {
    let mut survey = Survey::default();
    for (host, answer) in answers {
        match answer {
            Err(reason) => survey.unseen.push(format!("host {host}: {reason}")),
            Ok(None) => {}
            Ok(Some(domain)) => match Seen::of(Ok(Some(domain)), &domain.uuid) {
                Seen::Runs | Seen::Paused => survey.active.push((host.clone(), domain.clone())),
                Seen::InTransit => survey.transit.push(host.clone()),
                Seen::Unseen(reason) => survey.unseen.push(format!("host {host}: {reason}")),
                Seen::Defined | Seen::Absent => survey.defined.push((host.clone(), domain.clone())),
            },
        }
    }
    survey
}

/// Locates a guest that is to be at `to`.
///
/// A hypervisor that could not be asked does not matter once the guest is seen active elsewhere: moving it adds no
/// writer to its image.
#[must_use]
pub fn locate(answers: &BTreeMap<HostId, Known<Option<DomainFacts>>>, to: &HostId) -> Located {
    let Survey { mut active, transit, defined, unseen } = survey(answers);
    // Another guest of the same name at the destination is a clash of names, which preflight refuses.
    let strangers = active.len() == 2 && active.first().map(uuid) != active.last().map(uuid);
    if strangers {
        active.retain(|(host, _)| host != to);
    }
    match active.as_slice() {
        [(host, domain)] if host == to => Located::There(Box::new(domain.clone())),
        [(host, domain)] => Located::At(host.clone(), Box::new(domain.clone())),
        [] if !unseen.is_empty() => Located::Unknown(unseen.join("; ")),
        [] if !transit.is_empty() => Located::InTransit(transit),
        [] => Located::NotRunning(defined.into_iter().map(|(host, _)| host).collect()),
        several => Located::OnSeveral(several.iter().map(|(host, _)| host.clone()).collect()),
    }
}

fn uuid((_, domain): &(HostId, DomainFacts)) -> &str {
    &domain.uuid
}
