//! One world per finding: what is wrong, what is found, and whether it may be waived.

use stor::libvirt::{DomainState, PauseReason};
use stor::migrate::outcome::Verdict;
use stor::migrate::run::Mode;
use stor::model::{Driver, FindingCode as Code, Role, Severity};

use crate::world::{FileAt, QCOW2, World, host, xml};

struct Case {
    name: &'static str,
    spoil: fn(&mut World),
    code: Code,
    severity: Severity,
}

fn case(name: &'static str, code: Code, severity: Severity, spoil: fn(&mut World)) -> Case {
    Case { name, spoil, code, severity }
}

const GLUSTER: &str = "fuse.glusterfs";
const MNT: &str = crate::world::MOUNT;

fn node(world: &World, name: &str, change: impl FnOnce(&mut stor::libvirt::NodeFacts)) {
    world.connector.daemon(&host(name), |daemon| change(&mut daemon.node));
}

/// The guest's disk is a block device of the host.
fn on_block_device(world: &World) {
    world.rewrite(|xml| {
        xml.replace("<disk type='file'", "<disk type='block'").replace("source file=", "source dev=")
    });
}

fn storage_cases() -> Vec<Case> {
    use Severity::{Error, Warning};
    vec![
        case("not mounted there", Code::NotMounted, Error, |w| {
            w.shell("kvm2", |s| (s.mount, s.image) = (Some(("/", "/dev/vda1", "ext4", "rw")), None));
        }),
        case("not mounted there, and a file of the same name lies below", Code::NotMounted, Error, |w| {
            w.shell("kvm2", |s| s.mount = Some(("/", "/dev/vda1", "ext4", "rw")));
        }),
        case("no such directory there", Code::NotMounted, Error, |w| {
            w.shell("kvm2", |s| (s.mount, s.image) = (None, None));
        }),
        case("local disk on both", Code::ImageNotShared, Error, |w| {
            for name in ["kvm1", "kvm2"] {
                w.shell(name, |s| s.mount = Some(("/", "/dev/vda1", "ext4", "rw")));
            }
        }),
        case("another volume there", Code::ImageNotShared, Error, |w| {
            w.shell("kvm2", |s| s.mount = Some((MNT, "10.77.0.11:/other", GLUSTER, "rw")));
        }),
        case("another kind of file system there", Code::ImageNotShared, Error, |w| {
            w.shell("kvm2", |s| s.mount = Some((MNT, "10.77.0.11:/gfs", "nfs4", "rw")));
        }),
        case("another inode there", Code::ImageNotShared, Error, |w| {
            w.shell("kvm2", |s| s.image = Some((42, 1 << 30)));
        }),
        case("another size there", Code::ImageSizeDiffers, Error, |w| {
            w.shell("kvm2", |s| s.image = s.image.map(|(inode, _)| (inode, 1)));
        }),
        case("image missing there", Code::ImageMissing, Error, |w| w.shell("kvm2", |s| s.image = None)),
        case("read-only there", Code::ReadOnlyMount, Error, |w| {
            w.shell("kvm2", |s| s.mount = Some((MNT, "10.77.0.11:/gfs", GLUSTER, "ro,relatime")));
        }),
        case("hung mount there", Code::ProbeTimedOut, Error, |w| w.shell("kvm2", |s| s.hung = true)),
        case("locks that nobody answers there", Code::LockUnreachable, Error, |w| {
            w.shell("kvm2", |s| s.locks_hang = true);
        }),
        case("hung mount here", Code::ProbeTimedOut, Error, |w| w.shell("kvm1", |s| s.hung = true)),
        case("pool inactive", Code::PoolInactive, Warning, |w| w.shell("kvm2", |s| s.pools = vec![])),
        case("block device without identity", Code::ImageNotShared, Error, |w| {
            on_block_device(w);
            w.shell("kvm1", |s| s.device = Some((Some("0x6001405a"), None, 1 << 30)));
        }),
        case("another block device there", Code::ImageNotShared, Error, |w| {
            on_block_device(w);
            w.shell("kvm2", |s| {
                s.device = Some((Some("0x60014057eb8dbe5be325be4a75ba0542"), Some("other"), 1 << 30))
            });
        }),
        case("no block device there", Code::ImageMissing, Error, |w| {
            on_block_device(w);
            w.shell("kvm2", |s| s.device = None);
        }),
        case("block device not rescanned there", Code::ImageSizeDiffers, Error, |w| {
            on_block_device(w);
            w.shell("kvm1", |s| s.device.as_mut().unwrap().2 = 2 << 30);
        }),
        case("old stack with write-back cache", Code::CacheModeUnsafe, Error, |w| {
            node(w, "kvm1", |n| (n.libvirt, n.qemu) = (5_000_000, 3_001_000));
            node(w, "kvm2", |n| (n.libvirt, n.qemu) = (5_000_000, 3_001_000));
            w.rewrite(|xml| xml.replace("cache='none'", "cache='writeback'"));
        }),
    ]
}

