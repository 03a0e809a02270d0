//! What is asked on a host before a guest moves there or away, or starts there: one batch of queries, and its answers.
//!
//! Queries and pure readers; imports `spec`, `storage`, `libvirt` (summaries) and `model`. What the facts mean for a
//! migration is decided in `preflight`.

mod block;

pub use block::BlockDevice;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use crate::libvirt::domain_xml::{DiskSource, DomainSummary};
use crate::libvirt::{DomainFacts, JobStats, NodeFacts, uri, xl, xml};
use crate::model::{Answer, ByteSize, Command, HostId, Query};
use crate::spec::Cluster;
use crate::storage::probe::{LunTarget, Way};
use crate::storage::{self, direct_probe, lun_probe};

/// A fact, or why it could not be learnt.
pub type Known<T> = Result<T, String>;

/// A port of libvirt's range for migration streams that is only used when 63 migrations run at once: a connection
/// attempt to a port where QEMU waits for a guest would break that migration (`migration_port_max` in qemu.conf).
pub const PROBED_PORT: u16 = 49215;

/// What one host shows about the file behind a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFacts {
    /// The file itself; `None` when it is known not to exist.
    pub stat: Known<Option<Stat>>,
    /// The mount that holds its directory; `None` when the directory is known not to exist.
    pub mount: Known<Option<Mount>>,
}

/// Identity of a file within its file system (`stat(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Inode; on GlusterFS it is derived from the file's gfid, on NFS it is the file id.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
}

/// One mounted file system (`findmnt(8)`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub target: String,
    /// What is mounted: `10.77.0.11:/gfs`, `/dev/sda1`.
    pub source: String,
    /// File system type.
    pub kind: String,
    /// Mount options.
    pub options: String,
}

/// How a connection attempt to a port for migration streams ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortSeen {
    /// The packet got through: something listens, or the host itself said that nothing does.
    Reachable,
    /// A firewall or route stopped it.
    Blocked(String),
    /// The attempt says nothing.
    Unclear(String),
}

/// What the source saw when it reached for the destination as its libvirt daemon will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerFacts {
    /// The URI that was tried.
    pub uri: String,
    /// UUID of the host that answered.
    pub reached: Known<String>,
    /// Whether the ports for migration streams can be reached.
    pub port: PortSeen,
}

/// What one host shows, as far as one guest's move is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// The host.
    pub host: HostId,
    /// Its address in the cluster file.
    pub address: String,
    /// What libvirt says about the host.
    pub node: NodeFacts,
    /// All its domains.
    pub domains: Vec<DomainFacts>,
    /// The guest's files by path.
    pub files: BTreeMap<String, FileFacts>,
    /// The guest's files that QEMU reaches by URL, and whether they could be opened here.
    pub remote: BTreeMap<String, Known<()>>,
    /// The guest's block devices by path; `None` when it is known that there is no such device.
    pub devices: BTreeMap<String, Known<Option<BlockDevice>>>,
    /// Memory that a new process can have (`MemAvailable`).
    pub memory_available: Known<ByteSize>,
    /// The guest's bridges, and whether they exist.
    pub bridges: BTreeMap<String, bool>,
    /// The guest's boot files, and whether they can be read.
    pub boot_files: BTreeMap<String, bool>,
    /// Pools that are active.
    pub pools: Known<BTreeSet<String>>,
    /// Networks that are active.
    pub networks: Known<BTreeSet<String>>,
    /// What the CPU lacks for the guest; only asked on a destination.
    pub cpu: Known<Result<(), String>>,
    /// What this host's Xen can do for guests (`virt_caps` of xl(1), `info`); empty for a guest of another kind.
    pub xen: Known<BTreeSet<String>>,
    /// How the destination looks from here; only asked on a source.
    pub peer: Option<PeerFacts>,
    /// The guest's job under way here, if any.
    pub job: Option<JobStats>,
}

/// Where a disk's file is on every host: its own path, or its pool's place in the cluster file.
#[must_use]
pub fn disk_path(source: &DiskSource, cluster: &Cluster) -> Option<String> {
    match source {
        DiskSource::File(path) => Some(path.clone()),
        DiskSource::Volume { pool, volume } => {
            let found = cluster.storage.iter().find(|(id, _)| id.as_str() == pool.as_str());
            found.and_then(|(_, storage)| Some(format!("{}/{volume}", storage.mounted_at()?)))
        }
        _ => None,
    }
}

