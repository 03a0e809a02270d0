//! Batches of queries, and commands.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use stor::host::HostError;
use stor::model::{Command, Query, Secret, Stdin};

use crate::server::Server;
use crate::sh;

#[test]
fn a_batch_answers_in_order_with_every_status_and_output() {
    let server = Server::start("");
    let host = server.host();
    let batch = [
        Query::new(sh("sleep 0.2; echo first")),
        Query::new(sh("echo out; echo err >&2; exit 3")),
        Query::new(Command::new("no-such-program-here")),
        Query::new(sh("sleep 30").deadline(Duration::from_secs(1))),
        Query::new(sh("kill -9 $$")),
        Query::new(Command::new("cat").stdin(Stdin::Text("it's\n$(id)".into()))),
        Query::new(sh("echo $LC_ALL; umask; pwd; command -v useradd")),
        Query::new(sh("head -c 1000000 /dev/zero | tr '\\0' x")),
        Query::new(sh("printf '\\377\\000'")),
    ];
    let begin = Instant::now();
    let answers = host.query(&batch).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
    let (status, out) = (|n: usize| answers[n].status, |n: usize| answers[n].stdout.as_str());
    assert_eq!((status(0), out(0)), (Some(0), "first\n"));
    assert_eq!((status(1), out(1), answers[1].stderr.as_str()), (Some(3), "out\n", "err\n"));
    assert!(answers[2].not_found());
    assert_eq!((status(3), status(4)), (None, None));
    assert_eq!(out(5), "it's\n$(id)");
    assert_eq!(out(6), "C\n0022\n/\n/usr/sbin/useradd\n");
    assert_eq!((status(7), out(7).len()), (Some(0), 1_000_000));
    assert_eq!(out(8), "\u{fffd}\0");
}

#[test]
fn more_queries_than_run_at_once_keep_their_order() {
    let server = Server::start("");
    let batch: Vec<Query> =
        (0..50).map(|n| Query::new(sh(&format!("sleep 0.0{}; echo {n}", n % 7)))).collect();
    let answers = server.host().query(&batch).unwrap();
    let lines: Vec<String> = answers.into_iter().map(|answer| answer.stdout).collect();
    assert_eq!(lines, (0..50).map(|n| format!("{n}\n")).collect::<Vec<_>>());
}

/// A stopped `timeout` cannot kill what it watches, like one whose child is in uninterruptible sleep.
#[test]
fn a_query_that_nothing_can_end_does_not_hang_the_round() {
    let server = Server::start("");
    let host = server.host();
    let hung = sh("kill -STOP $PPID; sleep 20").deadline(Duration::from_secs(1));
    let fine = sh("echo fine").deadline(Duration::from_secs(1));
    let begin = Instant::now();
    let answers = host.query(&[Query::new(hung), Query::new(fine)]).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    assert_eq!(answers[0].status, None);
    assert_eq!(answers[1].stdout, "fine\n");
}

#[test]
fn an_output_without_end_is_cut_off_and_the_other_answers_stand() {
    let server = Server::start("");
    let endless = Query::new(Command::new("yes").deadline(Duration::from_secs(9)));
    match server.host().query(&[endless, Query::new(sh("echo fine"))]) {
        Ok(answers) => assert_eq!((answers[0].status, answers[1].stdout.as_str()), (None, "fine\n")),
        Err(error) => assert!(matches!(error, HostError::Protocol { .. }), "{error}"),
    }
}

#[test]
fn a_failed_command_shows_its_words_status_and_the_end_of_its_message() {
    let server = Server::start("");
    let host = server.host();
    let fail = sh("echo out; for n in 1 2 3 4 5 6 7; do echo line$n >&2; done; exit 9");
    match host.run(&fail).unwrap_err() {
        HostError::Failed { host, status, stderr, .. } => {
            assert_eq!((host.as_str(), status.as_str()), ("kvm1", "9"));
            assert_eq!(stderr, "line3; line4; line5; line6; line7");
        }
        other => panic!("{other:?}"),
    }
    let slow = Command::new("sleep").arg("30").deadline(Duration::from_secs(1));
    let begin = Instant::now();
    assert!(matches!(host.run(&slow), Err(HostError::Deadline { .. })));
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(matches!(host.run(&Command::new("x\0y")), Err(HostError::Protocol { .. })));
}

