//! Two hypervisors and a guest between them, in memory: libvirt and shell answers of one host agree with each other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use stor::host::fake::{FakeHost, Faults, Files, answer, failure};
use stor::host::{Fleet, Holder, Host, LockKind};
use stor::libvirt::bounded::{Bounded, Patience};
use stor::libvirt::domain_xml::{DomainType, GuestDisk, generate};
use stor::libvirt::fake::FakeConnector;
use stor::libvirt::{Connector, DomainState};
use stor::migrate::Site;
use stor::migrate::outcome::Outcome;
use stor::migrate::run::{MigrateEvent, Mode, Options, Pace, migrate};
use stor::model::{
    AbsPath, Answer, Cancel, ClusterName, Command, FindingCode, GuestId, HostId, ImageFormat, ImageId,
    ImageLocation, StorageId,
};
use stor::spec::{
    Accel, Autostart, Cluster, Driver, Elevation, GuestDefinition, GuestEntry, GuestShape, HostSpec,
    ImageEntry, KernelBoot, MigrationPolicy, OnTimeout, Role, SshSpec,
};
use stor::storage::gluster::spec::{Arbiter, Brick, Force};
use stor::storage::spec::Access;
use stor::storage::spec::{GlusterSpec, StorageSpec};

pub const MOUNT: &str = "/var/lib/libvirt/images/gfs";
pub const IMAGE: &str = "/var/lib/libvirt/images/gfs/web1.img";
pub const KERNEL: &str = "/boot/lab/vmlinuz";

pub fn host(name: &str) -> HostId {
    HostId::new(name).unwrap()
}

pub fn web1() -> GuestId {
    GuestId::new("web1").unwrap()
}

/// What one host's shell answers.
#[derive(Debug, Clone)]
pub struct Shell {
    pub mem_available_kib: u64,
    pub pools: Vec<&'static str>,
    /// Mount that holds the image: target, source, type, options. `None`: the directory does not exist.
    pub mount: Option<(&'static str, &'static str, &'static str, &'static str)>,
    /// Inode and size of the image; `None`: no such file.
    pub image: Option<(u64, u64)>,
    /// WWN, serial number and size of the block device; `None`: no such device.
    pub device: Option<(Option<&'static str>, Option<&'static str>, u64)>,
    /// Nothing below the mount answers in time.
    pub hung: bool,
    /// Locks on files are not answered.
    pub locks_hang: bool,
    pub bridge: bool,
    pub kernel: bool,
    /// UUID of the host that the peer URI leads to, or virsh's error.
    pub peer: Result<String, &'static str>,
    /// What ssh says of the probed port.
    pub port: &'static str,
    /// What `xl info` prints; `None`: there is no xl.
    pub xl: Option<&'static str>,
    /// The first bytes of every image, as od prints them, and what qemu-img prints; `Err`: what it says when it fails.
    pub header: &'static str,
    pub chain: Result<String, &'static str>,
    /// Files that are not where the image is: mount, inode and size.
    pub at: BTreeMap<&'static str, FileAt>,
}

/// A file beside the image.
#[derive(Debug, Clone)]
pub struct FileAt {
    pub mount: Option<(&'static str, &'static str, &'static str, &'static str)>,
    pub stat: Option<(u64, u64)>,
}

/// What od prints of a qcow2 image.
pub const QCOW2: &str = " 51 46 49 fb 00 00 00 03\n";

