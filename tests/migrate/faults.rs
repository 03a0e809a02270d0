//! Endings of migrations: what the hosts show wins over what libvirt reports.

use std::time::Duration;

use stor::libvirt::fake::{Ending, Script};
use stor::libvirt::{Connector, DomainState, JobOperation, JobStats, PauseReason};
use stor::migrate::confirm::{Placement, Seen};
use stor::migrate::outcome::{Outcome, Verdict};
use stor::migrate::run::{MigrateEvent, Mode};
use stor::spec::OnTimeout;

use crate::world::{World, host, web1, xml};

fn ends(ending: Ending) -> (World, Outcome) {
    let world = World::new();
    world.connector.script("web1", Script::ending(ending));
    let outcome = world.migrate();
    (world, outcome)
}

fn stats(remaining: u64, iteration: u64) -> JobStats {
    JobStats {
        operation: JobOperation::MigrationOut,
        memory_total: 1000,
        memory_remaining: remaining,
        iteration,
        ..JobStats::default()
    }
}

#[test]
fn a_guest_moves_with_its_figures_and_receipt_and_the_pool_is_rescanned_first() {
    let world = World::new();
    let script = Script { ending: Ending::Moves, stats: vec![stats(900, 1), stats(100, 1), stats(50, 2)] };
    world.connector.script("web1", script);
    let outcome = world.migrate();
    assert_eq!((&outcome.verdict, outcome.exit_code()), (&Verdict::Moved, 0), "{outcome:?}");
    assert_eq!((world.state("kvm1"), world.state("kvm2")), (None, Some(DomainState::Running)));
    assert_eq!(outcome.notes, Vec::<String>::new());
    assert_eq!(outcome.seen[&host("kvm1")], Seen::Absent);
    let figures = outcome.figures.as_ref().unwrap();
    assert_eq!(figures.downtime, Some(Duration::from_millis(140)));
    assert_eq!(figures.disk_copied, Some(0));
    let kept: Vec<_> = figures.iterations.iter().map(|p| (p.iteration, p.remaining)).collect();
    assert_eq!(kept, vec![(1, 100), (2, 50)]);
    let request = &world.connector.requests()[0];
    assert_eq!(request.destination, "qemu+ssh://root@10.77.0.22/system?command=/var/lib/stor/homelab/ssh");
    assert_eq!(request.stream, "tcp://10.77.0.22");
    let changes: Vec<_> = world.connector.calls().into_iter().skip(3).collect();
    assert_eq!(
        changes,
        vec!["kvm2: refresh pool gfs", "kvm1: migrate guest web1", "kvm1: set the downtime of guest web1"]
    );
}

#[test]
fn the_receipt_is_private_named_by_time_and_route_and_holds_the_whole_story() {
    use std::os::unix::fs::PermissionsExt;
    let (world, outcome) = ends(Ending::Moves);
    let receipt = outcome.receipt.unwrap();
    assert_eq!(receipt.file_name().unwrap(), "2025-11-21T01-00-00.000Z-web1-kvm1-kvm2.json");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&receipt), mode(receipt.parent().unwrap())), (0o600, 0o700));
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&receipt).unwrap()).unwrap();
    assert_eq!(json["version"], 1);
    assert_eq!(json["exit_code"], 0);
    assert_eq!(json["migration"]["verdict"], "moved");
    assert_eq!(json["migration"]["plan"]["uuid"], "4575b92c-84a1-5fa3-b9bf-daff66c1b236");
    assert_eq!(json["migration"]["figures"]["disk_copied"], 0);
    let files = std::fs::read_dir(world.receipts.path().join("receipts")).unwrap().count();
    assert_eq!(files, 1, "no temporary file stays behind");
}

