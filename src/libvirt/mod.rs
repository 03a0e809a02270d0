//! Libvirt: hypervisors through the `virt` crate, and the XML that it takes.
//!
//! Facts that a *plan* needs come from one `virsh` in the host's query batch (one round trip per host, see
//! `docs/adr/`); everything that changes libvirt, and everything live (guests, migration), goes through [`Hypervisor`].
//! Imports `host` (how to reach the daemon over ssh), `spec` and `model`.

pub mod bounded;
pub mod conn;
pub mod domain_xml;
pub mod domstates;
pub mod fake;
pub mod job;
mod lazy;
pub mod pool_xml;
pub mod pools;
pub mod qemu_conf;
pub mod secrets;
pub mod uri;
pub mod xl;
pub mod xml;

use std::time::Duration;

use serde::Serialize;

use crate::model::{ByteSize, HostId, Rate, Secret, SecretId};

/// Says what libvirt refused or could not do.
#[derive(Debug, thiserror::Error)]
pub enum LibvirtError {
    /// The daemon could not be reached.
    #[error("host {host}: cannot connect to libvirt: {reason}")]
    Connect {
        /// The host.
        host: HostId,
        /// libvirt's own message.
        reason: String,
    },
    /// A call failed.
    #[error("host {host}: cannot {action}: {reason}")]
    Call {
        /// The host.
        host: HostId,
        /// What was being done: `start guest web1`.
        action: String,
        /// libvirt's own message.
        reason: String,
        /// libvirt's error number (`virErrorNumber`), 0 when there was none.
        code: u32,
    },
    /// A call did not end in time; what it does, or will do yet, is unknown.
    #[error("host {host}: libvirt did not {action} within {}", humantime::format_duration(*within))]
    Silent {
        /// The host.
        host: HostId,
        /// What was asked for: `start guest web1`.
        action: String,
        /// How long it was waited for.
        within: Duration,
    },
    /// A call had not ended when the user gave up waiting; what it does is unknown.
    #[error("host {host}: libvirt had not yet answered (to {action}) when stor was interrupted")]
    Abandoned {
        /// The host.
        host: HostId,
        /// What was asked for.
        action: String,
    },
    /// XML from or for libvirt could not be read.
    #[error("cannot read the XML of {what}: {reason}")]
    Xml {
        /// Whose XML.
        what: String,
        /// Why.
        reason: String,
    },
}

impl LibvirtError {
    /// Whether nobody answered, so that the call may have been, or may yet be, carried out.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Abandoned { .. })
    }
}

/// State of a domain (`virDomainState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DomainState {
    /// Running or blocked on a resource.
    Running,
    /// Paused, for the reason of [`PauseReason`].
    Paused(PauseReason),
    /// Being shut down.
    ShuttingDown,
    /// Shut off.
    ShutOff,
    /// Crashed.
    Crashed,
    /// Suspended by guest power management.
    Suspended,
    /// libvirt does not say.
    Unknown,
}

impl DomainState {
    /// Whether a QEMU process holds the guest.
    #[must_use]
    pub fn is_active(self) -> bool {
        !matches!(self, Self::ShutOff | Self::Crashed)
    }
}

/// Why a domain is paused (`virDomainPausedReason`), as far as migration cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PauseReason {
    /// Its user paused it.
    User,
    /// A migration is under way.
    Migration,
    /// Post-copy migration is under way.
    PostCopy,
    /// Post-copy migration broke.
    PostCopyFailed,
    /// An I/O error stopped it.
    IoError,
    /// It is being started.
    StartingUp,
    /// Any other reason.
    Other,
}

/// What one host's libvirt knows about one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DomainFacts {
    /// Name.
    pub name: String,
    /// UUID, lower case with hyphens.
    pub uuid: String,
    /// State.
    pub state: DomainState,
    /// Whether a persistent definition exists here.
    pub persistent: bool,
    /// Whether it starts with the host.
    pub autostart: bool,
    /// XML: live if it is active, otherwise the persistent one.
    pub xml: String,
}

