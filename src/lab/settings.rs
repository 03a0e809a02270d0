//! Where a lab keeps its things on this machine.

use std::path::PathBuf;

use super::LabError;
use crate::model::{ClusterName, HostId};

/// The directories and the mirror that every lab on this machine uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Holds one directory per lab: its hosts' file systems, their data, its keys. On a real disk file system.
    pub labs: PathBuf,
    /// Holds the roots that were built; safe to delete when no lab is up.
    pub cache: PathBuf,
    /// The Debian mirror that a root is built from.
    pub mirror: String,
}

impl Settings {
    /// Reads `STOR_LAB_DIR`, `STOR_LAB_CACHE` and `STOR_LAB_MIRROR`; each has a default.
    ///
    /// # Errors
    /// [`LabError::Directory`] for a directory that cannot stand in a mount option.
    pub fn from_env() -> Result<Self, LabError> {
        let directory =
            |name: &str, default: &str| std::env::var_os(name).unwrap_or_else(|| default.into()).into();
        let settings = Self {
            labs: directory("STOR_LAB_DIR", "/var/lib/stor-lab"),
            cache: directory("STOR_LAB_CACHE", "/var/cache/stor-lab"),
            mirror: std::env::var("STOR_LAB_MIRROR")
                .unwrap_or_else(|_| "http://deb.debian.org/debian".into()),
        };
        settings.check()?;
        Ok(settings)
    }

    /// Refuses directories that cannot stand in a mount option.
    ///
    /// # Errors
    /// [`LabError::Directory`].
    pub(super) fn check(&self) -> Result<(), LabError> {
        for path in [&self.labs, &self.cache] {
            let reason = match path.to_str() {
                None => "its name is not UTF-8",
                Some(text) if !text.starts_with('/') => "it is relative",
                Some(text) if text.contains([',', ':', '\\', '"', '\n']) => "its name has one of , : \\ \"",
                Some(_) => continue,
            };
            return Err(LabError::Directory { path: path.clone(), reason });
        }
        Ok(())
    }

    /// The files of one lab.
    pub(super) fn lab(&self, name: &ClusterName) -> LabFiles {
        LabFiles { directory: self.labs.join(name.as_str()) }
    }
}

/// The files that stor keeps for one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LabFiles {
    /// The directory that holds all of them.
    pub directory: PathBuf,
}

impl LabFiles {
    /// What the lab consists of, as JSON.
    pub fn record(&self) -> PathBuf {
        self.directory.join("lab.json")
    }

    /// The private key with which stor logs in as root.
    pub fn identity(&self) -> PathBuf {
        self.directory.join("id_ed25519")
    }

    /// The public host keys of all hosts.
    pub fn known_hosts(&self) -> PathBuf {
        self.directory.join("known_hosts")
    }

    /// The directory that holds all hosts.
    pub fn hosts(&self) -> PathBuf {
        self.directory.join("hosts")
    }

    /// The files of one host.
    pub fn host(&self, host: &HostId) -> HostFiles {
        HostFiles { directory: self.hosts().join(host.as_str()) }
    }
}

/// The files that stor keeps for one host of a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostFiles {
    /// The directory that holds all of them.
    pub directory: PathBuf,
}

impl HostFiles {
    /// What the host changed of the root: the upper layer of its overlay.
    pub fn upper(&self) -> PathBuf {
        self.directory.join("upper")
    }

    /// The overlay's work directory.
    pub fn work(&self) -> PathBuf {
        self.directory.join("work")
    }

    /// Where the overlay is mounted, in the host's own mount namespace only.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// The host's `/data`.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// What the host printed on its console.
    pub fn console(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    /// The process that runs the host.
    pub fn process(&self) -> PathBuf {
        self.directory.join("process")
    }

    /// Exists once the host has its identity.
    pub fn prepared(&self) -> PathBuf {
        self.directory.join("prepared")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_a_mount_option_cannot_hold_are_refused() {
        for bad in ["relative", "/a,b", "/a:b", "/a\\b", "/a\"b"] {
            let settings = Settings { labs: bad.into(), cache: "/c".into(), mirror: String::new() };
            assert!(matches!(settings.check(), Err(LabError::Directory { .. })), "{bad}");
        }
    }
}
