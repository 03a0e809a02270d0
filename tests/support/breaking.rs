//! Hosts whose connection breaks at a chosen effect, and stays broken until it is mended.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use stor::host::fake::FakeHost;
use stor::host::{Holder, Host, HostError, LockGuard};
use stor::libvirt::fake::Moment;
use stor::model::{Answer, BlockSpec, Command, FileSpec, HostId, Output, Query};

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The one host's connection.
    Host,
    /// stor itself: nothing reaches any host any more.
    Stor,
    /// The connection that holds the one host's lock: after the effect, and nobody is told.
    Lock,
}

/// Where it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Break {
    pub at: usize,
    pub moment: Moment,
    pub what: What,
}

/// Counts effects of the whole fleet, through hosts and through libvirt; clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Breaker(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    plan: Option<Break>,
    trace: Vec<String>,
    lost: BTreeSet<HostId>,
    all_lost: bool,
    unlocked: BTreeSet<HostId>,
    unguarded: Vec<String>,
    hit: bool,
}

impl Breaker {
    /// Breaks at an effect from now on, or mends everything; the count starts anew.
    pub fn set(&self, plan: Option<Break>) {
        *self.0.lock().unwrap() = State { plan, ..State::default() };
    }
    /// Every effect so far, each as `host: words`.
    pub fn trace(&self) -> Vec<String> {
        self.0.lock().unwrap().trace.clone()
    }
    /// Whether the break happened.
    pub fn hit(&self) -> bool {
        self.0.lock().unwrap().hit
    }
    /// Effects that libvirt was asked for on a host whose lock was lost.
    pub fn unguarded(&self) -> Vec<String> {
        self.0.lock().unwrap().unguarded.clone()
    }
    fn is_unlocked(&self, host: &HostId) -> bool {
        self.0.lock().unwrap().unlocked.contains(host)
    }
    fn is_lost(&self, host: &HostId) -> bool {
        let state = self.0.lock().unwrap();
        state.all_lost || state.lost.contains(host)
    }
    /// Counts an effect; tells whether the connection is lost before it.
    fn before(&self, host: &HostId, words: &str) -> bool {
        if self.is_lost(host) {
            return true;
        }
        let mut state = self.0.lock().unwrap();
        state.trace.push(format!("{host}: {words}"));
        if state.unlocked.contains(host) {
            state.unguarded.push(format!("{host}: {words}"));
        }
        state.strike(host, Moment::Before)
    }
    /// Tells whether the connection is lost after the effect that was counted last.
    fn after(&self, host: &HostId) -> bool {
        self.0.lock().unwrap().strike(host, Moment::After)
    }
    /// The same for calls to libvirt.
    pub fn libvirt(&self, host: &HostId, action: &str, moment: Moment) -> bool {
        match moment {
            Moment::Before => self.before(host, action),
            Moment::After => self.after(host),
        }
    }
}

impl State {
    fn strike(&mut self, host: &HostId, moment: Moment) -> bool {
        let Some(plan) = self.plan else { return false };
        if self.trace.len() != plan.at + 1 || plan.moment != moment || self.hit {
            return false;
        }
        self.hit = true;
        match plan.what {
            What::Host => _ = self.lost.insert(host.clone()),
            What::Stor => self.all_lost = true,
            What::Lock => _ = self.unlocked.insert(host.clone()),
        }
        plan.what != What::Lock
    }
}

/// A host behind a [`Breaker`].
pub struct Breaking {
    pub host: Arc<FakeHost>,
    pub breaker: Breaker,
}

impl Breaking {
    fn lost(&self) -> HostError {
        HostError::Unreachable {
            host: self.host.id().clone(),
            reason: "connection lost".to_owned(),
            hint: None,
        }
    }
    fn locked(&self) -> Result<(), HostError> {
        match self.breaker.is_unlocked(self.host.id()) {
            true => Err(HostError::LockLost { host: self.host.id().clone() }),
            false => Ok(()),
        }
    }
    fn around<T>(&self, words: &str, work: impl FnOnce() -> Result<T, HostError>) -> Result<T, HostError> {
        self.locked()?;
        if self.breaker.before(self.host.id(), words) {
            return Err(self.lost());
        }
        let done = work()?;
        if self.breaker.after(self.host.id()) { Err(self.lost()) } else { Ok(done) }
    }
    fn asked<T>(&self, work: impl FnOnce() -> Result<T, HostError>) -> Result<T, HostError> {
        if self.breaker.is_lost(self.host.id()) { Err(self.lost()) } else { work() }
    }
}

impl Host for Breaking {
    fn id(&self) -> &HostId {
        self.host.id()
    }
    fn query(&self, batch: &[Query]) -> Result<Vec<Answer>, HostError> {
        self.asked(|| self.host.query(batch))
    }
    fn lock(&self, holder: &Holder, batch: &[Query]) -> Result<(Box<dyn LockGuard>, Vec<Answer>), HostError> {
        self.asked(|| self.host.lock(holder, batch))
    }
    fn holds_lock(&self) -> Result<(), HostError> {
        self.asked(|| self.host.holds_lock().and_then(|()| self.locked()))
    }
    fn run(&self, command: &Command) -> Result<Output, HostError> {
        self.around(&command.to_string(), || self.host.run(command))
    }
    fn write_file(&self, file: &FileSpec) -> Result<(), HostError> {
        self.around(&format!("write {}", file.path), || self.host.write_file(file))
    }
    fn feed(&self, command: &Command, source: &Path) -> Result<Output, HostError> {
        self.around(&command.to_string(), || self.host.feed(command, source))
    }
    fn edit_block(&self, block: &BlockSpec, keys: &[String]) -> Result<(), HostError> {
        self.around(&format!("edit {}", block.path), || self.host.edit_block(block, keys))
    }
}
