//! How a target's LUNs are proved. Pure; the look at the target is in `wire`.
//!
//! Imports `spec`, `model` and `storage::probe`.

use super::commands::{self, open_iscsi};
use super::spec::{IscsiAccess, IscsiSpec, LunSpec, Portal};
use crate::model::StorageId;
use crate::spec::Cluster;
use crate::storage::probe::{Client, KernelSessions, Login, Lun, LunPool, LunTarget, Probe, Way};

/// Describes how a target's LUNs are proved.
#[must_use]
pub fn describe(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec) -> Probe {
    let portal = commands::portal(cluster, spec);
    let login = spec.chap.as_ref().map(|chap| Login {
        user: chap.user.to_string(),
        secret: cluster.secrets.get(&chap.secret).cloned(),
    });
    let luns = spec.luns.iter().map(|lun| {
        let serial = commands::serial(&cluster.name, id, lun);
        (format!("{}.img", lun.name), Lun { number: lun.number, serial, backing: lun.backing.clone() })
    });
    let hosts = cluster
        .hypervisors()
        .map(|host| (host.id.clone(), commands::host_initiator(&cluster.name, spec, Some(&host.id))));
    let target = LunTarget {
        server: spec.server.clone(),
        address: portal.address,
        port: portal.port,
        iqn: spec.iqn.to_string(),
        luns: luns.collect(),
        login,
        initiators: hosts.collect(),
        initiator: commands::host_initiator(&cluster.name, spec, None),
        kernel: (spec.access == IscsiAccess::Session).then(|| kernel(cluster, id, spec)),
        pool: pool(id, spec),
    };
    let allowed = commands::clients(cluster, spec).into_iter().collect();
    Probe {
        storage: id.clone(),
        way: Way::Luns(Box::new(target.clone())),
        client: Some(Client::Iscsi { target: Box::new(target), allowed }),
        keeper: None,
    }
}

fn kernel(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec) -> KernelSessions {
    let device = |lun: &LunSpec| (format!("{}.img", lun.name), open_iscsi::device(cluster, id, spec, lun));
    KernelSessions {
        portals: commands::portals(cluster, spec).iter().map(Portal::to_string).collect(),
        devices: spec.luns.iter().map(device).collect(),
    }
}

fn pool(id: &StorageId, spec: &IscsiSpec) -> Option<LunPool> {
    let path = match spec.access {
        IscsiAccess::Session => Some(open_iscsi::pool_path()),
        IscsiAccess::Direct if spec.pool => None,
        IscsiAccess::Direct => return None,
    };
    Some(LunPool { name: id.to_string(), path })
}
