//! Where an image is, as the hypervisors reach it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::AbsPath;

/// Image formats that stor creates and attaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// The guest's sectors as they are.
    #[default]
    Raw,
    /// QEMU copy-on-write, version 3.
    Qcow2,
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        })
    }
}

/// How a hypervisor reaches an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageLocation {
    /// A file below a mount.
    File(AbsPath),
    /// A block device: a LUN that the host's kernel is logged in to.
    Device(AbsPath),
    /// A file on a GlusterFS volume through libgfapi.
    Gluster {
        /// Servers, in the order in which they are tried.
        servers: Vec<String>,
        /// Volume.
        volume: String,
        /// Path within the volume, without a leading slash.
        path: String,
    },
    /// A file on an NFS export through libnfs.
    Nfs {
        /// The server's address.
        server: String,
        /// Path on the server.
        path: AbsPath,
        /// Number of the user as whom QEMU reads and writes.
        uid: u32,
        /// Number of the group.
        gid: u32,
    },
    /// A LUN of an iSCSI target through libiscsi.
    Iscsi {
        /// The portal's address.
        address: String,
        /// The portal's port.
        port: u16,
        /// The target's name.
        target: String,
        /// The LUN's number.
        lun: u8,
        /// The name with which the guest logs in.
        initiator: String,
        /// How it proves who it is, if it has to.
        auth: Option<IscsiAuth>,
    },
}

/// How a guest proves to an iSCSI target who it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct IscsiAuth {
    /// The CHAP user.
    pub user: String,
    /// What the libvirt secret with the value is for (its `usage`).
    pub usage: String,
}

impl fmt::Display for ImageLocation {
    /// Shows the path, or QEMU's URL (`qemu-block-drivers(7)`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Device(path) => path.fmt(f),
            Self::Gluster { servers, volume, path } => {
                write!(f, "gluster://{}/{volume}/{path}", servers.first().map_or("", String::as_str))
            }
            Self::Iscsi { address, port, target, lun, .. } => {
                write!(f, "iscsi://{address}:{port}/{target}/{lun}")
            }
            Self::Nfs { server, path, uid, gid } => write!(f, "nfs://{server}{path}?uid={uid}&gid={gid}"),
        }
    }
}
