//! The shell around a move of a guest that is shut off: looks, checks, has it shut down if that was asked, and carries its
//! definition over.
//!
//! Imports the rest of `migrate`, `libvirt`, `host`, `spec` and `model`. Where a guest stands is judged in `migrate::cold`,
//! what speaks against it in `preflight`; the steps are in `transfer`.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Journey, MigrateEvent, Mode, Options, Run, names, not_running};
use crate::host::LockKind;
use crate::libvirt::{DomainFacts, DomainState, Keeps, LibvirtError, domain_xml};
use crate::migrate::Site;
use crate::migrate::cold::{Intent, Stand, intent, stand};
use crate::migrate::locate::{Survey, renamed, survey};
use crate::migrate::members::unasked_members;
use crate::migrate::outcome::{Outcome, Verdict};
use crate::migrate::preflight::{self, GuestFacts, Starts, refusals};
use crate::model::{
    Cancel, Finding, FindingCode, GuestId, HostId, ResourceId, ResourceKind, Severity, chain,
};

use crate::writers::{Domains, Hypervisors, Subject, Unknown, User};

mod transfer;

/// What becomes of a guest that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It is not touched.
    Refuse,
    /// Its system is asked to shut down, and gets this long.
    Ask(Duration),
    /// Likewise, and then its power is cut.
    Cut(Duration),
}

/// Whether a guest is started at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// If it ran before.
    AsBefore,
    /// In any case.
    Always,
}

/// What the user wants of a cold move besides [`Options`].
#[derive(Debug, Clone)]
pub struct Cold {
    /// What becomes of a guest that runs.
    pub stop: Stop,
    /// Whether it is started at the destination.
    pub start: Start,
}

/// Moves guests that are shut off to a host, one after the other, and says where each of them is afterwards.
pub fn cold(
    site: Site<'_>,
    guests: &[GuestId],
    to: &HostId,
    options: &Options,
    cold: &Cold,
    cancel: &Cancel,
    events: &(dyn Fn(MigrateEvent) + Sync),
) -> Vec<Outcome> {
    let run = Run { site, to, options, cancel, events, locks: Mutex::default() };
    let notes = intent::directory(&options.receipts);
    let one = |guest| {
        let uuid = site.cluster.guest_uuid(guest);
        let outcome = Shift { run: &run, guest, uuid, cold, notes: notes.clone() }.one();
        events(MigrateEvent::Ended(Box::new(outcome.clone())));
        outcome
    };
    guests.iter().map(one).collect()
}

/// One guest's cold move.
struct Shift<'a> {
    run: &'a Run<'a>,
    guest: &'a GuestId,
    /// The UUID of its domain.
    uuid: String,
    cold: &'a Cold,
    notes: PathBuf,
}

/// How a guest that is to be carried was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Running,
    Off,
    /// Both hosts have its definition.
    Between,
}

/// A guest that is to be carried, and what earlier runs noted about it.
struct Load<'a> {
    found: Found,
    journey: Journey<'a>,
    earlier: Option<Intent>,
}