/// The guest's image is qcow2 and, as its host shows, builds on another.
fn on_a_base(world: &World, base: &str) {
    world.rewrite(|xml| xml.replace("name='qemu' type='raw'", "name='qemu' type='qcow2'"));
    let chain = serde_json::json!([
        {"filename": crate::world::IMAGE, "format": "qcow2"},
        {"filename": base, "format": "qcow2"},
    ]);
    for name in ["kvm1", "kvm2"] {
        world.shell(name, |s| (s.header, s.chain) = (QCOW2, Ok(chain.to_string())));
    }
}

const ON_GFS: Option<(&str, &str, &str, &str)> = Some((MNT, "10.77.0.11:/gfs", GLUSTER, "rw,relatime"));
const LOCAL: FileAt = FileAt { mount: Some(("/", "/dev/vda1", "ext4", "rw")), stat: Some((7, 1 << 20)) };

fn chain_cases() -> Vec<Case> {
    use Severity::{Error, Warning};
    const BASE: &str = "/var/lib/libvirt/images/gfs/base.qcow2";
    const DISTANT: &str = "/srv/images/base.qcow2";
    vec![
        case("a base in a local directory", Code::ImageNotShared, Error, |w| {
            on_a_base(w, DISTANT);
            for name in ["kvm1", "kvm2"] {
                w.place(name, DISTANT, LOCAL);
            }
        }),
        case("a base that is another file there", Code::ImageNotShared, Error, |w| {
            on_a_base(w, BASE);
            w.place("kvm2", BASE, FileAt { mount: ON_GFS, stat: Some((8, 1 << 30)) });
        }),
        case("a base that is missing there", Code::ImageMissing, Error, |w| {
            on_a_base(w, BASE);
            w.place("kvm2", BASE, FileAt { mount: ON_GFS, stat: None });
        }),
        case("a local base that only the XML names", Code::ImageNotShared, Error, |w| {
            let below = "<backingStore type='file'><format type='raw'/><source file='/srv/images/base.qcow2'/><backingStore/></backingStore><target dev='vda'";
            on_a_base(w, BASE);
            w.rewrite(|xml| xml.replace("<target dev='vda'", below));
            w.shell("kvm1", |s| s.chain = Err("qemu-img: not found"));
            for name in ["kvm1", "kvm2"] {
                w.place(name, DISTANT, LOCAL);
            }
        }),
        case("a base with a name that nobody can look at", Code::ImageNotShared, Error, |w| {
            on_a_base(w, "json:{\"driver\":\"qcow2\"}");
        }),
        case("a base on a protocol that stor does not know", Code::ImageNotShared, Error, |w| {
            on_a_base(w, "nbd://10.77.0.11/base");
        }),
        case("a base that cannot be told", Code::ChainUnknown, Error, |w| {
            on_a_base(w, BASE);
            w.shell("kvm1", |s| s.chain = Err("qemu-img: Could not open: Permission denied"));
        }),
        case("raw in the XML, qcow2 on the disk", Code::FormatDiffers, Warning, |w| {
            w.shell("kvm1", |s| s.header = QCOW2);
        }),
        case("an image whose first bytes cannot be read", Code::ImageUnreadable, Warning, |w| {
            w.shell("kvm1", |s| s.header = "what\n");
        }),
        case("a block job under way", Code::JobActive, Error, |w| {
            w.rewrite(|xml| xml.replace("<target dev='vda'", "<mirror type='file'/><target dev='vda'"));
        }),
    ]
}

#[test]
fn a_base_on_the_same_storage_moves_with_its_guest_and_costs_one_more_question() {
    let world = World::new();
    assert_eq!(world.migrate_to("kvm2", Mode::DryRun).verdict, Verdict::Ready);
    on_a_base(&world, "/var/lib/libvirt/images/gfs/base.qcow2");
    let outcome = world.migrate_to("kvm2", Mode::DryRun);
    assert_eq!((outcome.verdict, outcome.findings), (Verdict::Ready, vec![]));
}

