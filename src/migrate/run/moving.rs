//! One migration under way: begun or attached to, watched, and cancelled when that was decided.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::{Journey, MigrateEvent, Run, since};
use crate::libvirt::{Hypervisor, JobOperation, LibvirtError, MigrationRequest, uri};
use crate::migrate::monitor::{AbortReason, Decision, Watch, decide};
use crate::migrate::progress::{Meter, Progress};
use crate::migrate::strategy::{Arrival, Strategy};

/// What came of a migration, as far as its call and its watcher know; where the guest is, the hosts say.
#[derive(Debug, Default)]
pub(super) struct Ride {
    /// libvirt's error, if it reported one.
    pub error: Option<String>,
    /// Why stor cancelled it, if it did.
    pub aborted: Option<AbortReason>,
    /// Time since it began at which stor paused the guest, if it did.
    pub paused_at: Option<Duration>,
    /// The last sample of each iteration.
    pub iterations: Vec<Progress>,
    /// Time that it took.
    pub total: Duration,
    /// What went wrong besides.
    pub notes: Vec<String>,
}

/// How the end of a migration is noticed.
enum End {
    /// The call that this process made returns.
    Call(Receiver<Result<(), LibvirtError>>),
    /// Somebody else's job is no longer under way.
    Job,
}

pub(super) fn request(run: &Run<'_>, journey: &Journey<'_>, strategy: &Strategy) -> MigrationRequest {
    MigrationRequest {
        domain: journey.guest.to_string(),
        destination: uri::peer(&run.site.cluster.name, &journey.address),
        stream: uri::stream(&journey.address),
        bandwidth: strategy.bandwidth,
        destination_xml: None,
        max_downtime: strategy.max_downtime,
        paused: strategy.arrival == Arrival::Paused,
        post_copy: false,
    }
}

impl Run<'_> {
    /// Begins a migration and watches it to its end.
    pub(super) fn ride(&self, journey: &Journey<'_>, strategy: &Strategy) -> Ride {
        let source = match self.site.connector.open(&journey.from) {
            Ok(source) => source,
            Err(error) => return Ride { error: Some(error.to_string()), ..Ride::default() },
        };
        let request = request(self, journey, strategy);
        let (sender, receiver) = mpsc::channel();
        let caller = Arc::clone(&source);
        // Detached, not scoped: while a link is down the call may outlast everybody's patience.
        let call = move || drop(sender.send(caller.migrate(&request)));
        let thread = std::thread::Builder::new().name(format!("migrate {}", journey.guest));
        if let Err(error) = thread.spawn(call) {
            return Ride { error: Some(error.to_string()), ..Ride::default() };
        }
        self.watch(journey, strategy, &*source, &End::Call(receiver))
    }

    /// Watches a migration that somebody else began, to its end.
    pub(super) fn ride_along(&self, journey: &Journey<'_>, strategy: &Strategy) -> Ride {
        match self.site.connector.open(&journey.from) {
            Ok(source) => self.watch(journey, strategy, &*source, &End::Job),
            Err(error) => Ride { error: Some(error.to_string()), ..Ride::default() },
        }
    }

    fn watch(&self, journey: &Journey<'_>, strategy: &Strategy, source: &dyn Hypervisor, end: &End) -> Ride {
        let begin = Instant::now();
        let mut ride = Ride::default();
        let mut meter = Meter::default();
        let mut aborted_at: Option<Duration> = None;
        let mut tuned = false;
        loop {
            if let End::Call(receiver) = end {
                match receiver.recv_timeout(self.options.pace.poll) {
                    Ok(Ok(())) => break,
                    Ok(Err(error)) => {
                        ride.error = Some(error.to_string());
                        break;
                    }
                    Err(RecvTimeoutError::Disconnected) => {
                        ride.error = Some("the migration's thread ended without a result".to_owned());
                        break;
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                }
            } else {
                std::thread::sleep(self.options.pace.poll);
            }
            match source.job(journey.guest.as_str()) {
                Ok(Some(stats)) if stats.operation == JobOperation::MigrationOut => {
                    if !tuned && matches!(end, End::Call(_)) {
                        // QEMU takes it only while a migration is under way.
                        let set = source.set_max_downtime(journey.guest.as_str(), strategy.max_downtime);
                        ride.note(set);
                        tuned = true;
                    }
                    // libvirt counts nothing before QEMU has begun to copy.
                    if stats.memory_total > 0 {
                        let progress = meter.sample(&stats, since(begin));
                        ride.keep(&progress);
                        (self.events)(MigrateEvent::Progressed(journey.guest.clone(), progress));
                    }
                }
                Ok(_) if matches!(end, End::Job) => break,
                Ok(_) => {}
                Err(error) => ride.note(Err(error)),
            }
            match aborted_at {
                Some(at) if since(begin) >= at + self.options.pace.abort => {
                    ride.error = Some("the migration was cancelled, and its call does not end".to_owned());
                    break;
                }
                Some(_) => {}
                None => aborted_at = self.control(journey, strategy, source, begin, &mut ride),
            }
        }
        ride.total = since(begin);
        ride
    }

    /// Does what was decided; the time at which the migration was cancelled, if it now was.
    fn control(
        &self,
        journey: &Journey<'_>,
        strategy: &Strategy,
        source: &dyn Hypervisor,
        begin: Instant,
        ride: &mut Ride,
    ) -> Option<Duration> {
        let elapsed = since(begin);
        let watch = Watch { elapsed, paused_at: ride.paused_at, cancelled: self.cancel.is_cancelled() };
        match decide(strategy, watch) {
            Decision::Wait => None,
            Decision::Pause => {
                (self.events)(MigrateEvent::Paused(journey.guest.clone()));
                ride.note(source.suspend_domain(journey.guest.as_str()));
                ride.paused_at = Some(elapsed);
                None
            }
            Decision::Abort(reason) => {
                if ride.aborted.replace(reason).is_none() {
                    (self.events)(MigrateEvent::Aborting(journey.guest.clone(), reason));
                }
                match source.abort_job(journey.guest.as_str()) {
                    Ok(()) => Some(elapsed),
                    Err(error) => {
                        // There may be no job yet, or no longer; it is tried again at the next poll.
                        ride.note(Err(error));
                        let patience = strategy.deadline.max(self.options.pace.abort);
                        (elapsed >= patience.saturating_mul(2)).then_some(elapsed)
                    }
                }
            }
        }
    }
}

impl Ride {
    /// Notes an error once.
    fn note(&mut self, result: Result<(), LibvirtError>) {
        if let Err(error) = result {
            let text = error.to_string();
            if !self.notes.contains(&text) {
                self.notes.push(text);
            }
        }
    }

    fn keep(&mut self, progress: &Progress) {
        match self.iterations.last_mut() {
            Some(last) if last.iteration == progress.iteration => *last = progress.clone(),
            _ => self.iterations.push(progress.clone()),
        }
    }
}
