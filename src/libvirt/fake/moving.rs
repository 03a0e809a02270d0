//! Migrations of fake guests, with the ending that a test chose.

use super::*;

/// A test must not hang when the code under test never polls or aborts.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a migration ends, each as seen with real hosts (LAB.md, "Faults").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The guest moves.
    Moves,
    /// The guest moves, and its definition stays behind as well.
    LeavesDefinition,
    /// libvirt refuses or gives up; the guest runs on at the source.
    Fails(String),
    /// libvirt reports an error, but the guest moved.
    ReportsErrorButMoves(String),
    /// libvirt reports success, but the guest stayed.
    ReportsSuccessButStays,
    /// The guest runs on both hosts afterwards.
    RunsOnBoth(String),
    /// The guest runs nowhere afterwards.
    RunsNowhere(String),
    /// The destination can no longer be reached; the guest runs on at the source.
    DestinationLost(String),
    /// The source can no longer be reached; the guest runs at the destination.
    SourceLost(String),
    /// It copies and copies until the job is cancelled, or until the guest is paused, and then it moves.
    NeverConverges,
    /// The call does not return although the job was cancelled, as with a broken link.
    IgnoresAbort,
}

/// How a migration goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Its ending.
    pub ending: Ending,
    /// What job polls see, one after the other; it ends no sooner than all were seen.
    pub stats: Vec<JobStats>,
}

impl Script {
    /// A migration that ends at once.
    #[must_use]
    pub fn ending(ending: Ending) -> Self {
        Self { ending, stats: Vec::new() }
    }
}

/// A migration under way.
#[derive(Debug, Default)]
pub(super) struct Job {
    stats: VecDeque<JobStats>,
    last: JobStats,
    cancelled: bool,
}

impl FakeHypervisor {
    fn key(&self, domain: &str) -> (HostId, String) {
        (self.host.clone(), domain.to_owned())
    }

    pub(super) fn poll_job(&self, domain: &str) -> Option<JobStats> {
        let mut state = self.shared.lock();
        let job = state.jobs.get_mut(&self.key(domain))?;
        if let Some(next) = job.stats.pop_front() {
            job.last = next;
            self.shared.changed.notify_all();
        }
        Some(job.last.clone())
    }

    pub(super) fn cancel_job(&self, domain: &str) -> Result<(), LibvirtError> {
        let key = self.key(domain);
        self.wait_while_stalled(&format!("abort the job of guest {domain}"));
        let mut state = self.shared.lock();
        state.calls.push(format!("{}: abort the job of guest {domain}", self.host));
        let Some(job) = state.jobs.get_mut(&key) else {
            let reason = "no job is active on the domain".to_owned();
            return Err(self.refused("cancel the job", code::OPERATION_INVALID, reason));
        };
        job.cancelled = true;
        self.shared.changed.notify_all();
        Ok(())
    }

    pub(super) fn move_guest(&self, asked: &MigrationRequest) -> Result<(), LibvirtError> {
        let request = &MigrationRequest { domain: self.named(&asked.domain), ..asked.clone() };
        let name = request.domain.as_str();
        let action = format!("migrate guest {name}");
        let script = self.begin(request, &action)?;
        self.shared.lock().requests.push(asked.clone());
        let ended = self.wait(name, &script.ending);
        let mut state = self.shared.lock();
        state.jobs.remove(&self.key(name));
        let target = destination(&state, request).ok_or_else(|| {
            self.refused(&action, code::OPERATION_FAILED, "the destination is unknown".to_owned())
        })?;
        let fail = |reason: &String| Err(self.refused(&action, code::OPERATION_FAILED, reason.clone()));
        if ended == Waited::Cancelled {
            return fail(&"operation aborted: migration out job: canceled by client".to_owned());
        }
        match &script.ending {
            Ending::Moves | Ending::NeverConverges => {
                arrive(&mut state, &self.host, &target, request);
                depart(&mut state, &self.host, name);
                Ok(())
            }
            Ending::LeavesDefinition => {
                arrive(&mut state, &self.host, &target, request);
                let left = state.daemons.get_mut(&self.host).and_then(|daemon| daemon.domains.get_mut(name));
                if let Some(domain) = left {
                    domain.state = DomainState::ShutOff;
                }
                Ok(())
            }
            Ending::Fails(reason) => fail(reason),
            Ending::IgnoresAbort => fail(&"the link came back".to_owned()),
            Ending::ReportsErrorButMoves(reason) => {
                arrive(&mut state, &self.host, &target, request);
                depart(&mut state, &self.host, name);
                fail(reason)
            }
            Ending::ReportsSuccessButStays => Ok(()),
            Ending::RunsOnBoth(reason) => {
                arrive(&mut state, &self.host, &target, request);
                fail(reason)
            }
            Ending::RunsNowhere(reason) => {
                depart(&mut state, &self.host, name);
                fail(reason)
            }
            Ending::DestinationLost(reason) => {
                lose(&mut state, &target);
                fail(reason)
            }
            Ending::SourceLost(reason) => {
                arrive(&mut state, &self.host, &target, request);
                lose(&mut state, &self.host);
                fail(reason)
            }
        }
    }

