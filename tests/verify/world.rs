//! A storage in memory that fake hypervisors mount, with the faults that real ones have.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stor::host::fake::{FakeHost, Faults, Files, answer, failure};
use stor::host::{Fleet, Host};
use stor::model::{AbsPath, Answer, Cancel, ClusterName, Command, HostId, ImageFormat, ImageId, StorageId};
use stor::spec::{
    Cluster, Driver, Elevation, HostSpec, ImageEntry, MigrationPolicy, OnTimeout, Role, SshSpec,
};
use stor::storage::gluster::spec::{Arbiter, Brick, Force, GlusterSpec};
use stor::storage::probe::{Client, ClientAnswer, ClientRequest, Identity, NoClient};
use stor::storage::spec::Access;
use stor::storage::spec::StorageSpec;
use stor::verify::{Clients, Matrix, verify_scope};

pub const DIRECTORY: &str = "/var/lib/libvirt/images/gfs";
pub const SOURCE: &str = "10.77.0.11:/gfs";

pub fn host(name: &str) -> HostId {
    HostId::new(name).unwrap()
}

/// One file of a volume.
#[derive(Clone, Default)]
pub struct File {
    pub inode: u64,
    pub text: String,
    pub locked: bool,
    pub denied: bool,
    pub split: bool,
}

/// All volumes, by their source in the mount table.
pub type Volumes = Arc<Mutex<BTreeMap<String, BTreeMap<String, File>>>>;

/// What is wrong, or special, on one hypervisor.
#[derive(Clone)]
pub struct Seat {
    pub fs_type: &'static str,
    pub source: &'static str,
    pub options: &'static str,
    pub mounted: bool,
    pub hung: bool,
    /// The server no longer knows what is mounted.
    pub stale_handle: bool,
    /// Reads of other hosts' probe files show old content.
    pub stale: bool,
    /// Locks are kept on this host only.
    pub local_locks: bool,
    pub pool: Option<(&'static str, &'static str)>,
    pub conf: &'static str,
    /// Whose the files are that root makes: with its rights taken away, another user's.
    pub root_is: &'static str,
}

impl Default for Seat {
    fn default() -> Self {
        Self {
            fs_type: "fuse.glusterfs",
            source: SOURCE,
            options: "rw,relatime",
            mounted: true,
            hung: false,
            stale_handle: false,
            stale: false,
            local_locks: false,
            pool: Some(("active", DIRECTORY)),
            conf: "user = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\n",
            root_is: "root",
        }
    }
}

/// Two hypervisors and their volume.
pub struct World {
    pub volumes: Volumes,
    pub seats: BTreeMap<&'static str, Seat>,
    pub down: Vec<&'static str>,
    pub client: Result<(), NoClient>,
    pub cluster: Cluster,
    /// What was written into plain directories of the hosts.
    pub strayed: Arc<Mutex<Vec<String>>>,
}

impl World {
    pub fn new() -> Self {
        let image = File { inode: 0x90d4_18cf_3c49_330a, ..File::default() };
        let files = BTreeMap::from([("web1.img".to_owned(), image)]);
        Self {
            volumes: Arc::new(Mutex::new(BTreeMap::from([(SOURCE.to_owned(), files)]))),
            seats: BTreeMap::from([("kvm1", Seat::default()), ("kvm2", Seat::default())]),
            down: Vec::new(),
            client: Ok(()),
            cluster: cluster(),
            strayed: Arc::default(),
        }
    }

    pub fn seat(mut self, name: &'static str, change: impl FnOnce(&mut Seat)) -> Self {
        change(self.seats.get_mut(name).unwrap());
        self
    }

    pub fn volume(self, source: &str, change: impl FnOnce(&mut BTreeMap<String, File>)) -> Self {
        change(self.volumes.lock().unwrap().entry(source.to_owned()).or_default());
        self
    }

    pub fn verify(&self) -> Matrix {
        self.verify_until(&Cancel::default())
    }

    pub fn verify_until(&self, cancel: &Cancel) -> Matrix {
        let ids: Vec<HostId> = self.seats.keys().map(|name| host(name)).collect();
        let scope = stor::verify::scope(&self.cluster, &ids, None);
        verify_scope(&self.cluster, &self.fleet(), &scope, self, cancel, &|_| {})
    }

