//! What makes a layer over the root one certain host: name, machine id, host key, the lab's key, everybody's address.
//!
//! Written into the overlay's upper layer before the host first starts; what the host changes later is its own.

use std::{fs, net::Ipv4Addr, path::Path};

use super::{LabError, LabHost, process, process::word, settings::LabFiles, state};
use crate::model::{ClusterName, Command};

/// The name under which the hosts know the machine that runs stor.
const ADMIN: &str = "admin";

/// The text of `/etc/hosts` on every host of a lab.
pub(super) fn hosts_file(hosts: &[LabHost], admin: Ipv4Addr) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost\n");
    for host in hosts {
        text += &format!("{} {}\n", host.address, host.id);
    }
    text + &format!("{admin} {ADMIN}\n")
}

/// Makes the lab's own key, with which stor logs in, unless it is there.
///
/// # Errors
/// [`LabError::Command`] when ssh-keygen fails.
pub(super) fn ensure_lab_key(lab: &ClusterName, files: &LabFiles) -> Result<(), LabError> {
    let key = files.identity();
    if key.exists() && public(&key).exists() {
        return Ok(());
    }
    make_key(&key, &format!("stor-lab-{lab}"))
}

/// Gives a host its identity, unless it has it.
///
/// # Errors
/// [`LabError::System`], or [`LabError::Command`] when ssh-keygen fails.
pub(super) fn prepare(host: &LabHost, lab: &LabFiles, hosts_file: &str) -> Result<(), LabError> {
    let files = lab.host(&host.id);
    if files.prepared().exists() {
        return Ok(());
    }
    let upper = files.upper();
    let [etc, ssh, home, login] = ["etc", "etc/ssh", "root", "root/.ssh"].map(|path| upper.join(path));
    for (directory, mode) in [
        (&lab.hosts(), 0o700),
        (&files.directory, 0o755),
        (&files.data(), 0o755),
        (&upper, 0o755),
        (&etc, 0o755),
        (&ssh, 0o755),
        (&home, 0o700),
        (&login, 0o700),
    ] {
        state::make_directory(directory, mode)?;
    }
    state::write(&etc.join("hostname"), format!("{}\n", host.id), 0o644)?;
    state::write(&etc.join("machine-id"), format!("{}\n", uuid::Uuid::new_v4().simple()), 0o444)?;
    state::write(&etc.join("hosts"), hosts_file, 0o644)?;
    make_key(&ssh.join("ssh_host_ed25519_key"), &format!("root@{}", host.id))?;
    let key = read(&public(&lab.identity()))?;
    state::write(&login.join("authorized_keys"), key, 0o600)?;
    state::write(&files.prepared(), "", 0o644)
}

/// Writes the file by which ssh knows every host of the lab.
///
/// # Errors
/// [`LabError::System`].
pub(super) fn write_known_hosts(hosts: &[LabHost], lab: &LabFiles) -> Result<(), LabError> {
    let mut text = String::new();
    for host in hosts {
        let key = read(&lab.host(&host.id).upper().join("etc/ssh/ssh_host_ed25519_key.pub"))?;
        text += &known_host(host, &key);
    }
    state::write(&lab.known_hosts(), text, 0o644)
}

/// One line of known_hosts (sshd(8)): names, type, key; the comment of the public key is left out.
fn known_host(host: &LabHost, public_key: &str) -> String {
    let key: Vec<_> = public_key.split_whitespace().take(2).collect();
    format!("{},{} {}\n", host.id, host.address, key.join(" "))
}

fn make_key(path: &Path, comment: &str) -> Result<(), LabError> {
    // ssh-keygen asks before it overwrites what a killed run left.
    state::remove(path)?;
    state::remove(&public(path))?;
    let command = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"]);
    process::run(&command.arg(word(path))).map(drop)
}

fn public(key: &Path) -> std::path::PathBuf {
    key.with_extension("pub")
}

fn read(path: &Path) -> Result<String, LabError> {
    fs::read_to_string(path).map_err(LabError::system(format!("read {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HostId;

    fn host() -> LabHost {
        LabHost { id: HostId::new("kvm1").unwrap(), address: [10, 77, 0, 21].into(), hypervisor: true }
    }

    #[test]
    fn every_host_and_the_admin_have_a_name() {
        assert_eq!(
            hosts_file(&[host()], [10, 77, 0, 1].into()),
            "127.0.0.1 localhost\n::1 localhost ip6-localhost\n10.77.0.21 kvm1\n10.77.0.1 admin\n"
        );
    }

    #[test]
    fn host_is_known_by_name_and_address() {
        assert_eq!(known_host(&host(), "ssh-ed25519 AAAA root@kvm1\n"), "kvm1,10.77.0.21 ssh-ed25519 AAAA\n");
    }

    #[test]
    fn public_key_stands_beside_the_private_one() {
        assert_eq!(public(Path::new("/l/id_ed25519")), Path::new("/l/id_ed25519.pub"));
    }
}
