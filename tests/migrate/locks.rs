//! Locks of moves: live ones share them, nothing is changed without them, and one that is lost ends the run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use stor::host::{Holder, Host, HostError, LockKind};
use stor::libvirt::DomainState;
use stor::libvirt::fake::{Ending, Moment, Script};
use stor::migrate::outcome::{Outcome, Verdict};
use stor::migrate::run::Mode;
use stor::migrate::run::cold::{Cold, Start, Stop, cold};
use stor::migrate::start::{StartError, start_locked};

use crate::world::{World, host, web1, xml};

fn changes(world: &World) -> Vec<String> {
    world.connector.calls().into_iter().skip(3).collect()
}

fn cold_move(world: &World) -> Outcome {
    let how = Cold { stop: Stop::Ask(Duration::from_millis(20)), start: Start::AsBefore };
    let events = |event| world.events.lock().unwrap().push(event);
    let options = world.options(Mode::Move);
    cold(world.site(), &[web1()], &host("kvm2"), &options, &how, &world.cancel, &events).remove(0)
}

/// Has each change call `after` once it was made, with its number.
fn after_each(world: &World, after: impl Fn(usize) + Send + Sync + 'static) {
    let count = AtomicUsize::new(0);
    world.connector.inject(Some(Arc::new(move |_, _, moment| {
        if moment == Moment::After {
            after(count.fetch_add(1, Ordering::SeqCst));
        }
        false
    })));
}

#[test]
fn a_live_move_waits_for_no_other_live_move_and_is_told_of_whoever_works_alone() {
    for (name, told) in [("kvm1", true), ("kvm2", true), ("kvm3", false)] {
        let world = World::new();
        world.hosts[&host(name)].set_lock(Some("stor apply by alice"));
        let outcome = world.migrate();
        let refused = matches!(&outcome.verdict, Verdict::Unreachable(reason)
            if *reason == format!("host {name}: busy: stor apply by alice holds the lock"));
        assert_eq!(refused, told, "{name}: {outcome:?}");
        assert_eq!(outcome.exit_code(), if told { 5 } else { 0 });
        assert_eq!(world.connector.requests().len(), usize::from(!told), "{name}");
    }
    let world = World::new();
    let other = Holder { kind: LockKind::Shared, text: "stor migrate mail".to_owned(), ..world.holder() };
    let _beside: Vec<_> =
        world.hosts.values().map(|at| at.lock(&other, &[]).map(|(guard, _)| guard).unwrap()).collect();
    assert_eq!(world.migrate().exit_code(), 0);
}

#[test]
fn a_third_hypervisor_that_is_down_stops_no_live_move() {
    let world = World::new();
    world.hosts[&host("kvm3")].set_down(Some("no route leads to it"));
    world.connector.daemon(&host("kvm3"), |daemon| daemon.reachable = false);
    assert_eq!(world.migrate().exit_code(), 0);
}

#[test]
fn whoever_wants_to_work_alone_is_told_which_guest_moves_where() {
    let world = World::new();
    world.connector.script("web1", Script::ending(Ending::NeverConverges));
    std::thread::scope(|scope| {
        let run = scope.spawn(|| world.migrate());
        while world.connector.requests().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        for name in ["kvm1", "kvm2"] {
            let busy = world.hosts[&host(name)].lock(&world.holder(), &[]).map(drop).unwrap_err();
            assert!(matches!(busy, HostError::Busy { holder, .. } if holder == "a test"), "{name}");
        }
        world.hosts[&host("kvm3")].lock(&world.holder(), &[]).map(drop).unwrap();
        world.cancel.cancel();
        run.join().unwrap();
    });
    world.hosts[&host("kvm1")].lock(&world.holder(), &[]).map(drop).unwrap();
}

