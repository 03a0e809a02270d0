//! The files by which hypervisors trust each other: their paths and their text. Pure; imports `spec` and `model`.
//!
//! Sources: ssh_config(5), sshd(8) sections "AUTHORIZED_KEYS FILE FORMAT" and "SSH_KNOWN_HOSTS FILE FORMAT".

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::libvirt::uri;
use crate::model::{AbsPath, ClusterName, HostId};
use crate::spec::{Cluster, HostSpec};

/// The port that ssh uses when nobody says otherwise.
const SSH_PORT: u16 = 22;
/// What the key of a peer may run, and nothing else: libvirt's own proxy (virt-ssh-helper(8)).
pub(super) const COMMAND: &str = "virt-ssh-helper qemu:///system";
/// Kind of the keys that stor has made.
pub(super) const KEY_TYPE: &str = "ssh-ed25519";

/// Where everything is on each hypervisor.
pub(super) struct Paths {
    pub directory: AbsPath,
    pub key: AbsPath,
    pub public: AbsPath,
    pub wrapper: AbsPath,
    pub config: AbsPath,
    pub known_hosts: AbsPath,
    pub ssh_directory: AbsPath,
    pub authorized: AbsPath,
}

impl Paths {
    pub fn new(cluster: &ClusterName) -> Self {
        #[expect(clippy::expect_used, reason = "constant text around a cluster name, which is [a-z0-9-]")]
        let path = |text: String| AbsPath::new(text).expect("cluster names are valid in paths");
        let own = |name: &str| path(format!("/var/lib/stor/{cluster}{name}"));
        Self {
            directory: own(""),
            key: own("/migrate_ed25519"),
            public: own("/migrate_ed25519.pub"),
            wrapper: path(uri::peer_wrapper(cluster)),
            config: own("/ssh_config"),
            known_hosts: own("/known_hosts"),
            ssh_directory: path("/root/.ssh".to_owned()),
            authorized: path("/root/.ssh/authorized_keys".to_owned()),
        }
    }
}

fn header(cluster: &ClusterName) -> String {
    format!("# Written by stor for cluster {cluster}. stor apply overwrites changes made here.\n")
}

/// What libvirt runs instead of `ssh`.
pub(super) fn wrapper(cluster: &ClusterName, paths: &Paths) -> String {
    format!("#!/bin/sh\n{}exec ssh -F {} \"$@\"\n", header(cluster), paths.config)
}

/// One file for all peers; ssh takes the first value that it finds, so ports stand before the rest.
pub(super) fn config(cluster: &Cluster, paths: &Paths) -> String {
    let mut out = header(&cluster.name);
    for host in cluster.peers() {
        if let Some(port) = host.ssh.port.filter(|port| *port != SSH_PORT) {
            // Writing to a String cannot fail.
            write!(out, "Host {}\n    Port {port}\n", host.address).unwrap_or_default();
        }
    }
    let Paths { key, known_hosts, .. } = paths;
    out + &format!(
        "Host *\n    IdentityFile {key}\n    IdentitiesOnly yes\n    UserKnownHostsFile {known_hosts}\n    \
         GlobalKnownHostsFile /dev/null\n    StrictHostKeyChecking yes\n    BatchMode yes\n    ConnectTimeout 10\n"
    )
}

/// The name under which ssh looks a peer's host key up.
pub(super) fn known_name(host: &HostSpec) -> String {
    match host.ssh.port.filter(|port| *port != SSH_PORT) {
        None => host.address.clone(),
        Some(port) => format!("[{}]:{port}", host.address),
    }
}

/// The first line of the file of host keys.
pub(super) fn known_hosts_header(cluster: &ClusterName) -> String {
    header(cluster)
}

/// What a peer's key may do; sshd compares `from` with addresses only, so it is left out for a name.
pub(super) fn options(host: &HostSpec) -> String {
    match host.address.parse::<IpAddr>() {
        Ok(address) => format!("restrict,from=\"{address}\",command=\"{COMMAND}\""),
        Err(_) => format!("restrict,command=\"{COMMAND}\""),
    }
}

/// The comment of a hypervisor's key.
pub(super) fn comment(cluster: &ClusterName, host: &HostId) -> String {
    format!("stor:{cluster}:{host}")
}

/// Finds a hypervisor's public key, type and base64; `None` unless it is exactly what stor would have made there.
///
/// Strict, because the line goes into other hosts' `authorized_keys`, and a host may answer anything.
pub(super) fn public_key(text: &str, comment: &str) -> Option<String> {
    let mut lines = text.lines().filter(|line| line.ends_with(comment));
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    let [KEY_TYPE, key, end] = *line.split(' ').collect::<Vec<_>>() else { return None };
    (is_base64(key) && end == comment).then(|| format!("{KEY_TYPE} {key}"))
}

/// Picks one of a host's own keys, in the order in which ssh would rather have them.
pub(super) fn host_key(text: &str) -> Option<String> {
    let lines = || text.lines().filter_map(|line| line.split_once(' '));
    [KEY_TYPE, "ecdsa-sha2-nistp256", "ssh-rsa"].iter().find_map(|wanted| {
        let (kind, rest) = lines().find(|(kind, _)| kind == wanted)?;
        let key = rest.split(' ').next().filter(|key| is_base64(key))?;
        Some(format!("{kind} {key}"))
    })
}

fn is_base64(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_taken_only_in_the_form_that_stor_makes() {
        let comment = "stor:homelab:kvm1";
        let good = format!("ssh-ed25519 AAAA {comment}\n");
        assert_eq!(public_key(&good, comment).as_deref(), Some("ssh-ed25519 AAAA"));
        for bad in [
            "",
            "ssh-ed25519 AAAA\n",
            "ssh-ed25519 AAAA stor:homelab:kvm2\n",
            "ssh-rsa AAAA stor:homelab:kvm1\n",
            "ssh-ed25519 AA\"A stor:homelab:kvm1\n",
            "ssh-ed25519 AAAA stor:homelab:kvm1\nssh-ed25519 BBBB stor:homelab:kvm1\n",
            "command=\"id\" ssh-ed25519 AAAA stor:homelab:kvm1\n",
        ] {
            assert_eq!(public_key(bad, comment), None, "{bad:?}");
        }
    }

    #[test]
    fn one_host_key_is_picked_and_its_comment_left_out() {
        let text = "ssh-rsa AAAR root@a\necdsa-sha2-nistp256 AAAE root@a\n";
        assert_eq!(host_key(text).as_deref(), Some("ecdsa-sha2-nistp256 AAAE"));
        assert_eq!(host_key("ssh-ed25519 AAAD root@a\n").as_deref(), Some("ssh-ed25519 AAAD"));
        assert_eq!(host_key("cat: no such file"), None);
    }
}
