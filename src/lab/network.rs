//! The lab's network: one namespace with a switch and the admin's address, one namespace per host, a cable between.
//!
//! The batches for ip(8) are pure; the functions that run them stand at the end.

use std::{fs::File, os::fd::AsFd, path::Path};

use nix::sched::{CloneFlags, setns};

use super::{LabError, LabHost, names, process, subnet::Subnet};
use crate::model::{ClusterName, Command, HostId, Stdin};

/// Commands for the switch's namespace: the bridge and the admin's address on it.
fn switch_batch(subnet: &Subnet) -> String {
    let (switch, admin, prefix) = (names::SWITCH, subnet.admin, subnet.prefix);
    format!(
        "link set lo up\n\
         link add {switch} type bridge\n\
         link set {switch} up\n\
         address add {admin}/{prefix} broadcast + dev {switch}\n"
    )
}

/// Commands for the switch's namespace: the cable to one host.
fn cable_batch(lab: &ClusterName, host: &HostId) -> String {
    let (switch, port, namespace) = (names::SWITCH, names::port(host), names::host_namespace(lab, host));
    format!(
        "link add {port} type veth peer name eth0 netns {namespace}\n\
         link set {port} master {switch} up\n"
    )
}

/// Commands for a host's namespace: eth0 has the address, or on a hypervisor br0, which guests join.
fn host_batch(host: &LabHost, subnet: &Subnet) -> String {
    let (address, prefix) = (host.address, subnet.prefix);
    if !host.hypervisor {
        return format!(
            "link set lo up\n\
             link set eth0 up\n\
             address add {address}/{prefix} broadcast + dev eth0\n"
        );
    }
    let mac = names::bridge_mac(&host.id);
    format!(
        "link set lo up\n\
         link add br0 address {mac} type bridge\n\
         link set eth0 master br0 up\n\
         link set br0 up\n\
         address add {address}/{prefix} broadcast + dev br0\n"
    )
}

/// Makes the switch unless it is there.
///
/// # Errors
/// [`LabError::Command`] when ip(8) refuses.
pub(super) fn ensure_switch(lab: &ClusterName, subnet: &Subnet) -> Result<(), LabError> {
    let namespace = names::switch_namespace(lab);
    if is_complete(&namespace, names::SWITCH)? {
        return Ok(());
    }
    remove(&namespace)?;
    add(&namespace)?;
    batch(&namespace, switch_batch(subnet))
}

/// Makes one host's namespace and its cable to the switch, anew.
///
/// # Errors
/// [`LabError::Command`] when ip(8) refuses.
pub(super) fn connect(lab: &ClusterName, host: &LabHost, subnet: &Subnet) -> Result<(), LabError> {
    let namespace = names::host_namespace(lab, &host.id);
    remove(&namespace)?;
    let switch = names::switch_namespace(lab);
    unplug(&switch, &names::port(&host.id))?;
    add(&namespace)?;
    batch(&switch, cable_batch(lab, &host.id))?;
    batch(&namespace, host_batch(host, subnet))
}

/// Removes a host's port from the switch. It goes with its peer, but only when the kernel gets to it: before, during or after
/// this call.
fn unplug(switch: &str, port: &str) -> Result<(), LabError> {
    match process::run(&ip_in(switch).args(["link", "delete", "dev", port])) {
        Err(LabError::Command { .. })
            if !process::succeeds(&ip_in(switch).args(["link", "show", "dev", port]))? =>
        {
            Ok(())
        }
        deleted => deleted.map(drop),
    }
}

/// Pulls or plugs one host's cable.
///
/// # Errors
/// [`LabError::Command`] when ip(8) refuses.
pub(super) fn set_cable(lab: &ClusterName, host: &HostId, state: Cable) -> Result<(), LabError> {
    let state = match state {
        Cable::Plugged => "up",
        Cable::Pulled => "down",
    };
    let switch = names::switch_namespace(lab);
    process::run(&ip_in(&switch).args(["link", "set", "dev", &names::port(host), state]))?;
    Ok(())
}

/// Whether a host's cable carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cable {
    /// It does.
    Plugged,
    /// It does not; the host itself notices nothing else.
    Pulled,
}

