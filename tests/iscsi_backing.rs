//! What is planned for block devices and logical volumes behind LUNs, and for the program that offers them: a fleet in memory whose
//! devices a test changes by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use stor::execute::execute;
use stor::model::{Cancel, OwnedKind, Record};
use stor::plan::{DeleteData, Plan, plan, plan_destroy, queries};
use stor::spec::Cluster;
use support::block::{Device, Lvm};
use support::tgt::Servers;
use support::{World, cluster, host, path, show};

const IQN: &str = "iqn.2026-01.lab.stor:san";
const GIB: u64 = 1 << 30;
const DEVICE: &str = "{ name: web1, size: 2GiB, device: /dev/vdb }";
const ADOPTED: &str = "{ name: web1, size: 2GiB, device: /dev/vdb, adopt: /dev/vdb }";
const VOLUME: &str = "{ name: web1, size: 1GiB, volume: vg0/web1 }";
const FILE: &str = "{ name: web1, size: 1GiB, backing: /data/luns/web1.img }";
const HOSTS: &str = "version: 1
name: homelab
hosts:
  store1: { address: 10.77.0.11 }
  kvm1: { address: 10.77.0.21, hypervisor: true }
  kvm2: { address: 10.77.0.22, hypervisor: true }
";
const PROGRAMS: [&str; 2] = ["lio", "tgt"];

fn file(provider: &str, luns: &str) -> Cluster {
    cluster(&format!(
        "{HOSTS}storage:\n  san:\n    iscsi: {{ server: store1, iqn: \"{IQN}\", provider: {provider}, access: direct, luns: [{luns}] }}\n"
    ))
}

fn servers(world: &World, change: impl FnOnce(&mut Servers)) {
    change(&mut world.tgt.lock().unwrap());
}

fn device(world: &World, path: &str, device: Device) {
    servers(world, |servers| drop(servers.devices.insert((host("store1"), path.to_owned()), device)));
}

fn disk() -> Device {
    Device { serial: Some("QM00001".to_owned()), ..Device::disk("254:16", 2 * GIB) }
}

/// A world with an empty disk and a volume group of 3 GiB.
fn world(cluster: &Cluster) -> World {
    let world = World::bare(cluster);
    device(&world, "/dev/vdb", disk());
    servers(&world, |servers| {
        let lvm = Lvm { groups: [("vg0".to_owned(), 3 * GIB)].into(), ..Lvm::default() };
        servers.lvm.insert(host("store1"), lvm);
    });
    world
}

fn plan_for(world: &World, file: &Cluster) -> Plan {
    plan(file, &world.observe(&queries(file)))
}

fn run(world: &World, file: &Cluster) {
    carry_out(world, &plan_for(world, file));
    let left = plan_for(world, file);
    assert!(left.is_empty(), "{}", show(&left));
}

