//! The ownership record: what stor created on a host, so that it can be told from what others made, and removed later.
//!
//! Lives on each host as `/var/lib/stor/NAME.json`. An entry is written *before* the resource is made, so that a
//! killed apply never leaves a resource that nobody owns.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{AbsPath, ClusterName};

/// What kind of resource an entry of the record stands for; decides how it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwnedKind {
    /// A file that stor wrote whole; `name` is its path.
    File,
    /// A marked block in somebody else's file; `name` is the file's path.
    Block,
    /// A systemd unit file that stor wrote and enabled; `name` is the unit's name.
    Unit,
    /// A service of the distribution that was not enabled before stor enabled it; `name` is the unit's name.
    Service,
    /// A directory that stor made; removed only when empty. `name` is its path.
    Directory,
    /// A directory with data (a brick, an export): never removed unless told by name.
    DataDirectory,
    /// A GlusterFS peer that stor probed; `name` is its address.
    GlusterPeer,
    /// A GlusterFS volume; `name` is the volume's name.
    GlusterVolume,
    /// A libvirt storage pool; `name` is the pool's name.
    Pool,
    /// An image; never removed unless told by name.
    Image,
    /// A libvirt domain that stor defined; `name` is the domain's name.
    Guest,
}

/// One resource that stor created on a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owned {
    /// The kind.
    pub kind: OwnedKind,
    /// The name, unique within the kind on its host.
    pub name: String,
    /// The storage that it belongs to, if any, as the cluster file called it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// What removal needs to know besides the name (a mount path, a block's marker ...), sorted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<String, String>,
}

impl Owned {
    /// Makes an entry without detail.
    #[must_use]
    pub fn new(kind: OwnedKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), storage: None, detail: BTreeMap::new() }
    }

    /// Says which storage it belongs to.
    #[must_use]
    pub fn of_storage(mut self, storage: &super::StorageId) -> Self {
        self.storage = Some(storage.as_str().to_owned());
        self
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.detail.insert(key.to_owned(), value.into());
        self
    }

    /// Tells whether two entries mean the same resource (details apart).
    #[must_use]
    pub fn same_resource(&self, other: &Self) -> bool {
        self.kind == other.kind && self.name == other.name
    }
}

/// The ownership record of one cluster on one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Format of the record; 1.
    pub version: u32,
    /// The cluster's name.
    pub cluster: String,
    /// What stor created, sorted.
    pub owned: BTreeSet<Owned>,
}

impl Record {
    /// Makes an empty record.
    #[must_use]
    pub fn empty(cluster: &ClusterName) -> Self {
        Self { version: 1, cluster: cluster.as_str().to_owned(), owned: BTreeSet::new() }
    }

    /// Tells whether stor created this resource here.
    #[must_use]
    pub fn owns(&self, kind: OwnedKind, name: &str) -> bool {
        self.owned.iter().any(|entry| entry.kind == kind && entry.name == name)
    }

    /// Where the record of `cluster` lives on every host.
    #[must_use]
    pub fn path(cluster: &ClusterName) -> AbsPath {
        #[expect(clippy::expect_used, reason = "a cluster name is [a-z0-9-], always a valid path component")]
        AbsPath::new(format!("/var/lib/stor/{cluster}.json")).expect("cluster names are valid in paths")
    }
}
