//! Executing a plan: a wave on all its hosts at once, the next wave after; no choices of its own.
//!
//! What a failed step stops is said by [`Broken`]; what an effect runs by `plan::expand`. Imports `plan`, `libvirt`,
//! `host` and `model`. Showing progress belongs in `cli`.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::host::{Fleet, Host, HostError};
use crate::libvirt::{Connector, LibvirtError};
use crate::model::step::Broken;
use crate::model::{BlockLine, BlockSpec, Cancel, Command, Effect, HostId, Step, Wave};
use crate::plan::Plan;
use crate::plan::expand::{Action, ExpandError, NO_SUCH_FILE, expand};

/// Says why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The host refused or could not be reached.
    #[error(transparent)]
    Host(#[from] HostError),
    /// libvirt refused or could not be reached.
    #[error(transparent)]
    Libvirt(#[from] LibvirtError),
    /// The effect has no safe commands.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// What was to be created exists, or it could not be told.
    #[error("host {host}: {subject} is not known to be absent: {reason}")]
    NotAbsent {
        /// The host.
        host: HostId,
        /// What was to be created.
        subject: String,
        /// What the host said.
        reason: String,
    },
    /// The cluster has no such host: a defect of the planner.
    #[error("host {host}: the cluster has no such host")]
    NoHost {
        /// The host.
        host: HostId,
    },
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepEnd {
    /// It ran.
    Done,
    /// It failed, for this reason.
    Failed(String),
    /// It did not run, for this reason.
    Skipped(String),
}

/// One step of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When it ran.
    pub wave: Wave,
    /// Where.
    pub host: HostId,
    /// What it did, in one line.
    pub title: String,
    /// How it ended.
    pub end: StepEnd,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// What became of every step of a plan, in the plan's order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Journal {
    /// All steps.
    pub entries: Vec<Entry>,
}

impl Journal {
    /// Tells whether every step ran.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.entries.iter().all(|entry| entry.end == StepEnd::Done)
    }
}

/// What happens, for whoever shows it.
#[derive(Debug, Clone, Copy)]
pub enum ExecuteEvent<'a> {
    /// A step begins.
    Began(&'a Step),
    /// A step ended.
    Ended(&'a Step, &'a StepEnd),
}

/// Executes a plan. Between two steps of a host the user's wish to stop is obeyed.
pub fn execute(
    plan: &Plan,
    fleet: &Fleet,
    connector: &dyn Connector,
    cancel: &Cancel,
    on_event: &(dyn Fn(ExecuteEvent<'_>) + Sync),
) -> Journal {
    let run = Run { fleet, connector, cancel, on_event };
    let mut journal = Journal::default();
    let mut broken: Vec<&Step> = Vec::new();
    for (_, steps) in &plan.waves {
        let mut by_host: BTreeMap<&HostId, Vec<&Step>> = BTreeMap::new();
        for step in steps {
            by_host.entry(&step.host).or_default().push(step);
        }
        let hosts: Vec<HostId> = by_host.keys().map(|host| (*host).clone()).collect();
        let ended = fleet.each(&hosts, |host| run.host(&by_host[host], &broken));
        for (host, ends) in ended {
            for (step, (end, took)) in by_host[&host].iter().zip(ends) {
                if end != StepEnd::Done {
                    broken.push(step);
                }
                journal.entries.push(Entry {
                    wave: step.wave,
                    host: step.host.clone(),
                    title: step.title.clone(),
                    end,
                    millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                });
            }
        }
    }
    journal
}

struct Run<'a> {
    fleet: &'a Fleet,
    connector: &'a dyn Connector,
    cancel: &'a Cancel,
    on_event: &'a (dyn Fn(ExecuteEvent<'_>) + Sync),
}