#[test]
fn each_ending_is_told_by_what_both_hosts_show_and_not_by_what_libvirt_returned() {
    let text = || "connection reset by peer".to_owned();
    let unplaced = |placement| Some(placement);
    let table = [
        (Ending::Fails(text()), 9, None),
        (Ending::ReportsSuccessButStays, 9, None),
        (Ending::ReportsErrorButMoves(text()), 0, None),
        (Ending::RunsOnBoth(text()), 10, unplaced(Placement::OnBoth)),
        (Ending::RunsNowhere(text()), 10, unplaced(Placement::Nowhere)),
        (Ending::DestinationLost(text()), 10, unplaced(Placement::Unknown)),
        (Ending::SourceLost(text()), 10, unplaced(Placement::Unknown)),
    ];
    for (ending, code, expected) in table {
        let (world, outcome) = ends(ending.clone());
        assert_eq!(outcome.exit_code(), code, "{ending:?}: {outcome:?}");
        let placement = match &outcome.verdict {
            Verdict::Unplaced { placement, reason } => {
                assert!(reason.contains("connection reset by peer"), "{ending:?}: {reason}");
                Some(*placement)
            }
            _ => None,
        };
        assert_eq!(placement, expected, "{ending:?}");
        assert!(outcome.receipt.is_some(), "{ending:?}");
        // Whatever happened, nothing was started, resumed, stopped or undefined on doubt.
        let touched: Vec<_> = world.connector.calls().into_iter().skip(5).collect();
        assert!(touched.is_empty(), "{ending:?}: {touched:?}");
    }
}

#[test]
fn a_guest_that_another_live_move_took_to_a_third_host_is_found_there() {
    let world = World::new();
    let events = |event: MigrateEvent| {
        if matches!(event, MigrateEvent::Began(..)) {
            let domain =
                world.connector.daemon(&host("kvm1"), |at| at.domains.remove("web1")).flatten().unwrap();
            world.connector.daemon(&host("kvm3"), |at| at.domains.insert("web1".to_owned(), domain));
        }
    };
    let options = world.options(Mode::Move);
    let moved = [web1()];
    let mut outcomes =
        stor::migrate::run::migrate(world.site(), &moved, &host("kvm2"), &options, &world.cancel, &events);
    let outcome = outcomes.remove(0);
    assert_eq!(outcome.verdict, Verdict::Stayed("it was moved to kvm3 meanwhile".to_owned()), "{outcome:?}");
}