#[test]
fn a_daemon_left_behind_does_not_keep_the_call_open() {
    let server = Server::start("");
    let begin = Instant::now();
    server.host().run(&sh("setsid sleep 15 & echo started")).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn a_connection_that_breaks_under_a_command_is_unknown_and_not_a_failure() {
    let server = Server::start("");
    // timeout < sh -s < the session's sshd
    let cut = sh("s=$(ps -o ppid= $PPID); d=$(ps -o ppid= $s); kill -9 $d; sleep 2");
    match server.host().run(&cut).unwrap_err() {
        HostError::Unreachable { reason, hint, .. } => {
            assert!(reason.contains("the connection broke while `sh"), "{reason}");
            assert!(hint.is_some());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_host_that_talks_without_end_is_cut_off() {
    let server = Server::start("ForceCommand exec yes");
    let begin = Instant::now();
    let error = server.host().run(&Command::new("true")).unwrap_err();
    assert!(matches!(error, HostError::Protocol { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
}

/// sshd allows 10 sessions per connection (MaxSessions); the others get connections of their own.
#[test]
fn more_calls_at_once_than_one_connection_carries_all_succeed() {
    let server = Server::start("");
    let host = server.host();
    host.run(&Command::new("true")).unwrap();
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..14).map(|_| scope.spawn(|| host.run(&sh("sleep 1; echo done")))).collect();
        for call in calls {
            assert_eq!(call.join().unwrap().unwrap().stdout, "done\n");
        }
    });
}

/// The canary must be in no process's arguments or environment, here or on the host (the same machine), while it is used.
#[test]
fn a_secret_shows_in_no_argument_list_and_no_environment() {
    let server = Server::start("");
    let host = server.host();
    let canary = format!("canary{}", uuid::Uuid::new_v4().simple());
    let command = sh("sleep 0.5; cat | wc -c; sleep 0.5").stdin(Stdin::Secret(Secret::new(canary.clone())));
    assert!(!command.to_string().contains(&canary) && !format!("{command:?}").contains(&canary));
    let (mut scans, mut leaks) = (0, Vec::new());
    let output = std::thread::scope(|scope| {
        let running = scope.spawn(|| host.run(&command));
        while !running.is_finished() {
            scans += 1;
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                for file in ["cmdline", "environ"] {
                    // Processes end while they are looked at.
                    let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
                    if bytes.windows(canary.len()).any(|window| window == canary.as_bytes()) {
                        leaks.push(String::from_utf8_lossy(&bytes).into_owned());
                    }
                }
            }
        }
        running.join().unwrap()
    });
    assert_eq!(output.unwrap().stdout.trim(), canary.len().to_string());
    assert!(scans > 3 && leaks.is_empty(), "{scans} scans: {leaks:?}");
}

#[test]
fn any_text_arrives_as_the_same_bytes() {
    let server = Server::start("");
    let host = server.host();
    let words =
        proptest::collection::vec("[^\\x00]{0,40}|['\"\\\\$`!*?~#;&|<>(){}\\[\\] \\t\\n\\r=%-]{0,12}", 1..12);
    let config = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&(words, "[^\\x00]{0,200}"), |(words, stdin)| {
            let show = Command::new("printf").arg("%s\\0").args(words.clone());
            let read = Command::new("cat").stdin(Stdin::Text(stdin.clone()));
            let answers = host.query(&[Query::new(show), Query::new(read)]).unwrap();
            let shown: Vec<&str> = answers[0].stdout.split_terminator('\0').collect();
            prop_assert_eq!(shown, words);
            prop_assert_eq!(&answers[1].stdout, &stdin);
            Ok(())
        })
        .unwrap();
}
