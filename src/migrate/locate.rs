//! Where a guest is before it moves or starts, judged from what all hypervisors answered. Pure.

use std::collections::BTreeMap;

use super::confirm::Seen;
use super::facts::Known;
use crate::libvirt::DomainFacts;
use crate::model::{Finding, FindingCode, GuestId, HostId, ResourceId, ResourceKind, Severity};

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
/// writer to its image. Another domain of its name is none of the answers: at the destination preflight refuses it.
#[must_use]
pub fn locate(answers: &BTreeMap<HostId, Known<Option<DomainFacts>>>, to: &HostId) -> Located {
    let Survey { active, transit, defined, unseen } = survey(answers);
    match active.as_slice() {
        [(host, domain)] if host == to => Located::There(Box::new(domain.clone())),
        [(host, domain)] => Located::At(host.clone(), Box::new(domain.clone())),
        [] if !unseen.is_empty() => Located::Unknown(unseen.join("; ")),
        [] if !transit.is_empty() => Located::InTransit(transit),
        [] => Located::NotRunning(defined.into_iter().map(|(host, _)| host).collect()),
        several => Located::OnSeveral(several.iter().map(|(host, _)| host.clone()).collect()),
    }
}

/// What to do about a domain with a guest's name and another UUID.
#[must_use]
pub fn other_of_this_name(uuid: &str) -> String {
    format!(
        "if that domain is the guest, write <uuid>{uuid}</uuid> into its domain file; else rename it, or give the guest another name"
    )
}

/// The finding about a guest that libvirt knows by another name than the file: two names for one guest invite a second start.
#[must_use]
pub fn renamed(guest: &GuestId, host: &HostId, domain: &DomainFacts) -> Option<Finding> {
    let message = format!("libvirt calls the guest with UUID {} {}", domain.uuid, domain.name);
    let finding = Finding::new(
        Severity::Error,
        FindingCode::NameClash,
        ResourceId::new(ResourceKind::Guest, guest),
        message,
    );
    let remedy = format!("give it one name: `virsh domrename {} {guest}` once it is shut off", domain.name);
    (domain.name != guest.as_str()).then(|| finding.on(host).remedy(remedy))
}
