//! Cold moves: the definition goes from one host to the other, whatever breaks, and the guest never has two that could start.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use stor::host::Host;
use stor::libvirt::fake::{Fault, Moment};
use stor::libvirt::{DomainState, Keeps, PauseReason};
use stor::migrate::outcome::{Outcome, Stopped, Verdict};
use stor::migrate::run::Mode;
use stor::migrate::run::cold::{Cold, Start, Stop, cold};
use stor::model::FindingCode;

use crate::world::{FileAt, MOUNT, World, host, web1};

const ASK: Stop = Stop::Ask(Duration::from_millis(20));
const CUT: Stop = Stop::Cut(Duration::from_millis(20));

fn go(world: &World, to: &str, mode: Mode, stop: Stop, start: Start) -> Outcome {
    let cold_options = Cold { stop, start };
    let events = |event| world.events.lock().unwrap().push(event);
    let options = world.options(mode);
    cold(world.site(), &[web1()], &host(to), &options, &cold_options, &world.cancel, &events).remove(0)
}

fn move_it(world: &World, stop: Stop) -> Outcome {
    go(world, "kvm2", Mode::Move, stop, Start::AsBefore)
}

/// The guest on kvm1: running or off, with or without autostart.
fn world(state: DomainState, autostart: bool) -> World {
    let world = World::new();
    world.connector.daemon(&host("kvm1"), |daemon| {
        let domain = daemon.domains.get_mut("web1").unwrap();
        (domain.state, domain.autostart) = (state, autostart);
    });
    world
}

/// Host, state and autostart of each definition.
fn places(world: &World) -> Vec<(&'static str, DomainState, bool)> {
    let at = |name| {
        let found = world.connector.daemon(&host(name), |daemon| daemon.domains.get("web1").cloned());
        found.flatten().map(|domain| (name, domain.state, domain.autostart))
    };
    ["kvm1", "kvm2", "kvm3"].into_iter().filter_map(at).collect()
}

/// What must hold at every instant: at least one definition, at most one that runs, at most one that could start by itself,
/// and none of the latter beside one that runs.
fn assert_safe(world: &World, when: &str) {
    let all = places(world);
    let live = all.iter().filter(|(_, state, autostart)| state.is_active() || *autostart).count();
    assert!(!all.is_empty() && live <= 1, "{when}: {all:?}");
}

/// Changes so far that were of the move; the world itself makes three pools.
fn changes(world: &World) -> Vec<String> {
    world.connector.calls().into_iter().skip(3).collect()
}

#[test]
fn a_guest_that_is_off_goes_with_its_definition_and_autostart_and_stays_off() {
    let world = world(DomainState::ShutOff, true);
    let xml =
        |name| world.connector.daemon(&host(name), |daemon| daemon.domains["web1"].xml.clone()).unwrap();
    let before = xml("kvm1");
    let outcome = move_it(&world, Stop::Refuse);
    assert_eq!((&outcome.verdict, outcome.exit_code()), (&Verdict::Moved, 0), "{outcome:?}");
    assert_eq!(places(&world), [("kvm2", DomainState::ShutOff, true)]);
    assert_eq!(xml("kvm2"), before, "to the byte");
    assert_eq!(
        changes(&world),
        [
            "kvm1: set autostart of guest web1",
            "kvm2: define guest web1",
            "kvm1: undefine guest web1",
            "kvm2: refresh pool gfs",
            "kvm2: set autostart of guest web1"
        ]
    );
    let story = outcome.cold.unwrap();
    assert_eq!((story.ran, story.stopped, story.continued), (false, None, false));
    let receipt = std::fs::read_to_string(outcome.receipt.unwrap()).unwrap();
    assert!(receipt.contains("\"cold\"") && !receipt.contains("<domain"), "{receipt}");
    assert_eq!(
        std::fs::read_dir(world.receipts.path().join("moves")).unwrap().count(),
        0,
        "the note is gone"
    );
    let again = move_it(&world, Stop::Refuse);
    assert_eq!((&again.verdict, again.exit_code()), (&Verdict::AlreadyThere, 0));
    assert_eq!(changes(&world).len(), 5);
}

