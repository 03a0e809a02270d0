//! What lies where the data of LUNs is: files and block devices, who uses them, and what they carry. Pure.
//!
//! Sources: lsblk(8), wipefs(8), udevadm(8), open(2) on `O_EXCL` for block devices.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::model::{AbsPath, Command, Query};
use crate::storage::iscsi::commands;

/// Shows one place; a constant, both paths are arguments.
const PLACE: &str = include_str!("place.sh");
/// Shows what is behind all LUNs of a host; a constant.
const BEHIND: &str = include_str!("behind.sh");

/// Which file or device something is, whatever it is called: `f:DEVICE:INODE`, `b:MAJOR:MINOR`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity(String);

impl Identity {
    /// Takes what the host printed.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// As the host prints it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What lies where a LUN's data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nothing.
    Absent {
        /// Whether an unfinished file lies beside it, left by a run that was interrupted.
        unfinished: bool,
    },
    /// A regular file.
    File {
        /// Its size in bytes.
        size: u64,
        /// Which file it is.
        identity: Identity,
        /// The loop device over it, if there is one.
        looped: Option<String>,
        /// Whether an unfinished file lies beside it, left by a run that was interrupted.
        unfinished: bool,
    },
    /// A block device.
    Device(Device),
    /// Something else; says what.
    Other(String),
}

impl Place {
    /// Which file or device it is.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::File { identity, .. } => Some(identity),
            Self::Device(device) => Some(&device.identity),
            Self::Absent { .. } | Self::Other(_) => None,
        }
    }
}

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Which device it is now.
    pub identity: Identity,
    /// By what it is known after a boot, if it has such a name.
    pub name: Option<String>,
    /// What it is: `disk`, `part`, `lvm`, `loop` ...
    pub kind: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it cannot be written to.
    pub read_only: bool,
    /// Where it, or a part of it, is mounted; `[SWAP]` where it is swap.
    pub mounted: BTreeSet<String>,
    /// Devices that were built on it: volumes, arrays, encrypted devices. Its own partitions are none.
    pub holders: BTreeSet<String>,
    /// Other devices that have some of its blocks: partitions of it, and the disk that it is a part of.
    pub overlapping: BTreeSet<Identity>,
    /// What it carries, as wipefs(8) names it.
    pub signatures: BTreeSet<String>,
    /// Whether somebody has it for itself.
    pub claimed: bool,
}

/// Which program offers a LUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Daemon {
    /// The kernel's target; LUNs are known by their backing objects.
    Lio,
    /// tgtd; LUNs are known by their targets.
    Tgt,
}

/// What is behind a LUN of any target of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// Who offers it.
    pub daemon: Daemon,
    /// The backing object, or the target.
    pub owner: String,
    /// Which file or device it is; `None` when its path leads nowhere.
    pub identity: Option<Identity>,
    /// The path that it was opened by.
    pub path: String,
}

/// Asks what lies at a path; patiently, because a disk that was asleep has to turn first.
#[must_use]
pub fn place(path: &AbsPath) -> Query {
    let partial = commands::backing::partial(path);
    let words = ["-c", PLACE, "stor-place", path.as_str(), &partial];
    Query::patient(Command::new("sh").args(words))
}

/// Asks what is behind all LUNs of a host, patiently too.
#[must_use]
pub fn behind() -> Query {
    Query::patient(Command::new("sh").args(["-c", BEHIND, "stor-behind"]))
}

/// Reads what is behind all LUNs of a host.
#[must_use]
pub fn read_behind(text: &str) -> Vec<Behind> {
    let one = |line: &str| {
        let mut words = line.splitn(4, ' ');
        let daemon = match words.next()? {
            "lio" => Daemon::Lio,
            "tgt" => Daemon::Tgt,
            _ => return None,
        };
        let (owner, identity, path) = (words.next()?, words.next()?, words.next()?);
        let identity = (identity != "-").then(|| Identity::new(identity));
        Some(Behind { daemon, owner: owner.to_owned(), identity, path: path.to_owned() })
    };
    text.lines().filter_map(one).collect()
}