    fn begin(&self, request: &MigrationRequest, action: &str) -> Result<Script, LibvirtError> {
        let name = &request.domain;
        self.change(action, |daemon| match daemon.domains.get(name) {
            Some(domain) if domain.state.is_active() => Ok(()),
            _ => Err((code::OPERATION_INVALID, "domain is not running".to_owned())),
        })?;
        let mut state = self.shared.lock();
        let key = self.key(name);
        if state.jobs.contains_key(&key) {
            let reason = "another migration job is already running for domain".to_owned();
            return Err(self.refused(action, code::OPERATION_INVALID, reason));
        }
        let script = state.scripts.get_mut(name).and_then(VecDeque::pop_front);
        let script = script.unwrap_or_else(|| Script::ending(Ending::Moves));
        let last = JobStats { operation: JobOperation::MigrationOut, ..JobStats::default() };
        state.jobs.insert(key, Job { stats: script.stats.clone().into(), last, cancelled: false });
        Ok(script)
    }

    fn wait(&self, name: &str, ending: &Ending) -> Waited {
        let key = self.key(name);
        let state = self.shared.lock();
        let going_on = |state: &mut State| {
            let Some(job) = state.jobs.get(&key) else { return false };
            let paused = state
                .daemons
                .get(&self.host)
                .and_then(|daemon| daemon.domains.get(name))
                .is_some_and(|domain| matches!(domain.state, DomainState::Paused(_)));
            match ending {
                Ending::IgnoresAbort => true,
                Ending::NeverConverges => !job.cancelled && !paused,
                _ => !job.cancelled && !job.stats.is_empty(),
            }
        };
        let (state, _timeout) = self
            .shared
            .changed
            .wait_timeout_while(state, PATIENCE, going_on)
            .unwrap_or_else(PoisonError::into_inner);
        match state.jobs.get(&key) {
            Some(job) if job.cancelled => Waited::Cancelled,
            _ => Waited::Ended,
        }
    }
}

#[derive(PartialEq, Eq)]
enum Waited {
    Ended,
    Cancelled,
}

/// The host that a request's URI leads to.
fn destination(state: &State, request: &MigrationRequest) -> Option<HostId> {
    let leads = |address: &str| request.stream == super::super::uri::stream(address);
    state.daemons.iter().find(|(_, daemon)| leads(&daemon.address)).map(|(host, _)| host.clone())
}

fn arrive(state: &mut State, source: &HostId, target: &HostId, request: &MigrationRequest) {
    let found = state.daemons.get(source).and_then(|daemon| daemon.domains.get(&request.domain));
    let Some(mut domain) = found.cloned() else { return };
    domain.autostart = false;
    domain.persistent = true;
    // A guest that was paused during the migration runs again at the destination (VIR_MIGRATE_PAUSED not set).
    domain.state = if request.paused { DomainState::Paused(PauseReason::User) } else { DomainState::Running };
    let stats = JobStats {
        operation: JobOperation::MigrationIn,
        downtime: Some(Duration::from_millis(140)),
        ..JobStats::default()
    };
    state.completed.insert((target.clone(), domain.name.clone()), stats);
    if let Some(daemon) = state.daemons.get_mut(target) {
        daemon.domains.insert(domain.name.clone(), domain);
    }
}

fn depart(state: &mut State, host: &HostId, name: &str) {
    if let Some(daemon) = state.daemons.get_mut(host) {
        daemon.domains.remove(name);
    }
}

fn lose(state: &mut State, host: &HostId) {
    if let Some(daemon) = state.daemons.get_mut(host) {
        daemon.reachable = false;
    }
}
