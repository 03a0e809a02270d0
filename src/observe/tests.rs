use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::host::Host;
use crate::host::fake::{FakeHost, Faults, Files, answer};
use crate::model::Command;

fn fake(name: &str) -> Arc<FakeHost> {
    let machine = |command: &Command, files: &mut Files| {
        // Counts how often it was asked, in a file.
        let path = crate::model::AbsPath::new(format!("/asked/{}", command.program)).unwrap();
        let count = files.text(&path).map_or(0, |text| text.len()) + 1;
        files.put(&path, "x".repeat(count), 0o600);
        answer(0, count.to_string())
    };
    Arc::new(FakeHost::new(name.parse().unwrap(), Box::new(machine), Faults::default()))
}

fn fleet(hosts: &[&Arc<FakeHost>]) -> Fleet {
    Fleet::new(hosts.iter().map(|host| Arc::clone(host) as Arc<dyn Host>), 8)
}

fn batches(hosts: &[&str]) -> Batches {
    let query = Query::new(Command::new("uname"));
    hosts.iter().map(|name| (name.parse().unwrap(), vec![query.clone(), query.clone()])).collect()
}

fn holder() -> Holder {
    Holder { cluster: "homelab".parse().unwrap(), kind: crate::host::LockKind::Exclusive, text: "me".into() }
}

#[test]
fn each_distinct_query_is_asked_once_and_a_silent_host_is_unobserved_with_its_reason() {
    let (up, down) = (fake("a"), fake("b"));
    down.set_down(Some("no route leads to it"));
    let seen = observe(&fleet(&[&up, &down]), &batches(&["a", "b", "c"]));
    let query = Query::new(Command::new("uname"));
    assert_eq!(seen.answer(&"a".parse().unwrap(), &query).unwrap().stdout, "1");
    for (host, expected) in [("b", "no route leads to it"), ("c", "not in the fleet")] {
        match seen.host(&host.parse().unwrap()) {
            Some(HostSeen::Unobserved(reason)) => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_busy_host_refuses_the_whole_apply_and_no_lock_is_kept() {
    let (a, b) = (fake("a"), fake("b"));
    a.set_lock(Some("alice"));
    let fleet = fleet(&[&a, &b]);
    let errors = observe_locked(&fleet, &holder(), &batches(&["a", "b"])).unwrap_err();
    assert_eq!(
        errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["host a: busy: alice holds the lock"]
    );
    a.set_lock(None);
    assert!(observe_locked(&fleet, &holder(), &batches(&["a", "b"])).is_ok());
}

#[test]
fn the_holder_of_the_first_host_waits_for_the_others() {
    let (a, b) = (fake("a"), fake("b"));
    b.set_lock(Some("bob"));
    let fleet = fleet(&[&a, &b]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            b.set_lock(None);
        });
        let (_, locks) = observe_locked(&fleet, &holder(), &batches(&["a", "b"])).unwrap();
        assert_eq!(locks.hosts().map(ToString::to_string).collect::<Vec<_>>(), ["a", "b"]);
    });
}

#[test]
fn of_two_applies_at_once_one_wins() {
    let hosts: Vec<_> = ["a", "b", "c", "d"].map(fake).into();
    let fleet = fleet(&hosts.iter().collect::<Vec<_>>());
    for _ in 0..10 {
        let both = std::sync::Barrier::new(2);
        let outcomes: Vec<bool> = std::thread::scope(|scope| {
            let run = || {
                both.wait();
                let taken = observe_locked(&fleet, &holder(), &batches(&["a", "b", "c", "d"]));
                let won = taken.is_ok();
                // The loser is done before the winner lets go.
                if won {
                    std::thread::sleep(Duration::from_millis(150));
                }
                won
            };
            let threads = [scope.spawn(run), scope.spawn(run)];
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|won| **won).count(), 1);
    }
}
