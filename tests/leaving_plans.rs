//! What leaves the file, moves in it or is listed in another order while it is used: nothing is taken from who uses it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::fmt::Write as _;

use stor::execute::execute;
use stor::libvirt::DomainState;
use stor::model::{Cancel, Dead, OwnedKind, Record, Risk};
use stor::plan::{DeleteData, Plan, plan_destroy, plan_without, queries};
use stor::spec::Cluster;
use support::{CLUSTER, World, cluster, host, path};

fn plan_for(world: &World, file: &Cluster) -> Plan {
    without(world, file, &[])
}

fn without(world: &World, file: &Cluster, dead: &[&str]) -> Plan {
    let dead = Dead(dead.iter().map(|name| name.parse().unwrap()).collect());
    plan_without(file, &world.observe(&queries(file)), &dead)
}

fn run(world: &World, plan: &Plan) {
    let journal = execute(plan, &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    assert!(journal.is_complete(), "{:#?}", journal.entries);
}

fn applied(text: &str) -> World {
    let file = cluster(text);
    let world = World::bare(&file);
    run(&world, &plan_for(&world, &file));
    let left = plan_for(&world, &file);
    assert!(left.is_empty(), "{}", show(&left));
    world
}

fn show(plan: &Plan) -> String {
    let mut out = String::new();
    for step in plan.steps() {
        writeln!(out, "{}: {} [{:?}]", step.host, step.title, step.risk).unwrap();
    }
    for blocked in &plan.blocked {
        writeln!(out, "blocked {}: {} {:?}", blocked.subject, blocked.reason, blocked.hint).unwrap();
    }
    out
}

/// Steps that take or remove something.
fn takes(plan: &Plan) -> usize {
    plan.steps().filter(|step| step.risk > Risk::Safe || !step.takes.is_empty()).count()
}

fn set_state(world: &World, on: &str, state: DomainState) {
    world.libvirt.daemon(&host(on), |daemon| daemon.domains.get_mut("web1").unwrap().state = state);
}

fn move_guest(world: &World, from: &str, to: &str) {
    let guest = world.libvirt.daemon(&host(from), |daemon| daemon.domains.remove("web1").unwrap()).unwrap();
    world.libvirt.daemon(&host(to), |daemon| daemon.domains.insert("web1".to_owned(), guest));
}

fn record(world: &World, on: &str) -> Option<Record> {
    let text = world.hosts[&host(on)].files(|files| files.text(&path("/var/lib/stor/homelab.json")))?;
    Some(serde_json::from_str(&text).unwrap())
}

/// The usual file without kvm1; its guests belong to kvm2.
fn gone() -> String {
    let text = CLUSTER.lines().filter(|line| !line.trim_start().starts_with("kvm1:")).collect::<Vec<_>>();
    text.join("\n").replace("on: kvm1", "on: kvm2") + "\n"
}

/// The usual file with kvm1 as a plain host.
fn plain() -> String {
    let text = CLUSTER.replace("on: kvm1", "on: kvm2");
    let line = text.lines().find(|line| line.trim_start().starts_with("kvm1:")).unwrap().to_owned();
    text.replace(&line, "  kvm1:   { address: 10.77.0.21 }")
}

#[test]
fn a_hypervisor_that_vanished_from_the_file_keeps_its_access_and_no_guest_is_defined_elsewhere() {
    let world = applied(CLUSTER);
    set_state(&world, "kvm1", DomainState::Running);
    let file = cluster(&gone());
    let plan = plan_for(&world, &file);
    let shown = show(&plan);
    assert_eq!(takes(&plan), 0, "{shown}");
    assert!(!shown.contains("define guest") && !shown.contains("auth.allow"), "{shown}");
    assert!(
        shown.contains("10.77.0.21 would lose access") && shown.contains("without `hypervisor: true`"),
        "{shown}"
    );
    assert!(shown.contains("cannot tell whether it is there already"), "{shown}");
    let destroy = plan_destroy(&file, &world.observe(&queries(&file)), &DeleteData::default());
    assert_eq!(takes(&destroy), 0, "{}", show(&destroy));
    assert!(show(&destroy).contains("host kvm1 (10.77.0.21) left the file"), "{}", show(&destroy));
}

#[test]
fn a_hypervisor_that_is_dead_by_the_users_word_loses_its_access_and_is_forgotten() {
    let mut world = applied(CLUSTER);
    let file = cluster(&gone());
    world.hosts.remove(&host("kvm1"));
    let plan = without(&world, &file, &["kvm1"]);
    let shown = show(&plan);
    assert!(shown.contains("set auth.allow") && shown.contains("define guest web1 on kvm2"), "{shown}");
    assert!(plan.steps().any(|step| step.takes.contains("10.77.0.21") && step.risk == Risk::Disruptive));
    run(&world, &plan);
    let next = plan_for(&world, &file);
    assert!(next.is_empty(), "{}", show(&next));
    let left = record(&world, "kvm2").unwrap();
    assert!(left.owns(OwnedKind::DeadHost, "kvm1") && left.owns(OwnedKind::DeadHost, "10.77.0.21"));
    assert!(!left.owns(OwnedKind::Member, "kvm1 10.77.0.21"));
    let wrong = without(&world, &file, &["kvm9"]);
    assert!(wrong.steps().count() == 0 && show(&wrong).contains("neither the records nor an access list"));
}

#[test]
fn a_guest_that_an_older_stor_defined_can_leave_the_file() {
    let world = applied(CLUSTER);
    let place = path("/var/lib/stor/homelab.json");
    let mut old: serde_json::Value = serde_json::to_value(record(&world, "kvm1").unwrap()).unwrap();
    for entry in old["owned"].as_array_mut().unwrap().iter_mut().filter(|entry| entry["kind"] == "guest") {
        entry["detail"].as_object_mut().unwrap().remove("uuid").unwrap();
    }
    world.hosts[&host("kvm1")].files(|files| files.put(&place, old.to_string(), 0o600));
    let file = cluster(CLUSTER);
    run(&world, &plan_for(&world, &file));
    assert!(plan_for(&world, &file).is_empty(), "{}", show(&plan_for(&world, &file)));
    let line = CLUSTER.lines().find(|line| line.contains("image: web1")).unwrap();
    let without_it = plan_for(&world, &cluster(&CLUSTER.replace(line, "")));
    let shown = show(&without_it);
    assert!(shown.contains("kvm1: undefine guest web1") && without_it.blocked.is_empty(), "{shown}");
}

#[test]
fn a_hypervisor_that_leaves_the_file_of_an_older_stors_estate_is_not_overlooked() {
    let world = applied(NFS);
    set_state(&world, "kvm1", DomainState::Running);
    let place = path("/var/lib/stor/homelab.json");
    for on in ["store1", "store2", "kvm1", "kvm2"] {
        let Some(new) = record(&world, on) else { continue };
        let mut old = serde_json::to_value(new).unwrap();
        old["owned"].as_array_mut().unwrap().retain(|entry| entry["kind"] != "member");
        world.hosts[&host(on)].files(|files| files.put(&place, old.to_string(), 0o600));
    }
    // Its access stays, so nothing but the hypervisors' keys shows that it was one.
    let text = NFS.replace("path: /data/vmstore }", "path: /data/vmstore, allow: [10.77.0.21] }");
    let text: String = text
        .lines()
        .filter(|line| !line.contains("kvm1: {"))
        .fold(String::new(), |all, line| all + line + "\n");
    let file = cluster(&text.replace("on: kvm1", "on: kvm2"));
    for _ in 0..2 {
        let plan = plan_for(&world, &file);
        let shown = show(&plan);
        assert!(shown.contains("host 10.77.0.21 (10.77.0.21) left the file"), "{shown}");
        assert!(!shown.contains("define guest"), "{shown}");
        run(&world, &plan);
    }
}

#[test]
fn a_hypervisor_that_came_back_from_the_dead_is_asked_again_before_it_leaves() {
    let world = applied(CLUSTER);
    // It is not reached, and named as dead; its guest is undefined there, as on a host that is installed anew.
    world.libvirt.daemon(&host("kvm1"), |daemon| daemon.domains.clear());
    run(&world, &without(&world, &cluster(&gone()), &["kvm1"]));
    // It comes back while a removal waits: web1 left the file and runs.
    set_state(&world, "kvm2", DomainState::Running);
    let back = CLUSTER.split("guests:").next().unwrap().to_owned();
    let plan = plan_for(&world, &cluster(&back));
    assert!(show(&plan).contains("guest web1 runs on kvm2"), "{}", show(&plan));
    run(&world, &plan);
    for on in ["store1", "kvm2"] {
        let left = record(&world, on).unwrap();
        assert!(left.owned.iter().all(|entry| entry.kind != OwnedKind::DeadHost), "{on}: {left:#?}");
    }
    let again = plan_for(&world, &cluster(gone().split("guests:").next().unwrap()));
    assert_eq!(takes(&again), 0, "{}", show(&again));
    assert!(show(&again).contains("host kvm1 (10.77.0.21) left the file"), "{}", show(&again));
}

#[test]
fn a_host_that_is_no_hypervisor_any_more_is_let_go_only_when_its_guests_have_left() {
    for state in [DomainState::Running, DomainState::ShutOff] {
        let world = applied(CLUSTER);
        set_state(&world, "kvm1", state);
        let plan = plan_for(&world, &cluster(&plain()));
        let shown = show(&plan);
        assert_eq!(takes(&plan), 0, "{shown}");
        assert!(
            shown.contains("web1") && shown.contains("on kvm1") && !shown.contains("define guest"),
            "{shown}"
        );
    }
    let world = applied(CLUSTER);
    set_state(&world, "kvm1", DomainState::Running);
    move_guest(&world, "kvm1", "kvm2");
    let file = cluster(&plain());
    let plan = plan_for(&world, &file);
    let order: Vec<&str> = plan.steps().map(|step| step.title.as_str()).collect();
    let at = |title: &str| {
        order.iter().position(|one| one.starts_with(title)).unwrap_or_else(|| panic!("{title}: {order:#?}"))
    };
    assert!(at("stop and remove var-lib-libvirt") < at("set auth.allow"), "{order:#?}");
    assert!(!show(&plan).contains("undefine") && plan.blocked.is_empty(), "{}", show(&plan));
    run(&world, &plan);
    assert!(plan_for(&world, &file).is_empty(), "{}", show(&plan_for(&world, &file)));
    assert!(record(&world, "kvm1").is_none_or(|left| !left.owns(OwnedKind::Guest, "web1")));
    assert!(record(&world, "kvm2").unwrap().owns(OwnedKind::Guest, "web1"));
    // Now it may leave the file.
    let next = plan_for(&world, &cluster(&gone()));
    assert!(next.is_empty(), "{}", show(&next));
}

#[test]
fn what_stor_did_not_mount_on_a_host_that_leaves_keeps_its_access() {
    let world = applied(CLUSTER);
    move_guest(&world, "kvm1", "kvm2");
    world.debians[&host("kvm1")]
        .lock()
        .unwrap()
        .mounts
        .insert(path("/mnt/mine"), "10.77.0.12:/gfs".to_owned());
    let plan = plan_for(&world, &cluster(&plain()));
    assert!(show(&plan).contains("mount of 10.77.0.12:/gfs at /mnt/mine"), "{}", show(&plan));
    assert!(plan.steps().all(|step| step.takes.is_empty()), "{}", show(&plan));
}

#[test]
fn an_address_is_taken_from_the_list_only_when_its_host_shows_that_it_left_it() {
    let world = applied(CLUSTER);
    let file = cluster(&CLUSTER.replace("10.77.0.21", "10.77.0.31"));
    let still = plan_for(&world, &file);
    assert!(still.steps().all(|step| step.takes.is_empty()), "{}", show(&still));
    assert!(show(&still).contains("10.77.0.21 would lose access"), "{}", show(&still));
    world.debians[&host("kvm1")].lock().unwrap().addresses = ["10.77.0.31".to_owned()].into();
    let moved = plan_for(&world, &file);
    assert!(moved.steps().any(|step| step.takes.contains("10.77.0.21")), "{}", show(&moved));
    run(&world, &moved);
    assert!(plan_for(&world, &file).is_empty(), "{}", show(&plan_for(&world, &file)));
    // Another machine in its place says nothing of the first one.
    let world = applied(CLUSTER);
    world.debians[&host("kvm1")].lock().unwrap().addresses = ["10.77.0.31".to_owned()].into();
    world.hosts[&host("kvm1")].files(|files| _ = files.remove(&path("/var/lib/stor/homelab.json")));
    let other = plan_for(&world, &file);
    assert!(other.steps().all(|step| step.takes.is_empty()), "{}", show(&other));
}

#[test]
fn bricks_in_another_order_remove_nothing() {
    let world = applied(CLUSTER);
    let line = CLUSTER.lines().find(|line| line.contains("bricks:")).unwrap();
    let bricks: Vec<&str> = line.split(['[', ']']).nth(1).unwrap().split(", ").collect();
    for order in [[1, 0, 2], [2, 1, 0], [1, 2, 0]] {
        let other = order.map(|at| bricks[at]).join(", ");
        let file = cluster(&CLUSTER.replace(&bricks.join(", "), &other));
        let plan = plan_for(&world, &file);
        assert_eq!(takes(&plan), 0, "{}", show(&plan));
        assert!(!plan.blocked.is_empty(), "{}", show(&plan));
    }
    // The server with the record leaves the bricks.
    let text =
        CLUSTER.replace(&bricks.join(", "), &format!("{}, {}, store1:/data/other", bricks[1], bricks[2]));
    let plan = plan_for(&world, &cluster(&text));
    assert_eq!(takes(&plan), 0, "{}", show(&plan));
}

const NFS: &str = "version: 1
name: homelab
hosts:
  store1: { address: 10.77.0.11 }
  store2: { address: 10.77.0.12 }
  kvm1: { address: 10.77.0.21, hypervisor: true }
  kvm2: { address: 10.77.0.22, hypervisor: true }
storage:
  vmstore:
    nfs: { server: store1, path: /data/vmstore }
images:
  web1: { storage: vmstore, size: 1GiB }
guests:
  web1: { image: web1, memory: 192MiB, on: kvm1 }
";

#[test]
fn an_export_that_moves_under_a_guest_or_a_mount_is_refused_as_a_whole() {
    for access in ["", ", access: direct", ", access: direct, provider: ganesha"] {
        let before = NFS.replace("/data/vmstore }", &format!("/data/vmstore{access} }}"));
        let world = applied(&before);
        set_state(&world, "kvm1", DomainState::Running);
        for (from, to) in [("path: /data/vmstore", "path: /data/other"), ("server: store1", "server: store2")]
        {
            let plan = plan_for(&world, &cluster(&before.replace(from, to)));
            let serving = plan.steps().filter(|step| step.storage.is_some()).count();
            assert_eq!((serving, takes(&plan)), (0, 0), "{access} {to}: {}", show(&plan));
            assert!(show(&plan).contains("guests use it: web1 on kvm1 (running)"), "{}", show(&plan));
        }
    }
    // No guest, but mounts.
    let bare = NFS.split("images:").next().unwrap();
    let world = applied(bare);
    for (from, to) in [("path: /data/vmstore", "path: /data/other"), ("server: store1", "server: store2")] {
        let plan = plan_for(&world, &cluster(&bare.replace(from, to)));
        assert_eq!(takes(&plan), 0, "{to}: {}", show(&plan));
        assert!(show(&plan).contains("it is mounted: 10.77.0.11:/data/vmstore at"), "{}", show(&plan));
    }
}

#[test]
fn another_mount_point_or_another_kind_of_storage_under_a_guest_changes_nothing() {
    let world = applied(NFS);
    set_state(&world, "kvm1", DomainState::Running);
    for (from, to) in [
        ("path: /data/vmstore }", "path: /data/vmstore, mount: /srv/elsewhere }"),
        (
            "nfs: { server: store1, path: /data/vmstore }",
            "iscsi: { server: store1, iqn: 'iqn.2026-01.lab.stor:san', provider: tgt, luns: [{ name: web1, size: 1GiB, backing: /data/web1.img }] }",
        ),
    ] {
        let plan = plan_for(&world, &cluster(&NFS.replace(from, to)));
        let serving = plan.steps().filter(|step| step.storage.is_some()).count();
        assert_eq!((serving, takes(&plan)), (0, 0), "{to}: {}", show(&plan));
        assert!(show(&plan).contains("guests use it: web1 on kvm1 (running)"), "{}", show(&plan));
    }
}

#[test]
fn records_that_were_lost_are_an_error_that_names_what_carries_marks() {
    for text in [CLUSTER, NFS] {
        let world = applied(text);
        let file = cluster(text);
        for lost in [vec!["kvm1"], file.hosts.keys().map(|host| host.as_str()).collect()] {
            let kept: Vec<_> = lost
                .iter()
                .map(|name| {
                    let place = path("/var/lib/stor/homelab.json");
                    world.hosts[&host(name)].files(|files| {
                        let old = files.get(&place).cloned();
                        files.remove(&place);
                        (*name, place, old)
                    })
                })
                .collect();
            let all = [
                plan_for(&world, &file),
                plan_destroy(&file, &world.observe(&queries(&file)), &DeleteData::default()),
            ];
            for plan in all {
                let shown = show(&plan);
                assert!(shown.contains("carry the marks of cluster homelab and are in no record"), "{shown}");
                assert!(shown.contains("/etc/systemd/system/var-lib-libvirt-images-"), "{shown}");
                assert_eq!(takes(&plan), 0, "{shown}");
            }
            for (name, place, old) in kept {
                let Some(old) = old else { continue };
                world.hosts[&host(name)].files(|files| files.put(&place, old.content.clone(), old.mode));
            }
        }
        assert!(plan_for(&world, &file).is_empty());
    }
    // Another cluster's files are nobody's business.
    let world = applied(NFS);
    let other = cluster(&NFS.replace("name: homelab", "name: home"));
    assert!(
        !show(&plan_for(&world, &other)).contains("carry the marks"),
        "{}",
        show(&plan_for(&world, &other))
    );
}

#[test]
fn a_storage_that_is_renamed_or_two_that_swap_what_is_behind_them_lose_nothing() {
    let gluster = CLUSTER.split("images:").next().unwrap();
    let nfs = NFS.split("images:").next().unwrap();
    let two = format!("{nfs}  other:\n    nfs: {{ server: store1, path: /data/other }}\n");
    let swapped = two
        .replace("/data/other", "/data/x")
        .replace("/data/vmstore", "/data/other")
        .replace("/data/x", "/data/vmstore");
    for (before, after) in [
        (gluster.to_owned(), gluster.replace("  gfs:", "  vol:")),
        (nfs.to_owned(), nfs.replace("  vmstore:", "  store:")),
        (two, swapped),
    ] {
        let world = applied(&before);
        let plan = plan_for(&world, &cluster(&after));
        assert!(!plan.blocked.is_empty(), "{}", show(&plan));
        let withdrawn = |step: &&stor::model::Step| {
            step.title.contains("delete volume") || step.title.contains("the directory keeps its data")
        };
        assert_eq!(plan.steps().filter(withdrawn).count(), 0, "{}", show(&plan));
    }
}
