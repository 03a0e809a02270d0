//! What is asked of an iSCSI server, and how its answers are read. Pure.
//!
//! Imports `model` and the shared queries of `storage`. What follows from the facts is decided in `plan`.

pub mod backing;
pub mod initiator;
pub mod lio;
pub mod lvm;
pub mod sessions;

use std::collections::{BTreeMap, BTreeSet};

use self::backing::{Behind, Place};
use self::lvm::Lvm;
use super::commands::{boot, lio as lio_commands, tgt};
use super::spec::{IscsiSpec, LunSpec, PORT};
use crate::model::{AbsPath, Answer, Command, Observations, Query, Stamp, StorageId};
use crate::spec::Cluster;
use crate::storage::facts::FactsError;
use crate::storage::mount_unit::{self, UnitState};
use crate::storage::packages::{self, Family, Need};
use crate::storage::stamp_file::{self, GivenTo};

/// One server, as far as one target is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// The distribution's family, where it is known.
    pub family: Option<Family>,
    /// Whether the kernel has a target of its own (LIO), loaded or to be loaded.
    pub kernel_has_lio: bool,
    /// The unit that restores the kernel's targets at boot.
    pub lio_unit: UnitState,
    /// The unit of tgt.
    pub tgt_unit: UnitState,
    /// All targets that tgt offers now, by name; none when it does not run.
    pub targets: BTreeMap<String, Target>,
    /// All CHAP users that tgtd knows.
    pub accounts: BTreeSet<String>,
    /// stor's own configuration file, if it is there.
    pub conf: Option<Conf>,
    /// Targets in configuration files of tgt: file and name.
    pub configured: BTreeSet<(String, String)>,
    /// Who listens on iSCSI's port, if anybody does.
    pub port_holder: Option<String>,
    /// What lies where the data of the LUNs is.
    pub backing: BTreeMap<AbsPath, Place>,
    /// What is behind the LUNs of all targets.
    pub behind: Vec<Behind>,
    /// What LVM shows; asked for block devices only.
    pub lvm: Lvm,
    /// Files that have a server wait for its devices at boot, by path.
    pub boot: BTreeMap<AbsPath, String>,
    /// What the kernel's target shows.
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

/// Which program offers a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Software {
    /// The kernel's target (LIO).
    Lio,
    /// tgt.
    Tgt,
}

/// All packages that a server may need, whichever program offers its targets.
pub const NEEDS: &[Need] = &[lio_commands::SERVER, tgt::SERVER];

/// Who holds a port that no program holds.
pub const KERNEL: &str = "the kernel (LIO)";

/// Whether the kernel has LIO, loaded or to be loaded; a constant.
const KERNEL_HAS_LIO: &str =
    "test -d /sys/module/iscsi_target_mod || modprobe --dry-run --quiet iscsi_target_mod";

/// Asks who listens on iSCSI's port (ss(8)).
fn listeners(spec: &IscsiSpec) -> Query {
    let port = spec.portals.first().map_or(PORT, |portal| portal.port);
    let filter = format!("sport = :{port}");
    let args = ["--no-header", "--listening", "--tcp", "--numeric", "--processes", filter.as_str()];
    Query::new(Command::new("ss").args(args))
}

fn kernel_has_lio() -> Query {
    Query::new(Command::new("sh").args(["-c", KERNEL_HAS_LIO]))
}

/// Everything that [`server`] wants answered. Both programs are asked, whichever is to offer the target: the other one may
/// offer it still, or have the same files and devices.
#[must_use]
pub fn queries(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec) -> Vec<Query> {
    let mut queries = packages::queries(NEEDS);
    let families = [Some(Family::Debian), Some(Family::RedHat)];
    for software in [Software::Lio, Software::Tgt] {
        queries.extend(families.map(|family| mount_unit::state(service(software, family))));
    }
    queries.extend([listeners(spec), kernel_has_lio(), backing::behind()]);
    queries.extend([lio_commands::show(), stamp_file::query(&cluster.name, id, GivenTo::Target)]);
    queries.extend([tgt::targets(), tgt::accounts(), tgt::configured()]);
    queries.push(tgt::conf(&tgt::conf_path(cluster, id)));
    queries.extend(spec.luns.iter().map(|lun| backing::place(&lun.backing)));
    if boot::is_needed(spec) {
        queries.extend(lvm::queries());
        queries.extend(drop_ins(cluster, id).iter().map(boot::query));
    }
    queries
}