#[test]
fn a_guest_that_runs_is_left_alone_unless_it_is_to_be_shut_down() {
    let world = world(DomainState::Running, false);
    let outcome = move_it(&world, Stop::Refuse);
    assert_eq!(outcome.exit_code(), 8);
    let finding = outcome.findings.iter().find(|finding| finding.code == FindingCode::GuestRunning).unwrap();
    assert!(finding.remedy.as_ref().unwrap().contains("--shutdown"));
    assert!(changes(&world).is_empty());
    let outcome = move_it(&world, ASK);
    assert_eq!(outcome.verdict, Verdict::Moved, "{outcome:?}");
    assert_eq!(outcome.cold.unwrap().stopped, Some(Stopped::ByItself));
    assert_eq!(places(&world), [("kvm2", DomainState::Running, false)]);
}

#[test]
fn a_system_that_does_not_hear_loses_its_power_only_when_that_was_asked() {
    let world = world(DomainState::Running, true);
    world.connector.daemon(&host("kvm1"), |daemon| daemon.deaf.insert("web1".to_owned()));
    let outcome = move_it(&world, ASK);
    assert_eq!(outcome.exit_code(), 9);
    assert!(matches!(&outcome.verdict, Verdict::Stayed(reason) if reason.contains("--force")), "{outcome:?}");
    assert_eq!(places(&world), [("kvm1", DomainState::Running, true)]);
    let outcome = move_it(&world, CUT);
    assert_eq!(outcome.cold.as_ref().unwrap().stopped, Some(Stopped::PowerCut));
    assert_eq!(places(&world), [("kvm2", DomainState::Running, true)]);
}

#[test]
fn a_dry_run_says_what_a_run_would_and_changes_nothing() {
    let world = world(DomainState::Running, true);
    let outcome = go(&world, "kvm2", Mode::DryRun, ASK, Start::AsBefore);
    assert_eq!((outcome.verdict, outcome.receipt), (Verdict::Ready, None));
    assert_eq!(go(&world, "kvm2", Mode::DryRun, Stop::Refuse, Start::AsBefore).exit_code(), 8);
    assert!(changes(&world).is_empty());
    assert!(!world.receipts.path().join("moves").exists());
}

#[test]
fn a_guest_is_started_there_when_that_is_asked() {
    let world = world(DomainState::ShutOff, false);
    let outcome = go(&world, "kvm2", Mode::Move, Stop::Refuse, Start::Always);
    assert_eq!(outcome.verdict, Verdict::Moved, "{outcome:?}");
    assert_eq!(places(&world), [("kvm2", DomainState::Running, false)]);
}

/// What forbids a cold move: what to change, the exit code, and the finding.
type Refusal = (fn(&World), u8, Option<FindingCode>);

#[test]
fn what_speaks_against_it_is_found_before_anything_is_touched() {
    let table: [Refusal; 20] = [
        (|w| w.shell("kvm2", |shell| shell.mount = None), 8, Some(FindingCode::NotMounted)),
        (|w| w.shell("kvm2", |shell| shell.image = Some((1, 1 << 30))), 8, Some(FindingCode::ImageNotShared)),
        (|w| w.shell("kvm2", |shell| shell.hung = true), 8, Some(FindingCode::ProbeTimedOut)),
        (|w| w.shell("kvm2", |shell| shell.bridge = false), 8, Some(FindingCode::BridgeMissing)),
        (|w| w.shell("kvm2", |shell| shell.pools.clear()), 8, Some(FindingCode::PoolInactive)),
        (|w| w.shell("kvm2", |shell| shell.kernel = false), 8, Some(FindingCode::BootFileMissing)),
        (|w| kept(w, Keeps { managed_save: true, snapshots: 0 }), 8, Some(FindingCode::StateKept)),
        (|w| kept(w, Keeps { managed_save: false, snapshots: 2 }), 8, Some(FindingCode::StateKept)),
        (|w| with(w, "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"), 8, STATE),
        (
            |w| with(w, "<tpm><backend type='emulator'><source type='dir' path='/srv/tpm'/></backend></tpm>"),
            8,
            STATE,
        ),
        (|w| with(w, "<tpm><backend type='passthrough'/></tpm>"), 8, Some(FindingCode::DeviceLocal)),
        (|w| with(w, "<tpm><backend type='external'/></tpm>"), 8, Some(FindingCode::DeviceLocal)),
        (|w| firmware(w, "<os firmware='efi'>", ""), 8, STATE),
        (
            |w| firmware(w, "<os>", "<loader type='pflash' readonly='yes'>/boot/lab/vmlinuz</loader>"),
            8,
            STATE,
        ),
        (|w| firmware(w, "<os>", "<nvram>/var/lib/libvirt/qemu/nvram/web1_VARS.fd</nvram>"), 8, STATE),
        (
            |w| w.shell("kvm1", |shell| shell.mount = Some((MOUNT, "10.77.0.11:/other", GLUSTER, "rw"))),
            8,
            Some(FindingCode::ImageNotShared),
        ),
        (
            |w| {
                for name in ["kvm1", "kvm2"] {
                    w.shell(name, |shell| shell.mount = Some((MOUNT, "10.77.0.11:/other", GLUSTER, "rw")));
                }
            },
            8,
            Some(FindingCode::WrongMount),
        ),
        (|w| stranger(w), 8, Some(FindingCode::NameClash)),
        (|w| down(w, "kvm3"), 5, None),
        (|w| down(w, "kvm2"), 5, None),
    ];
    for (index, (change, code, finding)) in table.into_iter().enumerate() {
        let world = world(DomainState::ShutOff, true);
        change(&world);
        let before = places(&world);
        let outcome = move_it(&world, Stop::Refuse);
        assert_eq!(outcome.exit_code(), code, "row {index}: {outcome:?}");
        let codes: Vec<_> = outcome.findings.iter().map(|finding| finding.code).collect();
        assert!(finding.is_none_or(|code| codes.contains(&code)), "row {index}: {codes:?}");
        assert!(changes(&world).is_empty() && places(&world) == before, "row {index}");
        assert!(!world.receipts.path().join("moves").exists(), "row {index}");
    }
}