fn host_cases() -> Vec<Case> {
    use Severity::{Advice, Error, Warning};
    vec![
        case("host UUIDs equal", Code::HostUuidEqual, Error, |w| {
            let uuid = w.connector.daemon(&host("kvm1"), |d| d.node.uuid.clone()).unwrap();
            node(w, "kvm2", |n| n.uuid.clone_from(&uuid));
            w.shell("kvm1", |s| s.peer = Ok(uuid));
        }),
        case("no trust", Code::TrustMissing, Error, |w| {
            w.shell("kvm1", |s| s.peer = Err("error: Permission denied (publickey)."));
        }),
        case("the address leads back", Code::NameUnresolvable, Error, |w| {
            let uuid = w.connector.daemon(&host("kvm1"), |d| d.node.uuid.clone()).unwrap();
            w.shell("kvm1", |s| s.peer = Ok(uuid));
        }),
        case("the address leads elsewhere", Code::NameUnresolvable, Error, |w| {
            w.shell("kvm1", |s| s.peer = Ok("ffffffff-0000-4000-8000-000000000000".to_owned()));
        }),
        case("firewall", Code::PortBlocked, Warning, |w| {
            w.shell("kvm1", |s| s.port = "ssh: connect to host 10.77.0.22 port 49215: Connection timed out");
        }),
        case("ssh says nothing useful", Code::PortBlocked, Advice, |w| {
            w.shell("kvm1", |s| s.port = "ssh: something else");
        }),
        case("CPU lacks a feature", Code::CpuIncompatible, Error, |w| {
            w.connector.daemon(&host("kvm2"), |d| d.cpu_lacks = Some("avx512f".to_owned()));
        }),
        case("own CPU, hosts differ", Code::CpuIncompatible, Warning, |w| {
            w.rewrite(|xml| {
                xml.replace("<cpu mode='custom' match='exact'>", "<cpu mode='host-passthrough'>")
            });
            node(w, "kvm2", |n| n.capabilities = n.capabilities.replace("qemu64", "EPYC"));
        }),
        case("memory short", Code::MemoryShort, Warning, |w| w.shell("kvm2", |s| s.mem_available_kib = 1024)),
        case("bridge missing", Code::BridgeMissing, Error, |w| w.shell("kvm2", |s| s.bridge = false)),
        case("kernel missing", Code::BootFileMissing, Error, |w| w.shell("kvm2", |s| s.kernel = false)),
        case("machine type unknown", Code::MachineTypeUnknown, Error, |w| {
            node(w, "kvm2", |n| n.capabilities = n.capabilities.replace("pc-q35-10.0", "pc-q35-7.2"));
        }),
        case("older QEMU there", Code::VersionAdvisory, Warning, |w| node(w, "kvm2", |n| n.qemu = 7_002_000)),
        case("older libvirt there", Code::VersionAdvisory, Warning, |w| {
            node(w, "kvm2", |n| n.libvirt = 9_000_000);
        }),
    ]
}

fn guest_cases() -> Vec<Case> {
    use Severity::{Advice, Error};
    vec![
        case("host device", Code::DeviceLocal, Error, |w| {
            w.rewrite(|xml| xml.replace("</devices>", "<hostdev mode='subsystem' type='pci'/></devices>"));
        }),
        case("serial log", Code::DeviceLocal, Advice, |w| {
            w.rewrite(|xml| {
                xml.replace("<serial type='pty'>", "<serial type='file'><source path='/var/log/web1'/>")
            });
        }),
        case("same name, other UUID", Code::NameClash, Error, |w| {
            let stranger = "<domain type='qemu'><name>web1</name></domain>";
            w.connector.put(&host("kvm2"), stranger, DomainState::ShutOff).unwrap();
        }),
        case("same name, other UUID, running", Code::NameClash, Error, |w| {
            let stranger = "<domain type='qemu'><name>web1</name></domain>";
            w.connector.put(&host("kvm2"), stranger, DomainState::Running).unwrap();
        }),
        case("same UUID, other name", Code::NameClash, Error, |w| {
            let twin = xml(&w.cluster).replace("<name>web1<", "<name>web2<");
            w.connector.put(&host("kvm2"), &twin, DomainState::ShutOff).unwrap();
        }),
        case("old definition there", Code::NameClash, Advice, |w| {
            w.connector.put(&host("kvm2"), &xml(&w.cluster), DomainState::ShutOff).unwrap();
        }),
        case("left half started by a broken migration", Code::NameClash, Error, |w| {
            w.connector.put(&host("kvm2"), &xml(&w.cluster), DomainState::ShutOff).unwrap();
            w.connector.daemon(&host("kvm2"), |d| d.domains.get_mut("web1").unwrap().persistent = false);
        }),
        case("paused by its user", Code::GuestPaused, Advice, |w| {
            w.connector.put(&host("kvm1"), &xml(&w.cluster), DomainState::Paused(PauseReason::User)).unwrap();
        }),
        case("paused by an I/O error", Code::GuestPaused, Error, |w| {
            w.connector
                .put(&host("kvm1"), &xml(&w.cluster), DomainState::Paused(PauseReason::IoError))
                .unwrap();
        }),
    ]
}

