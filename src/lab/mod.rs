//! The embedded lab: every host that a cluster file names, on this one machine, at the address the file gives it.
//!
//! A host is a container with its own systemd, sshd, libvirtd, disk and network namespace, made over one Debian root that
//! is built once. Nothing else of stor knows whether a host is a lab host: [`Lab::enter`] moves the process into the
//! lab's network, and from there the same ssh and the same libvirt calls reach the same addresses.
//!
//! ```text
//!   namespace stor-LAB: the admin's address on the bridge "switch"
//!        | veth p-store1        | veth p-kvm1
//!   stor-LAB.store1: eth0   stor-LAB.kvm1: eth0 in br0, which guests join
//! ```
//!
//! Imports `model`, `spec` and `host`. What is done to the hosts once they run belongs to the other modules.

mod access;
mod boot;
mod down;
mod error;
mod group;
mod guest;
pub mod heartbeat;
mod identity;
mod names;
mod network;
mod prerequisites;
mod process;
mod root;
mod settings;
mod state;
mod status;
mod subnet;
mod up;

use std::{net::Ipv4Addr, path::PathBuf, process::ExitStatus, time::Duration};

use serde::{Deserialize, Serialize};

pub use access::LabAccess;
pub use down::{Down, down};
pub use error::LabError;
pub use root::RootStage;
pub use settings::Settings;
pub use status::{HostState, HostStatus, LabStatus};
pub use up::up;

use crate::{
    host::quote,
    model::{ClusterName, HostId},
    spec::{Cluster, Driver},
};
use group::Groups;
use settings::LabFiles;
use state::{Process, Record};
use subnet::Subnet;

/// Where every host finds the heartbeat guest: `vmlinuz` and `initrd.gz`.
pub const GUEST_DIRECTORY: &str = "/usr/share/stor-lab/heartbeat";

/// A host that a lab makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabHost {
    /// Its name.
    pub id: HostId,
    /// Its address.
    pub address: Ipv4Addr,
    /// Whether it runs guests: its address is then on the bridge `br0`.
    pub hypervisor: bool,
}

/// A lab to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabSpec {
    /// Its name: the cluster's.
    pub name: ClusterName,
    /// Its hosts.
    pub hosts: Vec<LabHost>,
}

impl LabSpec {
    /// The lab that rehearses a cluster file.
    ///
    /// # Errors
    /// [`LabError::Address`] when a host has a DNS name or an IPv6 address, [`LabError::Xen`] when one runs Xen.
    pub fn of(cluster: &Cluster) -> Result<Self, LabError> {
        let host = |host: &crate::spec::HostSpec| {
            if host.role.driver() == Some(Driver::Xen) {
                return Err(LabError::Xen { host: host.id.clone() });
            }
            let address = host.address.parse().map_err(|_| LabError::Address {
                host: host.id.clone(),
                address: host.address.clone(),
                reason: "is not an IPv4 address",
            })?;
            Ok(LabHost { id: host.id.clone(), address, hypervisor: host.role.is_hypervisor() })
        };
        let hosts = cluster.hosts.values().map(host).collect::<Result<_, _>>()?;
        Ok(Self { name: cluster.name.clone(), hosts })
    }
}

/// What happens while a lab goes up or down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum LabEvent {
    /// Another stor is building the root; this one waits for it.
    RootAwaited,
    /// The root is being built, which happens once per machine and version of stor.
    RootBuilding {
        /// What the build is busy with.
        stage: RootStage,
    },
    /// The root was built.
    RootBuilt {
        /// How long it took.
        elapsed: Duration,
    },
    /// A host was running already and is left alone.
    HostFound {
        /// The host.
        host: HostId,
    },
    /// A host was started.
    HostStarting {
        /// The host.
        host: HostId,
    },
    /// A host lets stor in by ssh.
    HostReady {
        /// The host.
        host: HostId,
        /// How long that took since it was started.
        elapsed: Duration,
    },
    /// A host stopped.
    HostStopped {
        /// The host.
        host: HostId,
    },
}

/// A lab that is up.
#[derive(Debug)]
pub struct Lab {
    record: Record,
    files: LabFiles,
    subnet: Subnet,
}

/// The labs that this machine keeps, sorted; some may not be up.
///
/// # Errors
/// [`LabError::System`] when their directory cannot be read.
pub fn list(settings: &Settings) -> Result<Vec<ClusterName>, LabError> {
    let names = state::directory_names(&settings.labs)?;
    Ok(names.into_iter().filter_map(|name| ClusterName::new(name).ok()).collect())
}