const STATE: Option<FindingCode> = Some(FindingCode::StateKept);
const GLUSTER: &str = "fuse.glusterfs";

/// The guest has another device, and there are local files at the places of its state.
fn with(world: &World, device: &str) {
    world.rewrite(|xml| xml.replace("</devices>", &format!("{device}</devices>")));
    local_state(world);
}

fn firmware(world: &World, os: &str, more: &str) {
    world.rewrite(|xml| xml.replace("<os>", &format!("{os}{more}")));
    local_state(world);
}

const VARS: &str = "/var/lib/libvirt/qemu/nvram/web1_VARS.fd";

fn local_state(world: &World) {
    let mount = Some(("/", "/dev/vda1", "ext4", "rw"));
    let uuid = world.connector.daemon(&host("kvm1"), |daemon| daemon.domains["web1"].uuid.clone()).unwrap();
    let tpm: &'static str = Box::leak(format!("/var/lib/libvirt/swtpm/{uuid}").into_boxed_str());
    for name in ["kvm1", "kvm2", "kvm3"] {
        for place in [tpm, "/srv/tpm", VARS] {
            // Hosts that were cloned have the same inodes.
            world.place(name, place, FileAt { mount, stat: Some((7, 4096)) });
        }
    }
}

#[test]
fn state_on_shared_storage_moves_and_so_does_a_guest_that_has_none_yet() {
    let shared = world(DomainState::ShutOff, false);
    shared.rewrite(|xml| {
        let tpm = "<tpm><backend type='emulator'><source type='dir' path='/var/lib/libvirt/images/gfs/tpm'/></backend></tpm></devices>";
        xml.replace("</devices>", tpm).replace("<os>", "<os><nvram>/var/lib/libvirt/images/gfs/web1.fd</nvram>")
    });
    assert_eq!(move_it(&shared, Stop::Refuse).verdict, Verdict::Moved);
    let never = world(DomainState::ShutOff, false);
    firmware(&never, "<os>", &format!("<nvram>{VARS}</nvram>"));
    let mount = Some(("/", "/dev/vda1", "ext4", "rw"));
    never.place("kvm1", VARS, FileAt { mount, stat: None });
    assert_eq!(move_it(&never, Stop::Refuse).exit_code(), 8, "the destination has some of an earlier time");
    never.place("kvm2", VARS, FileAt { mount, stat: None });
    assert_eq!(move_it(&never, Stop::Refuse).verdict, Verdict::Moved);
}

#[test]
fn a_running_guest_carries_its_state() {
    let live = world(DomainState::Running, false);
    with(&live, "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>");
    let outcome = live.migrate_to("kvm2", Mode::DryRun);
    assert_eq!((outcome.verdict, outcome.findings), (Verdict::Ready, vec![]));
    assert_eq!(move_it(&live, ASK).exit_code(), 8);
    assert_eq!(places(&live), [("kvm1", DomainState::Running, false)], "it was not shut down for nothing");
}