const XL_INFO: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/outputs/xl/debian13-xen4.20-info.txt"));

/// Both hosts run Xen, and the guest is one of its own.
fn under_xen(world: &mut World, xl: Option<&'static str>) {
    for name in ["kvm1", "kvm2", "kvm3"] {
        world.cluster.hosts.get_mut(&host(name)).unwrap().role = Role::Hypervisor(Driver::Xen);
        world.shell(name, |shell| shell.xl = xl);
    }
    world.rewrite(|xml| {
        xml.replace("type='qemu'", "type='xen'").replace("machine='pc-q35-10.0'", "machine='xenpv'")
    });
}

#[test]
fn a_guest_moves_only_between_hosts_of_one_kind() {
    let mut world = World::new();
    world.cluster.hosts.get_mut(&host("kvm2")).unwrap().role = Role::Hypervisor(Driver::Xen);
    let outcome = world.migrate_to("kvm2", Mode::Move);
    let found: Vec<_> = outcome.findings.iter().map(|finding| (finding.code, finding.severity)).collect();
    assert_eq!(found, [(Code::HypervisorDiffers, Severity::Error)], "{:?}", outcome.findings);
    assert_eq!(outcome.findings[0].evidence, ["host kvm1: QEMU", "host kvm2: Xen"]);
    assert_eq!((outcome.verdict, world.state("kvm1")), (Verdict::Refused, Some(DomainState::Running)));
}

#[test]
fn a_running_guest_of_xen_is_refused_with_what_its_host_shows_and_left_alone() {
    let cases = [
        (Some(XL_INFO), "without shadow paging", "virt_caps: gnttab-v1 gnttab-v2 pv"),
        (Some("virt_caps              : pv shadow\n"), "only while they are shut off", ""),
        (None, "only while they are shut off", "`xl info` failed"),
    ];
    for (xl, message, evidence) in cases {
        let mut world = World::new();
        under_xen(&mut world, xl);
        let before = world.connector.calls();
        let outcome = world.migrate_to("kvm2", Mode::Move);
        let [finding] = outcome.findings.as_slice() else { panic!("{:?}", outcome.findings) };
        assert_eq!((finding.code, finding.severity), (Code::LiveUnsupported, Severity::Error));
        assert!(finding.message.contains(message), "{finding:?}");
        assert!(finding.evidence.concat().contains(evidence), "{finding:?}");
        assert_eq!(finding.remedy.as_deref(), Some("`stor migrate web1 --to kvm2 --cold --shutdown`"));
        assert_eq!((outcome.exit_code(), world.connector.calls()), (8, before));
        assert_eq!(world.state("kvm1"), Some(DomainState::Running));
    }
}

#[test]
fn every_finding_is_found_alone_with_its_severity_and_decides_accordingly() {
    let cases = storage_cases().into_iter().chain(chain_cases());
    for case in cases.chain(host_cases()).chain(guest_cases()) {
        let mut world = World::new();
        (case.spoil)(&mut world);
        let outcome = world.migrate_to("kvm2", Mode::DryRun);
        let found: Vec<_> = outcome.findings.iter().map(|finding| (finding.code, finding.severity)).collect();
        assert_eq!(found, vec![(case.code, case.severity)], "{}: {:?}", case.name, outcome.findings);
        let verdict = if case.severity == Severity::Advice { Verdict::Ready } else { Verdict::Refused };
        assert_eq!(outcome.verdict, verdict, "{}", case.name);
        let finding = &outcome.findings[0];
        let explained =
            !finding.evidence.is_empty() || finding.remedy.is_some() || finding.severity == Severity::Advice;
        assert!(explained, "{}: {finding:?}", case.name);

        world.allow = vec![case.code];
        let waived = world.migrate_to("kvm2", Mode::DryRun);
        let verdict = if case.severity == Severity::Error { Verdict::Refused } else { Verdict::Ready };
        assert_eq!(waived.verdict, verdict, "{} allowed", case.name);
        assert_eq!(waived.allowed, vec![case.code]);
    }
}

