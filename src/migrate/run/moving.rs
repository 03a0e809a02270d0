//! One migration under way: begun or attached to, watched, and cancelled when that was decided.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::{Journey, MigrateEvent, Run, since};
use crate::libvirt::{Hypervisor, JobOperation, JobStats, LibvirtError, MigrationRequest, uri};
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
    /// Time since it began at which it was first asked to end, and then at which libvirt had taken that up.
    aborted_at: Duration,
    /// Whether libvirt took it up.
    pub cancelled: bool,
    /// Whether stor no longer watches although the migration has not ended.
    pub open: bool,
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
        domain: journey.domain.uuid.clone(),
        destination: uri::peer(&run.site.cluster.name, &journey.address),
        stream: uri::stream(&journey.address),
        bandwidth: strategy.bandwidth,
        destination_xml: None,
        max_downtime: strategy.max_downtime,
        paused: strategy.arrival == Arrival::Paused,
        post_copy: false,
    }
}

/// A call in a thread of its own, whose caller goes on meanwhile: the deadline of a move, and Ctrl-C, do not wait for it.
struct Pending<T>(Option<Receiver<T>>);

impl<T: Send + 'static> Pending<T> {
    const NONE: Self = Self(None);

    /// Begins a call, unless the one before has not ended.
    fn begin(
        &mut self,
        source: &Arc<dyn Hypervisor>,
        call: impl FnOnce(&dyn Hypervisor) -> T + Send + 'static,
    ) {
        if self.0.is_some() {
            return;
        }
        let (sender, receiver) = mpsc::channel();
        let source = Arc::clone(source);
        // Nobody may listen any more once it ends. A thread that cannot be started drops its end.
        let work = move || drop(sender.send(call(&*source)));
        if let Err(error) = std::thread::Builder::new().name("watch".to_owned()).spawn(work) {
            tracing::warn!(%error, "cannot start a thread");
        }
        self.0 = Some(receiver);
    }

    /// The call's result, once.
    fn ended(&mut self, within: Duration) -> Option<T> {
        match self.0.as_ref()?.recv_timeout(within) {
            Err(RecvTimeoutError::Timeout) => None,
            ended => {
                self.0 = None;
                ended.ok()
            }
        }
    }

    fn is_under_way(&self) -> bool {
        self.0.is_some()
    }
}

/// The calls about a migration under way.
struct Calls {
    job: Pending<Result<Option<JobStats>, LibvirtError>>,
    tune: Pending<Result<(), LibvirtError>>,
    pause: Pending<Result<(), LibvirtError>>,
    abort: Pending<Result<(), LibvirtError>>,
}

