//! Block devices behind disks: what tells one from every other, whichever host looks. A query and a pure reader.
//!
//! libvirt never checks that a block device is the same on both hosts. The name of a device proves nothing; its WWN (VPD page
//! 0x83) and serial number (page 0x80) do. Both are wanted, because tgt gives the same WWN to the first LUN of every server.

use std::fmt;

use serde::Deserialize;

use super::{Known, known};
use crate::model::{Answer, Command, Query};

/// What one host shows of a block device (lsblk(8)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDevice {
    /// World wide name.
    pub wwn: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Size in bytes.
    pub size: u64,
}

impl BlockDevice {
    /// What identifies it, when it shows enough.
    #[must_use]
    pub fn identity(&self) -> Option<(&str, &str)> {
        self.wwn.as_deref().zip(self.serial.as_deref())
    }
}

impl fmt::Display for BlockDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        write!(f, "WWN {}, serial {}, {} bytes", shown(&self.wwn), shown(&self.serial), self.size)
    }
}

#[derive(Deserialize)]
struct Listing {
    blockdevices: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    wwn: Option<String>,
    serial: Option<String>,
    /// A number; a string in older versions.
    size: Option<serde_json::Value>,
}

/// Asks for a device; a symbolic link to one will do.
pub(super) fn query(path: &str) -> Query {
    let command =
        Command::new("lsblk").args(["--json", "--bytes", "--nodeps", "--output", "WWN,SERIAL,SIZE"]);
    Query::new(command.args(["--", path]))
}

/// Reads the answer; `None` when there is no such device.
pub(super) fn read(answer: Option<&Answer>) -> Known<Option<BlockDevice>> {
    if answer.is_some_and(|answer| answer.stderr.contains("not a block device")) {
        return Ok(None);
    }
    let text = known(answer, "lsblk")?;
    let listing: Listing = serde_json::from_str(&text).map_err(|error| format!("`lsblk`: {error}"))?;
    let Some(entry) = listing.blockdevices.into_iter().next() else { return Ok(None) };
    let some =
        |value: Option<String>| value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let bytes = |size: serde_json::Value| size.as_u64().or_else(|| size.as_str()?.parse().ok());
    let size = entry.size.and_then(bytes).ok_or("`lsblk` shows no size")?;
    Ok(Some(BlockDevice { wwn: some(entry.wwn), serial: some(entry.serial), size }))
}
