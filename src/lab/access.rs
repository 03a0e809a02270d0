//! How stor reaches a lab's hosts: ssh as root, with the lab's key, from the lab's own network.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use super::{LabError, LabHost, names, process, process::word, settings::LabFiles};
use crate::model::{ClusterName, Command};

/// What an ssh transport needs to log in to every host of a lab, once the process stands in the lab's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabAccess {
    /// The login name, whatever the cluster file says.
    pub user: &'static str,
    /// The private key.
    pub identity_file: PathBuf,
    /// The host keys, by name and address.
    pub known_hosts: PathBuf,
    /// A directory for control sockets with a short path; `down` ends the masters in it.
    pub control_directory: PathBuf,
}

impl LabAccess {
    /// What belongs to a lab.
    pub(super) fn of(lab: &ClusterName, files: &LabFiles) -> Self {
        Self {
            user: "root",
            identity_file: files.identity(),
            known_hosts: files.known_hosts(),
            control_directory: names::control_directory(lab),
        }
    }

    /// The words that log in to a host by ssh, to be followed by the words to run there.
    pub(super) fn ssh(&self, address: Ipv4Addr) -> Command {
        Command::new("ssh")
            .args(["-F", "none", "-i", &word(&self.identity_file)])
            .arg(format!("-oUserKnownHostsFile={}", word(&self.known_hosts)))
            .args(["-oGlobalKnownHostsFile=none", "-oStrictHostKeyChecking=yes", "-oIdentitiesOnly=yes"])
            .args(["-oBatchMode=yes", "-oConnectTimeout=5", "-oLogLevel=ERROR"])
            .arg(format!("{}@{address}", self.user))
    }
}

/// Tells whether a host's sshd accepts connections; the calling thread must stand in the lab's network.
pub(super) fn is_listening(host: &LabHost) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((host.address, 22)), Duration::from_millis(500)).is_ok()
}

/// Tells whether a host lets stor in; the calling thread must stand in the lab's network.
///
/// # Errors
/// [`LabError::Program`] when ssh cannot be started.
pub(super) fn lets_in(access: &LabAccess, host: &LabHost) -> Result<bool, LabError> {
    let command = access.ssh(host.address).arg("true").deadline(Duration::from_secs(15));
    process::succeeds(&command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_uses_nothing_of_the_users_own_ssh() {
        let files = LabFiles { directory: "/l/demo".into() };
        let access = LabAccess::of(&ClusterName::new("demo").unwrap(), &files);
        insta::assert_snapshot!(access.ssh([10, 77, 0, 21].into()), @"ssh -F none -i /l/demo/id_ed25519 -oUserKnownHostsFile=/l/demo/known_hosts -oGlobalKnownHostsFile=none -oStrictHostKeyChecking=yes -oIdentitiesOnly=yes -oBatchMode=yes -oConnectTimeout=5 -oLogLevel=ERROR root@10.77.0.21");
        assert_eq!(access.control_directory, PathBuf::from("/run/stor-lab/demo"));
    }
}