/// QEMU's URL of a disk that it reaches itself (qemu-block-drivers(7)); `None` for other disks, and for protocols that
/// need a secret or a configuration of their own: of LUNs, only those of the cluster file can be opened.
#[must_use]
pub fn disk_url(source: &DiskSource, cluster: &Cluster) -> Option<String> {
    located(source, cluster).map(|(url, _)| url)
}

/// A disk that QEMU reaches itself, and how it is opened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Remote {
    url: String,
    query: Query,
    kind: RemoteKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RemoteKind {
    File,
    Lun,
}

impl Remote {
    fn file(url: String) -> Self {
        let query = direct_probe::open(&url);
        Self { url, query, kind: RemoteKind::File }
    }

    fn opened(&self, answer: &Answer) -> Known<()> {
        match self.kind {
            RemoteKind::File => direct_probe::opened(answer),
            RemoteKind::Lun => lun_probe::opened(answer),
        }
    }
}

/// The disk as a host opens it.
fn remote(host: &HostId, source: &DiskSource, cluster: &Cluster) -> Option<Remote> {
    let (url, lun) = located(source, cluster)?;
    let Some((target, image)) = lun else { return Some(Remote::file(url)) };
    let query = lun_probe::open(&target, host, &image);
    Some(Remote { url, query, kind: RemoteKind::Lun })
}

/// QEMU's URL of a disk, and which LUN of which target it is, if it is one.
fn located(source: &DiskSource, cluster: &Cluster) -> Option<(String, Option<(LunTarget, String)>)> {
    let DiskSource::Network { protocol, name, hosts } = source else { return None };
    let host = hosts.first()?;
    match protocol.as_str() {
        "gluster" => Some((format!("gluster://{host}/{name}"), None)),
        "nfs" => Some((format!("nfs://{host}{name}?uid=0&gid=0"), None)),
        "iscsi" => {
            let (target, lun) = name.rsplit_once('/')?;
            let targets =
                cluster.storage.keys().filter_map(|id| match storage::backend(cluster, id)?.probe().way {
                    Way::Luns(target) => Some(target),
                    Way::Mounted(_) | Way::Direct(_) => None,
                });
            // Another server may have a target of the same name.
            let own = targets.into_iter().find(|own| own.iqn == target && own.address == *host)?;
            let (image, _) = own.luns.iter().find(|(_, own)| own.number.to_string() == lun)?;
            let silent = own.login.as_ref().is_some_and(|login| login.secret.is_none());
            let image = image.clone();
            (!silent).then(|| (format!("iscsi://{host}/{name}"), Some((*own, image))))
        }
        _ => None,
    }
}

fn device(source: &DiskSource) -> Option<String> {
    match source {
        DiskSource::Block(path) => Some(path.clone()),
        _ => None,
    }
}

/// What has to be asked about one guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Questions {
    files: Vec<String>,
    remote: Vec<Remote>,
    devices: Vec<String>,
    bridges: Vec<String>,
    boot_files: Vec<String>,
    xen: bool,
    peer: Option<(String, String)>,
}

impl Questions {
    /// What to ask a host about a guest.
    #[must_use]
    pub fn about(host: &HostId, guest: &DomainSummary, cluster: &Cluster) -> Self {
        let bridges = guest.interfaces.iter().filter(|interface| interface.kind == "bridge");
        let sorted = |names: BTreeSet<String>| names.into_iter().collect();
        Self {
            files: sorted(guest.disks.iter().filter_map(|disk| disk_path(&disk.source, cluster)).collect()),
            remote: guest
                .disks
                .iter()
                .filter_map(|disk| remote(host, &disk.source, cluster))
                .collect::<BTreeSet<Remote>>()
                .into_iter()
                .collect(),
            devices: sorted(guest.disks.iter().filter_map(|disk| device(&disk.source)).collect()),
            bridges: sorted(bridges.filter_map(|interface| interface.source.clone()).collect()),
            boot_files: sorted(guest.boot_files.iter().cloned().collect()),
            xen: guest.is_xen(),
            peer: None,
        }
    }

    /// Asks also how the destination at `address` looks from here.
    #[must_use]
    pub fn towards(mut self, cluster: &Cluster, address: &str) -> Self {
        self.peer = Some((uri::peer(&cluster.name, address), address.to_owned()));
        self
    }

