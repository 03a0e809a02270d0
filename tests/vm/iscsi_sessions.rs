//! iSCSI by the kernel's target (LIO) to hypervisors whose own kernels log in: sessions, pools and block devices through moves,
//! boots, growth, another secret and drift; several portals joined by multipath; nothing left behind.

use crate::harness::{Machines, Traces, cluster};

const WEB1: &str = "/srv/iscsi/web1.img";
const WEB2: &str = "/srv/iscsi/web2.img";
const IQN: &str = "iqn.2026-01.org.example:san";

fn with_sessions() -> String {
    let file = cluster("cluster-iscsi.yaml");
    assert!(file.contains("access: direct"));
    file.replace("access: direct", "access: session\n      allow: [10.78.0.1]")
}

#[test]
#[ignore = "needs virtual machines: make test-vm"]
fn guests_on_luns_of_their_hosts_kernels_move_and_outlive_boots() {
    let machines = Machines::fresh(&with_sessions());
    let before = Traces::of(&machines);
    machines.apply();
    assert!(machines.on("kvm1", "virsh pool-dumpxml san").contains("type='iscsi'"));
    assert!(machines.on("kvm2", "iscsiadm -m session").contains(IQN));

    for guest in ["web1", "web2"] {
        machines.stor(&["start", guest]).exits(0);
    }
    machines.stor(&["migrate", "web1", "web2", "--to", "kvm2"]).exits(0).says(&["0 bytes"]);
    machines.beats_on("store1", WEB1, 3);
    machines.beats_on("store1", WEB2, 3);
    machines.stor(&["migrate", "web1", "--to", "kvm1"]).exits(0);
    machines.on("kvm2", "virsh -q destroy web2");
    machines.stor(&["migrate", "web2", "--to", "kvm1", "--cold"]).exits(0);
    machines.stor(&["start", "web2"]).exits(0).says(&["kvm1"]);
    machines.beats_on("store1", WEB2, 3);

    luns_come_and_grow_under_guests(&machines);
    every_host_comes_back_by_itself(&machines);
    what_is_changed_by_hand_is_shown_and_mended(&machines);

    let beats = machines.heartbeat("store1", WEB1);
    assert!(beats.is_intact() && beats.boots.len() == 1, "{beats}: {:?}", beats.faults);
    machines.stor(&["destroy", "--yes"]).exits(6).says(&["web1"]);
    another_secret_waits_until_nobody_is_logged_in(&machines);
    machines.stor(&["destroy", "--yes"]).exits(0);
    for machine in ["kvm1", "kvm2"] {
        assert_eq!(machines.on(machine, "iscsiadm -m session 2>/dev/null; iscsiadm -m node 2>/dev/null; ls /dev/sd* 2>/dev/null || true"), "");
    }
    assert!(machines.on("store1", "ls /srv/iscsi").contains("web1.img"), "the data is gone");
    before.are_those_of(&machines);
}

fn luns_come_and_grow_under_guests(machines: &Machines) {
    machines.edit(
        "luns:\n",
        "luns:\n        - { name: data, number: 7, size: 32MiB, backing: /srv/iscsi/data.img }\n",
    );
    machines.edit("images:\n", "images:\n  data: { storage: san, size: 32MiB }\n");
    machines.edit("{ name: web1, size", "{ name: web1, number: 1, size");
    machines.edit("{ name: web2, size: 64MiB", "{ name: web2, number: 2, size: 96MiB");
    machines.edit("web2: { storage: san, size: 64MiB }", "web2: { storage: san, size: 96MiB }");
    machines.apply_and_prune();
    for machine in ["kvm1", "kvm2"] {
        let sizes =
            machines.on(machine, "lsblk --bytes --noheadings --nodeps --output SIZE /dev/sd? | sort -n");
        assert_eq!(sizes.split_whitespace().collect::<Vec<_>>(), ["33554432", "67108864", "100663296"]);
    }
    machines.beats_on("store1", WEB1, 3);
    machines.beats_on("store1", WEB2, 3);
}

