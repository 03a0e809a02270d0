//! NFS by the kernel's server: mounted by systemd or by libvirt, v4.2 or v3, with migrations, reboots, drift and removal.

use crate::harness::{Machines, Packages, Traces, cluster};

const IMAGE: &str = "/var/lib/libvirt/images/vmstore/web1.img";

const INSTALLED: Packages =
    Packages("nfs", &[("store1", "nfs-kernel-server"), ("kvm1", "nfs-common"), ("kvm2", "nfs-common")]);

#[test]
#[ignore = "needs virtual machines: make test-vm"]
fn a_guest_moves_and_survives_reboots_on_a_kernel_export() {
    let machines = Machines::fresh(&cluster("cluster-nfs.yaml"));
    let before = Traces::of(&machines);

    machines.stor(&["plan", "--detailed-exitcode"]).exits(4).says(&["export /srv/vmstore"]);
    machines.apply();
    assert!(machines.on("kvm2", "findmnt -n /var/lib/libvirt/images/vmstore").contains("vers=4.2"));

    machines.stor(&["start", "web1"]).exits(0);
    machines.beats_on("kvm1", IMAGE, 5);
    machines.stor(&["migrate", "web1", "--to", "kvm2"]).exits(0).says(&["disk copied           0 bytes"]);
    machines.beats_on("kvm2", IMAGE, 5);
    machines.stor(&["migrate", "web1", "--to", "kvm1"]).exits(0);
    machines.beats_on("kvm1", IMAGE, 5);

    what_is_changed_by_hand_is_shown_and_mended(&machines);
    a_hypervisor_that_boots_mounts_by_itself(&machines);
    a_guest_waits_for_a_server_that_boots(&machines);

    let beats = machines.heartbeat("kvm1", IMAGE);
    assert!(beats.is_intact() && beats.boots.len() == 1, "{beats}: {:?}", beats.faults);

    machines.stor(&["destroy", "--yes"]).exits(6).says(&["web1"]);
    machines.on("kvm1", "virsh -q destroy web1");
    machines.stor(&["destroy", "--yes"]).exits(0);
    assert!(machines.on("store1", "ls /srv/vmstore").contains("web1.img"), "the data is gone");
    assert_eq!(machines.on("store1", "systemctl is-enabled nfs-server || true").trim(), "disabled");
    before.are_those_of(&machines);
}

fn what_is_changed_by_hand_is_shown_and_mended(machines: &Machines) {
    machines
        .on("store1", "sed -i 's/no_root_squash/root_squash/g' /etc/exports.d/stor-*.exports; exportfs -ra");
    machines.on("kvm2", "virsh -q pool-destroy vmstore; umount /var/lib/libvirt/images/vmstore");
    machines.stor(&["verify"]).exits(7).says(&["kvm2", "not-mounted"]);
    machines
        .stor(&["plan", "--detailed-exitcode"])
        .exits(4)
        .says(&["stor-vm-nfs-vmstore.exports", "kvm2: mount"]);
    machines.apply_and_prune();
    let shown = machines.on("store1", "exportfs -v");
    assert!(shown.contains("no_root_squash"), "{shown}");
}

fn a_hypervisor_that_boots_mounts_by_itself(machines: &Machines) {
    machines.reboot("kvm2");
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    machines.stor(&["verify"]).exits(0);
}

fn a_guest_waits_for_a_server_that_boots(machines: &Machines) {
    machines.reboot("store1");
    machines.beats_on("kvm1", IMAGE, 5);
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
}

