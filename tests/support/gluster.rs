//! GlusterFS: servers, the pools that they are in, and volumes with their files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use stor::host::fake::{File, answer, failure};
use stor::model::{AbsPath, Answer, HostId};
use stor::spec::Cluster;

/// All servers of a fleet.
#[derive(Debug, Default)]
pub struct Pool {
    addresses: BTreeMap<HostId, String>,
    /// Servers whose glusterd runs.
    pub running: BTreeSet<HostId>,
    /// For each server, the others of its pool.
    pub peers: BTreeMap<HostId, BTreeSet<HostId>>,
    pub volumes: BTreeMap<String, Volume>,
}

/// One volume.
#[derive(Debug, Clone)]
pub struct Volume {
    pub bricks: Vec<(HostId, AbsPath)>,
    pub replica: String,
    pub arbiter: String,
    pub started: Option<bool>,
    pub options: BTreeMap<String, String>,
    pub files: BTreeMap<String, File>,
}

/// The options of the group virt, shortened.
pub const GROUP: &str = "performance.quick-read=off\nfeatures.shard=on\nnetwork.ping-timeout=20\n";

fn uuid(host: &HostId) -> String {
    let digits: String = host.as_str().bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("00000000-0000-4000-8000-{:0>12}", &digits[..digits.len().min(12)])
}

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n<cliOutput><opRet>0</opRet><opErrno>0</opErrno><opErrstr/>";

impl Pool {
    pub fn new(cluster: &Cluster) -> Self {
        let addresses = cluster.hosts.values().map(|host| (host.id.clone(), host.address.clone()));
        Self { addresses: addresses.collect(), ..Self::default() }
    }

    fn by_address(&self, address: &str) -> Option<HostId> {
        self.addresses.iter().find(|(_, other)| *other == address).map(|(id, _)| id.clone())
    }

    fn members(&self, host: &HostId) -> BTreeSet<HostId> {
        let mut all = self.peers.get(host).cloned().unwrap_or_default();
        all.insert(host.clone());
        all
    }

    fn volumes_of(&self, host: &HostId) -> BTreeSet<String> {
        let members = self.members(host);
        let here = |volume: &Volume| volume.bricks.iter().any(|(brick, _)| members.contains(brick));
        self.volumes.iter().filter(|(_, volume)| here(volume)).map(|(name, _)| name.clone()).collect()
    }

    /// Bricks on a host, of volumes that exist.
    pub fn bricks_on(&self, host: &HostId) -> Vec<(AbsPath, BTreeMap<String, File>)> {
        let all =
            self.volumes.values().flat_map(|volume| volume.bricks.iter().map(move |brick| (volume, brick)));
        all.filter(|(_, (on, _))| on == host)
            .map(|(volume, (_, path))| (path.clone(), volume.files.clone()))
            .collect()
    }

    /// Runs `gluster` on a host.
    pub fn run(&mut self, host: &HostId, args: &[&str]) -> Answer {
        if !self.running.contains(host) {
            return failure(1, "Connection failed. Please check if gluster daemon is operational.\n");
        }
        let args: Vec<&str> = args.iter().copied().filter(|arg| *arg != "--mode=script").collect();
        match args.as_slice() {
            ["--xml", "pool", "list"] => answer(0, self.pool_list(host)),
            ["--xml", "volume", "info"] => answer(0, self.info(host)),
            ["peer", "probe", address] => self.probe(host, address),
            ["peer", "detach", address] => self.detach(host, address),
            ["volume", "create", name, words @ ..] => self.create(host, name, words),
            ["volume", "set", name, words @ ..] => self.set(name, words),
            ["volume", "reset", name, option] => {
                self.volumes.get_mut(*name).unwrap().options.remove(*option);
                answer(0, "")
            }
            ["volume", "start", name] => self.start(host, name),
            ["--xml", "volume", "stop", name, "force"] => {
                if let Some(volume) = self.volumes.get_mut(*name) {
                    volume.started = volume.started.map(|_| false);
                }
                answer(0, "")
            }
            ["volume", "delete", name] => self.delete(host, name),
            other => panic!("gluster {other:?} is not emulated"),
        }
    }

