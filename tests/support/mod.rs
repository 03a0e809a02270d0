//! A fleet that exists only in memory: hosts with packages, units, mounts, GlusterFS and libvirt that keep state.
//!
//! Emulates what stor's commands do on real hosts, so that observing, planning and executing can be run to their end,
//! broken off anywhere, and run again. It holds no expectations: a test looks at the state.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

pub mod block;
pub mod breaking;
pub mod debian;
pub mod gluster;
pub mod initiator;
pub mod lio;
pub mod nfs;
pub mod show;
pub mod synthetic;
pub mod tgt;
pub mod tools;
pub mod virsh;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use stor::host::fake::{FakeHost, Faults};
use stor::host::{Fleet, Host};
use stor::libvirt::fake::FakeConnector;
use stor::model::{AbsPath, HostId, Observations, Query};
use stor::spec::Cluster;
use stor::storage::iscsi::spec::IscsiProvider;
use stor::storage::spec::StorageSpec;

use breaking::{Breaker, Breaking};
use debian::Debian;
use gluster::Pool;

/// All hosts of a cluster file, and what they share.
pub struct World {
    pub hosts: BTreeMap<HostId, Arc<FakeHost>>,
    pub debians: BTreeMap<HostId, Arc<Mutex<Debian>>>,
    pub pool: Arc<Mutex<Pool>>,
    pub nfs: Arc<Mutex<nfs::Servers>>,
    pub tgt: Arc<Mutex<tgt::Servers>>,
    pub libvirt: FakeConnector,
    pub breaker: Breaker,
}

pub fn path(text: &str) -> AbsPath {
    AbsPath::new(text).unwrap()
}

pub fn host(name: &str) -> HostId {
    name.parse().unwrap()
}

pub fn cluster(text: &str) -> Cluster {
    stor::spec::parse(text, Path::new("/"), "cluster.yaml").unwrap_or_else(|error| panic!("{error:?}"))
}

/// The cluster file that most tests plan for.
pub const CLUSTER: &str = include_str!("../../fixtures/plans/cluster.yaml");

impl World {
    /// Bare hosts: Debian, sshd, and libvirt on the hypervisors.
    pub fn bare(cluster: &Cluster) -> Self {
        let libvirt = FakeConnector::new(&cluster.hosts);
        let pool = Arc::new(Mutex::new(Pool::new(cluster)));
        let nfs = Arc::new(Mutex::new(nfs::Servers::new(cluster)));
        // Where the file names the kernel's target, the kernels have one.
        let of_kernel = |spec: &StorageSpec| matches!(spec, StorageSpec::Iscsi(spec) if spec.provider == IscsiProvider::Lio);
        let kernels_have_lio = cluster.storage.values().any(of_kernel);
        let tgt = Arc::new(Mutex::new(tgt::Servers { kernels_have_lio, ..tgt::Servers::default() }));
        let breaker = Breaker::default();
        let mut world = Self {
            hosts: BTreeMap::new(),
            debians: BTreeMap::new(),
            pool,
            nfs,
            tgt,
            libvirt,
            breaker: breaker.clone(),
        };
        for spec in cluster.hosts.values() {
            let debian = Debian::new(
                spec.id.clone(),
                spec.role.is_hypervisor().then(|| world.libvirt.clone()),
                Arc::clone(&world.pool),
                Arc::clone(&world.nfs),
                Arc::clone(&world.tgt),
            );
            let mut debian = debian;
            debian.addresses.insert(spec.address.clone());
            let debian = Arc::new(Mutex::new(debian));
            let machine = debian::Shared(Arc::clone(&debian));
            let fake = FakeHost::new(spec.id.clone(), Box::new(machine), Faults::default());
            fake.files(|files| debian::furnish(&spec.id, files));
            world.hosts.insert(spec.id.clone(), Arc::new(fake));
            world.debians.insert(spec.id.clone(), debian);
        }
        let strike = breaker.clone();
        world
            .libvirt
            .inject(Some(Arc::new(move |host, action, moment| strike.libvirt(host, action, moment))));
        world
    }

    /// The hosts as stor reaches them; one at a time, so that effects have one order.
    pub fn fleet(&self) -> Fleet {
        let hosts = self.hosts.values().map(|host| {
            let breaking = Breaking { host: Arc::clone(host), breaker: self.breaker.clone() };
            Arc::new(breaking) as Arc<dyn Host>
        });
        Fleet::new(hosts.collect::<Vec<_>>(), 1)
    }

    /// Asks all hosts.
    pub fn observe(&self, batches: &BTreeMap<HostId, Vec<Query>>) -> Observations {
        stor::observe::observe(&self.fleet(), batches)
    }

    /// Takes a host off the network, or puts it back.
    pub fn set_down(&self, name: &str, down: bool) {
        self.hosts[&host(name)].set_down(down.then_some("No route to host"));
    }

    /// Everything that a person could find on the hosts, as text; equal texts are equal fleets.
    pub fn state(&self) -> String {
        let mut out = String::new();
        for (id, fake) in &self.hosts {
            let debian = self.debians[id].lock().unwrap();
            fake.files(|files| {
                debian.mirror(files);
                out.push_str(&format!("== {id}\n{debian:#?}\n"));
                for (path, file) in files.iter() {
                    let text = String::from_utf8_lossy(&file.content);
                    out.push_str(&format!("{path} {:o} {text:?}\n", file.mode));
                }
                let all = format!("{files:?}");
                let directories = all.rsplit("directories: ").next().unwrap().split("AbsPath(");
                directories.for_each(|path| {
                    out.push_str(&format!("directory {}\n", path.trim_end_matches([',', ' ', ')', '}'])))
                });
            });
            self.libvirt.daemon(id, |daemon| {
                out.push_str(&format!("{:#?}\n{:#?}\n", daemon.domains, daemon.pools));
                for (id, secret) in &daemon.secrets {
                    let value = secret.value.as_ref().map(stor::model::Secret::reveal);
                    out.push_str(&format!("secret {id} {value:?} {}\n", secret.xml));
                }
            });
        }
        out.push_str(&format!("{:#?}\n{:#?}\n", self.pool.lock().unwrap(), self.nfs.lock().unwrap()));
        out.push_str(&format!("{:#?}\n", self.tgt.lock().unwrap()));
        // How often libvirt has read a pool is no state of anything.
        out.lines().filter(|line| !line.contains("refreshed: ")).map(|line| format!("{line}\n")).collect()
    }
}