/// Removes a namespace with all its interfaces; one that is not there is fine.
///
/// # Errors
/// [`LabError::Command`] when ip(8) refuses.
pub(super) fn remove(namespace: &str) -> Result<(), LabError> {
    if names::namespace_file(namespace).exists() {
        process::run(&Command::new("ip").args(["netns", "delete", namespace]))?;
    }
    Ok(())
}

/// The lab's host namespaces that exist, sorted.
///
/// # Errors
/// [`LabError::System`] when the directory cannot be read.
pub(super) fn host_namespaces(lab: &ClusterName) -> Result<Vec<String>, LabError> {
    let prefix = names::host_namespace_prefix(lab);
    let mut found = super::state::directory_names(Path::new(names::NAMESPACES))?;
    found.retain(|name| name.starts_with(&prefix));
    Ok(found)
}

/// Moves the calling thread into a network namespace; threads and processes that it starts afterwards are born there.
///
/// # Errors
/// [`LabError::System`] when there is no such namespace or the caller is not root.
pub(super) fn join(namespace: &str) -> Result<(), LabError> {
    let action = format!("enter network namespace {namespace}");
    let file = File::open(names::namespace_file(namespace)).map_err(LabError::system(action.clone()))?;
    setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(LabError::errno(action))
}

/// Runs `work` in the lab's network, from where its hosts are reached, in a thread that ends with it.
///
/// # Errors
/// [`LabError::System`] when the network cannot be entered, and what `work` returns.
pub(super) fn inside<T: Send>(
    lab: &ClusterName,
    work: impl FnOnce() -> Result<T, LabError> + Send,
) -> Result<T, LabError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            join(&names::switch_namespace(lab))?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Tells whether the lab's switch is there.
pub(super) fn has_switch(lab: &ClusterName) -> bool {
    names::namespace_file(&names::switch_namespace(lab)).exists()
}

fn add(namespace: &str) -> Result<(), LabError> {
    process::run(&Command::new("ip").args(["netns", "add", namespace])).map(drop)
}

/// A namespace whose maker was killed half-way lacks its last interface or address.
fn is_complete(namespace: &str, interface: &str) -> Result<bool, LabError> {
    if !names::namespace_file(namespace).exists() {
        return Ok(false);
    }
    let shown = ip_in(namespace).args(["-brief", "-4", "address", "show", "dev", interface]);
    let shown = match process::run(&shown) {
        Ok(shown) => shown,
        Err(LabError::Command { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(shown.stdout.split_whitespace().nth(2).is_some())
}

fn ip_in(namespace: &str) -> Command {
    Command::new("ip").args(["-n", namespace])
}

fn batch(namespace: &str, lines: String) -> Result<(), LabError> {
    process::run(&ip_in(namespace).args(["-batch", "-"]).stdin(Stdin::Text(lines))).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, hypervisor: bool) -> LabHost {
        LabHost { id: HostId::new(name).unwrap(), address: [10, 77, 0, 21].into(), hypervisor }
    }

    #[test]
    fn storage_host_has_its_address_on_eth0() {
        let host = host("store1", false);
        let subnet = Subnet::of(std::slice::from_ref(&host)).unwrap();
        assert_eq!(
            host_batch(&host, &subnet),
            "link set lo up\nlink set eth0 up\naddress add 10.77.0.21/24 broadcast + dev eth0\n"
        );
    }

    #[test]
    fn hypervisor_has_its_address_on_the_bridge_that_guests_join() {
        let host = host("kvm1", true);
        let subnet = Subnet::of(std::slice::from_ref(&host)).unwrap();
        let batch = host_batch(&host, &subnet);
        assert!(batch.contains("link set eth0 master br0 up\n"), "{batch}");
        assert!(batch.ends_with("address add 10.77.0.21/24 broadcast + dev br0\n"), "{batch}");
    }

    #[test]
    fn switch_carries_the_admin_address() {
        let subnet = Subnet::of(&[host("kvm1", true)]).unwrap();
        assert!(switch_batch(&subnet).ends_with("address add 10.77.0.1/24 broadcast + dev switch\n"));
    }
}