    /// Waits for the servers of the pool; here they meet at once or never.
    pub fn meet(&self, host: &HostId, wanted: usize) -> Answer {
        let connected = self.members(host).iter().filter(|member| self.running.contains(member)).count();
        if connected >= wanted { answer(0, "") } else { failure(1, "servers are not connected\n") }
    }

    fn pool_list(&self, host: &HostId) -> String {
        let mut out = format!("{HEAD}<peerStatus>");
        for peer in self.peers.get(host).into_iter().flatten() {
            let address = &self.addresses[peer];
            let connected = u8::from(self.running.contains(peer));
            write!(
                out,
                "<peer><uuid>{}</uuid><hostname>{address}</hostname><hostnames><hostname>{address}</hostname></hostnames>\
                 <connected>{connected}</connected><state>3</state><stateStr>Peer in Cluster</stateStr></peer>",
                uuid(peer)
            )
            .unwrap();
        }
        writeln!(
            out,
            "<peer><uuid>{}</uuid><hostname>localhost</hostname><connected>1</connected></peer></peerStatus></cliOutput>",
            uuid(host)
        )
        .unwrap();
        out
    }

    fn info(&self, host: &HostId) -> String {
        let mut out = format!("{HEAD}<volInfo><volumes>");
        for name in self.volumes_of(host) {
            let volume = &self.volumes[&name];
            let status = match volume.started {
                None => 0,
                Some(true) => 1,
                Some(false) => 2,
            };
            write!(
                out,
                "<volume><name>{name}</name><status>{status}</status><replicaCount>{}</replicaCount>\
                 <arbiterCount>{}</arbiterCount><bricks>",
                volume.replica, volume.arbiter
            )
            .unwrap();
            for (brick, path) in &volume.bricks {
                let full = format!("{}:{path}", self.addresses[brick]);
                write!(out, "<brick uuid=\"{}\">{full}<name>{full}</name></brick>", uuid(brick)).unwrap();
            }
            out.push_str("</bricks><options>");
            for (name, value) in &volume.options {
                write!(out, "<option><name>{name}</name><value>{value}</value></option>").unwrap();
            }
            out.push_str("</options></volume>");
        }
        out + "<count>1</count></volumes></volInfo></cliOutput>\n"
    }

    fn probe(&mut self, host: &HostId, address: &str) -> Answer {
        let Some(other) = self.by_address(address).filter(|other| self.running.contains(other)) else {
            return failure(
                1,
                "peer probe: failed: Probe returned with Transport endpoint is not connected\n",
            );
        };
        if self.members(host).contains(&other) {
            return answer(0, "peer probe: Host is already in peer list\n");
        }
        let mut all = self.members(host);
        all.extend(self.members(&other));
        for one in &all {
            let others = all.iter().filter(|id| *id != one).cloned().collect();
            self.peers.insert(one.clone(), others);
        }
        answer(0, "peer probe: success\n")
    }

    fn detach(&mut self, host: &HostId, address: &str) -> Answer {
        let Some(other) = self.by_address(address) else { return failure(1, "peer detach: failed\n") };
        if self.volumes.values().any(|volume| volume.bricks.iter().any(|(brick, _)| *brick == other)) {
            return failure(1, "peer detach: failed: Peer hosts one or more bricks.\n");
        }
        if !self.running.contains(&other) || !self.members(host).contains(&other) {
            return failure(1, format!("peer detach: failed: {address} is not part of cluster or down\n"));
        }
        self.peers.remove(&other);
        self.peers.values_mut().for_each(|peers| _ = peers.remove(&other));
        self.peers.retain(|_, peers| !peers.is_empty());
        answer(0, "peer detach: success\n")
    }

    /// Tells whether glusterd still keeps this peer on disk.
    pub fn keeps_peer(&self, host: &HostId, address: &str) -> bool {
        self.by_address(address)
            .is_some_and(|other| self.peers.get(host).is_some_and(|peers| peers.contains(&other)))
    }

