//! What guards a host: its firewall and SELinux; how they are asked, and how they let the named peers in.
//!
//! Pure; imports `model` and `storage::mount_unit`'s reader of unit states. Only rules that accept are ever added, in a
//! place that carries the cluster's name (`docs/adr/0130`). When they are needed is decided in `plan::guard`.

pub mod facts;
pub mod firewalld;
pub mod nftables;
pub mod selinux;
pub mod ufw;

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use uuid::Uuid;

use crate::model::{AbsPath, ClusterName, Difference, Effect};

/// Characters of a cluster's name that fit behind `stor-` in the name of a firewalld policy: 17 in all, so that the
/// names of its chains fit netfilter's 28 (firewalld, `max_policy_name_len`).
const NAME_ROOM: usize = 12;

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Ports of one host that peers have to reach.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opening {
    /// Transport protocol.
    pub protocol: Protocol,
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
    /// What listens there, in one or two words.
    pub purpose: &'static str,
    /// Who has to reach it: addresses as in the cluster file. The host itself may be among them.
    pub peers: BTreeSet<String>,
}

/// One peer's way to one range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Where the packets come from.
    pub peer: Ipv4Addr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} from {}", self.protocol, self.ports('-'), self.peer)
    }
}

impl Rule {
    /// The ports in a tool's words: one number, or two with its sign between them.
    fn ports(&self, between: char) -> String {
        match self.first == self.last {
            true => self.first.to_string(),
            false => format!("{}{between}{}", self.first, self.last),
        }
    }
}

/// The tool that decides which packets a host accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tool {
    /// firewalld.
    Firewalld,
    /// ufw.
    Ufw,
    /// Rules of nftables that somebody keeps by hand, or of iptables on top of it.
    Nftables,
}

impl Tool {
    /// All tools, sorted.
    pub const ALL: [Self; 3] = [Self::Firewalld, Self::Ufw, Self::Nftables];

    /// The tool's own name; also how the ownership record calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Firewalld => "firewalld",
            Self::Ufw => "ufw",
            Self::Nftables => "nftables",
        }
    }

    /// The rule in the tool's own words; equal texts are equal rules.
    #[must_use]
    pub fn text(self, rule: &Rule) -> String {
        match self {
            Self::Firewalld => firewalld::text(rule),
            Self::Ufw => ufw::text(rule),
            Self::Nftables => nftables::text(rule),
        }
    }
}

/// How stor marks what is its own in a firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    cluster: ClusterName,
}

impl Mark {
    /// The mark of one cluster.
    #[must_use]
    pub fn new(cluster: &ClusterName) -> Self {
        Self { cluster: cluster.clone() }
    }

    /// The name of its policy or chain: `stor-NAME`, or a digest where the name is too long.
    #[must_use]
    pub fn own(&self) -> String {
        let name = self.cluster.as_str();
        if name.len() <= NAME_ROOM {
            return format!("stor-{name}");
        }
        let digest = Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).simple().to_string();
        format!("stor-{}", &digest[..NAME_ROOM])
    }

    /// The comment on its rules.
    #[must_use]
    pub fn comment(&self) -> String {
        format!("stor {}", self.cluster)
    }

    /// The unit that puts rules of nftables back.
    #[must_use]
    pub fn unit(&self) -> String {
        format!("stor-{}-firewall.service", self.cluster)
    }

    /// The file with these rules.
    #[must_use]
    pub fn rules_file(&self) -> AbsPath {
        #[expect(clippy::expect_used, reason = "a cluster name is [a-z0-9-], always a valid path component")]
        AbsPath::new(format!("/var/lib/stor/{}.nft", self.cluster)).expect("cluster names are valid in paths")
    }
}

/// One thing to do about a firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What it does, in one line.
    pub title: String,
    /// Why.
    pub why: Vec<Difference>,
    /// What runs.
    pub effect: Effect,
}

