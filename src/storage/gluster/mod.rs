//! GlusterFS: replicated volumes, FUSE mounts or libgfapi.
//!
//! Imports `spec`, `libvirt` (pool XML, its readers), `guard` (the shape of openings), the shared parts of `storage`, and `model`. This file joins the
//! parts; see `facts` for what is asked, `plan` for what is decided, `commands` for what is run.

pub(in crate::storage) mod address;
pub mod commands;
pub mod facts;
pub mod gfapi;
pub mod health;
mod plan;
pub mod probe;
pub mod spec;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use self::spec::{Arbiter, Brick, GlusterSpec};
use super::health::Health;
use super::mount_client;
use super::mount_probe;
use super::probe::Probe;
use super::spec::Access;
use super::traces::Traces;
use super::{Attached, Backend, planning};
use crate::guard::{Opening, Protocol};
use crate::model::{
    AbsPath, Answer, HostId, ImageLocation, Observations, Owned, Proposal, Query, StorageId, Unknown,
};
use crate::spec::{Cluster, ImageEntry};

/// One volume of the cluster file.
#[derive(Debug, Clone, Copy)]
pub struct Gluster<'a> {
    cluster: &'a Cluster,
    id: &'a StorageId,
    spec: &'a GlusterSpec,
}

impl<'a> Gluster<'a> {
    /// Takes the storage entry `id` of `cluster`.
    #[must_use]
    pub fn new(cluster: &'a Cluster, id: &'a StorageId, spec: &'a GlusterSpec) -> Self {
        Self { cluster, id, spec }
    }

    fn serves(&self, host: &HostId) -> bool {
        self.spec.bricks.iter().any(|brick| brick.host == *host)
    }

    fn subject<'s>(&'s self, seen: &'s Observations) -> plan::Subject<'s> {
        plan::Subject { cluster: self.cluster, id: self.id, spec: self.spec, seen }
    }

    /// The bricks that hold data: all but the last of each replica set when that is an arbiter.
    fn data_bricks(&self) -> impl Iterator<Item = &Brick> {
        let replica = self.spec.replica.max(1) as usize;
        let arbiter = self.spec.arbiter == Arbiter::Yes;
        let bricks = self.spec.bricks.iter().enumerate();
        bricks.filter(move |(index, _)| !arbiter || (index + 1) % replica != 0).map(|(_, brick)| brick)
    }
}

impl Backend for Gluster<'_> {
    fn id(&self) -> &StorageId {
        self.id
    }

    fn queries(&self, host: &HostId) -> Vec<Query> {
        let mut queries = Vec::new();
        if self.serves(host) {
            queries.extend(facts::queries(self.spec, host));
        }
        if self.cluster.is_hypervisor(host) {
            queries.extend(plan::client_queries(self.id, self.spec));
        }
        planning::batch(self.cluster, queries)
    }

    fn plan(&self, seen: &Observations) -> Proposal {
        plan::plan(self.subject(seen))
    }

    fn claims(&self, host: &HostId) -> Vec<Owned> {
        plan::claims(self.cluster, self.id, self.spec, host)
    }

    fn locate(&self, image: &ImageEntry) -> ImageLocation {
        match self.spec.access {
            Access::Mount => ImageLocation::File(image.path_in(&self.spec.mount)),
            Access::Direct => ImageLocation::Gluster {
                servers: commands::servers(self.cluster, self.spec).into_iter().map(str::to_owned).collect(),
                volume: self.id.to_string(),
                path: image.file_name(),
            },
        }
    }

    fn attached(&self, host: &HostId, seen: &Observations) -> Result<Attached, Unknown> {
        if self.spec.access == Access::Direct {
            return Ok(Attached::Remote);
        }
        let sources = commands::mount_sources(self.cluster, self.id, self.spec);
        mount_client::attached(seen, host, &self.spec.mount, commands::KERNEL_TYPE, &sources)
    }

    fn attached_queries(&self) -> Vec<Query> {
        match self.spec.access {
            Access::Direct => Vec::new(),
            Access::Mount => vec![mount_probe::mounts()],
        }
    }

    fn traces(&self) -> Traces {
        let mounted = (self.spec.access == Access::Mount).then(|| self.spec.mount.clone());
        Traces {
            paths: mounted.into_iter().collect(),
            pools: [self.id.to_string()].into(),
            volumes: [self.id.to_string()].into(),
            clients: commands::allowed(self.cluster, self.spec),
            ..Traces::default()
        }
    }

    fn openings(&self, host: &HostId) -> Vec<Opening> {
        if !self.serves(host) {
            return Vec::new();
        }
        let servers = commands::servers(self.cluster, self.spec).into_iter().map(str::to_owned);
        let hypervisors = self.cluster.hypervisors().map(|host| host.address.clone());
        // What the file lets use the volume besides; patterns name nobody in particular.
        let others = self.spec.allow.iter().filter(|address| address.parse::<Ipv4Addr>().is_ok()).cloned();
        let peers: BTreeSet<String> = servers.chain(hypervisors).chain(others).collect();
        let opening =
            |(first, last), purpose, peers| Opening { protocol: Protocol::Tcp, first, last, purpose, peers };
        vec![
            opening(commands::DAEMON_PORTS, "glusterd", peers.clone()),
            opening(commands::BRICK_PORTS, "bricks", peers),
        ]
    }

    /// A mount through FUSE is `fusefs_t`, which guests may use only with this boolean (virt_selinux(8)).
    fn booleans(&self, host: &HostId) -> &'static [&'static str] {
        match self.cluster.is_hypervisor(host) && self.spec.access == Access::Mount {
            true => &["virt_use_fusefs"],
            false => &[],
        }
    }

    fn backing(&self, image: &ImageEntry) -> Vec<(HostId, AbsPath)> {
        self.data_bricks().map(|brick| (brick.host.clone(), image.path_in(&brick.path))).collect()
    }

    fn probe(&self) -> Probe {
        probe::describe(self.cluster, self.id, self.spec)
    }

    fn health_query(&self) -> (Vec<HostId>, Query) {
        (commands::server_ids(self.spec).into_iter().cloned().collect(), health::query(self.id))
    }

    fn read_health(&self, answer: &Answer) -> Health {
        health::read(self.id, answer)
    }
}
