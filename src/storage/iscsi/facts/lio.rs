//! What the kernel's target (LIO) shows, and what it keeps for the next boot: both in the form of saveconfig.json(5). Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Lun, Target};
use crate::model::{HostId, Observations};
use crate::storage::facts::FactsError;
use crate::storage::iscsi::commands::lio as commands;
use crate::storage::iscsi::spec::Portal;

/// All targets of a server, now and after the next boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lio {
    /// What the kernel has.
    pub now: Config,
    /// What the saved file has.
    pub saved: Config,
}

/// Targets and the objects behind their LUNs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Targets by name.
    pub targets: BTreeMap<String, LioTarget>,
    /// Backing objects by name.
    pub objects: BTreeMap<String, Object>,
}

/// One backing object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object {
    /// `fileio`, `block` ...
    pub plugin: String,
    /// The file or device; empty for one that is half made.
    pub path: String,
    /// Size in bytes, of files only.
    pub size: Option<u64>,
    /// Serial number.
    pub serial: String,
    /// Whether writes are acknowledged before they are on disk.
    pub write_back: bool,
}

/// One target, as far as stor sets it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LioTarget {
    /// How many portal groups it has; stor's have one.
    pub groups: usize,
    /// Whether it takes logins.
    pub enabled: bool,
    /// Whether initiators have to know a secret.
    pub authentication: bool,
    /// Whether initiators that nobody listed are let in, or shown the target's name.
    pub open: bool,
    /// Where it listens.
    pub portals: BTreeSet<Portal>,
    /// The object behind each LUN.
    pub luns: BTreeMap<u32, String>,
    /// Who may log in.
    pub initiators: BTreeMap<String, Initiator>,
}

/// An initiator that may log in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Initiator {
    /// Its CHAP user.
    pub user: Option<String>,
    /// The stamps of stor's that fit its CHAP secret, by their paths.
    pub stamps: BTreeSet<String>,
    /// LUNs that it sees: its number for each, and the target's.
    pub luns: BTreeMap<u32, u32>,
    /// Whether it is logged in now.
    pub session: bool,
}

impl Initiator {
    /// Whether it has the user and LUNs of another.
    #[must_use]
    pub fn is_let_in_like(&self, other: &Self) -> bool {
        self.user == other.user && self.luns == other.luns
    }
}

impl LioTarget {
    /// Names of initiators that are logged in.
    pub fn connected(&self) -> impl Iterator<Item = &str> {
        self.initiators.iter().filter(|(_, one)| one.session).map(|(name, _)| name.as_str())
    }

    /// The target without what changes by itself.
    #[must_use]
    pub fn at_rest(&self) -> Self {
        let mut target = self.clone();
        for one in target.initiators.values_mut() {
            one.session = false;
        }
        target
    }
}

impl Config {
    /// The targets in the form that every server's are compared in.
    #[must_use]
    pub fn plain_targets(&self) -> BTreeMap<String, Target> {
        let plain = |target: &LioTarget| Target {
            luns: target.luns.iter().map(|(number, name)| (*number, self.plain_lun(name))).collect(),
            connected: target.connected().map(str::to_owned).collect(),
            ..Target::default()
        };
        self.targets.iter().map(|(name, target)| (name.clone(), plain(target))).collect()
    }

    fn plain_lun(&self, object: &str) -> Lun {
        let Some(object) = self.objects.get(object) else { return Lun::default() };
        Lun { path: object.path.clone(), serial: object.serial.clone(), online: true, ..Lun::default() }
    }
}

/// Reads what a server showed; one without rtslib has no targets of the kernel's that stor could know.
///
/// # Errors
/// [`FactsError`]
pub fn observed(seen: &Observations, host: &HostId) -> Result<Lio, FactsError> {
    let query = commands::show();
    let answer = seen.answer(host, &query)?;
    if answer.not_found() {
        return Ok(Lio::default());
    }
    let unreadable = |reason: String| FactsError::Unreadable {
        host: host.clone(),
        query: "python3 (rtslib)".to_owned(),
        reason,
    };
    if !answer.ok() {
        return Err(unreadable(answer.stderr.trim().to_owned()));
    }
    read(&answer.stdout).map_err(|error| unreadable(error.to_string()))
}

#[derive(Deserialize, Default)]
struct RawBoth {
    #[serde(default)]
    now: RawConfig,
    #[serde(default)]
    saved: RawConfig,
}

