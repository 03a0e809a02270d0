//! NFS: a directory of one host, exported by the kernel's server or nfs-ganesha; mounted by the hypervisors, or reached by
//! QEMU's libnfs.
//!
//! Imports `spec`, `libvirt` (pool XML, its readers), the shared parts of `storage`, and `model`. This file joins the
//! parts; see `facts` for what is asked, `plan` for what is decided, `commands` for what is run, `wire` for the look at the
//! server with a client of NFSv3.

pub(in crate::storage) mod address;
pub mod commands;
pub mod facts;
pub mod health;
mod plan;
pub mod probe;
pub mod spec;
pub mod wire;

use self::spec::NfsSpec;
use super::health::Health;
use super::probe::Probe;
use super::traces::Traces;
use super::{Attached, Backend, mount_client, mount_probe, planning};
use crate::guard::Opening;
use crate::model::{
    AbsPath, Answer, HostId, ImageLocation, Observations, Owned, Proposal, Query, StorageId, Unknown,
};
use crate::spec::{Cluster, ImageEntry};

/// One export of the cluster file.
#[derive(Debug, Clone, Copy)]
pub struct Nfs<'a> {
    cluster: &'a Cluster,
    id: &'a StorageId,
    spec: &'a NfsSpec,
}

impl<'a> Nfs<'a> {
    /// Takes the storage entry `id` of `cluster`.
    #[must_use]
    pub fn new(cluster: &'a Cluster, id: &'a StorageId, spec: &'a NfsSpec) -> Self {
        Self { cluster, id, spec }
    }
}

impl Backend for Nfs<'_> {
    fn id(&self) -> &StorageId {
        self.id
    }

    fn queries(&self, host: &HostId) -> Vec<Query> {
        let mut queries = Vec::new();
        if self.spec.server == *host {
            queries.extend(facts::queries(self.cluster, self.id, self.spec));
        }
        if self.cluster.is_hypervisor(host) {
            queries.extend(plan::client_queries(self.id, self.spec));
        }
        planning::batch(self.cluster, queries)
    }

    fn plan(&self, seen: &Observations) -> Proposal {
        plan::plan(plan::Subject { cluster: self.cluster, id: self.id, spec: self.spec, seen })
    }

    fn claims(&self, host: &HostId) -> Vec<Owned> {
        plan::claims(self.cluster, self.id, self.spec, host)
    }

    fn locate(&self, image: &ImageEntry) -> ImageLocation {
        match &self.spec.mount {
            Some(mount) => ImageLocation::File(image.path_in(&mount.path)),
            None => {
                let (uid, gid) = self.spec.squash.caller();
                let server = self.cluster.address_of(&self.spec.server).to_owned();
                ImageLocation::Nfs { server, path: image.path_in(&self.spec.path), uid, gid }
            }
        }
    }

    fn attached(&self, host: &HostId, seen: &Observations) -> Result<Attached, Unknown> {
        let Some(mount) = &self.spec.mount else { return Ok(Attached::Remote) };
        let sources = commands::mount_sources(self.cluster, self.spec);
        mount_client::attached(seen, host, &mount.path, mount.version.kernel_type(), &sources)
    }

    fn attached_queries(&self) -> Vec<Query> {
        self.spec.mount.iter().map(|_| mount_probe::mounts()).collect()
    }

    fn traces(&self) -> Traces {
        let mounted = self.spec.mount.as_ref().map(|mount| mount.path.clone());
        Traces {
            paths: mounted.into_iter().chain([self.spec.path.clone()]).collect(),
            pools: [self.id.to_string()].into(),
            sources: commands::mount_sources(self.cluster, self.spec),
            clients: commands::clients(self.cluster, self.spec),
            ..Traces::default()
        }
    }

    fn openings(&self, host: &HostId) -> Vec<Opening> {
        if self.spec.server != *host {
            return Vec::new();
        }
        let peers = commands::clients(self.cluster, self.spec);
        let opening = |(protocol, port, purpose)| Opening {
            protocol,
            first: port,
            last: port,
            purpose,
            peers: peers.clone(),
        };
        commands::ports(self.spec.protocols).into_iter().map(opening).collect()
    }

    /// A mounted export is `nfs_t`, which guests may use only with this boolean (virt_selinux(8)).
    fn booleans(&self, host: &HostId) -> &'static [&'static str] {
        if self.cluster.is_hypervisor(host) && self.spec.mount.is_some() { &["virt_use_nfs"] } else { &[] }
    }

    fn backing(&self, image: &ImageEntry) -> Vec<(HostId, AbsPath)> {
        vec![(self.spec.server.clone(), image.path_in(&self.spec.path))]
    }

    fn made_on(&self, image: &ImageEntry) -> Option<(HostId, AbsPath)> {
        let path = image.path_in(&self.spec.path);
        self.spec.mount.is_none().then(|| (self.spec.server.clone(), path))
    }

    fn probe(&self) -> Probe {
        probe::describe(self.cluster, self.id, self.spec)
    }

    fn health_query(&self) -> (Vec<HostId>, Query) {
        (vec![self.spec.server.clone()], health::query(self.cluster, self.id, self.spec))
    }

    fn read_health(&self, answer: &Answer) -> Health {
        health::read(self.cluster, self.spec, answer)
    }
}
