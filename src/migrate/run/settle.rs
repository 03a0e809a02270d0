//! The end of a move: both hosts are asked where the guest is, what belongs to it follows, and the receipt is written.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use super::moving::{self, Ride};
use super::{Journey, MigrateEvent, Run, domain_everywhere, since};
use crate::libvirt::{DomainFacts, DomainState, JobOperation, JobStats, LibvirtError, domain_xml};
use crate::migrate::confirm::{Placement, Seen, judge};
use crate::migrate::facts::disk_path;
use crate::migrate::locate::{Located, locate};
use crate::migrate::monitor::AbortReason;
use crate::migrate::outcome::{Figures, MovePlan, Outcome, Outside, Verdict};
use crate::migrate::outside::Ping;
use crate::migrate::receipt;
use crate::migrate::strategy::{Arrival, Strategy, choose};
use crate::model::{GuestId, HostId};
use crate::spec::{Autostart, GuestDefinition};

/// libvirt's flags by name, for the receipt.
const FLAGS: [&str; 5] = ["live", "peer2peer", "persist-dest", "undefine-source", "abort-on-error"];

/// What both hosts showed last.
struct Confirmed {
    placement: Placement,
    source: Seen,
    target: Seen,
}

impl Run<'_> {
    /// Moves a guest that nothing forbids to move.
    pub(super) fn depart(&self, journey: &Journey<'_>, strategy: Strategy, mut outcome: Outcome) -> Outcome {
        let refreshed = self.refresh_pools(journey);
        outcome.notes.extend(refreshed);
        let ping = self.options.ping.map(Ping::start);
        let started = (self.options.clock)();
        let hosts = (journey.guest.clone(), journey.from.clone(), self.to.clone());
        (self.events)(MigrateEvent::Began(hosts.0, hosts.1, hosts.2));
        let ride = self.ride(journey, &strategy);
        let mut outcome = self.arrive(journey, &strategy, ride, started, outcome);
        if let (Some(figures), Some(ping)) = (outcome.figures.as_mut(), ping) {
            let seen = ping.and_then(Ping::finish);
            figures.ping = Some(seen.map_or_else(|error| Outside::Failed(error.to_string()), Outside::Seen));
        }
        self.receipt(started, &mut outcome);
        outcome
    }

    /// Watches a move that somebody else began, and settles it as if it were this one's.
    pub(super) fn attach(&self, journey: &Journey<'_>, mut outcome: Outcome) -> Outcome {
        let strategy = match choose(journey.domain.state, &self.options.policy) {
            Ok(strategy) => strategy,
            Err(error) => {
                outcome.verdict = Verdict::Stayed(error.to_string());
                return outcome;
            }
        };
        let started = (self.options.clock)();
        outcome.notes.push("attached to a migration that was already under way".to_owned());
        let hosts = (journey.guest.clone(), journey.from.clone(), self.to.clone());
        (self.events)(MigrateEvent::Attached(hosts.0, hosts.1, hosts.2));
        let ride = self.ride_along(journey, &strategy);
        let mut outcome = self.arrive(journey, &strategy, ride, started, outcome);
        self.receipt(started, &mut outcome);
        outcome
    }

    /// A pool that was not rescanned since an image was made does not know it, and libvirt then refuses the guest.
    pub(super) fn refresh_pools(&self, journey: &Journey<'_>) -> Vec<String> {
        let summary = match domain_xml::read(&journey.domain.xml) {
            Ok(summary) => summary,
            Err(error) => return vec![error.to_string()],
        };
        let paths: Vec<String> =
            summary.disks.iter().filter_map(|disk| disk_path(&disk.source, self.site.cluster)).collect();
        let uses = |mount: &str| paths.iter().any(|path| path.starts_with(&format!("{mount}/")));
        let pools = self
            .site
            .cluster
            .storage
            .iter()
            .filter(|(_, storage)| storage.mounted_at().is_some_and(|place| uses(place.as_str())));
        if let Err(reason) = self.holds_locks() {
            return vec![reason];
        }
        let refresh =
            |pool: &str| self.site.connector.open(self.to).and_then(|target| target.refresh_pool(pool));
        pools.filter_map(|(id, _)| refresh(id.as_str()).err()).map(|error| error.to_string()).collect()
    }

    /// Asks both hosts, and lets what belongs to the guest follow it.
    fn arrive(
        &self,
        journey: &Journey<'_>,
        strategy: &Strategy,
        mut ride: Ride,
        started: SystemTime,
        mut outcome: Outcome,
    ) -> Outcome {
        (self.events)(MigrateEvent::Confirming(journey.guest.clone()));
        let confirmed = self.confirm(journey);
        let request = moving::request(self, journey, strategy);
        outcome.plan = Some(MovePlan {
            uuid: journey.domain.uuid.clone(),
            destination: request.destination,
            stream: request.stream,
            flags: FLAGS.into_iter().chain(request.paused.then_some("paused")).collect(),
            strategy: strategy.clone(),
            started: humantime::format_rfc3339_millis(started).to_string(),
            ended: humantime::format_rfc3339_millis((self.options.clock)()).to_string(),
        });
        outcome.notes.extend(ride.notes.iter().cloned());
        outcome.verdict = match confirmed.placement {
            Placement::Moved => {
                outcome.notes.extend(ride.error.iter().map(|error| format!("libvirt reported: {error}")));
                outcome.notes.extend(self.follow(journey, &confirmed));
                Verdict::Moved
            }
            Placement::Stayed if self.may_go_on(journey, &mut ride) => Verdict::Unplaced {
                placement: Placement::Unknown,
                reason: self.in_doubt(journey, &ride, &self.why(strategy, &ride), &confirmed),
            },
            Placement::Stayed => {
                outcome.notes.extend(self.resume(journey, strategy, &ride));
                Verdict::Stayed(self.why(strategy, &ride))
            }
            Placement::Unknown => Verdict::Unplaced {
                placement: Placement::Unknown,
                reason: self.in_doubt(journey, &ride, &self.why(strategy, &ride), &confirmed),
            },
            placement => match self.elsewhere(journey) {
                Some(host) => Verdict::Stayed(format!("it was moved to {host} meanwhile")),
                None => Verdict::Unplaced { placement, reason: self.why(strategy, &ride) },
            },
        };
        let (figures, trouble) = self.figures(journey, ride, confirmed.placement);
        outcome.figures = Some(figures);
        outcome.notes.extend(trouble);
        outcome.seen =
            BTreeMap::from([(journey.from.clone(), confirmed.source), (self.to.clone(), confirmed.target)]);
        outcome
    }

    /// Asks both hosts until they show one clear placement, or patience ends.
    fn confirm(&self, journey: &Journey<'_>) -> Confirmed {
        let begin = Instant::now();
        loop {
            let (source, target) = std::thread::scope(|scope| {
                let source = scope.spawn(|| self.see(&journey.from, journey));
                let target = self.see(self.to, journey);
                let broken = |_| Seen::Unseen("asking it failed".to_owned());
                (source.join().unwrap_or_else(broken), target)
            });
            let placement = judge(&source, &target);
            let clear = matches!(placement, Placement::Moved | Placement::Stayed);
            let patience = since(begin) < self.options.pace.confirm && !self.cancel.is_abandoned();
            if clear || !patience {
                return Confirmed { placement, source, target };
            }
            std::thread::sleep(self.options.pace.poll);
        }
    }

    fn see(&self, host: &HostId, journey: &Journey<'_>) -> Seen {
        let answer = self.site.connector.open(host).and_then(|daemon| daemon.domain(&journey.domain.uuid));
        match answer {
            Ok(domain) => Seen::of(Ok(domain.as_ref()), &journey.domain.uuid),
            Err(error) => Seen::Unseen(error.to_string()),
        }
    }

    /// A third host on which alone the guest is active: live moves share their locks, and another one may have been quicker.
    fn elsewhere(&self, journey: &Journey<'_>) -> Option<HostId> {
        match locate(&domain_everywhere(self.site, journey.guest), self.to) {
            Located::At(host, _) if host != journey.from => Some(host),
            _ => None,
        }
    }

    /// Whether libvirt may still move a guest that was seen at its source: it neither ended the migration nor took up that it
    /// is to end, or the call failed and the source shows the job all the same (a connection that broke does not end it), or cannot
    /// be asked for it.
    fn may_go_on(&self, journey: &Journey<'_>, ride: &mut Ride) -> bool {
        if ride.cancelled {
            return false;
        }
        if !ride.open && ride.error.is_some() {
            let job = self.site.connector.open(&journey.from).and_then(|at| at.job(&journey.domain.uuid));
            // That the guest ran there a moment ago does not say that a job has ended for which the source cannot be asked.
            ride.open =
                job.map_or(true, |job| job.is_some_and(|job| job.operation == JobOperation::MigrationOut));
        }
        ride.open
    }

    /// What stands when it cannot be told where the guest is, or will be, and what can be done about it.
    fn in_doubt(&self, journey: &Journey<'_>, ride: &Ride, why: &str, confirmed: &Confirmed) -> String {
        let (guest, from, to) = (journey.guest, &journey.from, self.to);
        let (source, target) = (&confirmed.source, &confirmed.target);
        let open = if ride.open { "; libvirt has not ended the migration, which may go on" } else { "" };
        format!(
            "{why}{open}. Before it began the guest was on {from}. Now on {from} it {source}; on {to} it {target}. `stor \
             migrate {guest} --to {to}` watches a migration that is under way to its end, `virsh domjobabort {guest}` on \
             {from} cancels it"
        )
    }

    /// What was wrong, in one sentence; stor's own decision comes before libvirt's words for it.
    fn why(&self, strategy: &Strategy, ride: &Ride) -> String {
        let deadline = humantime::format_duration(strategy.deadline);
        let taken = if ride.open && ride.aborted.is_some() && !ride.cancelled {
            ", which libvirt did not take up"
        } else {
            ""
        };
        match (ride.aborted, &ride.error) {
            (Some(AbortReason::Cancelled), _) => format!("cancelled by the user{taken}"),
            (Some(AbortReason::Deadline), _) => {
                format!("it did not end within {deadline} and was cancelled{taken}")
            }
            (Some(AbortReason::PausedTooLong), _) => {
                format!(
                    "it did not end within {deadline}, nor with the guest paused, and was cancelled{taken}"
                )
            }
            (None, Some(error)) => error.clone(),
            (None, None) => "libvirt reported success, but the hosts show otherwise".to_owned(),
        }
    }

    /// A guest that stor paused and that stayed runs again: only its own host holds it.
    fn resume(&self, journey: &Journey<'_>, strategy: &Strategy, ride: &Ride) -> Option<String> {
        if ride.paused_at.is_none() || strategy.arrival == Arrival::Paused {
            return None;
        }
        let resumed = self.site.connector.open(&journey.from).and_then(|source| {
            match source.domain(&journey.domain.uuid)?.map(|domain| domain.state) {
                Some(DomainState::Paused(_)) => source.resume_domain(&journey.domain.uuid),
                _ => Ok(()),
            }
        });
        resumed.err().map(|error| format!("the guest is still paused: {error}"))
    }

    /// Autostart moves with the guest; a definition that stayed behind goes, but never the only one.
    fn follow(&self, journey: &Journey<'_>, confirmed: &Confirmed) -> Vec<String> {
        let name = journey.domain.uuid.as_str();
        match self.is_persistent_there(name) {
            Ok(true) => {}
            Ok(false) => {
                let text = format!("{} runs the guest without a persistent definition of it", self.to);
                return vec![text];
            }
            Err(error) => return vec![error.to_string()],
        }
        if let Err(reason) = self.holds_locks() {
            return vec![reason];
        }
        let mut done: Vec<Result<(), LibvirtError>> = Vec::new();
        if journey.domain.autostart {
            done.push(self.site.connector.open(self.to).and_then(|target| target.set_autostart(name, true)));
        }
        if confirmed.source == Seen::Defined {
            let source = self.site.connector.open(&journey.from);
            done.push(source.and_then(|source| source.undefine_domain(name)));
        }
        done.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect()
    }

    /// Whether the destination has a persistent definition of the guest.
    fn is_persistent_there(&self, name: &str) -> Result<bool, LibvirtError> {
        let domain = self.site.connector.open(self.to)?.domain(name)?;
        Ok(domain.is_some_and(|domain| domain.persistent))
    }

    /// A guest found at the destination: an earlier run may have been killed before autostart followed.
    pub(super) fn settle_arrived(&self, guest: &GuestId, domain: &DomainFacts) -> Vec<String> {
        if !self.lacks_autostart(guest, domain) {
            return Vec::new();
        }
        if let Err(reason) = self.holds_locks() {
            return vec![reason];
        }
        let set =
            self.site.connector.open(self.to).and_then(|target| target.set_autostart(&domain.uuid, true));
        set.err().map(|error| error.to_string()).into_iter().collect()
    }

    /// Whether the file wants autostart of a guest that does not have it.
    pub(super) fn lacks_autostart(&self, guest: &GuestId, domain: &DomainFacts) -> bool {
        let wanted = self.site.cluster.guests.get(guest).is_some_and(|entry| match &entry.definition {
            GuestDefinition::Generated(shape) => shape.autostart == Autostart::On,
            GuestDefinition::Written { .. } => false,
        });
        wanted && !domain.autostart && domain.persistent
    }

    /// QEMU's own figures are at the destination: the source has forgotten the guest.
    fn figures(&self, journey: &Journey<'_>, ride: Ride, placement: Placement) -> (Figures, Option<String>) {
        let figures = Figures { total: ride.total, iterations: ride.iterations, ..Figures::default() };
        if placement != Placement::Moved {
            return (figures, None);
        }
        let target = self.site.connector.open(self.to);
        match target.and_then(|target| target.completed_job(&journey.domain.uuid)) {
            Ok(stats) => {
                let count = |read: fn(&JobStats) -> u64| stats.as_ref().map(read);
                let figures = Figures {
                    downtime: stats.as_ref().and_then(|stats| stats.downtime),
                    setup: stats.as_ref().and_then(|stats| stats.setup),
                    memory_transferred: count(|stats| stats.memory_processed),
                    passes: count(|stats| stats.iteration),
                    disk_copied: count(|stats| stats.disk_processed),
                    ..figures
                };
                (figures, None)
            }
            Err(error) => (figures, Some(error.to_string())),
        }
    }

    pub(super) fn receipt(&self, started: SystemTime, outcome: &mut Outcome) {
        match receipt::write(&self.options.receipts, &self.site.cluster.name, started, outcome) {
            Ok(path) => outcome.receipt = Some(path),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                outcome.notes.push(format!("{error}{}", cause.unwrap_or_default()));
            }
        }
    }
}
