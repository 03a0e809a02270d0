//! What the data behind a disk is, so that it can be compared with that of any disk on any host. Pure: a query and its reader.
//!
//! A file is known by its address on the network, where it has one, and by device and inode on its host: links, other mounts and other
//! names lead to the same. A device is known by WWN and serial number, by its target, by the identifier of its mapping; what it lies
//! on counts as used, so that a LUN and a partition of it are the same, and two partitions are not.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::model::{Answer, Command, HostId, Query};
use crate::storage::address::{self, Address};
use crate::storage::mount_probe::mount_table::Mount;

const SCRIPT: &str = include_str!("look.sh");

/// Something by which data is known; equal keys are the same data.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Its place on the network.
    At(Address),
    /// An inode of a file system on the network.
    Inode(Address, u64),
    /// A file of a host: device number and inode.
    Local(HostId, String, u64),
    /// A device of a host: its numbers.
    Device(HostId, String),
    /// A disk, wherever it is attached: WWN, serial number, and the partition's number, 0 for the whole.
    Disk(String, String, u32),
    /// A mapping of the device mapper: its UUID, which holds that of an LVM volume group or of a multipath LUN.
    Mapping(String),
}

/// The data behind one disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Data {
    /// What it is.
    pub is: BTreeSet<Key>,
    /// What it lies on.
    pub below: BTreeSet<Key>,
}

impl Data {
    /// Data that only its place on the network tells.
    #[must_use]
    pub fn at(addresses: Vec<Address>) -> Self {
        Self { is: addresses.into_iter().map(Key::At).collect(), below: BTreeSet::new() }
    }

    /// Tells whether two disks have data in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let meets = |a: &BTreeSet<Key>, b: &BTreeSet<Key>| !a.is_disjoint(b);
        meets(&self.is, &other.is) || meets(&self.is, &other.below) || meets(&self.below, &other.is)
    }
}

/// Asks a host what a path leads to.
#[must_use]
pub fn query(path: &str) -> Query {
    Query::new(Command::new("sh").args(["-c", SCRIPT, "stor-writers", path]))
}

/// Reads the answer to [`query`] on a host with these mounts; `None` when nothing is there.
///
/// # Errors
/// A sentence when it cannot be told.
pub fn read(
    host: &HostId,
    path: &str,
    mounts: &[Mount],
    answer: Option<&Answer>,
) -> Result<Option<Data>, String> {
    let answer = answer.ok_or_else(|| format!("{path} was not asked for"))?;
    if answer.status.is_none() {
        // The mount table never hangs: a file on the network is known by where it is mounted.
        let found = Data::at(of_file(mounts, path).0);
        let reason = format!("looking at {path} did not finish in time");
        return if found.is.is_empty() { Err(reason) } else { Ok(Some(found)) };
    }
    if !answer.ok() {
        let said = answer.stderr.trim().lines().next_back().unwrap_or("no message").to_owned();
        return Err(format!("{path} cannot be looked at: {said}"));
    }
    if answer.stdout.trim() == "absent" {
        return Ok(None);
    }
    let mut lines = answer.stdout.lines();
    let real = lines.next().and_then(|line| line.strip_prefix("real "));
    let stat = lines.next().and_then(|line| line.strip_prefix("stat "));
    let (Some(real), Some(stat)) = (real, stat) else {
        return Err(format!("{path}: {:?} was printed", answer.stdout));
    };
    let words: Vec<&str> = stat.split(' ').collect();
    let [device, inode, major, minor] = words.as_slice() else {
        return Err(format!("{path}: `stat` printed {stat:?}"));
    };
    let nodes = nodes(lines);
    let mut data = Data::at(address::of_path(path));
    if nodes.is_empty() {
        let inode = inode.parse().map_err(|_| format!("{path}: `stat` printed {stat:?}"))?;
        data.is.extend(file(host, mounts, real, device, inode));
        return Ok(Some(data));
    }
    let own = numbers(major, minor);
    let disks: Vec<&Node> = nodes.iter().filter(|node| node.field("TYPE") == Some("disk")).collect();
    for node in &nodes {
        // The WWN that a partition shows is its disk's.
        let of_disk = disks.iter().find(|disk| disk.field("WWN") == node.field("WWN")).or(disks.first());
        let keys = node.keys(host, mounts, of_disk.copied());
        let into = if Some(&node.numbers) == own.as_ref() { &mut data.is } else { &mut data.below };
        into.extend(keys);
    }
    // A multipath map is each of its disks.
    if nodes.iter().any(|node| Some(&node.numbers) == own.as_ref() && node.field("TYPE") == Some("mpath")) {
        let below = std::mem::take(&mut data.below);
        data.is.extend(below);
    }
    Ok(Some(data))
}

