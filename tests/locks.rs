//! What a lock is worth: lost anywhere, it ends the run; and what was agreed to is done only while it still holds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::sync::Mutex;

use stor::apply::{Applied, Consent, End, Goal, Shell, apply};
use stor::execute::{ExecuteEvent, StepEnd, execute};
use stor::host::{Holder, LockKind};
use stor::libvirt::fake::Moment;
use stor::model::{Cancel, Dead, HostId};
use stor::observe::observe_locked;
use stor::plan::{DeleteData, Plan, plan, plan_destroy, queries};
use stor::spec::Cluster;
use stor::verify::VerifyEvent;
use support::breaking::{Break, What};
use support::{CLUSTER, World, cluster, host};

fn holder(cluster: &Cluster) -> Holder {
    Holder { cluster: cluster.name.clone(), kind: LockKind::Exclusive, text: "a test".to_owned() }
}

/// Locks, plans and executes once; the journal in words, one entry a step.
fn once(world: &World, cluster: &Cluster, goal: &Goal) -> Vec<(HostId, StepEnd)> {
    let (seen, _locks) = observe_locked(&world.fleet(), &holder(cluster), &queries(cluster)).unwrap();
    let plan = match goal {
        Goal::Match(_) => plan(cluster, &seen),
        Goal::Gone(delete, _) => plan_destroy(cluster, &seen, delete),
    };
    let journal = execute(&plan, &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    journal.entries.into_iter().map(|entry| (entry.host, entry.end)).collect()
}

/// Loses the lock of the host of each effect in turn, right after it: nothing else happens on that host, and once that is seen, on no host.
fn lost_anywhere(cluster: &Cluster, before: &[Goal], goal: &Goal) {
    let prepared = || {
        let world = World::bare(cluster);
        for goal in before {
            assert!(once(&world, cluster, goal).iter().all(|(_, end)| *end == StepEnd::Done));
        }
        world.breaker.set(None);
        world
    };
    let whole = prepared();
    assert!(once(&whole, cluster, goal).iter().all(|(_, end)| *end == StepEnd::Done));
    let effects = whole.breaker.trace();
    let mut noticed = 0;
    for (at, effect) in effects.iter().enumerate() {
        let world = prepared();
        world.breaker.set(Some(Break { at, moment: Moment::After, what: What::Lock }));
        let entries = once(&world, cluster, goal);
        assert!(world.breaker.hit(), "{at}");
        assert_eq!(world.breaker.unguarded(), Vec::<String>::new(), "after {effect}");
        let lost_on = effect.split(':').next().unwrap();
        let later = world.breaker.trace().into_iter().skip(at + 1);
        let on_it: Vec<String> = later.filter(|effect| effect.starts_with(&format!("{lost_on}:"))).collect();
        assert_eq!(on_it, Vec::<String>::new(), "after {effect}");
        let seen = entries
            .iter()
            .position(|(_, end)| matches!(end, StepEnd::Failed(why) if why.contains("lock was lost")));
        if let Some(seen) = seen {
            noticed += 1;
            let waits = |(host, end): &(HostId, StepEnd)| {
                let skipped = matches!(end, StepEnd::Skipped(why) if why.contains("the lock of host"));
                // Hosts of one wave work side by side: those before it in the alphabet had their turn.
                skipped
                    || *end == StepEnd::Done && host.as_str() < lost_on
                    || matches!(end, StepEnd::Skipped(_))
            };
            assert!(entries[seen + 1..].iter().all(waits), "after {effect}: {entries:#?}");
        }
    }
    assert!(noticed > effects.len() / 2, "{noticed} of {}", effects.len());
}

#[test]
fn a_lock_lost_after_any_effect_of_an_apply_ends_the_run() {
    lost_anywhere(&cluster(CLUSTER), &[], &Goal::Match(Dead::default()));
}

#[test]
fn a_lock_lost_after_any_effect_of_a_destroy_ends_the_run() {
    lost_anywhere(
        &cluster(CLUSTER),
        &[Goal::Match(Dead::default())],
        &Goal::Gone(DeleteData::default(), Dead::default()),
    );
}

#[test]
fn a_guest_is_defined_only_while_the_locks_of_all_hosts_are_held() {
    let file = cluster(CLUSTER);
    let world = World::bare(&file);
    assert!(once(&world, &file, &Goal::Match(Dead::default())).iter().all(|(_, end)| *end == StepEnd::Done));
    let effects = world.breaker.trace();
    let defined = effects.iter().position(|effect| effect.contains("define guest")).unwrap();
    let on = effects[defined].split(':').next().unwrap();
    let last =
        |host: &HostId| effects[..defined].iter().rposition(|effect| effect.starts_with(&format!("{host}:")));
    let mut looked = 0;
    for other in file.hosts.keys().filter(|other| other.as_str() != on) {
        let Some(at) = last(other) else { continue };
        let world = World::bare(&file);
        world.breaker.set(Some(Break { at, moment: Moment::After, what: What::Lock }));
        once(&world, &file, &Goal::Match(Dead::default()));
        let defines = world.breaker.trace().iter().any(|effect| effect.contains("define guest"));
        assert!(world.breaker.hit() && !defines, "{other} lost its lock");
        looked += 1;
    }
    assert!(looked > 2, "{effects:#?}");
}

/// Answers as a person would, after `meanwhile`.
struct Person<'a> {
    meanwhile: &'a (dyn Fn() + Sync),
    ran: Mutex<usize>,
}

