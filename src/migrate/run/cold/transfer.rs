//! The steps of a cold move, in the one order in which no crash leaves two definitions that could both start by themselves.
//!
//! Note, stop, autostart off at the source, define at the destination, ask everybody again, undefine at the source, autostart
//! on and start at the destination. A call that fails is judged by what its host shows afterwards.

use std::time::{Duration, Instant};

use super::{Found, Load, Shift, Start, Stop};
use crate::libvirt::domain_xml::{self, StateFile};
use crate::libvirt::{DomainFacts, Hypervisor, LibvirtError};
use crate::migrate::cold::{Intent, Stand, intent, stand};
use crate::migrate::locate::{Survey, survey};
use crate::migrate::outcome::{ColdMove, Outcome, Stopped, Verdict};
use crate::migrate::run::{MigrateEvent, Mode, domain_everywhere, since};
use crate::migrate::start::{Started, start};
use crate::model::{FindingCode, HostId, chain};

/// Time after which a guest is asked once more: a system that still boots does not hear the power button (OpenStack's
/// `shutdown_retry_interval` has the same value and reason).
const ASK_AGAIN: Duration = Duration::from_secs(10);

impl Shift<'_> {
    /// Carries a guest over that nothing forbids to move.
    pub(super) fn begin(&self, load: &Load<'_>, outcome: &mut Outcome) {
        let (from, domain) = (&load.journey.from, &load.journey.domain);
        let earlier = load.earlier.as_ref();
        if earlier.is_some_and(|earlier| earlier.ran) && load.found != Found::Running {
            outcome
                .notes
                .push("an earlier cold move had shut the guest down, so it is started again".to_owned());
        }
        let intent = Intent {
            uuid: domain.uuid.clone(),
            from: from.clone(),
            to: self.run.to.clone(),
            ran: load.found == Found::Running || earlier.is_some_and(|earlier| earlier.ran),
            autostart: domain.autostart || earlier.is_some_and(|earlier| earlier.autostart),
        };
        if let Err(error) = intent::write(&self.notes, self.guest, &intent) {
            outcome.verdict = Verdict::Stayed(chain(&error));
            return;
        }
        outcome.cold = Some(self.story(&intent, earlier.is_some() || load.found == Found::Between));
        (self.run.events)(MigrateEvent::Began(self.guest.clone(), from.clone(), self.run.to.clone()));
        outcome.verdict = match self.steps(load, &intent, outcome) {
            Ok(()) => Verdict::Moved,
            Err(verdict) => verdict,
        };
        self.ended(outcome);
    }

    fn story(&self, intent: &Intent, continued: bool) -> ColdMove {
        let now = humantime::format_rfc3339_millis((self.run.options.clock)()).to_string();
        ColdMove {
            uuid: intent.uuid.clone(),
            ran: intent.ran,
            stopped: None,
            continued,
            started: now.clone(),
            ended: now,
        }
    }

    fn ended(&self, outcome: &mut Outcome) {
        if let Some(story) = &mut outcome.cold {
            story.ended = humantime::format_rfc3339_millis((self.run.options.clock)()).to_string();
        }
    }

    fn steps(&self, load: &Load<'_>, intent: &Intent, outcome: &mut Outcome) -> Result<(), Verdict> {
        let from = &load.journey.from;
        if load.found == Found::Running {
            let stopped = self.stop(from).map_err(Verdict::Stayed)?;
            if let Some(story) = &mut outcome.cold {
                story.stopped = Some(stopped);
            }
        }
        self.silence(load).map_err(Verdict::Stayed)?;
        if load.found != Found::Between {
            self.define(load, outcome).map_err(Verdict::Stayed)?;
        }
        self.both_off(from).map_err(Verdict::Stayed)?;
        self.undefine(from)?;
        let refreshed = self.run.refresh_pools(&load.journey);
        outcome.notes.extend(refreshed);
        self.arrive(intent, outcome)
    }

    fn look(&self, host: &HostId) -> Result<Option<DomainFacts>, LibvirtError> {
        self.run.site.connector.open(host)?.domain(&self.uuid)
    }

    /// Changes something through a host's libvirt, if every lock of this run is still held.
    fn change(
        &self,
        host: &HostId,
        call: impl FnOnce(&dyn Hypervisor) -> Result<(), LibvirtError>,
    ) -> Result<(), String> {
        self.run.holds_locks()?;
        let done = self.run.site.connector.open(host).and_then(|daemon| call(&*daemon));
        done.map_err(|error| error.to_string())
    }

    /// Has the guest shut down; `Err` says why it still runs, or may.
    fn stop(&self, host: &HostId) -> Result<Stopped, String> {
        let name = self.uuid.as_str();
        let (limit, cut) = match self.cold.stop {
            Stop::Refuse => return Err("it runs".to_owned()),
            Stop::Ask(limit) => (limit, false),
            Stop::Cut(limit) => (limit, true),
        };
        (self.run.events)(MigrateEvent::Stopping(self.guest.clone(), host.clone()));
        let ask = || self.change(host, |daemon| daemon.shutdown_domain(name));
        let (mut asked, begin) = (ask(), Instant::now());
        let mut last = begin;
        loop {
            match self.look(host) {
                Ok(Some(domain)) if !domain.state.is_active() => return Ok(Stopped::ByItself),
                Ok(None) => return Err(format!("it is no longer defined on {host}")),
                Ok(Some(_)) | Err(_) => {}
            }
            if let Err(error) = &asked {
                return Err(error.clone());
            }
            if self.run.cancel.is_cancelled() {
                return Err("cancelled while it was shutting down; it may still do so".to_owned());
            }
            if since(begin) >= limit {
                break;
            }
            if since(last) >= ASK_AGAIN {
                (asked, last) = (ask(), Instant::now());
            }
            std::thread::sleep(self.run.options.pace.poll);
        }
        let limit = humantime::format_duration(limit);
        if !cut {
            return Err(format!("it did not shut down within {limit}; --force cuts its power then"));
        }
        let cut = self.change(host, |daemon| daemon.destroy_domain(name));
        match self.look(host) {
            Ok(Some(domain)) if !domain.state.is_active() => Ok(Stopped::PowerCut),
            _ => Err(cut.err().unwrap_or_else(|| "it still runs".to_owned())),
        }
    }

    /// Takes autostart away at the source, so that of two definitions none starts with its host.
    fn silence(&self, load: &Load<'_>) -> Result<(), String> {
        let from = &load.journey.from;
        if !load.journey.domain.autostart {
            return Ok(());
        }
        let set = self.change(from, |at| at.set_autostart(&self.uuid, false));
        match (set, self.look(from)) {
            (Ok(()), _) => Ok(()),
            (Err(_), Ok(Some(domain))) if !domain.autostart => Ok(()),
            (Err(error), _) => Err(error),
        }
    }

    /// Defines at the destination what the source has, to the byte.
    fn define(&self, load: &Load<'_>, outcome: &mut Outcome) -> Result<(), String> {
        let (from, to, name) = (&load.journey.from, self.run.to, self.uuid.as_str());
        let connector = self.run.site.connector;
        let xml = connector.open(from).and_then(|source| source.definition(name));
        let defined = xml
            .map_err(|error| error.to_string())
            .and_then(|xml| self.change(to, |target| target.define_domain(xml.reveal())));
        let Err(error) = defined else { return Ok(()) };
        match self.look(to) {
            Ok(Some(domain)) if domain.uuid == load.journey.domain.uuid => {
                outcome.notes.push(format!("libvirt reported: {error}"));
                Ok(())
            }
            Ok(_) => {
                if load.journey.domain.autostart {
                    let back = self.change(from, |source| source.set_autostart(name, true));
                    outcome.notes.extend(back.err().map(|error| format!("autostart is off: {error}")));
                }
                Err(error)
            }
            Err(_) => Err(format!("{error}; {to} may have its definition, and nothing starts it")),
        }
    }

    /// Asks every hypervisor once more: the guest is off, and these two alone have its definition.
    fn both_off(&self, from: &HostId) -> Result<(), String> {
        (self.run.events)(MigrateEvent::Confirming(self.guest.clone()));
        let survey = survey(&domain_everywhere(self.run.site, self.guest));
        match stand(&survey, self.run.to) {
            Stand::Between(host, _) if host == from => Ok(()),
            Stand::Unknown(reason) => {
                Err(format!("both hosts have its definition and none starts it: {reason}"))
            }
            Stand::Runs(host, _) | Stand::LeftBehind(host, _) => {
                Err(format!("somebody changed it meanwhile; look at {host} and {}", self.run.to))
            }
            other => Err(format!("the hosts show something else than was done: {other:?}")),
        }
    }

    /// Removes the definition at the source; from here on the guest is at the destination.
    fn undefine(&self, from: &HostId) -> Result<(), Verdict> {
        let done = self.change(from, |at| at.undefine_domain(&self.uuid));
        let Err(error) = done else { return Ok(()) };
        match self.look(from) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => {
                Err(Verdict::Stayed(format!("both hosts have its definition and none starts it: {error}")))
            }
            Err(_) => {
                let reason =
                    format!("{from} may still have its definition, and nothing starts it there: {error}");
                Err(Verdict::Unfinished(reason))
            }
        }
    }

    /// What is done at the destination once it alone has the guest.
    fn arrive(&self, intent: &Intent, outcome: &mut Outcome) -> Result<(), Verdict> {
        if intent.autostart {
            self.autostart().map_err(Verdict::Unfinished)?;
        }
        if intent.ran || self.cold.start == Start::Always {
            self.start(outcome).map_err(Verdict::Unfinished)?;
        }
        self.forget(outcome);
        Ok(())
    }

    fn autostart(&self) -> Result<(), String> {
        let to = self.run.to;
        let set = self.change(to, |at| at.set_autostart(&self.uuid, true));
        match (set, self.look(to)) {
            (Ok(()), _) => Ok(()),
            (Err(_), Ok(Some(domain))) if domain.autostart => Ok(()),
            (Err(error), _) => Err(format!("autostart could not be set: {error}")),
        }
    }

    fn start(&self, outcome: &mut Outcome) -> Result<(), String> {
        let error = match start(self.run.site, self.guest, self.run.cancel) {
            Ok(Started::Now(host) | Started::Already(host)) if host == *self.run.to => return Ok(()),
            Ok(Started::Now(host) | Started::Already(host)) => return Err(format!("it runs on {host}")),
            Err(error) => chain(&error),
        };
        match self.look(self.run.to) {
            Ok(Some(domain)) if domain.state.is_active() => {
                outcome.notes.push(error);
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn forget(&self, outcome: &mut Outcome) {
        let forgotten = intent::forget(&self.notes, self.guest);
        outcome.notes.extend(forgotten.err().map(|error| chain(&error)));
    }

    /// A guest that is at the destination already: what an earlier move left to be done is done.
    pub(super) fn there(&self, domain: &DomainFacts) -> Outcome {
        let mut outcome = Outcome::new(self.guest, self.run.to, Verdict::AlreadyThere);
        outcome.from = Some(self.run.to.clone());
        let earlier = match intent::read(&self.notes, self.guest, &domain.uuid) {
            Ok(earlier) => earlier,
            Err(error) => {
                outcome.verdict = Verdict::Unfinished(chain(&error));
                return outcome;
            }
        };
        if self.run.options.mode == Mode::DryRun {
            return outcome;
        }
        let starts = self.cold.start == Start::Always && !domain.state.is_active();
        let Some(intent) = earlier else {
            if starts && let Err(reason) = self.start(&mut outcome) {
                outcome.verdict = Verdict::Unfinished(reason);
            }
            return outcome;
        };
        if intent.to == *self.run.to {
            outcome.from = Some(intent.from.clone());
        }
        outcome.cold = Some(self.story(&intent, true));
        outcome.verdict = match self.arrive(&intent, &mut outcome) {
            Ok(()) if intent.to == *self.run.to => Verdict::Moved,
            Ok(()) => Verdict::AlreadyThere,
            Err(verdict) => verdict,
        };
        self.ended(&mut outcome);
        outcome
    }

    /// A guest that runs at the destination while another host still has its definition: that one goes.
    pub(super) fn left_behind(&self, survey: &Survey, left: &HostId, domain: &DomainFacts) -> Outcome {
        let mut outcome = Outcome::new(self.guest, self.run.to, Verdict::Refused);
        outcome.from = Some(self.run.to.clone());
        let keeps = self.run.site.connector.open(left).and_then(|at| at.keeps(&self.uuid));
        match keeps {
            Ok(keeps) => outcome.findings = self.kept(left, keeps),
            Err(error) => outcome.verdict = Verdict::Unreachable(error.to_string()),
        }
        if survey.active.first().is_none_or(|(_, active)| !active.persistent) {
            let message = "the guest runs at the destination without a persistent definition there";
            outcome.findings.push(self.finding(FindingCode::GuestTransient, message).on(self.run.to));
        }
        if !outcome.findings.is_empty() || outcome.verdict != Verdict::Refused {
            return outcome;
        }
        outcome.verdict = Verdict::AlreadyThere;
        if self.run.options.mode == Mode::DryRun {
            return outcome;
        }
        let earlier = intent::read(&self.notes, self.guest, &domain.uuid);
        let autostart =
            domain.autostart || earlier.is_ok_and(|noted| noted.is_some_and(|noted| noted.autostart));
        // First here, then gone there: a host that loses power in between starts it nowhere twice, because it runs here.
        let done = if autostart { self.autostart().map_err(Verdict::Unfinished) } else { Ok(()) };
        match done.and_then(|()| self.undefine(left)) {
            Ok(()) => {
                outcome.notes.push(format!("the definition that was left on {left} is removed"));
                outcome.notes.extend(kept_files(left, domain));
            }
            Err(verdict) => outcome.verdict = verdict,
        }
        self.forget(&mut outcome);
        outcome
    }
}

/// What a host keeps of a guest whose definition is gone: nobody looks for it there any more.
fn kept_files(host: &HostId, domain: &DomainFacts) -> Vec<String> {
    let read = match domain_xml::read(&domain.xml) {
        Ok(summary) => summary.state,
        Err(error) => return vec![error.to_string()],
    };
    let stays = |state: StateFile| Some(format!("{} stays on {host}: {}", state.kind, state.place?));
    read.into_iter().filter_map(stays).collect()
}