impl Shift<'_> {
    fn one(&self) -> Outcome {
        // A dry run changes nothing and needs no lock; every other run keeps apply and a second move away.
        let hypervisors = self.run.site.cluster.hypervisors().map(|host| &host.id);
        let locked = match self.run.options.mode {
            Mode::DryRun => Ok(()),
            Mode::Move => self.run.lock(LockKind::Exclusive, hypervisors),
        };
        let outcome = match locked {
            Ok(()) => self.under_locks(),
            Err(errors) => Outcome::new(self.guest, self.run.to, Verdict::Unreachable(super::told(&errors))),
        };
        self.run.locks.lock().unwrap_or_else(PoisonError::into_inner).release();
        outcome
    }

    fn under_locks(&self) -> Outcome {
        if let Some(reason) = unasked_members(self.run.site) {
            let reason = format!("the guest may run on a hypervisor that was not asked: {reason}");
            return Outcome::new(self.guest, self.run.to, Verdict::Unreachable(reason));
        }
        let seen = super::domain_everywhere(self.run.site, self.guest);
        let mut outcome = self.judged(&survey(&seen));
        let seen = match outcome.cold {
            None => seen,
            Some(_) => super::domain_everywhere(self.run.site, self.guest),
        };
        outcome.seen = super::shown(seen);
        if outcome.cold.is_some() {
            self.run.receipt((self.run.options.clock)(), &mut outcome);
        }
        outcome
    }

    fn judged(&self, survey: &Survey) -> Outcome {
        let outcome = |verdict| Outcome::new(self.guest, self.run.to, verdict);
        let refused = |finding| Outcome { findings: vec![finding], ..outcome(Verdict::Refused) };
        match stand(survey, self.run.to) {
            Stand::Unknown(reason) => outcome(Verdict::Unreachable(reason)),
            Stand::Unplaced(placement, reason) => outcome(Verdict::Unplaced { placement, reason }),
            Stand::Undefined => refused(not_running(self.run.site, self.guest, &[])),
            Stand::Several(hosts) => {
                let hosts: Vec<HostId> = hosts.into_iter().cloned().collect();
                refused(self.twice(&hosts))
            }
            Stand::There(domain) => self.there(domain),
            Stand::LeftBehind(left, domain) => self.left_behind(survey, left, domain),
            Stand::Runs(from, domain) => self.carry(Found::Running, from, domain),
            Stand::Off(from, domain) => self.carry(Found::Off, from, domain),
            Stand::Between(from, domain) => self.carry(Found::Between, from, domain),
        }
    }

    fn finding(&self, code: FindingCode, message: impl Into<String>) -> Finding {
        Finding::new(Severity::Error, code, ResourceId::new(ResourceKind::Guest, self.guest), message)
    }

    fn twice(&self, hosts: &[HostId]) -> Finding {
        let message = format!("there are definitions of the guest on {}", names(hosts));
        let remedy = format!(
            "compare them with `virsh dumpxml --inactive {0}`, then `virsh undefine {0}` where it is wrong",
            self.guest
        );
        self.finding(FindingCode::GuestDefinedTwice, message).remedy(remedy)
    }

    /// Checks a guest that is at `from` and, if nothing forbids it, carries it over.
    fn carry(&self, found: Found, from: &HostId, domain: &DomainFacts) -> Outcome {
        let mut outcome = Outcome::new(self.guest, self.run.to, Verdict::Refused);
        outcome.from = Some(from.clone());
        outcome.allowed = self.run.options.allow.iter().copied().collect();
        (self.run.events)(MigrateEvent::Located(self.guest.clone(), from.clone()));
        let earlier = match intent::read(&self.notes, self.guest, &domain.uuid) {
            Ok(earlier) => earlier,
            Err(error) => {
                outcome.verdict = Verdict::Stayed(chain(&error));
                return outcome;
            }
        };
        let address = self.run.site.cluster.address_of(self.run.to).to_owned();
        let journey = Journey { guest: self.guest, from: from.clone(), domain: domain.clone(), address };
        let load = Load { found, journey, earlier };
        match self.findings(&load) {
            Ok(findings) => outcome.findings = findings,
            Err(finding) => {
                outcome.verdict = Verdict::Unreachable(finding.message.clone());
                outcome.findings.push(*finding);
                return outcome;
            }
        }
        (self.run.events)(MigrateEvent::Checked(self.guest.clone(), outcome.findings.clone()));
        if !refusals(&outcome.findings, &self.run.options.allow).is_empty() {
            return outcome;
        }
        match self.run.options.mode {
            Mode::DryRun => outcome.verdict = Verdict::Ready,
            Mode::Move if self.run.cancel.is_cancelled() => {
                outcome.verdict = Verdict::Stayed("cancelled before it began".to_owned());
            }
            Mode::Move => self.begin(&load, &mut outcome),
        }
        outcome
    }

    /// Everything that speaks against it, as both hosts show it now.
    fn findings(&self, load: &Load<'_>) -> Result<Vec<Finding>, Box<Finding>> {
        let Load { found, journey, earlier } = load;
        let unasked = |error: LibvirtError| {
            Box::new(self.finding(FindingCode::DaemonDown, error.to_string()).on(&journey.from))
        };
        // What moves is the persistent definition, which may differ from what runs now.
        let definition = self.run.site.connector.open(&journey.from);
        let definition = definition.and_then(|at| at.definition(&self.uuid)).map_err(unasked)?;
        let domain = DomainFacts { xml: definition.reveal().to_owned(), ..journey.domain.clone() };
        let journey = &Journey {
            guest: self.guest,
            from: journey.from.clone(),
            domain,
            address: journey.address.clone(),
        };
        let (from, to) = self.run.facts(journey)?;
        let keeps = self.run.site.connector.open(&journey.from).and_then(|at| at.keeps(&self.uuid));
        let mut findings = self.kept(&journey.from, keeps.map_err(unasked)?);
        let summary = domain_xml::read(&journey.domain.xml).map_err(unasked)?;
        let guest = GuestFacts { id: self.guest.clone(), domain: journey.domain.clone(), summary };
        let starts = *found == Found::Running
            || self.cold.start == Start::Always
            || earlier.as_ref().is_some_and(|earlier| earlier.ran);
        let starts = if starts { Starts::Yes } else { Starts::No };
        findings.extend(preflight::cold(&guest, starts, &from, &to, self.run.site.cluster));
        findings.extend(renamed(self.guest, &journey.from, &journey.domain));
        findings.extend(self.users(journey)?);
        match found {
            Found::Running => findings.extend(self.running(&journey.from, &journey.domain)),
            Found::Off => {}
            Found::Between => {
                if !self.is_own_second(load).map_err(unasked)? {
                    findings.push(self.twice(&[journey.from.clone(), self.run.to.clone()]));
                }
            }
        }
        Ok(findings)
    }

    /// Who else is active on the guest's images: it would not be started at the destination.
    fn users(&self, journey: &Journey<'_>) -> Result<Vec<Finding>, Box<Finding>> {
        let Site { cluster, fleet, connector } = self.run.site;
        let hosts: Vec<HostId> = cluster.hypervisors().map(|host| host.id.clone()).collect();
        let of = Hypervisors { hosts: &hosts, fleet, connector };
        let (name, uuid, xml) = (self.guest.as_str(), self.uuid.as_str(), journey.domain.xml.as_str());
        let subject = Subject { name, uuid, host: &journey.from, xml };
        let unknown = |error: Unknown| Box::new(self.finding(FindingCode::HostUnobserved, error.to_string()));
        let users = Domains::ask(of).and_then(|domains| domains.users(of, subject)).map_err(unknown)?;
        let active = users.into_iter().filter(|user| user.active && user.uuid != self.uuid);
        let finding = |user: User| {
            let remedy = format!(
                "shut {} down on {} and undefine it, or give each an image of its own",
                user.name, user.host
            );
            self.finding(FindingCode::ImageInUse, format!("disk {user}")).on(&user.host).remedy(remedy)
        };
        Ok(active.map(finding).collect())
    }

    /// What would be lost with the definition.
    fn kept(&self, host: &HostId, keeps: Keeps) -> Vec<Finding> {
        let saved = keeps.managed_save.then(|| {
            let remedy = format!(
                "`virsh start {0}` on {host} goes on from it, `virsh managedsave-remove {0}` drops it",
                self.guest
            );
            ("the memory of the guest was saved, to be restored at its next start".to_owned(), remedy)
        });
        let snapshots = (keeps.snapshots > 0).then(|| {
            let remedy =
                format!("`virsh snapshot-list {0}`, `virsh snapshot-delete {0} NAME` on {host}", self.guest);
            (format!("libvirt keeps {} snapshots of the guest", keeps.snapshots), remedy)
        });
        let finding = |(message, remedy): (String, String)| {
            self.finding(FindingCode::StateKept, message).on(host).remedy(remedy)
        };
        saved.into_iter().chain(snapshots).map(finding).collect()
    }

    /// What keeps a guest that runs from being shut down.
    fn running(&self, host: &HostId, domain: &DomainFacts) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !domain.persistent {
            let message = "the guest has no persistent definition and is gone when it stops";
            let remedy = format!("`virsh dumpxml {0}`, then `virsh define` on {host}", self.guest);
            findings.push(self.finding(FindingCode::GuestTransient, message).on(host).remedy(remedy));
        }
        if self.cold.stop == Stop::Refuse {
            let remedy = format!(
                "`virsh shutdown {0}`, or give --shutdown; without --cold it moves while it runs",
                self.guest
            );
            let message = "the guest runs, so it cannot be moved cold";
            findings.push(self.finding(FindingCode::GuestRunning, message).on(host).remedy(remedy));
        } else if domain.state != DomainState::Running {
            let message = "the guest is paused, so its system cannot shut down";
            let remedy = format!("`virsh resume {0}`, or `virsh destroy {0}` on {host}", self.guest);
            findings.push(self.finding(FindingCode::GuestPaused, message).on(host).remedy(remedy));
        }
        findings
    }

    /// Whether the second definition is one that an earlier move made: it was noted, or both are the same.
    fn is_own_second(&self, load: &Load<'_>) -> Result<bool, LibvirtError> {
        let (from, to) = (&load.journey.from, self.run.to);
        if load.earlier.as_ref().is_some_and(|earlier| earlier.is_between(from, to)) {
            return Ok(true);
        }
        let read = |host| self.run.site.connector.open(host)?.definition(&self.uuid);
        Ok(read(from)? == read(to)?)
    }
}