/// Files that have a server wait for its devices, whichever it is and however the distribution calls it.
fn drop_ins(cluster: &Cluster, id: &StorageId) -> BTreeSet<AbsPath> {
    let families = [Some(Family::Debian), Some(Family::RedHat)];
    let services =
        [Software::Lio, Software::Tgt].map(|software| families.map(|family| service(software, family)));
    services.iter().flatten().map(|service| boot::path(service, cluster, id)).collect()
}

fn service(software: Software, family: Option<Family>) -> &'static str {
    match software {
        Software::Lio => lio_commands::service(family),
        Software::Tgt => tgt::service(family),
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
    let unreadable = |query: &Query, reason: String| FactsError::Unreadable {
        host: host.clone(),
        query: query.to_string(),
        reason,
    };
    let unit = |software: Software| {
        let query = mount_unit::state(service(software, family));
        let state = seen.answer(host, &query)?;
        let read = mount_unit::parse_state(&state.stdout);
        read.ok_or_else(|| unreadable(&query, state.stderr.trim().to_owned()))
    };
    let lio = lio::observed(seen, host)?;
    Ok(ServerFacts {
        family,
        kernel_has_lio: seen.answer(host, &kernel_has_lio())?.ok(),
        lio_unit: unit(Software::Lio)?,
        tgt_unit: unit(Software::Tgt)?,
        targets: read_targets(answer(tgt::targets())?),
        accounts: read_accounts(answer(tgt::accounts())?),
        conf: read_conf(seen.answer(host, &tgt::conf(&tgt::conf_path(cluster, id)))?),
        port_holder: answer(listeners(spec))?.lines().next().map(holder),
        configured: read_configured(answer(tgt::configured())?),
        backing: places(seen, spec)?,
        behind: backing::read_behind(answer(backing::behind())?),
        lvm: if boot::is_needed(spec) { lvm::observed(seen, host)? } else { Lvm::default() },
        boot: read_drop_ins(seen, cluster, id, spec)?,
        lio,
        stamp: Stamp::parse(answer(stamp_file::query(&cluster.name, id, GivenTo::Target))?),
    })
}

fn read_drop_ins(
    seen: &Observations,
    cluster: &Cluster,
    id: &StorageId,
    spec: &IscsiSpec,
) -> Result<BTreeMap<AbsPath, String>, FactsError> {
    let mut found = BTreeMap::new();
    let paths = if boot::is_needed(spec) { drop_ins(cluster, id) } else { BTreeSet::new() };
    for path in paths {
        let answer = seen.answer(&spec.server, &boot::query(&path))?;
        if answer.ok() {
            found.insert(path, answer.stdout.clone());
        }
    }
    Ok(found)
}

/// What lies where the data of a target's LUNs is.
///
/// # Errors
/// [`FactsError`] when the host was not observed or an answer cannot be read.
pub fn places(seen: &Observations, spec: &IscsiSpec) -> Result<BTreeMap<AbsPath, Place>, FactsError> {
    let one = |lun: &LunSpec| {
        let query = backing::place(&lun.backing);
        let place = backing::read_place(&seen.answer(&spec.server, &query)?.stdout);
        let place = place.map_err(|reason| FactsError::Unreadable {
            host: spec.server.clone(),
            query: format!("a look at {}", lun.backing),
            reason,
        });
        Ok((lun.backing.clone(), place?))
    };
    spec.luns.iter().map(one).collect()
}

/// The program behind a line of ss(8): `users:(("tgtd",pid=..,fd=..))`; the kernel's own sockets have none.
fn holder(line: &str) -> String {
    line.split('"').nth(1).unwrap_or(KERNEL).to_owned()
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