/// A firewall that lets through what it is told only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Firewall {
    /// firewalld.
    Firewalld(firewalld::State),
    /// ufw.
    Ufw(ufw::State),
    /// nftables.
    Nftables(nftables::State),
}

impl Firewall {
    /// Its tool.
    #[must_use]
    pub fn tool(&self) -> Tool {
        match self {
            Self::Firewalld(_) => Tool::Firewalld,
            Self::Ufw(_) => Tool::Ufw,
            Self::Nftables(_) => Tool::Nftables,
        }
    }

    /// The rules of stor's own, as texts.
    #[must_use]
    pub fn own(&self) -> BTreeSet<String> {
        match self {
            Self::Firewalld(state) => state.own(),
            Self::Ufw(state) => state.own.clone(),
            Self::Nftables(state) => state.own(),
        }
    }

    /// What is wrong in stor's own place besides the rules that [`Firewall::own`] names.
    #[must_use]
    pub fn strange(&self, mark: &Mark) -> Vec<String> {
        match self {
            Self::Nftables(state) => state.strange(mark),
            Self::Firewalld(_) | Self::Ufw(_) => Vec::new(),
        }
    }

    /// Brings about that every rule of `wanted` is there, and stays.
    ///
    /// # Errors
    /// [`Refused`] when this firewall cannot take them safely.
    pub fn open(&self, mark: &Mark, wanted: &BTreeSet<String>) -> Result<Vec<Change>, Refused> {
        match self {
            Self::Firewalld(state) => firewalld::open(state, mark, wanted),
            Self::Ufw(state) => Ok(ufw::open(state, mark, wanted)),
            Self::Nftables(state) => Ok(nftables::set(state, mark, wanted, "open")),
        }
    }

    /// Takes away what is stor's own but for the rules of `kept`.
    #[must_use]
    pub fn close(&self, mark: &Mark, kept: &BTreeSet<String>) -> Vec<Change> {
        match self {
            Self::Firewalld(state) => firewalld::close(state, mark, kept),
            Self::Ufw(state) => ufw::close(state, kept),
            Self::Nftables(state) => nftables::close(state, mark, kept),
        }
    }

    /// What it will be once [`Firewall::close`] has run.
    #[must_use]
    pub fn closed(&self, mark: &Mark, kept: &BTreeSet<String>) -> Self {
        match self {
            Self::Nftables(state) => Self::Nftables(state.after(mark, kept)),
            // Their rules stand for themselves: what was taken away changes nothing about what is missing.
            other => other.clone(),
        }
    }
}

/// Says why a firewall is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Policies came with firewalld 0.9.0.
    #[error("firewalld {version} has no policies, in which stor keeps its rules")]
    NoPolicies {
        /// Its version.
        version: String,
    },
    /// A new policy needs a reload, which would undo what somebody changed and did not save.
    #[error("firewalld was changed and not saved in {}; the reload that a new policy needs would undo that", zones.join(", "))]
    Unsaved {
        /// The zones, sorted.
        zones: Vec<String>,
    },
}

impl Refused {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoPolicies { .. } => "open the ports by hand (docs/security.md), or update firewalld",
            Self::Unsaved { .. } => {
                "keep the changes with `firewall-cmd --runtime-to-permanent`, or drop them with `firewall-cmd --reload`"
            }
        }
    }
}

/// One reason per rule that is not there.
fn missing<'t>(tool: Tool, texts: impl IntoIterator<Item = &'t String>) -> Vec<Difference> {
    let field = format!("firewall.{}", tool.name());
    texts.into_iter().map(|text| Difference::new(field.clone(), text, "absent")).collect()
}

/// One reason per rule that is there and should not be.
fn surplus<'t>(tool: Tool, texts: impl IntoIterator<Item = &'t String>) -> Vec<Difference> {
    let field = format!("firewall.{}", tool.name());
    texts.into_iter().map(|text| Difference::new(field.clone(), "absent", text)).collect()
}
