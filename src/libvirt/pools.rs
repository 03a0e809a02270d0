//! What `virsh` tells about storage pools: which are active, and where they lie.
//!
//! Pure. Imports `model` and `pool_xml`. Whether a pool is right is decided by whoever asks.

use std::collections::BTreeMap;

use super::pool_xml::{self, PoolDefinition};
use super::xml;
use crate::model::{AbsPath, Answer, Command, Query};

/// The pools of one host that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pools(BTreeMap<String, PoolSeen>);

/// One pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSeen {
    /// Whether it is started.
    pub active: bool,
    /// Whether it is started with the host.
    pub autostart: bool,
    /// What its XML says.
    pub definition: PoolDefinition,
    /// Target path.
    pub target: Option<AbsPath>,
    /// The size that libvirt read last, in bytes.
    pub capacity: Option<u64>,
}

impl Pools {
    /// One pool; `None` when the daemon has none of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&PoolSeen> {
        self.0.get(name)
    }
}

/// Asks for pools by name, read-only, in one call: one list, then the XML of each (virsh goes on after an error).
#[must_use]
pub fn query<'a>(names: impl IntoIterator<Item = &'a str>) -> Query {
    let mut text = "pool-list --all".to_owned();
    for name in names {
        text.push_str("; pool-dumpxml ");
        text.push_str(name);
    }
    Query::new(Command::new("virsh").arg("-r").arg(text))
}

/// Reads the answer of [`query`]; the error is a sentence about what is wrong.
///
/// # Errors
/// When virsh is missing or could not reach the daemon, or printed something else.
pub fn parse(answer: &Answer) -> Result<Pools, String> {
    if answer.not_found() {
        return Err("virsh is not installed".to_owned());
    }
    let mut lines = answer.stdout.lines();
    if !lines.any(|line| line.starts_with("---")) {
        let why = answer.stderr.trim();
        return Err(if why.is_empty() { "virsh printed no list".to_owned() } else { why.to_owned() });
    }
    let states: BTreeMap<&str, (bool, bool)> = lines
        .map_while(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, (words.next()? == "active", words.next()? == "yes")))
        })
        .collect();
    let mut pools = Pools::default();
    let mut rest = answer.stdout.as_str();
    while let Some(at) = rest.find("<pool ") {
        let end = rest[at..].find("</pool>").ok_or("virsh printed half a pool")? + at + "</pool>".len();
        let pool = pool_xml::parse(&rest[at..end]).map_err(|error| error.to_string())?;
        let (active, autostart) = states.get(pool.name.as_str()).copied().unwrap_or_default();
        let capacity = xml::parse(&rest[at..end], "a storage pool").map_err(|error| error.to_string())?;
        let capacity = capacity.text_at("capacity").and_then(|bytes| bytes.parse().ok());
        let target = pool.target.as_ref().and_then(|path| AbsPath::new(path.as_str()).ok());
        pools.0.insert(pool.name.clone(), PoolSeen { active, autostart, definition: pool, target, capacity });
        rest = &rest[end..];
    }
    Ok(pools)
}

/// Asks which kinds of pools the daemon has a backend for (libvirt 5.2, `virConnectGetStoragePoolCapabilities`).
#[must_use]
pub fn capabilities() -> Query {
    Query::new(Command::new("virsh").args(["-r", "pool-capabilities"]))
}

/// Reads the answer of [`capabilities`]; `None` when it does not tell.
#[must_use]
pub fn supports(answer: &Answer, kind: &str) -> Option<bool> {
    let root = answer.ok().then(|| xml::parse(answer.stdout.trim(), "pool capabilities").ok())??;
    let pool = root.all("pool").find(|pool| pool.attribute("type") == Some(kind))?;
    Some(pool.attribute("supported") == Some("yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = include_str!("../../fixtures/outputs/virsh/debian13-libvirt11.3-pools.txt");

    #[test]
    fn pools_are_read_with_state_and_path() {
        let answer = Answer { status: Some(0), stdout: TWO.to_owned(), stderr: String::new() };
        let pools = parse(&answer).unwrap();
        let gfs = pools.get("gfs").unwrap();
        assert!(gfs.active && !gfs.autostart);
        assert_eq!(gfs.target.as_ref().unwrap().as_str(), "/var/lib/libvirt/images/gfs");
        assert!(!pools.get("off").unwrap().active);
        assert_eq!(pools.get("none"), None);
    }

    #[test]
    fn pools_of_an_older_libvirt_are_read_alike() {
        let pools = |text: &str| {
            parse(&Answer { status: Some(0), stdout: text.to_owned(), stderr: String::new() }).unwrap()
        };
        let images = include_str!("../../fixtures/outputs/virsh/debian12-libvirt9.0-pools-images.txt");
        let images = pools(images).get("images").cloned().unwrap();
        assert!(images.active);
        assert_eq!(images.target.unwrap().as_str(), "/var/lib/libvirt/images");
        let netfs = include_str!("../../fixtures/outputs/virsh/debian12-libvirt9.0-pools-netfs-inactive.txt");
        let netfs = pools(netfs).get("vmstore").cloned().unwrap();
        assert!(!netfs.active && netfs.autostart);
    }

    #[test]
    fn a_daemon_that_cannot_be_reached_is_an_error_and_not_an_empty_list() {
        let stderr = "error: failed to connect to the hypervisor".to_owned();
        let answer = Answer { status: Some(1), stdout: String::new(), stderr: stderr.clone() };
        assert_eq!(parse(&answer), Err(stderr));
    }
}
