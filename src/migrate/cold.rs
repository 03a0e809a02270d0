//! Moving a guest that does not run: where it stands, judged from what all hypervisors answered. Pure but for `intent`.
//!
//! Imports the rest of `migrate` and `model`. What is done about it is in `run::cold`. The order of its steps and the
//! reasons are in `docs/adr/0044`.

use super::confirm::Placement;
use super::locate::Survey;
use crate::libvirt::DomainFacts;
use crate::model::HostId;

pub mod intent;

pub use intent::Intent;

/// Where a guest that is to be moved cold stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand<'a> {
    /// It is active on this host, which alone has a definition of it.
    Runs(&'a HostId, &'a DomainFacts),
    /// It is off, and this host alone has its definition.
    Off(&'a HostId, &'a DomainFacts),
    /// It is off, and both hosts have its definition: an earlier move broke off. First the one that is not the destination.
    Between(&'a HostId, &'a DomainFacts),
    /// It is at the destination, and nowhere else.
    There(&'a DomainFacts),
    /// It is active at the destination, and this host still has its definition.
    LeftBehind(&'a HostId, &'a DomainFacts),
    /// No hypervisor has it.
    Undefined,
    /// Other hosts than source and destination have definitions, or different guests have its name.
    Several(Vec<&'a HostId>),
    /// A hypervisor could not be asked: the guest may run there.
    Unknown(String),
    /// It is active in more than one place, or a migration holds it.
    Unplaced(Placement, String),
}

/// Judges where a guest stands. Unlike a live move, every hypervisor must have answered: whoever starts a guest on
/// another host must know that it runs nowhere.
#[must_use]
pub fn stand<'a>(survey: &'a Survey, to: &HostId) -> Stand<'a> {
    let Survey { active, transit, defined, unseen } = survey;
    let names =
        |hosts: Vec<&HostId>| hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>().join(" and ");
    if !unseen.is_empty() {
        return Stand::Unknown(unseen.join("; "));
    }
    if !transit.is_empty() {
        let reason = format!("a migration holds the guest on {}", names(transit.iter().collect()));
        return Stand::Unplaced(Placement::Unknown, reason);
    }
    let all = || active.iter().chain(defined);
    let mut uuids: Vec<&str> = all().map(|(_, domain)| domain.uuid.as_str()).collect();
    uuids.sort_unstable();
    uuids.dedup();
    if uuids.len() > 1 {
        return Stand::Several(all().map(|(host, _)| host).collect());
    }
    match (active.as_slice(), defined.as_slice()) {
        ([], []) => Stand::Undefined,
        ([], [(host, domain)]) if host == to => Stand::There(domain),
        ([], [(host, domain)]) => Stand::Off(host, domain),
        ([], [(a, _), (b, domain)]) if a == to => Stand::Between(b, domain),
        ([], [(a, domain), (b, _)]) if b == to => Stand::Between(a, domain),
        ([(host, domain)], []) if host == to => Stand::There(domain),
        ([(host, domain)], []) => Stand::Runs(host, domain),
        ([(host, _)], [(left, domain)]) if host == to => Stand::LeftBehind(left, domain),
        ([] | [_], _) => Stand::Several(all().map(|(host, _)| host).collect()),
        (several, _) => {
            let hosts = names(several.iter().map(|(host, _)| host).collect());
            Stand::Unplaced(Placement::OnBoth, format!("the guest is active on {hosts}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt::{DomainState, PauseReason};

    fn host(name: &str) -> HostId {
        HostId::new(name).unwrap()
    }

    fn domain(uuid: &str, state: DomainState) -> DomainFacts {
        let (name, xml) = ("web1".to_owned(), String::new());
        DomainFacts { name, uuid: uuid.to_owned(), state, persistent: true, autostart: false, xml }
    }

    fn seen(active: &[(&str, &str)], defined: &[(&str, &str)]) -> Survey {
        let list = |hosts: &[(&str, &str)], state| {
            hosts.iter().map(|(name, uuid)| (host(name), domain(uuid, state))).collect()
        };
        Survey {
            active: list(active, DomainState::Paused(PauseReason::User)),
            defined: list(defined, DomainState::ShutOff),
            ..Survey::default()
        }
    }

    fn word(survey: &Survey) -> String {
        let stand = stand(survey, &host("kvm2"));
        match &stand {
            Stand::Runs(host, _) => format!("runs {host}"),
            Stand::Off(host, _) => format!("off {host}"),
            Stand::Between(host, _) => format!("between {host}"),
            Stand::LeftBehind(host, _) => format!("left {host}"),
            Stand::There(_) => "there".to_owned(),
            Stand::Undefined => "undefined".to_owned(),
            Stand::Several(hosts) => format!("several {}", hosts.len()),
            Stand::Unknown(_) => "unknown".to_owned(),
            Stand::Unplaced(placement, _) => format!("{placement:?}"),
        }
    }

    #[test]
    fn each_picture_of_the_hypervisors_has_one_meaning() {
        let (k1, k2, k3) = (("kvm1", "a"), ("kvm2", "a"), ("kvm3", "a"));
        let table: [(&[_], &[_], &str); 13] = [
            (&[], &[], "undefined"),
            (&[], &[k1], "off kvm1"),
            (&[], &[k2], "there"),
            (&[], &[k1, k2], "between kvm1"),
            (&[], &[k2, k3], "between kvm3"),
            (&[], &[k1, k3], "several 2"),
            (&[], &[k1, k2, k3], "several 3"),
            (&[k1], &[], "runs kvm1"),
            (&[k1], &[k2], "several 2"),
            (&[k2], &[k1], "left kvm1"),
            (&[k2], &[], "there"),
            (&[k1, k2], &[], "OnBoth"),
            // Another guest of the same name.
            (&[k1], &[("kvm2", "b")], "several 2"),
        ];
        for (active, defined, expected) in table {
            assert_eq!(word(&seen(active, defined)), expected, "{active:?} {defined:?}");
        }
    }

    #[test]
    fn a_hypervisor_that_was_not_asked_and_a_migration_come_before_everything_else() {
        let mut survey = seen(&[], &[("kvm1", "a")]);
        survey.transit.push(host("kvm3"));
        assert_eq!(word(&survey), "Unknown");
        survey.unseen.push("host kvm3: down".to_owned());
        assert_eq!(word(&survey), "unknown");
    }
}
