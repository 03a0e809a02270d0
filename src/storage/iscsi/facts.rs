//! What is asked of an iSCSI server, and how its answers are read. Pure.
//!
//! Imports `model` and the shared queries of `storage`. What follows from the facts is decided in `plan`.

pub mod initiator;
pub mod lio;

use std::collections::{BTreeMap, BTreeSet};

use super::commands::{self, lio as lio_commands, tgt};
use super::spec::{IscsiProvider, IscsiSpec, PORT};
use crate::model::{AbsPath, Answer, Command, Observations, Query, Stamp, StorageId};
use crate::spec::Cluster;
use crate::storage::facts::FactsError;
use crate::storage::mount_unit::{self, UnitState};
use crate::storage::packages::{self, Family, Need};

/// One server, as far as one target is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// The distribution's family, where it is known.
    pub family: Option<Family>,
    /// The unit of the server's software.
    pub unit: UnitState,
    /// All targets that are offered now, by name; none when the server's software does not run.
    pub targets: BTreeMap<String, Target>,
    /// All CHAP users that tgtd knows.
    pub accounts: BTreeSet<String>,
    /// stor's own configuration file, if it is there.
    pub conf: Option<Conf>,
    /// Targets in configuration files of tgt: file and name.
    pub configured: BTreeSet<(String, String)>,
    /// Who listens on iSCSI's port, if anybody does.
    pub port_holder: Option<String>,
    /// What lies where the backing files are.
    pub backing: BTreeMap<AbsPath, Place>,
    /// What the kernel's target shows; empty where tgt is asked.
    pub lio: lio::Lio,
    /// The stamp of the secret that the kernel's target was given.
    pub stamp: Option<Stamp>,
}

/// A target as tgtd shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Its LUNs by number, without the controller.
    pub luns: BTreeMap<u32, Lun>,
    /// CHAP users that may log in.
    pub accounts: BTreeSet<String>,
    /// Addresses that may log in.
    pub addresses: BTreeSet<String>,
    /// Addresses that are logged in now.
    pub connected: BTreeSet<String>,
}

/// A LUN as tgtd shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lun {
    /// The file behind it.
    pub path: String,
    /// Its SCSI identifier.
    pub scsi_id: String,
    /// Its serial number.
    pub serial: String,
    /// Its size in millions of bytes: tgtd shows no more.
    pub megabytes: Option<u64>,
    /// Whether it is online.
    pub online: bool,
}

/// A configuration file of stor's, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    /// Its permission bits, as octal digits.
    pub mode: String,
    /// Its text without secret and stamp.
    pub text: String,
    /// The stamp of the secret.
    pub stamp: Option<Stamp>,
}

/// What lies where a backing file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nothing.
    Absent,
    /// A regular file.
    File {
        /// Its size in bytes.
        size: u64,
        /// The loop device over it, if there is one.
        looped: Option<String>,
        /// Whether an unfinished file lies beside it, left by a run that was interrupted.
        unfinished: bool,
    },
    /// Something else; says what.
    Other(String),
}

/// All packages that a server needs.
#[must_use]
pub fn needs(spec: &IscsiSpec) -> &'static [Need] {
    match spec.provider {
        IscsiProvider::Lio => &[lio_commands::SERVER],
        IscsiProvider::Auto | IscsiProvider::Tgt => &[tgt::SERVER],
    }
}

/// Who holds a port that no program holds.
pub const KERNEL: &str = "the kernel (LIO)";

/// One line about the path itself, whether there is an unfinished file beside it, then the loop devices over it; a constant, both
/// paths are arguments.
const LOOK: &str = r#"stat --format='%s %F' -- "$1" 2>/dev/null || echo absent
[ -e "$2" ] && echo unfinished
command -v losetup >/dev/null && losetup --noheadings --output NAME --associated "$1" 2>/dev/null; true"#;

/// Asks who listens on iSCSI's port (ss(8)).
fn listeners(spec: &IscsiSpec) -> Query {
    let port = spec.portals.first().map_or(PORT, |portal| portal.port);
    let filter = format!("sport = :{port}");
    let args = ["--no-header", "--listening", "--tcp", "--numeric", "--processes", filter.as_str()];
    Query::new(Command::new("ss").args(args))
}

fn place(path: &AbsPath) -> Query {
    Query::new(Command::new("sh").args(["-c", LOOK, "stor-backing", path.as_str(), &commands::partial(path)]))
}

/// Everything that [`server`] wants answered.
#[must_use]
pub fn queries(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec) -> Vec<Query> {
    let mut queries = packages::queries(needs(spec));
    let families = [Some(Family::Debian), Some(Family::RedHat)];
    queries.extend(families.map(|family| mount_unit::state(service(spec, family))));
    queries.push(listeners(spec));
    match spec.provider {
        IscsiProvider::Lio => queries.extend([lio_commands::show(), lio_commands::stamp(cluster, id)]),
        IscsiProvider::Auto | IscsiProvider::Tgt => {
            queries.extend([tgt::targets(), tgt::accounts(), tgt::configured()]);
            queries.push(tgt::conf(&tgt::conf_path(cluster, id)));
        }
    }
    queries.extend(spec.luns.iter().map(|lun| place(&lun.backing)));
    queries
}

fn service(spec: &IscsiSpec, family: Option<Family>) -> &'static str {
    match spec.provider {
        IscsiProvider::Lio => lio_commands::service(family),
        IscsiProvider::Auto | IscsiProvider::Tgt => tgt::service(family),
    }
}

