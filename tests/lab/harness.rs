//! A lab for one test, and the `stor` command run against it.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::fcntl::{Flock, FlockArg};

/// The cluster file of the README's demo, with its hosts, volume, image and guest.
pub const DEMO: &str = include_str!("../../playbooks/gluster-live-migration/cluster.yaml");

/// A playbook that waits until the guest has written twenty beats more, and reads all of them.
pub const BEATS: &str = "version: 1
title: beats
cluster: cluster.yaml
steps:
  - expect: { heartbeat: { guest: web1, beats: 20, within: 60 } }
";

/// The image shows all beats so far, by one writer, and the guest goes on writing; `beats.yaml` has to be there.
#[track_caller]
pub fn beats(lab: &Lab) {
    lab.lab(&["run", "beats.yaml"]).exits(0).says(&["none lost, none doubled, one writer"]);
}

/// A running lab; dropped, it is taken down whatever happened.
pub struct Lab {
    dir: tempfile::TempDir,
    name: String,
    _turn: Flock<File>,
}

/// How a command ended.
pub struct Ended {
    pub command: String,
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
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
                self.stdout.contains(text) || self.stderr.contains(text),
                "`{}` does not say {text:?}\n--- stdout\n{}\n--- stderr\n{}",
                self.command,
                self.stdout,
                self.stderr
            );
        }
        self
    }

    /// Parses standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("`{}` printed no JSON ({e}):\n{}", self.command, self.stdout))
    }
}

impl Lab {
    /// Boots the hosts of `cluster` (with its name replaced by `name`).
    pub fn up(name: &str, cluster: &str) -> Self {
        Self::up_with(name, cluster, &[])
    }

    /// Likewise, with files beside the cluster file.
    pub fn up_with(name: &str, cluster: &str, files: &[(&str, &[u8])]) -> Self {
        let lock = File::create("/run/stor-lab-tests.lock").expect("these tests run as root");
        let turn = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e).expect("lock");
        let lab = Self { dir: tempfile::tempdir().expect("temp dir"), name: name.to_owned(), _turn: turn };
        lab.write("cluster.yaml", cluster);
        for (file, bytes) in files {
            let path = lab.dir.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            std::fs::write(&path, bytes).expect("write");
            if file.starts_with("secrets/") {
                std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
            }
        }
        lab.stor(&["lab", "down"]);
        lab.stor(&["lab", "up"]).exits(0);
        lab
    }

    /// Writes a file next to the cluster file; a cluster file gets the lab's name.
    pub fn write(&self, file: &str, text: &str) -> PathBuf {
        let named: Vec<String> = text
            .lines()
            .map(
                |line| {
                    if line.starts_with("name:") { format!("name: {}", self.name) } else { line.to_owned() }
                },
            )
            .collect();
        let path = self.dir.path().join(file);
        std::fs::write(&path, named.join("\n") + "\n").expect("write");
        path
    }

    /// A file next to the cluster file.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Changes the cluster file by replacing one text, which must be there.
    #[track_caller]
    pub fn edit(&self, from: &str, to: &str) {
        let path = self.dir.path().join("cluster.yaml");
        let text = std::fs::read_to_string(&path).expect("read");
        assert!(text.contains(from), "{from:?} is not in the cluster file:\n{text}");
        std::fs::write(&path, text.replace(from, to)).expect("write");
    }

    /// Prepares `stor` without `--lab`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stor"));
        command.current_dir(self.dir.path()).args(args);
        command.env("XDG_STATE_HOME", self.dir.path().join("state")).env_remove("STOR_FILE");
        command.stdin(Stdio::null());
        command
    }

    /// Runs `stor` without `--lab`.
    pub fn stor(&self, args: &[&str]) -> Ended {
        ended(&mut self.command(args))
    }

    /// Runs `stor --lab`.
    pub fn lab(&self, args: &[&str]) -> Ended {
        let all: Vec<&str> = ["--lab"].iter().chain(args).copied().collect();
        self.stor(&all)
    }

    /// The lab as the library knows it, for pulling cables and cutting power.
    pub fn machinery(&self) -> stor::lab::Lab {
        let name = stor::model::ClusterName::new(&self.name).expect("a name");
        stor::lab::open(&name, &stor::lab::Settings::from_env().expect("settings")).expect("the lab is up")
    }

    /// The private key with which every lab host lets root in.
    pub fn key(&self) -> PathBuf {
        self.files().join("id_ed25519")
    }

    /// Runs `stor` as on a machine of the lab's network that knows the hosts' keys but is not told of the lab: users, keys
    /// and sudo are the cluster file's.
    pub fn neighbour(&self, args: &[&str]) -> Ended {
        let home = self.dir.path().join("home");
        std::fs::create_dir_all(home.join(".ssh")).expect("home");
        std::fs::copy(self.files().join("known_hosts"), home.join(".ssh/known_hosts")).expect("known_hosts");
        // ssh asks the system for the home directory, not the environment: there the known hosts are laid over.
        std::fs::create_dir_all("/root/.ssh").expect("/root/.ssh");
        let over = "mount --bind home/.ssh /root/.ssh && exec \"$@\"";
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("stor-{}", self.name), "unshare", "--mount"]);
        command.args(["sh", "-c", over, "sh", env!("CARGO_BIN_EXE_stor")]).args(args);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("HOME", home).env_remove("XDG_RUNTIME_DIR").env_remove("STOR_FILE");
        ended(&mut command)
    }

    /// Runs `work` while this machine's known key of `host` is another host's.
    pub fn with_wrong_key_of(&self, host: &str, work: impl FnOnce()) {
        let path = self.files().join("known_hosts");
        let good = std::fs::read_to_string(&path).expect("known_hosts");
        let key = |line: &str| line.split(' ').skip(1).collect::<Vec<_>>().join(" ");
        let names = |line: &str, host: &str| line.split([',', ' ']).any(|name| name == host);
        let other = good.lines().find(|line| !names(line, host)).map(key).expect("another host");
        let swap = |line: &str| match names(line, host) {
            true => format!("{} {other}", line.split(' ').next().unwrap_or("")),
            false => line.to_owned(),
        };
        let bad: Vec<String> = good.lines().map(swap).collect();
        std::fs::write(&path, bad.join("\n") + "\n").expect("write");
        work();
        std::fs::write(&path, good).expect("write");
    }

    fn files(&self) -> PathBuf {
        Path::new("/var/lib/stor-lab").join(&self.name)
    }

    /// Runs a command on a lab host as root, by hand, and returns what it printed.
    #[track_caller]
    pub fn on(&self, host: &str, script: &str) -> String {
        self.stor(&["lab", "shell", host, "--", "sh", "-c", script]).exits(0).stdout
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = self.stor(&["lab", "down"]);
        if !std::thread::panicking() {
            down.exits(0);
        }
    }
}

/// Runs a command to its end.
pub fn ended(command: &mut Command) -> Ended {
    let text = format!("{command:?}");
    let Output { status, stdout, stderr } = command.output().expect("the command starts");
    Ended {
        command: text,
        status: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}
