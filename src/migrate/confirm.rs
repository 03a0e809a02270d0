//! Where a guest is, judged from what both hosts show. Pure.
//!
//! The one place that decides it; what a call of libvirt returned has no say here.

use std::fmt;

use serde::Serialize;

use crate::libvirt::{DomainFacts, DomainState, PauseReason};

/// What one host shows of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// It runs.
    Runs,
    /// It is paused, and not by a migration.
    Paused,
    /// A migration holds it: it comes, leaves, or broke half-way.
    InTransit,
    /// It is defined and does not run.
    Defined,
    /// The host does not know it.
    Absent,
    /// The host could not be asked.
    Unseen(String),
}

impl Seen {
    /// Reads a host's answer about the guest with this UUID; another guest of the same name is not it.
    #[must_use]
    pub fn of(answer: Result<Option<&DomainFacts>, String>, uuid: &str) -> Self {
        let domain = match answer {
            Err(reason) => return Self::Unseen(reason),
            Ok(domain) => domain.filter(|domain| domain.uuid == uuid),
        };
        match domain.map(|domain| domain.state) {
            None => Self::Absent,
            Some(DomainState::Running) => Self::Runs,
            Some(DomainState::Paused(PauseReason::User | PauseReason::IoError | PauseReason::Other))
            | Some(DomainState::Suspended) => Self::Paused,
            Some(DomainState::Paused(
                PauseReason::Migration
                | PauseReason::PostCopy
                | PauseReason::PostCopyFailed
                | PauseReason::StartingUp,
            ))
            | Some(DomainState::ShuttingDown) => Self::InTransit,
            Some(DomainState::ShutOff | DomainState::Crashed) => Self::Defined,
            Some(DomainState::Unknown) => Self::Unseen("libvirt gives no state".to_owned()),
        }
    }

    /// Whether QEMU runs the guest here and no migration holds it.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Runs | Self::Paused)
    }

    fn is_inactive(&self) -> bool {
        matches!(self, Self::Defined | Self::Absent)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs => f.pad("runs"),
            Self::Paused => f.pad("is paused"),
            Self::InTransit => f.pad("is held by a migration"),
            Self::Defined => f.pad("is defined and does not run"),
            Self::Absent => f.pad("is not known there"),
            Self::Unseen(reason) => write!(f, "could not be asked for: {reason}"),
        }
    }
}

/// Where a guest is after a migration ended, however it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// At the destination, and only there.
    Moved,
    /// At the source, and only there.
    Stayed,
    /// QEMU holds it on both hosts.
    OnBoth,
    /// It runs on neither host: it stopped or crashed.
    Nowhere,
    /// It cannot be told: a host could not be asked, or a migration still holds the guest.
    Unknown,
}

/// Judges where a guest is.
///
/// A host that could not be asked makes it unknown even when the other one runs the guest: at the very end of a
/// migration the source may resume the guest although the destination did so too (lost answer to `Finish`, libvirt's
/// migration protocol version 3).
#[must_use]
pub fn judge(source: &Seen, target: &Seen) -> Placement {
    match (source, target) {
        (s, t) if s.is_active() && t.is_active() => Placement::OnBoth,
        (s, t) if s.is_active() && t.is_inactive() => Placement::Stayed,
        (s, t) if s.is_inactive() && t.is_active() => Placement::Moved,
        (s, t) if s.is_inactive() && t.is_inactive() => Placement::Nowhere,
        _ => Placement::Unknown,
    }
}