impl Shell for Person<'_> {
    fn consent(&self, _: &Plan) -> Consent {
        (self.meanwhile)();
        Consent::Answered
    }
    fn executing(&self, _: ExecuteEvent<'_>) {
        *self.ran.lock().unwrap() += 1;
    }
    fn verifying(&self, _: VerifyEvent) {}
}

/// Destroys what an apply made, with a person who is asked.
fn destroyed(world: &World, file: &Cluster, meanwhile: &(dyn Fn() + Sync)) -> (Applied, usize) {
    let person = Person { meanwhile, ran: Mutex::default() };
    let goal = Goal::Gone(DeleteData::default(), Dead::default());
    let applied =
        apply(file, &world.fleet(), &world.libvirt, &goal, &holder(file), &Cancel::default(), &person)
            .unwrap();
    (applied, *person.ran.lock().unwrap())
}

#[test]
fn after_a_question_only_what_still_holds_is_done() {
    let file = cluster(CLUSTER);
    let ready = || {
        let world = World::bare(&file);
        once(&world, &file, &Goal::Match(Dead::default()));
        world
    };
    let world = ready();
    let (applied, _) = destroyed(&world, &file, &|| {});
    assert!(applied.is_complete(), "{:?}", applied.end);

    let world = ready();
    let before = world.state();
    let (applied, ran) = destroyed(&world, &file, &|| {
        world.libvirt.daemon(&host("kvm1"), |daemon| daemon.domains.clear());
    });
    let End::Overtaken(reason) = &applied.end else { panic!("{:?}", applied.end) };
    assert!(reason.contains("the hosts have changed while you were asked"), "{reason}");
    assert!(reason.contains("no longer as you were shown:\n  kvm1: undefine guest"), "{reason}");
    assert_eq!((ran, applied.is_complete()), (0, false));
    assert!(before.len() > world.state().len());

    let world = ready();
    let before = world.state();
    let (applied, ran) = destroyed(&world, &file, &|| world.hosts[&host("kvm2")].lose_lock());
    let End::Overtaken(reason) = &applied.end else { panic!("{:?}", applied.end) };
    assert!(reason.starts_with("host kvm2: the lock was lost"), "{reason}");
    assert_eq!((ran, world.state()), (0, before));
}