fn carry_out(world: &World, plan: &Plan) {
    assert!(plan.blocked.is_empty(), "{}", show(plan));
    let journal = execute(plan, &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    assert!(journal.is_complete(), "{:#?}", journal.entries);
}

fn applied(provider: &str, luns: &str) -> World {
    let file = file(provider, luns);
    let world = world(&file);
    run(&world, &file);
    world
}

fn owns(world: &World, kind: OwnedKind, name: &str) -> bool {
    let mut text = None;
    let record = path("/var/lib/stor/homelab.json");
    world.hosts[&host("store1")].files(|files| text = files.text(&record));
    text.is_some_and(|text| serde_json::from_str::<Record>(&text).unwrap().owns(kind, name))
}

#[track_caller]
fn refused(world: &World, file: &Cluster, reason: &str) {
    let shown = show(&plan_for(world, file));
    assert!(shown.starts_with("BLOCKED") && shown.contains(reason), "{reason}:\n{shown}");
}

/// The storage's part of a plan on the server.
fn show(plan: &Plan) -> String {
    show::plan(plan, &["store1"])
}

#[test]
fn a_device_that_nothing_uses_is_offered_as_it_is() {
    let lio = file("lio", DEVICE);
    insta::assert_snapshot!("device_by_the_kernel", show(&plan_for(&world(&lio), &lio)));
    let tgt = file("tgt", DEVICE);
    insta::assert_snapshot!("device_by_tgt", show(&plan_for(&world(&tgt), &tgt)));
    for provider in PROGRAMS {
        let world = applied(provider, DEVICE);
        assert!(owns(&world, OwnedKind::BackingDevice, "/dev/vdb"));
    }
}

#[test]
fn a_device_that_anything_else_uses_is_refused() {
    let built = |path: &str, kind: &str| (path.to_owned(), "253:9".to_owned(), kind.to_owned());
    let table: [(&str, Device); 8] = [
        ("/dev/vdb is mounted: /srv", Device { mounted: Some("/srv".to_owned()), ..disk() }),
        ("/dev/vdb is mounted: [SWAP]", Device { mounted: Some("[SWAP]".to_owned()), ..disk() }),
        ("these are built on it: /dev/md0", Device { below: vec![built("/dev/md0", "raid1")], ..disk() }),
        (
            "these are built on it: /dev/mapper/x",
            Device { below: vec![built("/dev/mapper/x", "crypt")], ..disk() },
        ),
        ("another program has it for itself", Device { claimed: true, ..disk() }),
        ("/dev/vdb cannot be written to", Device { read_only: true, ..disk() }),
        ("/dev/vdb is too small: it has 1GiB, the file says 2GiB", Device { size: GIB, ..disk() }),
        ("/dev/vdb has 3GiB, the file says 2GiB: a LUN never shrinks", Device { size: 3 * GIB, ..disk() }),
    ];
    for provider in PROGRAMS {
        // What uses a device counts even where the file lets it carry data.
        for luns in [DEVICE, ADOPTED] {
            let file = file(provider, luns);
            let world = world(&file);
            for (reason, found) in &table {
                device(&world, "/dev/vdb", found.clone());
                refused(&world, &file, reason);
            }
        }
    }
}

#[test]
fn what_is_no_device_is_refused() {
    let file = file("tgt", DEVICE);
    let world = world(&file);
    servers(&world, |servers| servers.devices.clear());
    refused(&world, &file, "/dev/vdb is not there");
    world.hosts[&host("store1")].files(|files| files.put(&path("/dev/vdb"), "raw 5", 0o600));
    refused(&world, &file, "/dev/vdb is a file, not a block device");
    world.hosts[&host("store1")].files(|files| {
        files.remove(&path("/dev/vdb"));
        files.make_directory(&path("/dev/vdb"));
    });
    refused(&world, &file, "/dev/vdb is a directory, not a block device");
}

#[test]
fn a_device_that_carries_data_is_taken_only_by_name_and_at_the_risk_of_that_data() {
    let carried = Device { signatures: vec!["ext4".to_owned()], ..disk() };
    let plain = file("lio", DEVICE);
    let world = world(&plain);
    device(&world, "/dev/vdb", carried);
    insta::assert_snapshot!("device_with_data", show(&plan_for(&world, &plain)));
    let adopted = file("lio", ADOPTED);
    insta::assert_snapshot!("device_adopted", show(&plan_for(&world, &adopted)));
    run(&world, &adopted);
    // Once taken, the word of consent may go: what is on the device is the guests' from now on.
    assert!(plan_for(&world, &plain).is_empty());
}

#[test]
fn what_guests_write_to_a_device_is_theirs_until_its_lun_goes() {
    for provider in PROGRAMS {
        let world = applied(provider, DEVICE);
        let guests =
            Device { signatures: vec!["gpt".to_owned(), "PMBR".to_owned()], claimed: true, ..disk() };
        device(&world, "/dev/vdb", guests.clone());
        assert!(plan_for(&world, &file(provider, DEVICE)).is_empty());
        let without = cluster(HOSTS);
        carry_out(&world, &plan_for(&world, &without));
        assert!(!owns(&world, OwnedKind::BackingDevice, "/dev/vdb"));
        device(&world, "/dev/vdb", Device { claimed: false, ..guests });
        refused(
            &world,
            &file(provider, DEVICE),
            "/dev/vdb carries data that stor did not put there: PMBR, gpt",
        );
    }
}

#[test]
fn another_device_of_the_same_name_is_refused() {
    let world = applied("lio", DEVICE);
    device(&world, "/dev/vdb", Device { serial: Some("QM00002".to_owned()), ..disk() });
    refused(
        &world,
        &file("lio", DEVICE),
        "another device than the one that was offered: ID_SERIAL=QM00002, not ID_SERIAL=QM00001",
    );
}

#[test]
fn a_device_that_changes_between_plan_and_apply_is_left_alone() {
    let file = file("lio", DEVICE);
    let world = world(&file);
    let plan = plan_for(&world, &file);
    device(&world, "/dev/vdb", Device { claimed: true, ..disk() });
    let journal = execute(&plan, &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    assert!(!journal.is_complete());
    servers(&world, |servers| assert!(servers.kernels.values().all(|kernel| kernel.targets.is_empty())));
}

#[test]
fn two_luns_over_one_file_or_device_are_refused_by_whatever_path() {
    let part = Device {
        kind: "part".to_owned(),
        above: vec![("/dev/vdb".to_owned(), "254:16".to_owned(), "disk".to_owned())],
        ..Device::disk("254:17", 2 * GIB)
    };
    let cases = [
        // Two names of one device, a partition beside its disk, a directory that leads to another.
        (DEVICE, "{ name: web2, size: 2GiB, device: /dev/disk/by-id/x }", disk()),
        (DEVICE, "{ name: web2, size: 2GiB, device: /dev/vdb1 }", part.clone()),
        (FILE, "{ name: web2, size: 1GiB, backing: /link/luns/web1.img }", Device::default()),
    ];
    for provider in PROGRAMS {
        for (first, second, found) in &cases {
            let both = file(provider, &format!("{first}, {second}"));
            let world = applied(provider, first);
            for at in ["/dev/disk/by-id/x", "/dev/vdb1"] {
                device(&world, at, found.clone());
            }
            let content = "raw 1073741824";
            world.hosts[&host("store1")]
                .files(|files| files.put(&path("/link/luns/web1.img"), content, 0o600));
            refused(&world, &both, "two LUNs over one destroy its data");
            let other = format!(
                "  other:\n    iscsi: {{ server: store1, iqn: \"iqn.2026-01.lab.stor:other\", provider: {provider}, access: direct, luns: [{second}] }}\n"
            );
            let text = format!(
                "{HOSTS}storage:\n  san:\n    iscsi: {{ server: store1, iqn: \"{IQN}\", provider: {provider}, access: direct, luns: [{first}] }}\n{other}"
            );
            refused(&world, &cluster(&text), "two LUNs over one destroy its data");
        }
    }
}

#[test]
fn a_device_behind_a_target_of_others_is_refused_whichever_program_offers_it() {
    let carried = Device { claimed: false, ..disk() };
    for provider in PROGRAMS {
        let file = file(provider, DEVICE);
        let world = world(&file);
        device(&world, "/dev/disk/by-id/x", carried.clone());
        servers(&world, |servers| {
            let object =
                serde_json::json!({ "name": "theirs", "plugin": "block", "dev": "/dev/disk/by-id/x" });
            let kernel = servers.kernels.entry(host("store1")).or_default();
            kernel.objects.insert("theirs".to_owned(), object);
        });
        refused(&world, &file, "/dev/vdb is already behind backing object theirs");
    }
}

#[test]
fn a_logical_volume_is_made_grown_and_removed_only_by_name() {
    let first = file("lio", VOLUME);
    let world = world(&first);
    insta::assert_snapshot!("volume_made", show(&plan_for(&world, &first)));
    run(&world, &first);
    assert!(owns(&world, OwnedKind::LogicalVolume, "vg0/web1"));
    servers(&world, |servers| {
        let kernel = servers.kernels.get_mut(&host("store1")).unwrap();
        kernel
            .sessions
            .insert(IQN.to_owned(), ["iqn.2026-01.lab.stor:stor-homelab.guest.web1".to_owned()].into());
    });
    let grown = file("lio", &VOLUME.replace("1GiB", "2GiB"));
    insta::assert_snapshot!("volume_grows_in_use", show(&plan_for(&world, &grown)));
    run(&world, &grown);
    refused(&world, &first, "/dev/vg0/web1 has 2GiB, the file says 1GiB: a LUN never shrinks");
    servers(&world, |servers| servers.kernels.get_mut(&host("store1")).unwrap().sessions.clear());

    let seen = world.observe(&queries(&grown));
    let kept = plan_destroy(&grown, &seen, &DeleteData::default());
    assert!(!show(&kept).contains("logical volume"), "{}", show(&kept));
    let gone = plan_destroy(&grown, &seen, &DeleteData(["san".parse().unwrap()].into()));
    insta::assert_snapshot!("volume_removed", show(&gone));
    carry_out(&world, &gone);
    servers(&world, |servers| assert!(servers.lvm[&host("store1")].volumes.is_empty()));
}

#[test]
fn a_logical_volume_grows_under_tgt_only_while_nobody_uses_the_target() {
    let world = applied("tgt", VOLUME);
    let grown = file("tgt", &VOLUME.replace("1GiB", "2GiB"));
    servers(&world, |servers| {
        let daemon = servers.daemons.get_mut(&host("store1")).unwrap();
        daemon.targets.get_mut(IQN).unwrap().connected.insert("10.77.0.21".to_owned());
    });
    refused(&world, &grown, "LUN web1 cannot grow while 10.77.0.21 uses the target");
    servers(&world, |servers| {
        servers.daemons.get_mut(&host("store1")).unwrap().targets.get_mut(IQN).unwrap().connected.clear();
    });
    carry_out(&world, &plan_for(&world, &grown));
}

#[test]
fn a_volume_that_cannot_be_made_is_refused_when_it_is_planned() {
    let file = |luns: &str| file("tgt", luns);
    let world = world(&file(VOLUME));
    let lvm = |change: &dyn Fn(&mut Lvm)| {
        servers(&world, |servers| change(servers.lvm.get_mut(&host("store1")).unwrap()));
    };
    let two = format!("{VOLUME}, {{ name: web2, size: 2052MiB, volume: vg0/web2 }}");
    refused(&world, &file(&two), "volume group vg0 is too small: 3GiB are free, 3076MiB are needed");
    let odd = VOLUME.replace("1GiB", "1023MiB");
    refused(&world, &file(&odd), "1023MiB is no whole number of the group's extents of 4MiB");
    lvm(&|lvm| _ = lvm.volumes.insert("vg0/web1".to_owned(), (GIB, true)));
    refused(&world, &file(VOLUME), "there is a logical volume vg0/web1 already, and stor did not make it");
    lvm(&|lvm| lvm.groups.clear());
    refused(&world, &file(VOLUME), "there is no volume group vg0");
    servers(&world, |servers| servers.lvm.clear());
    refused(&world, &file(VOLUME), "there is no volume group vg0: LVM is not installed");
}

#[test]
fn a_volume_that_lost_its_device_is_activated() {
    let world = applied("lio", VOLUME);
    servers(&world, |servers| {
        servers.lvm.get_mut(&host("store1")).unwrap().volumes.get_mut("vg0/web1").unwrap().1 = false;
        servers.devices.clear();
    });
    let shown = show(&plan_for(&world, &file("lio", VOLUME)));
    assert!(shown.contains("$ lvchange --activate y -- vg0/web1"), "{shown}");
    run(&world, &file("lio", VOLUME));
}

#[test]
fn auto_takes_the_kernels_target_where_there_is_one_and_stays_with_what_it_took() {
    let auto = file("auto", FILE);
    for (kernel, taken, other) in
        [(true, OwnedKind::LioTarget, "tgt"), (false, OwnedKind::IscsiTarget, "kernel")]
    {
        let world = world(&auto);
        servers(&world, |servers| servers.kernels_have_lio = kernel);
        run(&world, &auto);
        let conf = "/etc/tgt/conf.d/stor-homelab-san.conf";
        assert!(owns(&world, taken, if kernel { IQN } else { conf }));
        servers(&world, |servers| servers.kernels_have_lio = !kernel);
        let shown = show(&plan_for(&world, &auto));
        assert!(!shown.contains(&format!("have {other}")) && !shown.contains("withdraw"), "{shown}");
    }
}

#[test]
fn a_target_passes_from_one_program_to_the_other_in_one_plan() {
    for (before, after, name) in [("tgt", "lio", "tgt_to_lio"), ("lio", "tgt", "lio_to_tgt")] {
        for luns in [FILE, DEVICE, VOLUME] {
            let world = applied(before, luns);
            let other = file(after, luns);
            servers(&world, |servers| servers.kernels_have_lio = true);
            if luns == DEVICE {
                device(&world, "/dev/vdb", Device { signatures: vec!["dos".to_owned()], ..disk() });
                insta::assert_snapshot!(name, show(&plan_for(&world, &other)));
            }
            run(&world, &other);
            let kinds = [OwnedKind::LioTarget, OwnedKind::IscsiTarget];
            let names = [IQN, "/etc/tgt/conf.d/stor-homelab-san.conf"];
            let has = [0, 1].map(|at| owns(&world, kinds[at], names[at]));
            assert_eq!(has, [after == "lio", after == "tgt"]);
        }
    }
}

#[test]
fn a_target_in_use_does_not_pass_to_another_program() {
    let world = applied("tgt", FILE);
    servers(&world, |servers| {
        servers.kernels_have_lio = true;
        let daemon = servers.daemons.get_mut(&host("store1")).unwrap();
        daemon.targets.get_mut(IQN).unwrap().connected.insert("10.77.0.21".to_owned());
    });
    refused(&world, &file("lio", FILE), "10.77.0.21 uses the target, which has to be withdrawn");
    let world = applied("lio", FILE);
    servers(&world, |servers| {
        let kernel = servers.kernels.get_mut(&host("store1")).unwrap();
        kernel
            .sessions
            .insert(IQN.to_owned(), ["iqn.2026-01.lab.stor:stor-homelab.guest.web1".to_owned()].into());
    });
    refused(&world, &file("tgt", FILE), "stor-homelab.guest.web1 uses the target, which has to be withdrawn");
}

#[test]
fn a_port_that_others_keep_is_no_way_to_another_program() {
    // tgtd was there before stor, so that it stays when stor's target goes.
    let tgt = file("tgt", FILE);
    let world = world(&tgt);
    servers(&world, |servers| servers.kernels_have_lio = true);
    world.debians[&host("store1")].lock().unwrap().packages.insert("tgt".to_owned());
    servers(&world, |servers| drop(servers.daemons.insert(host("store1"), Default::default())));
    run(&world, &tgt);
    refused(&world, &file("lio", FILE), "iSCSI's port is in use by tgtd");
    // A target of others keeps the kernel at the port.
    let world = applied("lio", FILE);
    servers(&world, |servers| {
        let object = serde_json::json!({ "name": "theirs", "plugin": "fileio", "dev": "/srv/theirs" });
        servers.kernels.get_mut(&host("store1")).unwrap().objects.insert("theirs".to_owned(), object);
    });
    refused(&world, &file("tgt", FILE), "port 3260 is in use by the kernel (LIO)");
}

#[test]
fn one_host_has_one_program_and_a_kernel_without_a_target_offers_none() {
    let lio = file("lio", FILE);
    let without = world(&lio);
    servers(&without, |servers| servers.kernels_have_lio = false);
    refused(&without, &lio, "the kernel has no target of its own");
    let text = format!(
        "{HOSTS}storage:\n  san:\n    iscsi: {{ server: store1, iqn: \"{IQN}\", provider: lio, access: direct, luns: [{FILE}] }}\n  \
         other:\n    iscsi: {{ server: store1, iqn: \"{IQN}2\", provider: tgt, access: direct, luns: [{}] }}\n",
        "{ name: web2, size: 1GiB, backing: /data/luns/web2.img }"
    );
    let both = cluster(&text);
    refused(&world(&both), &both, "is to be offered by another program than storage");
}

#[test]
fn a_port_that_another_program_has_is_refused() {
    for provider in PROGRAMS {
        let file = file(provider, FILE);
        let world = world(&file);
        servers(&world, |servers| servers.listener = Some("istgt".to_owned()));
        refused(&world, &file, "is in use by istgt");
    }
}

#[test]
fn another_file_behind_a_number_is_set_right_unless_somebody_uses_it() {
    let world = applied("lio", FILE);
    let lio = file("lio", FILE);
    servers(&world, |servers| {
        let kernel = servers.kernels.get_mut(&host("store1")).unwrap();
        kernel.objects.get_mut("stor-homelab.san.web1").unwrap()["dev"] = "/data/luns/other.img".into();
        kernel
            .sessions
            .insert(IQN.to_owned(), ["iqn.2026-01.lab.stor:stor-homelab.guest.web1".to_owned()].into());
    });
    refused(&world, &lio, "cannot change meanwhile: /data/luns/web1.img, not /data/luns/other.img");
    servers(&world, |servers| servers.kernels.get_mut(&host("store1")).unwrap().sessions.clear());
    run(&world, &lio);

    let world = applied("tgt", FILE);
    let tgt = file("tgt", FILE);
    servers(&world, |servers| {
        let target = servers.daemons.get_mut(&host("store1")).unwrap().targets.get_mut(IQN).unwrap();
        target.luns.get_mut(&1).unwrap().0 = "/data/luns/other.img".to_owned();
        target.connected.insert("10.77.0.21".to_owned());
    });
    refused(&world, &tgt, "cannot change meanwhile: /data/luns/web1.img, not /data/luns/other.img");
    servers(&world, |servers| {
        servers.daemons.values_mut().for_each(|daemon| daemon.targets.get_mut(IQN).unwrap().connected.clear())
    });
    run(&world, &tgt);
}
