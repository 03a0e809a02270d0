//! Executing: carries out a plan wave by wave, all hosts of a wave at once, the steps of a host in order.
//!
//! Imports `plan`, `host`, `libvirt` and `model`. Decides nothing: what runs says the plan, what a failure stops says
//! [`Broken::stops`], what an effect means says `plan::expand`.

mod effect;
mod journal;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Instant;

use crate::host::Fleet;
use crate::libvirt::Connector;
use crate::model::{Broken, Cancel, HostId, Step};
use crate::plan::Plan;

pub use journal::{Entry, Journal, StepEnd};

/// What happens while a plan is executed; called from several threads.
#[derive(Debug, Clone, Copy)]
pub enum ExecuteEvent<'a> {
    /// A step begins.
    Began(&'a Step),
    /// A step ended or was skipped.
    Ended(&'a Step, &'a StepEnd),
}

/// Where events go.
pub type OnEvent<'a> = dyn Fn(ExecuteEvent<'_>) + Sync + 'a;

/// Executes a plan: every step has an entry in the journal, in the order of the plan.
///
/// A failure stops what stands behind it and nothing else. A host whose connection is lost gets no further step. A lock that
/// is lost ends the run: no further step begins on any host.
/// Cancelling lets each step under way end and skips the others.
#[must_use]
pub fn execute(
    plan: &Plan,
    fleet: &Fleet,
    connector: &dyn Connector,
    cancel: &Cancel,
    on_event: &OnEvent<'_>,
) -> Journal {
    let mut run = Run {
        fleet,
        connector,
        cancel,
        on_event,
        broken: Vec::new(),
        lost: Vec::new(),
        unlocked: OnceLock::new(),
    };
    let mut entries = Vec::new();
    for (_, steps) in &plan.waves {
        entries.extend(run.wave(steps));
    }
    Journal { entries }
}

struct Run<'a> {
    fleet: &'a Fleet,
    connector: &'a dyn Connector,
    cancel: &'a Cancel,
    on_event: &'a OnEvent<'a>,
    /// Steps of earlier waves that failed or were skipped.
    broken: Vec<&'a Step>,
    /// Hosts whose connection was lost in earlier waves.
    lost: Vec<HostId>,
    /// The first host whose lock was found to be lost.
    unlocked: OnceLock<HostId>,
}

/// The part of one host in a wave.
#[derive(Default)]
struct HostPart<'a> {
    entries: Vec<(usize, Entry)>,
    broken: Vec<&'a Step>,
    lost: bool,
}

impl<'a> Run<'a> {
    fn wave(&mut self, steps: &'a [Step]) -> Vec<Entry> {
        let mut by_host: BTreeMap<&HostId, Vec<(usize, &'a Step)>> = BTreeMap::new();
        for (index, step) in steps.iter().enumerate() {
            by_host.entry(&step.host).or_default().push((index, step));
        }
        let hosts: Vec<&HostId> = by_host.keys().copied().collect();
        let parts = self.fleet.each(&hosts, |host| self.host_part(host, &by_host[host]));
        let mut entries = BTreeMap::new();
        for (host, part) in parts {
            entries.extend(part.entries);
            self.broken.extend(part.broken);
            if part.lost {
                self.lost.push(host.clone());
            }
        }
        entries.into_values().collect()
    }

    fn host_part(&self, host: &HostId, steps: &[(usize, &'a Step)]) -> HostPart<'a> {
        let mut part = HostPart { lost: self.lost.contains(host), ..HostPart::default() };
        for (index, step) in steps {
            let entry = match self.obstacle(step, &part) {
                Some(reason) => Entry::skipped(step, reason),
                None => self.step(step, &mut part),
            };
            if entry.end != StepEnd::Done {
                part.broken.push(step);
            }
            (self.on_event)(ExecuteEvent::Ended(step, &entry.end));
            part.entries.push((*index, entry));
        }
        part
    }

    /// Says why a step must not run.
    fn obstacle(&self, step: &Step, part: &HostPart<'_>) -> Option<String> {
        if self.cancel.is_cancelled() {
            return Some("cancelled".to_owned());
        }
        if let Some(host) = self.unlocked.get() {
            return Some(format!("the lock of host {host} was lost"));
        }
        if part.lost {
            return Some(format!("the connection to host {} was lost", step.host));
        }
        let mut broken = self.broken.iter().chain(&part.broken);
        let cause = broken.find(|broken| Broken::step(broken).stops(step))?;
        Some(format!("{} on host {} did not succeed", cause.subject, cause.host))
    }

    fn step(&self, step: &Step, part: &mut HostPart<'_>) -> Entry {
        (self.on_event)(ExecuteEvent::Began(step));
        let begin = Instant::now();
        let result = effect::carry_out(step, self.fleet, self.connector);
        if let Err(error) = &result {
            part.lost = error.is_lost();
            if let Some(host) = error.lost_lock() {
                self.unlocked.get_or_init(|| host.clone());
            }
            tracing::debug!(host = %step.host, step = %step.title, error = %crate::model::chain(error), "step failed");
        }
        Entry::ended(step, result, begin.elapsed())
    }
}

#[cfg(test)]
mod tests;
