//! Calls of libvirt that do not end: no command waits for them beyond its limits, and what it says is what the hosts show.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stor::libvirt::fake::{Ending, Script};
use stor::libvirt::{Connector, DomainState, LibvirtError};
use stor::migrate::outcome::{Outcome, Verdict};
use stor::migrate::run::cold::{Cold, Start, Stop, cold};
use stor::migrate::run::{MigrateEvent, Mode};
use stor::migrate::start::start;
use stor::model::FindingCode;
use stor::spec::OnTimeout;

use crate::world::{World, bounded, host, web1};

/// What one call may take here.
const LIMIT: Duration = Duration::from_millis(250);
/// What a whole command may take: every stage waits for one call at most, on a machine that is busy.
const BOUND: Duration = Duration::from_secs(8);

/// Every call that moving, starting or stopping a guest makes, as the fake daemon names it.
const CALLS: [&str; 18] = [
    "connect",
    "describe the host",
    "list guests",
    "look at a guest",
    "look at the job",
    "look at what is kept of a guest",
    "read the definition of guest web1",
    "compare the CPU",
    "refresh pool gfs",
    "migrate guest web1",
    "set the downtime of guest web1",
    "suspend guest web1",
    "abort the job of guest web1",
    "set autostart of guest web1",
    "shut down guest web1",
    "define guest web1",
    "undefine guest web1",
    "start guest web1",
];
const HOSTS: [&str; 3] = ["kvm1", "kvm2", "kvm3"];

fn world() -> World {
    let mut world = World::new();
    world.bounded = Some(bounded(&world.connector, LIMIT, &world.cancel));
    world.policy.timeout = Duration::from_millis(60);
    world.connector.daemon(&host("kvm1"), |daemon| daemon.domains.get_mut("web1").unwrap().autostart = true);
    world
}

/// Lets a call hang at a host once `armed` is set.
fn hang(world: &World, at: &'static str, action: &'static str, armed: &Arc<AtomicBool>) {
    let armed = Arc::clone(armed);
    let hangs = move |on: &stor::model::HostId, what: &str| {
        armed.load(Ordering::SeqCst) && on.as_str() == at && what == action
    };
    world.connector.stall(Some(Arc::new(hangs)));
}

/// Hosts on which the guest is active.
fn active(world: &World) -> Vec<&'static str> {
    let runs = |name: &&&str| world.state(name).is_some_and(DomainState::is_active);
    HOSTS.iter().filter(runs).copied().collect()
}

/// What the outcome claims is what is so; an outcome that does not know claims nothing.
#[track_caller]
fn tells_the_truth(world: &World, outcome: &Outcome, case: &str) {
    let active = active(world);
    match &outcome.verdict {
        Verdict::Moved | Verdict::Unfinished(_) => assert!(!active.contains(&"kvm1"), "{case}: {outcome:?}"),
        Verdict::AlreadyThere => assert_eq!(active, ["kvm2"], "{case}: {outcome:?}"),
        Verdict::Stayed(_) | Verdict::Refused | Verdict::Unreachable(_) => {
            assert!(!active.contains(&"kvm2"), "{case}: {outcome:?}");
        }
        Verdict::Unplaced { .. } => {}
        Verdict::Ready => panic!("{case}: {outcome:?}"),
    }
    assert!(active.len() <= 1, "{case}: {active:?}");
}

/// Moves the guest while a call hangs, from the start or once the move has begun, and again afterwards.
fn moves(at: &'static str, action: &'static str, late: bool, policy: OnTimeout) -> Outcome {
    let case = format!("{at}: {action}, late: {late}, {policy:?}");
    let mut world = world();
    world.policy.on_timeout = policy;
    world.connector.script("web1", Script::ending(Ending::NeverConverges));
    let armed = Arc::new(AtomicBool::new(!late));
    hang(&world, at, action, &armed);
    let events = |event: MigrateEvent| {
        if matches!(event, MigrateEvent::Began(..)) {
            armed.store(true, Ordering::SeqCst);
        }
    };
    let options = world.options(Mode::Move);
    let begin = Instant::now();
    let mut outcomes =
        stor::migrate::run::migrate(world.site(), &[web1()], &host("kvm2"), &options, &world.cancel, &events);
    let (took, outcome) = (begin.elapsed(), outcomes.remove(0));
    assert!(took < BOUND, "{case}: took {took:?}: {outcome:?}");
    tells_the_truth(&world, &outcome, &case);
    // What hung goes on, and the next call settles it.
    world.connector.stall(None);
    let settled = Instant::now();
    loop {
        let again = world.migrate();
        tells_the_truth(&world, &again, &case);
        if active(&world) == ["kvm2"] && again.exit_code() == 0 {
            break;
        }
        if again.findings.iter().any(|finding| finding.code == FindingCode::JobActive) {
            // What the finding advises: the call that hung went on, and copies for ever.
            world.connector.open(&host("kvm1")).unwrap().abort_job("web1").unwrap_or(());
        }
        assert!(settled.elapsed() < BOUND, "{case}: it never settles: {again:?}");
    }
    outcome
}

