//! Who may log in, as whom, and what is said when it does not work.

use std::fs;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use stor::host::{Host, HostError};
use stor::model::{Command, HostId};
use stor::spec::Elevation;

use crate::server::Server;
use crate::sh;

fn reason(result: Result<impl std::fmt::Debug, HostError>) -> (String, String) {
    match result.unwrap_err() {
        HostError::Unreachable { reason, hint, .. } => (reason, hint.unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

/// Touches a file on the host: what it left says whether any command ran.
fn touch(server: &Server, host: &dyn Host) -> Result<stor::model::Output, HostError> {
    host.run(&Command::new("touch").arg(server.path("ran").display().to_string()))
}

#[test]
fn a_wrong_or_unknown_host_key_sends_no_command_even_when_another_master_is_open() {
    let server = Server::start("");
    // A master of an access that trusts the right key is open and must not serve the others.
    server.host().run(&Command::new("true")).unwrap();
    let logins = || server.log().matches("Accepted publickey").count();
    let before = logins();
    for (known, expected) in [("other", "host key differs"), ("", "host key is not in known_hosts")] {
        let mut access = server.access();
        access.known_hosts = Some(server.path("known_wrong"));
        let line = match known {
            "" => String::new(),
            key => format!(
                "[127.0.0.1]:{} {}",
                server.port,
                fs::read_to_string(server.path(&format!("{key}.pub"))).unwrap()
            ),
        };
        fs::write(server.path("known_wrong"), line).unwrap();
        let (fleet, _) = server.connect(&access, "root", Elevation::Root);
        let host = fleet.host(&HostId::new("kvm1").unwrap()).unwrap();
        let (said, hint) = reason(touch(&server, &**host));
        assert!(said.contains(expected) && said.contains("no command was sent"), "{said}");
        assert!(!hint.is_empty());
    }
    assert_eq!(logins(), before, "nobody logged in");
    assert!(!server.path("ran").exists());
}

#[test]
fn refusals_name_their_cause() {
    let server = Server::start("");
    let id = HostId::new("kvm1").unwrap();
    let mut access = server.access();
    access.identity = Some(server.path("stranger"));
    let (fleet, _) = server.connect(&access, "root", Elevation::Root);
    let (said, hint) = reason(touch(&server, &**fleet.host(&id).unwrap()));
    assert!(said.contains("login was refused") && hint.contains("authorized_keys"), "{said}");

    let (fleet, _) = server.connect(&server.access(), "nobody-of-this-name", Elevation::Root);
    assert!(reason(touch(&server, &**fleet.host(&id).unwrap())).0.contains("login was refused"));

    let mut cluster = server.cluster("root", Elevation::Root);
    let spec = cluster.hosts.get_mut(&id).unwrap();
    spec.ssh.port = Some(1);
    let (fleet, _) = stor::host::ssh::connect(&cluster.name, &cluster.hosts, &server.access(), 1).unwrap();
    assert!(reason(touch(&server, &**fleet.host(&id).unwrap())).0.contains("nothing listens"));
    cluster.hosts.get_mut(&id).unwrap().address = "no-such-host.invalid".into();
    let (fleet, _) = stor::host::ssh::connect(&cluster.name, &cluster.hosts, &server.access(), 1).unwrap();
    assert!(reason(touch(&server, &**fleet.host(&id).unwrap())).0.contains("cannot be resolved"));
}

/// A user with a sudoers rule, removed at the end.
struct User(&'static str);

impl User {
    fn new(name: &'static str, rule: &str) -> Self {
        assert!(
            Process::new("sudo").arg("-V").stdout(Stdio::null()).status().is_ok(),
            "these tests need sudo"
        );
        let made = Process::new("useradd").args(["-M", "-s", "/bin/sh", "-p", "*", name]).status().unwrap();
        assert!(made.success(), "useradd {name}");
        let user = Self(name);
        if !rule.is_empty() {
            fs::write(format!("/etc/sudoers.d/{name}"), format!("{name} ALL=(root) {rule}\n")).unwrap();
        }
        user
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = fs::remove_file(format!("/etc/sudoers.d/{}", self.0));
        // A master may still be logged in as the user.
        assert!(
            Process::new("userdel").args(["-f", self.0]).stderr(Stdio::null()).status().unwrap().success()
        );
    }
}

#[test]
fn sudo_that_asks_for_a_password_fails_at_once() {
    let server = Server::start("");
    let user = User::new("stortest-asks", "ALL");
    let (fleet, _) = server.connect(&server.access(), user.0, Elevation::Sudo);
    let host = fleet.host(&HostId::new("kvm1").unwrap()).unwrap();
    let begin = Instant::now();
    match touch(&server, &**host).unwrap_err() {
        HostError::Elevation { reason, .. } => assert!(reason.contains("password is required"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(!server.path("ran").exists());
}

#[test]
fn a_user_who_may_run_nothing_but_the_two_shells_of_stor_is_root_there() {
    let server = Server::start("");
    let user =
        User::new("stortest-sudo", "NOPASSWD: /usr/bin/sh -s, /usr/bin/sh -c *, /bin/sh -s, /bin/sh -c *");
    let (fleet, config) = server.connect(&server.access(), user.0, Elevation::Sudo);
    let id = HostId::new("kvm1").unwrap();
    let host = fleet.host(&id).unwrap();
    assert_eq!(host.run(&sh("id -u")).unwrap().stdout, "0\n");
    let image = server.path("image");
    fs::write(&image, b"x").unwrap();
    let target = server.path("copy").display().to_string();
    let into = Command::new("sh").args(["-c", r#"cat >"$1""#, "sh", &target]);
    host.feed(&into, &image).unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "x");

    let holder = stor::host::Holder {
        cluster: "lock-sudo".parse().unwrap(),
        kind: stor::host::LockKind::Exclusive,
        text: "me".into(),
    };
    let (guard, _) = host.lock(&holder, &[]).unwrap();
    host.run(&Command::new("true")).unwrap();
    let begin = Instant::now();
    drop(guard);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    drop(host.lock(&holder, &[]).unwrap());

    // As libvirt calls it (virNetSocketNewConnectSSH).
    let output = Process::new(config.wrapper(&id).unwrap())
        .args(["-T", "-e", "none", "--", "kvm1", "sh -c 'id -u; echo \"$0\"'"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\nsh\n", "{output:?}");
}

#[test]
fn a_login_that_is_not_root_is_told_so() {
    let server = Server::start("");
    let user = User::new("stortest-plain", "");
    let (fleet, _) = server.connect(&server.access(), user.0, Elevation::Root);
    let host = fleet.host(&HostId::new("kvm1").unwrap()).unwrap();
    match touch(&server, &**host).unwrap_err() {
        HostError::Elevation { reason, .. } => assert!(reason.contains("become: sudo"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(!server.path("ran").exists());
}

#[test]
fn a_long_runtime_directory_still_gives_a_socket_that_fits() {
    let server = Server::start("");
    let mut access = server.access();
    access.runtime_dir = server.path(&"d".repeat(120));
    let (fleet, config) = server.connect(&access, "root", Elevation::Root);
    fleet.host(&HostId::new("kvm1").unwrap()).unwrap().run(&Command::new("true")).unwrap();
    let text = fs::read_to_string(config.config()).unwrap();
    assert!(text.contains(&format!("ControlPath \"/tmp/stor-{}/", nix::unistd::geteuid())), "{text}");
}

#[test]
fn noise_of_the_login_shell_and_a_dead_socket_do_no_harm() {
    let server = Server::start("");
    let host = server.host();
    host.run(&Command::new("true")).unwrap();
    // The master dies without removing its socket.
    let socket = fs::read_dir(server.path("run")).unwrap().flatten().find(|entry| {
        use std::os::unix::fs::FileTypeExt;
        entry.file_type().unwrap().is_socket()
    });
    let socket = socket.unwrap().path();
    let master = Process::new("ssh").args(["-O", "check", "-S"]).arg(&socket).arg("x").output().unwrap();
    let said = String::from_utf8_lossy(&master.stderr).into_owned();
    let pid: i32 = said.split("pid=").nth(1).unwrap().split(')').next().unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(socket.exists(), "a killed master leaves its socket");
    assert_eq!(host.run(&sh("echo again")).unwrap().stdout, "again\n");
}
