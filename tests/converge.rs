//! Whatever breaks off a run, the next one brings the fleet to the same state, byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use stor::execute::{StepEnd, execute};
use stor::libvirt::fake::Moment;
use stor::model::{Cancel, Secret, SecretRef, Secrets};
use stor::plan::{DeleteData, Plan, plan, plan_destroy, queries};
use stor::spec::Cluster;
use support::block::Lvm;
use support::breaking::{Break, What};
use support::{CLUSTER, World, cluster, host};

/// What a run plans for.
#[derive(Clone)]
enum Goal<'a> {
    Apply(&'a Cluster),
    Destroy(&'a Cluster, DeleteData),
}

impl Goal<'_> {
    fn plan(&self, world: &World) -> Plan {
        match self {
            Self::Apply(cluster) => plan(cluster, &world.observe(&queries(cluster))),
            Self::Destroy(cluster, delete) => {
                plan_destroy(cluster, &world.observe(&queries(cluster)), delete)
            }
        }
    }
}

/// Executes a plan; says what did not run.
fn run(plan: &Plan, world: &World) -> Vec<String> {
    let journal = execute(plan, &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    let undone = journal.entries.iter().filter(|entry| entry.end != StepEnd::Done);
    undone.map(|entry| format!("{}: {}: {:?}", entry.host, entry.title, entry.end)).collect()
}

/// Observes, plans and executes once; says what failed.
fn once(world: &World, goal: &Goal<'_>) -> Vec<String> {
    run(&goal.plan(world), world)
}

/// Runs until the plan is empty, at most a few times.
fn settle(world: &World, goal: &Goal<'_>) {
    for _ in 0..3 {
        let next = goal.plan(world);
        assert!(next.blocked.is_empty(), "{:#?}", next.blocked);
        if next.is_empty() {
            return;
        }
        let errors = run(&next, world);
        assert!(errors.is_empty(), "{errors:#?}");
    }
    let left = goal.plan(world);
    assert!(left.is_empty(), "{left:#?}");
}

/// A world with what `goal` needs, to which `before` was applied.
fn after(before: &[Goal<'_>], goal: &Goal<'_>) -> World {
    let (Goal::Apply(file) | Goal::Destroy(file, _)) = goal;
    let world = World::bare(file);
    {
        let mut servers = world.tgt.lock().unwrap();
        servers.kernels_have_lio = true;
        let lvm = Lvm { groups: [("vg0".to_owned(), 4 << 30)].into(), ..Lvm::default() };
        servers.lvm.insert(host("store1"), lvm);
    }
    for goal in before {
        settle(&world, goal);
    }
    world
}

/// Breaks a run for `goal` at every effect, in every way, and lets the next run finish.
fn breaks_anywhere(before: &[Goal<'_>], goal: &Goal<'_>) {
    let faultless = after(before, goal);
    faultless.breaker.set(None);
    assert_eq!(once(&faultless, goal), Vec::<String>::new());
    let effects = faultless.breaker.trace();
    settle(&faultless, goal);
    let expected = faultless.state();
    for (at, effect) in effects.iter().enumerate() {
        for moment in [Moment::Before, Moment::After] {
            for what in [What::Host, What::Stor] {
                let world = after(before, goal);
                let chosen = Break { at, moment, what };
                world.breaker.set(Some(chosen));
                let errors = once(&world, goal);
                assert!(world.breaker.hit(), "{chosen:?}");
                assert!(!errors.is_empty(), "{chosen:?} at {effect} went unnoticed");
                world.breaker.set(None);
                settle(&world, goal);
                let state = world.state();
                assert!(state == expected, "{chosen:?} at {}:\n{}", effect, difference(&expected, &state));
            }
        }
    }
}

fn difference(expected: &str, found: &str) -> String {
    let (mut out, old, new) =
        (String::new(), expected.lines().collect::<Vec<_>>(), found.lines().collect::<Vec<_>>());
    old.iter().filter(|line| !new.contains(line)).for_each(|line| out.push_str(&format!("- {line}\n")));
    new.iter().filter(|line| !old.contains(line)).for_each(|line| out.push_str(&format!("+ {line}\n")));
    out
}

#[test]
fn an_apply_from_bare_hosts_converges_in_one_run() {
    let file = cluster(CLUSTER);
    let goal = Goal::Apply(&file);
    let world = World::bare(&file);
    assert_eq!(once(&world, &goal), Vec::<String>::new());
    let again = goal.plan(&world);
    assert!(again.is_empty(), "{again:#?}");
}

#[test]
fn an_apply_that_breaks_anywhere_is_finished_by_the_next() {
    let file = cluster(CLUSTER);
    breaks_anywhere(&[], &Goal::Apply(&file));
}

#[test]
fn a_destroy_that_breaks_anywhere_is_finished_by_the_next() {
    let file = cluster(CLUSTER);
    breaks_anywhere(&[Goal::Apply(&file)], &Goal::Destroy(&file, DeleteData::default()));
}

/// The usual file with one more volume on the same servers, an image on it, and a guest.
fn with_a_second_volume() -> Cluster {
    let text = CLUSTER
        .replace(
            "images:\n",
            "  two:\n    gluster:\n      replica: 3\n      bricks: [store1:/data/bricks/two, store2:/data/bricks/two, store3:/data/bricks/two]\n\nimages:\n  mail: { storage: two, size: 1GiB, format: raw }\n",
        )
        .replace("guests:\n", "guests:\n  mail: { image: mail, memory: 64MiB, vcpus: 1, on: kvm2 }\n");
    cluster(&text)
}

#[test]
fn growing_that_breaks_anywhere_is_finished_by_the_next() {
    let (small, grown) = (cluster(CLUSTER), with_a_second_volume());
    breaks_anywhere(&[Goal::Apply(&small)], &Goal::Apply(&grown));
}

#[test]
fn pruning_that_breaks_anywhere_is_finished_by_the_next() {
    let (small, grown) = (cluster(CLUSTER), with_a_second_volume());
    breaks_anywhere(&[Goal::Apply(&grown)], &Goal::Apply(&small));
}

#[test]
fn deleting_data_that_breaks_anywhere_is_finished_by_the_next() {
    let file = cluster(CLUSTER);
    let named = DeleteData(["gfs".parse().unwrap()].into());
    breaks_anywhere(&[Goal::Apply(&file)], &Goal::Destroy(&file, named));
}

/// The usual hosts with a directory that the first of them exports.
const NFS: &str = "
storage:
  vmstore:
    nfs: { server: store1, path: /data/vmstore }

images:
  web1: { storage: vmstore, size: 1GiB }

guests:
  web1: { image: web1, memory: 192MiB, on: kvm1 }
";

fn with_nfs(more: &str) -> Cluster {
    let hosts = CLUSTER.split("storage:").next().unwrap();
    let text = NFS.replace("/data/vmstore }", &format!("/data/vmstore{more} }}"));
    assert!(text.contains(more));
    cluster(&(hosts.to_owned() + &text))
}

#[test]
fn an_export_with_mounts_that_breaks_anywhere_is_finished_by_the_next() {
    breaks_anywhere(&[], &Goal::Apply(&with_nfs("")));
}

#[test]
fn an_export_without_mounts_that_breaks_anywhere_is_finished_by_the_next() {
    breaks_anywhere(&[], &Goal::Apply(&with_nfs(", provider: ganesha, access: direct")));
}

#[test]
fn another_server_for_the_same_directory_that_breaks_anywhere_is_finished_by_the_next() {
    let (kernel, ganesha) = (with_nfs(", provider: kernel"), with_nfs(", provider: ganesha"));
    breaks_anywhere(&[Goal::Apply(&kernel)], &Goal::Apply(&ganesha));
    breaks_anywhere(&[Goal::Apply(&ganesha)], &Goal::Apply(&kernel));
}

#[test]
fn an_export_given_back_that_breaks_anywhere_is_finished_by_the_next() {
    for file in [with_nfs(""), with_nfs(", provider: ganesha, access: direct")] {
        breaks_anywhere(&[Goal::Apply(&file)], &Goal::Destroy(&file, DeleteData::default()));
    }
}

/// The usual hosts with a target of the first of them, by tgt and with CHAP.
fn with_iscsi(size: &str, secret: &str) -> Cluster {
    with_lun("tgt", "backing: /data/luns/web1.img", size, secret)
}

/// The same, by a program of choice over what the file names.
fn with_lun(provider: &str, behind: &str, size: &str, secret: &str) -> Cluster {
    let hosts = CLUSTER.split("storage:").next().unwrap();
    let text = format!(
        "{hosts}storage:
  san:
    iscsi:
      server: store1
      iqn: iqn.2026-01.lab.stor:san
      access: direct
      provider: {provider}
      chap: {{ user: stor, secret: {{ env: STOR_CHAP }} }}
      luns: [{{ name: web1, size: {size}, {behind} }}]
images:
  web1: {{ storage: san, size: {size} }}
guests:
  web1: {{ image: web1, memory: 192MiB, on: kvm1 }}
"
    );
    let reference = SecretRef::Env("STOR_CHAP".to_owned());
    let values = std::collections::BTreeMap::from([(reference, Secret::new(secret))]);
    Cluster { secrets: Secrets::new(values, uuid::Uuid::from_u128(7)), ..cluster(&text) }
}

#[test]
fn a_target_that_breaks_anywhere_is_finished_by_the_next() {
    breaks_anywhere(&[], &Goal::Apply(&with_iscsi("1GiB", "chap-secret-1")));
}

#[test]
fn a_lun_that_grows_and_a_secret_that_changes_converge_wherever_they_break() {
    let first = with_iscsi("1GiB", "chap-secret-1");
    breaks_anywhere(&[Goal::Apply(&first)], &Goal::Apply(&with_iscsi("2GiB", "chap-secret-1")));
    breaks_anywhere(&[Goal::Apply(&first)], &Goal::Apply(&with_iscsi("1GiB", "chap-secret-2")));
}

#[test]
fn a_target_given_back_that_breaks_anywhere_is_finished_by_the_next() {
    let file = with_iscsi("1GiB", "chap-secret-1");
    breaks_anywhere(&[Goal::Apply(&file)], &Goal::Destroy(&file, DeleteData::default()));
    let named = DeleteData(["san".parse().unwrap()].into());
    breaks_anywhere(&[Goal::Apply(&file)], &Goal::Destroy(&file, named));
}

/// Likewise, offered by the kernel to hypervisors whose own kernels log in.
fn with_sessions(more: &str) -> Cluster {
    let file = with_iscsi("1GiB", "chap-secret-1");
    let hosts = CLUSTER.split("storage:").next().unwrap();
    let text = format!(
        "{hosts}storage:
  san:
    iscsi:
      server: store1
      iqn: iqn.2026-01.lab.stor:san
      provider: lio
      access: session{more}
      chap: {{ user: stor, secret: {{ env: STOR_CHAP }} }}
      luns: [{{ name: web1, size: 1GiB, backing: /data/luns/web1.img }}]
images:
  web1: {{ storage: san, size: 1GiB }}
guests:
  web1: {{ image: web1, memory: 192MiB, on: kvm1 }}
"
    );
    Cluster { secrets: file.secrets, ..cluster(&text) }
}

#[test]
fn sessions_that_break_anywhere_are_finished_by_the_next_run() {
    let first = with_sessions("");
    breaks_anywhere(&[], &Goal::Apply(&first));
    let two = with_sessions("\n      portals: [10.77.0.11, 10.88.0.11]");
    breaks_anywhere(&[Goal::Apply(&two)], &Goal::Apply(&first));
}

#[test]
fn sessions_given_back_that_break_anywhere_are_finished_by_the_next_run() {
    let file = with_sessions("");
    breaks_anywhere(&[Goal::Apply(&file)], &Goal::Destroy(&file, DeleteData::default()));
}

#[test]
fn a_target_that_passes_to_another_program_converges_wherever_it_breaks() {
    let by = |provider, behind| with_lun(provider, behind, "1GiB", "chap-secret-1");
    for behind in ["backing: /data/luns/web1.img", "volume: vg0/web1"] {
        let (tgt, lio) = (by("tgt", behind), by("lio", behind));
        breaks_anywhere(&[Goal::Apply(&tgt)], &Goal::Apply(&lio));
        breaks_anywhere(&[Goal::Apply(&lio)], &Goal::Apply(&tgt));
    }
}

#[test]
fn a_volume_behind_a_lun_made_grown_and_deleted_converges_wherever_it_breaks() {
    let sized = |size| with_lun("lio", "volume: vg0/web1", size, "chap-secret-1");
    let (first, grown) = (sized("1GiB"), sized("2GiB"));
    breaks_anywhere(&[], &Goal::Apply(&first));
    breaks_anywhere(&[Goal::Apply(&first)], &Goal::Apply(&grown));
    let named = DeleteData(["san".parse().unwrap()].into());
    breaks_anywhere(&[Goal::Apply(&first)], &Goal::Destroy(&first, named));
}
