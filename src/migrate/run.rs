//! The shell around moving guests: asks the hosts, lets the pure parts decide, does what they decided.
//!
//! Imports the rest of `migrate`, `libvirt`, `host`, `spec` and `model`. Several guests move at once, within the
//! policy's limits. libvirt's migration runs between the two hosts' daemons: when stor dies, it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::Site;
use super::confirm::{Placement, Seen};
use super::facts::{HostFacts, Known};
use super::locate::{self, Located, locate};
use super::monitor::AbortReason;
use super::outcome::{Outcome, Verdict};
use super::preflight::{GuestFacts, preflight, refusals};
use super::progress::Progress;
use super::strategy::{self, Strategy};
use crate::host::claim::Locks;
use crate::host::{Holder, HostError, LockKind};
use crate::libvirt::{DomainFacts, JobOperation, domain_xml};
use crate::model::{
    Cancel, Command, Finding, FindingCode, GuestId, HostId, Query, ResourceId, ResourceKind, Severity, chain,
};
use crate::spec::MigrationPolicy;

mod ask;
pub mod cold;
mod moving;
mod settle;

pub(super) use ask::{domain_everywhere, strangers};

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only preflight.
    DryRun,
    /// Preflight, and the move if nothing speaks against it.
    Move,
}

/// How patient the shell is; tests shorten it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Time between two looks at a job.
    pub poll: Duration,
    /// Time that both hosts get to show one clear placement after a migration ended.
    pub confirm: Duration,
    /// Time that libvirt gets to end a migration that was cancelled. Daemons give each other up after 30 s.
    pub abort: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { poll: Duration::from_millis(150), confirm: seconds(30), abort: seconds(45) }
    }
}

/// What the user wants of a migration.
#[derive(Debug, Clone)]
pub struct Options {
    /// How far to go.
    pub mode: Mode,
    /// Warnings that the user allows.
    pub allow: BTreeSet<FindingCode>,
    /// The policy of the cluster file, or what the command line made of it.
    pub policy: MigrationPolicy,
    /// An address of the guest to measure its pause from here.
    pub ping: Option<IpAddr>,
    /// Who asks for the hosts' locks; a live move shares them with other live moves.
    pub holder: Holder,
    /// Where receipts go; see [`super::receipt::directory`].
    pub receipts: PathBuf,
    /// How patient to be.
    pub pace: Pace,
    /// The clock for time stamps.
    pub clock: fn() -> SystemTime,
}

/// What happens, for whoever shows it. Every kind names its guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MigrateEvent {
    /// It was found on a host.
    Located(GuestId, HostId),
    /// Preflight is over.
    Checked(GuestId, Vec<Finding>),
    /// It begins to move.
    Began(GuestId, HostId, HostId),
    /// A migration that was already under way is watched from here on.
    Attached(GuestId, HostId, HostId),
    /// It moves.
    Progressed(GuestId, Progress),
    /// stor paused it at the deadline.
    Paused(GuestId),
    /// It is being shut down on its host.
    Stopping(GuestId, HostId),
    /// stor cancels the move.
    Aborting(GuestId, AbortReason),
    /// libvirt says that it ended; both hosts are asked.
    Confirming(GuestId),
    /// It is over.
    Ended(Box<Outcome>),
}

/// Moves guests to a host and says where each of them is afterwards, in the order in which they were named.
pub fn migrate(
    site: Site<'_>,
    guests: &[GuestId],
    to: &HostId,
    options: &Options,
    cancel: &Cancel,
    events: &(dyn Fn(MigrateEvent) + Sync),
) -> Vec<Outcome> {
    let run = Run { site, to, options, cancel, events, locks: Mutex::default() };
    // All of them go to one host, so both limits bound the same number.
    let limit = options.policy.per_host.min(options.policy.per_cluster).max(1);
    let workers = usize::try_from(limit).unwrap_or(1).min(guests.len());
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(guest) = guests.get(index) else { break };
                    let outcome = run.one(guest);
                    events(MigrateEvent::Ended(Box::new(outcome.clone())));
                    done.lock().unwrap_or_else(PoisonError::into_inner).insert(index, outcome);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

/// One call of [`migrate`].
struct Run<'a> {
    site: Site<'a>,
    to: &'a HostId,
    options: &'a Options,
    cancel: &'a Cancel,
    events: &'a (dyn Fn(MigrateEvent) + Sync),
    /// The locks that it holds, each until the last of its guests has moved.
    locks: Mutex<Locks>,
}