#[test]
#[ignore = "needs virtual machines: make test-vm"]
fn libvirt_mounts_version_3_with_root_taken_away() {
    let file = cluster("cluster-nfs.yaml");
    let machines = Machines::with_packages(&INSTALLED, &file);
    let before = Traces::of(&machines);
    let user = machines.on("kvm1", "id -u libvirt-qemu").trim().to_owned();
    let group = machines.on("kvm1", "id -g libvirt-qemu").trim().to_owned();
    let nfs = format!(
        "provider: kernel, version: 3, mounted_by: libvirt, squash: root, anonuid: {user}, anongid: {group} }}"
    );
    machines.write(&file.replace("provider: kernel }", &nfs));

    machines.apply();
    assert!(machines.on("kvm1", "virsh pool-dumpxml vmstore").contains("type='netfs'"));
    assert!(machines.on("kvm1", "findmnt -n /var/lib/libvirt/images/vmstore").contains("vers=3"));
    machines.stor(&["start", "web1"]).exits(0);
    machines.beats_on("kvm1", IMAGE, 3);
    machines.stor(&["migrate", "web1", "--to", "kvm2"]).exits(0);
    machines.beats_on("kvm2", IMAGE, 3);
    machines.reboot("kvm1");
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    assert!(machines.heartbeat("kvm2", IMAGE).is_intact());
    machines.on("kvm2", "virsh -q destroy web1");
    machines.stor(&["destroy", "--yes"]).exits(0);
    before.are_those_of(&machines);
}

#[test]
#[ignore = "needs virtual machines: make test-vm"]
fn firewalls_that_drop_let_only_the_named_peers_in() {
    let machines = Machines::with_packages(&INSTALLED, &cluster("cluster-nfs.yaml"));
    let guarded = "table inet guard { chain input { type filter hook input priority 0; policy drop; \
                   ct state established,related accept; iif lo accept; icmp type echo-request accept; tcp dport 22 accept; }; }";
    for machine in ["store1", "kvm1", "kvm2"] {
        machines.on(
            machine,
            &format!("printf '#!/usr/sbin/nft -f\\nflush ruleset\\n%s\\n' '{guarded}' > /etc/nftables.conf"),
        );
        machines.on(machine, "systemctl enable --quiet --now nftables");
    }
    machines.apply();
    let knock = |machine: &str| machines.on(machine, "timeout 5 nc -z 10.78.0.11 2049; echo $?");
    assert_eq!(knock("kvm1").trim(), "0");
    // A third host: kvm2 under an address that the cluster file does not name.
    machines.on("kvm2", "ip addr add 10.78.0.99/24 dev br0");
    let third = machines.on("kvm2", "timeout 5 nc -z -s 10.78.0.99 10.78.0.11 2049; echo $?");
    assert_ne!(third.trim(), "0", "a host that nobody named reached the server");
    machines.stor(&["start", "web1"]).exits(0);
    machines.beats_on("kvm1", IMAGE, 3);
    machines.stor(&["migrate", "web1", "--to", "kvm2"]).exits(0);
    machines.beats_on("kvm2", IMAGE, 3);
    machines.reboot("store1");
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
}

#[test]
#[ignore = "needs virtual machines: make test-vm"]
fn what_serves_an_export_and_whose_rights_it_takes_change_under_kernel_mounts() {
    let machines = Machines::with_packages(&INSTALLED, &cluster("cluster-nfs.yaml"));
    // As a host is on which nobody serves anything yet: what others have started, stor does not stop.
    machines.on("store1", "systemctl disable --quiet --now nfs-server");
    let before = Traces::of(&machines);
    machines.stor(&["apply", "--yes"]).exits(0);
    machines.stor(&["start", "web1"]).exits(0);
    machines.beats_on("kvm1", IMAGE, 3);

    // Whose rights are taken away changes for a guest that runs no more.
    machines.stor(&["migrate", "web1", "--cold", "--shutdown", "--to", "kvm2"]).exits(0);
    machines.beats_on("kvm2", IMAGE, 3);
    machines.on("kvm2", "virsh -q destroy web1");
    let owner = |name: &str| machines.on("kvm1", &format!("id -{name} libvirt-qemu")).trim().to_owned();
    let squash = format!("squash: root, anonuid: {}, anongid: {} }}", owner("u"), owner("g"));
    machines.edit("provider: kernel }", &format!("provider: kernel, {squash}"));
    machines.stor(&["plan", "--detailed-exitcode"]).exits(4);
    machines
        .stor(&["apply", "--yes", "--prune"])
        .exits(0)
        .says(&["every hypervisor reaches the same images"]);
    let shown = machines.on("store1", "exportfs -v");
    assert!(shown.contains(",root_squash"), "{shown}");
    starts_and_stops(&machines);

    machines.edit("provider: kernel,", "provider: ganesha,");
    machines.apply_and_prune();
    assert!(machines.on("store1", "ss -Hltnp sport = :2049").contains("ganesha"));
    starts_and_stops(&machines);

    machines.edit(&format!("provider: ganesha, {squash}"), "provider: kernel }");
    machines.apply_and_prune();
    assert!(machines.on("store1", "exportfs -v").contains("no_root_squash"));
    starts_and_stops(&machines);
    machines.stor(&["destroy", "--yes"]).exits(0);
    before.are_those_of(&machines);
}