fn every_host_comes_back_by_itself(machines: &Machines) {
    machines.reboot("kvm2");
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    machines.stor(&["verify"]).exits(0);
    machines.reboot("store1");
    // The guests waited, and went on by themselves.
    machines.beats_on("store1", WEB1, 3);
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    machines.stor(&["migrate", "web1", "--to", "kvm2"]).exits(0);
    machines.beats_on("store1", WEB1, 3);
    machines.stor(&["migrate", "web1", "--to", "kvm1"]).exits(0);
}

fn another_secret_waits_until_nobody_is_logged_in(machines: &Machines) {
    machines.secret("another-4711");
    machines.stor(&["plan"]).says(&["host kvm1 is logged in with another CHAP user or secret"]);
    machines.on("kvm1", "virsh -q destroy web1; virsh -q destroy web2");
    for machine in ["kvm1", "kvm2"] {
        machines.on(machine, &format!("iscsiadm -m node -T {IQN} --logout"));
    }
    // Reads the arguments and environments of all processes, again and again, while open-iscsi and libvirt get the secret.
    machines.on("kvm1", "systemd-run --quiet --unit=watch sh -c \"while :; do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ; done >/run/watched 2>/dev/null\"");
    machines
        .stor(&["apply", "--yes", "--prune"])
        .exits(0)
        .says(&["every hypervisor reaches the same images"]);
    machines.on("kvm1", "systemctl stop watch");
    // The search has it in its own arguments.
    let seen = machines.on("kvm1", "grep -a -c another-4711 /run/watched; grep -a -q stor-node /run/watched && echo watched; rm /run/watched");
    assert_eq!(seen.trim(), "0\nwatched");
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
}