    pub fn fleet(&self) -> Fleet {
        let hosts = self.seats.iter().map(|(name, seat)| {
            let (seat, volumes, strayed) = (seat.clone(), self.volumes.clone(), self.strayed.clone());
            let machine = move |command: &Command, _: &mut Files| run(&seat, &volumes, &strayed, command);
            let fake = FakeHost::new(host(name), Box::new(machine), Faults::default());
            if self.down.contains(name) {
                fake.set_down(Some("No route to host"));
            }
            Arc::new(fake) as Arc<dyn Host>
        });
        Fleet::new(hosts, 8)
    }

    /// Probe files that are still on a volume.
    pub fn left(&self) -> Vec<String> {
        let volumes = self.volumes.lock().unwrap();
        let probes = volumes.values().flat_map(|files| files.keys()).filter(|name| name.starts_with(".stor"));
        probes.cloned().collect()
    }
}

impl Clients for World {
    fn look(&self, _: &Client, request: &ClientRequest) -> Result<ClientAnswer, NoClient> {
        self.client.clone()?;
        let volumes = self.volumes.lock().unwrap();
        let files = &volumes[SOURCE];
        let absent = || "No such file or directory".to_owned();
        let identify = |name: &String| {
            let file = files.get(name).ok_or_else(absent)?;
            Ok(Identity { inode: file.inode, id: None, size: 1 << 30 })
        };
        let read = |name: &String| files.get(name).map(|file| file.text.clone()).ok_or_else(absent);
        Ok(ClientAnswer {
            identified: request.identify.iter().map(|name| (name.clone(), identify(name))).collect(),
            read: request.read.iter().map(|name| (name.clone(), read(name))).collect(),
            ..ClientAnswer::default()
        })
    }
}

fn run(seat: &Seat, volumes: &Volumes, strayed: &Mutex<Vec<String>>, command: &Command) -> Answer {
    let args: Vec<&str> = command.args.iter().map(String::as_str).collect();
    match (command.program, args.as_slice()) {
        ("cat", ["/proc/self/mountinfo"]) => {
            let root = "1 0 8:1 / / rw - ext4 /dev/vda rw\n";
            let Seat { fs_type, source, options, .. } = seat;
            let mount = format!("450 1 0:91 / {DIRECTORY} {options} shared:3 - {fs_type} {source} rw\n");
            answer(0, if seat.mounted { format!("{root}{mount}") } else { root.to_owned() })
        }
        ("cat", _) => answer(0, seat.conf),
        ("getent", _) => answer(2, "libvirt-qemu:x:64055:993::/:/usr/sbin/nologin\n"),
        ("virsh", _) => {
            let (row, xml) = match seat.pool {
                Some((state, path)) => (
                    format!(" gfs   {state}   yes\n"),
                    format!("<pool type='dir'><name>gfs</name><target><path>{path}</path></target></pool>\n"),
                ),
                None => Default::default(),
            };
            answer(0, format!(" Name   State   Autostart\n----\n{row}\n{xml}"))
        }
        ("sh", ["-c", _, name, directory, fs_type, sources, rest @ ..]) => {
            if seat.hung {
                return Answer { status: None, stdout: String::new(), stderr: String::new() };
            }
            if seat.stale_handle {
                // What stat prints on an NFS mount whose directory was replaced on the server (ESTALE).
                return answer(10, "refused stat: cannot statx '/srv': Stale file handle\n");
            }
            let right =
                seat.mounted && seat.fs_type == *fs_type && sources.split(' ').any(|one| one == seat.source);
            if !right || *directory != DIRECTORY {
                return answer(10, "refused not the mount\n");
            }
            let mut volumes = volumes.lock().unwrap();
            let files = volumes.entry(seat.source.to_owned()).or_default();
            let text = probe(seat, files, name, rest);
            answer(0, format!("entered {DIRECTORY}\n{text}"))
        }
        _ => {
            strayed.lock().unwrap().push(command.to_string());
            failure(127, "not found")
        }
    }
}

