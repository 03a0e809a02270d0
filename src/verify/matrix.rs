//! The evidence matrix: one cell per image and hypervisor, each with its checks. Pure data.
//!
//! Imports `model`. What a check comes to is decided in `judge`, how it is shown in `cli`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::{Finding, HostId, ImageId, StorageId};

/// What a check came to; the worst of several is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// There is nothing to check here.
    NotApplicable,
    /// Proved.
    Pass,
    /// Neither proved nor disproved.
    Unknown,
    /// Disproved.
    Fail,
}

/// The checks, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckKind {
    /// The storage is mounted, and not just a directory there.
    Mounted,
    /// The libvirt pool is active and lies on the mount.
    Pool,
    /// The image is the same file as on every other host.
    Identity,
    /// What one host writes, the others read.
    Nonce,
    /// QEMU's user can read and write it.
    Access,
    /// A lock held on one host is refused on another.
    Lock,
}

impl CheckKind {
    /// All of them, in order.
    pub const ALL: [Self; 6] =
        [Self::Mounted, Self::Pool, Self::Identity, Self::Nonce, Self::Access, Self::Lock];
}

impl std::fmt::Display for CheckKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Mounted => "mounted",
            Self::Pool => "pool",
            Self::Identity => "identity",
            Self::Nonce => "nonce",
            Self::Access => "access",
            Self::Lock => "lock",
        })
    }
}

/// One check with its evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which.
    pub kind: CheckKind,
    /// What it came to.
    pub verdict: Verdict,
    /// What was seen, in one sentence.
    pub seen: String,
    /// What is wrong and what to do, when something is.
    pub finding: Option<Finding>,
}

impl Check {
    /// A check without a finding.
    #[must_use]
    pub fn new(kind: CheckKind, verdict: Verdict, seen: impl Into<String>) -> Self {
        Self { kind, verdict, seen: seen.into(), finding: None }
    }

    /// A check with a finding, whose message is what was seen.
    #[must_use]
    pub fn with(kind: CheckKind, verdict: Verdict, finding: Finding) -> Self {
        Self { kind, verdict, seen: finding.message.clone(), finding: Some(finding) }
    }
}

/// One image on one hypervisor; or a storage that has no image yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// The storage.
    pub storage: StorageId,
    /// The image; `None` stands for a storage that has none.
    pub image: Option<ImageId>,
    /// The hypervisor.
    pub host: HostId,
    /// The checks, in the order of [`CheckKind::ALL`].
    pub checks: Vec<Check>,
}

impl Cell {
    /// The worst verdict of its checks.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::NotApplicable)
    }
}

/// What the protocol client on this machine came to for one storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientNote {
    /// `libgfapi`.
    pub client: &'static str,
    /// What it came to.
    pub verdict: Verdict,
    /// What it saw, or why it saw nothing.
    pub seen: String,
    /// What would make it usable.
    pub remedy: Option<String>,
}

/// The whole matrix, sorted by storage, image and host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Matrix {
    /// All cells.
    pub cells: Vec<Cell>,
    /// What the protocol clients on this machine saw.
    pub clients: BTreeMap<StorageId, ClientNote>,
    /// What else the user should know, e.g. a probe file that could not be removed.
    pub notes: Vec<Finding>,
}

impl Matrix {
    /// The worst verdict of all cells.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        // A client that could not look is no proof against anything; one that was let in against the file's word is.
        let open = self.clients.values().map(|note| note.verdict).filter(|verdict| *verdict == Verdict::Fail);
        self.cells.iter().map(Cell::verdict).chain(open).max().unwrap_or(Verdict::NotApplicable)
    }

    /// All findings, each once, sorted by severity (worst first), host and code.
    #[must_use]
    pub fn findings(&self) -> Vec<&Finding> {
        let checks = self.cells.iter().flat_map(|cell| &cell.checks);
        let mut all: Vec<&Finding> =
            checks.filter_map(|check| check.finding.as_ref()).chain(&self.notes).collect();
        all.sort_by_key(|finding| {
            (Reverse(finding.severity), &finding.host, finding.code, &finding.subject, &finding.message)
        });
        all.dedup();
        all
    }
}
