//! The lock of a host.

use std::io::{BufRead, BufReader};
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use stor::host::ssh::SshAccess;
use stor::host::{Holder, Host, HostError, LockKind};
use stor::model::{AbsPath, Command, FileContent, FileMode, FileSpec, HostId, Query};
use stor::spec::Elevation;

use crate::server::Server;
use crate::sh;

/// Each test has a lock of its own: /run/stor is the machine's.
fn holder(cluster: &str, text: &str) -> Holder {
    Holder { cluster: cluster.parse().unwrap(), kind: LockKind::Exclusive, text: text.into() }
}

fn wait_for_lock(host: &dyn Host, holder: &Holder, patience: Duration) -> Duration {
    let begin = Instant::now();
    loop {
        match host.lock(holder, &[]) {
            Ok(_) => return begin.elapsed(),
            Err(HostError::Busy { .. }) if begin.elapsed() < patience => {}
            Err(error) => panic!("{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_second_comer_is_told_who_holds_the_lock_and_gets_it_once_it_is_dropped() {
    let server = Server::start("");
    let (first, second) = (server.host(), server.host());
    let (alice, bob) = (holder("lock-a", "alice, it's $(me)"), holder("lock-a", "bob"));
    let (guard, answers) = first.lock(&alice, &[Query::new(sh("echo seen"))]).unwrap();
    assert_eq!(answers[0].stdout, "seen\n");
    match second.lock(&bob, &[Query::new(sh("echo seen"))]).map(|_| ()).unwrap_err() {
        HostError::Busy { holder, .. } => assert_eq!(holder, "alice, it's $(me)"),
        other => panic!("{other:?}"),
    }
    assert!(second.lock(&holder("lock-b", "bob"), &[]).is_ok(), "another cluster has a lock of its own");
    first.run(&Command::new("true")).unwrap();
    drop(guard);
    assert!(second.lock(&bob, &[]).is_ok());
}

#[test]
fn a_query_that_outlives_its_round_does_not_keep_the_lock() {
    let server = Server::start("");
    let host = server.host();
    let me = holder("lock-daemon", "me");
    drop(host.lock(&me, &[Query::new(sh("setsid sleep 20 & echo"))]).unwrap());
    assert!(host.lock(&me, &[]).is_ok());
}

/// Run by the next test in a process of its own.
#[test]
#[ignore = "takes a lock for another test, which kills it"]
fn hold_a_lock_until_killed() {
    let Ok(port) = std::env::var("STOR_TEST_PORT") else { panic!("only for the test that kills it") };
    let dir = std::path::PathBuf::from(std::env::var("STOR_TEST_DIR").unwrap());
    let access = SshAccess {
        runtime_dir: dir.join("run"),
        known_hosts: Some(dir.join("known_hosts")),
        identity: Some(dir.join("user")),
        user: None,
    };
    let cluster = crate::server::cluster(port.parse().unwrap(), "root", Elevation::Root);
    let (fleet, _) = stor::host::ssh::connect(&cluster.name, &cluster.hosts, &access, 1).unwrap();
    let host = fleet.host(&HostId::new("kvm1").unwrap()).unwrap();
    let _guard = host.lock(&holder("lock-kill", "the one that is killed"), &[]).unwrap();
    println!("\nlocked");
    host.run(&sh("echo running >/tmp/stor-lock-kill; exec sleep 2")).unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn killing_stor_frees_the_lock_once_what_it_left_running_has_ended() {
    let server = Server::start("");
    let host = server.host();
    let mark = std::path::Path::new("/tmp/stor-lock-kill");
    std::fs::remove_file(mark).ok();
    let mut child = Process::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "locks::hold_a_lock_until_killed"])
        .env("STOR_TEST_PORT", server.port.to_string())
        .env("STOR_TEST_DIR", server.path(""))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "locked"));
    let me = holder("lock-kill", "me");
    assert!(matches!(host.lock(&me, &[]), Err(HostError::Busy { .. })));
    let end = Instant::now() + Duration::from_secs(5);
    while !mark.exists() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let waited = wait_for_lock(&*host, &me, Duration::from_secs(10));
    // The command of the killed stor sleeps 2 s: the lock is not given away under it.
    assert!(waited > Duration::from_millis(1000) && waited < Duration::from_secs(6), "{waited:?}");
}

/// Ends the remote shell that has this file open, as the end of a silent link would.
fn lose(server: &Server, file: &str) {
    let script = format!(
        "for d in /proc/[0-9]*; do ls -l $d/fd 2>/dev/null | grep -q {file} && kill -9 ${{d#/proc/}}; done; true"
    );
    server.host().run(&sh(&script)).unwrap();
    std::thread::sleep(Duration::from_millis(200));
}

