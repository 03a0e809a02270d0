//! The ownership record: what stor created on a host, so that it can be told from what others made, and removed later.
//!
//! Lives on each host as `/var/lib/stor/NAME.json`. An entry is written *before* the resource is made, so that a
//! killed apply never leaves a resource that nobody owns.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{AbsPath, ClusterName, Command, HostId, Observations, Query, Unknown};

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
    /// A file of exports(5) that stor wrote for the kernel's NFS server; `name` is its path.
    KernelExport,
    /// An export file that stor wrote for nfs-ganesha, with the line that includes it; `name` is the file's path.
    GaneshaExport,
    /// A configuration file that stor wrote for tgt, with the target that it describes; `name` is the file's path, the details
    /// `iqn` and `user` say what tgtd has to forget.
    IscsiTarget,
    /// A file behind a LUN: never removed unless told by name. `name` is its path.
    BackingFile,
    /// A block device behind a LUN, which the user gave; `name` is its path, the detail `device` by what it is known after a boot. It is only
    /// ever forgotten, never written to.
    BackingDevice,
    /// A logical volume behind a LUN: never removed unless told by name. `name` is `GROUP/NAME`.
    LogicalVolume,
    /// A target that stor made with the kernel's LIO; `name` is its name, the detail `objects` what is behind its LUNs, `stamp`
    /// the file with the stamp of its secret.
    LioTarget,
    /// A target that stor had a hypervisor's kernel log in to; `name` is the target's, the details `portals` and `devices` say
    /// where and what came of it, `stamp` is the file with the stamp of its secret.
    IscsiSession,
    /// A libvirt storage pool; `name` is the pool's name.
    Pool,
    /// A libvirt secret; `name` is its UUID, the detail `stamp` the file with the stamp of its value.
    Secret,
    /// An image; never removed unless told by name.
    Image,
    /// A libvirt domain that stor defined; `name` is the domain's name.
    Guest,
    /// Rules in a host's firewall, marked with the cluster's name; `name` is the tool's.
    Firewall,
    /// An SELinux boolean that stor set; `name` is its name, the detail `former` its value before.
    Boolean,
    /// A hypervisor of the cluster, let in to its storage; `name` is its name and address, the detail `here` says that it is
    /// this very host. Nothing is removed with it ([`super::members`]).
    Member,
    /// A host or client that the user named as gone for good; `name` is its name or address.
    DeadHost,
}

impl OwnedKind {
    /// Tells whether an entry stands for no resource of its host, but for something to remember.
    #[must_use]
    pub fn is_note(self) -> bool {
        matches!(self, Self::Member | Self::DeadHost)
    }
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

/// Says why a host's record cannot be used; absent is no error but an empty record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The host or its answer is unknown.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// The file is there but cannot be read.
    #[error("host {host}: {path} cannot be read: {reason}")]
    Unreadable {
        /// The host.
        host: HostId,
        /// The record's path.
        path: AbsPath,
        /// `cat`'s own message.
        reason: String,
    },
    /// The file holds no record: edited by hand, or not written by stor.
    #[error("host {host}: {path} is damaged: {reason}")]
    Damaged {
        /// The host.
        host: HostId,
        /// The record's path.
        path: AbsPath,
        /// The parser's message.
        reason: String,
    },
    /// The file names another cluster or a version that this stor does not know.
    #[error("host {host}: {path} belongs to {found}, not to version 1 of cluster {cluster}")]
    Foreign {
        /// The host.
        host: HostId,
        /// The record's path.
        path: AbsPath,
        /// What it says.
        found: String,
        /// This cluster.
        cluster: ClusterName,
    },
}

impl Record {
    /// The query that reads the record of `cluster` on any host.
    #[must_use]
    pub fn query(cluster: &ClusterName) -> Query {
        Query::new(Command::new("cat").arg(Self::path(cluster).as_str()))
    }

    /// Reads the record of `cluster` as `host` showed it; a host that has none has an empty one.
    ///
    /// # Errors
    /// [`RecordError`] when the host was not observed, or the file is unreadable, damaged or of another cluster.
    pub fn observed(seen: &Observations, cluster: &ClusterName, host: &HostId) -> Result<Self, RecordError> {
        let answer = seen.answer(host, &Self::query(cluster))?;
        let (host, path) = (host.clone(), Self::path(cluster));
        if !answer.ok() {
            // strerror(ENOENT) in the C locale, which every command runs in.
            if answer.stderr.trim_end().ends_with("No such file or directory") {
                return Ok(Self::empty(cluster));
            }
            return Err(RecordError::Unreadable { host, path, reason: answer.stderr.trim().to_owned() });
        }
        let record: Self = match serde_json::from_str(&answer.stdout) {
            Ok(record) => record,
            Err(error) => return Err(RecordError::Damaged { host, path, reason: error.to_string() }),
        };
        if record.version != 1 || record.cluster != cluster.as_str() {
            let found = format!("version {} of cluster {}", record.version, record.cluster);
            return Err(RecordError::Foreign { host, path, found, cluster: cluster.clone() });
        }
        Ok(record)
    }

    /// The record as it is written, with a final newline.
    #[must_use]
    pub fn render(&self) -> String {
        #[expect(
            clippy::expect_used,
            reason = "strings, numbers and maps with string keys always have a JSON form"
        )]
        let json = serde_json::to_string_pretty(self).expect("a record has a JSON form");
        json + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Answer, HostSeen};

    fn observed(status: i32, stdout: &str, stderr: &str) -> Result<Record, RecordError> {
        let (cluster, host) = ("homelab".parse().unwrap(), "kvm1".parse::<HostId>().unwrap());
        let answer = Answer { status: Some(status), stdout: stdout.into(), stderr: stderr.into() };
        let mut seen = Observations::default();
        seen.insert(host.clone(), HostSeen::Answered([(Record::query(&cluster), answer)].into()));
        Record::observed(&seen, &cluster, &host)
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let mut record = Record::empty(&"homelab".parse().unwrap());
        record.owned.insert(Owned::new(OwnedKind::Pool, "gfs").with("path", "/mnt"));
        assert_eq!(observed(0, &record.render(), ""), Ok(record));
    }

    #[test]
    fn absent_unreadable_damaged_and_foreign_records_are_told_apart() {
        let path = "/var/lib/stor/homelab.json";
        let absent = observed(1, "", &format!("cat: {path}: No such file or directory\n")).unwrap();
        assert!(absent.owned.is_empty());
        let unreadable = observed(1, "", &format!("cat: {path}: Input/output error\n"));
        assert!(matches!(unreadable, Err(RecordError::Unreadable { .. })));
        for torn in ["", "{\"version\": 1, \"clu", "[]"] {
            assert!(matches!(observed(0, torn, ""), Err(RecordError::Damaged { .. })), "{torn:?}");
        }
        for other in
            [r#"{"version":1,"cluster":"x","owned":[]}"#, r#"{"version":2,"cluster":"homelab","owned":[]}"#]
        {
            assert!(matches!(observed(0, other, ""), Err(RecordError::Foreign { .. })), "{other}");
        }
    }
}
