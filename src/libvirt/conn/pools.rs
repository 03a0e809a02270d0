//! Pools of one daemon: made to match their definition, rescanned, removed.

use virt::storage_pool::StoragePool;
use virt_sys as sys;

use super::{SshHypervisor, unless};
use crate::libvirt::{LibvirtError, pool_xml};

impl SshHypervisor {
    fn pool(&self, name: &str) -> Result<Option<StoragePool>, LibvirtError> {
        unless(self.connect.lookup_storage_pool_by_name(name), sys::VIR_ERR_NO_STORAGE_POOL)
            .map_err(self.failed(format!("look up pool {name}")))
    }

    pub(super) fn make_pool(&self, name: &str, xml: &str) -> Result<(), LibvirtError> {
        let pool = match self.pool(name)? {
            None => self.define_pool(name, xml)?,
            Some(pool) => self.update_pool(name, pool, xml)?,
        };
        let active = pool.is_active().map_err(self.failed(format!("look at pool {name}")))?;
        if active {
            // What lies in it may have changed below libvirt's eyes: its directory was just mounted.
            pool.refresh(0).map_err(self.failed(format!("refresh pool {name}")))?;
        } else {
            pool.create(0).map_err(self.failed(format!("start pool {name}")))?;
        }
        pool.set_autostart(true).map_err(self.failed(format!("set autostart of pool {name}")))
    }

    fn define_pool(&self, name: &str, xml: &str) -> Result<StoragePool, LibvirtError> {
        self.connect.define_storage_pool_xml(xml, 0).map_err(self.failed(format!("define pool {name}")))
    }

    /// Redefines a pool that differs. An active pool keeps its old definition until it is started again; a directory
    /// pool is only libvirt's view of a directory, one of kind `iscsi-direct` a list of LUNs, so that is done at once. Other kinds hold
    /// a mount or a session.
    fn update_pool(&self, name: &str, pool: StoragePool, xml: &str) -> Result<StoragePool, LibvirtError> {
        let desired = pool_xml::parse(xml)?;
        let read = |flags| pool.xml_desc(flags).map_err(self.failed(format!("read pool {name}")));
        let persistent = pool_xml::parse(&read(sys::VIR_STORAGE_XML_INACTIVE)?)?;
        let current = pool_xml::parse(&read(0)?)?;
        let pool = if desired.differences(&persistent).is_empty() {
            pool
        } else {
            let uuid = persistent.uuid.unwrap_or_default();
            self.define_pool(name, &pool_xml::with_uuid(xml, &uuid)?)?
        };
        let active = pool.is_active().map_err(self.failed(format!("look at pool {name}")))?;
        if active && !desired.differences(&current).is_empty() {
            if !["dir", "iscsi-direct"].contains(&current.kind.as_str()) {
                let reason = format!(
                    "it is active with another definition, and stopping a {} pool would \
                     take its storage away from guests",
                    current.kind
                );
                return Err(self.refused(format!("update pool {name}"), reason));
            }
            pool.destroy().map_err(self.failed(format!("stop pool {name}")))?;
        }
        Ok(pool)
    }

    pub(super) fn rescan_pool(&self, name: &str) -> Result<(), LibvirtError> {
        let action = format!("refresh pool {name}");
        match self.pool(name)? {
            None => Err(self.refused(action, "the host has no such pool")),
            Some(pool) => pool.refresh(0).map_err(self.failed(action)),
        }
    }

    pub(super) fn drop_pool(&self, name: &str) -> Result<(), LibvirtError> {
        let Some(pool) = self.pool(name)? else { return Ok(()) };
        if pool.is_active().map_err(self.failed(format!("look at pool {name}")))? {
            pool.destroy().map_err(self.failed(format!("stop pool {name}")))?;
        }
        if pool.is_persistent().map_err(self.failed(format!("look at pool {name}")))? {
            pool.undefine().map_err(self.failed(format!("undefine pool {name}")))?;
        }
        Ok(())
    }
}