#[test]
fn whatever_call_hangs_a_live_move_ends_in_time_and_says_what_is_so() {
    std::thread::scope(|scope| {
        for late in [false, true] {
            for policy in [OnTimeout::Abort, OnTimeout::Pause] {
                scope.spawn(move || {
                    for action in CALLS {
                        for at in HOSTS {
                            moves(at, action, late, policy);
                        }
                    }
                });
            }
        }
    });
}

#[test]
fn a_migration_that_never_gets_a_job_is_given_up_at_the_limit_and_not_called_settled() {
    // As seen with real hosts: the destination's QEMU waits for a lock, so there is no job to cancel, and the call stays out.
    let outcome = moves("kvm1", "migrate guest web1", false, OnTimeout::Abort);
    let Verdict::Unplaced { reason, .. } = &outcome.verdict else { panic!("{outcome:?}") };
    assert_eq!(outcome.exit_code(), 10);
    for text in
        ["did not take up", "may go on", "on kvm1 it runs", "`stor migrate web1 --to kvm2`", "domjobabort"]
    {
        assert!(reason.contains(text), "no {text:?} in {reason}");
    }
}

#[test]
fn a_cancel_that_libvirt_does_not_answer_leaves_the_move_open() {
    let outcome = moves("kvm1", "abort the job of guest web1", false, OnTimeout::Abort);
    assert_eq!(outcome.exit_code(), 10, "{outcome:?}");
}

#[test]
fn a_second_ctrl_c_ends_every_wait_and_says_where_the_guest_was_seen() {
    for action in
        ["migrate guest web1", "look at the job", "look at a guest", "connect", "abort the job of guest web1"]
    {
        let mut world = World::new();
        // Limits that only an interrupt can shorten.
        world.bounded = Some(bounded(&world.connector, Duration::from_secs(5), &world.cancel));
        world.policy.timeout = Duration::from_secs(60);
        world.connector.script("web1", Script::ending(Ending::NeverConverges));
        let armed = Arc::new(AtomicBool::new(false));
        hang(&world, "kvm1", action, &armed);
        let mut options = world.options(Mode::Move);
        options.pace.abort = Duration::from_secs(60);
        options.pace.confirm = Duration::from_secs(60);
        let (outcome, took) = std::thread::scope(|scope| {
            let begun = Arc::new(AtomicBool::new(false));
            let (seen, arm) = (Arc::clone(&begun), Arc::clone(&armed));
            let events = move |event: MigrateEvent| {
                if matches!(event, MigrateEvent::Began(..)) {
                    arm.store(true, Ordering::SeqCst);
                    seen.store(true, Ordering::SeqCst);
                }
            };
            let (world, options) = (&world, &options);
            let run = scope.spawn(move || {
                let site = world.site();
                stor::migrate::run::migrate(site, &[web1()], &host("kvm2"), options, &world.cancel, &events)
                    .remove(0)
            });
            while !begun.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(50));
            world.cancel.cancel();
            std::thread::sleep(Duration::from_millis(50));
            let second = Instant::now();
            world.cancel.abandon();
            (run.join().unwrap(), second.elapsed())
        });
        assert!(took < Duration::from_millis(2500), "{action}: {took:?}");
        tells_the_truth(&world, &outcome, action);
        assert!(matches!(outcome.exit_code(), 9 | 10), "{action}: {outcome:?}");
        if let Verdict::Unplaced { reason, .. } = &outcome.verdict {
            assert!(reason.contains("Before it began the guest was on kvm1"), "{action}: {reason}");
        }
        world.connector.stall(None);
    }
}

/// Moves the guest cold, shutting it down first.
fn carry(world: &World) -> Outcome {
    let how = Cold { stop: Stop::Ask(Duration::from_millis(50)), start: Start::AsBefore };
    let options = world.options(Mode::Move);
    cold(world.site(), &[web1()], &host("kvm2"), &options, &how, &world.cancel, &|_| {}).remove(0)
}