#[test]
fn a_refused_guest_is_not_touched_and_leaves_no_receipt() {
    let world = World::new();
    world.shell("kvm2", |shell| shell.mount = None);
    let before = world.connector.calls();
    let outcome = world.migrate();
    assert_eq!((outcome.verdict.clone(), outcome.exit_code()), (Verdict::Refused, 8));
    assert_eq!(world.connector.calls(), before);
    assert!(!world.receipts.path().join("receipts").exists());
}

#[test]
fn a_block_device_of_the_same_wwn_serial_number_and_size_is_the_same_device() {
    let world = World::new();
    on_block_device(&world);
    let outcome = world.migrate_to("kvm2", Mode::DryRun);
    assert_eq!(outcome.verdict, Verdict::Ready, "{:?}", outcome.findings);
}

#[test]
fn a_volume_mounted_from_another_server_is_the_same_volume() {
    let world = World::new();
    world.shell("kvm2", |shell| shell.mount = Some((MNT, "10.77.0.12:gfs", GLUSTER, "rw")));
    let outcome = world.migrate_to("kvm2", Mode::DryRun);
    assert_eq!(outcome.verdict, Verdict::Ready);
    // The guest could not be started from there: its server is none of the cluster file.
    assert_eq!(
        (outcome.findings[0].code, outcome.findings[0].severity),
        (Code::WrongMount, Severity::Advice)
    );
}

#[test]
fn a_disk_that_is_only_read_may_differ_but_must_be_there() {
    let world = World::new();
    world.rewrite(|xml| {
        xml.replace("<target dev='vda' bus='virtio'/>", "<target dev='vda' bus='virtio'/><readonly/>")
    });
    world.shell("kvm2", |shell| shell.mount = Some(("/", "/dev/vda1", "ext4", "rw")));
    let outcome = world.migrate_to("kvm2", Mode::DryRun);
    assert_eq!(outcome.findings[0].severity, Severity::Warning);
    world.shell("kvm2", |shell| shell.image = None);
    let outcome = world.migrate_to("kvm2", Mode::DryRun);
    assert_eq!(
        (outcome.findings[0].code, outcome.findings[0].severity),
        (Code::DeviceLocal, Severity::Error)
    );
}

#[test]
fn a_daemon_or_host_that_does_not_answer_exits_5() {
    let world = World::new();
    world.connector.daemon(&host("kvm2"), |daemon| daemon.reachable = false);
    let outcome = world.migrate();
    assert_eq!((outcome.findings[0].code, outcome.exit_code()), (Code::DaemonDown, 5));
    let world = World::new();
    world.hosts[&host("kvm2")].set_down(Some("connection refused"));
    let outcome = world.migrate();
    assert_eq!((outcome.findings[0].code, outcome.exit_code()), (Code::HostUnobserved, 5));
}

#[test]
fn a_guest_that_does_not_run_or_does_not_exist_is_refused() {
    let world = World::new();
    world.connector.put(&host("kvm1"), &xml(&world.cluster), DomainState::ShutOff).unwrap();
    let outcome = world.migrate();
    assert_eq!((outcome.findings[0].code, outcome.exit_code()), (Code::GuestNotRunning, 8));
    let world = World::new();
    world.connector.daemon(&host("kvm1"), |daemon| daemon.domains.clear());
    let outcome = world.migrate();
    assert_eq!((outcome.findings[0].code, outcome.exit_code()), (Code::GuestNotDefined, 8));
}

#[test]
fn post_copy_at_the_deadline_is_refused_before_anything_begins() {
    let mut world = World::new();
    world.policy.on_timeout = stor::spec::OnTimeout::PostCopy;
    let outcome = world.migrate();
    assert_eq!(outcome.exit_code(), 8);
    assert!(outcome.findings[0].message.contains("post-copy is not available yet"), "{:?}", outcome.findings);
}