impl Run<'_> {
    /// Runs one host's steps of a wave in order.
    fn host<'s>(&self, steps: &[&'s Step], earlier: &[&'s Step]) -> Vec<(StepEnd, Duration)> {
        let mut broken = earlier.to_vec();
        let mut ends = Vec::new();
        for step in steps {
            let begun = Instant::now();
            let end = match broken.iter().find(|before| Broken::step(before).stops(step)) {
                Some(before) => {
                    StepEnd::Skipped(format!("host {}: `{}` did not succeed", before.host, before.title))
                }
                None if self.cancel.is_cancelled() => StepEnd::Skipped("cancelled".to_owned()),
                None => self.step(step),
            };
            if end != StepEnd::Done {
                broken.push(step);
            }
            (self.on_event)(ExecuteEvent::Ended(step, &end));
            ends.push((end, begun.elapsed()));
        }
        ends
    }

    fn step(&self, step: &Step) -> StepEnd {
        (self.on_event)(ExecuteEvent::Began(step));
        match self.effect(&step.host, &step.effect) {
            Ok(()) => StepEnd::Done,
            Err(error) => StepEnd::Failed(chain(&error)),
        }
    }

    fn effect(&self, id: &HostId, effect: &Effect) -> Result<(), StepError> {
        let host = self.host_of(id)?;
        let expansion = expand(effect)?;
        let mut result = expansion.actions.iter().try_for_each(|action| self.action(host, action));
        for command in &expansion.cleanup {
            let cleaned = host.run(command).map(drop).map_err(StepError::from);
            result = result.and(cleaned);
        }
        result
    }

    fn action(&self, host: &dyn Host, action: &Action<'_>) -> Result<(), StepError> {
        let libvirt = || self.connector.open(host.id());
        match action {
            Action::Run(command) => drop(host.run(command)?),
            Action::MustBeAbsent { probe, subject } => must_be_absent(host, probe, subject)?,
            Action::WriteFile(file) => host.write_file(file)?,
            Action::EditBlock(block) => host.edit_block(block, &self.keys(block)?)?,
            Action::CopyIn { source, target } => host.copy_in(source, target)?,
            Action::EnsurePool { name, xml } => libvirt()?.ensure_pool(name, xml)?,
            Action::RemovePool { name } => libvirt()?.remove_pool(name)?,
            Action::DefineGuest { xml, .. } => libvirt()?.define_domain(xml)?,
            Action::UndefineGuest { name } => libvirt()?.undefine_domain(name)?,
        }
        Ok(())
    }

    /// The public keys that a block names, read from their hosts where planning could not know them.
    fn keys(&self, block: &BlockSpec) -> Result<Vec<String>, StepError> {
        let keys = block.lines.iter().flat_map(|lines| lines.iter()).filter_map(|line| match line {
            BlockLine::Key(key) => Some(key),
            BlockLine::Text(_) => None,
        });
        keys.map(|key| match &key.known {
            Some(known) => Ok(known.clone()),
            None => {
                let read = Command::new("cat").args(["--", key.path.as_str()]);
                let text = self.host_of(&key.of)?.run(&read)?.stdout;
                let words: Vec<&str> = text.split_whitespace().take(2).collect();
                Ok(words.join(" "))
            }
        })
        .collect()
    }

    fn host_of(&self, id: &HostId) -> Result<&dyn Host, StepError> {
        let host = self.fleet.host(id).ok_or_else(|| StepError::NoHost { host: id.clone() })?;
        Ok(host.as_ref())
    }
}

fn must_be_absent(host: &dyn Host, probe: &Command, subject: &str) -> Result<(), StepError> {
    let not_absent = |reason: String| StepError::NotAbsent {
        host: host.id().clone(),
        subject: subject.to_owned(),
        reason,
    };
    match host.run(probe) {
        Ok(_) => Err(not_absent("it exists".to_owned())),
        Err(HostError::Failed { stderr, .. }) if stderr.contains(NO_SUCH_FILE) => Ok(()),
        Err(HostError::Failed { stderr, .. }) => Err(not_absent(stderr)),
        Err(other) => Err(other.into()),
    }
}

/// An error with all its sources, each after a colon.
fn chain(error: &StepError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