/// What every hypervisor showed of a guest.
type Sightings = BTreeMap<HostId, Known<Option<DomainFacts>>>;

/// A guest between two hosts.
struct Journey<'a> {
    guest: &'a GuestId,
    from: HostId,
    domain: DomainFacts,
    address: String,
}

impl Run<'_> {
    fn one(&self, guest: &GuestId) -> Outcome {
        let mut seen = self.look(guest);
        let outcome = |verdict| Outcome::new(guest, self.to, verdict);
        let Some(host) = self.site.cluster.hypervisors().find(|host| host.id == *self.to) else {
            return outcome(Verdict::Unreachable(format!("{} is no hypervisor of this cluster", self.to)));
        };
        if self.options.mode == Mode::Move
            && let Some(between) = self.changes(guest, &locate(&seen, self.to))
        {
            match self.claimed(guest, &between) {
                Ok(now) => seen = now,
                Err(outcome) => return *outcome,
            }
        }
        let mut outcome = match locate(&seen, self.to) {
            Located::At(from, domain) => {
                (self.events)(MigrateEvent::Located(guest.clone(), from.clone()));
                let journey = Journey { guest, from, domain: *domain, address: host.address.clone() };
                return self.travel(&journey);
            }
            Located::There(domain) => {
                let mut outcome = outcome(Verdict::AlreadyThere);
                outcome.from = Some(self.to.clone());
                if self.options.mode == Mode::Move {
                    outcome.notes = self.settle_arrived(guest, &domain);
                }
                outcome
            }
            Located::NotRunning(hosts) => {
                let mut outcome = outcome(Verdict::Refused);
                outcome.findings.push(not_running(self.site, guest, &hosts));
                outcome
            }
            Located::Unknown(reason) => outcome(Verdict::Unreachable(reason)),
            Located::OnSeveral(hosts) => {
                let reason = format!("the guest is active on {}", names(&hosts));
                outcome(Verdict::Unplaced { placement: Placement::OnBoth, reason })
            }
            Located::InTransit(hosts) => {
                let reason = format!("a migration holds the guest on {}", names(&hosts));
                outcome(Verdict::Unplaced { placement: Placement::Unknown, reason })
            }
        };
        outcome.seen = shown(seen);
        outcome
    }

    /// The hosts that a live move of a guest changes, from where it was located; `None` when it changes nothing.
    fn changes(&self, guest: &GuestId, located: &Located) -> Option<BTreeSet<HostId>> {
        match located {
            Located::At(from, _) => Some(BTreeSet::from([from.clone(), self.to.clone()])),
            Located::There(domain) if self.lacks_autostart(guest, domain) => {
                Some(BTreeSet::from([self.to.clone()]))
            }
            Located::There(_)
            | Located::NotRunning(_)
            | Located::OnSeveral(_)
            | Located::InTransit(_)
            | Located::Unknown(_) => None,
        }
    }

    /// Takes the locks of the hosts between which a guest moves, and looks at it again: whoever had them before may have moved it.
    fn claimed(&self, guest: &GuestId, between: &BTreeSet<HostId>) -> Result<Sightings, Box<Outcome>> {
        let outcome = |verdict| Box::new(Outcome::new(guest, self.to, verdict));
        self.lock(LockKind::Shared, between).map_err(|errors| {
            let mut outcome = outcome(Verdict::Unreachable(told(&errors)));
            let silent = errors.iter().filter(|error| !matches!(error, HostError::Busy { .. }));
            let subject = ResourceId::new(ResourceKind::Guest, guest);
            let unobserved = |error: &HostError| {
                Finding::new(Severity::Error, FindingCode::HostUnobserved, subject.clone(), chain(error))
                    .remedy("ssh to the host must work, and flock(1) there")
            };
            outcome.findings.extend(silent.map(unobserved));
            outcome
        })?;
        let seen = self.look(guest);
        let now = self.changes(guest, &locate(&seen, self.to)).unwrap_or_default();
        match now.difference(between).next() {
            Some(elsewhere) => {
                Err(outcome(Verdict::Stayed(format!("it was moved to {elsewhere} meanwhile"))))
            }
            None => Ok(seen),
        }
    }

    /// Takes the locks of these hosts, unless this run has them; they are held until [`Locks::release`].
    fn lock<'h>(
        &self,
        kind: LockKind,
        hosts: impl IntoIterator<Item = &'h HostId>,
    ) -> Result<(), Vec<HostError>> {
        let holder = Holder { kind, ..self.options.holder.clone() };
        let ask = |host: &HostId| (host.clone(), vec![Query::new(Command::new("true"))]);
        let batches = hosts.into_iter().map(ask).collect();
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = locks.take(self.site.fleet, &holder, &batches)?;
        let failed: Vec<HostError> = taken.into_values().filter_map(Result::err).collect();
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }

    /// Proves that this run still holds its locks; asked before whatever changes something through libvirt.
    fn holds_locks(&self) -> Result<(), String> {
        self.locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .prove(self.site.fleet)
            .map_err(|lost| told(&lost))
    }

    /// Asks all hypervisors for a guest; at the end of a migration, when it is active nowhere, again until it is. One that
    /// nobody has is asked for once more: it may have passed from one host to the other between two answers.
    fn look(&self, guest: &GuestId) -> Sightings {
        let begin = Instant::now();
        let mut missed = false;
        loop {
            let seen = domain_everywhere(self.site, guest);
            let settled = match locate(&seen, self.to) {
                Located::InTransit(_) => false,
                Located::NotRunning(_) => std::mem::replace(&mut missed, true),
                _ => true,
            };
            if settled || self.cancel.is_cancelled() || since(begin) >= self.options.pace.confirm {
                return seen;
            }
            std::thread::sleep(self.options.pace.poll);
        }
    }

    /// Checks and, if nothing forbids it, moves a guest that runs at `journey.from`.
    fn travel(&self, journey: &Journey<'_>) -> Outcome {
        let mut outcome = Outcome::new(journey.guest, self.to, Verdict::Refused);
        outcome.from = Some(journey.from.clone());
        outcome.allowed = self.options.allow.iter().copied().collect();
        let (from, to) = match self.facts(journey) {
            Ok(facts) => facts,
            Err(finding) => {
                outcome.verdict = Verdict::Unreachable(finding.message.clone());
                outcome.findings.push(*finding);
                return outcome;
            }
        };
        if self.options.mode == Mode::Move && under_way(journey, &from, &to) {
            return self.attach(journey, outcome);
        }
        let strategy = match self.check(journey, &from, &to, &mut outcome) {
            Some(strategy) if self.options.mode == Mode::Move => strategy,
            Some(_) => {
                outcome.verdict = Verdict::Ready;
                return outcome;
            }
            None => return outcome,
        };
        if self.cancel.is_cancelled() {
            outcome.verdict = Verdict::Stayed("cancelled before it began".to_owned());
            return outcome;
        }
        self.depart(journey, strategy, outcome)
    }

    /// Runs preflight; the strategy when nothing forbids the move.
    fn check(
        &self,
        journey: &Journey<'_>,
        from: &HostFacts,
        to: &HostFacts,
        outcome: &mut Outcome,
    ) -> Option<Strategy> {
        let (id, domain) = (journey.guest.clone(), journey.domain.clone());
        let subject = ResourceId::new(ResourceKind::Guest, journey.guest);
        let refuse = |code, text: String| Finding::new(Severity::Error, code, subject, text);
        let renamed = locate::renamed(journey.guest, &journey.from, &domain);
        let strategy = match domain_xml::read(&domain.xml) {
            Ok(summary) => {
                let guest = GuestFacts { id, domain, summary };
                outcome.findings = preflight(&guest, from, to, self.site.cluster);
                outcome.findings.extend(renamed);
                match strategy::choose(journey.domain.state, &self.options.policy) {
                    Ok(strategy) => Some(strategy),
                    Err(error) => {
                        let finding = refuse(FindingCode::NotApplicable, error.to_string());
                        outcome.findings.push(finding.remedy(error.hint()));
                        None
                    }
                }
            }
            Err(error) => {
                outcome.findings.push(refuse(FindingCode::GuestNotDefined, error.to_string()));
                None
            }
        };
        (self.events)(MigrateEvent::Checked(journey.guest.clone(), outcome.findings.clone()));
        strategy.filter(|_| refusals(&outcome.findings, &self.options.allow).is_empty())
    }
}

