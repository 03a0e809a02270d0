//! When a step runs, and what follows from it.

use std::fmt;

use serde::Serialize;

/// When a step runs. A wave runs on all hosts at once; the next begins when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wave {
    /// The ownership record takes up what later steps will create.
    Record,
    /// What left the file: definitions of guests.
    ReleaseGuest,
    /// What left the file: pools.
    ReleasePool,
    /// What left the file: mounts, sessions, and other files and blocks.
    ReleaseMount,
    /// What left the file: volumes, exports, targets.
    ReleaseExport,
    /// What left the file: what joins servers to one service (peers).
    ReleaseService,
    /// What left the file: services, directories, and data that the user named.
    ReleaseHost,
    /// Packages, directories, daemons on storage servers; key pairs on hypervisors.
    Prerequisites,
    /// What joins servers to one service (peers).
    Service,
    /// Servers of one service wait until they have met.
    Meeting,
    /// Exports, targets, volumes.
    Export,
    /// Packages, secrets and trust on hypervisors.
    ClientPrerequisites,
    /// Mounts and sessions.
    Mount,
    /// Libvirt pools.
    Pool,
    /// Images.
    Image,
    /// Guest definitions.
    Guest,
    /// The ownership record forgets what was removed.
    Settle,
}

impl Wave {
    /// Tells whether a failure here stops everything later of the same storage on every host, not only on its own.
    #[must_use]
    pub fn is_server_side(self) -> bool {
        matches!(self, Self::Prerequisites | Self::Service | Self::Meeting | Self::Export)
    }

    /// Tells whether something is removed here.
    #[must_use]
    pub fn is_release(self) -> bool {
        self > Self::Record && self < Self::Prerequisites
    }
}

impl fmt::Display for Wave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Record => "record",
            Self::ReleaseGuest => "release guests",
            Self::ReleasePool => "release pools",
            Self::ReleaseMount => "release mounts",
            Self::ReleaseExport => "release exports",
            Self::ReleaseService => "release peers",
            Self::ReleaseHost => "release hosts",
            Self::Prerequisites => "server prerequisites",
            Self::Service => "storage service",
            Self::Meeting => "servers meet",
            Self::Export => "export, target, volume",
            Self::ClientPrerequisites => "client prerequisites",
            Self::Mount => "mount, session",
            Self::Pool => "pool",
            Self::Image => "image",
            Self::Guest => "guest",
            Self::Settle => "settle",
        })
    }
}
