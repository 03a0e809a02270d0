//! Starting: never a second writer, never over a directory on which nothing is mounted.

use stor::libvirt::{DomainState, PauseReason};
use stor::migrate::start::{StartError, Started, start};

use crate::world::{MOUNT, QCOW2, World, host, web1, xml};

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