/// Reads what lies at a path.
///
/// # Errors
/// What cannot be read of the answer.
pub fn read_place(text: &str) -> Result<Place, String> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let has = |word: &str| text.lines().any(|line| line == word);
    if let Some(identity) = field("device") {
        return read_device(text, identity, field).map(Place::Device);
    }
    let unfinished = has("unfinished");
    let Some(file) = field("file") else {
        let absent = has("absent").then_some(Place::Absent { unfinished });
        return absent.ok_or_else(|| format!("nothing is said of the path: {text:?}"));
    };
    let mut words = file.splitn(3, ' ');
    let (size, identity, kind) = (words.next(), words.next(), words.next().unwrap_or_default());
    match (size.and_then(|size| size.parse().ok()), identity, kind) {
        (Some(size), Some(identity), "regular file" | "regular empty file") => {
            let looped = field("looped").map(|name| name.trim().to_owned());
            Ok(Place::File { size, identity: Identity::new(identity), looped, unfinished })
        }
        (Some(_), Some(_), kind) => Ok(Place::Other(kind.to_owned())),
        _ => Err(format!("no size and kind of a file: {file:?}")),
    }
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "blockdevices")]
    devices: Vec<Entry>,
}

/// Sizes are numbers since util-linux 2.33.
#[derive(Deserialize)]
struct Entry {
    path: String,
    #[serde(rename = "maj:min")]
    number: String,
    #[serde(rename = "type")]
    kind: String,
    size: u64,
    ro: bool,
    #[serde(default)]
    mountpoints: Vec<Option<String>>,
}

impl Entry {
    fn identity(&self) -> Identity {
        Identity(format!("b:{}", self.number.trim()))
    }
}

#[derive(Deserialize)]
struct Signatures {
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    #[serde(rename = "type")]
    kind: String,
}

fn read_device<'t>(
    text: &str,
    identity: &str,
    field: impl Fn(&str) -> Option<&'t str>,
) -> Result<Device, String> {
    let listed = |name: &str| {
        let json = field(name).unwrap_or_default();
        serde_json::from_str::<Listed>(json).map_err(|error| format!("lsblk: {error}: {json:?}"))
    };
    let (below, above) = (listed("below")?.devices, listed("above")?.devices);
    let carried = field("signatures").unwrap_or_default();
    let carried: Signatures =
        serde_json::from_str(carried).map_err(|error| format!("wipefs: {error}: {carried:?}"))?;
    let identity = Identity::new(identity);
    let own = below.iter().find(|entry| entry.identity() == identity).ok_or("lsblk does not list it")?;
    let others = || below.iter().filter(|entry| entry.identity() != identity);
    let parts = others().filter(|entry| entry.kind == "part");
    let disks = above.iter().filter(|entry| own.kind == "part" && entry.identity() != identity);
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id ")).collect();
    // A partition shows its disk's serial number, a volume that of its disk: what is its own comes first.
    let names = ["DM_UUID", "ID_PART_ENTRY_UUID", "ID_WWN_WITH_EXTENSION", "ID_WWN", "ID_SERIAL"];
    let name = names.into_iter().find_map(|name| {
        ids.iter().find(|id| id.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')))
    });
    Ok(Device {
        name: name.map(|name| (*name).to_owned()),
        kind: own.kind.clone(),
        size: own.size,
        read_only: own.ro,
        mounted: below.iter().flat_map(|entry| &entry.mountpoints).flatten().cloned().collect(),
        holders: others().filter(|entry| entry.kind != "part").map(|entry| entry.path.clone()).collect(),
        overlapping: parts.chain(disks).map(Entry::identity).collect(),
        signatures: carried.signatures.into_iter().map(|one| one.kind).collect(),
        claimed: text.lines().any(|line| line == "claimed"),
        identity,
    })
}
