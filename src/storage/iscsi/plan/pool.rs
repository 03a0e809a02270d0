//! The libvirt pool of a target's LUNs on a hypervisor: of the kind `iscsi` where its kernel logs in, which it always has; of the
//! kind `iscsi-direct` where QEMU does, if the file wants one.

use super::Subject;
use crate::libvirt::{pool_xml, pools, secrets};
use crate::model::{Difference, Effect, HostId, Observations, Query, Step, StorageId};
use crate::storage::iscsi::commands::{self, open_iscsi};
use crate::storage::iscsi::spec::{IscsiAccess, IscsiSpec};
use crate::storage::packages::Need;
use crate::storage::planning::{Stop, refuse};
use crate::storage::pool::{self, Pool};

/// A kind of pools that libvirt has a backend of its own for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// Its name.
    pub name: &'static str,
    /// The package with the backend.
    pub package: Need,
}

/// The kind of pool that a target has; `None`: it has no pool.
pub(super) fn kind(spec: &IscsiSpec) -> Option<Kind> {
    match spec.access {
        IscsiAccess::Session => Some(Kind { name: "iscsi", package: commands::SESSION_POOL }),
        IscsiAccess::Direct if spec.pool => {
            Some(Kind { name: "iscsi-direct", package: commands::DIRECT_POOL })
        }
        IscsiAccess::Direct => None,
    }
}

/// What a hypervisor is asked.
pub(super) fn queries(id: &StorageId, spec: &IscsiSpec) -> Vec<Query> {
    match kind(spec) {
        Some(_) => vec![pools::capabilities(), pool::query(id)],
        None => Vec::new(),
    }
}

impl Kind {
    /// Whether libvirt lacks the backend. Older daemons, and one that is just starting, do not tell; then the pool's own step does.
    pub fn is_missing(&self, seen: &Observations, host: &HostId) -> bool {
        let told = seen.answer(host, &pools::capabilities()).ok();
        told.and_then(|told| pools::supports(told, self.name)) == Some(false)
    }

    /// Why libvirt has to load the backend, and how.
    pub fn load(&self) -> (String, Difference, Effect) {
        let title = format!("have libvirt load its backend of {} pools", self.name);
        let why = Difference::new(format!("libvirt.pools.{}", self.name), "supported", "not supported");
        (title, why, Effect::Run(vec![open_iscsi::reload_libvirt()]))
    }
}

/// The XML of the pool that a hypervisor is to have.
pub(super) fn xml(subject: &Subject<'_>, host: &HostId) -> String {
    let Subject { cluster, id, spec, .. } = *subject;
    let portal = commands::portal(cluster, spec);
    let usage = secrets::usage(&cluster.name, id);
    let user = spec.chap.as_ref().map(|chap| chap.user.to_string());
    let login = user.as_deref().map(|user| pool_xml::ChapLogin { user, usage: &usage });
    let target = pool_xml::IscsiSource {
        address: &portal.address,
        port: portal.port,
        target: spec.iqn.as_str(),
        login,
    };
    match spec.access {
        IscsiAccess::Session => pool_xml::iscsi_pool(id, target),
        IscsiAccess::Direct => {
            let initiator = commands::host_initiator(&cluster.name, spec, Some(host));
            pool_xml::iscsi_direct_pool(id, target, &initiator)
        }
    }
}

/// Plans the pool of a hypervisor where QEMU logs in. Guests do not depend on it: they name their LUNs themselves.
pub(super) fn direct(subject: &Subject<'_>, host: &HostId) -> Result<Option<Step>, Stop> {
    let Subject { cluster, id, spec, seen } = *subject;
    let xml = xml(subject, host);
    let pool = Pool { cluster, id, seen, host, xml: &xml };
    let Some(shown) = pool.shown()? else { return pool.plan(Vec::new()) };
    if shown.active && shown.definition.kind == "iscsi" && pool.is_own()? {
        return refuse(
            format!("host {host}: pool {id} is active and has the LUNs by its kernel's session"),
            format!(
                "shut the guests down that use it, stop it (`virsh pool-destroy {id}`, which logs out), then apply again"
            ),
        );
    }
    // libvirt's own sizes, as it read them last: it takes the number of the last block for the number of blocks.
    let bytes: u64 = spec.luns.iter().map(|lun| lun.size.bytes()).sum();
    let blocks_short = spec.luns.len() as u64 * pool_xml::ISCSI_BLOCK;
    let current = shown.capacity.is_none_or(|read| read == bytes || read == bytes - blocks_short);
    let why = (shown.active && !current).then(|| {
        let read = shown.capacity.unwrap_or_default();
        Difference::new(pool.field("volumes"), format!("{bytes} bytes"), format!("{read} bytes, read before"))
    });
    pool.plan(why.into_iter().collect())
}
