//! Calls that hang while a guest moves, with the real parts: a QEMU whose monitor is silent, a libvirtd that stopped. stor ends
//! within its limits, says what stands, and the next call goes on from what it finds; the guest's disk shows one writer.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{DEMO, Lab};

/// What a live move with this file's `timeout` may take from its beginning: 8 s, 45 s for libvirt to end what was cancelled, 70 s
/// to ask both hosts (docs/exit-codes.md).
const BOUND: Duration = Duration::from_secs(8 + 45 + 70);

#[test]
fn whatever_hangs_while_a_guest_moves_stor_ends_in_time_and_says_what_stands() {
    // Slow enough that it cannot end before what hangs goes on.
    let slow = DEMO.replace("  timeout: 5m\n", "  timeout: 8s\n  bandwidth: 4MiB/s\n");
    let lab = Lab::up("e2e-hangs", &slow);
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["start", "web1"]).exits(0);
    lab.write("beats.yaml", BEATS);
    beats(&lab);

    for (what, host) in [("QEMU", "kvm1"), ("libvirtd", "kvm1"), ("libvirtd", "kvm2")] {
        a_second_ctrl_c_ends_the_waiting(&lab, what, host);
    }
    the_sources_qemu_stops(&lab);
    what_nothing_holds_up_moves(&lab);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
}

const BEATS: &str = "version: 1
title: beats
cluster: cluster.yaml
steps:
  - expect: { heartbeat: { guest: web1, beats: 10, within: 60 } }
";

#[track_caller]
fn beats(lab: &Lab) {
    lab.lab(&["run", "beats.yaml"]).exits(0).says(&["none lost, none doubled, one writer"]);
}

/// Where QEMU runs the guest, asked of the kernels.
fn places(lab: &Lab) -> Vec<&'static str> {
    let runs =
        |host: &&str| lab.on(host, "pgrep -f '^/usr/bin/qemu-system.*guest=web1' || true").trim() != "";
    ["kvm1", "kvm2"].into_iter().filter(runs).collect()
}

/// Begins a migration and hands it over once the guest's memory is on its way.
fn under_way(lab: &Lab) -> (Child, Instant) {
    let command = &mut lab.command(&["--lab", "migrate", "web1", "--to", "kvm2"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("moves from")), "it did not begin");
    let begun = Instant::now();
    sleep(Duration::from_millis(1500));
    (child, begun)
}

fn ended(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    std::io::Read::read_to_string(child.stdout.as_mut().unwrap(), &mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

/// Sends a signal to what may hang on a host.
fn signal(lab: &Lab, what: &str, host: &str, signal: &str) {
    lab.on(
        host,
        &match what {
            "QEMU" => format!("pkill -{signal} -f '^/usr/bin/qemu-system.*guest=web1'"),
            _ => format!("systemctl kill --kill-whom=main -s {signal} libvirtd.service"),
        },
    );
}

/// Has what may still move cancelled, as stor advised, until the guest is in one place and its heart beats on.
#[track_caller]
fn goes_on(lab: &Lab, what: &str) {
    let begun = Instant::now();
    loop {
        lab.on("kvm1", "timeout 20 virsh -q domjobabort web1 2>/dev/null || true");
        let settled = lab.on("kvm1", "timeout 20 virsh -q domjobinfo web1 2>/dev/null || true");
        if settled.contains("None") && places(lab) == ["kvm1"] {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "{what}: {settled}, at {:?}", places(lab));
        sleep(Duration::from_secs(1));
    }
    beats(lab);
    println!("{what}: settled after {:?}", begun.elapsed());
}

/// The monitor is silent: libvirt waits for it in the migration, and every other call for the migration.
fn the_sources_qemu_stops(lab: &Lab) {
    let (child, begun) = under_way(lab);
    signal(lab, "QEMU", "kvm1", "STOP");
    let (code, said) = ended(child);
    println!("the source's QEMU stops: exit {code:?} after {:?}\n{said}", begun.elapsed());
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    assert_eq!(code, Some(10), "{said}");
    for text in ["did not end within 8s", "may go on", "Before it began the guest was on kvm1", "domjobabort"]
    {
        assert!(said.contains(text), "no {text:?} in {said}");
    }
    signal(lab, "QEMU", "kvm1", "CONT");
    goes_on(lab, "the source's QEMU stops");
}

fn a_second_ctrl_c_ends_the_waiting(lab: &Lab, what: &str, host: &str) {
    let (child, _) = under_way(lab);
    signal(lab, what, host, "STOP");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    sleep(Duration::from_secs(1));
    let second = Instant::now();
    kill(pid, Signal::SIGINT).unwrap();
    let (code, said) = ended(child);
    let took = second.elapsed();
    println!("{what} on {host} stopped, two Ctrl-C: exit {code:?} after {took:?}\n{said}");
    signal(lab, what, host, "CONT");
    assert!(took < Duration::from_secs(4), "{took:?}");
    // A cancel that libvirt took up before leaves the guest where it was.
    assert!(matches!(code, Some(9 | 10)), "{code:?}: {said}");
    assert!(said.contains("cancelled by the user") && said.contains("kvm1"), "{said}");
    goes_on(lab, &format!("{what} on {host}"));
}

/// A move that nothing holds up, under a policy that gives it time.
fn what_nothing_holds_up_moves(lab: &Lab) {
    lab.edit("timeout: 8s", "timeout: 5m");
    lab.edit("bandwidth: 4MiB/s", "bandwidth: 64MiB/s");
    lab.lab(&["migrate", "web1", "--to", "kvm2"]).exits(0);
    assert_eq!(places(lab), ["kvm2"]);
    beats(lab);
}
