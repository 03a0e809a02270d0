//! What a lab host consists of before stor touches it: a Debian server with sshd and libvirt, and no shared storage.
//!
//! Pure data. Everything here takes part in the key of the cache: change it, and the next `up` builds a new root.

use uuid::Uuid;

/// The Debian release.
pub(super) const SUITE: &str = "trixie";

/// What is installed: what a Debian server that runs guests has anyway. Nothing of GlusterFS, NFS or iSCSI.
pub(super) const INSTALLED: &[&str] = &[
    // the system
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "sudo",
    "iproute2",
    "iputils-ping",
    "procps",
    "psmisc",
    "kmod",
    "netbase",
    "ca-certificates",
    "nftables",
    "less",
    "xz-utils",
    "e2fsprogs",
    "xfsprogs",
    "fuse3",
    // on every Debian server through reportbug and others; storage packages need them
    "perl",
    "python3",
    "python3-dbus",
    "python3-requests",
    // the hypervisor
    "qemu-system-x86",
    "qemu-utils",
    "libvirt-daemon-system",
    "libvirt-clients",
    "netcat-openbsd",
    // firmware with variables and emulated TPMs, as guests of today have them
    "ovmf",
    "swtpm",
    "swtpm-tools",
];

/// What hosts can install without a network, with all dependencies.
pub(super) const OFFERED: &[&str] = &[
    "attr",
    "firewalld",
    "glusterfs-client",
    "glusterfs-server",
    "libiscsi-bin",
    "libnfs-utils",
    "libvirt-daemon-driver-storage-gluster",
    "libvirt-daemon-driver-storage-iscsi-direct",
    "nfs-common",
    "nfs-ganesha",
    "nfs-ganesha-vfs",
    "nfs-kernel-server",
    "open-iscsi",
    "qemu-block-extra",
    "rpcbind",
    "targetcli-fb",
    "tgt",
    "ufw",
];

/// The package whose first dependency is the kernel of the heartbeat guest.
pub(super) const KERNEL: &str = "linux-image-cloud-amd64";

/// Where a host finds the packages that it can install.
pub(super) const REPOSITORY: &str = "usr/share/stor-lab/packages";

/// Where a host finds the heartbeat guest.
pub(super) const GUEST: &str = "usr/share/stor-lab/heartbeat";

/// Options of dpkg, in the root from the beginning: no documentation, no waiting for the disk.
pub(super) const DPKG_OPTIONS: &[&str] = &[
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/locale/*",
    "force-unsafe-io",
];

/// Options of apt, in the root from the beginning.
pub(super) const APT_OPTIONS: &[&str] = &[
    r#"APT::Install-Recommends "false""#,
    r#"Acquire::Languages "none""#,
    // A machine whose clock is behind must be able to build a lab.
    r#"Acquire::Check-Date "false""#,
    r#"APT::Sandbox::User "root""#,
];

/// Services and timers that have no use in a container or slow its start.
pub(super) const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "libvirt-guests.service",
    "nftables.service",
    "run-rpc_pipefs.mount",
    "sshd-keygen.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
    "xfs_scrub_all.timer",
];

/// Files that a package brings and every host would otherwise share, or that name a network that is not there.
pub(super) const REMOVED: &[&str] = &[
    "etc/ssh/ssh_host_ecdsa_key",
    "etc/ssh/ssh_host_ecdsa_key.pub",
    "etc/ssh/ssh_host_ed25519_key",
    "etc/ssh/ssh_host_ed25519_key.pub",
    "etc/ssh/ssh_host_rsa_key",
    "etc/ssh/ssh_host_rsa_key.pub",
    "etc/apt/sources.list",
    "etc/hostname",
    "etc/machine-id",
    "etc/resolv.conf",
];

/// Files that get more lines, and the lines.
pub(super) const APPENDED: &[(&str, &str)] = &[
    ("etc/apt/sources.list", "deb [trusted=yes] file:/usr/share/stor-lab/packages ./\n"),
    // All hosts run on one machine: its own UUID would make them one host to libvirt.
    ("etc/libvirt/libvirtd.conf", "\nhost_uuid_source = \"machine-id\"\n"),
    // QEMU without what a container does not have: device cgroups, mount namespaces, a security driver.
    (
        "etc/libvirt/qemu.conf",
        "\nuser = \"root\"\n\
         group = \"root\"\n\
         dynamic_ownership = 0\n\
         remember_owner = 0\n\
         security_driver = \"none\"\n\
         cgroup_controllers = [ ]\n\
         namespaces = [ ]\n",
    ),
    // The first start need not rebuild caches that the root already has (systemd-update-done.service(8)).
    ("etc/.updated", ""),
    ("var/.updated", ""),
];

/// Names a root by everything that it is made of.
pub(super) fn key(mirror: &str, guest_program: &str) -> String {
    let appended = APPENDED.iter().flat_map(|(path, lines)| [*path, *lines]);
    let lists = [INSTALLED, OFFERED, DPKG_OPTIONS, APT_OPTIONS, MASKED, REMOVED];
    let inputs: Vec<&str> = lists
        .into_iter()
        // A separator that no entry holds, so that no entry can move to the next list unnoticed.
        .flat_map(|list| list.iter().copied().chain(["\0"]))
        .chain(appended)
        .chain([SUITE, KERNEL, REPOSITORY, GUEST, mirror, guest_program])
        .collect();
    // Version 5 is SHA-1: a collision by accident is out of the question.
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_URL, inputs.join("\0").as_bytes()).simple().to_string();
    format!("{SUITE}-{}", &hash[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_changes_with_each_input() {
        let key_now = key("http://m", "int main;");
        assert_eq!(key("http://m", "int main;"), key_now);
        assert_ne!(key("http://other", "int main;"), key_now);
        assert_ne!(key("http://m", "int main2;"), key_now);
    }

    #[test]
    fn no_storage_package_is_installed_beforehand() {
        for package in OFFERED {
            assert!(!INSTALLED.contains(package), "{package}");
        }
    }
}
