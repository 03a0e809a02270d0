//! iSCSI: a target of one host, whose LUNs are the images; hypervisors reach them with QEMU's libiscsi, or their kernels log in.
//!
//! Imports `spec`, `libvirt` (secrets), the shared parts of `storage`, and `model`. This file joins the parts; see `facts` for
//! what is asked, `plan` for what is decided, `commands` for what is run, `wire` for the look at the target with an initiator
//! of its own.

pub(in crate::storage) mod address;
pub mod commands;
pub mod facts;
pub mod health;
mod plan;
pub mod probe;
pub mod spec;
pub mod wire;

use std::collections::BTreeSet;

use self::spec::{IscsiAccess, IscsiProvider, IscsiSpec};
use super::health::Health;
use super::probe::Probe;
use super::traces::Traces;
use super::{Attached, Backend, planning};
use crate::guard::{Opening, Protocol};
use crate::model::{
    AbsPath, Answer, HostId, ImageLocation, Observations, Owned, Proposal, Query, StorageId, Unknown,
};
use crate::spec::{Cluster, ImageEntry};

/// One target of the cluster file.
#[derive(Debug, Clone, Copy)]
pub struct Iscsi<'a> {
    cluster: &'a Cluster,
    id: &'a StorageId,
    spec: &'a IscsiSpec,
}

impl<'a> Iscsi<'a> {
    /// Takes the storage entry `id` of `cluster`.
    #[must_use]
    pub fn new(cluster: &'a Cluster, id: &'a StorageId, spec: &'a IscsiSpec) -> Self {
        Self { cluster, id, spec }
    }
}

impl Backend for Iscsi<'_> {
    fn id(&self) -> &StorageId {
        self.id
    }

    fn queries(&self, host: &HostId) -> Vec<Query> {
        let mut queries = Vec::new();
        if self.spec.server == *host {
            queries.extend(facts::queries(self.cluster, self.id, self.spec));
        }
        if self.cluster.is_hypervisor(host) {
            queries.extend(plan::client_queries(self.cluster, self.id, self.spec));
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
        #[expect(
            clippy::expect_used,
            reason = "a file whose image is no LUN of its storage is refused when it is read"
        )]
        let lun = self.spec.lun(&image.id).expect("an image on iSCSI is a LUN");
        commands::location(self.cluster, self.id, self.spec, lun)
    }

    fn attached(&self, _host: &HostId, _seen: &Observations) -> Result<Attached, Unknown> {
        Ok(Attached::Remote)
    }

    fn attached_queries(&self) -> Vec<Query> {
        Vec::new()
    }

    fn traces(&self) -> Traces {
        let of_session = self.spec.luns.iter().filter(|_| self.spec.access == IscsiAccess::Session);
        let devices = of_session
            .map(|lun| commands::open_iscsi::device(self.cluster, self.id, self.spec, lun).to_string());
        Traces {
            pools: [self.id.to_string()].into(),
            devices: devices.collect(),
            targets: [self.spec.iqn.to_string()].into(),
            clients: commands::clients(self.cluster, self.spec),
            ..Traces::default()
        }
    }

    fn openings(&self, host: &HostId) -> Vec<Opening> {
        if self.spec.server != *host {
            return Vec::new();
        }
        let ports: BTreeSet<u16> =
            commands::portals(self.cluster, self.spec).iter().map(|portal| portal.port).collect();
        let opening = |port| Opening {
            protocol: Protocol::Tcp,
            first: port,
            last: port,
            purpose: "iscsi",
            peers: commands::clients(self.cluster, self.spec),
        };
        ports.into_iter().map(opening).collect()
    }

    fn booleans(&self, _host: &HostId) -> &'static [&'static str] {
        &[]
    }

    fn backing(&self, image: &ImageEntry) -> Vec<(HostId, AbsPath)> {
        let lun = self.spec.lun(&image.id);
        lun.map(|lun| (self.spec.server.clone(), lun.backing.clone())).into_iter().collect()
    }

    /// The LUNs of a target are made with it.
    fn makes_images(&self) -> bool {
        true
    }

    fn probe(&self) -> Probe {
        probe::describe(self.cluster, self.id, self.spec)
    }

    fn health_query(&self) -> (Vec<HostId>, Query) {
        let query = match self.spec.provider {
            IscsiProvider::Lio => commands::lio::show(),
            IscsiProvider::Tgt => commands::tgt::targets(),
            IscsiProvider::Auto => commands::shown(self.spec),
        };
        (vec![self.spec.server.clone()], query)
    }

    fn read_health(&self, answer: &Answer) -> Health {
        health::read(self.spec, answer)
    }
}
