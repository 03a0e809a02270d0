//! The command line: what it prints, and the exit codes of `docs/exit-codes.md`.

#![expect(clippy::disallowed_methods, reason = "a test interrupts stor")]

use assert_cmd::Command;

fn stor(args: &[&str]) -> (i32, String, String) {
    let directory = tempfile::tempdir().unwrap();
    stor_in(directory.path(), args)
}

fn stor_in(directory: &std::path::Path, args: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("stor")
        .unwrap()
        .current_dir(directory)
        .args(args)
        .env_remove("STOR_FILE")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn help_and_version_go_to_standard_output_and_end_with_0() {
    let (code, out, _) = stor(&["--version"]);
    assert_eq!((code, out.trim()), (0, concat!("stor ", env!("CARGO_PKG_VERSION"))));
    let (code, out, _) = stor(&["--help"]);
    assert!(code == 0 && out.contains("migrate") && out.contains("Exit codes"));
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    for args in
        [&["plan", "--frobnicate"][..], &["no-such-command"], &[], &["migrate", "web;1", "--to", "kvm2"]]
    {
        assert_eq!(stor(args).0, 2, "{args:?}");
    }
}

#[test]
fn a_missing_or_invalid_file_ends_with_3_and_says_where() {
    let (code, _, err) = stor(&["check", "nowhere.yaml"]);
    assert!(code == 3 && err.contains("nowhere.yaml") && err.contains("hint:"), "{err}");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("cluster.yaml"), "version: 1\nname: demo\nhosst: {}\n").unwrap();
    for command in ["check", "plan", "apply", "verify", "status", "destroy"] {
        let (code, _, err) = stor_in(directory.path(), &[command]);
        assert!(code == 3 && err.contains("hosst") && err.contains("cluster.yaml:3"), "{command}: {err}");
    }
}

#[test]
fn errors_are_json_documents_too() {
    let (code, out, _) = stor(&["plan", "--format", "json"]);
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &document["command"], &document["error"]["exit"]), (3, &"plan".into(), &3.into()));
}

#[test]
fn init_writes_a_file_that_check_accepts_and_never_overwrites() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(stor_in(directory.path(), &["init"]).0, 0);
    let (code, out, err) = stor_in(directory.path(), &["check"]);
    assert_eq!(code, 0, "{out}{err}");
    let before = std::fs::read(directory.path().join("cluster.yaml")).unwrap();
    assert_eq!(stor_in(directory.path(), &["init"]).0, 3);
    assert_eq!(std::fs::read(directory.path().join("cluster.yaml")).unwrap(), before);
}

#[test]
fn schema_completions_and_manual_are_printed() {
    let (code, out, _) = stor(&["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && schema["properties"]["hosts"].is_object());
    assert!(stor(&["completions", "bash"]).1.contains("_stor"));
    assert!(stor(&["man"]).1.contains(".TH"));
}

#[test]
fn a_host_that_is_down_ends_a_plan_with_5_and_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = "version: 1\nname: down\nhosts:\n  a: { address: 127.0.0.1, ssh: { port: 1 } }\n  b: { address: 127.0.0.2, ssh: { port: 1 } }\n  \
        k: { address: 127.0.0.3, hypervisor: true, ssh: { port: 1 } }\nstorage:\n  gfs:\n    gluster: { replica: 2, bricks: [a:/data/b, b:/data/b] }\n";
    // A closed port on loopback refuses at once.
    std::fs::write(directory.path().join("cluster.yaml"), cluster).unwrap();
    let (code, out, err) = stor_in(directory.path(), &["plan"]);
    assert!(code == 5 && out.contains("blocked") && out.contains("nothing listens"), "{code} {out}{err}");
    let (code, _, _) = stor_in(directory.path(), &["apply", "--yes"]);
    assert_eq!(code, 6);
}

/// A host that accepts connections and never says a word hangs ssh and libvirt alike: two Ctrl-C end every command in time.
#[test]
fn a_second_ctrl_c_ends_every_command_whatever_hangs() {
    use nix::sys::signal::{Signal, kill};
    use std::time::{Duration, Instant};
    let silent = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let host = format!("{{ address: 127.0.0.1, hypervisor: true, ssh: {{ user: root, port: {port} }} }}");
    let file = format!(
        "version: 1\nname: silent\nhosts:\n  store1: {{ address: 127.0.0.2, ssh: {{ user: root, port: {port} }} }}\n  \
         kvm1: {host}\nstorage:\n  s:\n    nfs: {{ server: store1, path: /srv/s }}\nimages:\n  \
         web1: {{ storage: s, size: 64MiB, format: raw }}\nguests:\n  web1: {{ image: web1, on: kvm1, memory: 64MiB }}\n"
    );
    std::fs::write(dir.path().join("cluster.yaml"), file).unwrap();
    // A start may have begun as far as the last words can tell; with no guest that moves there is nothing to say.
    let commands: [(&[&str], &[i32]); 3] = [
        (&["start", "web1"], &[5, 10]),
        (&["migrate", "web1", "--to", "kvm1"], &[5, 130]),
        (&["apply", "--yes"], &[130]),
    ];
    for (args, codes) in commands {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_stor"))
            .current_dir(dir.path())
            .env("XDG_RUNTIME_DIR", dir.path())
            .args(args)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        std::thread::sleep(Duration::from_millis(1500));
        kill(pid, Signal::SIGINT).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(child.try_wait().unwrap().is_none(), "{args:?} ended before anything hung");
        let second = Instant::now();
        kill(pid, Signal::SIGINT).unwrap();
        let ended = child.wait_with_output().unwrap();
        let (took, said) = (second.elapsed(), String::from_utf8_lossy(&ended.stderr).into_owned());
        println!("{args:?}: {:?} after {took:?}: {said}", ended.status.code());
        assert!(took < Duration::from_secs(4), "{args:?} took {took:?}: {said}");
        assert!(codes.contains(&ended.status.code().unwrap()), "{args:?}: {:?}: {said}", ended.status);
    }
}
