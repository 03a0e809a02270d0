//! Findings: what stor noticed, how grave it is, the evidence, and what the user can do.

use std::fmt;

use serde::Serialize;

use super::{HostId, ResourceId};

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; nothing is refused.
    Advice,
    /// Refused unless waived by `--allow CODE`, which the receipt records.
    Warning,
    /// Endangers data or cannot work; never waived.
    Error,
}

/// The stable code of a finding, shown in kebab-case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(
    missing_docs,
    reason = "docs/findings.md explains each code for users; the names say it for readers"
)]
pub enum FindingCode {
    // storage and verify
    NotMounted,
    WrongMount,
    ReadOnlyMount,
    PoolInactive,
    PoolWrongPath,
    ImageMissing,
    ImageNotShared,
    ImageIdentityDiffers,
    ImageInUse,
    ImageSizeDiffers,
    ImageUnreadable,
    ProbeFailed,
    NonceNotSeen,
    AccessDenied,
    LockNotHonoured,
    LockUnreachable,
    LvmLooksIntoLun,
    ProbeTimedOut,
    HostUnobserved,
    NotApplicable,
    ReplicaTwo,
    GlusterDirectDeprecated,
    SplitBrain,
    HealPending,
    BrickDown,
    PeerDisconnected,
    ExportMissing,
    TargetMissing,
    LunSwapped,
    LunDiffers,
    LunReserved,
    MultipathBypassed,
    NotLoggedIn,
    SessionLost,
    SecretOutdated,
    ExportOpen,
    StaleHandle,
    DataNotOwned,
    // preflight
    GuestNotRunning,
    GuestPaused,
    GuestNotDefined,
    CacheModeUnsafe,
    HostUuidEqual,
    NameUnresolvable,
    CpuIncompatible,
    MemoryShort,
    BridgeMissing,
    DeviceLocal,
    NameClash,
    PortBlocked,
    MachineTypeUnknown,
    VersionAdvisory,
    DaemonDown,
    SameHost,
    JobActive,
    TrustMissing,
    BootFileMissing,
    GuestRunning,
    GuestTransient,
    GuestDefinedTwice,
    StateKept,
    ChainUnknown,
    FormatDiffers,
    HypervisorDiffers,
    LiveUnsupported,
}

impl fmt::Display for FindingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        for (index, c) in format!("{self:?}").char_indices() {
            if c.is_uppercase() && index > 0 {
                out.push('-');
            }
            out.push(c.to_ascii_lowercase());
        }
        f.pad(&out)
    }
}

/// One thing that stor noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How grave it is.
    pub severity: Severity,
    /// The stable code.
    pub code: FindingCode,
    /// What it is about.
    pub subject: ResourceId,
    /// The host where it was seen, if it is about one host.
    pub host: Option<HostId>,
    /// What was seen, in one sentence.
    pub message: String,
    /// Facts from the hosts, each as `host kvm2: ...`.
    pub evidence: Vec<String>,
    /// What the user can do.
    pub remedy: Option<String>,
}

impl Finding {
    /// Makes a finding without host, evidence or remedy.
    #[must_use]
    pub fn new(
        severity: Severity,
        code: FindingCode,
        subject: ResourceId,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code,
            subject,
            host: None,
            message: message.into(),
            evidence: Vec::new(),
            remedy: None,
        }
    }
    /// Says on which host it was seen.
    #[must_use]
    pub fn on(mut self, host: &HostId) -> Self {
        self.host = Some(host.clone());
        self
    }
    /// Adds a fact.
    #[must_use]
    pub fn evidence(mut self, fact: impl Into<String>) -> Self {
        self.evidence.push(fact.into());
        self
    }
    /// Says what the user can do.
    #[must_use]
    pub fn remedy(mut self, text: impl Into<String>) -> Self {
        self.remedy = Some(text.into());
        self
    }
}
