//! How the proof for one storage is made: a pure description that a backend gives and `verify` carries out.
//!
//! Imports `model`. The commands of a mounted directory are in `mount_probe`, a backend's own protocol client in its
//! `probe.rs`; what the evidence means is judged in `verify`.

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs as _, UdpSocket};

use serde::{Deserialize, Serialize};

use crate::model::{AbsPath, HostId, Secret, StorageId};

/// How one storage is proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The storage.
    pub storage: StorageId,
    /// How hypervisors reach it.
    pub way: Way,
    /// The protocol client with which the machine that runs stor looks at the servers themselves.
    pub client: Option<Client>,
    /// The server that has the files themselves in a directory of its own, where there is one: it can be asked through ssh
    /// when no client on this machine can look.
    pub keeper: Option<Keeper>,
}

/// A server with the files of a storage in a directory of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeper {
    /// The server.
    pub host: HostId,
    /// Its directory.
    pub directory: AbsPath,
}

/// How hypervisors reach a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// A directory, mounted on each.
    Mounted(MountedDirectory),
    /// One of QEMU's own clients; nothing is mounted.
    Direct(DirectDirectory),
    /// iSCSI: each image is a LUN.
    Luns(Box<LunTarget>),
}

/// An iSCSI target and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LunTarget {
    /// The server that has it.
    pub server: HostId,
    /// The portal's address.
    pub address: String,
    /// The portal's port.
    pub port: u16,
    /// The target's name.
    pub iqn: String,
    /// The LUN of each image, by the image's file name.
    pub luns: BTreeMap<String, Lun>,
    /// How initiators prove who they are, if they have to.
    pub login: Option<Login>,
    /// The name with which each hypervisor's tools log in.
    pub initiators: BTreeMap<HostId, String>,
    /// The name with which the machine that runs stor logs in.
    pub initiator: String,
    /// How the hypervisors' kernels reach it; `None` where QEMU's own client does.
    pub kernel: Option<KernelSessions>,
    /// libvirt's pool of the LUNs.
    pub pool: Option<LunPool>,
}

/// A libvirt pool whose volumes are LUNs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LunPool {
    /// Its name.
    pub name: String,
    /// Where it has its volumes; `None` where they have no place on the host.
    pub path: Option<AbsPath>,
}

/// A target to which hypervisors' kernels are logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelSessions {
    /// All portals, as `ADDRESS:PORT`.
    pub portals: Vec<String>,
    /// The block device of each image, by the image's file name.
    pub devices: BTreeMap<String, AbsPath>,
}

/// One LUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lun {
    /// Its number.
    pub number: u8,
    /// The serial number that it should show.
    pub serial: String,
    /// What is behind it on the server.
    pub backing: AbsPath,
}

/// What an initiator proves with CHAP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The secret; `None` when this command did not read it.
    pub secret: Option<Secret>,
}

/// A directory that QEMU reaches by URL (qemu-block-drivers(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectDirectory {
    /// What comes before a file's name: `nfs://10.77.0.11/srv/vmstore/`.
    pub before: String,
    /// What comes after it: `?uid=0&gid=0`.
    pub after: String,
    /// What people call this client of QEMU's: `GlusterFS`.
    pub kind: &'static str,
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
    /// NFSv3, as a client of its own.
    Nfs {
        /// The export.
        export: NfsExport,
        /// Addresses that the export lets in.
        allowed: Vec<String>,
        /// Whether it is offered with NFSv3 at all.
        v3: bool,
    },
    /// An iSCSI initiator of its own.
    Iscsi {
        /// The target.
        target: Box<LunTarget>,
        /// Addresses that the target lets in.
        allowed: Vec<String>,
    },
}

/// An NFS export as a client of its own reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsExport {
    /// The server's address.
    pub server: String,
    /// The exported directory.
    pub path: AbsPath,
}

impl Client {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gfapi { .. } => "libgfapi",
            Self::Nfs { .. } => "NFSv3",
            Self::Iscsi { .. } => "iSCSI",
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
    /// LUNs that an initiator has reserved for itself, with the reservation in words.
    #[serde(default)]
    pub reserved: BTreeMap<String, String>,
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
    /// It was let in although the file does not name this machine.
    LetIn {
        /// What it reached.
        reason: String,
        /// What keeps strangers out.
        remedy: String,
    },
    /// It was used and failed.
    Failed {
        /// Why.
        reason: String,
    },
}

impl NoClient {
    /// Why, in one sentence.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::NotApplicable { reason, .. } | Self::LetIn { reason, .. } | Self::Failed { reason } => {
                reason
            }
        }
    }

    /// What can be done about it, where that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Self::NotApplicable { remedy, .. } | Self::LetIn { remedy, .. } => Some(remedy),
            Self::Failed { .. } => None,
        }
    }
}

/// The address from which this machine talks to one of these servers; sends nothing.
#[must_use]
pub fn own_address(servers: &[String], port: u16) -> Option<IpAddr> {
    servers.iter().find_map(|server| {
        let target = (server.as_str(), port).to_socket_addrs().ok()?.next()?;
        let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(target).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}

/// Tells whether an entry of a list of clients lets an address in: the address, a name of it, or a pattern with `*`.
#[must_use]
pub fn names(entry: &str, address: IpAddr) -> bool {
    if let Some((start, _)) = entry.split_once('*') {
        return address.to_string().starts_with(start);
    }
    (entry, 0).to_socket_addrs().is_ok_and(|mut all| all.any(|found| found.ip() == address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_lets_in_its_own_address_or_those_of_its_pattern() {
        let here: IpAddr = [10, 77, 0, 1].into();
        assert!(names("10.77.0.1", here) && names("10.77.*", here) && names("*", here));
        assert!(!names("10.77.0.11", here) && !names("10.78.*", here));
    }
}
