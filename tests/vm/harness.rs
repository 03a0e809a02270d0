//! The machines of the full-kernel tier, and the `stor` command run within their network.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stor::lab::heartbeat::{self, Heartbeat};

/// The launcher of the machines.
const LAUNCHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vagrant/vm");
/// What no command takes, however loaded this machine is; then it is killed. In seconds.
const DEADLINE: &str = "1800";
/// What `apply` and `verify` say at last.
const PROVED: &str = "every hypervisor reaches the same images";

/// Tells whether the hypervisors run Xen.
fn with_xen() -> bool {
    std::env::var("STOR_VM_KIND").is_ok_and(|kind| kind == "xen")
}

/// Tells whether the machines can be brought back to a snapshot: with Xen their time would stand still, Vagrant takes none
/// (vagrant/vm).
fn have_snapshots() -> bool {
    !with_xen() && !std::env::var("STOR_VM_LAUNCHER").is_ok_and(|launcher| launcher == "vagrant")
}

/// The machines (vagrant/hosts, vagrant/hosts-xen).
fn names() -> [&'static str; 3] {
    if with_xen() { ["store1", "xen1", "xen2"] } else { ["store1", "kvm1", "kvm2"] }
}
/// What stor may change on a host, but for packages and what they bring (their units are in /usr/lib).
const TRACES: &str = include_str!("traces.sh");

/// There is one set of machines. Its snapshots that hold packages, by their names.
static TURN: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

/// The machines in one test's hands, with its cluster file.
pub struct Machines {
    dir: tempfile::TempDir,
    snapshots: MutexGuard<'static, BTreeSet<&'static str>>,
}

/// Packages that several tests begin with, which saves minutes: the name of the snapshot, and what each machine has.
pub struct Packages(pub &'static str, pub &'static [(&'static str, &'static str)]);

/// How a command ended.
pub struct Ended {
    command: String,
    status: i32,
    pub stdout: String,
    stderr: String,
}

impl Ended {
    /// Asserts the exit status and hands the result on.
    #[track_caller]
    pub fn exits(self, status: i32) -> Self {
        assert_eq!(
            self.status, status,
            "`{}` exited {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.status, self.stdout, self.stderr
        );
        self
    }

    /// Asserts that standard output or error holds every one of the texts.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(
                self.says_any(text),
                "`{}` does not say {text:?}:\n{}\n{}",
                self.command,
                self.stdout,
                self.stderr
            );
        }
        self
    }

    /// Tells whether it ended with this status.
    pub fn ended_with(&self, status: i32) -> bool {
        self.status == status
    }

    fn says_any(&self, text: &str) -> bool {
        self.stdout.contains(text) || self.stderr.contains(text)
    }
}

impl Machines {
    /// Brings the machines to their first state, for a cluster file.
    pub fn fresh(cluster: &str) -> Self {
        let machines = Self::taken(cluster);
        machines.renew();
        machines
    }

    /// Brings the machines to a state where packages are installed already.
    pub fn with_packages(packages: &Packages, cluster: &str) -> Self {
        let mut machines = Self::taken(cluster);
        let Packages(name, wanted) = packages;
        if machines.snapshots.contains(name) {
            run(launcher().args(["restore", name])).exits(0);
            return machines;
        }
        machines.renew();
        std::thread::scope(|scope| {
            for (machine, packages) in *wanted {
                let machines = &machines;
                scope.spawn(move || machines.install(machine, packages));
            }
        });
        if have_snapshots() {
            run(launcher().args(["snapshot", name])).exits(0);
            machines.snapshots.insert(name);
        }
        machines
    }

    fn renew(&self) {
        if have_snapshots() {
            run(launcher().args(["restore", "booted"])).exits(0);
        } else {
            run(launcher().arg("down")).exits(0);
            run(launcher().arg("up")).exits(0);
        }
    }

    fn taken(cluster: &str) -> Self {
        let snapshots = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let machines = Self { dir: tempfile::tempdir().expect("temp dir"), snapshots };
        std::fs::create_dir(machines.dir.path().join("secrets")).expect("a directory");
        machines.secret("storsecret-4711");
        machines.write(cluster);
        machines
    }

    /// Installs packages on a machine.
    #[track_caller]
    pub fn install(&self, machine: &str, packages: &str) {
        let install = "DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install --yes --no-install-recommends";
        self.on(machine, &format!("{install} {packages} 2>&1"));
    }

    /// Sets the secret that cluster files have in secrets/chap.
    pub fn secret(&self, value: &str) {
        let path = self.dir.path().join("secrets/chap");
        std::fs::write(&path, value).expect("write");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("cluster.yaml")
    }

    /// Writes the cluster file.
    pub fn write(&self, text: &str) {
        std::fs::write(self.file(), text).expect("write");
    }

