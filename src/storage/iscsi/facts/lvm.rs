//! What LVM shows on a server: volume groups, logical volumes, and which devices it looks at. Pure.
//!
//! Sources: lvmreport(7), lvmconfig(8), lvm.conf(5).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::model::{Command, HostId, Observations, Query};
use crate::storage::facts::FactsError;

/// LVM of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lvm {
    /// Whether its tools are there.
    pub installed: bool,
    /// Volume groups by name.
    pub groups: BTreeMap<String, Group>,
    /// Logical volumes, by `GROUP/NAME`.
    pub volumes: BTreeMap<String, Volume>,
    /// Whether it looks for physical volumes on every device that is no logical volume of its own.
    pub looks_everywhere: bool,
    /// Whether it looks for them on its own logical volumes, too.
    pub looks_into_volumes: bool,
}

/// One volume group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Bytes that no volume has.
    pub free: u64,
    /// Bytes of an extent: sizes of volumes are multiples of it.
    pub extent: u64,
}

/// One logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its size in bytes.
    pub size: u64,
    /// Whether it has a device.
    pub active: bool,
}

fn report(program: &'static str, options: &str) -> Query {
    let args = ["--reportformat", "json", "--units", "b", "--nosuffix", "--options", options];
    Query::patient(Command::new(program).args(args))
}

fn groups() -> Query {
    report("vgs", "vg_name,vg_free,vg_extent_size")
}

fn volumes() -> Query {
    report("lvs", "vg_name,lv_name,lv_size,lv_active")
}

fn settings() -> Query {
    let names = ["devices/use_devicesfile", "devices/global_filter", "devices/scan_lvs"];
    Query::patient(Command::new("lvmconfig").args(["--typeconfig", "full"]).args(names))
}

/// Everything that [`observed`] wants answered.
#[must_use]
pub fn queries() -> Vec<Query> {
    vec![groups(), volumes(), settings()]
}

#[derive(Deserialize)]
struct Report<T> {
    report: Vec<T>,
}
#[derive(Deserialize)]
struct Groups {
    vg: Vec<RawGroup>,
}
#[derive(Deserialize)]
struct RawGroup {
    vg_name: String,
    vg_free: String,
    vg_extent_size: String,
}
#[derive(Deserialize)]
struct Volumes {
    lv: Vec<RawVolume>,
}
#[derive(Deserialize)]
struct RawVolume {
    vg_name: String,
    lv_name: String,
    lv_size: String,
    lv_active: String,
}

/// Reads what LVM showed; a host without its tools has no volume groups.
///
/// # Errors
/// [`FactsError`] when the host was not observed or an answer cannot be read.
pub fn observed(seen: &Observations, host: &HostId) -> Result<Lvm, FactsError> {
    if seen.answer(host, &groups())?.not_found() {
        return Ok(Lvm::default());
    }
    let text = |query: Query| {
        let answer = seen.answer(host, &query)?;
        let reason = answer.stderr.trim().to_owned();
        let unreadable = || FactsError::Unreadable { host: host.clone(), query: query.to_string(), reason };
        if answer.ok() { Ok(answer.stdout.as_str()) } else { Err(unreadable()) }
    };
    let read = |query: Query, reason: String| FactsError::Unreadable {
        host: host.clone(),
        query: query.to_string(),
        reason,
    };
    let groups = read_groups(text(groups())?).map_err(|error| read(groups(), error))?;
    let volumes = read_volumes(text(volumes())?).map_err(|error| read(volumes(), error))?;
    let settings = seen.answer(host, &settings())?.stdout.as_str();
    let (looks_everywhere, looks_into_volumes) = read_settings(settings);
    Ok(Lvm { installed: true, groups, volumes, looks_everywhere, looks_into_volumes })
}

fn bytes(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is no number of bytes"))
}

/// Reads `vgs --reportformat json`.
///
/// # Errors
/// What cannot be read.
pub fn read_groups(text: &str) -> Result<BTreeMap<String, Group>, String> {
    let report: Report<Groups> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let one = |raw: RawGroup| {
        let group = Group { free: bytes(&raw.vg_free)?, extent: bytes(&raw.vg_extent_size)? };
        Ok((raw.vg_name, group))
    };
    report.report.into_iter().flat_map(|part| part.vg).map(one).collect()
}

/// Reads `lvs --reportformat json`.
///
/// # Errors
/// What cannot be read.
pub fn read_volumes(text: &str) -> Result<BTreeMap<String, Volume>, String> {
    let report: Report<Volumes> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let one = |raw: RawVolume| {
        let volume = Volume { size: bytes(&raw.lv_size)?, active: raw.lv_active == "active" };
        Ok((format!("{}/{}", raw.vg_name, raw.lv_name), volume))
    };
    report.report.into_iter().flat_map(|part| part.lv).map(one).collect()
}

/// Reads `lvmconfig`: whether LVM looks at all devices, and whether into its own volumes. A filter that somebody wrote is taken
/// for one that keeps LVM away.
#[must_use]
pub fn read_settings(text: &str) -> (bool, bool) {
    let value = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
    let unlisted = value("use_devicesfile").is_none_or(|value| value == "0");
    let unfiltered = value("global_filter").is_none_or(|value| value.replace(' ', "") == r#"["a|.*|"]"#);
    let everywhere = !text.trim().is_empty() && unlisted && unfiltered;
    (everywhere, everywhere && value("scan_lvs") == Some("1"))
}