    /// The batch, in the order in which [`Questions::read`] expects the answers.
    #[must_use]
    pub fn queries(&self) -> Vec<Query> {
        let virsh = |args: &[&str]| Command::new("virsh").arg("-q").args(args.iter().copied());
        let local = |what: &str| Query::new(virsh(&[what, "--name"]));
        let mut batch =
            vec![Query::new(Command::new("cat").arg("/proc/meminfo")), local("pool-list"), local("net-list")];
        for path in &self.files {
            batch.push(Query::new(Command::new("stat").args(["-L", "-c", "%i %s", "--", path])));
            let parent = path.rsplit_once('/').map_or("/", |(parent, _)| parent);
            let findmnt = Command::new("findmnt").args(["-J", "-o", "TARGET,SOURCE,FSTYPE,OPTIONS", "-T"]);
            batch.push(Query::new(findmnt.arg(parent)));
        }
        batch.extend(self.remote.iter().map(|remote| remote.query.clone()));
        batch.extend(self.devices.iter().map(|path| block::query(path)));
        for bridge in &self.bridges {
            // Not /sys/class/net: a container may show that of another network namespace.
            let link = ["-j", "-d", "link", "show", "dev", bridge];
            batch.push(Query::new(Command::new("ip").args(link)));
        }
        for path in &self.boot_files {
            batch.push(Query::new(Command::new("test").args(["-r", path])));
        }
        if self.xen {
            batch.push(xl::query());
        }
        if let Some((uri, address)) = &self.peer {
            // The other daemon may have to start first, and asks each QEMU what it can do before it answers.
            batch.push(Query::patient(virsh(&["-c", uri, "capabilities"])));
            batch.push(Query::new(knock(address)));
        }
        batch
    }

    /// Reads the answers of the batch into the facts that come from the host's shell.
    #[must_use]
    pub fn read(&self, answers: &[Answer]) -> ShellFacts {
        let mut answers = answers.iter();
        let mut next = || answers.next();
        ShellFacts {
            memory_available: known(next(), "cat /proc/meminfo").and_then(|text| memory_available(&text)),
            pools: known(next(), "virsh pool-list").map(|text| names(&text)),
            networks: known(next(), "virsh net-list").map(|text| names(&text)),
            files: self
                .files
                .iter()
                .map(|path| (path.clone(), FileFacts { stat: stat(next()), mount: mount(next()) }))
                .collect(),
            remote: self
                .remote
                .iter()
                .map(|remote| {
                    let opened =
                        next().map_or(Err("it was not asked".to_owned()), |answer| remote.opened(answer));
                    (remote.url.clone(), opened)
                })
                .collect(),
            devices: self.devices.iter().map(|path| (path.clone(), block::read(next()))).collect(),
            bridges: self.bridges.iter().map(|name| (name.clone(), next().is_some_and(is_bridge))).collect(),
            boot_files: self
                .boot_files
                .iter()
                .map(|path| (path.clone(), next().is_some_and(Answer::ok)))
                .collect(),
            xen: if self.xen {
                known(next(), "xl info").map(|text| xl::virt_caps(&text))
            } else {
                Ok(BTreeSet::new())
            },
            peer: self.peer.as_ref().map(|(uri, _)| PeerFacts {
                uri: uri.clone(),
                reached: known(next(), "virsh capabilities").and_then(|text| host_uuid(&text)),
                port: port(next()),
            }),
        }
    }
}

/// What the batch of [`Questions`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellFacts {
    /// See [`HostFacts::memory_available`].
    pub memory_available: Known<ByteSize>,
    /// See [`HostFacts::pools`].
    pub pools: Known<BTreeSet<String>>,
    /// See [`HostFacts::networks`].
    pub networks: Known<BTreeSet<String>>,
    /// See [`HostFacts::files`].
    pub files: BTreeMap<String, FileFacts>,
    /// See [`HostFacts::remote`].
    pub remote: BTreeMap<String, Known<()>>,
    /// See [`HostFacts::devices`].
    pub devices: BTreeMap<String, Known<Option<BlockDevice>>>,
    /// See [`HostFacts::bridges`].
    pub bridges: BTreeMap<String, bool>,
    /// See [`HostFacts::boot_files`].
    pub boot_files: BTreeMap<String, bool>,
    /// See [`HostFacts::xen`].
    pub xen: Known<BTreeSet<String>>,
    /// See [`HostFacts::peer`].
    pub peer: Option<PeerFacts>,
}

