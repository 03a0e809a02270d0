//! What the cluster file says about one GlusterFS volume. Imports only `model`.

use std::collections::BTreeMap;

use crate::model::{AbsPath, HostId};

/// A replicated GlusterFS volume, named like its storage entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlusterSpec {
    /// Copies of each file: 2 or 3.
    pub replica: u32,
    /// Whether the last brick of three holds metadata only.
    pub arbiter: Arbiter,
    /// Bricks in order; a multiple of `replica`.
    pub bricks: Vec<Brick>,
    /// How hypervisors reach it.
    pub access: Access,
    /// Where hypervisors mount it; default `/var/lib/libvirt/images/NAME`.
    pub mount: AbsPath,
    /// Further addresses that may use the volume besides hypervisors and bricks (e.g. the machine that runs stor).
    pub allow: Vec<String>,
    /// Whether `gluster volume create` gets `force` (bricks on the root file system or on a mount point itself).
    pub force: Force,
    /// Volume options besides those of the `virt` group, which win over it.
    pub options: BTreeMap<String, String>,
}

/// One brick.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Brick {
    /// Its host.
    pub host: HostId,
    /// Its directory there.
    pub path: AbsPath,
}

/// Whether the third brick is an arbiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arbiter {
    /// All bricks hold data.
    No,
    /// The last brick of each replica set holds metadata only.
    Yes,
}

/// How hypervisors reach the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// FUSE mount and a directory pool on it.
    Mount,
    /// QEMU's libgfapi; nothing mounted, no pool.
    Direct,
}

/// Whether `force` is passed to `gluster volume create`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It is not.
    No,
    /// The file says so.
    Yes,
}
