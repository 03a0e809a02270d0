//! Labs for real: up, used, killed half-way, side by side, and down to nothing. Needs root and the lab's tools.
#![expect(clippy::disallowed_methods, reason = "tests")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use stor::lab::{self, Down, HostState, Lab, LabError, LabEvent, LabHost, LabSpec, Settings, heartbeat};
use stor::model::{Cancel, ClusterName, HostId};

/// Two cores boot one lab at a time.
fn turn() -> Flock<File> {
    let lock = File::create("/run/stor-lab-tests.lock").expect("these tests run as root");
    Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap()
}

fn host(name: &str) -> HostId {
    HostId::new(name).unwrap()
}

/// A server and a hypervisor.
fn spec(name: &str) -> LabSpec {
    let hosts = [("store1", 11, false), ("kvm1", 21, true)];
    let hosts = hosts.map(|(name, last, hypervisor)| LabHost {
        id: host(name),
        address: [10, 77, 0, last].into(),
        hypervisor,
    });
    LabSpec { name: ClusterName::new(name).unwrap(), hosts: hosts.into() }
}

fn settings() -> Settings {
    Settings::from_env().unwrap()
}

fn up(spec: &LabSpec) -> (Lab, Vec<LabEvent>) {
    let mut events = Vec::new();
    let lab = lab::up(spec, &settings(), &Cancel::default(), &mut |event| events.push(event));
    (lab.unwrap_or_else(|error| panic!("{error}: {:?}", error.hint())), events)
}

fn down(name: &ClusterName) -> Down {
    lab::down(name, &settings(), &mut |_| {}).unwrap()
}

/// A lab that goes down even when its test fails.
struct Guard(LabSpec);

impl Guard {
    fn new(name: &str) -> Self {
        let spec = spec(name);
        down(&spec.name);
        Self(spec)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        down(&self.0.name);
    }
}

/// Everything on this machine that belongs to a lab, by its name.
fn traces(lab: &str) -> BTreeSet<String> {
    let names = |directory: &str| {
        fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().display().to_string())
    };
    let mut found = BTreeSet::new();
    let directories =
        ["/run/netns", "/run/stor-lab", "/run/systemd/nspawn/propagate", "/run/systemd/nspawn/locks"];
    let groups = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/system.slice"];
    for directory in directories.iter().chain(&groups) {
        found.extend(names(directory));
    }
    found.extend(names(settings().labs.to_str().unwrap()));
    found.extend(
        fs::read_to_string("/proc/self/mountinfo").unwrap().lines().map(|line| format!("mount {line}")),
    );
    for process in names("/proc") {
        let words = fs::read(format!("{process}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if !process.ends_with(&format!("/{}", std::process::id())) {
            found.insert(format!("process {words}"));
        }
    }
    found.retain(|trace| trace.contains(lab));
    found
}