/// What each hypervisor showed of a guest of this name.
fn shown(seen: BTreeMap<HostId, Known<Option<DomainFacts>>>) -> BTreeMap<HostId, Seen> {
    seen.into_iter()
        .map(|(host, answer)| {
            let uuid =
                answer.as_ref().ok().and_then(|found| found.as_ref()).map(|domain| domain.uuid.clone());
            let answer = answer.as_ref().map(Option::as_ref).map_err(Clone::clone);
            (host, Seen::of(answer, &uuid.unwrap_or_default()))
        })
        .collect()
}

/// Whether the guest is already on its way from its host to the destination.
fn under_way(journey: &Journey<'_>, from: &HostFacts, to: &HostFacts) -> bool {
    let leaves = from.job.as_ref().is_some_and(|job| job.operation == JobOperation::MigrationOut);
    let comes = to.domains.iter().find(|domain| domain.uuid == journey.domain.uuid);
    leaves && comes.is_some_and(|domain| Seen::of(Ok(Some(domain)), &domain.uuid) == Seen::InTransit)
}

fn not_running(site: Site<'_>, guest: &GuestId, defined: &[HostId]) -> Finding {
    let subject = ResourceId::new(ResourceKind::Guest, guest);
    if defined.is_empty() {
        let others = strangers(site, guest);
        let code = if others.is_empty() { FindingCode::GuestNotDefined } else { FindingCode::NameClash };
        let uuid = site.cluster.guest_uuid(guest);
        let message = format!("no hypervisor has the guest, whose UUID is {uuid}");
        let finding = Finding::new(Severity::Error, code, subject, message);
        let remedy = match others.first() {
            None => "declare it in the cluster file and run `stor apply`".to_owned(),
            Some((_, other)) => locate::other_of_this_name(&other.uuid),
        };
        let evidence = |finding: Finding, (host, other): &(HostId, DomainFacts)| {
            finding
                .evidence(format!("host {host}: {} has UUID {}, {:?}", other.name, other.uuid, other.state))
        };
        return others.iter().fold(finding, evidence).remedy(remedy);
    }
    let message = format!("the guest is defined on {} and does not run", names(defined));
    Finding::new(Severity::Error, FindingCode::GuestNotRunning, subject, message)
        .remedy(format!("start it first: `stor start {guest}`"))
}

fn told(errors: &[HostError]) -> String {
    errors.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; ")
}

fn names(hosts: &[HostId]) -> String {
    hosts.iter().map(HostId::as_str).collect::<Vec<_>>().join(" and ")
}

/// Time since an instant, without the nanoseconds that nobody reads.
fn since(begin: Instant) -> Duration {
    Duration::from_millis(u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX))
}