/// Finds a lab that is up.
///
/// # Errors
/// [`LabError::NotUp`] when there is none of this name, [`LabError::NotRoot`].
pub fn open(name: &ClusterName, settings: &Settings) -> Result<Lab, LabError> {
    prerequisites::check_root()?;
    settings.check()?;
    let files = settings.lab(name);
    let record = Record::load(&files)?.filter(|_| network::has_switch(name));
    let record = record.ok_or_else(|| LabError::NotUp { lab: name.clone() })?;
    let subnet = Subnet::of(&record.hosts)?;
    Ok(Lab { record, files, subnet })
}

impl Lab {
    /// The lab's name.
    #[must_use]
    pub fn name(&self) -> &ClusterName {
        &self.record.name
    }

    /// The lab's hosts, sorted by name.
    #[must_use]
    pub fn hosts(&self) -> &[LabHost] {
        &self.record.hosts
    }

    /// Takes the lab down with all its data; see [`down`].
    ///
    /// # Errors
    /// As [`down`].
    pub fn down(self, settings: &Settings, progress: &mut dyn FnMut(LabEvent)) -> Result<(), LabError> {
        down(self.name(), settings, progress).map(drop)
    }

    /// Looks at every host.
    ///
    /// # Errors
    /// [`LabError::System`] when the lab's network cannot be entered.
    pub fn status(&self) -> Result<LabStatus, LabError> {
        status::of(self)
    }

    /// Moves the calling thread into the lab's network and says how to log in to its hosts.
    ///
    /// Threads and processes that the thread starts afterwards are born there, so a program enters before it starts
    /// any; there is no way back but to end the thread.
    ///
    /// # Errors
    /// [`LabError::System`] when the lab's network cannot be entered.
    pub fn enter(&self) -> Result<LabAccess, LabError> {
        network::join(&names::switch_namespace(self.name()))?;
        Ok(self.access())
    }

    /// Says how to log in to the lab's hosts; works only for who stands in the lab's network.
    #[must_use]
    pub fn access(&self) -> LabAccess {
        LabAccess::of(self.name(), &self.files)
    }

    /// Runs words on a host as root on the caller's terminal, or a shell when there are none.
    ///
    /// One word alone is a line for the host's shell, as with ssh itself; several arrive as they are.
    ///
    /// # Errors
    /// [`LabError::UnknownHost`], [`LabError::HostDown`], or [`LabError::System`] when ssh cannot be started.
    pub fn shell(&self, host: &HostId, words: &[String]) -> Result<ExitStatus, LabError> {
        let host = self.host(host)?;
        if !self.is_running(&host.id) {
            return Err(LabError::HostDown { lab: self.name().clone(), host: host.id.clone() });
        }
        // ssh joins its words with blanks, and the host's shell parts them anew.
        let words = match words {
            [line] => vec![line.clone()],
            words => words.iter().map(|word| quote::word(word)).collect(),
        };
        let command = self.access().ssh(host.address).args(words);
        network::inside(self.name(), || process::interactive(&command))
    }

    /// Pulls a host's network cable: a partition. The host runs on.
    ///
    /// # Errors
    /// [`LabError::UnknownHost`], [`LabError::Command`].
    pub fn link_down(&self, host: &HostId) -> Result<(), LabError> {
        network::set_cable(self.name(), &self.host(host)?.id, network::Cable::Pulled)
    }

    /// Plugs a host's network cable in again.
    ///
    /// # Errors
    /// [`LabError::UnknownHost`], [`LabError::Command`].
    pub fn link_up(&self, host: &HostId) -> Result<(), LabError> {
        network::set_cable(self.name(), &self.host(host)?.id, network::Cable::Plugged)
    }

    /// Cuts a host's power: everything in it ends at once. [`up`] starts it again, with its disk as it was.
    ///
    /// # Errors
    /// [`LabError::UnknownHost`], [`LabError::System`].
    pub fn power_off(&self, host: &HostId) -> Result<(), LabError> {
        let host = self.host(host)?;
        down::clear_group(&Groups::find()?.host(self.name(), &host.id))
    }

    /// The directory on this machine that one host sees as `/data`.
    ///
    /// # Errors
    /// [`LabError::UnknownHost`].
    pub fn data_directory(&self, host: &HostId) -> Result<PathBuf, LabError> {
        Ok(self.files.host(&self.host(host)?.id).data())
    }

    fn host(&self, id: &HostId) -> Result<&LabHost, LabError> {
        self.record.host(id).ok_or_else(|| LabError::UnknownHost {
            lab: self.name().clone(),
            host: id.clone(),
            known: self.record.hosts.iter().map(|host| host.id.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    fn is_running(&self, host: &HostId) -> bool {
        Process::load(&self.files.host(host).process()).is_some_and(Process::is_alive)
    }

    fn record(&self) -> &Record {
        &self.record
    }

    fn subnet(&self) -> &Subnet {
        &self.subnet
    }
}