/// Runs a script on a host as root, and gives what it printed.
#[track_caller]
fn on(lab: &Lab, name: &str, script: &str) -> String {
    let at = lab.hosts().iter().find(|known| known.id == host(name)).unwrap().address;
    let output = std::thread::scope(|scope| {
        let ssh = scope.spawn(|| {
            let access = lab.enter().unwrap();
            Command::new("ssh")
                .args([
                    "-F",
                    "none",
                    "-oBatchMode=yes",
                    "-oStrictHostKeyChecking=yes",
                    "-oConnectTimeout=3",
                    "-i",
                ])
                .arg(&access.identity_file)
                .arg(format!("-oUserKnownHostsFile={}", access.known_hosts.display()))
                .arg(format!("{}@{at}", access.user))
                .arg(script)
                .output()
                .unwrap()
        });
        ssh.join().unwrap()
    });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{script}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn lab_goes_up_is_bare_and_leaves_nothing() {
    let _turn = turn();
    let guard = Guard::new("t-cycle");
    let name = guard.0.name.clone();
    assert_eq!(traces("t-cycle"), BTreeSet::new());
    assert!(matches!(lab::open(&name, &settings()), Err(LabError::NotUp { .. })));

    let (lab, _) = up(&guard.0);
    let status = lab.status().unwrap();
    assert!(status.hosts.iter().all(|host| host.state == HostState::Running), "{status:?}");
    assert_eq!((status.network.as_str(), status.admin.to_string()), ("10.77.0.0/24", "10.77.0.1".into()));

    // A fresh libvirt host: its own disk for data, its own identity, no storage yet.
    assert_eq!(on(&lab, "store1", "ping -c 1 -W 2 kvm1 >/dev/null && hostname"), "store1\n");
    assert_ne!(on(&lab, "store1", "stat -f -c %T /data"), on(&lab, "store1", "stat -f -c %T /"));
    let uuid = "virsh capabilities | grep -m1 '<uuid>'";
    assert_ne!(on(&lab, "store1", uuid), on(&lab, "kvm1", uuid));
    assert_eq!(on(&lab, "store1", "command -v glusterd ganesha.nfsd tgtd || echo none"), "none\n");
    assert_eq!(on(&lab, "kvm1", "test -e /dev/kvm || echo none"), "none\n");
    assert!(on(&lab, "kvm1", "ip -brief address show br0").contains("10.77.0.21/24"));

    // Without a network, and without starting a daemon of storage.
    on(
        &lab,
        "store1",
        "DEBIAN_FRONTEND=noninteractive apt-get install -qq -y glusterfs-server >/dev/null 2>&1",
    );
    assert_eq!(on(&lab, "store1", "systemctl is-active glusterd || :"), "inactive\n");

    let (_, again) = up(&guard.0);
    let found = ["kvm1", "store1"].map(|name| LabEvent::HostFound { host: host(name) });
    assert_eq!(again, found, "a running lab is left alone");

    lab.down(&settings(), &mut |_| {}).unwrap();
    assert_eq!(traces("t-cycle"), BTreeSet::new());
    assert_eq!(down(&name), Down::NothingThere);
}

#[test]
fn hosts_can_be_cut_off_and_lose_power() {
    let _turn = turn();
    let guard = Guard::new("t-fault");
    let (lab, _) = up(&guard.0);
    let state = |name: &str| {
        let status = lab.status().unwrap();
        status.hosts.into_iter().find(|status| status.host == host(name)).unwrap().state
    };

    lab.link_down(&host("kvm1")).unwrap();
    assert_eq!((state("kvm1"), state("store1")), (HostState::Silent, HostState::Running));
    lab.link_up(&host("kvm1")).unwrap();
    // The first packets after the cable are lost on a machine that does much besides.
    let answers = std::iter::repeat_with(|| state("kvm1")).take(10).any(|state| state == HostState::Running);
    assert!(answers, "kvm1 does not answer");
    let unknown = lab.link_up(&host("kvm9")).unwrap_err();
    assert_eq!(unknown.to_string(), "lab t-fault has no host kvm9; its hosts are kvm1, store1");

    on(&lab, "store1", "echo kept > /data/file && echo kept > /etc/file");
    let before = on(&lab, "store1", "cat /etc/machine-id /proc/sys/kernel/hostname");
    lab.power_off(&host("store1")).unwrap();
    assert_eq!(state("store1"), HostState::Stopped);
    let (lab, events) = up(&guard.0);
    assert!(events.contains(&LabEvent::HostFound { host: host("kvm1") }), "{events:?}");
    assert_eq!(on(&lab, "store1", "cat /data/file /etc/file"), "kept\nkept\n");
    assert_eq!(on(&lab, "store1", "cat /etc/machine-id /proc/sys/kernel/hostname"), before);
}

#[test]
fn two_labs_with_the_same_addresses_live_side_by_side() {
    let _turn = turn();
    let [one, other] = ["t-one", "t-one-more"].map(Guard::new);
    let (lab, _) = up(&one.0);
    let (second, _) = up(&other.0);
    on(&lab, "store1", "echo first > /data/whose");
    on(&second, "store1", "echo second > /data/whose");
    assert_eq!(on(&lab, "store1", "cat /data/whose"), "first\n");

    // One goes, the other stays.
    assert_eq!(down(&one.0.name), Down::Removed);
    assert_eq!(
        on(&second, "store1", "cat /data/whose; ping -c 1 -W 2 kvm1 >/dev/null && echo reached"),
        "second\nreached\n"
    );
}

#[test]
fn killed_up_is_finished_by_up_and_cleared_by_down() {
    let _turn = turn();
    let guard = Guard::new("t-killed");
    // The root is built beforehand: what is killed here is the making of the lab.
    up(&guard.0);
    down(&guard.0.name);
    for host in ["kvm1", "store1"] {
        kill_up_at(&format!("HostStarting {{ host: {host:?} }}"));
        assert_ne!(traces("t-killed"), BTreeSet::new());
        assert_eq!(down(&guard.0.name), Down::Removed);
        assert_eq!(traces("t-killed"), BTreeSet::new());
    }
    kill_up_at(r#"HostStarting { host: "kvm1" }"#);
    let (lab, _) = up(&guard.0);
    assert_eq!(on(&lab, "store1", "ping -c 1 -W 2 kvm1 >/dev/null && hostname"), "store1\n");
}

/// [`up_that_is_killed`] in a process of its own.
fn up_in_a_process() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "up_that_is_killed", "--ignored", "--nocapture"]).stdout(Stdio::piped());
    command
}

