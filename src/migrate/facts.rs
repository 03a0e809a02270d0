//! What is asked on a host before a guest moves there or away, or starts there: one batch of queries, and its answers.
//!
//! Queries and pure readers; imports `spec`, `storage`, `libvirt` (summaries) and `model`. What the facts mean for a
//! migration is decided in `preflight`.

mod block;
pub mod chain;
mod places;

pub use block::BlockDevice;
pub use places::{Misplaced, PlaceFacts, disk_path, disk_url, storage_of};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use self::chain::{Image, ImageFacts};
use self::places::Places;
use crate::libvirt::domain_xml::{DiskSource, DomainSummary, Layer};
use crate::libvirt::{DomainFacts, JobStats, NodeFacts, uri, xl, xml};
use crate::model::{Answer, ByteSize, Command, HostId, Query};
use crate::spec::Cluster;

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
    /// Where the guest's data lies: its images, the layers below them, its state.
    pub places: PlaceFacts,
    /// What the guest's images are and what is below them; only asked on a source.
    pub images: BTreeMap<Image, ImageFacts>,
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
    /// The guest's images whose locks are not answered; only asked on a destination.
    pub silent_locks: BTreeSet<String>,
}

/// What has to be asked about one guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Questions {
    places: Places,
    images: Vec<Image>,
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
        let layers = guest.disks.iter().flat_map(|disk| disk.layers.iter().map(|layer| &layer.source));
        let sources = guest.disks.iter().map(|disk| &disk.source).chain(layers);
        let state = guest.state.iter().filter_map(|state| state.place.clone());
        Self {
            places: Places::of(host, sources, state, cluster),
            images: Vec::new(),
            bridges: sorted(bridges.filter_map(|interface| interface.source.clone()).collect()),
            boot_files: sorted(guest.boot_files.iter().cloned().collect()),
            xen: guest.is_xen(),
            peer: None,
        }
    }

    /// Asks also what the guest's images are and what is below them.
    #[must_use]
    pub fn with_images(mut self, guest: &DomainSummary, cluster: &Cluster) -> Self {
        self.images = chain::images(&guest.disks, cluster);
        self
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
        batch.extend(self.places.queries());
        batch.extend(self.images.iter().map(chain::query));
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
    pub fn read(&self, host: &HostId, cluster: &Cluster, answers: &[Answer]) -> ShellFacts {
        let mut answers = answers.iter();
        let mut next = || answers.next();
        ShellFacts {
            memory_available: known(next(), "cat /proc/meminfo").and_then(|text| memory_available(&text)),
            pools: known(next(), "virsh pool-list").map(|text| names(&text)),
            networks: known(next(), "virsh net-list").map(|text| names(&text)),
            places: self.places.read(host, cluster, &mut next),
            images: self.images.iter().map(|image| (image.clone(), chain::read(image, next()))).collect(),
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

/// What has to be asked about layers that only a host's answers brought to light.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerQuestions(Places);

impl LayerQuestions {
    /// What to ask a host; `None` where the first batch has all of it.
    #[must_use]
    pub fn about(host: &HostId, layers: &[Layer], known: &DomainSummary, cluster: &Cluster) -> Option<Self> {
        let named: BTreeSet<&DiskSource> = known
            .disks
            .iter()
            .flat_map(|disk| disk.layers.iter().map(|layer| &layer.source).chain([&disk.source]))
            .collect();
        let new = layers.iter().map(|layer| &layer.source).filter(|source| !named.contains(source));
        let places = Places::of(host, new, std::iter::empty(), cluster);
        (places != Places::default()).then_some(Self(places))
    }

    /// The batch.
    #[must_use]
    pub fn queries(&self) -> Vec<Query> {
        self.0.queries()
    }

    /// Reads its answers.
    #[must_use]
    pub fn read(&self, host: &HostId, cluster: &Cluster, answers: &[Answer]) -> PlaceFacts {
        let mut answers = answers.iter();
        self.0.read(host, cluster, &mut || answers.next())
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
    /// See [`HostFacts::places`].
    pub places: PlaceFacts,
    /// See [`HostFacts::images`].
    pub images: BTreeMap<Image, ImageFacts>,
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

fn host_uuid(capabilities: &str) -> Known<String> {
    let root = xml::parse(capabilities, "the capabilities").map_err(|error| error.to_string())?;
    let uuid = root.text_at("host/uuid").map(str::to_ascii_lowercase);
    uuid.ok_or_else(|| "the capabilities hold no host UUID".to_owned())
}

#[cfg(test)]
mod tests;
