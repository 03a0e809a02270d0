//! Starting: never a second writer, never over a directory on which nothing is mounted.

use stor::libvirt::{DomainState, PauseReason};
use stor::migrate::run::Mode;
use stor::migrate::start::{StartError, Started, start};

use crate::world::{FileAt, IMAGE, MOUNT, QCOW2, World, host, web1, xml};

fn stopped() -> World {
    let world = World::new();
    world.connector.put(&host("kvm1"), &xml(&world.cluster), DomainState::ShutOff).unwrap();
    world
}

fn run(world: &World) -> Result<Started, StartError> {
    start(world.site(), &web1(), &world.cancel)
}

#[test]
fn a_guest_starts_where_it_is_defined_once() {
    let world = stopped();
    assert_eq!(run(&world).unwrap(), Started::Now(host("kvm1")));
    assert_eq!(world.state("kvm1"), Some(DomainState::Running));
    assert_eq!(run(&world).unwrap(), Started::Already(host("kvm1")));
}

#[test]
fn everything_that_could_make_a_second_writer_or_a_wrong_image_stops_the_start() {
    type Spoil = fn(&World);
    let table: [(&str, Spoil, u8, &str); 13] = [
        (
            "a hypervisor is down",
            |w| w.connector.daemon(&host("kvm3"), |d| d.reachable = false).unwrap(),
            5,
            "it may run on a hypervisor that could not be asked",
        ),
        (
            "a migration holds it elsewhere",
            |w| {
                let state = DomainState::Paused(PauseReason::Migration);
                w.connector.put(&host("kvm2"), &xml(&w.cluster), state).unwrap();
            },
            10,
            "a migration holds it on kvm2",
        ),
        (
            "it is defined twice",
            |w| w.connector.put(&host("kvm2"), &xml(&w.cluster), DomainState::ShutOff).unwrap(),
            8,
            "it is defined on kvm1 and kvm2",
        ),
        (
            "nothing is mounted",
            |w| w.shell("kvm1", |s| s.mount = Some(("/", "/dev/vda1", "ext4", "rw"))),
            8,
            "storage gfs is not mounted",
        ),
        (
            "another volume is mounted",
            |w| w.shell("kvm1", |s| s.mount = Some((MOUNT, "10.77.0.11:/other", "fuse.glusterfs", "rw"))),
            8,
            "is not storage gfs: fuse.glusterfs from 10.77.0.11:/other",
        ),
        (
            "another file system is mounted",
            |w| w.shell("kvm1", |s| s.mount = Some((MOUNT, "admin@elsewhere:/", "fuse.sshfs", "rw"))),
            8,
            "is not storage gfs",
        ),
        (
            "its image is qcow2",
            |w| w.shell("kvm1", |s| s.header = QCOW2),
            8,
            "is qcow2, but its XML says raw",
        ),
        (
            "its image is raw",
            |w| {
                w.rewrite(|xml| xml.replace("name='qemu' type='raw'", "name='qemu' type='qcow2'"));
                w.shell("kvm1", |s| s.chain = Ok("[]".to_owned()));
            },
            8,
            "is raw, but its XML says qcow2",
        ),
        (
            "its base is missing",
            |w| {
                w.rewrite(|xml| xml.replace("name='qemu' type='raw'", "name='qemu' type='qcow2'"));
                let said = "qemu-img: Could not open '/b.img': No such file or directory";
                w.shell("kvm1", |s| (s.header, s.chain) = (QCOW2, Err(said)));
            },
            8,
            "'/b.img': No such file or directory",
        ),
        ("the mount hangs", |w| w.shell("kvm1", |s| s.hung = true), 8, "did not finish in time"),
        ("the image is missing", |w| w.shell("kvm1", |s| s.image = None), 8, "web1.img is not there"),
        ("its kernel is missing", |w| w.shell("kvm1", |s| s.kernel = false), 8, "which it boots from"),
        (
            "nobody has it",
            |w| w.connector.daemon(&host("kvm1"), |d| d.domains.clear()).unwrap(),
            8,
            "no hypervisor has",
        ),
    ];
    for (name, spoil, code, words) in table {
        let world = stopped();
        spoil(&world);
        let error = run(&world).unwrap_err();
        assert_eq!(error.exit_code(), code, "{name}: {error}");
        assert!(error.to_string().contains(words), "{name}: {error}");
        let started = world.connector.calls().iter().any(|call| call.contains("start guest"));
        assert!(!started, "{name}");
    }
}

