//! Hypervisors without hosts: daemons that keep state, and migrations whose ending a test chooses.
//!
//! Implements the real traits, so that execute, converge and migrate are tested against behaviour and not against
//! expectations. No test logic here: a fake only does what libvirt would do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    Connector, DomainFacts, DomainState, Hypervisor, JobOperation, JobStats, Keeps, LibvirtError,
    MigrationRequest, NodeFacts, PauseReason, domain_xml, pool_xml,
};
use crate::model::HostSpec;
use crate::model::{ByteSize, HostId, Secret, SecretId};

mod daemon;
mod moving;

pub use moving::{Ending, Script};

/// One pool of a fake daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakePool {
    /// Its definition.
    pub xml: String,
    /// Whether it is started.
    pub active: bool,
    /// Whether it starts with the host.
    pub autostart: bool,
    /// How often it was rescanned.
    pub refreshed: u32,
}

/// One secret of a fake daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeSecret {
    /// Its definition.
    pub xml: String,
    /// Its value, once it was set.
    pub value: Option<Secret>,
}

/// One daemon and what it knows.
#[derive(Debug, Clone, PartialEq)]
pub struct FakeDaemon {
    /// Whether it can be reached.
    pub reachable: bool,
    /// The address of its host.
    pub address: String,
    /// What the host is.
    pub node: NodeFacts,
    /// Domains by name.
    pub domains: BTreeMap<String, DomainFacts>,
    /// Pools by name.
    pub pools: BTreeMap<String, FakePool>,
    /// What is kept of domains beside their definitions, by name.
    pub keeps: BTreeMap<String, Keeps>,
    /// Domains whose systems do not hear when they are asked to shut down.
    pub deaf: BTreeSet<String>,
    /// Secrets by UUID.
    pub secrets: BTreeMap<SecretId, FakeSecret>,
    /// What its CPU lacks for any guest; `None` when it lacks nothing.
    pub cpu_lacks: Option<String>,
}

/// Whether a fault strikes before a call takes effect or after it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Nothing was done.
    Before,
    /// It was done, but the caller is told that it was not.
    After,
}

/// Decides whether a call that changes something fails: host, action (`define guest web1`), moment.
pub type Fault = Arc<dyn Fn(&HostId, &str, Moment) -> bool + Send + Sync>;

/// Decides whether a call hangs, for as long as it says so: host, action (`look at a guest`, `define guest web1`).
pub type Hang = Arc<dyn Fn(&HostId, &str) -> bool + Send + Sync>;

#[derive(Default)]
struct State {
    daemons: BTreeMap<HostId, FakeDaemon>,
    scripts: BTreeMap<String, VecDeque<Script>>,
    jobs: BTreeMap<(HostId, String), moving::Job>,
    completed: BTreeMap<(HostId, String), JobStats>,
    calls: Vec<String>,
    requests: Vec<MigrationRequest>,
    fault: Option<Fault>,
    hang: Option<Hang>,
    forsaken: Vec<HostId>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All daemons of a cluster; clones share their state.
#[derive(Clone, Default)]
pub struct FakeConnector(Arc<Shared>);

impl FakeConnector {
    /// Makes one daemon per hypervisor of the cluster, without domains or pools.
    #[must_use]
    pub fn new(hosts: &BTreeMap<HostId, HostSpec>) -> Self {
        let fake = Self::default();
        for (index, host) in hosts.values().filter(|host| host.role.is_hypervisor()).enumerate() {
            let node = node(host.id.as_str(), index);
            let daemon = FakeDaemon {
                reachable: true,
                address: host.address.clone(),
                node,
                domains: BTreeMap::new(),
                pools: BTreeMap::new(),
                keeps: BTreeMap::new(),
                deaf: BTreeSet::new(),
                secrets: BTreeMap::new(),
                cpu_lacks: None,
            };
            fake.0.lock().daemons.insert(host.id.clone(), daemon);
        }
        fake
    }

    /// Reads or changes one daemon; `None` when the cluster has no such hypervisor.
    pub fn daemon<T>(&self, host: &HostId, work: impl FnOnce(&mut FakeDaemon) -> T) -> Option<T> {
        self.0.lock().daemons.get_mut(host).map(work)
    }