/// What a host keeps of a guest beside its definition, and would lose with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Keeps {
    /// Whether the guest's memory was saved to be restored at its next start.
    pub managed_save: bool,
    /// Snapshots that libvirt knows.
    pub snapshots: u32,
}

/// What one host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeFacts {
    /// Host UUID that libvirt reports in its capabilities.
    pub uuid: String,
    /// Host name that libvirt reports.
    pub hostname: String,
    /// libvirt's version as `major * 1_000_000 + minor * 1_000 + release`.
    pub libvirt: u64,
    /// QEMU's version, or Xen's, likewise.
    pub qemu: u64,
    /// Free memory.
    pub free_memory: ByteSize,
    /// Capabilities XML.
    pub capabilities: String,
}

/// What a migration asks of libvirt. Always peer to peer, live, persistent, undefining at the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationRequest {
    /// The domain's UUID.
    pub domain: String,
    /// Destination's libvirt URI as the *source host* resolves it.
    pub destination: String,
    /// Where the stream goes: `tcp://ADDRESS`.
    pub stream: String,
    /// Upper bound of the bandwidth.
    pub bandwidth: Option<Rate>,
    /// Domain XML for the destination, if it differs.
    pub destination_xml: Option<String>,
    /// Pause that the guest may suffer.
    pub max_downtime: Duration,
    /// Whether the guest arrives paused.
    pub paused: bool,
    /// Whether post-copy may be switched to.
    pub post_copy: bool,
}

/// What a job does (`virDomainJobOperation`), as far as migration cares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobOperation {
    /// The guest leaves this host.
    MigrationOut,
    /// The guest comes to this host.
    MigrationIn,
    /// A backup, a snapshot, a dump, or nothing that libvirt names.
    #[default]
    Other,
}

/// Statistics of a migration job (`virDomainGetJobStats`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct JobStats {
    /// What the job does.
    pub operation: JobOperation,
    /// Time since it began.
    pub elapsed: Duration,
    /// Guest memory in all, in bytes.
    pub memory_total: u64,
    /// Guest memory that remains, in bytes.
    pub memory_remaining: u64,
    /// Memory transferred, in bytes.
    pub memory_processed: u64,
    /// Disk transferred, in bytes: 0 on shared storage.
    pub disk_processed: u64,
    /// Bandwidth of memory, in bytes per second.
    pub bandwidth: u64,
    /// Pages dirtied per second.
    pub dirty_pages_per_second: u64,
    /// Page size in bytes.
    pub page_size: u64,
    /// Iteration, from 1.
    pub iteration: u64,
    /// Pause as QEMU counted it; only of a completed job.
    pub downtime: Option<Duration>,
    /// Time to set the migration up.
    pub setup: Option<Duration>,
}

/// Tells whether a domain is meant by its UUID, 36 characters with hyphens, and not by its name.
#[must_use]
pub fn is_uuid(domain: &str) -> bool {
    domain.len() == 36 && uuid::Uuid::try_parse(domain).is_ok()
}

