//! How the proof for one storage is made: a pure description that a backend gives and `verify` carries out.
//!
//! Imports `model`. The commands of a mounted directory are in `mount_probe`, a backend's own protocol client in its
//! `probe.rs`; what the evidence means is judged in `verify`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{AbsPath, StorageId};

/// How one storage is proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The storage.
    pub storage: StorageId,
    /// How hypervisors reach it.
    pub way: Way,
    /// The protocol client with which the machine that runs stor looks at the servers themselves.
    pub client: Option<Client>,
}

/// How hypervisors reach a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// A directory, mounted on each.
    Mounted(MountedDirectory),
    /// QEMU's own client for GlusterFS; nothing is mounted.
    GlusterDirect(GlusterVolume),
}

/// A directory that has to be the root of one certain mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedDirectory {
    /// Where it is mounted.
    pub path: AbsPath,
    /// File system type as the kernel's mount table shows it.
    pub fs_type: &'static str,
    /// Sources that are right, as the kernel's mount table shows them; without blanks.
    pub sources: Vec<String>,
    /// The directory pool on it.
    pub pool: String,
    /// The extended attribute that identifies a file on every host, if the file system has one.
    pub identity: Option<&'static str>,
    /// The extended attribute that tells of a split-brain, if the file system has one.
    pub split_brain: Option<&'static str>,
}

/// A GlusterFS volume and the servers that know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlusterVolume {
    /// Addresses, in the order in which they are tried.
    pub servers: Vec<String>,
    /// Volume.
    pub volume: String,
}

/// A protocol client on the machine that runs stor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Client {
    /// libgfapi, in a process of its own.
    Gfapi {
        /// The volume.
        volume: GlusterVolume,
        /// Addresses that the volume lets in (`auth.allow`).
        allowed: Vec<String>,
    },
}

impl Client {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gfapi { .. } => "libgfapi",
        }
    }
}

/// What a protocol client is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRequest {
    /// Probe files to make, one block of blanks each.
    pub create: Vec<String>,
    /// Files to identify.
    pub identify: Vec<String>,
    /// Files whose first block is read.
    pub read: Vec<String>,
    /// Probe files to remove.
    pub remove: Vec<String>,
}

/// What a protocol client saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAnswer {
    /// Files made; the error text where one could not be.
    pub created: BTreeMap<String, Result<(), String>>,
    /// Files identified.
    pub identified: BTreeMap<String, Result<Identity, String>>,
    /// What the first block of a file holds, without padding.
    pub read: BTreeMap<String, Result<String, String>>,
    /// Files removed.
    pub removed: BTreeMap<String, Result<(), String>>,
}

/// What tells a file from every other, whichever host looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Inode number; on GlusterFS the low 64 bits of the gfid.
    pub inode: u64,
    /// The file system's own identifier, where it could be read.
    pub id: Option<String>,
    /// Size in bytes.
    pub size: u64,
}

impl Identity {
    /// Tells whether both are the same file, whatever its size at the time.
    #[must_use]
    pub fn same_file(&self, other: &Self) -> bool {
        self.inode == other.inode
            && match (&self.id, &other.id) {
                (Some(left), Some(right)) => left == right,
                _ => true,
            }
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.id {
            Some(id) => write!(f, "{id}, {} bytes", self.size),
            None => write!(f, "inode {}, {} bytes", self.inode, self.size),
        }
    }
}

/// Why a protocol client said nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoClient {
    /// It cannot be used here, which is no fault of the storage.
    NotApplicable {
        /// Why.
        reason: String,
        /// What would make it usable.
        remedy: String,
    },
    /// It was used and failed.
    Failed {
        /// Why.
        reason: String,
    },
}
