//! A CHAP secret on a hypervisor: defined, rotated, removed; whatever breaks, the next run ends the same, and no plan, journal,
//! runbook or file but the stamp holds anything of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use stor::execute::{Journal, StepEnd, execute};
use stor::libvirt::fake::{FakeSecret, Moment};
use stor::model::{Cancel, Effect, Owned, Record, Secret, SecretRef, Secrets, Step, StorageId, Wave};
use stor::plan::{Plan, plan_destroy, queries, script};
use stor::spec::Cluster;
use stor::storage::chap_secret::ChapSecret;
use stor::storage::planning::Stop;
use support::breaking::{Break, What};
use support::{CLUSTER, World, cluster, host, path};

const CANARY: &str = "canary-4711-canary";
const STAMP: &str = "/var/lib/stor/homelab.san.stamp";

fn reference() -> SecretRef {
    SecretRef::Env("STOR_CHAP".to_owned())
}

fn storage() -> StorageId {
    "san".parse().unwrap()
}

/// The usual file, with a value for the secret and a salt that tells one run from another.
fn file(value: &str, salt: u128) -> Cluster {
    let values = BTreeMap::from([(reference(), Secret::new(value))]);
    Cluster { secrets: Secrets::new(values, uuid::Uuid::from_u128(salt)), ..cluster(CLUSTER) }
}

fn planned(world: &World, file: &Cluster) -> Result<Option<Step>, Stop> {
    let (storage, reference) = (storage(), reference());
    let secret = ChapSecret { cluster: file, storage: &storage, reference: &reference };
    let mut batch = secret.queries();
    batch.push(Record::query(&file.name));
    let seen = world.observe(&BTreeMap::from([(host("kvm1"), batch)]));
    secret.plan(&host("kvm1"), &seen)
}

fn steps(step: Step) -> Plan {
    Plan { waves: vec![(Wave::ClientPrerequisites, vec![step])], ..Plan::default() }
}

/// Records the secret as stor's, as the first wave of every plan does, and runs the step.
fn run(world: &World, file: &Cluster, step: Step) -> Journal {
    let owned: Owned = step.owns.as_deref().unwrap().clone();
    let mut record = Record::empty(&file.name);
    record.owned.insert(owned);
    world.hosts[&host("kvm1")].files(|files| files.put(&Record::path(&file.name), record.render(), 0o600));
    execute(&steps(step), &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {})
}

fn value(world: &World) -> Option<String> {
    let secrets = world.libvirt.daemon(&host("kvm1"), |daemon| daemon.secrets.clone()).unwrap();
    let value = secrets.into_values().next().and_then(|FakeSecret { value, .. }| value);
    value.map(|value| value.reveal().to_owned())
}

fn set(world: &World, file: &Cluster) {
    let step = planned(world, file).unwrap().expect("a step");
    assert!(run(world, file, step).is_complete());
    assert!(planned(world, file).unwrap().is_none());
}

#[test]
fn a_secret_is_set_once_and_again_when_its_value_changed() {
    let first = file(CANARY, 1);
    let world = World::bare(&first);
    set(&world, &first);
    assert_eq!(value(&world).as_deref(), Some(CANARY));
    assert!(planned(&world, &file(CANARY, 2)).unwrap().is_none(), "another run has another salt");
    let rotated = file("another-4711-canary", 3);
    let step = planned(&world, &rotated).unwrap().expect("a step");
    assert_eq!(step.why[0].desired, "as its reference says");
    set(&world, &rotated);
    assert_eq!(value(&world).as_deref(), Some("another-4711-canary"));
    let mode = world.hosts[&host("kvm1")].files(|files| files.get(&path(STAMP)).unwrap().mode);
    assert_eq!(mode, 0o600);
}