impl Shell {
    fn run(&self, command: &Command) -> Answer {
        let words = command.to_string();
        let args: Vec<&str> = command.args.iter().map(String::as_str).collect();
        let exists = |there: bool| answer(i32::from(!there), "");
        match (command.program, args.as_slice()) {
            ("cat", ["/proc/meminfo"]) => {
                answer(0, format!("MemTotal: 1 kB\nMemAvailable: {} kB\n", self.mem_available_kib))
            }
            ("sh", ["-c", _, "stor-writers", _]) if self.hung => {
                Answer { status: None, stdout: String::new(), stderr: String::new() }
            }
            ("sh", ["-c", _, "stor-writers", path]) if path.starts_with("/dev/") => match self.device {
                Some((wwn, serial, _)) => {
                    let (wwn, serial) = (wwn.unwrap_or_default(), serial.unwrap_or_default());
                    let disk = format!("TYPE=\"disk\" WWN=\"{wwn}\" SERIAL=\"{serial}\"");
                    answer(0, format!("real /dev/sdb\nstat 5 9 8 10\nnode 8:16\n{disk}\n"))
                }
                None => answer(0, "absent\n"),
            },
            ("sh", ["-c", _, "stor-writers", path]) => {
                match self.at.get(*path).map_or(self.image, |file| file.stat) {
                    Some((inode, _)) => answer(0, format!("real {path}\nstat 44 {inode} 0 0\n")),
                    None => answer(0, "absent\n"),
                }
            }
            ("virsh", [.., "pool-list", "--name"]) => answer(0, self.pools.join("\n")),
            ("virsh", [.., "net-list", "--name"]) => answer(0, "default\n"),
            ("virsh", [.., "capabilities"]) => match &self.peer {
                Ok(uuid) => {
                    answer(0, format!("<capabilities><host><uuid>{uuid}</uuid></host></capabilities>"))
                }
                Err(reason) => failure(1, *reason),
            },
            ("stat" | "findmnt", _) if self.hung => {
                Answer { status: None, stdout: String::new(), stderr: String::new() }
            }
            ("sh", [_, _, "stor-lock", _]) if self.locks_hang => {
                Answer { status: None, stdout: String::new(), stderr: String::new() }
            }
            ("sh", [_, _, "stor-lock", _]) => answer(0, ""),
            ("cat", ["/proc/self/mountinfo"]) => match self.mount {
                Some((target, source, kind, options)) => {
                    answer(0, format!("40 1 0:40 / {target} {options} - {kind} {source} {options}\n"))
                }
                None => answer(0, "1 0 0:1 / / rw - ext4 /dev/vda1 rw\n"),
            },
            ("sh", ["-c", _, "stor-image", format, _]) => match (&self.chain, *format) {
                (_, "") => answer(0, format!("{}==\n", self.header)),
                (Ok(chain), _) => answer(0, format!("{}==\n{chain}", self.header)),
                (Err(said), _) => Answer { stdout: format!("{}==\n", self.header), ..failure(1, *said) },
            },
            ("stat", [.., path]) => match self.at.get(*path).map_or(self.image, |file| file.stat) {
                Some((inode, size)) => answer(0, format!("{inode} {size}\n")),
                None => failure(1, "stat: cannot statx: No such file or directory"),
            },
            ("findmnt", [.., path]) => match self.at.get(*path).map_or(self.mount, |file| file.mount) {
                Some((target, source, kind, options)) => {
                    let entry = serde_json::json!({"target": target, "source": source, "fstype": kind, "options": options});
                    answer(0, serde_json::json!({"filesystems": [entry]}).to_string())
                }
                None => failure(1, ""),
            },
            ("lsblk", _) => match self.device {
                Some((wwn, serial, size)) => {
                    let entry = serde_json::json!({"wwn": wwn, "serial": serial, "size": size});
                    answer(0, serde_json::json!({"blockdevices": [entry]}).to_string())
                }
                None => failure(32, "lsblk: /dev/x: not a block device"),
            },
            ("ip", _) if self.bridge => answer(0, r#"[{"linkinfo":{"info_kind":"bridge"}}]"#),
            ("ip", _) => failure(1, "Device \"br0\" does not exist."),
            ("test", ["-r", _]) => exists(self.kernel),
            ("ssh", _) => failure(255, self.port),
            ("xl", ["info"]) if self.xl.is_some() => answer(0, self.xl.unwrap_or_default()),
            _ => failure(127, format!("{words}: not found")),
        }
    }
}

/// Two hypervisors, one storage, one guest.
pub struct World {
    pub cluster: Cluster,
    pub connector: FakeConnector,
    /// The daemons behind limits, where a test wants that.
    pub bounded: Option<Bounded>,
    pub shells: BTreeMap<HostId, Arc<Mutex<Shell>>>,
    pub hosts: BTreeMap<HostId, Arc<FakeHost>>,
    pub fleet: Fleet,
    pub receipts: tempfile::TempDir,
    pub policy: MigrationPolicy,
    pub allow: Vec<FindingCode>,
    pub cancel: Cancel,
    pub events: Mutex<Vec<MigrateEvent>>,
}

impl World {
    /// The guest runs on kvm1, and nothing speaks against moving it to kvm2.
    pub fn new() -> Self {
        let cluster = cluster();
        let connector = FakeConnector::new(&cluster.hosts);
        let mut shells = BTreeMap::new();
        let mut hosts = BTreeMap::new();
        for spec in cluster.hosts.values() {
            let shell = Arc::new(Mutex::new(shell(&connector)));
            let machine = Arc::clone(&shell);
            let run = move |command: &Command, _: &mut Files| machine.lock().unwrap().run(command);
            let fake = Arc::new(FakeHost::new(spec.id.clone(), Box::new(run), Faults::default()));
            shells.insert(spec.id.clone(), shell);
            hosts.insert(spec.id.clone(), fake);
        }
        let fleet = Fleet::new(hosts.values().map(|host| Arc::clone(host) as Arc<dyn Host>), 8);
        connector.put(&host("kvm1"), &xml(&cluster), DomainState::Running).unwrap();
        for name in ["kvm1", "kvm2", "kvm3"] {
            let pool = stor::libvirt::pool_xml::dir_pool(&StorageId::new("gfs").unwrap(), &path(MOUNT));
            connector.open(&host(name)).unwrap().ensure_pool("gfs", &pool).unwrap();
        }
        let policy = cluster.migration.clone();
        Self {
            cluster,
            connector,
            bounded: None,
            shells,
            hosts,
            fleet,
            receipts: tempfile::tempdir().unwrap(),
            policy,
            allow: Vec::new(),
            cancel: Cancel::default(),
            events: Mutex::default(),
        }
    }

