//! The journal: how each step of a plan ended. Pure.
//!
//! Imports `model`.

use std::time::Duration;

use serde::Serialize;

use super::effect::EffectError;
use crate::model::{HostId, ResourceId, Step, Wave, chain};

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepEnd {
    /// It succeeded.
    Done,
    /// It failed, for this reason, with what the user can do.
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
    /// What it was to change.
    pub subject: ResourceId,
    /// What it was to do, in one line.
    pub title: String,
    /// How it ended.
    pub end: StepEnd,
    /// Whether it failed without telling whether it happened: the connection was lost, or it did not end in time.
    pub unknown: bool,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

impl Entry {
    pub(super) fn skipped(step: &Step, reason: String) -> Self {
        Self::new(step, StepEnd::Skipped(reason), Duration::ZERO)
    }

    pub(super) fn ended(step: &Step, result: Result<(), EffectError>, took: Duration) -> Self {
        let Err(error) = result else { return Self::new(step, StepEnd::Done, took) };
        let hint = error.hint().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
        let entry = Self::new(step, StepEnd::Failed(chain(&error) + &hint), took);
        Self { unknown: error.is_unknown(), ..entry }
    }

    fn new(step: &Step, end: StepEnd, took: Duration) -> Self {
        Self {
            wave: step.wave,
            host: step.host.clone(),
            subject: step.subject.clone(),
            title: step.title.clone(),
            end,
            unknown: false,
            millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// What became of every step of a plan, in the plan's order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Journal {
    /// One entry per step.
    pub entries: Vec<Entry>,
}

impl Journal {
    /// Tells whether every step succeeded.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.entries.iter().all(|entry| entry.end == StepEnd::Done)
    }
}
