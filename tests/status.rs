//! Status from what hosts answered: facts are shown, and what is unknown is never shown as absent.

#[path = "verify/world.rs"]
#[expect(dead_code, reason = "shared with the tests of verify")]
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use stor::host::fake::{FakeHost, Faults, Files, answer, failure};
use stor::host::{Fleet, Host};
use stor::libvirt::DomainState;
use stor::model::{Answer, Command, FindingCode, GuestId, HostId};
use stor::spec::{GuestDefinition, GuestEntry};
use stor::status::{Status, status};
use stor::storage::gluster::spec::Brick;
use stor::storage::health::HealthState;
use stor::storage::spec::StorageSpec;
use world::{DIRECTORY, World, host};

const HEALTHY: &str = include_str!("../fixtures/outputs/gluster/debian13-glusterfs11.1-health.xml");
const POOLS: &str = include_str!("../fixtures/outputs/virsh/debian13-libvirt11.3-pools.txt");
const STATES: &str = include_str!("../fixtures/outputs/virsh/debian13-libvirt11.3-domstats-state.txt");

/// What gluster says where glusterd does not run.
fn silent() -> Answer {
    failure(1, "Connection failed. Please check if gluster daemon is operational.\n")
}

type Change = fn(&str, &Command) -> Option<Answer>;

/// What a host of a sound cluster answers; web1 runs on kvm1.
fn sound(name: &str, command: &Command) -> Answer {
    let line = command.to_string();
    let mount = format!("450 1 0:91 / {DIRECTORY} rw shared:3 - fuse.glusterfs 10.77.0.11:/gfs rw\n");
    match command.program {
        "true" => answer(0, ""),
        "cat" => answer(0, mount),
        "stat" => answer(0, format!("1073741824 8 512 {DIRECTORY}/web1.img\n")),
        "sh" if line.contains("gluster") => answer(0, HEALTHY),
        "virsh" if line.contains("domstats") => answer(0, if name == "kvm1" { STATES } else { "" }),
        "virsh" => answer(0, POOLS),
        _ => failure(127, "not found"),
    }
}

fn seen(down: &[&str], change: Change) -> Status {
    let mut cluster = World::new().cluster;
    // kvm1 holds a brick too, so there are two to ask.
    for spec in cluster.storage.values_mut() {
        let StorageSpec::Gluster(gluster) = spec else { panic!("gluster") };
        gluster.bricks.push(Brick { host: host("kvm1"), ..gluster.bricks[0].clone() });
    }
    let guest = GuestId::new("web1").unwrap();
    let definition = GuestDefinition::Written { xml: String::new(), images: Vec::new() };
    cluster.guests.insert(guest.clone(), GuestEntry { id: guest, on: host("kvm1"), definition });
    let hosts = cluster.hosts.keys().map(|id: &HostId| {
        let name = id.to_string();
        let machine = move |command: &Command, _: &mut Files| {
            change(&name, command).unwrap_or_else(|| sound(&name, command))
        };
        let fake = FakeHost::new(id.clone(), Box::new(machine), Faults::default());
        if down.contains(&id.as_str()) {
            fake.set_down(Some("No route to host"));
        }
        Arc::new(fake) as Arc<dyn Host>
    });
    let fleet = Fleet::new(hosts.collect::<Vec<_>>(), 8);
    status(&cluster, &fleet)
}

#[test]
fn a_sound_cluster_shows_hosts_storage_images_and_where_guests_run() {
    let status = seen(&[], |_, _| None);
    assert!(status.hosts.iter().all(|host| host.unreachable.is_none()));
    let gfs = &status.storage[0];
    assert_eq!(gfs.health.state, HealthState::Healthy);
    assert!(
        gfs.seats.iter().all(|seat| seat.mounted == Some(true) && seat.pool.as_deref() == Some("active"))
    );
    let size = status.images[0].size.unwrap();
    assert_eq!((size.length.bytes(), size.allocated.bytes()), (1 << 30, 4096));
    assert_eq!(status.guests[0].places, BTreeMap::from([(host("kvm1"), DomainState::Running)]));
    assert_eq!(status.worst(), HealthState::Healthy);
    assert!(
        status.findings.iter().all(|finding| finding.code == FindingCode::HealPending),
        "{:?}",
        status.findings
    );
}

#[test]
fn an_unreachable_hypervisor_is_unknown_everywhere_and_absent_nowhere() {
    let status = seen(&["kvm2"], |_, _| None);
    assert!(status.hosts.iter().any(|seen| seen.host == host("kvm2") && seen.unreachable.is_some()));
    let seat = status.storage[0].seats.iter().find(|seat| seat.host == host("kvm2")).unwrap();
    assert_eq!((seat.mounted, &seat.mount, &seat.pool), (None, &None, &None));
    assert!(seat.unknown.is_some());
    assert!(status.guests[0].unknown.contains_key(&host("kvm2")));
    assert_eq!(status.worst(), HealthState::Unknown);
    assert!(status.findings.iter().any(|finding| finding.code == FindingCode::HostUnobserved));
}

#[test]
fn a_storage_that_no_server_tells_about_is_unknown() {
    let status = seen(&["store1"], |_, command| (command.program == "sh").then(silent));
    assert_eq!(status.storage[0].health.state, HealthState::Unknown);
}

#[test]
fn a_server_whose_daemon_is_down_leaves_it_to_the_next_to_tell() {
    let status = seen(&[], |name, command| (name == "store1" && command.program == "sh").then(silent));
    assert_eq!(status.storage[0].health.state, HealthState::Healthy);
}

#[test]
fn a_host_without_the_mount_is_named_and_its_local_files_do_not_count() {
    let status = seen(&[], |name, command| {
        (name == "kvm1" && command.program == "cat").then(|| answer(0, "1 0 8:1 / / rw - ext4 /dev/vda rw\n"))
    });
    let seat = &status.storage[0].seats[0];
    assert_eq!((seat.mounted, seat.mount.as_deref()), (Some(false), Some("not mounted")));
    assert!(
        status.findings.iter().any(|f| f.code == FindingCode::NotMounted && f.host == Some(host("kvm1")))
    );
    assert!(status.images[0].size.is_some(), "kvm2 has the mount and told");
}

#[test]
fn a_missing_image_and_a_guest_that_is_active_twice_are_told() {
    let status = seen(&[], |_, command| {
        let missing = format!("stat: cannot statx '{DIRECTORY}/web1.img': No such file or directory\n");
        match command.program {
            "stat" => Some(failure(1, missing)),
            "virsh" if command.to_string().contains("domstats") => Some(answer(0, STATES)),
            _ => None,
        }
    });
    assert_eq!(status.images[0].size, None);
    assert_eq!(status.images[0].unknown.as_deref(), Some("No such file or directory"));
    assert_eq!(status.guests[0].active().count(), 2);
    assert!(status.findings.iter().any(|finding| finding.message.contains("active on kvm1 and kvm2")));
}
