//! Secrets of one daemon: defined, given their value, removed. A value is never read back.

use virt_sys as sys;

use super::{SshHypervisor, unless};
use crate::libvirt::LibvirtError;
use crate::model::{Secret, SecretId};

impl SshHypervisor {
    /// The value goes through libvirt's own connection (ssh's standard input); nothing of it is in an argument.
    pub(super) fn make_secret(&self, id: SecretId, xml: &str, value: &Secret) -> Result<(), LibvirtError> {
        let secret =
            self.connect.define_secret_xml(xml, 0).map_err(self.failed(format!("define secret {id}")))?;
        let found = secret.uuid().map_err(self.failed(format!("look at secret {id}")))?;
        if found != id.0 {
            let reason = format!("libvirt made it with UUID {found}");
            return Err(self.refused(format!("define secret {id}"), reason));
        }
        secret
            .set_value(value.reveal().as_bytes(), 0)
            .map_err(self.failed(format!("set the value of secret {id}")))
    }

    pub(super) fn drop_secret(&self, id: SecretId) -> Result<(), LibvirtError> {
        let found = unless(self.connect.lookup_secret_by_uuid(id.0), sys::VIR_ERR_NO_SECRET);
        match found.map_err(self.failed(format!("look up secret {id}")))? {
            None => Ok(()),
            Some(secret) => secret.undefine().map_err(self.failed(format!("undefine secret {id}"))),
        }
    }
}