    /// Puts a domain of this XML on a host, persistent and in this state.
    ///
    /// # Errors
    /// [`LibvirtError::Xml`] when the XML is no domain's.
    pub fn put(&self, host: &HostId, xml: &str, state: DomainState) -> Result<(), LibvirtError> {
        let facts = facts(xml, state)?;
        self.daemon(host, |daemon| daemon.domains.insert(facts.name.clone(), facts));
        Ok(())
    }

    /// Chooses how the next migration of a guest goes; without a script it moves at once.
    pub fn script(&self, guest: &str, script: Script) {
        self.0.lock().scripts.entry(guest.to_owned()).or_default().push_back(script);
    }

    /// Makes calls that change something fail where `fault` says so.
    pub fn inject(&self, fault: Option<Fault>) {
        self.0.lock().fault = fault;
    }

    /// Makes calls hang where `hang` says so; `None` lets all that hang go on.
    pub fn stall(&self, hang: Option<Hang>) {
        self.0.lock().hang = hang;
        self.0.changed.notify_all();
    }

    /// Hosts whose connections were given up, in order.
    #[must_use]
    pub fn forsaken(&self) -> Vec<HostId> {
        self.0.lock().forsaken.clone()
    }

    /// Every call that changed something, in order, as `kvm1: define guest web1`.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.0.lock().calls.clone()
    }

    /// Every migration that was asked for, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<MigrationRequest> {
        self.0.lock().requests.clone()
    }
}

impl Connector for FakeConnector {
    fn open(&self, host: &HostId) -> Result<Arc<dyn Hypervisor>, LibvirtError> {
        let daemon = FakeHypervisor { host: host.clone(), shared: Arc::clone(&self.0) };
        daemon.wait_while_stalled("connect");
        match self.0.lock().daemons.get(host) {
            Some(found) if found.reachable => Ok(Arc::new(daemon)),
            _ => Err(unreachable(host)),
        }
    }

    fn forsake(&self, host: &HostId) {
        self.0.lock().forsaken.push(host.clone());
    }
}

/// One daemon as a connection sees it.
struct FakeHypervisor {
    host: HostId,
    shared: Arc<Shared>,
}

fn unreachable(host: &HostId) -> LibvirtError {
    LibvirtError::Connect { host: host.clone(), reason: "the fake daemon is down".to_owned() }
}

/// libvirt's error numbers (`virErrorNumber`), as far as fakes use them.
mod code {
    pub const OPERATION_INVALID: u32 = 55;
    pub const NO_DOMAIN: u32 = 42;
    pub const NO_STORAGE_POOL: u32 = 49;
    pub const OPERATION_FAILED: u32 = 9;
    pub const NO_SECRET: u32 = 66;
}

fn facts(xml: &str, state: DomainState) -> Result<DomainFacts, LibvirtError> {
    let summary = domain_xml::read(xml)?;
    let uuid = summary.uuid.unwrap_or_else(|| {
        uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, summary.name.as_bytes()).to_string()
    });
    Ok(DomainFacts {
        name: summary.name,
        uuid,
        state,
        persistent: true,
        autostart: false,
        xml: xml.to_owned(),
    })
}

fn node(name: &str, index: usize) -> NodeFacts {
    NodeFacts {
        uuid: format!("00000000-0000-4000-8000-{index:012}"),
        hostname: name.to_owned(),
        libvirt: 11_003_000,
        qemu: 10_000_002,
        free_memory: ByteSize::from_bytes(8 << 30),
        capabilities: CAPABILITIES.to_owned(),
    }
}

/// The part of `virsh capabilities` that is read: host CPU and machine types.
const CAPABILITIES: &str = "<capabilities><host><cpu><arch>x86_64</arch><model>qemu64</model></cpu></host>
  <guest><os_type>hvm</os_type><arch name='x86_64'><machine maxCpus='4096'>pc-q35-10.0</machine>
  <machine canonical='pc-q35-10.0' maxCpus='4096'>q35</machine><domain type='qemu'/></arch></guest></capabilities>";
