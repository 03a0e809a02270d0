//! Verify on a fake fleet: every failure names its host and its cause, and nothing is left or written elsewhere.

#[path = "verify/world.rs"]
mod world;

use stor::model::{Cancel, FindingCode};
use stor::storage::probe::NoClient;
use stor::verify::{CheckKind, Matrix, Verdict};
use world::{File, Seat, World, host};

fn verdict(matrix: &Matrix, on: &str, kind: CheckKind) -> Verdict {
    let cell = matrix.cells.iter().find(|cell| cell.host == host(on)).unwrap();
    cell.checks.iter().find(|check| check.kind == kind).unwrap().verdict
}

fn codes(matrix: &Matrix) -> Vec<(String, FindingCode)> {
    let name =
        |finding: &stor::model::Finding| finding.host.as_ref().map_or(String::new(), ToString::to_string);
    let mut all: Vec<_> =
        matrix.findings().into_iter().map(|finding| (name(finding), finding.code)).collect();
    all.dedup();
    all
}

#[test]
fn a_sound_cluster_passes_every_check_and_keeps_no_probe_file() {
    let world = World::new();
    let matrix = world.verify();
    for cell in &matrix.cells {
        for check in &cell.checks {
            assert_eq!(check.verdict, Verdict::Pass, "{} {}: {}", cell.host, check.kind, check.seen);
        }
        assert_eq!(cell.checks.iter().map(|check| check.kind).collect::<Vec<_>>(), CheckKind::ALL);
    }
    assert_eq!(matrix.cells.len(), 2);
    assert_eq!(matrix.verdict(), Verdict::Pass);
    assert!(matrix.findings().is_empty());
    assert!(world.left().is_empty());
}

