//! How an NFS export is proved. Pure; the look at the server is in `wire`.
//!
//! Imports `spec`, `model` and `storage::probe`.

use super::commands;
use super::spec::NfsSpec;
use crate::model::StorageId;
use crate::spec::Cluster;
use crate::storage::probe::{Client, DirectDirectory, Keeper, MountedDirectory, NfsExport, Probe, Way};

/// Describes how an export is proved.
#[must_use]
pub fn describe(cluster: &Cluster, id: &StorageId, spec: &NfsSpec) -> Probe {
    let server = cluster.address_of(&spec.server).to_owned();
    let way = match &spec.mount {
        Some(mount) => Way::Mounted(MountedDirectory {
            path: mount.path.clone(),
            fs_type: mount.version.kernel_type(),
            sources: commands::mount_sources(cluster, spec).into_iter().collect(),
            pool: id.as_str().to_owned(),
            identity: None,
            split_brain: None,
        }),
        None => {
            let (uid, gid) = spec.squash.caller();
            Way::Direct(DirectDirectory {
                before: format!("nfs://{server}{}/", spec.path),
                after: format!("?uid={uid}&gid={gid}"),
                kind: "NFS",
            })
        }
    };
    let export = NfsExport { server, path: spec.path.clone() };
    let allowed = commands::clients(cluster, spec).into_iter().collect();
    Probe {
        storage: id.clone(),
        way,
        client: Some(Client::Nfs { export, allowed, v3: spec.protocols.v3 }),
        keeper: Some(Keeper { host: spec.server.clone(), directory: spec.path.clone() }),
    }
}
