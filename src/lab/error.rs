//! What can go wrong with a lab, and what the user can do about it.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use crate::model::{ByteSize, ClusterName, HostId};

/// Says why a lab cannot be made, used or taken down.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces, mounts and containers need root.
    #[error("the lab needs root")]
    NotRoot,
    /// A program that the lab uses is not installed.
    #[error("the lab needs `{tool}`, which is not installed")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// The Debian package that holds it.
        package: &'static str,
    },
    /// Something that this machine's kernel, or whoever contains this machine, does not offer.
    #[error("the lab needs {what}, which this machine does not offer")]
    Unsupported {
        /// What is missing.
        what: &'static str,
        /// What the user can do.
        hint: &'static str,
        /// How the attempt to use it failed.
        #[source]
        source: std::io::Error,
    },
    /// The lab's root and guest exist for x86-64 only.
    #[error("the lab runs on x86_64 only")]
    Architecture,
    /// A directory has too little room.
    #[error("the lab needs {needed} free in {}, which has {free}", path.display())]
    Space {
        /// The directory.
        path: PathBuf,
        /// Free space found.
        free: ByteSize,
        /// Free space needed.
        needed: ByteSize,
    },
    /// A directory given by the environment cannot be used in a mount option.
    #[error("directory {} cannot be used for the lab: {reason}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// The cluster has no hosts.
    #[error("the cluster has no hosts")]
    NoHosts,
    /// An address that no lab host can have.
    #[error("host {host}: address {address} {reason}")]
    Address {
        /// The host.
        host: HostId,
        /// Its address in the cluster file.
        address: String,
        /// Why not.
        reason: &'static str,
    },
    /// A host that boots under Xen.
    #[error("host {host}: the lab's hosts are containers, none of which can run Xen")]
    Xen {
        /// The host.
        host: HostId,
    },
    /// Two hosts have one address.
    #[error("hosts {one} and {other} have the same address {address}")]
    SameAddress {
        /// One host.
        one: HostId,
        /// The other.
        other: HostId,
        /// Their address.
        address: Ipv4Addr,
    },
    /// The hosts are too far apart for one network.
    #[error("hosts {one} ({one_address}) and {other} ({other_address}) are not in one /16 network")]
    Subnets {
        /// One host.
        one: HostId,
        /// Its address.
        one_address: Ipv4Addr,
        /// Another.
        other: HostId,
        /// Its address.
        other_address: Ipv4Addr,
    },
    /// Every address of the network belongs to a host, none is left for the admin.
    #[error("the lab's network has no free address for this machine")]
    NetworkFull,
    /// Another process is bringing the lab up or down.
    #[error("lab {lab} is being changed by another stor")]
    Busy {
        /// The lab.
        lab: ClusterName,
    },
    /// The lab is not up.
    #[error("lab {lab} is not up")]
    NotUp {
        /// The lab.
        lab: ClusterName,
    },
    /// Some of the lab's hosts do not run.
    #[error("lab {lab}: host {host} does not run")]
    HostDown {
        /// The lab.
        lab: ClusterName,
        /// The host.
        host: HostId,
    },
    /// The lab has no such host.
    #[error("lab {lab} has no host {host}; its hosts are {known}")]
    UnknownHost {
        /// The lab.
        lab: ClusterName,
        /// The host asked for.
        host: HostId,
        /// The hosts that it has.
        known: String,
    },
    /// The lab that is up contradicts the cluster file.
    #[error("lab {lab} is up with {before}, the cluster file now says {now}")]
    Changed {
        /// The lab.
        lab: ClusterName,
        /// What the running lab has.
        before: String,
        /// What the file says.
        now: String,
    },
    /// A host was started and did not answer in time.
    #[error("lab {lab}: host {host} did not answer on ssh within {}; its console ends with:\n{console}", humantime::format_duration(*deadline))]
    Boot {
        /// The lab.
        lab: ClusterName,
        /// The host.
        host: HostId,
        /// How long stor waited.
        deadline: Duration,
        /// The end of what it printed.
        console: String,
    },
    /// A host was started and ended at once.
    #[error("lab {lab}: host {host} stopped while it was starting; its console ends with:\n{console}")]
    Died {
        /// The lab.
        lab: ClusterName,
        /// The host.
        host: HostId,
        /// The end of what it printed.
        console: String,
    },
    /// Hosts did not start.
    #[error("lab {lab}: {} of its hosts did not start:\n{}", failures.len(), failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Hosts {
        /// The lab.
        lab: ClusterName,
        /// What went wrong with each, sorted by host.
        failures: Vec<LabError>,
    },
    /// The root that the lab's hosts are layers over was deleted.
    #[error("lab {lab}: its root {} is gone", root.display())]
    RootGone {
        /// The lab.
        lab: ClusterName,
        /// Where the root was.
        root: PathBuf,
    },
    /// The user asked to stop.
    #[error("stopped on request")]
    Cancelled,
    /// A file that the lab keeps about itself cannot be understood.
    #[error("lab file {} cannot be read", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A process of the lab survived every attempt to end it.
    #[error("lab {lab}: processes {pids:?} cannot be ended")]
    Survivors {
        /// The lab.
        lab: ClusterName,
        /// The processes.
        pids: Vec<i32>,
    },
    /// A package lacks something that the lab's guest is made of.
    #[error("the lab's guest cannot be built: {reason}")]
    Guest {
        /// What is missing.
        reason: String,
    },
    /// A program failed.
    #[error("`{command}` {outcome}: {stderr}")]
    Command {
        /// Its words.
        command: String,
        /// How it ended.
        outcome: String,
        /// The end of its standard error, or of its output.
        stderr: String,
    },
    /// A program could not be run.
    #[error("cannot run a program")]
    Program(#[source] Box<crate::host::HostError>),
    /// The system refused an operation.
    #[error("cannot {action}")]
    System {
        /// What was being done.
        action: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl LabError {
    /// What the user can do, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotRoot => Some("run the command with sudo".into()),
            Self::MissingTool { package, .. } => Some(format!("apt-get install {package}")),
            Self::Unsupported { hint, .. } => Some((*hint).into()),
            Self::Space { .. } | Self::Directory { .. } => {
                Some("set STOR_LAB_DIR (hosts and their data) and STOR_LAB_CACHE to other directories".into())
            }
            Self::Address { .. } | Self::Subnets { .. } => Some(
                "the lab rehearses clusters whose hosts have IPv4 addresses in one /24 or /16 network".into(),
            ),
            Self::NotUp { .. } | Self::HostDown { .. } => Some("stor lab up".into()),
            Self::Changed { .. } | Self::RootGone { .. } => Some("stor lab down, then stor lab up".into()),
            Self::Boot { .. } | Self::Died { .. } | Self::Hosts { .. } => {
                Some("stor lab down removes what is there".into())
            }
            _ => None,
        }
    }

    /// Wraps an error of the system.
    pub(super) fn system(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }

    /// Wraps an error number of nix.
    pub(super) fn errno(action: impl Into<String>) -> impl FnOnce(nix::errno::Errno) -> Self {
        let wrap = Self::system(action);
        move |errno| wrap(errno.into())
    }
}