#[test]
fn a_start_that_broke_off_is_judged_by_what_the_host_shows() {
    let world = stopped();
    world.connector.inject(Some(std::sync::Arc::new(|_, action, moment| {
        action == "start guest web1" && moment == stor::libvirt::fake::Moment::After
    })));
    assert_eq!(run(&world).unwrap(), Started::Now(host("kvm1")));
}

#[test]
fn a_guest_active_on_two_hosts_is_reported_and_left_alone() {
    let world = World::new();
    world.connector.put(&host("kvm2"), &xml(&world.cluster), DomainState::Running).unwrap();
    assert_eq!(run(&world).unwrap_err().exit_code(), 10);
}

#[test]
fn a_guest_that_runs_is_left_alone_even_when_a_hypervisor_is_down() {
    let world = World::new();
    world.connector.daemon(&host("kvm3"), |daemon| daemon.reachable = false);
    assert_eq!(run(&world).unwrap(), Started::Already(host("kvm1")));
}

/// Another domain with a disk of this XML, active on a host.
fn other(world: &World, on: &str, name: &str, disk: &str) {
    let xml = format!("<domain type='kvm'><name>{name}</name><devices>{disk}</devices></domain>");
    world.connector.put(&host(on), &xml, DomainState::Running).unwrap();
}

fn disk(source: &str, more: &str) -> String {
    format!("<disk device='disk' {source}<target dev='vdb'/>{more}</disk>")
}

#[test]
fn a_guest_whose_image_another_domain_uses_by_whatever_name_is_not_started() {
    let same = format!("type='file'><source file='{IMAGE}'/>");
    let url =
        "type='network'><source protocol='gluster' name='gfs/web1.img'><host name='10.9.9.9'/></source>";
    let below = format!(
        "type='file'><source file='/local/top.qcow2'/><backingStore type='file'><source file='{IMAGE}'/></backingStore>"
    );
    // On this host the path of the pool leads to the same inode, too.
    let linked = "type='file'><source file='/var/lib/libvirt/images/gfs/hard-link.img'/>";
    let copied = format!(
        "type='file'><source file='/local/x.img'/><mirror type='file'><source file='{IMAGE}'/></mirror>"
    );
    for (on, source) in [
        ("kvm2", same.as_str()),
        ("kvm3", url),
        ("kvm2", &below),
        ("kvm1", linked),
        ("kvm2", linked),
        ("kvm3", &copied),
    ] {
        let world = stopped();
        other(&world, on, "copy", &disk(source, ""));
        let error = run(&world).unwrap_err();
        assert_eq!(error.exit_code(), 8, "{source}: {error}");
        let words = error.to_string();
        assert!(words.contains("domain copy") && words.contains(on) && words.contains(IMAGE), "{words}");
        assert_ne!(world.state("kvm1"), Some(DomainState::Running), "{source}");
        // Once it is off, nothing speaks against the start.
        world
            .connector
            .daemon(&host(on), |d| d.domains.get_mut("copy").unwrap().state = DomainState::ShutOff);
        assert_eq!(run(&world).unwrap(), Started::Now(host("kvm1")), "{source}");
    }
}