#[derive(Deserialize, Default)]
struct RawConfig {
    #[serde(default)]
    storage_objects: Vec<RawObject>,
    #[serde(default)]
    targets: Vec<RawTarget>,
}

#[derive(Deserialize)]
struct RawObject {
    name: String,
    plugin: String,
    #[serde(default)]
    dev: Option<String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    wwn: Option<String>,
    #[serde(default)]
    write_back: bool,
}

#[derive(Deserialize)]
struct RawTarget {
    wwn: String,
    #[serde(default)]
    tpgs: Vec<RawGroup>,
}

#[derive(Deserialize)]
struct RawGroup {
    #[serde(default)]
    attributes: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    enable: bool,
    #[serde(default)]
    luns: Vec<RawLun>,
    #[serde(default)]
    node_acls: Vec<RawAcl>,
    #[serde(default)]
    portals: Vec<RawPortal>,
}

#[derive(Deserialize)]
struct RawLun {
    index: u32,
    storage_object: String,
}

#[derive(Deserialize)]
struct RawAcl {
    node_wwn: String,
    #[serde(default)]
    chap_userid: Option<String>,
    #[serde(default)]
    stamps: BTreeSet<String>,
    #[serde(default)]
    mapped_luns: Vec<RawMapped>,
    #[serde(default)]
    session: bool,
}

#[derive(Deserialize)]
struct RawMapped {
    index: u32,
    tpg_lun: u32,
    #[serde(default)]
    write_protect: bool,
}

#[derive(Deserialize)]
struct RawPortal {
    ip_address: String,
    port: u16,
}

/// Reads what the look printed.
///
/// # Errors
/// The parser's words, when it is no such JSON.
pub fn read(text: &str) -> Result<Lio, serde_json::Error> {
    let both: RawBoth = serde_json::from_str(text)?;
    Ok(Lio { now: config(both.now), saved: config(both.saved) })
}

/// Reads a saved file as it is.
///
/// # Errors
/// The parser's words, when it is no such JSON.
pub fn read_saved(text: &str) -> Result<Config, serde_json::Error> {
    serde_json::from_str(text).map(config)
}

fn config(raw: RawConfig) -> Config {
    let object = |raw: RawObject| {
        let object = Object {
            plugin: raw.plugin,
            path: raw.dev.unwrap_or_default(),
            size: raw.size,
            serial: raw.wwn.unwrap_or_default(),
            write_back: raw.write_back,
        };
        (raw.name, object)
    };
    let targets = raw.targets.into_iter().map(|raw| (raw.wwn.clone(), target(raw)));
    Config { targets: targets.collect(), objects: raw.storage_objects.into_iter().map(object).collect() }
}

fn target(raw: RawTarget) -> LioTarget {
    let groups = raw.tpgs.len();
    let Some(group) = raw.tpgs.into_iter().next() else { return LioTarget::default() };
    let set = |name: &str| match group.attributes.get(name) {
        Some(serde_json::Value::Number(number)) => number.as_i64() != Some(0),
        Some(serde_json::Value::String(text)) => text != "0",
        _ => false,
    };
    LioTarget {
        groups,
        enabled: group.enable,
        authentication: set("authentication"),
        open: ["generate_node_acls", "cache_dynamic_acls", "demo_mode_discovery"].into_iter().any(set),
        portals: group
            .portals
            .iter()
            .map(|portal| Portal {
                address: portal.ip_address.trim_matches(['[', ']']).to_owned(),
                port: portal.port,
            })
            .collect(),
        luns: group
            .luns
            .iter()
            .map(|lun| (lun.index, lun.storage_object.rsplit('/').next().unwrap_or_default().to_owned()))
            .collect(),
        initiators: group.node_acls.into_iter().map(initiator).collect(),
    }
}

fn initiator(raw: RawAcl) -> (String, Initiator) {
    // One that is write-protected is none that stor made, and not to be kept.
    let luns = raw.mapped_luns.iter().filter(|lun| !lun.write_protect);
    let one = Initiator {
        user: raw.chap_userid.filter(|user| !user.is_empty()),
        stamps: raw.stamps,
        luns: luns.map(|lun| (lun.index, lun.tpg_lun)).collect(),
        session: raw.session,
    };
    (raw.node_wwn, one)
}