#[test]
fn a_failed_move_whose_job_cannot_be_asked_for_is_not_called_settled() {
    let mut world = World::new();
    world.connector.script("web1", Script::ending(Ending::Fails("client socket is closed".to_owned())));
    // Until it has failed the job is answered for.
    let failed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = std::sync::Arc::clone(&failed);
    let limit = Duration::from_millis(200);
    world.bounded = Some(crate::world::bounded(&world.connector, limit, &world.cancel));
    world.connector.stall(Some(std::sync::Arc::new(move |_, action| {
        action == "look at the job" && seen.load(std::sync::atomic::Ordering::SeqCst)
    })));
    let events = |event: MigrateEvent| {
        if matches!(event, MigrateEvent::Confirming(_)) {
            failed.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    };
    let options = world.options(Mode::Move);
    let moved = [web1()];
    let mut outcomes =
        stor::migrate::run::migrate(world.site(), &moved, &host("kvm2"), &options, &world.cancel, &events);
    assert_eq!(outcomes.remove(0).exit_code(), 10);
    world.connector.stall(None);
}

#[test]
fn a_failure_that_the_hosts_contradict_is_kept_as_a_note() {
    let (_, outcome) = ends(Ending::ReportsErrorButMoves("Timed out during operation".to_owned()));
    assert_eq!(outcome.verdict, Verdict::Moved);
    assert!(outcome.notes[0].contains("Timed out during operation"), "{:?}", outcome.notes);
}

#[test]
fn a_migration_that_never_converges_is_cancelled_at_the_deadline() {
    let mut world = World::new();
    world.policy.timeout = Duration::from_millis(40);
    world.connector.script("web1", Script::ending(Ending::NeverConverges));
    let outcome = world.migrate();
    assert_eq!(outcome.verdict, Verdict::Stayed("it did not end within 40ms and was cancelled".to_owned()));
    assert_eq!((world.state("kvm1"), world.state("kvm2")), (Some(DomainState::Running), None));
}

#[test]
fn or_its_guest_is_paused_at_the_deadline_and_runs_again_at_the_destination() {
    let mut world = World::new();
    world.policy.timeout = Duration::from_millis(40);
    world.policy.on_timeout = OnTimeout::Pause;
    world.connector.script("web1", Script::ending(Ending::NeverConverges));
    let outcome = world.migrate();
    assert_eq!(outcome.verdict, Verdict::Moved, "{outcome:?}");
    assert_eq!(world.state("kvm2"), Some(DomainState::Running));
    assert!(world.connector.calls().contains(&"kvm1: suspend guest web1".to_owned()));
}

#[test]
fn a_guest_that_was_paused_in_vain_runs_again_where_it_stayed() {
    let mut world = World::new();
    world.policy.timeout = Duration::from_millis(40);
    world.policy.on_timeout = OnTimeout::Pause;
    world.connector.script("web1", Script::ending(Ending::IgnoresAbort));
    let outcome = world.migrate();
    let Verdict::Stayed(reason) = &outcome.verdict else { panic!("{outcome:?}") };
    assert_eq!(reason, "it did not end within 40ms, nor with the guest paused, and was cancelled");
    assert_eq!(world.state("kvm1"), Some(DomainState::Running));
}

#[test]
fn ctrl_c_cancels_the_migration_and_says_where_the_guest_is() {
    let world = World::new();
    world.connector.script("web1", Script::ending(Ending::NeverConverges));
    let outcome = std::thread::scope(|scope| {
        let run = scope.spawn(|| world.migrate());
        while world.connector.requests().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        world.cancel.cancel();
        run.join().unwrap()
    });
    assert_eq!(outcome.verdict, Verdict::Stayed("cancelled by the user".to_owned()));
    assert_eq!(outcome.seen[&host("kvm1")], Seen::Runs);
    let aborts =
        world.events.lock().unwrap().iter().filter(|e| matches!(e, MigrateEvent::Aborting(..))).count();
    assert_eq!(aborts, 1);
}

#[test]
fn a_link_that_stays_down_does_not_hang_stor() {
    let mut world = World::new();
    world.policy.timeout = Duration::from_millis(20);
    world.connector.script("web1", Script::ending(Ending::IgnoresAbort));
    let begin = std::time::Instant::now();
    let outcome = world.migrate();
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(outcome.exit_code(), 9, "{outcome:?}");
}

#[test]
fn a_guest_already_there_is_nothing_to_do() {
    let world = World::new();
    let before = world.connector.calls();
    let outcome = world.migrate_to("kvm1", Mode::Move);
    assert_eq!((outcome.verdict.clone(), outcome.exit_code()), (Verdict::AlreadyThere, 0));
    assert_eq!(world.connector.calls(), before);
}

#[test]
fn a_guest_in_the_last_moment_of_another_migration_is_waited_for() {
    let world = World::new();
    let held = DomainState::Paused(PauseReason::Migration);
    for name in ["kvm1", "kvm2"] {
        world.connector.put(&host(name), &xml(&world.cluster), held).unwrap();
    }
    assert_eq!(world.migrate().exit_code(), 10, "it never settles");
    let outcome = std::thread::scope(|scope| {
        let run = scope.spawn(|| world.migrate());
        std::thread::sleep(Duration::from_millis(10));
        world.connector.put(&host("kvm2"), &xml(&world.cluster), DomainState::Running).unwrap();
        world.connector.daemon(&host("kvm1"), |daemon| daemon.domains.clear());
        run.join().unwrap()
    });
    assert_eq!(outcome.verdict, Verdict::AlreadyThere, "{outcome:?}");
}

#[test]
fn a_guest_on_two_hosts_is_not_touched() {
    let world = World::new();
    world.connector.put(&host("kvm3"), &xml(&world.cluster), DomainState::Running).unwrap();
    let before = world.connector.calls();
    let outcome = world.migrate();
    assert_eq!(outcome.exit_code(), 10);
    assert_eq!(world.connector.calls(), before);
}

#[test]
fn a_hypervisor_that_is_down_matters_only_while_the_guest_was_not_seen() {
    let world = World::new();
    world.connector.daemon(&host("kvm3"), |daemon| daemon.reachable = false);
    assert_eq!(world.migrate().verdict, Verdict::Moved);
    world.connector.daemon(&host("kvm2"), |daemon| daemon.domains.clear());
    let outcome = world.migrate();
    assert!(
        matches!(&outcome.verdict, Verdict::Unreachable(reason) if reason.contains("kvm3")),
        "{outcome:?}"
    );
}

#[test]
fn autostart_moves_with_the_guest_and_a_definition_left_behind_goes() {
    let world = World::new();
    world.connector.daemon(&host("kvm1"), |daemon| daemon.domains.get_mut("web1").unwrap().autostart = true);
    assert_eq!(world.migrate().verdict, Verdict::Moved);
    let autostart = world.connector.daemon(&host("kvm2"), |daemon| daemon.domains["web1"].autostart);
    assert_eq!(autostart, Some(true));

    let world = World::new();
    world.connector.script("web1", Script::ending(Ending::LeavesDefinition));
    assert_eq!(world.migrate().verdict, Verdict::Moved);
    assert_eq!(world.state("kvm1"), None);
}

#[test]
fn a_guest_paused_by_its_user_arrives_paused() {
    let world = World::new();
    let paused = DomainState::Paused(PauseReason::User);
    world.connector.put(&host("kvm1"), &xml(&world.cluster), paused).unwrap();
    let outcome = world.migrate();
    assert_eq!(outcome.verdict, Verdict::Moved, "{outcome:?}");
    assert!(world.connector.requests()[0].paused);
    assert_eq!(world.state("kvm2"), Some(paused));
}

#[test]
fn of_two_migrations_of_one_guest_one_wins_and_the_other_is_told() {
    let world = World::new();
    world.connector.script("web1", Script::ending(Ending::NeverConverges));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| world.migrate());
        while world.connector.requests().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // The first has a job at kvm1; nothing has arrived anywhere else, so the second cannot attach to it.
        let second = world.migrate_to("kvm3", Mode::Move);
        assert_eq!(second.exit_code(), 8, "{second:?}");
        assert!(second.findings.iter().any(|f| f.code == stor::model::FindingCode::JobActive));
        world.cancel.cancel();
        assert_eq!(first.join().unwrap().exit_code(), 9);
    });
}