#[test]
fn a_guest_whose_base_image_another_domain_writes_is_not_started() {
    let base = format!("{MOUNT}/base.img");
    let world = stopped();
    world.rewrite(|xml| xml.replace("name='qemu' type='raw'", "name='qemu' type='qcow2'"));
    let chain = serde_json::json!([
        {"filename": IMAGE, "format": "qcow2"},
        {"filename": base, "format": "raw"},
    ]);
    world.shell("kvm1", |s| (s.header, s.chain) = (QCOW2, Ok(chain.to_string())));
    for name in ["kvm1", "kvm2"] {
        let mount = Some((MOUNT, "10.77.0.11:/gfs", "fuse.glusterfs", "rw,relatime"));
        let file = FileAt { mount, stat: Some((4711, 1 << 20)) };
        world.place(name, "/var/lib/libvirt/images/gfs/base.img", file);
    }
    other(&world, "kvm2", "builder", &disk(&format!("type='file'><source file='{base}'/>"), ""));
    let error = run(&world).unwrap_err();
    assert!(matches!(error, StartError::InUse { .. }), "{error:?}");
}

#[test]
fn disks_that_both_only_read_or_both_share_and_other_disks_are_no_obstacle() {
    let world = stopped();
    other(&world, "kvm2", "theirs", &disk("type='file'><source file='/local/x.img'/>", ""));
    other(&world, "kvm3", "empty", "<disk type='file' device='cdrom'><target dev='sda'/></disk>");
    world.connector.daemon(&host("kvm2"), |d| d.domains.get_mut("theirs").unwrap().xml.clone());
    world.shell("kvm2", |s| s.image = Some((77, 1)));
    world.shell("kvm2", |s| s.mount = Some(("/", "/dev/vda1", "ext4", "rw")));
    assert_eq!(run(&world).unwrap(), Started::Now(host("kvm1")));

    for (more, code) in [("<shareable/>", 0), ("", 8), ("<readonly/>", 8)] {
        let world = World::new();
        let shared = xml(&world.cluster).replace("<target dev='vda'", "<shareable/><target dev='vda'");
        assert!(shared.contains("<shareable/>"));
        world.connector.put(&host("kvm1"), &shared, DomainState::ShutOff).unwrap();
        other(&world, "kvm2", "peer", &disk(&format!("type='file'><source file='{IMAGE}'/>"), more));
        assert_eq!(run(&world).err().map_or(0, |error| error.exit_code()), code, "{more}");
    }
}

#[test]
fn a_disk_in_use_that_cannot_be_looked_at_stops_the_start() {
    let world = stopped();
    other(&world, "kvm2", "theirs", &disk("type='volume'><source pool='none' volume='x'/>", ""));
    let error = run(&world).unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
    assert!(error.to_string().contains("volume x of pool none"), "{error}");
}

#[test]
fn a_domain_of_the_guests_name_with_another_uuid_is_never_taken_for_it() {
    let world = World::new();
    let stranger = "11111111-2222-4333-8444-555555555555";
    let xml = xml(&world.cluster)
        .replace(&world.cluster.guest_uuid(&web1()), stranger)
        .replace(IMAGE, "/local/y.img");
    world.connector.daemon(&host("kvm1"), |d| d.domains.clear());
    world.connector.put(&host("kvm2"), &xml, DomainState::Running).unwrap();
    let error = run(&world).unwrap_err();
    assert_eq!(error.exit_code(), 8);
    assert!(error.to_string().contains(stranger) && error.hint().unwrap().contains("<uuid>"), "{error}");
    for to in ["kvm1", "kvm3"] {
        let outcome = world.migrate_to(to, Mode::Move);
        assert_eq!(outcome.exit_code(), 8, "{outcome:?}");
        assert_eq!(outcome.findings[0].code, stor::model::FindingCode::NameClash);
    }
    assert_eq!(world.connector.requests(), []);
}

#[test]
fn a_guest_that_libvirt_calls_otherwise_is_neither_started_nor_moved() {
    let world = World::new();
    let renamed = xml(&world.cluster).replace("<name>web1<", "<name>web9<");
    world.connector.daemon(&host("kvm1"), |d| d.domains.clear());
    world.connector.put(&host("kvm1"), &renamed, DomainState::Running).unwrap();
    assert!(run(&world).unwrap_err().to_string().contains("it is called web9 on kvm1"));
    assert_eq!(world.migrate().exit_code(), 8);
}