    fn create(&mut self, host: &HostId, name: &str, words: &[&str]) -> Answer {
        if self.volumes.contains_key(name) {
            return failure(1, format!("volume create: {name}: failed: Volume {name} already exists\n"));
        }
        let after =
            |word: &str| words.iter().position(|found| *found == word).and_then(|at| words.get(at + 1));
        let members = self.members(host);
        let mut bricks = Vec::new();
        for word in words.iter().filter(|word| word.contains(":/")) {
            let (address, path) = word.split_once(':').unwrap();
            match self.by_address(address).filter(|id| members.contains(id) && self.running.contains(id)) {
                Some(id) => bricks.push((id, AbsPath::new(path).unwrap())),
                None => {
                    return failure(
                        1,
                        format!(
                            "volume create: {name}: failed: Host {address} is not in ' Peer in Cluster' state\n"
                        ),
                    );
                }
            }
        }
        let volume = Volume {
            bricks,
            replica: (*after("replica").unwrap_or(&"1")).to_owned(),
            arbiter: (*after("arbiter").unwrap_or(&"0")).to_owned(),
            started: None,
            options: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        self.volumes.insert(name.to_owned(), volume);
        answer(0, format!("volume create: {name}: success: please start the volume to access data\n"))
    }

    fn set(&mut self, name: &str, words: &[&str]) -> Answer {
        let Some(volume) = self.volumes.get_mut(name) else {
            return failure(1, format!("volume set: failed: Volume {name} does not exist\n"));
        };
        if words == ["group", "virt"] {
            let lines = GROUP.lines().filter_map(|line| line.split_once('='));
            volume.options.extend(lines.map(|(key, value)| (key.to_owned(), value.to_owned())));
        } else {
            let pairs = words.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned()));
            volume.options.extend(pairs);
        }
        answer(0, "volume set: success\n")
    }

    fn start(&mut self, host: &HostId, name: &str) -> Answer {
        if !self.volumes_of(host).contains(name) {
            return failure(1, format!("volume start: {name}: failed: Volume {name} does not exist\n"));
        }
        let volume = self.volumes.get_mut(name).unwrap();
        if volume.started == Some(true) {
            return failure(1, format!("volume start: {name}: failed: Volume {name} already started\n"));
        }
        volume.started = Some(true);
        answer(0, format!("volume start: {name}: success\n"))
    }

    fn delete(&mut self, host: &HostId, name: &str) -> Answer {
        if !self.volumes_of(host).contains(name) {
            return failure(1, format!("volume delete: {name}: failed: Volume {name} does not exist\n"));
        }
        let volume = &self.volumes[name];
        if volume.started == Some(true) {
            return failure(1, format!("volume delete: {name}: failed: Volume {name} has been started\n"));
        }
        if let Some((down, _)) = volume.bricks.iter().find(|(brick, _)| !self.running.contains(brick)) {
            return failure(
                1,
                format!("volume delete: {name}: failed: Some of the peers are down: {down}\n"),
            );
        }
        self.volumes.remove(name);
        answer(0, format!("volume delete: {name}: success\n"))
    }

    /// Tells whether glusterd still keeps this volume on disk.
    pub fn keeps_volume(&self, host: &HostId, name: &str) -> bool {
        self.volumes_of(host).contains(name)
    }

    /// What glusterd keeps, as `ls` of its two directories shows it.
    pub fn kept(&self, host: &HostId) -> String {
        let peers: Vec<String> = self.peers.get(host).into_iter().flatten().map(uuid).collect();
        let volumes: Vec<String> = self.volumes_of(host).into_iter().collect();
        format!(
            "/var/lib/glusterd/peers:\n{}\n\n/var/lib/glusterd/vols:\n{}\n",
            peers.join("\n"),
            volumes.join("\n")
        )
    }

    /// The volume behind a mount's source.
    pub fn mountable(&self, source: &str) -> Option<&str> {
        let (address, name) = source.split_once(":/")?;
        let server = self.by_address(address).filter(|server| self.running.contains(server));
        let (name, volume) = self.volumes.get_key_value(name)?;
        (server.is_some() && volume.started == Some(true)).then_some(name.as_str())
    }
}
