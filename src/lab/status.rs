//! How a lab and its hosts are, as seen now.

use std::{fmt, net::Ipv4Addr};

use serde::Serialize;

use super::{Lab, LabError, access, network};
use crate::model::{ClusterName, HostId};

/// A lab as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LabStatus {
    /// The lab.
    pub lab: ClusterName,
    /// Its network, as `10.77.0.0/24`.
    pub network: String,
    /// The address from which this machine reaches the hosts.
    pub admin: Ipv4Addr,
    /// Its hosts, sorted.
    pub hosts: Vec<HostStatus>,
}

/// One host as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostStatus {
    /// The host.
    pub host: HostId,
    /// Its address.
    pub address: Ipv4Addr,
    /// Whether it runs guests.
    pub hypervisor: bool,
    /// Whether it runs.
    pub state: HostState,
}

/// Whether a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostState {
    /// It accepts ssh connections.
    Running,
    /// It runs and does not accept ssh connections: it is starting or stopping, or its cable is pulled.
    Silent,
    /// It does not run.
    Stopped,
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Silent => "silent",
            Self::Stopped => "stopped",
        })
    }
}

/// Looks at a lab.
pub(super) fn of(lab: &Lab) -> Result<LabStatus, LabError> {
    let hosts = &lab.record().hosts;
    let listening = network::inside(lab.name(), || Ok(listening(hosts)))?;
    let state = |host: &super::LabHost, listening: bool| match (lab.is_running(&host.id), listening) {
        (false, _) => HostState::Stopped,
        (true, false) => HostState::Silent,
        (true, true) => HostState::Running,
    };
    let hosts = hosts.iter().zip(listening).map(|(host, listening)| HostStatus {
        host: host.id.clone(),
        address: host.address,
        hypervisor: host.hypervisor,
        state: state(host, listening),
    });
    let subnet = lab.subnet();
    Ok(LabStatus {
        lab: lab.name().clone(),
        network: subnet.to_string(),
        admin: subnet.admin,
        hosts: hosts.collect(),
    })
}

fn listening(hosts: &[super::LabHost]) -> Vec<bool> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = hosts.iter().map(|host| scope.spawn(|| access::is_listening(host))).collect();
        asked.into_iter().map(|thread| thread.join().unwrap_or(false)).collect()
    })
}
