//! The machines of the full-kernel tier, and the `stor` command run within their network.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stor::lab::heartbeat::{self, Heartbeat};

/// The launcher of the machines.
const LAUNCHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vagrant/vm");
/// There is one set of machines.
static TURN: Mutex<()> = Mutex::new(());

/// The machines in one test's hands, with its cluster file.
pub struct Machines {
    dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

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
            let said = self.stdout.contains(text) || self.stderr.contains(text);
            assert!(said, "`{}` does not say {text:?}:\n{}\n{}", self.command, self.stdout, self.stderr);
        }
        self
    }
}

impl Machines {
    /// Brings the machines to their first state, for a cluster file.
    pub fn fresh(cluster: &str) -> Self {
        let machines = Self::taken(cluster);
        run(Command::new(LAUNCHER).args(["restore", "booted"])).exits(0);
        machines
    }

    /// Brings the machines to a state where the packages of NFS are installed already, which saves minutes.
    pub fn with_packages(cluster: &str) -> Self {
        static INSTALLED: AtomicBool = AtomicBool::new(false);
        let machines = Self::taken(cluster);
        if INSTALLED.load(Ordering::Relaxed) {
            run(Command::new(LAUNCHER).args(["restore", "packages"])).exits(0);
            return machines;
        }
        run(Command::new(LAUNCHER).args(["restore", "booted"])).exits(0);
        let install = "DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends";
        std::thread::scope(|scope| {
            for (machine, package) in
                [("store1", "nfs-kernel-server"), ("kvm1", "nfs-common"), ("kvm2", "nfs-common")]
            {
                let machines = &machines;
                scope.spawn(move || machines.on(machine, &format!("{install} {package} > /dev/null 2>&1")));
            }
        });
        run(Command::new(LAUNCHER).args(["snapshot", "packages"])).exits(0);
        INSTALLED.store(true, Ordering::Relaxed);
        machines
    }

    fn taken(cluster: &str) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let machines = Self { dir: tempfile::tempdir().expect("temp dir"), _turn: turn };
        machines.write(cluster);
        machines
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("cluster.yaml")
    }

    /// Writes the cluster file.
    pub fn write(&self, text: &str) {
        std::fs::write(self.file(), text).expect("write");
    }

    /// Runs `stor` within the machines' network.
    pub fn stor(&self, args: &[&str]) -> Ended {
        let mut command = Command::new(LAUNCHER);
        command.args(["run", env!("CARGO_BIN_EXE_stor")]).args(args);
        command.env("STOR_FILE", self.file()).env("XDG_STATE_HOME", self.dir.path().join("state"));
        run(command.env_remove("XDG_RUNTIME_DIR"))
    }

    /// Runs a shell line on a machine as root and returns what it printed.
    #[track_caller]
    pub fn on(&self, machine: &str, line: &str) -> String {
        run(Command::new(LAUNCHER).args(["ssh", machine, line])).exits(0).stdout
    }

    /// Reboots a machine and waits until it is up again.
    pub fn reboot(&self, machine: &str) {
        let ask =
            |line: &str| run(Command::new(LAUNCHER).args(["ssh", machine, line])).stdout.trim().to_owned();
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
        let output =
            Command::new(LAUNCHER).args(["ssh", machine, &line]).output().expect("the launcher starts");
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

/// Runs a command to its end.
fn run(command: &mut Command) -> Ended {
    let text = format!("{command:?}").replace(&format!("\"{LAUNCHER}\""), "vm");
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