fn probe(seat: &Seat, files: &mut BTreeMap<String, File>, name: &str, args: &[&str]) -> String {
    let lock = |files: &BTreeMap<String, File>, name: &str| {
        let held = files.get(name).is_some_and(|file| file.locked) && !seat.local_locks;
        match held {
            true => {
                format!("lock {name} qemu-io 1 qemu-io: can't open device {name}: Failed to lock byte 100\n")
            }
            false => format!("lock {name} qemu-io 0 \n"),
        }
    };
    match (name, args) {
        ("stor-probe-write", [_, _, ..]) if seat.options.starts_with("ro") => {
            format!("write-failed dd: failed to open '{}': Read-only file system\n", args[0])
        }
        ("stor-probe-write", [probe, nonce, _]) => {
            let file = File { text: (*nonce).to_owned(), locked: true, ..File::default() };
            files.insert((*probe).to_owned(), file);
            format!("written {nonce}\nmade-by {}\nlocked 42 fcntl\n", seat.root_is)
        }
        ("stor-probe-read", [user, _, own, _, words @ ..]) => {
            let mut out: String = words
                .iter()
                .map(|word| match word.split_at(2) {
                    ("i:", name) => image(files.get(name), user, name),
                    ("p:", name) => {
                        let text = files.get(name).map_or("dd: No such file or directory", |file| &file.text);
                        format!("probe {name}\nnonce {}\n", if seat.stale { "old" } else { text })
                    }
                    (_, name) => lock(files, name.trim_start_matches("fcntl:")),
                })
                .collect();
            if files.contains_key(*own) {
                out.push_str(&format!("own {own}\nchown yes\nwrite yes\n"));
            }
            out
        }
        ("stor-probe-release", [own, _, others @ ..]) => {
            if let Some(file) = files.get_mut(*own) {
                file.locked = false;
            }
            // Others let go in the same round; the script waits for them.
            let name = |other: &str| other.trim_start_matches("fcntl:").to_owned();
            others.iter().map(|other| format!("lock {} qemu-io 0 \n", name(other))).collect()
        }
        ("stor-probe-remove", [own]) => {
            files.remove(*own);
            "removed\n".to_owned()
        }
        other => panic!("unknown probe {other:?}"),
    }
}

fn image(file: Option<&File>, user: &str, name: &str) -> String {
    let Some(file) = file else {
        return format!("image {name}\nstat-failed stat: cannot statx '{name}': No such file or directory\n");
    };
    let split = if file.split {
        "data-split-brain:yes metadata-split-brain:no"
    } else {
        "The file is not under data"
    };
    let write =
        if file.denied && user != "root" { "no dd: failed to open: Permission denied" } else { "yes" };
    format!(
        "image {name}\nstat {} 1073741824 root root 644\nxattr replica.split-brain-status {split}\nread yes\nwrite {write}\n",
        file.inode
    )
}

fn cluster() -> Cluster {
    let spec = |name: &str, address: &str, role| {
        let ssh = SshSpec { user: None, port: None, identity_file: None, elevation: Elevation::Root };
        (host(name), HostSpec { id: host(name), address: address.to_owned(), role, ssh })
    };
    let gfs = StorageId::new("gfs").unwrap();
    let web1 = ImageId::new("web1").unwrap();
    let gluster = GlusterSpec {
        replica: 3,
        arbiter: Arbiter::Yes,
        bricks: vec![Brick { host: host("store1"), path: AbsPath::new("/data/bricks/gfs").unwrap() }],
        access: Access::Mount,
        mount: AbsPath::new(DIRECTORY).unwrap(),
        allow: Vec::new(),
        force: Force::No,
        options: BTreeMap::new(),
    };
    let image = ImageEntry {
        id: web1.clone(),
        storage: gfs.clone(),
        size: "1GiB".parse().unwrap(),
        format: ImageFormat::Raw,
        source: None,
    };
    Cluster {
        name: ClusterName::new("homelab").unwrap(),
        base: "/".into(),
        hosts: BTreeMap::from([
            spec("store1", "10.77.0.11", Role::Server),
            spec("kvm1", "10.77.0.21", Role::Hypervisor(Driver::Qemu)),
            spec("kvm2", "10.77.0.22", Role::Hypervisor(Driver::Qemu)),
        ]),
        storage: BTreeMap::from([(gfs, StorageSpec::Gluster(gluster))]),
        images: BTreeMap::from([(web1, image)]),
        guests: BTreeMap::new(),
        migration: MigrationPolicy {
            bandwidth: None,
            max_downtime: Duration::from_millis(300),
            timeout: Duration::from_secs(600),
            on_timeout: OnTimeout::Abort,
            per_host: 2,
            per_cluster: 5,
        },
        secrets: stor::model::Secrets::default(),
    }
}