/// Registers and reserves (SPC-4, PERSISTENT RESERVE OUT; type 1, Write Exclusive), or clears it, with Linux's SG_IO.
const RESERVE: &str = r#"python3 - "$1" "$2" <<'PYTHON'
import ctypes, fcntl, os, struct, sys
def out(action, kind, held, new):
    data = ctypes.create_string_buffer(struct.pack('>QQ8x', held, new), 24)
    command = ctypes.create_string_buffer(bytes([0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0]), 10)
    sense = ctypes.create_string_buffer(32)
    request = struct.pack('@iiBBHIPPPIIiPBBBBHHiII', ord('S'), -2, 10, 32, 0, 24, ctypes.addressof(data), ctypes.addressof(command),
                          ctypes.addressof(sense), 20000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    answer = bytearray(request)
    fcntl.ioctl(device, 0x2285, answer)
    return answer[struct.calcsize('@iiBBHIPPPIIiP')]
device = os.open(sys.argv[1], os.O_RDWR)
if sys.argv[2] == 'reserve':
    # The first command may only be told what else has happened (UNIT ATTENTION); this one takes back a key that there is not.
    out(6, 0, 0, 0)
    status = out(0, 0, 0, 0xabc) or out(1, 1, 0xabc, 0)
else:
    status = out(3, 0, 0xabc, 0)
sys.exit(status and 'status %d' % status)
PYTHON"#;

fn what_is_changed_by_hand_is_shown_and_mended(machines: &Machines) {
    let data = machines.on("kvm2", "ls /dev/disk/by-path/*-lun-7").trim().to_owned();
    let reserve = |word: &str| machines.on("kvm2", &format!("set -- {data} {word}\n{RESERVE}"));
    reserve("reserve");
    assert!(
        machines.on("store1", "ls /etc/rtslib-fb-target/pr").contains("aptpl_"),
        "it would not outlive a boot"
    );
    machines.stor(&["verify"]).exits(7).says(&["lun-reserved", "Write Exclusive, key 0xabc"]);
    reserve("clear");
    machines.stor(&["verify"]).exits(0);

    machines.on(
        "kvm2",
        &format!("virsh -q pool-destroy san; iscsiadm -m node -T {IQN} -o update -n node.startup -v manual"),
    );
    machines.stor(&["verify"]).exits(7).says(&["not-logged-in", "pool-inactive"]);
    machines.stor(&["migrate", "web1", "--to", "kvm2", "--dry-run"]).exits(8);
    machines.on("store1", &format!("for acl in /sys/kernel/config/target/iscsi/{IQN}/tpgt_1/acls/*; do echo by-hand-4711 >$acl/auth/password; done"));
    machines.stor(&["plan", "--detailed-exitcode"]).exits(4).says(&[
        "log in to target",
        "startup: manual",
        "let in with another secret",
    ]);
    machines.apply();
}

#[test]
#[ignore = "needs virtual machines: make test-vm"]
fn a_guest_goes_on_when_one_of_two_portals_is_lost() {
    const SECOND: &str = "10.78.0.12";
    let file = with_sessions()
        .replace("access: session", "access: session\n      portals: [10.78.0.11, 10.78.0.12]");
    let machines = Machines::fresh(&file);
    machines.on("store1", &format!("ip addr add {SECOND}/24 dev eth0"));
    let before = Traces::of(&machines);
    machines.apply().says(&["10.78.0.11:3260, 10.78.0.12:3260"]);
    assert_eq!(
        machines
            .on("kvm1", "lsblk --noheadings --nodeps --output TYPE /dev/disk/by-id/wwn-* | sort -u")
            .trim(),
        "mpath"
    );

    machines.stor(&["start", "web1"]).exits(0);
    machines.beats_on("store1", WEB1, 3);
    machines.on("store1", &format!("ip addr del {SECOND}/24 dev eth0"));
    machines.beats_on("store1", WEB1, 10);
    machines.stor(&["verify"]).exits(7).says(&["session-lost", SECOND]);
    machines.stor(&["migrate", "web1", "--to", "kvm2"]).exits(0);
    machines.beats_on("store1", WEB1, 3);
    machines.on("store1", &format!("ip addr add {SECOND}/24 dev eth0"));
    machines.until("the second way is back", || machines.stor(&["verify"]).ended_with(0));

    machines.edit(", 10.78.0.12]", "]");
    machines.apply_and_prune();
    machines.beats_on("store1", WEB1, 3);
    let beats = machines.heartbeat("store1", WEB1);
    assert!(beats.is_intact() && beats.boots.len() == 1, "{beats}: {:?}", beats.faults);
    machines.on("kvm2", "virsh -q destroy web1");
    machines.stor(&["destroy", "--yes"]).exits(0);
    before.are_those_of(&machines);
}

#[test]
#[ignore = "needs virtual machines: make test-vm"]
fn luns_of_tgt_are_devices_of_hosts_by_their_path() {
    let machines = Machines::fresh(&with_sessions().replace("provider: lio", "provider: tgt"));
    let before = Traces::of(&machines);
    machines.apply();
    assert!(machines.on("store1", "tgtadm --lld iscsi --op show --mode target").contains(IQN));
    machines.stor(&["start", "web1"]).exits(0);
    let xml = machines.on("kvm1", "virsh dumpxml web1");
    assert!(xml.contains(&format!("/dev/disk/by-path/ip-10.78.0.11:3260-iscsi-{IQN}-lun-1")), "{xml}");
    machines.beats_on("store1", WEB1, 3);
    machines.stor(&["migrate", "web1", "--to", "kvm2"]).exits(0).says(&["0 bytes"]);
    machines.beats_on("store1", WEB1, 3);

    machines.reboot("store1");
    machines.beats_on("store1", WEB1, 3);
    machines.stor(&["plan", "--detailed-exitcode"]).exits(0);
    machines.stor(&["migrate", "web1", "--to", "kvm1"]).exits(0);
    let beats = machines.heartbeat("store1", WEB1);
    assert!(beats.is_intact() && beats.boots.len() == 1, "{beats}: {:?}", beats.faults);
    machines.on("kvm1", "virsh -q destroy web1");
    machines.stor(&["destroy", "--yes"]).exits(0);
    before.are_those_of(&machines);
}
