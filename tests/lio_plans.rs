//! What is planned for targets of the kernel's (LIO), from what hosts show: a fleet in memory whose targets a test changes by
//! hand, and the files that real ones saved.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};
use stor::execute::execute;
use stor::model::{Cancel, Dead, Secret, SecretRef, Secrets};
use stor::plan::{Plan, plan, plan_without, queries, script};
use stor::spec::Cluster;
use stor::storage::iscsi::facts::lio::{self, Initiator};
use stor::storage::iscsi::spec::Portal;
use support::lio::Kernel;
use support::{World, cluster, host, path, show};

const SECRET: &str = "canary-4711-canary";
const IQN: &str = "iqn.2026-01.lab.stor:san";
const LUN: &str = "{ name: web1, size: 1GiB, backing: /data/luns/web1.img }";
const CHAP: &str = ", chap: { user: stor, secret: { env: STOR_CHAP } }";

fn file_with(hypervisors: &[&str], luns: &str, more: &str, secret: &str) -> Cluster {
    let mut text = "version: 1\nname: homelab\nhosts:\n  store1: { address: 10.77.0.11 }\n".to_owned();
    for (name, last) in hypervisors.iter().zip(21..) {
        writeln!(text, "  {name}: {{ address: 10.77.0.{last}, hypervisor: true }}").unwrap();
    }
    write!(
        text,
        "storage:\n  san:\n    iscsi: {{ server: store1, iqn: \"{IQN}\", provider: lio, access: direct, luns: [{luns}]{more} }}\n"
    )
    .unwrap();
    let values = BTreeMap::from([(SecretRef::Env("STOR_CHAP".to_owned()), Secret::new(secret))]);
    Cluster { secrets: Secrets::new(values, uuid::Uuid::from_u128(7)), ..cluster(&text) }
}

fn file(luns: &str, more: &str) -> Cluster {
    file_with(&["kvm1", "kvm2"], luns, more, SECRET)
}

fn plan_for(world: &World, file: &Cluster) -> Plan {
    plan(file, &world.observe(&queries(file)))
}