/// Starts `up` in a process of its own and kills it as soon as it reports `event`.
fn kill_up_at(event: &str) {
    let mut child = up_in_a_process().spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let seen = output.lines().map_while(Result::ok).any(|line| line.contains(event));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(seen, "up ended before {event}");
}

#[test]
#[ignore = "the part of other tests that runs in a process of its own"]
fn up_that_is_killed() {
    let up = lab::up(&spec("t-killed"), &settings(), &Cancel::default(), &mut |event| println!("{event:?}"));
    up.unwrap();
}

#[test]
fn killed_build_leaves_no_process_and_no_root() {
    let _turn = turn();
    let cache = tempfile::tempdir().unwrap();
    let mut build = up_in_a_process().env("STOR_LAB_CACHE", cache.path()).spawn().unwrap();
    let name = cache.path().to_str().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !traces(name).iter().any(|trace| trace.contains("mmdebstrap")) {
        assert!(Instant::now() < deadline, "no build began");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_secs(3));
    build.kill().unwrap();
    build.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !traces(name).is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(traces(name), BTreeSet::new());
    let left: Vec<_> = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_str().unwrap().starts_with(".build-")), "{left:?}");
}

/// A lab host is a machine that systemd runs, with cgroup v2: the other half of `lab::group`.
#[test]
fn lab_runs_where_systemd_makes_the_control_groups() {
    let _turn = turn();
    let guard = Guard::new("t-outer");
    let (lab, _) = up(&guard.0);
    let data = lab.data_directory(&host("store1")).unwrap();
    // Hard links: the root is never written to, and may be on another file system than the data.
    let copy = |link: &str| {
        let cache = data.join("cache");
        Command::new("cp").args(["-a", link]).arg(&settings().cache).arg(cache).status().unwrap().success()
    };
    assert!(copy("--link") || copy("--force"));
    fs::copy(std::env::current_exe().unwrap(), data.join("test")).unwrap();
    let inside = "cd /data && STOR_LAB_CACHE=/data/cache STOR_LAB_DIR=/data/labs \
        ./test --exact lab_within_a_lab --ignored --nocapture 2>&1";
    let said = on(&lab, "store1", inside);
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "the part of lab_runs_where_systemd_makes_the_control_groups that runs on a lab host"]
fn lab_within_a_lab() {
    assert!(fs::exists("/run/systemd/system").unwrap(), "this is for a lab host");
    let spec = spec("t-inner");
    let (lab, _) = up(&spec);
    assert!(fs::exists("/sys/fs/cgroup/system.slice/stor-lab-t-inner.store1.scope").unwrap());
    assert_eq!(
        on(&lab, "store1", "ping -c 1 -W 2 kvm1 >/dev/null && systemctl is-system-running --wait"),
        "running\n"
    );
    lab.down(&settings(), &mut |_| {}).unwrap();
    assert_eq!(traces("t-inner"), BTreeSet::new());
}

#[test]
fn heartbeat_guest_writes_what_the_checker_proves() {
    let _turn = turn();
    let guard = Guard::new("t-heart");
    let (lab, _) = up(&guard.0);
    // KVM is never there in a lab host: this is QEMU's emulation.
    let start = "truncate -s 8M /data/web1.img && systemd-run --quiet --unit=guest qemu-system-x86_64 \
        -machine q35 -m 128 -nographic -nic none \
        -drive file=/data/web1.img,if=virtio,format=raw,cache=none \
        -kernel /usr/share/stor-lab/heartbeat/vmlinuz -initrd /usr/share/stor-lab/heartbeat/initrd.gz \
        -append 'console=ttyS0 quiet hb.ms=20 hb.mem=8 hb.rate=1'";
    let read = || {
        let disk = lab.data_directory(&host("kvm1")).unwrap().join("web1.img");
        heartbeat::check(File::open(disk).unwrap()).unwrap()
    };
    let beats = |least: u64| {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let report = read();
            assert_eq!(report.fault_count, 0, "{report:?}");
            if report.beats >= least {
                return report;
            }
            assert!(Instant::now() < deadline, "{report:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    on(&lab, "kvm1", start);
    let first = beats(50);
    assert_eq!((first.first, first.boots.len()), (Some(0), 1));

    // Killed and started again, the guest continues its own chain.
    on(
        &lab,
        "kvm1",
        "systemctl kill -s KILL guest; while systemctl is-active -q guest; do sleep 0.1; done; systemctl reset-failed guest",
    );
    let at_kill = read().beats;
    on(&lab, "kvm1", &start.replace("truncate -s 8M /data/web1.img && ", ""));
    let second = beats(at_kill + 50);
    assert_eq!((second.first, second.last), (Some(0), Some(second.beats - 1)));
    assert_eq!(second.boots.len(), 2, "{second:?}");
}