/// What is wrong on kvm2, which check of which host fails, and with which code.
type Case = (&'static str, fn(&mut Seat), CheckKind, FindingCode);

const ON_ONE_HOST: [Case; 11] = [
    ("not mounted", |s| s.mounted = false, CheckKind::Mounted, FindingCode::NotMounted),
    ("another volume", |s| s.source = "10.77.0.11:/other", CheckKind::Mounted, FindingCode::WrongMount),
    ("another file system", |s| s.fs_type = "ext4", CheckKind::Mounted, FindingCode::WrongMount),
    ("read-only", |s| s.options = "ro,relatime", CheckKind::Mounted, FindingCode::ReadOnlyMount),
    ("hung", |s| s.hung = true, CheckKind::Mounted, FindingCode::ProbeTimedOut),
    ("stale handle", |s| s.stale_handle = true, CheckKind::Mounted, FindingCode::StaleHandle),
    ("no pool", |s| s.pool = None, CheckKind::Pool, FindingCode::PoolInactive),
    (
        "pool stopped",
        |s| s.pool = Some(("inactive", world::DIRECTORY)),
        CheckKind::Pool,
        FindingCode::PoolInactive,
    ),
    ("pool elsewhere", |s| s.pool = Some(("active", "/tmp")), CheckKind::Pool, FindingCode::PoolWrongPath),
    ("stale reads", |s| s.stale = true, CheckKind::Nonce, FindingCode::NonceNotSeen),
    ("local locks", |s| s.local_locks = true, CheckKind::Lock, FindingCode::LockNotHonoured),
];

#[test]
fn each_fault_of_one_host_fails_there_with_its_cause_and_writes_nowhere_else() {
    for (what, fault, kind, code) in ON_ONE_HOST {
        let world = World::new().seat("kvm2", fault);
        let matrix = world.verify();
        assert_eq!(verdict(&matrix, "kvm2", kind), Verdict::Fail, "{what}");
        let found = codes(&matrix);
        assert!(found.contains(&("kvm2".to_owned(), code)), "{what}: {found:?}");
        assert_eq!(verdict(&matrix, "kvm1", CheckKind::Mounted), Verdict::Pass, "{what}");
        assert_eq!(verdict(&matrix, "kvm1", CheckKind::Identity), Verdict::Pass, "{what}");
        assert!(world.left().is_empty(), "{what}: {:?}", world.left());
        assert!(world.strayed.lock().unwrap().is_empty(), "{what}");
    }
}

#[test]
fn a_fault_has_one_finding_and_what_follows_from_it_none() {
    for (what, fault, _, code) in &ON_ONE_HOST[..4] {
        let matrix = World::new().seat("kvm2", fault).verify();
        assert_eq!(codes(&matrix), [("kvm2".to_owned(), *code)], "{what}");
    }
}

#[test]
fn another_file_of_the_same_name_differs_from_what_the_servers_hold() {
    // The mount tables show a server of the volume on both hosts; only the inode tells.
    let other = File { inode: 7, ..File::default() };
    let mut two = World::new()
        .volume("10.77.0.12:/gfs", |files| drop(files.insert("web1.img".to_owned(), other)))
        .seat("kvm2", |seat| seat.source = "10.77.0.12:/gfs");
    add_server(&mut two);
    let matrix = two.verify();
    assert_eq!(verdict(&matrix, "kvm1", CheckKind::Identity), Verdict::Pass, "libgfapi agrees with kvm1");
    assert_eq!(verdict(&matrix, "kvm2", CheckKind::Identity), Verdict::Fail);
    assert_eq!(verdict(&matrix, "kvm2", CheckKind::Nonce), Verdict::Fail);
    let finding =
        matrix.findings().into_iter().find(|f| f.code == FindingCode::ImageIdentityDiffers).unwrap().clone();
    assert_eq!(finding.evidence.len(), 3, "{:?}", finding.evidence);
    // Without the servers' word neither host can be believed.
    two.client = Err(NoClient::Failed { reason: "no answer".to_owned() });
    let matrix = two.verify();
    assert_eq!(verdict(&matrix, "kvm1", CheckKind::Identity), Verdict::Fail);
    assert_eq!(verdict(&matrix, "kvm2", CheckKind::Identity), Verdict::Fail);
    assert!(two.left().is_empty());
}

fn add_server(world: &mut World) {
    use stor::storage::gluster::spec::Brick;
    use stor::storage::spec::StorageSpec;
    let mut store2 = world.cluster.hosts[&host("store1")].clone();
    (store2.id, store2.address) = (host("store2"), "10.77.0.12".to_owned());
    world.cluster.hosts.insert(host("store2"), store2);
    for storage in world.cluster.storage.values_mut() {
        let StorageSpec::Gluster(spec) = storage else { panic!("gluster") };
        let path = spec.bricks[0].path.clone();
        spec.bricks.push(Brick { host: host("store2"), path });
    }
}

#[test]
fn a_missing_image_and_one_in_split_brain_are_named() {
    let world = World::new().volume(world::SOURCE, |files| files.clear());
    assert!(codes(&world.verify()).contains(&("kvm1".to_owned(), FindingCode::ImageMissing)));
    let world =
        World::new().volume(world::SOURCE, |files| files.values_mut().for_each(|file| file.split = true));
    assert!(codes(&world.verify()).contains(&("kvm2".to_owned(), FindingCode::SplitBrain)));
}

#[test]
fn access_is_judged_as_the_user_that_qemu_runs_as() {
    let denied =
        || World::new().volume(world::SOURCE, |files| files.values_mut().for_each(|file| file.denied = true));
    let matrix = denied().verify();
    assert_eq!(verdict(&matrix, "kvm2", CheckKind::Access), Verdict::Pass, "QEMU runs as root");
    let matrix = denied().seat("kvm2", |seat| seat.conf = "dynamic_ownership = 0\n").verify();
    assert_eq!(verdict(&matrix, "kvm2", CheckKind::Access), Verdict::Fail);
    assert_eq!(codes(&matrix), [("kvm2".to_owned(), FindingCode::AccessDenied)]);
    assert!(matrix.findings()[0].message.contains("libvirt-qemu"));
    // libvirt's default: it makes QEMU's user the owner, which was proved on the probe file.
    let matrix = denied().seat("kvm2", |seat| seat.conf = "").verify();
    assert_eq!(verdict(&matrix, "kvm2", CheckKind::Access), Verdict::Pass);
    // Root's images are not to be given away by the user that root becomes on the storage.
    let squashed = |seat: &mut world::Seat| (seat.conf, seat.root_is) = ("", "libvirt-qemu");
    let matrix = denied().seat("kvm2", squashed).verify();
    assert_eq!(codes(&matrix), [("kvm2".to_owned(), FindingCode::AccessDenied)]);
}

#[test]
fn an_unreachable_host_is_unknown_and_never_failed() {
    let mut world = World::new();
    world.down = vec!["kvm2"];
    let matrix = world.verify();
    for kind in CheckKind::ALL {
        assert_eq!(verdict(&matrix, "kvm2", kind), Verdict::Unknown, "{kind}");
    }
    assert_eq!(codes(&matrix), [("kvm2".to_owned(), FindingCode::HostUnobserved)]);
    assert_eq!(verdict(&matrix, "kvm1", CheckKind::Mounted), Verdict::Pass);
    assert_eq!(verdict(&matrix, "kvm1", CheckKind::Lock), Verdict::Unknown);
    assert_eq!(matrix.verdict(), Verdict::Unknown);
    assert!(world.left().is_empty());
}

#[test]
fn a_client_that_cannot_be_used_takes_nothing_from_the_hosts_own_proofs() {
    let mut world = World::new();
    world.client =
        Err(NoClient::NotApplicable { reason: "not installed".to_owned(), remedy: "install it".to_owned() });
    let matrix = world.verify();
    assert_eq!(matrix.verdict(), Verdict::Pass);
    let note = matrix.clients.values().next().unwrap();
    assert_eq!((note.verdict, note.remedy.as_deref()), (Verdict::NotApplicable, Some("install it")));
}

#[test]
fn a_stopped_run_removes_what_it_wrote_and_proves_nothing() {
    let world = World::new();
    let cancel = Cancel::default();
    cancel.cancel();
    let matrix = world.verify_until(&cancel);
    assert!(world.left().is_empty());
    assert_eq!(matrix.verdict(), Verdict::Unknown);
    assert_eq!(verdict(&matrix, "kvm1", CheckKind::Nonce), Verdict::Unknown);
}

#[test]
fn a_storage_without_images_is_proved_too() {
    let mut world = World::new();
    world.cluster.images.clear();
    let matrix = world.verify();
    assert_eq!(matrix.cells.len(), 2);
    assert!(matrix.cells.iter().all(|cell| cell.image.is_none()));
    assert_eq!(verdict(&matrix, "kvm1", CheckKind::Identity), Verdict::NotApplicable);
    assert_eq!(verdict(&matrix, "kvm1", CheckKind::Access), Verdict::Pass);
    assert_eq!(matrix.verdict(), Verdict::Pass);
}

#[test]
fn a_single_hypervisor_has_nobody_to_compare_with() {
    let mut world = World::new();
    world.seats.remove("kvm2");
    let matrix = world.verify();
    assert_eq!(verdict(&matrix, "kvm1", CheckKind::Lock), Verdict::NotApplicable);
    assert_eq!(verdict(&matrix, "kvm1", CheckKind::Nonce), Verdict::Pass, "libgfapi read it");
    assert_eq!(matrix.verdict(), Verdict::Pass);
}