/// The guest, which is on kvm2, runs, moves to kvm1, back, and stops.
fn starts_and_stops(machines: &Machines) {
    machines.stor(&["start", "web1"]).exits(0);
    machines.beats_on("kvm2", IMAGE, 3);
    machines.stor(&["migrate", "web1", "--to", "kvm1"]).exits(0);
    machines.stor(&["migrate", "web1", "--to", "kvm2"]).exits(0);
    machines.beats_on("kvm2", IMAGE, 3);
    assert!(machines.heartbeat("kvm2", IMAGE).is_intact());
    machines.on("kvm2", "virsh -q destroy web1");
}

/// Locks of NFSv3 have a service of their own: when it cannot be reached, reads and writes work all the same.
#[test]
#[ignore = "needs virtual machines: make test-vm"]
fn locks_that_the_server_no_longer_answers_stop_a_move_before_it_begins() {
    let file = cluster("cluster-nfs.yaml").replace("provider: kernel }", "provider: kernel, version: 3 }");
    let machines = Machines::with_packages(&INSTALLED, &file);
    machines.apply();
    machines.stor(&["start", "web1"]).exits(0);
    machines.beats_on("kvm1", IMAGE, 3);

    // The server drops what kvm2 sends to its lock service, on whatever port that listens.
    let port =
        |kind: &str| format!("$(rpcinfo -p | awk '$1 == 100021 && $3 == \"{kind}\" {{ print $4; exit }}')");
    let table = "table inet locks { chain input { type filter hook input priority -10; }; }";
    machines
        .on("store1", &format!("command -v nft >/dev/null || exit 1; printf '%s\n' '{table}' | nft -f -"));
    for kind in ["tcp", "udp"] {
        let rule =
            format!("nft add rule inet locks input ip saddr 10.78.0.22 {kind} dport {} drop", port(kind));
        machines.on("store1", &rule);
    }
    machines.on("kvm2", &format!("stat {IMAGE} && dd if={IMAGE} of=/dev/null bs=4096 count=1 status=none"));

    let begun = std::time::Instant::now();
    machines.stor_once(&["migrate", "web1", "--to", "kvm2"]).exits(8).says(&[
        "lock-unreachable",
        "kvm2",
        "lockd",
    ]);
    assert!(begun.elapsed() < std::time::Duration::from_secs(90), "{:?}", begun.elapsed());
    let begun = std::time::Instant::now();
    let cold = ["migrate", "web1", "--cold", "--shutdown", "--to", "kvm2"];
    machines.stor_once(&cold).exits(8).says(&["lock-unreachable"]);
    assert!(begun.elapsed() < std::time::Duration::from_secs(90), "{:?}", begun.elapsed());
    assert!(machines.on("kvm1", "virsh domstate web1").contains("running"));
    machines.beats_on("kvm1", IMAGE, 3);

    machines.on("store1", "nft delete table inet locks");
    machines.stor(&["migrate", "web1", "--to", "kvm2"]).exits(0);
    machines.beats_on("kvm2", IMAGE, 3);
    assert!(machines.heartbeat("kvm2", IMAGE).is_intact());
    machines.on("kvm2", "virsh -q destroy web1");
}
