//! The libvirt pool of a storage on one hypervisor: whether it is as it should be, and the step that makes it so. Pure.
//!
//! Shared by every backend that has a pool. Imports `planning` (why a part stops), `libvirt` (pool XML, readers), `spec` and
//! `model`. Which pool a storage needs is decided by its backend.

use super::planning::{Stop, refuse};
use crate::libvirt::pools::{PoolSeen, Pools};
use crate::libvirt::{pool_xml, pools};
use crate::model::{
    Difference, Effect, HostId, Observations, Owned, OwnedKind, Query, Record, ResourceId, ResourceKind,
    Step, StorageId, Wave,
};
use crate::spec::Cluster;

/// One pool, which is called like its storage.
#[derive(Debug, Clone, Copy)]
pub struct Pool<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The storage.
    pub id: &'a StorageId,
    /// What the hosts showed.
    pub seen: &'a Observations,
    /// The hypervisor.
    pub host: &'a HostId,
    /// Its definition.
    pub xml: &'a str,
}

/// What a hypervisor is asked.
#[must_use]
pub fn query(id: &StorageId) -> Query {
    pools::query([id.as_str()])
}

/// What the record of a hypervisor holds.
#[must_use]
pub fn claim(id: &StorageId) -> Owned {
    Owned::new(OwnedKind::Pool, id.as_str()).of_storage(id)
}

impl Pool<'_> {
    /// What a step about it changes.
    #[must_use]
    pub fn subject(&self) -> ResourceId {
        ResourceId::new(ResourceKind::Pool, self.id)
    }

    /// Whether stor made it.
    ///
    /// # Errors
    /// [`Stop`]
    pub fn is_own(&self) -> Result<bool, Stop> {
        let record = Record::observed(self.seen, &self.cluster.name, self.host)?;
        Ok(record.owns(OwnedKind::Pool, self.id.as_str()))
    }

    /// The pool as its host shows it; `None` when there is none.
    ///
    /// # Errors
    /// [`Stop`]
    pub fn shown(&self) -> Result<Option<PoolSeen>, Stop> {
        let Self { id, seen, host, .. } = *self;
        let parsed: Result<Pools, String> = pools::parse(seen.answer(host, &query(id))?);
        match parsed {
            Ok(pools) => Ok(pools.get(id.as_str()).cloned()),
            Err(reason) => refuse(
                format!("host {host}: cannot ask libvirt for its pools: {reason}"),
                "install libvirt's daemon and clients there, and see `systemctl status libvirtd`",
            ),
        }
    }

    /// A field of a difference.
    #[must_use]
    pub fn field(&self, name: &str) -> String {
        format!("pool.{}.{name}", self.id)
    }

    /// How the definition that a host shows differs.
    #[must_use]
    pub fn differences(&self, shown: &PoolSeen) -> Vec<Difference> {
        // The builder's own XML always reads back.
        pool_xml::parse(self.xml).map(|own| own.differences(&shown.definition)).unwrap_or_default()
    }

    /// Plans the pool; `besides` are the caller's own reasons to define, start or rescan one that is there.
    ///
    /// # Errors
    /// [`Stop`] when somebody else's pool of the name is not as it should be.
    pub fn plan(&self, besides: Vec<Difference>) -> Result<Option<Step>, Stop> {
        let Self { id, host, xml, .. } = *self;
        let shown = self.shown()?;
        let mut why = Vec::new();
        match &shown {
            None => why.push(Difference::new(format!("pool.{id}"), "active, autostarted", "absent")),
            Some(found) => {
                why.extend(self.differences(found));
                if !found.active {
                    why.push(Difference::new(self.field("state"), "active", "inactive"));
                }
                if !found.autostart {
                    why.push(Difference::new(self.field("autostart"), "yes", "no"));
                }
                if !why.is_empty() && !self.is_own()? {
                    return self.foreign(&why);
                }
                why.extend(besides);
            }
        }
        if why.is_empty() {
            return Ok(None);
        }
        let effect = Effect::EnsurePool { name: id.to_string(), xml: xml.to_owned() };
        let title = match &shown {
            Some(pool) if pool.active => format!("bring pool {id} up to date"),
            _ => format!("define and start pool {id}"),
        };
        let step = Step::new(Wave::Pool, host, self.subject(), title, effect).serving(id).owning(claim(id));
        Ok(Some(why.into_iter().fold(step, Step::because)))
    }

    fn foreign<T>(&self, why: &[Difference]) -> Result<T, Stop> {
        let Self { id, host, .. } = *self;
        let seen: Vec<String> = why.iter().map(|it| format!("{} is {}", it.field, it.observed)).collect();
        refuse(
            format!("host {host}: pool {id} exists, stor did not make it, and {}", seen.join(", ")),
            format!(
                "give the storage another name, or remove the pool: `virsh pool-destroy {id}`, `virsh pool-undefine {id}`"
            ),
        )
    }
}