#[test]
fn a_later_call_attaches_to_a_migration_under_way_and_settles_it() {
    let world = World::new();
    let (cluster, connector) = (&world.cluster, &world.connector);
    connector.daemon(&host("kvm1"), |daemon| daemon.domains.get_mut("web1").unwrap().autostart = true);
    let script = Script { ending: Ending::Moves, stats: vec![stats(900, 1), stats(500, 1), stats(50, 2)] };
    connector.script("web1", script);
    std::thread::scope(|scope| {
        // A stor that was killed: the call goes on inside the daemons.
        let request = stor::libvirt::MigrationRequest {
            domain: "web1".to_owned(),
            destination: stor::libvirt::uri::peer(&cluster.name, "10.77.0.22"),
            stream: stor::libvirt::uri::stream("10.77.0.22"),
            bandwidth: None,
            destination_xml: None,
            max_downtime: Duration::from_millis(300),
            paused: false,
            post_copy: false,
        };
        let orphan = scope.spawn(move || connector.open(&host("kvm1")).unwrap().migrate(&request));
        while connector.requests().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        connector.put(&host("kvm2"), &xml(cluster), DomainState::Paused(PauseReason::Migration)).unwrap();
        let outcome = world.migrate();
        assert_eq!(outcome.verdict, Verdict::Moved, "{outcome:?}");
        assert!(outcome.notes.iter().any(|note| note.contains("attached")), "{:?}", outcome.notes);
        orphan.join().unwrap().unwrap();
    });
    assert_eq!(connector.requests().len(), 1, "no second migration was begun");
    let autostart = connector.daemon(&host("kvm2"), |daemon| daemon.domains["web1"].autostart);
    assert_eq!(autostart, Some(true));
}