/// `%t` and `%T` of stat(1) are hexadecimal.
fn numbers(major: &str, minor: &str) -> Option<String> {
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    Some(format!("{}:{}", number(major)?, number(minor)?))
}

fn file(host: &HostId, mounts: &[Mount], real: &str, device: &str, inode: u64) -> BTreeSet<Key> {
    let (at, roots) = of_file(mounts, real);
    let inodes = roots.into_iter().map(|root| Key::Inode(root, inode));
    let local = Key::Local(host.clone(), device.to_owned(), inode);
    at.into_iter().map(Key::At).chain(inodes).chain([local]).collect()
}

/// The addresses of a file, and those of the mount that it is on.
fn of_file(mounts: &[Mount], path: &str) -> (Vec<Address>, Vec<Address>) {
    let below = |mount: &Mount| {
        let rest = path.strip_prefix(mount.point.trim_end_matches('/'))?;
        (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned())
    };
    // The longest mount point; of several there, the last covers the others.
    let held = mounts.iter().filter_map(|mount| Some((mount, below(mount)?)));
    let Some((mount, rest)) = held.max_by_key(|(mount, _)| mount.point.len()) else {
        return Default::default();
    };
    let root = Mount { root: "/".to_owned(), ..mount.clone() };
    (address::of_mount(mount, &rest), address::of_mount(&root, ""))
}

/// One device of those that a device lies on, itself among them.
#[derive(Debug, Default)]
struct Node {
    numbers: String,
    fields: String,
    mapping: Option<String>,
    partition: Option<u32>,
    loop_file: Option<String>,
    behind: Option<(String, u64)>,
    session: Option<(String, String)>,
}

fn nodes<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for line in lines {
        if let Some(numbers) = line.strip_prefix("node ") {
            nodes.push(Node { numbers: numbers.to_owned(), ..Node::default() });
            continue;
        }
        let Some(node) = nodes.last_mut() else { continue };
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let pair = || rest.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
        match word {
            "dm" => node.mapping = Some(rest.to_owned()),
            "partition" => node.partition = rest.parse().ok(),
            "loop" => node.loop_file = Some(rest.to_owned()),
            "behind" => node.behind = pair().and_then(|(device, inode)| Some((device, inode.parse().ok()?))),
            "iscsi" => node.session = pair(),
            _ => _ = writeln!(node.fields, "{line}"),
        }
    }
    nodes
}

impl Node {
    /// A value of `lsblk --pairs`: `TYPE="disk" WWN="0x5" SERIAL="a"`.
    fn field(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.fields.split_once(&format!("{name}=\""))?;
        rest.split('"').next().map(str::trim).filter(|value| !value.is_empty())
    }

    fn keys(&self, host: &HostId, mounts: &[Mount], disk: Option<&Self>) -> BTreeSet<Key> {
        let mut keys = BTreeSet::from([Key::Device(host.clone(), self.numbers.clone())]);
        // A partition of a multipath map has its number in the mapping's name (kpartx(8)).
        let of_map = self
            .mapping
            .as_deref()
            .and_then(|uuid| uuid.strip_prefix("part")?.split('-').next()?.parse().ok());
        let partition = self.partition.or(of_map);
        let whole = self.field("TYPE") == Some("disk");
        if whole || partition.is_some() {
            // A partition of older util-linux has no serial number of its own.
            let shown = |name: &str| disk.and_then(|disk| disk.field(name)).or_else(|| self.field(name));
            let names = if whole {
                self.field("WWN").zip(self.field("SERIAL"))
            } else {
                shown("WWN").zip(shown("SERIAL"))
            };
            let key = |(wwn, serial): (&str, &str)| {
                Key::Disk(wwn.to_owned(), serial.to_owned(), partition.unwrap_or(0))
            };
            keys.extend(names.map(key));
        }
        keys.extend(self.mapping.clone().map(Key::Mapping));
        if let (Some(path), Some((device, inode))) = (&self.loop_file, &self.behind) {
            keys.extend(file(host, mounts, path, device, *inode));
        }
        if let Some((target, lun)) = &self.session {
            keys.insert(Key::At(address::of_session(target, lun)));
        }
        keys
    }
}

#[cfg(test)]
mod tests;
