//! A canary as CHAP secret: while stor plans, applies, verifies and rotates it, it is in no process, no output and no file but
//! those that are for it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::harness::Lab;

const CLUSTER: &str = include_str!("../../playbooks/iscsi-live-migration/cluster.yaml");
const BY_FILE: &str = "secret: { file: secrets/chap }";
const BY_ENV: &str = "secret: { env: STOR_CANARY }";
const BY_COMMAND: &str = "secret: { command: [cat, secrets/chap] }";

/// A value that nothing else on this machine holds, and the forms in which it could be found.
struct Canary {
    value: String,
    forms: Vec<Vec<u8>>,
    given: Given,
}

/// Whether stor gets the value in its environment.
#[derive(PartialEq)]
enum Given {
    AsVariable,
    NoVariable,
}

impl Canary {
    fn new() -> Self {
        let value = format!("canary{}", uuid::Uuid::new_v4().simple());
        let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
        // Base64 of the value alone, as libvirt's daemon and virsh write it.
        let base64 =
            Command::new("sh").args(["-c", "printf %s \"$0\" | base64 -w0", &value]).output().unwrap();
        let forms = vec![value.clone().into_bytes(), hex.into_bytes(), base64.stdout];
        Self { value, forms, given: Given::AsVariable }
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        self.forms.iter().any(|form| bytes.windows(form.len()).any(|window| window == form))
    }
}

#[test]
fn a_secret_is_seen_by_nobody_while_it_is_used() {
    let canary = Canary::new();
    let lab = Lab::up_with("e2e-canary", CLUSTER, &[("secrets/chap", canary.value.as_bytes())]);
    std::fs::set_permissions(lab.path("secrets/chap"), std::fs::Permissions::from_mode(0o600)).unwrap();
    lab.edit(BY_FILE, BY_ENV);
    for args in [
        &["plan", "-vvv"][..],
        &["plan", "-vvv", "--format", "json"],
        &["plan", "-vvv", "--script"],
        &["apply", "-vvv", "--yes"],
        &["verify", "-vvv", "--format", "json"],
        &["plan", "-vvv", "--detailed-exitcode"],
    ] {
        unseen(&lab, &canary, args);
    }
    lab.edit(BY_ENV, BY_FILE);
    let canary = Canary { given: Given::NoVariable, ..canary };
    unseen(&lab, &canary, &["plan", "--detailed-exitcode"]);
    lab.edit(BY_FILE, &BY_COMMAND.replace("secrets/chap", lab.path("secrets/chap").to_str().unwrap()));
    unseen(&lab, &canary, &["plan", "--detailed-exitcode"]);
    kept_from_others(&lab, &canary);
    lab.lab(&["destroy", "--yes"]).exits(0);
    for host in ["store1", "kvm1", "kvm2"] {
        assert_eq!(holders(&lab, host, &canary), Vec::<String>::new(), "{host}: nothing stays behind");
    }
}

/// Runs stor under umask 000, and looks at every process meanwhile.
#[track_caller]
fn unseen(lab: &Lab, canary: &Canary, args: &[&str]) {
    let stor = Path::new(env!("CARGO_BIN_EXE_stor"));
    let mut command = Command::new("sh");
    command.args(["-c", "umask 000; exec \"$@\"", "sh"]).arg(stor).arg("--lab").args(args);
    command.current_dir(lab.path("")).stdin(Stdio::null()).env("XDG_STATE_HOME", lab.path("state"));
    if canary.given == Given::AsVariable {
        command.env("STOR_CANARY", &canary.value);
    }
    let (done, scans) = (AtomicBool::new(false), AtomicU32::new(0));
    let (output, leaks) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut leaks = Vec::new();
            while !done.load(Ordering::SeqCst) {
                leaks.extend(processes(canary, stor));
                scans.fetch_add(1, Ordering::SeqCst);
            }
            leaks
        });
        let output = command.output().unwrap();
        done.store(true, Ordering::SeqCst);
        (output, watch.join().unwrap())
    });
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {}\n{text}", output.status);
    assert!(leaks.is_empty(), "{args:?}: {leaks:#?}");
    assert!(scans.load(Ordering::SeqCst) > 3, "{args:?}");
    assert!(!canary.is_in(&output.stdout), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    assert!(!canary.is_in(&output.stderr), "{args:?}: {text}");
    let mut found = Vec::new();
    search(&lab.path("state"), canary, &mut found);
    assert!(found.is_empty(), "{args:?}: {found:?}");
}

/// Processes of this machine and of all lab hosts with the canary in their arguments or environment; stor itself was given
/// it in its environment by its user.
fn processes(canary: &Canary, stor: &Path) -> Vec<String> {
    let mut leaks = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        // Processes end while they are looked at.
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let words = read("cmdline");
        if canary.is_in(&words) {
            leaks.push(format!("arguments: {}", String::from_utf8_lossy(&words)));
        }
        // The shell above, and a child between fork and exec, are still stor's.
        let program = std::fs::read_link(entry.path().join("exe")).unwrap_or_default();
        let starts_stor = words.windows(8).any(|window| window == b"umask 00");
        if program != stor && !starts_stor && canary.is_in(&read("environ")) {
            leaks.push(format!("environment of {}", String::from_utf8_lossy(&words)));
        }
    }
    leaks
}

fn search(directory: &Path, canary: &Canary, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            search(&path, canary, found);
        } else if kind.is_file() && canary.is_in(&std::fs::read(&path).unwrap_or_default()) {
            found.push(path);
        }
    }
}

/// Files of a host that hold the canary, as `MODE PATH`. The search is told it in halves, so as to leave no trace itself.
fn holders(lab: &Lab, host: &str, canary: &Canary) -> Vec<String> {
    let halves: Vec<String> = canary
        .forms
        .iter()
        .map(|form| String::from_utf8(form.clone()).unwrap())
        .map(|form| format!("{} {}", &form[..form.len() / 2], &form[form.len() / 2..]))
        .collect();
    let list = "grep -rlaF -D skip --exclude=forms -f /root/forms /etc /root /run /tmp /var 2>/dev/null";
    let script = format!(
        "printf \"%s%s\\n\" {} >/root/forms; {list} | xargs -r stat --format=\"%a %n\"; rm /root/forms",
        halves.join(" ")
    );
    let mut found: Vec<String> = lab.on(host, &script).lines().map(str::to_owned).collect();
    found.sort();
    found
}

/// Where it is, it is root's alone.
fn kept_from_others(lab: &Lab, canary: &Canary) {
    let at_target = holders(lab, "store1", canary);
    assert_eq!(at_target, ["600 /etc/tgt/conf.d/stor-e2e-canary-san.conf"]);
    for host in ["kvm1", "kvm2"] {
        let held = holders(lab, host, canary);
        assert!(
            held.len() == 1 && held[0].starts_with("600 ") && held[0].ends_with(".base64"),
            "{host}: {held:?}"
        );
        assert_eq!(lab.on(host, "stat --format=%a /var/lib/stor/e2e-canary.san.stamp").trim(), "600");
    }
}