#[test]
fn whatever_breaks_off_the_next_run_sets_the_value_of_now() {
    let (before, after) = (file("another-4711-canary", 1), file(CANARY, 2));
    for old in [None, Some(&before)] {
        let mut at = 0;
        loop {
            let mut hits = 0;
            for moment in [Moment::Before, Moment::After] {
                let world = World::bare(&after);
                old.into_iter().for_each(|old| set(&world, old));
                let step = planned(&world, &after).unwrap().expect("a step");
                world.breaker.set(Some(Break { at, moment, what: What::Stor }));
                let journal = run(&world, &after, step);
                hits += usize::from(world.breaker.hit());
                assert_eq!(journal.is_complete(), !world.breaker.hit(), "{journal:?}");
                world.breaker.set(None);
                if let Some(step) = planned(&world, &after).unwrap() {
                    assert!(run(&world, &after, step).is_complete());
                }
                assert!(planned(&world, &after).unwrap().is_none());
                assert_eq!(value(&world).as_deref(), Some(CANARY), "effect {at} {moment:?}");
            }
            if hits == 0 {
                break;
            }
            at += 1;
        }
        assert!(at >= 3, "define, set and stamp were broken off, {at} effects");
    }
}

#[test]
fn a_secret_that_stor_did_not_make_is_left_alone() {
    let file = file(CANARY, 1);
    let world = World::bare(&file);
    let step = planned(&world, &file).unwrap().expect("a step");
    let Effect::EnsureSecret { id, xml, .. } = step.effect else { panic!() };
    let foreign = FakeSecret { xml, value: Some(Secret::new("theirs")) };
    world.libvirt.daemon(&host("kvm1"), |daemon| daemon.secrets.insert(id, foreign));
    let Err(Stop::Refused(reason, Some(hint))) = planned(&world, &file) else { panic!() };
    assert!(reason.contains("stor did not make it") && hint.contains("virsh secret-undefine"), "{reason}");
}

#[test]
fn a_secret_that_was_not_read_or_a_host_that_did_not_answer_plans_nothing() {
    let file = file(CANARY, 1);
    let world = World::bare(&file);
    let unread = Cluster { secrets: Secrets::default(), ..file.clone() };
    assert!(matches!(planned(&world, &unread), Err(Stop::Refused(..))));
    world.set_down("kvm1", true);
    assert!(matches!(planned(&world, &file), Err(Stop::Unknown(_))));
}

#[test]
fn what_leaves_the_file_is_removed_with_its_stamp() {
    let file = file(CANARY, 1);
    let world = World::bare(&file);
    set(&world, &file);
    let seen = world.observe(&queries(&file));
    let plan = plan_destroy(&file, &seen, &stor::plan::DeleteData::default());
    let journal = execute(&plan, &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    assert!(journal.entries.iter().all(|entry| entry.end == StepEnd::Done), "{journal:?}");
    assert_eq!(value(&world), None);
    let left = world.hosts[&host("kvm1")]
        .files(|files| files.iter().map(|(path, _)| path.to_string()).collect::<Vec<_>>());
    assert!(!left.iter().any(|path| path.contains("/var/lib/stor")), "{left:?}");
}

#[test]
fn no_plan_journal_or_runbook_shows_a_secret_or_its_stamp() {
    let file = file(CANARY, 0x00c0_ffee);
    let world = World::bare(&file);
    let step = planned(&world, &file).unwrap().expect("a step");
    let Effect::EnsureSecret { stamp, .. } = &step.effect else { panic!() };
    assert_eq!(stamp.mode.0, 0o600);
    let plan = steps(step.clone());
    let script = script::render(&plan, &file);
    assert!(script.contains("secret-set-value") && script.contains("--interactive"), "{script}");
    let journal = run(&world, &file, step);
    let stamp = world.hosts[&host("kvm1")].files(|files| files.text(&path(STAMP))).unwrap();
    let (salt, digest) = stamp.trim().split_once(' ').unwrap();
    for text in [
        format!("{plan:?}"),
        serde_json::to_string(&plan).unwrap(),
        script,
        format!("{journal:?}"),
        serde_json::to_string(&journal).unwrap(),
        format!("{:?}", file.secrets),
        world.libvirt.calls().join("\n"),
    ] {
        for secret in [CANARY, salt, digest] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}