/// One host's libvirt daemon. Every call is blocking, and has a deadline only behind [`bounded::Bounded`]. A domain is
/// meant by its UUID where one is given ([`is_uuid`]), which no other has, and otherwise by its name.
pub trait Hypervisor: Send + Sync {
    /// The host.
    fn host(&self) -> &HostId;
    /// Describes the host.
    ///
    /// # Errors
    /// [`LibvirtError`], as all calls below.
    fn node(&self) -> Result<NodeFacts, LibvirtError>;
    /// All domains, sorted by name.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn domains(&self) -> Result<Vec<DomainFacts>, LibvirtError>;
    /// One domain; `None` when the daemon says that it has none of this UUID or name.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn domain(&self, domain: &str) -> Result<Option<DomainFacts>, LibvirtError>;
    /// A domain's persistent definition with all that it holds, passwords of consoles among it.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn definition(&self, name: &str) -> Result<Secret, LibvirtError>;
    /// What the host keeps of a domain beside its definition.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn keeps(&self, name: &str) -> Result<Keeps, LibvirtError>;
    /// Asks a domain's system to shut down, as the power button does; returns at once.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn shutdown_domain(&self, name: &str) -> Result<(), LibvirtError>;
    /// Defines a domain; fails when one of this name or UUID exists.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn define_domain(&self, xml: &str) -> Result<(), LibvirtError>;
    /// Undefines a domain that is shut off.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn undefine_domain(&self, name: &str) -> Result<(), LibvirtError>;
    /// Starts a domain.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn start_domain(&self, name: &str) -> Result<(), LibvirtError>;
    /// Stops a domain at once (pulls the plug).
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn destroy_domain(&self, name: &str) -> Result<(), LibvirtError>;
    /// Sets whether a domain starts with the host.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn set_autostart(&self, name: &str, autostart: bool) -> Result<(), LibvirtError>;
    /// Defines, starts and autostarts a pool; updates its definition when it differs.
    ///
    /// Never builds it: a directory that is missing means that nothing is mounted there, and making it would hide that.
    /// What a pool holds is never touched.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn ensure_pool(&self, name: &str, xml: &str) -> Result<(), LibvirtError>;
    /// Rescans a pool: a stale pool at the destination makes a migration fail.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn refresh_pool(&self, name: &str) -> Result<(), LibvirtError>;
    /// Stops and undefines a pool; nothing to do when it does not exist. Its contents stay.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn remove_pool(&self, name: &str) -> Result<(), LibvirtError>;
    /// Defines a secret, which must be the XML's, and sets its value; both may have been done before.
    ///
    /// # Errors
    /// [`LibvirtError`]; it never shows the value.
    fn ensure_secret(&self, id: SecretId, xml: &str, value: &Secret) -> Result<(), LibvirtError>;
    /// Undefines a secret with its value; nothing to do when it does not exist.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn remove_secret(&self, id: SecretId) -> Result<(), LibvirtError>;
    /// Whether this host's CPU can run the guest CPU of a domain's live XML (`virConnectCompareHypervisorCPU`);
    /// `Err` text names what is missing.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn cpu_fits(&self, domain_xml: &str) -> Result<Result<(), String>, LibvirtError>;
    /// Migrates; returns when it ended.
    ///
    /// # Errors
    /// [`LibvirtError`]; the caller must look at both hosts before it believes either way.
    fn migrate(&self, request: &MigrationRequest) -> Result<(), LibvirtError>;
    /// The job under way, if there is one.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn job(&self, domain: &str) -> Result<Option<JobStats>, LibvirtError>;
    /// What the last completed job left; ask the host where the guest is now.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn completed_job(&self, domain: &str) -> Result<Option<JobStats>, LibvirtError>;
    /// Pauses a domain's virtual CPUs.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn suspend_domain(&self, name: &str) -> Result<(), LibvirtError>;
    /// Lets a paused domain's virtual CPUs run again.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn resume_domain(&self, name: &str) -> Result<(), LibvirtError>;
    /// Changes the pause that a migration under way may cause.
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn set_max_downtime(&self, domain: &str, downtime: Duration) -> Result<(), LibvirtError>;
    /// Cancels the job under way (`virDomainAbortJob`).
    ///
    /// # Errors
    /// [`LibvirtError`]
    fn abort_job(&self, domain: &str) -> Result<(), LibvirtError>;
}

/// Opens hypervisors; real ones over ssh, or fakes.
pub trait Connector: Send + Sync {
    /// Connects to a host's libvirt daemon; one connection per host is kept and reused.
    ///
    /// # Errors
    /// [`LibvirtError::Connect`] when the daemon cannot be reached.
    fn open(&self, host: &HostId) -> Result<std::sync::Arc<dyn Hypervisor>, LibvirtError>;
    /// Keeps the connection to a host no longer, because a call on it does not end; the next [`Connector::open`] makes another.
    fn forsake(&self, _host: &HostId) {}
}