fn kept(world: &World, keeps: Keeps) {
    world.connector.daemon(&host("kvm1"), |daemon| daemon.keeps.insert("web1".to_owned(), keeps));
}

fn down(world: &World, name: &str) {
    world.connector.daemon(&host(name), |daemon| daemon.reachable = false);
}

/// Another guest of the same name on the destination.
fn stranger(world: &World) {
    let mut other = world.connector.daemon(&host("kvm1"), |daemon| daemon.domains["web1"].clone()).unwrap();
    other.uuid = "00000000-0000-4000-8000-000000000099".to_owned();
    world.connector.daemon(&host("kvm2"), |daemon| daemon.domains.insert("web1".to_owned(), other));
}

#[test]
fn paused_transient_and_doubled_guests_are_not_shut_down() {
    let paused = world(DomainState::Paused(PauseReason::User), false);
    assert!(move_it(&paused, CUT).findings.iter().any(|found| found.code == FindingCode::GuestPaused));
    let transient = world(DomainState::Running, false);
    transient
        .connector
        .daemon(&host("kvm1"), |daemon| daemon.domains.get_mut("web1").unwrap().persistent = false);
    let outcome = move_it(&transient, ASK);
    assert!(outcome.findings.iter().any(|found| found.code == FindingCode::GuestTransient), "{outcome:?}");
    let doubled = world(DomainState::Running, false);
    let copy = doubled.connector.daemon(&host("kvm1"), |daemon| daemon.domains["web1"].clone()).unwrap();
    doubled.connector.daemon(&host("kvm3"), |daemon| daemon.domains.insert("web1".to_owned(), copy));
    assert_eq!(move_it(&doubled, ASK).exit_code(), 10);
    for world in [paused, transient, doubled] {
        assert!(changes(&world).is_empty());
    }
}

#[test]
fn a_second_definition_that_differs_is_a_persons_matter_and_an_equal_one_is_an_earlier_move() {
    for (edit, code) in [("", 0), ("<!-- edited -->", 8)] {
        let world = world(DomainState::ShutOff, false);
        let mut copy =
            world.connector.daemon(&host("kvm1"), |daemon| daemon.domains["web1"].clone()).unwrap();
        copy.xml.push_str(edit);
        world.connector.daemon(&host("kvm2"), |daemon| daemon.domains.insert("web1".to_owned(), copy));
        let outcome = move_it(&world, Stop::Refuse);
        assert_eq!(outcome.exit_code(), code, "{edit:?}: {outcome:?}");
        assert_eq!(places(&world).len(), if code == 0 { 1 } else { 2 });
    }
}

#[test]
fn a_definition_that_was_left_behind_goes_once_the_guest_runs_at_the_destination() {
    let world = world(DomainState::ShutOff, true);
    let mut copy = world.connector.daemon(&host("kvm1"), |daemon| daemon.domains["web1"].clone()).unwrap();
    (copy.state, copy.autostart) = (DomainState::Running, false);
    world.connector.daemon(&host("kvm2"), |daemon| daemon.domains.insert("web1".to_owned(), copy));
    let outcome = move_it(&world, Stop::Refuse);
    assert_eq!(outcome.verdict, Verdict::AlreadyThere, "{outcome:?}");
    assert_eq!(places(&world), [("kvm2", DomainState::Running, true)]);
}

#[test]
fn two_moves_at_once_or_an_apply_and_a_move_are_kept_apart_by_the_hosts_locks() {
    let world = world(DomainState::ShutOff, false);
    let (_lock, _) = world.hosts[&host("kvm3")].lock(&world.holder(), &[]).unwrap();
    let outcome = move_it(&world, Stop::Refuse);
    assert_eq!(outcome.exit_code(), 5);
    assert!(
        matches!(&outcome.verdict, Verdict::Unreachable(reason) if reason.contains("kvm3")),
        "{outcome:?}"
    );
    assert!(changes(&world).is_empty());
}

