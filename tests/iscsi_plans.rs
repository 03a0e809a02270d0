//! What is planned for iSCSI storage, from what hosts show: a fleet in memory whose daemon and files a test changes by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use stor::execute::execute;
use stor::libvirt::fake::FakePool;
use stor::libvirt::{pool_xml, pools};
use stor::model::{Answer, Cancel, Dead, FindingCode, Secret, SecretRef, Secrets};
use stor::plan::{Plan, plan, plan_without, queries, script};
use stor::spec::Cluster;
use support::tgt::{Daemon, Target};
use support::{World, cluster, host, path, show};

const SECRET: &str = "canary-4711-canary";

const HOSTS: &str = "version: 1
name: homelab
hosts:
  store1: { address: 10.77.0.11 }
  kvm1: { address: 10.77.0.21, hypervisor: true }
  kvm2: { address: 10.77.0.22, hypervisor: true }
";

const LUN: &str = "{ name: web1, size: 1GiB, backing: /data/luns/web1.img }";

/// A cluster with one target; its LUNs and further keys are given.
fn file(luns: &str, more: &str) -> Cluster {
    let text = format!(
        "{HOSTS}storage:\n  san:\n    iscsi: {{ server: store1, iqn: \"iqn.2026-01.lab.stor:san\", access: direct, luns: [{luns}]{more} }}\n"
    );
    let values = BTreeMap::from([(SecretRef::Env("STOR_CHAP".to_owned()), Secret::new(SECRET))]);
    Cluster { secrets: Secrets::new(values, uuid::Uuid::from_u128(7)), ..cluster(&text) }
}

const CHAP: &str = ", chap: { user: stor, secret: { env: STOR_CHAP } }";

fn plan_for(world: &World, file: &Cluster) -> Plan {
    plan(file, &world.observe(&queries(file)))
}

