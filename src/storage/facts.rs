//! Why a backend's facts about a server are not known: the same for every backend. Imports `model` and `packages`.

use super::packages::PackagesError;
use crate::model::{HostId, Unknown};

/// Says why a fact about a host is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// The host or its answer is unknown.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// The host answered something that cannot be read.
    #[error("host {host}: `{query}` answered something unexpected: {reason}")]
    Unreadable {
        /// The host.
        host: HostId,
        /// The query.
        query: String,
        /// What was wrong with the answer.
        reason: String,
    },
    /// What has to be installed is not known.
    #[error(transparent)]
    Packages(#[from] PackagesError),
}

impl FactsError {
    /// Tells whether waiting may help: the host or an answer was missing.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Packages(PackagesError::Unknown(_)))
    }
}