#[test]
fn a_guest_that_was_moved_while_a_lock_was_waited_for_is_looked_for_again() {
    let world = World::new();
    world.hosts[&host("kvm2")].set_lock(Some("another stor"));
    let outcome = std::thread::scope(|scope| {
        // It holds kvm1, the first, so it waits for kvm2.
        let run = scope.spawn(|| world.migrate());
        let busy = |host_name: &str| world.hosts[&host(host_name)].lock(&world.holder(), &[]).is_err();
        while !busy("kvm1") {
            std::thread::sleep(Duration::from_millis(1));
        }
        world.connector.put(&host("kvm3"), &xml(&world.cluster), DomainState::Running).unwrap();
        world.connector.daemon(&host("kvm1"), |daemon| daemon.domains.clear());
        world.hosts[&host("kvm2")].set_lock(None);
        run.join().unwrap()
    });
    assert!(
        matches!(&outcome.verdict, Verdict::Stayed(why) if why.contains("kvm3") && why.contains("meanwhile")),
        "{outcome:?}"
    );
    assert_eq!(world.connector.requests(), []);
}

#[test]
fn a_lock_that_is_lost_before_a_live_move_begins_or_ends_stops_what_is_left_of_it() {
    // The pool is rescanned first: then the lock goes, and nothing moves.
    for name in ["kvm1", "kvm2"] {
        let world = World::new();
        let at = Arc::clone(&world.hosts[&host(name)]);
        after_each(&world, move |number| {
            if number == 0 {
                at.lose_lock()
            }
        });
        let outcome = world.migrate();
        assert!(
            matches!(&outcome.verdict, Verdict::Stayed(why) if why.contains("lock was lost")),
            "{outcome:?}"
        );
        assert_eq!((outcome.exit_code(), world.connector.requests().len()), (9, 0));
    }
    let world = World::new();
    world.connector.daemon(&host("kvm1"), |daemon| daemon.domains.get_mut("web1").unwrap().autostart = true);
    let at = Arc::clone(&world.hosts[&host("kvm1")]);
    after_each(&world, move |number| {
        if number == 1 {
            at.lose_lock()
        }
    });
    let outcome = world.migrate();
    assert_eq!(outcome.verdict, Verdict::Moved, "{outcome:?}");
    assert!(outcome.notes.iter().any(|note| note.contains("lock was lost")), "{:?}", outcome.notes);
    assert!(!changes(&world).iter().any(|change| change.contains("autostart")), "{:?}", changes(&world));
}

#[test]
fn a_lock_that_any_hypervisor_loses_ends_a_cold_move_at_once_wherever_it_stands() {
    let prepared = || {
        let world = World::new();
        world.connector.daemon(&host("kvm1"), |daemon| {
            daemon.domains.get_mut("web1").unwrap().autostart = true;
        });
        world
    };
    let whole = prepared();
    assert_eq!(cold_move(&whole).exit_code(), 0);
    // The last change has none behind it.
    let all = changes(&whole).len();
    assert!(all >= 7, "{:?}", changes(&whole));
    for number in 0..all - 1 {
        for name in ["kvm1", "kvm2", "kvm3"] {
            let world = prepared();
            let at = Arc::clone(&world.hosts[&host(name)]);
            after_each(&world, move |made| {
                if made == number {
                    at.lose_lock()
                }
            });
            let outcome = cold_move(&world);
            let when = format!("{name} after {:?}: {outcome:?}", changes(&world));
            assert_eq!(changes(&world).len(), number + 1, "{when}");
            assert_ne!(outcome.exit_code(), 0, "{when}");
            assert!(format!("{:?}", outcome.verdict).contains("lock was lost"), "{when}");
            world.connector.inject(None);
            assert_eq!(cold_move(&world).exit_code(), 0, "{when}");
        }
    }
}

#[test]
fn a_guest_is_not_started_while_somebody_works_alone_on_a_hypervisor() {
    let world = World::new();
    world.connector.put(&host("kvm1"), &xml(&world.cluster), DomainState::ShutOff).unwrap();
    world.hosts[&host("kvm3")].set_lock(Some("stor migrate --cold"));
    let begin = || start_locked(world.site(), &web1(), &world.holder(), &world.cancel);
    let error = begin().unwrap_err();
    assert!(
        matches!(&error, StartError::Locked { reason, .. } if reason.contains("stor migrate --cold")),
        "{error}"
    );
    assert_eq!((error.exit_code(), world.state("kvm1")), (5, Some(DomainState::ShutOff)));
    world.hosts[&host("kvm3")].set_lock(None);
    begin().unwrap();
    assert_eq!(world.state("kvm1"), Some(DomainState::Running));
}
