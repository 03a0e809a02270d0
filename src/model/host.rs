//! One host as the cluster file describes it: where it is, what it is for, how to log in.
//!
//! Here and not in `spec` because the transports need it and do not know the cluster file.

use std::path::PathBuf;

use super::{Driver, HostId};

/// Whether a host runs guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It only serves storage.
    Server,
    /// It runs guests (and may serve storage too).
    Hypervisor(Driver),
}

impl Role {
    /// Which of libvirt's drivers runs the host's guests; `None` for a host that runs none.
    #[must_use]
    pub fn driver(self) -> Option<Driver> {
        match self {
            Self::Server => None,
            Self::Hypervisor(driver) => Some(driver),
        }
    }

    /// Tells whether the host runs guests.
    #[must_use]
    pub fn is_hypervisor(self) -> bool {
        self.driver().is_some()
    }
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// Its name in the file.
    pub id: HostId,
    /// IP address or DNS name by which the other hosts and stor reach it; never starts with `-`.
    pub address: String,
    /// Whether it runs guests.
    pub role: Role,
    /// How stor logs in.
    pub ssh: SshSpec,
}

/// How stor logs in to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSpec {
    /// Login name; the user's own ssh configuration decides when it is absent.
    pub user: Option<String>,
    /// TCP port; the user's own ssh configuration decides when it is absent.
    pub port: Option<u16>,
    /// Private key file on the machine that runs stor, `~` expanded.
    pub identity_file: Option<PathBuf>,
    /// How commands become root.
    pub elevation: Elevation,
}

/// How commands become root on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elevation {
    /// The login user is root.
    Root,
    /// `sudo -n`, which fails at once when it would ask for a password.
    Sudo,
}
