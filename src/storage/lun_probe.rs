//! Probes of LUNs: QEMU's own tools on each hypervisor, or its block devices where its kernel is logged in, and the server's own
//! look at what is behind them.
//!
//! Commands and pure readers. Imports `model` and `storage`. Nothing is ever written to a LUN: its ends are compared instead
//! of a nonce.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Answer, Command, HostId, Query, Stdin};
use crate::storage::mount_probe::seen::NoFacts;
use crate::storage::probe::{ClientAnswer, Identity, KernelSessions, LunTarget, NoClient};

/// Bytes at each end of a LUN whose digest is taken.
pub const END: u64 = 1 << 20;
/// Time for the first LUN, and for each further one.
const FIRST: Duration = Duration::from_secs(12);
const FURTHER: Duration = Duration::from_secs(2);

const HYPERVISOR: &str = include_str!("lun_probe.sh");
const SERVER: &str = include_str!("lun_keeper.sh");
const DEVICE: &str = include_str!("lun_device.sh");

/// What one host saw of one LUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LunSeen {
    /// Its size in bytes.
    pub size: u64,
    /// The serial number, where it was shown.
    pub serial: Option<String>,
    /// The digests of its first and last bytes, or why they could not be read.
    pub ends: Result<String, String>,
}

/// What one host saw of a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LunsSeen {
    /// Its LUNs by file name; the error text where one could not be opened.
    pub luns: BTreeMap<String, Result<LunSeen, String>>,
    /// The state of the kernel's own sessions, by portal.
    pub sessions: BTreeMap<String, String>,
}

fn deadline(luns: usize) -> Duration {
    FIRST + FURTHER * u32::try_from(luns).unwrap_or(u32::MAX)
}

/// Asks a hypervisor for LUNs. The secret travels on standard input.
#[must_use]
pub fn query(target: &LunTarget, host: &HostId, files: &[String]) -> Query {
    if let Some(kernel) = &target.kernel {
        return devices(target, kernel, files);
    }
    let initiator = target.initiators.get(host).map_or("", String::as_str);
    ask(target, initiator, files, END)
}

/// Asks a hypervisor for its kernel's sessions alone; `None` where QEMU's own client reaches the target.
#[must_use]
pub fn sessions(target: &LunTarget) -> Option<Query> {
    target.kernel.as_ref().map(|kernel| devices(target, kernel, &[]))
}

/// Asks a hypervisor whose kernel is logged in.
fn devices(target: &LunTarget, kernel: &KernelSessions, files: &[String]) -> Query {
    let end = END.to_string();
    let known = files.iter().filter_map(|file| Some((file, kernel.devices.get(file)?)));
    let command = Command::new("sh").args(["-c", DEVICE, "stor-lun-devices", &target.iqn, &end]);
    let command = known.fold(command, |command, (file, device)| command.args([file, device.as_str()]));
    Query::patient(command.deadline(deadline(files.len())))
}

/// Only opens one LUN, by the name that a host has at the target: the kernel's target lets names in, not addresses.
#[must_use]
pub fn open(target: &LunTarget, host: &HostId, file: &str) -> Query {
    let initiator = target.initiators.get(host).unwrap_or(&target.initiator);
    ask(target, initiator, &[file.to_owned()], 0)
}

/// Whether the LUN of [`open`] could be opened.
///
/// # Errors
/// Why it could not.
pub fn opened(answer: &Answer) -> Result<(), String> {
    let seen = seen(answer).map_err(|why| why.to_string())?;
    let (_, lun) = seen.luns.into_iter().next().ok_or("no answer")?;
    lun.map(drop)
}

fn ask(target: &LunTarget, initiator: &str, files: &[String], end: u64) -> Query {
    let login = target.login.as_ref();
    let user = login.map_or("", |login| login.user.as_str());
    let (port, end) = (target.port.to_string(), end.to_string());
    let secret = login.and_then(|login| login.secret.as_ref());
    let mut command = Command::new("sh")
        .args([
            "-c",
            HYPERVISOR,
            "stor-probe-luns",
            &target.address,
            &port,
            &target.iqn,
            initiator,
            user,
            &end,
        ])
        .stdin(Stdin::line(secret))
        .deadline(deadline(files.len()));
    for (file, lun) in files.iter().filter_map(|file| Some((file, target.luns.get(file)?))) {
        command = command.args([file.as_str(), &lun.number.to_string()]);
    }
    Query::patient(command)
}

