//! An apply that finds nothing to do on 16 real hosts, beside a bare `ssh HOST true` to the same hosts at once:
//! `cargo bench --bench noop_apply`, as root (it brings a lab up and takes it down).
//!
//! Machines are noisy, so both take turns and what counts is the median of the ratios. Rounds are of two kinds: every
//! connection is made anew, or stor's masters are open from the round before.

#![expect(clippy::disallowed_methods, reason = "the bench starts stor and ssh")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const NAME: &str = "bench-noop";
const SERVERS: usize = 3;
const HYPERVISORS: usize = 13;
const ROUNDS: usize = 15;

fn main() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("cluster.yaml");
    let lab = Lab { file };
    println!("{} hosts, {ROUNDS} rounds; bare ssh makes {0} connections at once", SERVERS + HYPERVISORS);
    lab.write(&hosts_only());
    lab.stor(&["lab", "up"]);
    lab.stor(&["--lab", "plan"]);
    println!("a file that names only the hosts: what reaching, locking and asking costs");
    rounds(&lab);
    lab.write(&cluster());
    lab.stor(&["--lab", "apply", "--yes"]);
    println!("a volume, its mounts, pools, image and trust: with what the hosts do to answer");
    rounds(&lab);
}

fn rounds(lab: &Lab) {
    let (mut fresh, mut open) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        lab.close_masters();
        let made = time(|| lab.stor(&["--lab", "apply", "--yes"]));
        let kept = time(|| lab.stor(&["--lab", "apply", "--yes"]));
        let bare = time(|| lab.ssh_everywhere());
        // The first round warms caches.
        if round > 0 {
            fresh.push((made, bare));
            open.push((kept, bare));
        }
    }
    report("new connections", &fresh);
    report("masters open", &open);
}

fn report(kind: &str, pairs: &[(Duration, Duration)]) {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let apply = median(pairs.iter().map(|(apply, _)| apply.as_secs_f64() * 1e3).collect());
    let bare = median(pairs.iter().map(|(_, bare)| bare.as_secs_f64() * 1e3).collect());
    let ratio = median(pairs.iter().map(|(apply, bare)| apply.as_secs_f64() / bare.as_secs_f64()).collect());
    println!("{kind:>16}: apply {apply:6.0} ms, bare ssh {bare:6.0} ms, median of ratios {ratio:.2}");
}

fn time(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

fn hosts() -> impl Iterator<Item = (String, String, bool)> {
    let servers = (0..SERVERS).map(|at| (format!("store{at}"), format!("10.79.0.{}", 11 + at), false));
    servers.chain((0..HYPERVISORS).map(|at| (format!("kvm{at}"), format!("10.79.0.{}", 31 + at), true)))
}

fn hosts_only() -> String {
    let mut out = format!("version: 1\nname: {NAME}\nssh: {{ user: root }}\nhosts:\n");
    for (name, address, _) in hosts() {
        writeln!(out, "  {name}: {{ address: {address} }}").expect("a string");
    }
    out
}

fn cluster() -> String {
    let mut out = format!("version: 1\nname: {NAME}\nssh: {{ user: root }}\nhosts:\n");
    for (name, address, hypervisor) in hosts() {
        writeln!(out, "  {name}: {{ address: {address}, hypervisor: {hypervisor} }}").expect("a string");
    }
    let bricks: Vec<String> = (0..SERVERS).map(|at| format!("store{at}:/data/bricks/gfs")).collect();
    write!(
        out,
        "storage:\n  gfs:\n    gluster:\n      replica: 3\n      arbiter: true\n      force: true\n      bricks: [{}]\n\
         images:\n  web1: {{ storage: gfs, size: 64MiB }}\n",
        bricks.join(", ")
    )
    .expect("a string");
    out
}

/// A lab that is taken down whatever happens.
struct Lab {
    file: PathBuf,
}

impl Lab {
    fn write(&self, text: &str) {
        std::fs::write(&self.file, text).expect("write");
    }

    fn stor(&self, args: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stor"));
        command.args(args).env("STOR_FILE", &self.file);
        let output = command.output().expect("stor starts");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The configuration that stor itself gives to ssh.
    fn config() -> PathBuf {
        let directory = Path::new("/run/stor-lab").join(NAME);
        let entries =
            std::fs::read_dir(directory).expect("the lab is up").flatten().map(|entry| entry.path());
        entries
            .into_iter()
            .find(|path| path.extension().is_some_and(|ext| ext == "conf"))
            .expect("a configuration")
    }

    fn ssh(options: &[&str], host: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("stor-{NAME}"), "ssh", "-F"]).arg(Self::config());
        command.args(options).arg(host).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn close_masters(&self) {
        for (host, ..) in hosts() {
            // There is none before the first round, and then ssh fails.
            Self::ssh(&["-O", "exit"], &host).status().expect("ssh starts");
        }
    }

    fn ssh_everywhere(&self) {
        let alone = ["-o", "ControlMaster=no", "-o", "ControlPath=none"];
        let children: Vec<_> = hosts()
            .map(|(host, ..)| Self::ssh(&alone, &host).arg("true").spawn().expect("ssh starts"))
            .collect();
        for mut child in children {
            assert!(child.wait().expect("wait").success(), "ssh failed");
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = Command::new(env!("CARGO_BIN_EXE_stor"))
            .args(["lab", "down"])
            .env("STOR_FILE", &self.file)
            .output();
        if !down.is_ok_and(|output| output.status.success()) {
            eprintln!("the lab {NAME} could not be taken down: `stor lab down`");
        }
    }
}