    pub fn site(&self) -> Site<'_> {
        let connector = self.bounded.as_ref().map_or(&self.connector as &dyn Connector, |bounded| bounded);
        Site { cluster: &self.cluster, fleet: &self.fleet, connector }
    }

    /// Changes what a host's shell answers.
    pub fn shell(&self, name: &str, change: impl FnOnce(&mut Shell)) {
        change(&mut self.shells[&host(name)].lock().unwrap());
    }

    /// Puts a file of its own at a path of a host.
    pub fn place(&self, name: &str, path: &'static str, file: FileAt) {
        self.shell(name, |shell| {
            shell.at.insert(path, file);
        });
    }

    pub fn state(&self, name: &str) -> Option<DomainState> {
        let domain = self.connector.daemon(&host(name), |daemon| daemon.domains.get("web1").cloned());
        domain.flatten().map(|domain| domain.state)
    }

    pub fn options(&self, mode: Mode) -> Options {
        let millis = Duration::from_millis;
        Options {
            mode,
            allow: self.allow.iter().copied().collect(),
            policy: self.policy.clone(),
            ping: None::<IpAddr>,
            holder: self.holder(),
            receipts: self.receipts.path().join("receipts"),
            pace: Pace { poll: millis(5), confirm: millis(50), abort: millis(100) },
            clock: || UNIX_EPOCH + Duration::from_secs(1_763_686_800),
        }
    }

    pub fn holder(&self) -> Holder {
        Holder { cluster: self.cluster.name.clone(), kind: LockKind::Exclusive, text: "a test".to_owned() }
    }

    /// Moves the guest to a host.
    pub fn migrate_to(&self, to: &str, mode: Mode) -> Outcome {
        let events = |event: MigrateEvent| self.events.lock().unwrap().push(event);
        let options = self.options(mode);
        let mut outcomes = migrate(self.site(), &[web1()], &host(to), &options, &self.cancel, &events);
        outcomes.remove(0)
    }

    pub fn migrate(&self) -> Outcome {
        self.migrate_to("kvm2", Mode::Move)
    }

    /// Replaces the guest's XML on kvm1.
    pub fn rewrite(&self, change: impl FnOnce(String) -> String) {
        self.connector.daemon(&host("kvm1"), |daemon| {
            let domain = daemon.domains.get_mut("web1").unwrap();
            domain.xml = change(domain.xml.clone());
        });
    }
}

/// The daemons behind limits: every call may take this long, and a fifth of it once the user has given up.
pub fn bounded(connector: &FakeConnector, limit: Duration, cancel: &Cancel) -> Bounded {
    let patience = Patience { connect: limit, look: limit, host: limit, change: limit, grace: limit / 5 };
    Bounded::new(Arc::new(connector.clone()), patience, cancel.clone())
}