/// Reads what a server answered.
///
/// # Errors
/// [`FactsError`] when the host was not observed or an answer cannot be read.
pub fn server(
    seen: &Observations,
    cluster: &Cluster,
    id: &StorageId,
    spec: &IscsiSpec,
) -> Result<ServerFacts, FactsError> {
    let host = &spec.server;
    let answer = |query: Query| seen.answer(host, &query).map(|answer| answer.stdout.as_str());
    let family = packages::family(answer(packages::distribution())?);
    let unit = mount_unit::state(service(spec, family));
    let state = seen.answer(host, &unit)?;
    let unit = mount_unit::parse_state(&state.stdout).ok_or_else(|| FactsError::Unreadable {
        host: host.clone(),
        query: unit.to_string(),
        reason: state.stderr.trim().to_owned(),
    })?;
    let mut backing = BTreeMap::new();
    for lun in &spec.luns {
        let path = &lun.backing;
        backing.insert(path.clone(), read_place(answer(place(path))?));
    }
    let facts = ServerFacts {
        family,
        unit,
        targets: BTreeMap::new(),
        accounts: BTreeSet::new(),
        conf: None,
        port_holder: answer(listeners(spec))?.lines().next().map(holder),
        configured: BTreeSet::new(),
        backing,
        lio: lio::Lio::default(),
        stamp: None,
    };
    Ok(match spec.provider {
        IscsiProvider::Lio => {
            let lio = lio::observed(seen, host)?;
            let stamp = Stamp::parse(answer(lio_commands::stamp(cluster, id))?);
            ServerFacts { targets: lio.now.plain_targets(), lio, stamp, ..facts }
        }
        IscsiProvider::Auto | IscsiProvider::Tgt => ServerFacts {
            targets: read_targets(answer(tgt::targets())?),
            accounts: read_accounts(answer(tgt::accounts())?),
            conf: read_conf(seen.answer(host, &tgt::conf(&tgt::conf_path(cluster, id)))?),
            configured: read_configured(answer(tgt::configured())?),
            ..facts
        },
    })
}

/// The program behind a line of ss(8): `users:(("tgtd",pid=..,fd=..))`; the kernel's own sockets have none.
fn holder(line: &str) -> String {
    line.split('"').nth(1).unwrap_or(KERNEL).to_owned()
}

fn read_place(text: &str) -> Place {
    let mut lines = text.lines().peekable();
    let first = lines.next().and_then(|line| line.split_once(' '));
    let unfinished = lines.next_if_eq(&"unfinished").is_some();
    let looped = lines.next().map(|line| line.trim().to_owned());
    match first {
        None => Place::Absent,
        Some((size, "regular file" | "regular empty file")) => match size.parse() {
            Ok(size) => Place::File { size, looped, unfinished },
            Err(_) => Place::Other("a file without a size".to_owned()),
        },
        Some((_, kind)) => Place::Other(kind.to_owned()),
    }
}

/// Reads what `tgtadm --op show --mode target` prints: sections and values by their indentation.
#[must_use]
pub fn read_targets(text: &str) -> BTreeMap<String, Target> {
    let mut targets = BTreeMap::new();
    let mut current: Option<(String, Target)> = None;
    let (mut section, mut lun) = ("", None);
    for line in text.lines() {
        if let Some((_, name)) = line.strip_prefix("Target ").and_then(|rest| rest.split_once(": ")) {
            targets.extend(current.replace((name.to_owned(), Target::default())));
            continue;
        }
        let Some((_, target)) = &mut current else { continue };
        let indent = line.len() - line.trim_start().len();
        let value = line.trim();
        let field = |name: &str| value.strip_prefix(name).map(str::trim);
        match (indent, section) {
            (4, _) => section = value,
            (8, "LUN information:") => lun = field("LUN:").and_then(|number| number.parse::<u32>().ok()),
            (8, "Account information:") => drop(target.accounts.insert(value.to_owned())),
            (8, "ACL information:") => drop(target.addresses.insert(value.to_owned())),
            (_, "I_T nexus information:") => target.connected.extend(field("IP Address:").map(str::to_owned)),
            (12, "LUN information:") => {
                let Some(number) = lun.filter(|number| *number > 0) else { continue };
                detail(target.luns.entry(number).or_default(), field);
            }
            _ => {}
        }
    }
    targets.extend(current);
    targets
}

fn detail<'t>(lun: &mut Lun, field: impl Fn(&str) -> Option<&'t str>) {
    if let Some(path) = field("Backing store path:") {
        lun.path = path.to_owned();
    } else if let Some(id) = field("SCSI ID:") {
        lun.scsi_id = id.to_owned();
    } else if let Some(serial) = field("SCSI SN:") {
        lun.serial = serial.to_owned();
    } else if let Some(size) = field("Size:") {
        lun.megabytes = size.split_once(" MB").and_then(|(number, _)| number.parse().ok());
    } else if let Some(online) = field("Online:") {
        lun.online = online == "Yes";
    }
}

fn read_accounts(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.strip_prefix("    ")).map(|name| name.trim().to_owned()).collect()
}

fn read_conf(answer: &Answer) -> Option<Conf> {
    let (mode, rest) = answer.stdout.split_once('\n')?;
    let mode = mode.strip_prefix("mode ")?.to_owned();
    let stamp = rest.lines().find_map(|line| Stamp::parse(line.strip_prefix(tgt::STAMP)?));
    let text =
        rest.lines().filter(|line| !line.starts_with(tgt::STAMP)).map(|line| format!("{line}\n")).collect();
    Some(Conf { mode, text, stamp })
}

/// Reads `FILE:<target NAME>` lines.
fn read_configured(text: &str) -> BTreeSet<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let (file, found) = line.split_once(':')?;
            let name = found.split_whitespace().nth(1)?.trim_end_matches('>');
            Some((file.to_owned(), name.to_ascii_lowercase()))
        })
        .collect()
}