fn run(world: &World, file: &Cluster) {
    let journal =
        execute(&plan_for(world, file), &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    assert!(journal.is_complete(), "{:#?}", journal.entries);
    let left = plan_for(world, file);
    assert!(left.is_empty(), "{}", show(&left));
}

fn applied(file: &Cluster) -> World {
    let world = World::bare(file);
    run(&world, file);
    world
}

fn kernel(world: &World, change: impl FnOnce(&mut Kernel)) {
    change(world.tgt.lock().unwrap().kernels.entry(host("store1")).or_default());
}

fn log_in(world: &World, initiator: &str) {
    kernel(world, |kernel| {
        _ = kernel.sessions.entry(IQN.to_owned()).or_default().insert(initiator.to_owned())
    });
}

fn refused(world: &World, file: &Cluster, reason: &str) {
    let shown = show(&plan_for(world, file));
    assert!(shown.starts_with("BLOCKED") && shown.contains(reason), "{shown}");
}

/// The storage's part of a plan on the server.
fn show(plan: &Plan) -> String {
    show::plan(plan, &["store1"])
}

#[test]
fn a_saved_file_of_a_real_server_is_read_as_what_it_offers() {
    for (text, serial) in [
        (
            include_str!("../fixtures/outputs/saveconfig/debian13-targetcli2.1.53-chap.json"),
            "5943a99f-0817-4c30-a710-24847d454936",
        ),
        (
            include_str!("../fixtures/outputs/saveconfig/debian12-targetcli2.1.53-chap.json"),
            "65924698-7d3d-4825-bc30-b14c6ae55470",
        ),
    ] {
        let config = lio::read_saved(text).unwrap();
        let target = &config.targets["iqn.2026-01.example.stor:store1.luns"];
        assert!(target.authentication && target.enabled && target.groups == 1);
        // targetcli leaves the target's name to everybody who asks for it.
        assert!(target.open);
        assert_eq!(target.portals, BTreeSet::from([Portal { address: "10.78.0.11".to_owned(), port: 3260 }]));
        assert_eq!(target.luns, BTreeMap::from([(0, "web1".to_owned()), (1, "web2".to_owned())]));
        let kvm1 = Initiator {
            user: Some("kvm1".to_owned()),
            luns: BTreeMap::from([(0, 0), (1, 1)]),
            ..Initiator::default()
        };
        assert_eq!(target.initiators["iqn.2026-01.example.stor:kvm1"], kvm1);
        let web1 = &config.objects["web1"];
        assert_eq!((web1.plugin.as_str(), web1.path.as_str()), ("fileio", "/srv/iscsi/web1.img"));
        assert_eq!((web1.size, web1.write_back), (Some(67_108_864), false));
        assert_eq!(web1.serial, serial);
        assert_eq!(config.objects["web2"].plugin, "block");
    }
}

#[test]
fn a_server_that_offers_nothing_and_one_without_its_library_have_no_targets() {
    for text in [
        include_str!("../fixtures/outputs/saveconfig/debian13-targetcli2.1.53-nothing.json"),
        include_str!("../fixtures/outputs/saveconfig/debian12-targetcli2.1.53-nothing.json"),
    ] {
        assert_eq!(lio::read_saved(text).unwrap(), lio::Config::default());
    }
    assert_eq!(lio::read("{}\n").unwrap(), lio::Lio::default());
    assert!(lio::read("Traceback (most recent call last):").is_err());
}

#[test]
fn a_bare_server_gets_packages_a_backing_file_and_the_target_in_one_start() {
    let file = file(LUN, ", allow: [10.77.0.1]");
    insta::assert_snapshot!(show(&plan_for(&World::bare(&file), &file)));
}

#[test]
fn chap_reaches_the_kernel_by_standard_input_and_nothing_shows_it() {
    let file = file(LUN, CHAP);
    let world = World::bare(&file);
    let plan = plan_for(&world, &file);
    insta::assert_snapshot!(show(&plan));
    for text in [format!("{plan:?}"), serde_json::to_string(&plan).unwrap(), script::render(&plan, &file)] {
        assert!(!text.contains(SECRET), "{text}");
    }
    run(&world, &file);
    let seen = world.observe(&queries(&file));
    assert!(!format!("{seen:?}").contains(SECRET));
    kernel(&world, |kernel| {
        assert_eq!(kernel.targets[IQN]["tpgs"][0]["node_acls"][0]["chap_password"], json!(SECRET));
    });
}

#[test]
fn another_secret_is_given_while_guests_run() {
    let world = applied(&file(LUN, CHAP));
    log_in(&world, "iqn.2026-01.lab.stor:stor-homelab.guest.web1");
    let rotated = file_with(&["kvm1", "kvm2"], LUN, CHAP, "another-4711-canary");
    insta::assert_snapshot!(show(&plan_for(&world, &rotated)));
    run(&world, &rotated);
}

#[test]
fn a_secret_that_somebody_changed_on_the_target_is_given_anew() {
    let file = file(LUN, CHAP);
    let world = applied(&file);
    kernel(&world, |kernel| {
        let acls =
            |config: &mut Value| config["tpgs"][0]["node_acls"][0]["chap_password"] = "by-hand-4711".into();
        kernel.targets.values_mut().for_each(acls);
    });
    let shown = show(&plan_for(&world, &file));
    assert!(shown.contains("let in with another secret -> let in") && !shown.contains("by-hand"), "{shown}");
    run(&world, &file);
    let left = plan_for(&world, &file);
    assert!(left.is_empty(), "{}", show(&left));
    // What the next boot would bring back counts, too.
    kernel(&world, |kernel| {
        kernel.saved["targets"][0]["tpgs"][0]["node_acls"][0]["chap_password"] = "by-hand-4711".into();
    });
    assert!(show(&plan_for(&world, &file)).contains("target.san.saved: otherwise, or not at all"));
}

#[test]
fn a_lun_grows_while_somebody_uses_the_target_and_never_shrinks() {
    let world = applied(&file(LUN, ""));
    let grown = file(&LUN.replace("1GiB", "2GiB"), "");
    insta::assert_snapshot!("lio_a_lun_grows", show(&plan_for(&world, &grown)));
    log_in(&world, "iqn.2026-01.lab.stor:stor-homelab.guest.web1");
    run(&world, &grown);
    kernel(&world, |kernel| {
        assert_eq!(kernel.objects["stor-homelab.san.web1"]["size"], json!(2_u64 << 30));
    });
    refused(&world, &file(LUN, ""), "has 2GiB, the file says 1GiB: a LUN never shrinks");
}

#[test]
fn a_lun_is_added_and_removed_with_its_backing_object_and_its_file_stays() {
    let world = applied(&file(LUN, ""));
    log_in(&world, "iqn.2026-01.lab.stor:stor-homelab.guest.web1");
    let two = file(&format!("{LUN}, {{ name: web2, size: 64MiB, backing: /data/luns/web2.img }}"), "");
    run(&world, &two);
    refused(&world, &file(LUN, ""), "target.san.luns.2 cannot change meanwhile");
    kernel(&world, |kernel| kernel.sessions.clear());
    run(&world, &file(LUN, ""));
    kernel(&world, |kernel| {
        assert_eq!(kernel.objects.keys().collect::<Vec<_>>(), ["stor-homelab.san.web1"]);
    });
    world.hosts[&host("store1")].files(|files| assert!(files.text(&path("/data/luns/web2.img")).is_some()));
}

#[test]
fn a_hypervisor_that_left_the_file_is_let_in_no_more_once_it_is_named_as_dead() {
    let world = applied(&file(LUN, ""));
    let left = file_with(&["kvm1"], LUN, "", SECRET);
    let shown = show(&plan_for(&world, &left));
    assert!(shown.contains("host kvm2 (10.77.0.22) left the file and was not asked"), "{shown}");
    assert!(!shown.contains("expelled"), "{shown}");
    let dead = Dead(["kvm2".parse().unwrap()].into());
    insta::assert_snapshot!(show(&plan_without(&left, &world.observe(&queries(&left)), &dead)));
}

#[test]
fn what_somebody_changed_by_hand_is_set_right_and_what_was_not_saved_is_saved() {
    let file = file(LUN, CHAP);
    let world = applied(&file);
    kernel(&world, |kernel| {
        let group = &mut kernel.targets.get_mut(IQN).unwrap()["tpgs"][0];
        group["attributes"]["generate_node_acls"] = json!(1);
        group["attributes"]["authentication"] = json!(0);
        group["portals"] = json!([{ "ip_address": "10.9.9.9", "port": 3260 }]);
        group["node_acls"][0]["mapped_luns"] = json!([]);
    });
    insta::assert_snapshot!(show(&plan_for(&world, &file)));
    run(&world, &file);
    kernel(&world, |kernel| kernel.saved = json!({}));
    let plan = plan_for(&world, &file);
    assert!(show(&plan).contains("saved: otherwise, or not at all -> as it is offered"), "{}", show(&plan));
}

#[test]
fn a_target_comes_back_with_the_boot_and_one_that_a_killed_run_left_half_made_is_completed() {
    let file = file(LUN, CHAP);
    let world = applied(&file);
    kernel(&world, Kernel::boot);
    assert!(plan_for(&world, &file).is_empty());
    kernel(&world, |kernel| {
        kernel.targets.insert(IQN.to_owned(), json!({ "wwn": IQN, "tpgs": [] }));
        let half = json!({ "name": "stor-homelab.san.web1", "plugin": "fileio" });
        kernel.objects.insert("stor-homelab.san.web1".to_owned(), half);
    });
    run(&world, &file);
}

#[test]
fn what_others_made_is_refused() {
    let file = file(LUN, "");
    let world = World::bare(&file);
    world.debians[&host("store1")].lock().unwrap().packages.insert("targetcli-fb".to_owned());
    kernel(&world, |kernel| {
        kernel.targets.insert(IQN.to_owned(), json!({ "wwn": IQN, "tpgs": [{ "tag": 1 }] }));
    });
    refused(
        &world,
        &file,
        "the kernel offers target iqn.2026-01.lab.stor:san already, and stor did not make it",
    );
    kernel(&world, |kernel| {
        kernel.targets.clear();
        kernel.saved = json!({ "targets": [{ "wwn": IQN, "tpgs": [{ "tag": 1 }] }] });
    });
    refused(&world, &file, "the kernel offers target iqn.2026-01.lab.stor:san already");
    kernel(&world, |kernel| {
        kernel.saved = json!({});
        let object = json!({ "name": "other", "plugin": "fileio", "dev": "/data/luns/web1.img", "size": 5 });
        kernel.objects.insert("other".to_owned(), object);
    });
    refused(&world, &file, "/data/luns/web1.img is already behind backing object other");
    kernel(&world, |kernel| {
        kernel.objects.clear();
        let anywhere = json!({ "tag": 1, "portals": [{ "ip_address": "0.0.0.0", "port": 3260 }] });
        let other = "iqn.2020-01.org.else:x";
        kernel.targets.insert(other.to_owned(), json!({ "wwn": other, "tpgs": [anywhere] }));
    });
    refused(&world, &file, "target iqn.2020-01.org.else:x listens at every address");
}

#[test]
fn a_target_that_left_the_file_goes_with_its_objects_and_stamp_and_its_data_stays() {
    let file = file(LUN, CHAP);
    let world = applied(&file);
    let text = "version: 1\nname: homelab\nhosts:\n  store1: { address: 10.77.0.11 }\n  kvm1: { address: 10.77.0.21, hypervisor: true }\n  kvm2: { address: 10.77.0.22, hypervisor: true }\n";
    let without = cluster(text);
    insta::assert_snapshot!(show(&plan_for(&world, &without)));
}