/// Asks the server what is behind LUNs.
#[must_use]
pub fn server_query(target: &LunTarget, files: &[String]) -> Query {
    let end = END.to_string();
    let mut command =
        Command::new("sh").args(["-c", SERVER, "stor-keep-luns", &end]).deadline(deadline(files.len()));
    for (file, lun) in files.iter().filter_map(|file| Some((file, target.luns.get(file)?))) {
        command = command.args([file, &lun.number.to_string(), &target.iqn, lun.backing.as_str()]);
    }
    Query::patient(command)
}

/// Reads what either script printed.
///
/// # Errors
/// [`NoFacts`]
pub fn seen(answer: &Answer) -> Result<LunsSeen, NoFacts> {
    if answer.status.is_none() {
        return Err(NoFacts::TimedOut);
    }
    let mut found = LunsSeen::default();
    let mut current: Option<String> = None;
    for line in answer.stdout.lines() {
        let malformed = || NoFacts::Malformed(line.to_owned());
        let (word, rest) = line.split_once(' ').ok_or_else(malformed)?;
        if word == "missing" {
            return Err(NoFacts::NotAsked(format!("{rest} is not installed")));
        }
        if word == "lun" {
            let unread = LunSeen { size: 0, serial: None, ends: Err("nothing was read".to_owned()) };
            found.luns.insert(rest.to_owned(), Ok(unread));
            current = Some(rest.to_owned());
            continue;
        }
        if word == "session" {
            let (portal, state) = rest.split_once(' ').ok_or_else(malformed)?;
            found.sessions.insert(portal.to_owned(), state.to_owned());
            continue;
        }
        let lun = current.as_ref().and_then(|file| found.luns.get_mut(file)).ok_or_else(malformed)?;
        match (word, lun) {
            ("error", lun) => *lun = Err(rest.trim().to_owned()),
            ("size", Ok(lun)) => lun.size = rest.parse().map_err(|_| malformed())?,
            ("serial", Ok(lun)) => lun.serial = Some(rest.to_owned()),
            ("digest", Ok(lun)) => lun.ends = Ok(rest.to_owned()),
            ("unread", Ok(lun)) => lun.ends = Err(rest.trim().to_owned()),
            _ => return Err(malformed()),
        }
    }
    Ok(found)
}

/// What a server said, in the words of a client on this machine.
///
/// # Errors
/// [`NoClient::Failed`] when the answer tells nothing.
pub fn as_client(target: &LunTarget, answer: &Answer) -> Result<ClientAnswer, NoClient> {
    let seen = seen(answer).map_err(|why| NoClient::Failed { reason: why.to_string() })?;
    let mut client = ClientAnswer::default();
    for (file, lun) in seen.luns {
        let Some(wanted) = target.luns.get(&file) else { continue };
        let identity = lun.clone().and_then(|lun| {
            let serial = lun.serial.unwrap_or_default();
            if serial != wanted.serial {
                return Err(swapped(wanted.number, &serial, &wanted.serial));
            }
            Ok(Identity {
                inode: u64::from(wanted.number),
                id: Some(format!("serial {serial}")),
                size: lun.size,
            })
        });
        client.identified.insert(file.clone(), identity);
        if let Ok(lun) = lun {
            client.read.insert(file, lun.ends);
        }
    }
    Ok(client)
}

/// What is said of a LUN that shows another serial number than stor gave it.
#[must_use]
pub fn swapped(number: u8, serial: &str, wanted: &str) -> String {
    format!("LUN {number} has serial {serial}, not {wanted}: {SWAPPED}")
}

/// How the words of [`swapped`] end.
pub const SWAPPED: &str = "it is another LUN";