/// Tries to connect to [`PROBED_PORT`]; ssh is the one client that every hypervisor has, because migration needs it.
fn knock(address: &str) -> Command {
    let port = PROBED_PORT.to_string();
    let options =
        ["-F", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=3", "-o", "ConnectionAttempts=1"];
    let command = Command::new("ssh").args(options).args(["-p", &port, "--", address, "true"]);
    command.deadline(Duration::from_secs(6))
}

/// Reads what ssh says: only a refusal by the host itself, or a listener that does not speak ssh, proves the way open.
fn port(answer: Option<&Answer>) -> PortSeen {
    let Some(answer) = answer else { return PortSeen::Unclear("it was not asked".to_owned()) };
    let said = answer.stderr.trim();
    let has = |text: &str| said.contains(text);
    if has("Connection refused") || has("banner exchange") || has("kex_exchange_identification") {
        PortSeen::Reachable
    } else if has("timed out") || has("No route to host") || has("unreachable") || has("prohibited") {
        PortSeen::Blocked(last_line(said))
    } else {
        PortSeen::Unclear(last_line(said))
    }
}

fn last_line(text: &str) -> String {
    text.trim().lines().next_back().unwrap_or("no message").trim().to_owned()
}

/// The output of a query that ended well, or why there is none.
fn known(answer: Option<&Answer>, what: &str) -> Known<String> {
    match answer {
        None => Err(format!("`{what}` was not answered")),
        Some(answer) if answer.ok() => Ok(answer.stdout.clone()),
        Some(Answer { status: None, .. }) => Err(format!("`{what}` did not finish in time")),
        Some(answer) => Err(format!("`{what}` failed: {}", last_line(&answer.stderr))),
    }
}

fn memory_available(text: &str) -> Known<ByteSize> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib =
        line.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|n| n.trim().parse::<u64>().ok());
    kib.map(|kib| ByteSize::from_bytes(kib << 10))
        .ok_or_else(|| "/proc/meminfo has no MemAvailable".to_owned())
}

fn names(text: &str) -> BTreeSet<String> {
    text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

#[derive(Deserialize)]
struct Link {
    linkinfo: Option<LinkInfo>,
}

#[derive(Deserialize)]
struct LinkInfo {
    info_kind: Option<String>,
}

/// Whether `ip -j -d link show` shows a bridge, the kernel's or Open vSwitch's; it fails when there is no such device.
fn is_bridge(answer: &Answer) -> bool {
    let links: Vec<Link> = serde_json::from_str(&answer.stdout).unwrap_or_default();
    let kind = |link: &Link| link.linkinfo.as_ref().and_then(|info| info.info_kind.clone());
    answer.ok() && links.iter().filter_map(kind).any(|kind| matches!(kind.as_str(), "bridge" | "openvswitch"))
}

/// A file that does not exist is an answer; one that cannot be asked for is not.
fn stat(answer: Option<&Answer>) -> Known<Option<Stat>> {
    if let Some(answer) = answer
        && answer.status.is_some_and(|status| status != 0)
        && (answer.stderr.contains("No such file or directory") || answer.stderr.contains("Not a directory"))
    {
        return Ok(None);
    }
    let text = known(answer, "stat")?;
    let fields: Vec<u64> = text.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    match fields.as_slice() {
        [inode, size] => Ok(Some(Stat { inode: *inode, size: *size })),
        _ => Err(format!("`stat` printed {:?}", text.trim())),
    }
}

#[derive(Deserialize)]
struct Findmnt {
    filesystems: Vec<FindmntEntry>,
}

#[derive(Deserialize)]
struct FindmntEntry {
    target: String,
    source: Option<String>,
    fstype: String,
    options: Option<String>,
}

/// `findmnt` ends with 1 and prints nothing when the directory does not exist.
fn mount(answer: Option<&Answer>) -> Known<Option<Mount>> {
    if answer.is_some_and(|answer| answer.status == Some(1) && answer.stdout.trim().is_empty()) {
        return Ok(None);
    }
    let text = known(answer, "findmnt")?;
    let found: Findmnt = serde_json::from_str(&text).map_err(|error| format!("`findmnt`: {error}"))?;
    // With mounts on top of each other, the last one is what a path leads to.
    Ok(found.filesystems.into_iter().next_back().map(|entry| Mount {
        target: entry.target,
        source: entry.source.unwrap_or_default(),
        kind: entry.fstype,
        options: entry.options.unwrap_or_default(),
    }))
}

fn host_uuid(capabilities: &str) -> Known<String> {
    let root = xml::parse(capabilities, "the capabilities").map_err(|error| error.to_string())?;
    let uuid = root.text_at("host/uuid").map(str::to_ascii_lowercase);
    uuid.ok_or_else(|| "the capabilities hold no host UUID".to_owned())
}

#[cfg(test)]
mod tests;