fn shell(connector: &FakeConnector) -> Shell {
    let kvm2 = connector.daemon(&host("kvm2"), |daemon| daemon.node.uuid.clone()).unwrap();
    Shell {
        mem_available_kib: 1 << 20,
        pools: vec!["gfs"],
        mount: Some((MOUNT, "10.77.0.11:/gfs", "fuse.glusterfs", "rw,relatime")),
        image: Some((1_234_567_890_123, 1 << 30)),
        device: Some((Some("0x60014057eb8dbe5be325be4a75ba0542"), Some("7eb8dbe5"), 1 << 30)),
        hung: false,
        locks_hang: false,
        bridge: true,
        kernel: true,
        peer: Ok(kvm2),
        port: "ssh: connect to host 10.77.0.22 port 49215: Connection refused",
        xl: None,
        header: " 00 00 00 00\n",
        chain: Err("qemu-img: nobody asked"),
        at: BTreeMap::new(),
    }
}

fn path(text: &str) -> AbsPath {
    AbsPath::new(text).unwrap()
}

/// The guest's XML as it is live: the machine type has its version.
pub fn xml(cluster: &Cluster) -> String {
    let GuestDefinition::Generated(shape) = &cluster.guests[&web1()].definition else { unreachable!() };
    let location = ImageLocation::File(path(IMAGE));
    let disk = GuestDisk { location: &location, format: ImageFormat::Raw };
    let text = generate(&cluster.name, &web1(), shape, disk, DomainType::Qemu);
    text.replace("machine='q35'", "machine='pc-q35-10.0'")
}

fn cluster() -> Cluster {
    let spec = |name: &str, address: &str, role| HostSpec {
        id: host(name),
        address: address.to_owned(),
        role,
        ssh: SshSpec { user: None, port: None, identity_file: None, elevation: Elevation::Root },
    };
    let hosts = [
        spec("store1", "10.77.0.11", Role::Server),
        spec("kvm1", "10.77.0.21", Role::Hypervisor(Driver::Qemu)),
        spec("kvm2", "10.77.0.22", Role::Hypervisor(Driver::Qemu)),
        spec("kvm3", "10.77.0.23", Role::Hypervisor(Driver::Qemu)),
    ];
    let gfs = GlusterSpec {
        replica: 3,
        arbiter: Arbiter::No,
        bricks: vec![Brick { host: host("store1"), path: path("/data/bricks/gfs") }],
        access: Access::Mount,
        mount: path(MOUNT),
        allow: Vec::new(),
        force: Force::No,
        options: BTreeMap::new(),
    };
    let storage = StorageId::new("gfs").unwrap();
    let image = ImageId::new("web1").unwrap();
    let shape = GuestShape {
        image: image.clone(),
        memory: "192MiB".parse().unwrap(),
        vcpus: 1,
        bridge: Some("br0".to_owned()),
        mac: None,
        boot: Some(KernelBoot { kernel: path(KERNEL), initrd: None, cmdline: String::new() }),
        accel: Accel::Qemu,
        autostart: Autostart::Off,
    };
    let entry = ImageEntry {
        id: image.clone(),
        storage: storage.clone(),
        size: "1GiB".parse().unwrap(),
        format: ImageFormat::Raw,
        source: None,
    };
    let guest = GuestEntry { id: web1(), on: host("kvm1"), definition: GuestDefinition::Generated(shape) };
    Cluster {
        name: ClusterName::new("homelab").unwrap(),
        base: PathBuf::from("/"),
        hosts: hosts.into_iter().map(|spec| (spec.id.clone(), spec)).collect(),
        storage: BTreeMap::from([(storage, StorageSpec::Gluster(gfs))]),
        images: BTreeMap::from([(image, entry)]),
        guests: BTreeMap::from([(web1(), guest)]),
        migration: MigrationPolicy {
            bandwidth: None,
            max_downtime: Duration::from_millis(300),
            timeout: Duration::from_secs(60),
            on_timeout: OnTimeout::Abort,
            per_host: 2,
            per_cluster: 5,
        },
        secrets: stor::model::Secrets::default(),
    }
}