#[test]
fn whatever_call_hangs_a_cold_move_ends_in_time_and_no_two_definitions_could_start() {
    std::thread::scope(|scope| {
        for at in HOSTS {
            scope.spawn(move || {
                for action in CALLS {
                    let case = format!("{at}: {action}");
                    let world = world();
                    hang(&world, at, action, &Arc::new(AtomicBool::new(true)));
                    let begin = Instant::now();
                    let outcome = carry(&world);
                    assert!(begin.elapsed() < BOUND, "{case}: took {:?}: {outcome:?}", begin.elapsed());
                    tells_the_truth(&world, &outcome, &case);
                    let by_itself = |name: &&&str| {
                        let set = |daemon: &mut stor::libvirt::fake::FakeDaemon| {
                            daemon.domains.get("web1").is_some_and(|domain| domain.autostart)
                        };
                        world.connector.daemon(&host(name), set) == Some(true)
                    };
                    assert!(HOSTS.iter().filter(by_itself).count() <= 1, "{case}: {outcome:?}");
                    world.connector.stall(None);
                    let settled = Instant::now();
                    loop {
                        let again = carry(&world);
                        tells_the_truth(&world, &again, &case);
                        if active(&world) == ["kvm2"] && again.exit_code() == 0 {
                            break;
                        }
                        assert!(settled.elapsed() < BOUND, "{case}: it never settles: {again:?}");
                    }
                }
            });
        }
    });
}

#[test]
fn a_start_that_libvirt_does_not_answer_is_neither_called_done_nor_failed() {
    let world = world();
    world.connector.daemon(&host("kvm1"), |daemon| {
        daemon.domains.get_mut("web1").unwrap().state = DomainState::ShutOff;
    });
    hang(&world, "kvm1", "start guest web1", &Arc::new(AtomicBool::new(true)));
    let begin = Instant::now();
    let error = start(world.site(), &web1(), &world.cancel).unwrap_err();
    assert!(begin.elapsed() < BOUND);
    assert_eq!(error.exit_code(), 10, "{error}");
    assert!(error.to_string().contains("may have started it on kvm1, or may yet"), "{error}");
    assert_eq!(world.connector.forsaken(), [host("kvm1")]);
    world.connector.stall(None);
    start(world.site(), &web1(), &world.cancel).unwrap();
}

#[test]
fn a_call_that_hangs_says_what_and_how_long_and_its_connection_is_given_up() {
    let world = world();
    hang(&world, "kvm2", "list guests", &Arc::new(AtomicBool::new(true)));
    let connector = world.bounded.as_ref().unwrap();
    let daemon = connector.open(&host("kvm2")).unwrap();
    let error = daemon.domains().unwrap_err();
    assert_eq!(error.to_string(), "host kvm2: libvirt did not list guests within 250ms");
    assert!(error.is_unanswered());
    assert_eq!(world.connector.forsaken(), [host("kvm2")]);
    // Other calls are not held up by it, nor is a new connection.
    daemon.node().unwrap();
    connector.open(&host("kvm2")).unwrap().node().unwrap();
    world.cancel.abandon();
    std::thread::sleep(LIMIT);
    let error = daemon.domains().unwrap_err();
    assert!(matches!(error, LibvirtError::Abandoned { .. }), "{error}");
    let error = daemon.refresh_pool("gfs");
    assert!(error.is_ok(), "what answers at once is an answer even then: {error:?}");
    let error = daemon.start_domain("web1").unwrap_err();
    assert!(error.to_string().ends_with("interrupted before it began"), "{error}");
}

#[test]
fn locks_that_nobody_answers_where_the_guest_would_run_stop_it_before_anything_begins() {
    let world = world();
    world.shell("kvm2", |shell| shell.locks_hang = true);
    let before = world.connector.calls();
    let live = world.migrate();
    let cold = carry(&world);
    assert_eq!(world.connector.calls(), before, "something was begun");
    for outcome in [live, cold] {
        assert_eq!(outcome.exit_code(), 8, "{outcome:?}");
        let found = outcome.findings.iter().find(|finding| finding.code == FindingCode::LockUnreachable);
        let found = found.unwrap_or_else(|| panic!("{outcome:?}"));
        assert_eq!(found.host, Some(host("kvm2")));
        assert!(found.message.contains("web1.img") && found.remedy.as_ref().unwrap().contains("statd"));
    }
    world.shell("kvm2", |shell| shell.locks_hang = false);
    world.shell("kvm1", |shell| shell.locks_hang = true);
    world.connector.daemon(&host("kvm1"), |daemon| {
        daemon.domains.get_mut("web1").unwrap().state = DomainState::ShutOff;
    });
    let error = start(world.site(), &web1(), &world.cancel).unwrap_err();
    assert_eq!((error.exit_code(), world.state("kvm1")), (8, Some(DomainState::ShutOff)), "{error}");
    assert!(error.hint().unwrap().contains("lockd"), "{error}");
    // Where the guest leaves, nobody asks for a lock.
    assert_eq!(carry(&world).exit_code(), 0);
}