    /// Changes the cluster file by replacing a text, which must be there.
    #[track_caller]
    pub fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.file()).expect("read");
        assert!(text.contains(from), "{from:?} is not in the cluster file:\n{text}");
        self.write(&text.replace(from, to));
    }

    /// Runs `stor` within the machines' network; again, as its user would, when a host was too slow for one of its deadlines.
    pub fn stor(&self, args: &[&str]) -> Ended {
        let mut ended = self.stor_once(args);
        for _ in 0..2 {
            let slow = ["did not finish within", "no answer within", "within 4s"]
                .iter()
                .any(|text| ended.says_any(text));
            if ended.status == 0 || !slow {
                break;
            }
            eprintln!("a host was slow, so again: {}", ended.command);
            ended = self.stor_once(args);
        }
        ended
    }

    /// Runs `apply`, which proves what it made and leaves nothing to do.
    #[track_caller]
    pub fn apply(&self) -> Ended {
        self.applied_by(&["apply", "--yes"])
    }

    /// The same, where something has to go or is replaced.
    #[track_caller]
    pub fn apply_and_prune(&self) -> Ended {
        self.applied_by(&["apply", "--yes", "--prune"])
    }

    #[track_caller]
    fn applied_by(&self, args: &[&str]) -> Ended {
        let applied = self.stor(args).exits(0);
        // An apply that was begun again may find nothing left to do, and then proves nothing.
        if !applied.says_any(PROVED) {
            self.stor(&["verify"]).exits(0).says(&[PROVED]);
        }
        self.stor(&["plan", "--detailed-exitcode"]).exits(0);
        applied
    }

    /// Runs `stor` within the machines' network, once: what is slow is what the test is about.
    pub fn stor_once(&self, args: &[&str]) -> Ended {
        let mut command = launcher();
        command.args(["run", env!("CARGO_BIN_EXE_stor")]).args(args);
        command.env("STOR_FILE", self.file()).env("XDG_STATE_HOME", self.dir.path().join("state"));
        let begun = Instant::now();
        let ended = run(&mut command);
        println!("{:4} s  stor {}\n{}", begun.elapsed().as_secs(), args.join(" "), ended.stdout);
        ended
    }

    /// Runs a shell line on a machine as root and returns what it printed.
    #[track_caller]
    pub fn on(&self, machine: &str, line: &str) -> String {
        run(launcher().args(["ssh", machine, line])).exits(0).stdout
    }

    /// Reboots a machine and waits until it is up again.
    pub fn reboot(&self, machine: &str) {
        let ask = |line: &str| run(launcher().args(["ssh", machine, line])).stdout.trim().to_owned();
        let boot_id = || ask("cat /proc/sys/kernel/random/boot_id");
        let before = boot_id();
        assert!(!before.is_empty(), "{machine} does not answer");
        ask("systemctl reboot");
        self.until(&format!("{machine} is up again"), || {
            let now = boot_id();
            !now.is_empty() && now != before
        });
        self.until(&format!("{machine} has started everything"), || {
            !matches!(ask("systemctl is-system-running --wait").as_str(), "" | "initializing" | "starting")
        });
    }

    /// Waits for something that becomes true within minutes.
    #[track_caller]
    pub fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(300), "waited in vain until {what}");
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// What the heartbeat guest has written to its disk, read on a hypervisor past its cache.
    pub fn heartbeat(&self, machine: &str, image: &str) -> Heartbeat {
        let line = format!("dd if={image} bs=1M count=4 iflag=direct status=none");
        let output = launcher().args(["ssh", machine, &line]).output().expect("the launcher starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        heartbeat::check(output.stdout.as_slice()).expect("reading from memory")
    }

    /// Waits until the guest has written so many beats more than it has now.
    #[track_caller]
    pub fn beats_on(&self, machine: &str, image: &str, more: u64) {
        let begun = self.heartbeat(machine, image).beats;
        self.until("the guest's heart beats", || self.heartbeat(machine, image).beats >= begun + more);
    }
}

impl Drop for Machines {
    /// A test that failed says what the machines had to say.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let ask = "virsh list --all; df -h / /srv 2>/dev/null; journalctl --no-pager --boot --priority=warning --lines=30";
        for machine in names() {
            let said = run(launcher().args(["ssh", machine, ask]));
            eprintln!("--- {machine}\n{}{}", said.stdout, said.stderr);
        }
    }
}

/// What stor may change on the machines, as it is now.
pub struct Traces(BTreeSet<String>);

impl Traces {
    /// Looks at all machines.
    pub fn of(machines: &Machines) -> Self {
        let lines = |machine: &'static str| {
            let text = machines.on(machine, TRACES);
            text.lines().map(|line| format!("{machine}: {line}")).collect::<Vec<_>>()
        };
        Self(names().into_iter().flat_map(lines).collect())
    }

    /// Asserts that the machines are again as they were.
    #[track_caller]
    pub fn are_those_of(&self, machines: &Machines) {
        let Self(after) = Self::of(machines);
        let none: [&String; 0] = [];
        assert_eq!(after.difference(&self.0).collect::<Vec<_>>(), none, "destroy left something");
        assert_eq!(self.0.difference(&after).collect::<Vec<_>>(), none, "destroy took too much");
    }
}

/// Prepares a call of the launcher, which ends in the end.
fn launcher() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", DEADLINE, LAUNCHER]);
    command
}

/// Runs a command to its end.
fn run(command: &mut Command) -> Ended {
    let text = format!("{command:?}")
        .split_once(LAUNCHER)
        .map_or_else(String::new, |(_, words)| format!("vm{words}"));
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().expect("the command starts");
    let text_of = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended {
        command: text,
        status: status.code().unwrap_or(-1),
        stdout: text_of(stdout),
        stderr: text_of(stderr),
    }
}

/// A cluster file of the tree.
pub fn cluster(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vagrant").join(name);
    std::fs::read_to_string(&path).expect("the cluster file")
}
