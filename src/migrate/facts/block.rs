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

#[derive(Clone, Deserialize)]
struct Entry {
    /// `disk`, `part`, `mpath`, `lvm` ...
    #[serde(rename = "type")]
    kind: Option<String>,
    wwn: Option<String>,
    serial: Option<String>,
    /// A number; a string in older versions.
    size: Option<serde_json::Value>,
}

/// Asks for a device and what it lies on, the device last; a symbolic link to one will do.
pub(super) fn query(path: &str) -> Query {
    let command =
        Command::new("lsblk").args(["--json", "--bytes", "--inverse", "--output", "TYPE,WWN,SERIAL,SIZE"]);
    Query::new(command.args(["--", path]))
}

/// Reads the answer; `None` when there is no such device.
pub(super) fn read(answer: Option<&Answer>) -> Known<Option<BlockDevice>> {
    if answer.is_some_and(|answer| answer.stderr.contains("not a block device")) {
        return Ok(None);
    }
    let text = known(answer, "lsblk")?;
    let listing: Listing = serde_json::from_str(&text).map_err(|error| format!("`lsblk`: {error}"))?;
    let Some((entry, below)) = listing.blockdevices.split_last() else { return Ok(None) };
    let entry = named(entry, below);
    let some =
        |value: Option<String>| value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let bytes = |size: serde_json::Value| size.as_u64().or_else(|| size.as_str()?.parse().ok());
    let size = entry.size.and_then(bytes).ok_or("`lsblk` shows no size")?;
    Ok(Some(BlockDevice { wwn: some(entry.wwn), serial: some(entry.serial), size }))
}

/// A multipath map has no WWN and no serial number of its own, but those of its disks, as long as they are one and the same LUN.
fn named(entry: &Entry, below: &[Entry]) -> Entry {
    let is = |entry: &Entry, kind: &str| entry.kind.as_deref() == Some(kind);
    let mut disks = below.iter().filter(|disk| is(disk, "disk"));
    let Some(first) = disks.next().filter(|_| is(entry, "mpath")) else { return entry.clone() };
    match disks.all(|disk| (&disk.wwn, &disk.serial) == (&first.wwn, &first.serial)) {
        true => Entry { wwn: first.wwn.clone(), serial: first.serial.clone(), ..entry.clone() },
        false => entry.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> BlockDevice {
        let answer = Answer { status: Some(0), stdout: text.to_owned(), stderr: String::new() };
        read(Some(&answer)).unwrap().unwrap()
    }

    /// What Debian 12 and 13 show, and which LUN it is.
    const MAPS: [(&str, &str, &str); 2] = [
        (
            include_str!("../../../fixtures/outputs/lsblk/debian12-util-linux2.38-multipath.json"),
            "0x600140535b70e28079758299ef7582f6",
            "35b70e28079758299ef7582f60e3ee82",
        ),
        (
            include_str!("../../../fixtures/outputs/lsblk/debian13-util-linux2.41-multipath.json"),
            "0x600140596c741bac199507b9a758bcf3",
            "96c741bac199507b9a758bcf3bcd9fe3",
        ),
    ];

    #[test]
    fn a_multipath_map_is_known_by_its_disks_if_they_are_the_same() {
        for (text, wwn, serial) in MAPS {
            let map = shown(text);
            assert_eq!((map.identity(), map.size), (Some((wwn, serial)), 64 << 20));
            let mixed = text.replacen(serial, "another", 1);
            assert_eq!(shown(&mixed).identity(), None);
        }
    }

    #[test]
    fn a_partition_is_no_whole_disk() {
        let text = r#"{"blockdevices": [{"type":"disk","wwn":"0x1","serial":"a","size":2048},{"type":"part","wwn":"0x1","serial":null,"size":1024}]}"#;
        assert_eq!((shown(text).size, shown(text).identity()), (1024, None));
    }
}
