//! How the move of one guest ended, with everything that is known about it; the content of a receipt. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::confirm::{Placement, Seen};
use super::outside::PingFigures;
use super::progress::Progress;
use super::strategy::Strategy;
use crate::model::{Finding, FindingCode, GuestId, HostId};

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The guest was at the destination before.
    AlreadyThere,
    /// Nothing speaks against it; only a dry run was asked for.
    Ready,
    /// A host could not be asked, so nothing was begun.
    Unreachable(String),
    /// Findings forbid it; nothing was begun.
    Refused,
    /// The guest is at the destination.
    Moved,
    /// The guest is at the destination, and something remains to be done there, for this reason.
    Unfinished(String),
    /// The guest is where it was, for this reason.
    Stayed(String),
    /// It cannot be told where the guest is, or it is not in one place: a person must look.
    Unplaced {
        /// What was judged.
        placement: Placement,
        /// What libvirt reported, if anything.
        reason: String,
    },
}

/// The move of one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The guest.
    pub guest: GuestId,
    /// Where it was; absent when it was not found.
    pub from: Option<HostId>,
    /// Where it was to go.
    pub to: HostId,
    /// How it ended.
    pub verdict: Verdict,
    /// What each host showed last.
    pub seen: BTreeMap<HostId, Seen>,
    /// What preflight found.
    pub findings: Vec<Finding>,
    /// Warnings that the user allowed.
    pub allowed: Vec<FindingCode>,
    /// How it was done.
    pub plan: Option<MovePlan>,
    /// How it was moved shut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cold: Option<ColdMove>,
    /// What was measured.
    pub figures: Option<Figures>,
    /// What went wrong besides, without changing where the guest is.
    pub notes: Vec<String>,
    /// Where the receipt was written.
    #[serde(skip)]
    pub receipt: Option<PathBuf>,
}

/// How a guest was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MovePlan {
    /// UUID of the guest.
    pub uuid: String,
    /// The destination's libvirt as the source reached it.
    pub destination: String,
    /// Where the stream went.
    pub stream: String,
    /// libvirt's flags by name.
    pub flags: Vec<&'static str>,
    /// The strategy.
    pub strategy: Strategy,
    /// When it began (RFC 3339).
    pub started: String,
    /// When it ended.
    pub ended: String,
}

/// How a guest was moved shut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColdMove {
    /// UUID of the guest.
    pub uuid: String,
    /// Whether it ran before.
    pub ran: bool,
    /// How it was stopped, if it was.
    pub stopped: Option<Stopped>,
    /// Whether an earlier move was continued.
    pub continued: bool,
    /// When it began (RFC 3339).
    pub started: String,
    /// When it ended.
    pub ended: String,
}

/// How a guest was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stopped {
    /// Its system shut down when it was asked to.
    ByItself,
    /// Its power was cut when it had not shut down in time.
    PowerCut,
}

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Time that libvirt's call took.
    #[serde(rename = "total_ms", serialize_with = "millis")]
    pub total: Duration,
    /// Pause as QEMU counted it.
    #[serde(rename = "downtime_ms", serialize_with = "maybe_millis")]
    pub downtime: Option<Duration>,
    /// Time to set the migration up.
    #[serde(rename = "setup_ms", serialize_with = "maybe_millis")]
    pub setup: Option<Duration>,
    /// Memory transferred, in bytes.
    pub memory_transferred: Option<u64>,
    /// Disk copied, in bytes; 0 on shared storage.
    pub disk_copied: Option<u64>,
    /// Passes over the guest's memory.
    pub passes: Option<u64>,
    /// The last sample of each iteration that was seen under way.
    pub iterations: Vec<Progress>,
    /// What ping saw from the machine that runs stor; absent when it was not asked for.
    pub ping: Option<Outside>,
}

/// What the outside saw of the guest's pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outside {
    /// It was measured.
    Seen(PingFigures),
    /// It was not, for this reason.
    Failed(String),
}

/// Writes a time as whole milliseconds.
pub(super) fn millis<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Writes a time as whole milliseconds, or null.
#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
pub(super) fn maybe_millis<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => millis(time, serializer),
        None => serializer.serialize_none(),
    }
}

impl Outcome {
    /// Makes an outcome that nothing is known about but how it ended.
    #[must_use]
    pub fn new(guest: &GuestId, to: &HostId, verdict: Verdict) -> Self {
        Self {
            guest: guest.clone(),
            from: None,
            to: to.clone(),
            verdict,
            seen: BTreeMap::new(),
            findings: Vec::new(),
            allowed: Vec::new(),
            plan: None,
            cold: None,
            figures: None,
            notes: Vec::new(),
            receipt: None,
        }
    }

    /// The exit code (`docs/exit-codes.md`): 0 moved, 5 unreachable, 8 refused, 9 stayed or unfinished, 10 unknown.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::AlreadyThere | Verdict::Ready | Verdict::Moved => 0,
            Verdict::Unreachable(_) => 5,
            Verdict::Refused => 8,
            Verdict::Stayed(_) | Verdict::Unfinished(_) => 9,
            Verdict::Unplaced { .. } => 10,
        }
    }
}

/// The exit code of several moves: the one that needs a person most.
#[must_use]
pub fn exit_code(outcomes: &[Outcome]) -> u8 {
    outcomes.iter().map(Outcome::exit_code).max().unwrap_or(0)
}
