//! What is planned where hypervisors' own kernels log in to a target (open-iscsi), from what hosts show: a fleet in memory whose
//! sessions a test changes by hand, and what real hosts printed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use stor::execute::execute;
use stor::libvirt::{DomainState, pool_xml, pools};
use stor::model::{Answer, Cancel, Secret, SecretRef, Secrets};
use stor::plan::{DeleteData, Plan, plan, plan_destroy, queries, script};
use stor::spec::Cluster;
use stor::storage::iscsi::facts::initiator::FILE;
use stor::storage::iscsi::facts::sessions::{self, Record};
use stor::storage::iscsi::spec::Portal;
use support::initiator::Known;
use support::{World, cluster, host, path, show};

const SECRET: &str = "canary-4711-canary";
const IQN: &str = "iqn.2026-01.lab.stor:san";
const LUN: &str = "{ name: web1, size: 1GiB, backing: /data/luns/web1.img }";
const CHAP: &str = ", chap: { user: stor, secret: { env: STOR_CHAP } }";
const PORTAL: &str = "10.77.0.11:3260";

fn file_with(luns: &str, more: &str, secret: &str) -> Cluster {
    let text = format!(
        "version: 1
name: homelab
hosts:
  store1: {{ address: 10.77.0.11 }}
  kvm1: {{ address: 10.77.0.21, hypervisor: true }}
  kvm2: {{ address: 10.77.0.22, hypervisor: true }}
storage:
  san:
    iscsi: {{ server: store1, iqn: \"{IQN}\", provider: lio, access: session, luns: [{luns}]{more} }}
images:
  web1: {{ storage: san, size: 1GiB }}
guests:
  web1: {{ image: web1, memory: 192MiB, on: kvm1 }}
"
    );
    let values = BTreeMap::from([(SecretRef::Env("STOR_CHAP".to_owned()), Secret::new(secret))]);
    Cluster { secrets: Secrets::new(values, uuid::Uuid::from_u128(7)), ..cluster(&text) }
}

fn file(more: &str) -> Cluster {
    file_with(LUN, more, SECRET)
}

fn plan_for(world: &World, file: &Cluster) -> Plan {
    plan(file, &world.observe(&queries(file)))
}

fn carry_out(world: &World, plan: &Plan) {
    let journal = execute(plan, &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    assert!(journal.is_complete(), "{:#?}", journal.entries);
}

fn run(world: &World, file: &Cluster) {
    carry_out(world, &plan_for(world, file));
    let left = plan_for(world, file);
    assert!(left.is_empty(), "{}", show(&left, "kvm1"));
}

fn applied(file: &Cluster) -> World {
    let world = World::bare(file);
    run(&world, file);
    world
}

/// Changes by hand what kvm1 knows of the target.
fn by_hand(world: &World, change: impl FnOnce(&mut Known)) {
    let mut servers = world.tgt.lock().unwrap();
    let initiator = servers.initiators.entry(host("kvm1")).or_default();
    change(initiator.targets.entry(IQN.to_owned()).or_default());
}

/// Logs all hypervisors out by hand.
fn log_out(world: &World) {
    let mut servers = world.tgt.lock().unwrap();
    let targets = servers.initiators.values_mut().filter_map(|initiator| initiator.targets.get_mut(IQN));
    targets.for_each(|known| known.sessions.clear());
    servers.kernels.values_mut().for_each(|kernel| kernel.sessions.clear());
}

fn known(world: &World) -> Option<Known> {
    world.tgt.lock().unwrap().initiators[&host("kvm1")].targets.get(IQN).cloned()
}

fn refused(world: &World, file: &Cluster, reason: &str) {
    let shown = show(&plan_for(world, file), "nobody");
    assert!(shown.contains("BLOCKED") && shown.contains(reason), "{shown}");
}

/// The storage's part of a plan on one host.
fn show(plan: &Plan, of: &str) -> String {
    show::plan(plan, &[of])
}

#[test]
fn a_bare_hypervisor_gets_a_name_packages_a_record_a_session_and_a_pool() {
    let file = file(CHAP);
    let world = World::bare(&file);
    insta::assert_snapshot!(show(&plan_for(&world, &file), "kvm1"));
    run(&world, &file);
    let name = world.hosts[&host("kvm1")].files(|files| files.text(&path(FILE)));
    assert_eq!(name.unwrap(), "InitiatorName=iqn.2026-01.lab.stor:stor-homelab.host.kvm1\n");
    let known = known(&world).unwrap();
    assert_eq!(known.records[PORTAL].secret.as_deref(), Some(SECRET));
    assert_eq!(known.sessions.len(), 1);
    let pool = world.libvirt.daemon(&host("kvm1"), |daemon| daemon.pools["san"].xml.clone()).unwrap();
    assert!(pool.contains("type='iscsi'") && !pool.contains(SECRET), "{pool}");
    let guest =
        world.libvirt.daemon(&host("kvm1"), |daemon| daemon.domains.values().next().unwrap().xml.clone());
    assert!(guest.unwrap().contains("<source dev='/dev/disk/by-id/wwn-0x6001405"));
}

#[test]
fn a_name_that_a_hypervisor_has_is_kept_and_let_in() {
    const NAME: &str = "iqn.1993-08.org.debian:01:43465b67751";
    let file = file(CHAP);
    let world = World::bare(&file);
    world.hosts[&host("kvm1")].files(|files| {
        files.put(&path(FILE), format!("## a comment\nInitiatorName={NAME}\n"), 0o600);
    });
    run(&world, &file);
    let text = world.hosts[&host("kvm1")].files(|files| files.text(&path(FILE))).unwrap();
    assert!(text.contains(NAME) && text.starts_with("## a comment"), "{text}");
    let servers = world.tgt.lock().unwrap();
    assert!(servers.kernels[&host("store1")].sessions[IQN].contains(NAME));
}

#[test]
fn the_secret_reaches_a_record_by_standard_input_and_nothing_shows_it() {
    let file = file(CHAP);
    let plan = plan_for(&World::bare(&file), &file);
    for text in [format!("{plan:?}"), serde_json::to_string(&plan).unwrap(), script::render(&plan, &file)] {
        assert!(!text.contains("canary"), "{text}");
    }
}

#[test]
fn another_secret_waits_until_nobody_is_logged_in_with_the_old_one() {
    let world = applied(&file(CHAP));
    let other = file_with(LUN, CHAP, "canary-4712-canary");
    refused(&world, &other, "host kvm1 is logged in with another CHAP user or secret");
    refused(&world, &other, "host kvm2 is logged in with another CHAP user or secret");
    assert_eq!(plan_for(&world, &other).steps().count(), 0, "nothing is changed");
    log_out(&world);
    insta::assert_snapshot!(show(&plan_for(&world, &other), "kvm1"));
    run(&world, &other);
    assert_eq!(known(&world).unwrap().records[PORTAL].secret.as_deref(), Some("canary-4712-canary"));
}

#[test]
fn what_was_changed_by_hand_is_set_right() {
    let file = file(CHAP);
    let world = applied(&file);
    by_hand(&world, |known| {
        known.sessions.clear();
        let record = known.records.get_mut(PORTAL).unwrap();
        (record.startup, record.timeout) = ("manual".to_owned(), "5".to_owned());
    });
    world.libvirt.daemon(&host("kvm1"), |daemon| daemon.pools.get_mut("san").unwrap().active = false);
    insta::assert_snapshot!(show(&plan_for(&world, &file), "kvm1"));
    run(&world, &file);
    assert_eq!(known(&world).unwrap().sessions.len(), 1);
}

#[test]
fn a_session_whose_connection_is_lost_is_left_to_come_back() {
    let file = file(CHAP);
    let world = applied(&file);
    by_hand(&world, |known| drop(known.sessions.insert(PORTAL.to_owned(), "FAILED".to_owned())));
    by_hand(&world, |known| known.luns.clear());
    let left = plan_for(&world, &file);
    assert!(left.is_empty(), "{}", show(&left, "kvm1"));
}

#[test]
fn a_lun_that_is_new_and_one_that_grew_have_hypervisors_look_anew() {
    let world = applied(&file(CHAP));
    let more = "{ name: web1, size: 1GiB, backing: /data/luns/web1.img }, { name: web2, size: 2GiB, backing: /data/luns/web2.img }";
    let grown = file_with(more, CHAP, SECRET);
    let shown = show(&plan_for(&world, &grown), "kvm1");
    assert!(shown.contains("session.san.luns.web2: absent -> /dev/disk/by-id/wwn-0x6001405"), "{shown}");
    assert!(
        shown.contains("[mount, session] kvm1: look at the LUNs of target") && !shown.contains("log in"),
        "{shown}"
    );
    assert!(shown.contains("pool.san.volumes: read before -> as the target has them"), "{shown}");
    run(&world, &grown);
    by_hand(&world, |known| known.luns.get_mut(&2).unwrap().0 = 1 << 30);
    let shown = show(&plan_for(&world, &grown), "kvm1");
    assert!(shown.contains("web2.size: 1073741824 bytes -> 2147483648 bytes"), "{shown}");
    run(&world, &grown);
}

#[test]
fn several_portals_are_joined_by_multipath_and_one_that_goes_is_left() {
    let two = file(", portals: [10.77.0.11, 10.88.0.11]");
    let world = applied(&two);
    assert_eq!(known(&world).unwrap().sessions.len(), 2);
    assert_eq!(known(&world).unwrap().records[PORTAL].timeout, "15");
    let packages = &world.debians[&host("kvm1")].lock().unwrap().packages.clone();
    assert!(packages.contains("multipath-tools"));
    let one = file("");
    insta::assert_snapshot!(show(&plan_for(&world, &one), "kvm1"));
}

#[test]
fn what_others_made_is_refused_and_nothing_is_planned_for_that_host() {
    let file = file(CHAP);
    let world = World::bare(&file);
    by_hand(&world, |known| {
        known.sessions.insert(PORTAL.to_owned(), "LOGGED_IN".to_owned());
    });
    refused(
        &world,
        &file,
        "its initiator knows target iqn.2026-01.lab.stor:san already, and stor did not make that",
    );
    let shown = show(&plan_for(&world, &file), "kvm1");
    assert!(shown.lines().all(|line| !line.starts_with('[')), "{shown}");

    let world = World::bare(&file);
    world.tgt.lock().unwrap().initiators.entry(host("kvm1")).or_default().no_transport = true;
    refused(&world, &file, "its kernel has no iSCSI initiator (iscsi_tcp)");
    refused(&world, &file, "write access: direct");
}

#[test]
fn another_lun_behind_the_same_number_is_refused() {
    let file = file(CHAP);
    let world = applied(&file);
    by_hand(&world, |known| known.luns.get_mut(&1).unwrap().1 = "somebody-elses".to_owned());
    refused(&world, &file, "LUN 1 (web1, sd01) has serial somebody-elses");
}

#[test]
fn a_pool_that_is_active_over_another_user_is_not_stopped_under_guests() {
    let world = applied(&file(CHAP));
    let other = file_with(LUN, ", chap: { user: other, secret: { env: STOR_CHAP } }", SECRET);
    refused(&world, &other, "host kvm1 is logged in with another CHAP user or secret");
    log_out(&world);
    refused(&world, &other, "pool.san.source.auth cannot change while the pool is active");
}

#[test]
fn a_disk_that_multipath_took_is_told_where_guests_use_the_disk_beside_it() {
    let file = file(CHAP);
    let world = applied(&file);
    by_hand(&world, |known| drop(known.maps.insert(1, "dm-0".to_owned())));
    let plan = plan_for(&world, &file);
    let message =
        "host kvm1: multipath has sd01 (LUN web1) in its map dm-0, and guests use the disk beside it";
    assert!(plan.findings.iter().any(|finding| finding.message == message), "{:#?}", plan.findings);
}

#[test]
fn destroy_logs_out_after_the_pool_and_leaves_nothing_of_its_own() {
    let file = file(CHAP);
    let world = applied(&file);
    let destroy = || plan_destroy(&file, &world.observe(&queries(&file)), &DeleteData::default());
    insta::assert_snapshot!(show(&destroy(), "kvm1"));
    carry_out(&world, &destroy());
    assert_eq!(known(&world), None);
    assert!(world.libvirt.daemon(&host("kvm1"), |daemon| daemon.pools.is_empty()).unwrap());
}

#[test]
fn a_guest_that_uses_a_lun_by_any_of_its_paths_keeps_the_session() {
    let file = file(CHAP);
    let world = applied(&file);
    for path in [
        format!("/dev/disk/by-path/ip-10.77.0.11:3260-iscsi-{IQN}-lun-1"),
        known(&world).unwrap().luns[&1].1.clone(),
    ] {
        let path = match path.strip_prefix("/dev") {
            Some(_) => path,
            None => format!("/dev/disk/by-id/wwn-0x{}", stor::storage::iscsi::commands::lio::wwid(&path)),
        };
        let xml = format!(
            "<domain type='qemu'><name>stranger</name><uuid>11111111-2222-4333-8444-555555555555</uuid><memory>1</memory><os><type>hvm</type></os>\
             <devices><disk type='block' device='disk'><source dev='{path}'/><target dev='vda'/></disk></devices></domain>"
        );
        world.libvirt.put(&host("kvm2"), &xml, DomainState::ShutOff).unwrap();
        let plan = plan_destroy(&file, &world.observe(&queries(&file)), &DeleteData::default());
        let shown = show(&plan, "kvm1");
        assert!(shown.contains("guests use it: stranger on kvm2"), "{path}: {shown}");
    }
}

/// What a host shows, and when it shows nothing, what open-iscsi keeps, and the pool: on Debian 13 and on Debian 12.
const RELEASES: [[&str; 4]; 2] = [
    [
        include_str!("../fixtures/outputs/sessions/debian13-linux6.12-one-portal.txt"),
        include_str!("../fixtures/outputs/sessions/debian13-linux6.12-nothing.txt"),
        include_str!("../fixtures/outputs/iscsiadm/debian13-open-iscsi2.1.11-stor-record.txt"),
        include_str!("../fixtures/outputs/virsh/debian13-libvirt11.3-stor-pool-iscsi.xml"),
    ],
    [
        include_str!("../fixtures/outputs/sessions/debian12-linux6.1-one-portal.txt"),
        include_str!("../fixtures/outputs/sessions/debian12-linux6.1-nothing.txt"),
        include_str!("../fixtures/outputs/iscsiadm/debian12-open-iscsi2.1.8-stor-record.txt"),
        include_str!("../fixtures/outputs/virsh/debian12-libvirt9.0-stor-pool-iscsi.xml"),
    ],
];

#[test]
fn sessions_and_records_of_a_real_host_are_read() {
    let portal = Portal { address: "10.78.0.11".to_owned(), port: 3260 };
    let record = Record {
        startup: "automatic".to_owned(),
        authmethod: "CHAP".to_owned(),
        user: Some("stor".to_owned()),
        replacement_timeout: "120".to_owned(),
    };
    for [shown, nothing, records, _] in RELEASES {
        let seen = sessions::read(shown).unwrap();
        assert!(seen.transport && seen.sessions[&portal].is_logged_in());
        let disk = &seen.sessions[&portal].disks[&1];
        assert_eq!((disk.name.as_str(), disk.size), ("sdb", 64 << 20));
        assert_eq!(disk.serial.as_deref(), Some("96c741bac199507b9a758bcf3bcd9fe3"));
        assert_eq!(seen.paths.values().collect::<Vec<_>>(), ["sda", "sdb"]);
        let none = sessions::read(nothing).unwrap();
        assert!(none.transport && none.sessions.is_empty());
        assert_eq!(sessions::read_records(records), BTreeMap::from([(portal.clone(), record.clone())]));
    }
    for (joined, ways) in [
        (include_str!("../fixtures/outputs/sessions/debian12-linux6.1-multipath-ways-2.txt"), 2),
        (include_str!("../fixtures/outputs/sessions/debian13-linux6.12-multipath-ways-1.txt"), 1),
        (include_str!("../fixtures/outputs/sessions/debian13-linux6.12-multipath-ways-2.txt"), 2),
    ] {
        let joined = sessions::read(joined).unwrap();
        let ways_up = joined.sessions.values().filter(|session| session.is_logged_in()).count();
        let holders: Vec<_> = joined.disks().flat_map(|(_, disk)| &disk.holders).collect();
        assert!(
            holders.iter().all(|holder| holder.kind == "mpath" && holder.size == 64 << 20),
            "{holders:?}"
        );
        assert_eq!((ways_up, holders.len()), (ways, 2 * ways));
        assert_eq!(joined.sizes(1), BTreeSet::from([64 << 20]));
    }
    assert_eq!(sessions::read("lun 1 sda 12 x\n"), Err("lun 1 sda 12 x".to_owned()), "of no session");
    assert!(sessions::read("sh: 1: nonsense\n").is_err());
}

#[test]
fn a_pool_of_a_real_host_is_what_stor_wrote() {
    let login = pool_xml::ChapLogin { user: "stor", usage: "stor-vm-iscsi-san" };
    for ([.., shown], target) in RELEASES.into_iter().zip([IQN, "iqn.2026-01.org.example:san"]) {
        let source = pool_xml::IscsiSource { address: "10.78.0.11", port: 3260, target, login: Some(login) };
        let wanted = pool_xml::parse(&pool_xml::iscsi_pool(&"san".parse().unwrap(), source)).unwrap();
        assert_eq!(wanted.differences(&pool_xml::parse(shown).unwrap()), vec![]);
    }
    for text in [
        include_str!("../fixtures/outputs/virsh/debian13-libvirt11.3-pool-capabilities-iscsi.xml"),
        include_str!("../fixtures/outputs/virsh/debian12-libvirt9.0-pool-capabilities-iscsi.xml"),
    ] {
        let answer = Answer { status: Some(0), stdout: text.to_owned(), stderr: String::new() };
        assert_eq!(pools::supports(&answer, "iscsi"), Some(true));
        assert_eq!(pools::supports(&answer, "iscsi-direct"), Some(false));
        assert_eq!(pools::supports(&answer, "unheard-of"), None);
    }
}