impl Run<'_> {
    /// Begins a migration and watches it to its end.
    pub(super) fn ride(&self, journey: &Journey<'_>, strategy: &Strategy) -> Ride {
        let source = match self.site.connector.open(&journey.from) {
            Ok(source) => source,
            Err(error) => return Ride { error: Some(error.to_string()), ..Ride::default() },
        };
        if let Err(reason) = self.holds_locks() {
            return Ride { error: Some(reason), ..Ride::default() };
        }
        let request = request(self, journey, strategy);
        let (sender, receiver) = mpsc::channel();
        let caller = Arc::clone(&source);
        // Detached, not scoped: while a link is down the call may outlast everybody's patience.
        let call = move || drop(sender.send(caller.migrate(&request)));
        let thread = std::thread::Builder::new().name(format!("migrate {}", journey.guest));
        if let Err(error) = thread.spawn(call) {
            return Ride { error: Some(error.to_string()), ..Ride::default() };
        }
        self.watch(journey, strategy, &source, &End::Call(receiver))
    }

    /// Watches a migration that somebody else began, to its end.
    pub(super) fn ride_along(&self, journey: &Journey<'_>, strategy: &Strategy) -> Ride {
        match self.site.connector.open(&journey.from) {
            Ok(source) => self.watch(journey, strategy, &source, &End::Job),
            Err(error) => Ride { error: Some(error.to_string()), open: true, ..Ride::default() },
        }
    }

    fn watch(
        &self,
        journey: &Journey<'_>,
        strategy: &Strategy,
        source: &Arc<dyn Hypervisor>,
        end: &End,
    ) -> Ride {
        let begin = Instant::now();
        let mut ride = Ride::default();
        let mut meter = Meter::default();
        let mut calls =
            Calls { job: Pending::NONE, tune: Pending::NONE, pause: Pending::NONE, abort: Pending::NONE };
        let mut tuned = false;
        loop {
            match end.reached(self.options.pace.poll) {
                Some(Ok(())) => break,
                Some(Err(reason)) => {
                    ride.error = Some(reason);
                    break;
                }
                None => {}
            }
            let guest = journey.domain.uuid.clone();
            calls.job.begin(source, move |source| source.job(&guest));
            match calls.job.ended(self.options.pace.poll) {
                Some(Ok(Some(stats))) if stats.operation == JobOperation::MigrationOut => {
                    if !tuned && matches!(end, End::Call(_)) {
                        // QEMU takes it only while a migration is under way.
                        let (guest, downtime) = (journey.domain.uuid.clone(), strategy.max_downtime);
                        calls.tune.begin(source, move |source| source.set_max_downtime(&guest, downtime));
                        tuned = true;
                    }
                    // libvirt counts nothing before QEMU has begun to copy.
                    if stats.memory_total > 0 {
                        let progress = meter.sample(&stats, since(begin));
                        ride.keep(&progress);
                        (self.events)(MigrateEvent::Progressed(journey.guest.clone(), progress));
                    }
                }
                Some(Ok(_)) if matches!(end, End::Job) => break,
                Some(Ok(_)) | None => {}
                Some(Err(error)) => ride.note(Err(error)),
            }
            self.control(journey, strategy, (source, &mut calls), begin, &mut ride);
            if ride.is_given_up(since(begin), self.options.pace.abort) || self.cancel.is_abandoned() {
                ride.open = true;
                break;
            }
        }
        ride.total = since(begin);
        ride
    }

    /// Does what was decided, and takes note of what came of it.
    fn control(
        &self,
        journey: &Journey<'_>,
        strategy: &Strategy,
        (source, calls): (&Arc<dyn Hypervisor>, &mut Calls),
        begin: Instant,
        ride: &mut Ride,
    ) {
        let elapsed = since(begin);
        let name = journey.domain.uuid.clone();
        if calls.tune.is_under_way() {
            ride.heard(calls.tune.ended(self.options.pace.poll));
        }
        ride.heard(calls.pause.ended(Duration::ZERO));
        let watch = Watch { elapsed, paused_at: ride.paused_at, cancelled: self.cancel.is_cancelled() };
        match decide(strategy, watch) {
            Decision::Wait => {}
            Decision::Pause => {
                (self.events)(MigrateEvent::Paused(journey.guest.clone()));
                calls.pause.begin(source, move |source| source.suspend_domain(&name));
                ride.heard(calls.pause.ended(self.options.pace.poll));
                ride.paused_at = Some(elapsed);
            }
            Decision::Abort(reason) => {
                if ride.aborted.replace(reason).is_none() {
                    (self.events)(MigrateEvent::Aborting(journey.guest.clone(), reason));
                    ride.aborted_at = elapsed;
                }
                if ride.cancelled {
                    return;
                }
                calls.abort.begin(source, move |source| source.abort_job(&name));
                match calls.abort.ended(self.options.pace.poll) {
                    Some(Ok(())) => (ride.cancelled, ride.aborted_at) = (true, elapsed),
                    // There may be no job yet, or no longer; it is tried again at the next poll.
                    Some(Err(error)) => ride.note(Err(error)),
                    None => {}
                }
            }
        }
    }
}

impl End {
    /// Waits for the end, as long as a poll takes.
    fn reached(&self, poll: Duration) -> Option<Result<(), String>> {
        let Self::Call(receiver) = self else {
            std::thread::sleep(poll);
            return None;
        };
        match receiver.recv_timeout(poll) {
            Ok(result) => Some(result.map_err(|error| error.to_string())),
            Err(RecvTimeoutError::Disconnected) => {
                Some(Err("the migration's thread ended without a result".to_owned()))
            }
            Err(RecvTimeoutError::Timeout) => None,
        }
    }
}

impl Ride {
    /// Whether a migration that was asked to end has had its time.
    fn is_given_up(&self, elapsed: Duration, patience: Duration) -> bool {
        self.aborted.is_some() && elapsed >= self.aborted_at + patience
    }

    /// Notes the error of a call that has ended.
    fn heard(&mut self, answer: Option<Result<(), LibvirtError>>) {
        if let Some(result) = answer {
            self.note(result);
        }
    }

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
