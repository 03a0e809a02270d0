//! Hosts over a real OpenSSH server on loopback. Needs root, sshd and sudo.

mod server;

use std::time::{Duration, Instant};

use server::Server;
use stor::host::{Holder, HostError};
use stor::model::{Command, Query, Stdin};

fn sh(script: &str) -> Command {
    Command::new("sh").args(["-c", script])
}

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
        Query::new(sh("echo $LC_ALL; umask; pwd")),
    ];
    let begin = Instant::now();
    let answers = host.query(&batch).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
    assert_eq!((answers[0].status, answers[0].stdout.as_str()), (Some(0), "first\n"));
    assert_eq!(
        (answers[1].status, answers[1].stdout.as_str(), answers[1].stderr.as_str()),
        (Some(3), "out\n", "err\n")
    );
    assert!(answers[2].not_found());
    assert_eq!(answers[3].status, None);
    assert_eq!(answers[4].status, None);
    assert_eq!(answers[5].stdout, "it's\n$(id)");
    assert_eq!(answers[6].stdout, "C\n0022\n/\n");
}
