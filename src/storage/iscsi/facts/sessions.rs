//! What a hypervisor's own initiator shows of a target: records, sessions, the disks behind them. Pure.
//!
//! Imports `model` and the shared queries of `storage`. What follows is decided in `plan::sessions`.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{HostId, Observations, Stamp, StorageId, Unknown};
use crate::spec::Cluster;
use crate::storage::iscsi::commands::open_iscsi;
use crate::storage::iscsi::spec::{IscsiSpec, Portal};
use crate::storage::stamp_file::{self, GivenTo};

/// Bytes of a sector as sysfs counts them, whatever the disk's own are.
const SECTOR: u64 = 512;

/// What a hypervisor shows of one target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Initiator {
    /// Whether its kernel has an iSCSI initiator.
    pub transport: bool,
    /// open-iscsi's records of the target.
    pub records: BTreeMap<Portal, Record>,
    /// Its sessions with the target.
    pub sessions: BTreeMap<Portal, Session>,
    /// The paths that lead to a disk, with its kernel's name.
    pub paths: BTreeMap<String, String>,
    /// The stamp of the secret in the records.
    pub stamp: Option<Stamp>,
}

/// What open-iscsi keeps of a target at one portal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// When it logs in: `automatic`, `manual`, `onboot`.
    pub startup: String,
    /// `CHAP` or `None`.
    pub authmethod: String,
    /// The CHAP user.
    pub user: Option<String>,
    /// Seconds after which I/O of a lost session fails.
    pub replacement_timeout: String,
}

/// One session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Session {
    /// `LOGGED_IN`, `FAILED` while the connection is lost, `FREE`.
    pub state: String,
    /// Its disks by the number of their LUN.
    pub disks: BTreeMap<u32, Disk>,
}

impl Session {
    /// Tells whether the target answers.
    #[must_use]
    pub fn is_logged_in(&self) -> bool {
        self.state == "LOGGED_IN"
    }
}

/// A LUN as one session's disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    /// The kernel's name for it.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its serial number (VPD page 0x80), if it showed one.
    pub serial: Option<String>,
    /// What lies over it: a multipath map, a volume group, a mapping of some other kind.
    pub holders: Vec<Holder>,
}

/// What lies over a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The kernel's name for it.
    pub name: String,
    /// The start of device mapper's UUID (`mpath`, `LVM`), or `disk`.
    pub kind: String,
    /// Its size in bytes.
    pub size: u64,
}

impl Initiator {
    /// Every disk with the number of its LUN.
    pub fn disks(&self) -> impl Iterator<Item = (u32, &Disk)> {
        self.sessions.values().flat_map(|session| session.disks.iter().map(|(number, disk)| (*number, disk)))
    }

    /// The sizes that a LUN shows: those of its disks, and of the multipath map over them.
    #[must_use]
    pub fn sizes(&self, lun: u8) -> BTreeSet<u64> {
        let disks = self.disks().filter(|(number, _)| *number == u32::from(lun)).map(|(_, disk)| disk);
        disks
            .flat_map(|disk| {
                let maps = disk.holders.iter().filter(|holder| holder.kind == "mpath");
                maps.map(|holder| holder.size).chain([disk.size])
            })
            .collect()
    }
}

/// Reads what a hypervisor answered.
///
/// # Errors
/// [`Unknown`] when it was not observed, or the answer makes no sense.
pub fn observed(
    seen: &Observations,
    cluster: &Cluster,
    id: &StorageId,
    spec: &IscsiSpec,
    host: &HostId,
) -> Result<Initiator, Unknown> {
    let answer = |query| seen.answer(host, &query);
    let unreadable = |what: &str, reason: &str| Unknown::Host {
        host: host.clone(),
        reason: format!("{what}: {}", reason.trim()),
    };
    let shown = answer(open_iscsi::sessions(cluster, id, spec))?;
    if !shown.ok() {
        return Err(unreadable("cannot look at its sessions", &shown.stderr));
    }
    let mut initiator = read(&shown.stdout).map_err(|line| unreadable("an unexpected answer", &line))?;
    let records = answer(open_iscsi::records(spec))?;
    // 21: there are none (ISCSI_ERR_NO_OBJS_FOUND).
    if !(records.ok() || records.not_found() || records.status == Some(21)) {
        return Err(unreadable("cannot ask open-iscsi for its records", &records.stderr));
    }
    initiator.records = read_records(&records.stdout);
    initiator.stamp = Stamp::parse(&answer(stamp_file::query(&cluster.name, id, GivenTo::Node))?.stdout);
    Ok(initiator)
}

/// Reads what `show.sh` printed; the error is the line that makes no sense.
///
/// # Errors
/// When a line is none of the script's.
pub fn read(text: &str) -> Result<Initiator, String> {
    let mut initiator = Initiator::default();
    let (mut portal, mut lun) = (None, None);
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let bytes = |sectors: &str| Some(sectors.parse::<u64>().ok()?.saturating_mul(SECTOR));
        let understood = match words.as_slice() {
            ["transport"] => {
                initiator.transport = true;
                Some(())
            }
            ["session", address, port, state @ ..] => port.parse().ok().map(|port| {
                let at = Portal { address: (*address).to_owned(), port };
                let session = Session { state: state.join(" "), ..Session::default() };
                initiator.sessions.insert(at.clone(), session);
                (portal, lun) = (Some(at), None);
            }),
            ["lun", number, name, sectors, serial] => {
                number.parse().ok().zip(bytes(sectors)).and_then(|(number, size): (u32, u64)| {
                    let serial = Some((*serial).to_owned()).filter(|serial| serial != "-");
                    let disk = Disk { name: (*name).to_owned(), size, serial, holders: Vec::new() };
                    lun = Some(number);
                    initiator.sessions.get_mut(portal.as_ref()?)?.disks.insert(number, disk);
                    Some(())
                })
            }
            ["holder", name, kind, sectors] => bytes(sectors).and_then(|size| {
                let disk = initiator.sessions.get_mut(portal.as_ref()?)?.disks.get_mut(&lun?)?;
                disk.holders.push(Holder { name: (*name).to_owned(), kind: (*kind).to_owned(), size });
                Some(())
            }),
            ["path", disk, path] => {
                initiator.paths.insert((*path).to_owned(), (*disk).to_owned());
                Some(())
            }
            _ => None,
        };
        understood.ok_or_else(|| line.to_owned())?;
    }
    Ok(initiator)
}

/// Reads what `iscsiadm --mode node --op show` prints: one block for each record.
#[must_use]
pub fn read_records(text: &str) -> BTreeMap<Portal, Record> {
    let blocks = text.split("# BEGIN RECORD").skip(1);
    blocks
        .filter_map(|block| {
            let fields: BTreeMap<&str, &str> =
                block.lines().filter_map(|line| line.split_once(" = ")).collect();
            let field = |name: &str| fields.get(name).copied().unwrap_or_default().to_owned();
            let portal = Portal {
                address: field("node.conn[0].address"),
                port: fields.get("node.conn[0].port")?.parse().ok()?,
            };
            let record = Record {
                startup: field("node.startup"),
                authmethod: field("node.session.auth.authmethod"),
                user: Some(field("node.session.auth.username")).filter(|user| user != "<empty>"),
                replacement_timeout: field("node.session.timeo.replacement_timeout"),
            };
            Some((portal, record))
        })
        .collect()
}