fn shared(cluster: &str, text: &str) -> Holder {
    Holder { kind: LockKind::Shared, ..holder(cluster, text) }
}

#[test]
fn live_moves_share_a_lock_that_nobody_else_gets_meanwhile() {
    let server = Server::start("");
    let (first, second, third) = (server.host(), server.host(), server.host());
    let cluster = "lock-share";
    let (one, _) = first.lock(&shared(cluster, "stor migrate web1"), &[]).unwrap();
    let (two, _) = second.lock(&shared(cluster, "stor migrate web2"), &[]).unwrap();
    let told = |host: &dyn Host, holder: &Holder| match host.lock(holder, &[]).map(drop).unwrap_err() {
        HostError::Busy { holder, .. } => holder,
        other => panic!("{other:?}"),
    };
    let mut both: Vec<String> =
        told(&*third, &holder(cluster, "apply")).split("; ").map(str::to_owned).collect();
    both.sort();
    assert_eq!(both, ["stor migrate web1", "stor migrate web2"]);
    first.run(&Command::new("true")).unwrap();
    drop(one);
    assert_eq!(told(&*third, &holder(cluster, "apply")), "stor migrate web2");
    second.holds_lock().unwrap();
    drop(two);
    let (_alone, _) = third.lock(&holder(cluster, "stor apply"), &[]).unwrap();
    assert_eq!(told(&*first, &shared(cluster, "stor migrate web1")), "stor apply");
    third.holds_lock().unwrap();
}

#[test]
fn of_two_that_share_a_lock_only_the_one_that_lost_it_is_told() {
    let server = Server::start("");
    let (first, second) = (server.host(), server.host());
    let cluster = "lock-share-lost";
    // Whoever holds it alone clears the notes of those that were killed.
    drop(first.lock(&holder(cluster, "alone"), &[]).unwrap());
    let (_one, _) = first.lock(&shared(cluster, "web1"), &[]).unwrap();
    let notes = || std::fs::read_dir("/run/stor").unwrap().flatten().map(|entry| entry.path());
    let note = notes().find(|path| path.to_str().unwrap().contains("lock-share-lost.lock.shared.")).unwrap();
    let (_two, _) = second.lock(&shared(cluster, "web2"), &[]).unwrap();
    lose(&server, note.file_name().unwrap().to_str().unwrap());
    for result in [first.holds_lock(), first.run(&Command::new("true")).map(drop)] {
        assert!(matches!(result, Err(HostError::LockLost { .. })), "{result:?}");
    }
    second.holds_lock().unwrap();
    let told = first.lock(&holder(cluster, "apply"), &[]).map(drop).unwrap_err();
    assert!(matches!(&told, HostError::Busy { holder, .. } if holder == "web2"), "{told:?}");
}

#[test]
fn nobody_but_root_may_open_what_a_lock_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start("");
    let host = server.host();
    let _locks = [holder("lock-mode", "me"), shared("lock-mode-shared", "me")]
        .map(|holder| host.lock(&holder, &[]).map(|(guard, _)| guard).unwrap());
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("/run/stor".as_ref()), 0o700);
    let mine: Vec<_> = std::fs::read_dir("/run/stor").unwrap().flatten().map(|entry| entry.path()).collect();
    let mine = mine.iter().filter(|path| path.to_str().unwrap().contains("lock-mode") && path.exists());
    let modes: Vec<u32> = mine.filter(|path| !path.ends_with("busy")).map(|path| mode(path)).collect();
    assert!(modes.len() >= 3 && modes.iter().all(|mode| mode & 0o77 == 0), "{modes:?}");
}

#[test]
fn an_effect_is_refused_once_the_lock_was_lost() {
    let server = Server::start("");
    let host = server.host();
    let me = holder("lock-lost", "me");
    let (_guard, _) = host.lock(&me, &[]).unwrap();
    host.holds_lock().unwrap();
    lose(&server, "lock-lost.lock");
    let target = server.path("never").display().to_string();
    let file = FileSpec {
        path: AbsPath::new(target).unwrap(),
        mode: FileMode(0o644),
        content: FileContent::Text("x".into()),
    };
    std::fs::write(server.path("source"), "x").unwrap();
    let copied = host.feed(&sh("cat >never"), &server.path("source")).map(drop);
    for result in
        [host.run(&Command::new("true")).map(|_| ()), host.write_file(&file), host.holds_lock(), copied]
    {
        assert!(matches!(&result, Err(HostError::LockLost { .. })), "{result:?}");
    }
    assert!(!server.path("never").exists());
}