/// Strikes at the n-th change, before or after it took effect.
fn at(
    wanted: usize,
    moment: Moment,
    strike: impl Fn() -> bool + Send + Sync + 'static,
) -> (Fault, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let fault: Fault = Arc::new(move |_, _, when| {
        if when == Moment::Before {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        counted.load(Ordering::SeqCst) == wanted + 1 && when == moment && strike()
    });
    (fault, count)
}

/// Breaks one move at every change in turn, and checks that the next one ends as if nothing had happened.
fn every_break(state: DomainState, autostart: bool, break_it: &dyn Fn(&World, usize, Moment) -> bool) {
    let expected = [("kvm2", state, autostart)];
    let mut broken = 0;
    for n in 0.. {
        let mut hits = 0;
        for moment in [Moment::Before, Moment::After] {
            let world = world(state, autostart);
            hits += usize::from(break_it(&world, n, moment));
            let when = format!("change {n} {moment:?} of {:?}", changes(&world));
            assert_safe(&world, &when);
            world.connector.inject(None);
            for name in ["kvm1", "kvm2"] {
                world.connector.daemon(&host(name), |daemon| daemon.reachable = true);
            }
            let outcome = move_it(&world, ASK);
            assert_eq!(outcome.exit_code(), 0, "{when}: {outcome:?}");
            assert_eq!(places(&world), expected, "{when}");
        }
        if hits == 0 {
            break;
        }
        broken += 1;
    }
    let least = if state.is_active() { 5 } else { 3 };
    assert!(broken >= least + usize::from(autostart) * 2 - 1, "only {broken} changes were broken");
}

#[test]
fn a_move_that_is_killed_at_any_change_is_finished_by_the_next() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload().downcast_ref::<&str>().copied().unwrap_or_default();
        if text != "killed" {
            eprintln!("{info}");
        }
    }));
    for (state, autostart) in states() {
        every_break(state, autostart, &|world, n, moment| {
            let (fault, _) = at(n, moment, || panic!("killed"));
            world.connector.inject(Some(fault));
            catch_unwind(AssertUnwindSafe(|| move_it(world, ASK))).is_err()
        });
    }
}

#[test]
fn a_call_that_fails_or_only_says_so_is_told_by_its_host_and_mended_by_the_next_move() {
    for (state, autostart) in states() {
        every_break(state, autostart, &|world, n, moment| {
            let (fault, count) = at(n, moment, || true);
            world.connector.inject(Some(fault));
            let outcome = move_it(world, ASK);
            let struck = count.load(Ordering::SeqCst) > n;
            let done = places(world) == [("kvm2", state, autostart)];
            assert_eq!(outcome.exit_code() == 0, done, "change {n} {moment:?}: {outcome:?}");
            struck
        });
    }
}

#[test]
fn a_host_that_is_lost_at_any_change_leaves_nothing_that_starts_twice() {
    for name in ["kvm1", "kvm2"] {
        for (state, autostart) in states() {
            every_break(state, autostart, &|world, n, moment| {
                let connector = world.connector.clone();
                let (fault, count) = at(n, moment, move || {
                    connector.daemon(&host(name), |daemon| daemon.reachable = false);
                    true
                });
                world.connector.inject(Some(fault));
                let outcome = move_it(world, ASK);
                assert!(outcome.exit_code() == 0 || outcome.receipt.is_some(), "{outcome:?}");
                count.load(Ordering::SeqCst) > n
            });
        }
    }
}

fn states() -> [(DomainState, bool); 4] {
    let (off, runs) = (DomainState::ShutOff, DomainState::Running);
    [(off, false), (off, true), (runs, false), (runs, true)]
}

#[test]
fn a_move_that_broke_off_can_be_taken_back() {
    let world = world(DomainState::Running, true);
    let (fault, _) = at(3, Moment::Before, || true);
    world.connector.inject(Some(fault));
    // Shut down, autostart off, defined; the definition at the source cannot be removed.
    let outcome = move_it(&world, ASK);
    assert_eq!((outcome.exit_code(), places(&world).len()), (9, 2), "{outcome:?}");
    world.connector.inject(None);
    let outcome = go(&world, "kvm1", Mode::Move, Stop::Refuse, Start::AsBefore);
    assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
    assert_eq!(places(&world), [("kvm1", DomainState::Running, true)]);
}

#[test]
fn an_interrupted_shutdown_leaves_the_guest_where_it_is() {
    let world = world(DomainState::Running, false);
    world.connector.daemon(&host("kvm1"), |daemon| daemon.deaf.insert("web1".to_owned()));
    let cancel = world.cancel.clone();
    let (fault, _) = at(0, Moment::After, move || {
        cancel.cancel();
        false
    });
    world.connector.inject(Some(fault));
    let outcome = move_it(&world, Stop::Cut(Duration::from_secs(60)));
    assert_eq!(outcome.exit_code(), 9, "{outcome:?}");
    assert_eq!(places(&world), [("kvm1", DomainState::Running, false)]);
}
