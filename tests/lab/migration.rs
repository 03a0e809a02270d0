//! What breaks while a guest moves: the guest runs on in one place, its disk shows one writer, and stor says where it is.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use stor::model::HostId;

use crate::harness::{BEATS, DEMO, Lab, beats};

#[test]
fn whatever_breaks_while_a_guest_moves_it_runs_on_in_one_place() {
    // Slow enough that something can break on the way: the guest's memory takes some ten seconds.
    let slow = DEMO.replace("  timeout: 5m\n", "  timeout: 5m\n  bandwidth: 6MiB/s\n");
    let lab = Lab::up("e2e-migration", &slow);
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["start", "web1"]).exits(0);
    lab.write("beats.yaml", BEATS);
    beats(&lab);

    stor_is_interrupted(&lab);
    qemu_dies_at_the_destination(&lab);
    libvirt_dies_at_the_destination(&lab);
    of_two_migrations_one_wins(&lab);
    stor_is_killed_and_a_later_call_tells_the_end(&lab);
    the_link_is_cut_for_a_while(&lab);
    the_source_loses_power(&lab);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
}

/// Where QEMU runs the guest, asked of the kernels.
fn places(lab: &Lab) -> Vec<&'static str> {
    let runs =
        |host: &&str| lab.on(host, "pgrep -f '^/usr/bin/qemu-system.*guest=web1' || true").trim() != "";
    ["kvm1", "kvm2"].into_iter().filter(runs).collect()
}

/// Begins a migration and hands it over once the guest's memory is on its way.
fn under_way(lab: &Lab, to: &str) -> Child {
    let command = &mut lab.command(&["--lab", "migrate", "web1", "--to", to]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("moves from")), "it did not begin");
    sleep(Duration::from_millis(1500));
    child
}

fn ended(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    std::io::Read::read_to_string(child.stdout.as_mut().unwrap(), &mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

fn stor_is_interrupted(lab: &Lab) {
    let child = under_way(lab, "kvm2");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let (code, said) = ended(child);
    assert_eq!(code, Some(9), "{said}");
    assert!(said.contains("cancelled"), "{said}");
    assert_eq!(places(lab), ["kvm1"]);
    beats(lab);
}

fn qemu_dies_at_the_destination(lab: &Lab) {
    let child = under_way(lab, "kvm2");
    lab.on("kvm2", "pkill -9 -f '^/usr/bin/qemu-system.*guest=web1'");
    let (code, said) = ended(child);
    assert_eq!(code, Some(9), "{said}");
    assert_eq!(places(lab), ["kvm1"]);
    beats(lab);
}

fn libvirt_dies_at_the_destination(lab: &Lab) {
    let child = under_way(lab, "kvm2");
    lab.on("kvm2", "systemctl kill --kill-whom=main -s KILL libvirtd.service");
    let (code, said) = ended(child);
    assert!(matches!(code, Some(9 | 10)), "{code:?}: {said}");
    lab.on("kvm2", "systemctl reset-failed libvirtd.service; systemctl start libvirtd.service");
    assert_eq!(places(lab), ["kvm1"]);
    beats(lab);
}

fn of_two_migrations_one_wins(lab: &Lab) {
    let first = under_way(lab, "kvm2");
    let second = lab.lab(&["migrate", "web1", "--to", "kvm2"]);
    let (code, said) = ended(first);
    assert_eq!(code, Some(0), "{said}");
    // The second watches the first's to its end.
    second.exits(0);
    assert_eq!(places(lab), ["kvm2"]);
    beats(lab);
}

fn stor_is_killed_and_a_later_call_tells_the_end(lab: &Lab) {
    let mut child = under_way(lab, "kvm1");
    child.kill().unwrap();
    child.wait().unwrap();
    lab.lab(&["migrate", "web1", "--to", "kvm1"]).exits(0);
    assert_eq!(places(lab), ["kvm1"]);
    assert!(lab.on("kvm2", "virsh -q list --all --name").trim().is_empty());
    beats(lab);
}

/// The source's cable: stor, which stands outside, loses sight of it too.
fn the_link_is_cut_for_a_while(lab: &Lab) {
    let child = under_way(lab, "kvm2");
    let (machinery, kvm1) = (lab.machinery(), HostId::new("kvm1").unwrap());
    machinery.link_down(&kvm1).unwrap();
    sleep(Duration::from_secs(8));
    machinery.link_up(&kvm1).unwrap();
    let begun = Instant::now();
    let (code, said) = ended(child);
    assert!(begun.elapsed() < Duration::from_secs(180), "it took {:?}", begun.elapsed());
    let running = places(lab);
    match code {
        Some(0) => assert_eq!(running, ["kvm2"], "{said}"),
        Some(9) => assert_eq!(running, ["kvm1"], "{said}"),
        Some(10) => assert_eq!(running.len(), 1, "{said}"),
        other => panic!("{other:?}: {said}"),
    }
    lab.lab(&["migrate", "web1", "--to", "kvm2"]).exits(0);
    assert_eq!(places(lab), ["kvm2"]);
    beats(lab);
}

/// The guest is gone with its host: stor neither starts it elsewhere nor calls that a success.
fn the_source_loses_power(lab: &Lab) {
    let child = under_way(lab, "kvm1");
    lab.machinery().power_off(&HostId::new("kvm2").unwrap()).unwrap();
    let (code, said) = ended(child);
    assert_eq!(code, Some(10), "{said}");
    assert!(lab.on("kvm1", "pgrep -f '^/usr/bin/qemu-system.*guest=web1' || true").trim().is_empty());
    lab.lab(&["start", "web1"]).exits(5).says(&["kvm2"]);
    lab.stor(&["lab", "up"]).exits(0);
    assert_eq!(places(lab), Vec::<&str>::new());
    lab.lab(&["start", "web1"]).exits(0).says(&["kvm2"]);
    assert_eq!(places(lab), ["kvm2"]);
    beats(lab);
}