#[test]
fn a_receipt_that_cannot_be_written_does_not_change_the_verdict() {
    let world = World::new();
    std::fs::write(world.receipts.path().join("receipts"), "in the way").unwrap();
    let outcome = world.migrate();
    assert_eq!((outcome.verdict.clone(), outcome.receipt.clone()), (Verdict::Moved, None));
    assert!(outcome.notes[0].starts_with("cannot write a receipt below"), "{:?}", outcome.notes);
}

#[test]
fn events_tell_the_story_in_order() {
    let world = World::new();
    let script = Script { ending: Ending::Moves, stats: vec![stats(900, 1)] };
    world.connector.script("web1", script);
    world.migrate();
    let events = world.events.lock().unwrap();
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| match event {
            MigrateEvent::Located(guest, _) if *guest == web1() => "located",
            MigrateEvent::Checked(..) => "checked",
            MigrateEvent::Began(..) => "began",
            MigrateEvent::Progressed(..) => "progressed",
            MigrateEvent::Confirming(_) => "confirming",
            MigrateEvent::Ended(_) => "ended",
            _ => "other",
        })
        .collect();
    assert_eq!(&kinds[..4], ["located", "checked", "began", "progressed"]);
    assert_eq!(&kinds[kinds.len() - 2..], ["confirming", "ended"]);
}

#[test]
fn a_dry_run_changes_nothing_wherever_the_guest_is() {
    for to in ["kvm1", "kvm2"] {
        let world = World::new();
        let before = world.connector.calls();
        assert_eq!(world.migrate_to(to, Mode::DryRun).exit_code(), 0);
        assert_eq!(world.connector.calls(), before, "{to}");
        assert!(!world.receipts.path().join("receipts").exists());
    }
}

#[test]
fn several_guests_move_within_the_policys_limit_and_are_told_in_order() {
    use stor::migrate::run::migrate;
    let mut world = World::new();
    world.policy.per_host = 1;
    let names = ["web1", "web2", "web3"];
    let uuid = |name: &str| world.cluster.guest_uuid(&stor::model::GuestId::new(name).unwrap());
    for name in names.iter().skip(1) {
        let guest = xml(&world.cluster)
            .replace("<name>web1<", &format!("<name>{name}<"))
            .replace(&uuid("web1"), &uuid(name));
        world.connector.put(&host("kvm1"), &guest, DomainState::Running).unwrap();
    }
    let guests: Vec<_> = names.iter().map(|name| stor::model::GuestId::new(*name).unwrap()).collect();
    let (under_way, most) = (std::sync::Mutex::new(0_i32), std::sync::atomic::AtomicI32::new(0));
    let events = |event: MigrateEvent| {
        let change = match event {
            MigrateEvent::Began(..) => 1,
            MigrateEvent::Ended(_) => -1,
            _ => 0,
        };
        let mut now = under_way.lock().unwrap();
        *now += change;
        most.fetch_max(*now, std::sync::atomic::Ordering::Relaxed);
    };
    let options = world.options(Mode::Move);
    let outcomes = migrate(world.site(), &guests, &host("kvm2"), &options, &world.cancel, &events);
    let moved: Vec<_> =
        outcomes.iter().map(|outcome| (outcome.guest.as_str(), outcome.exit_code())).collect();
    assert_eq!(moved, vec![("web1", 0), ("web2", 0), ("web3", 0)]);
    assert_eq!(most.into_inner(), 1);
}