fn applied(file: &Cluster) -> World {
    let world = World::bare(file);
    let journal =
        execute(&plan_for(&world, file), &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    assert!(journal.is_complete(), "{:#?}", journal.entries);
    let left = plan_for(&world, file);
    assert!(left.is_empty(), "{}", show::plan(&left, &["store1", "kvm1", "kvm2"]));
    world
}

fn daemon(world: &World, change: impl FnOnce(&mut Daemon)) {
    change(world.tgt.lock().unwrap().daemons.entry(host("store1")).or_default());
}

fn target(world: &World, change: impl FnOnce(&mut Target)) {
    daemon(world, |daemon| change(daemon.targets.entry("iqn.2026-01.lab.stor:san".to_owned()).or_default()));
}

#[test]
fn a_bare_server_gets_tgt_a_backing_file_and_the_target() {
    let file = file(
        "{ name: web1, size: 1GiB, backing: /data/luns/web1.img, allocation: full }",
        ", allow: [10.77.0.1]",
    );
    let world = World::bare(&file);
    insta::assert_snapshot!(show::plan(&plan_for(&world, &file), &["store1", "kvm1"]));
}

#[test]
fn chap_gives_both_sides_the_secret_and_shows_it_nowhere() {
    let file = file(LUN, CHAP);
    let world = World::bare(&file);
    let plan = plan_for(&world, &file);
    insta::assert_snapshot!(show::plan(&plan, &["store1", "kvm1"]));
    let texts = [
        format!("{plan:?}"),
        serde_json::to_string(&plan).unwrap(),
        script::render(&plan, &file),
        plan.steps().map(|step| step.title.clone()).collect(),
    ];
    for text in texts {
        assert!(!text.contains(SECRET), "{text}");
    }
    let world = applied(&file);
    let conf = path("/etc/tgt/conf.d/stor-homelab-san.conf");
    world.hosts[&host("store1")].files(|files| {
        let found = files.get(&conf).unwrap();
        assert_eq!(found.mode, 0o600);
        assert!(String::from_utf8_lossy(&found.content).contains(SECRET));
    });
    assert_eq!(world.tgt.lock().unwrap().daemons[&host("store1")].accounts["stor"], SECRET);
}

#[test]
fn what_was_observed_holds_no_secret() {
    let file = file(LUN, CHAP);
    let world = applied(&file);
    let seen = world.observe(&queries(&file));
    assert!(!format!("{seen:?}").contains(SECRET));
}

#[test]
fn another_secret_is_given_to_both_sides_while_guests_run() {
    let first = file(LUN, CHAP);
    let world = applied(&first);
    target(&world, |target| _ = target.connected.insert("10.77.0.21".to_owned()));
    let values =
        BTreeMap::from([(SecretRef::Env("STOR_CHAP".to_owned()), Secret::new("another-4711-canary"))]);
    let rotated = Cluster { secrets: Secrets::new(values, uuid::Uuid::from_u128(8)), ..file(LUN, CHAP) };
    let plan = plan_for(&world, &rotated);
    insta::assert_snapshot!(show::plan(&plan, &["store1", "kvm1"]));
    let warned =
        |plan: &Plan| plan.findings.iter().any(|finding| finding.code == FindingCode::SecretOutdated);
    assert!(warned(&plan) && !warned(&plan_for(&world, &first)));
}

#[test]
fn a_lun_is_added_to_a_target_in_use_without_touching_the_others() {
    let world = applied(&file(LUN, ""));
    target(&world, |target| _ = target.connected.insert("10.77.0.21".to_owned()));
    let more = format!("{LUN}, {{ name: web2, size: 64MiB, backing: /data/luns/web2.img }}");
    insta::assert_snapshot!(show::plan(&plan_for(&world, &file(&more, "")), &["store1"]));
}

#[test]
fn a_lun_grows_while_nobody_uses_the_target_and_waits_otherwise() {
    let world = applied(&file(LUN, ""));
    let grown = file(&LUN.replace("1GiB", "2GiB"), "");
    insta::assert_snapshot!("a_lun_grows", show::plan(&plan_for(&world, &grown), &["store1"]));
    target(&world, |target| _ = target.connected.insert("10.77.0.21".to_owned()));
    insta::assert_snapshot!("a_lun_in_use_waits", show::plan(&plan_for(&world, &grown), &["store1"]));
}

#[test]
fn a_lun_never_shrinks_and_never_changes_its_number() {
    let two = format!("{LUN}, {{ name: web2, size: 64MiB, backing: /data/luns/web2.img }}");
    let world = applied(&file(&two, ""));
    let smaller = file(&two.replace("1GiB", "512MiB"), "");
    insta::assert_snapshot!("a_lun_never_shrinks", show::plan(&plan_for(&world, &smaller), &["store1"]));
    let first_left = file("{ name: web2, size: 64MiB, backing: /data/luns/web2.img }", "");
    insta::assert_snapshot!(
        "a_lun_keeps_its_number",
        show::plan(&plan_for(&world, &first_left), &["store1"])
    );
}

#[test]
fn who_may_log_in_is_changed_while_guests_run() {
    let world = applied(&file(LUN, ", allow: [10.77.0.1]"));
    target(&world, |target| {
        target.connected.insert("10.77.0.21".to_owned());
        target.addresses.remove("10.77.0.22");
        target.accounts.insert("somebody".to_owned());
    });
    let left = file(LUN, "");
    let shown = show::plan(&plan_for(&world, &left), &["store1"]);
    assert!(shown.starts_with("BLOCKED") && shown.contains("10.77.0.1 would lose access"), "{shown}");
    let dead = Dead(["10.77.0.1".parse().unwrap()].into());
    insta::assert_snapshot!(show::plan(
        &plan_without(&left, &world.observe(&queries(&left)), &dead),
        &["store1"]
    ));
}

#[test]
fn a_configuration_edited_by_hand_is_written_again_and_one_that_others_can_read_is_closed() {
    let cluster = file(LUN, "");
    let world = applied(&cluster);
    let conf = path("/etc/tgt/conf.d/stor-homelab-san.conf");
    let mut text = String::new();
    world.hosts[&host("store1")].files(|files| {
        text = files.text(&conf).unwrap();
        files.put(&conf, text.replace("write-cache off", "write-cache on"), 0o600);
    });
    insta::assert_snapshot!("edited", show::plan(&plan_for(&world, &cluster), &["store1"]));
    world.hosts[&host("store1")].files(|files| files.put(&conf, text, 0o644));
    let plan = plan_for(&world, &cluster);
    assert!(show::plan(&plan, &["store1"]).contains("readable by others than root -> as the file says"));
}

#[test]
fn a_daemon_that_lost_its_targets_offers_them_again() {
    let cluster = file(LUN, CHAP);
    let world = applied(&cluster);
    daemon(&world, |daemon| *daemon = Daemon::default());
    insta::assert_snapshot!(show::plan(&plan_for(&world, &cluster), &["store1"]));
}

/// A refusal, alone: nothing else of the storage is planned.
fn refused(world: &World, file: &Cluster, reason: &str) {
    let shown = show::plan(&plan_for(world, file), &["store1"]);
    assert!(shown.starts_with("BLOCKED") && shown.contains(reason), "{shown}");
}

#[test]
fn what_others_made_is_refused() {
    let cluster = file(LUN, CHAP);
    let world = World::bare(&cluster);
    target(&world, |_| {});
    world.debians[&host("store1")].lock().unwrap().packages.insert("tgt".to_owned());
    refused(&world, &cluster, "tgt offers target iqn.2026-01.lab.stor:san already, and stor did not make it");

    daemon(&world, |daemon| {
        daemon.targets.clear();
        daemon.accounts.insert("stor".to_owned(), "x".to_owned());
    });
    refused(&world, &cluster, "tgt has a CHAP user stor already");

    daemon(&world, |daemon| {
        daemon.accounts.clear();
        let lun = ("/data/luns/web1.img".to_owned(), String::new(), String::new(), 0);
        let other = Target { luns: BTreeMap::from([(1, lun)]), ..Target::default() };
        daemon.targets.insert("iqn.2020-01.org.else:x".to_owned(), other);
    });
    refused(&world, &cluster, "already behind a LUN of target iqn.2020-01.org.else:x");

    daemon(&world, |daemon| daemon.targets.clear());
    let foreign = path("/etc/tgt/conf.d/other.conf");
    world.hosts[&host("store1")]
        .files(|files| files.put(&foreign, "<target iqn.2026-01.lab.stor:san>\n</target>\n", 0o644));
    refused(&world, &cluster, "/etc/tgt/conf.d/other.conf has target iqn.2026-01.lab.stor:san already");
}

#[test]
fn a_backing_file_that_is_none_or_has_another_size_is_refused() {
    let cluster = file(LUN, "");
    let world = World::bare(&cluster);
    let backing = path("/data/luns/web1.img");
    world.hosts[&host("store1")].files(|files| files.put(&backing, "raw 1048576", 0o600));
    refused(&world, &cluster, "/data/luns/web1.img has 1MiB, not 1GiB, and stor did not make it");
    world.hosts[&host("store1")].files(|files| {
        files.remove(&backing);
        files.make_directory(&backing);
    });
    refused(&world, &cluster, "/data/luns/web1.img is a directory, not a file");
}

#[test]
fn a_backing_file_of_the_right_size_is_taken_as_it_is() {
    let cluster = file(LUN, "");
    let world = World::bare(&cluster);
    let backing = path("/data/luns/web1.img");
    world.hosts[&host("store1")].files(|files| files.put(&backing, "raw 1073741824", 0o640));
    let shown = show::plan(&plan_for(&world, &cluster), &["store1"]);
    assert!(!shown.contains("make /data/luns") && shown.contains("offer target"), "{shown}");
}

#[test]
fn a_backing_file_removed_under_a_running_target_is_never_made_anew() {
    let cluster = file(LUN, "");
    let world = applied(&cluster);
    world.hosts[&host("store1")].files(|files| _ = files.remove(&path("/data/luns/web1.img")));
    refused(&world, &cluster, "/data/luns/web1.img was removed while it is offered");
}

#[test]
fn a_command_that_read_no_secret_plans_nothing_that_needs_it() {
    let cluster = Cluster { secrets: Secrets::default(), ..file(LUN, CHAP) };
    let world = World::bare(&cluster);
    refused(&world, &cluster, "the CHAP secret was not read (environment variable STOR_CHAP)");
}

const POOL: &str = ", pool: true";

#[test]
fn a_pool_of_the_luns_comes_with_libvirts_backend_if_the_file_wants_one() {
    let file = file(LUN, &format!("{CHAP}{POOL}"));
    let world = World::bare(&file);
    insta::assert_snapshot!(show::plan(&plan_for(&world, &file), &["kvm1"]));
    let world = applied(&file);
    let xml = world.libvirt.daemon(&host("kvm1"), |daemon| daemon.pools["san"].xml.clone()).unwrap();
    assert!(xml.contains("type='iscsi-direct'") && !xml.contains(SECRET), "{xml}");
    assert!(xml.contains("<iqn name='iqn.2026-01.lab.stor:stor-homelab.host.kvm1'/>"), "{xml}");
}

#[test]
fn a_pool_whose_sizes_are_old_is_read_again() {
    let file = file(LUN, POOL);
    let world = applied(&file);
    let read = |bytes: u64| {
        let changed = world.libvirt.daemon(&host("kvm1"), |daemon| {
            let pool = daemon.pools.get_mut("san").unwrap();
            let capacity = format!("<capacity unit='bytes'>{bytes}</capacity></pool>");
            let definition = pool.xml.split("<capacity").next().unwrap().replace("</pool>", "");
            pool.xml = format!("{definition}{capacity}");
        });
        assert_eq!(changed, Some(()));
        show::plan(&plan_for(&world, &file), &["kvm1"])
    };
    // libvirt counts to the number of the last block.
    assert_eq!(read((1 << 30) - 512), "");
    assert_eq!(read(1 << 30), "");
    let old = "pool.san.volumes: 536870912 bytes, read before -> 1073741824 bytes";
    let shown = read(1 << 29);
    assert!(shown.contains("bring pool san up to date") && shown.contains(old), "{shown}");
}

#[test]
fn a_pool_that_the_file_no_longer_wants_is_removed_and_one_of_others_is_left() {
    let with = file(LUN, POOL);
    let world = applied(&with);
    let without = file(LUN, "");
    let left = show::plan(&plan_for(&world, &without), &["kvm1", "kvm2"]);
    assert_eq!(left.matches("remove pool san").count(), 2, "{left}");

    let world = applied(&without);
    let made = world.libvirt.daemon(&host("kvm1"), |daemon| {
        let xml = "<pool type='dir'><name>san</name><target><path>/srv</path></target></pool>".to_owned();
        daemon.pools.insert("san".to_owned(), FakePool { xml, active: true, autostart: true, refreshed: 0 })
    });
    assert_eq!(made, Some(None));
    refused(&world, &with, "host kvm1: pool san exists, stor did not make it");
}

#[test]
fn a_pool_of_a_real_host_is_what_stor_wrote() {
    let shown = include_str!("../fixtures/outputs/virsh/debian13-libvirt11.3-pools-iscsi-direct.txt");
    let answer = Answer { status: Some(0), stdout: shown.to_owned(), stderr: String::new() };
    let pools = pools::parse(&answer).unwrap();
    let san = pools.get("san").unwrap();
    assert_eq!((san.active, san.target.as_ref(), san.capacity), (true, None, Some((64 << 20) - 512)));
    let source = pool_xml::IscsiSource {
        address: "10.77.0.11",
        port: 3260,
        target: "iqn.2026-01.org.example:san",
        login: Some(pool_xml::ChapLogin { user: "stor", usage: "stor-cap-san" }),
    };
    let initiator = "iqn.2026-01.org.example:stor-cap.host.kvm1";
    let wanted = pool_xml::iscsi_direct_pool(&"san".parse().unwrap(), source, initiator);
    assert_eq!(pool_xml::parse(&wanted).unwrap().differences(&san.definition), vec![]);
    let others = pool_xml::iscsi_direct_pool(&"san".parse().unwrap(), source, "iqn.2020-01.org.else:x");
    let differences = pool_xml::parse(&others).unwrap().differences(&san.definition);
    assert_eq!(differences.len(), 1, "{differences:?}");
}
