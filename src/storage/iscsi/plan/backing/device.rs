//! Block devices behind LUNs: offered as they are, once nothing else can have them.
//!
//! stor never writes to a device. One that carries something is offered only where the cluster file names it a second time,
//! because guests may overwrite what is on it.

use super::super::server::Server;
use super::{Grown, backing, is_offered, refuse, refuse_smaller};
use crate::model::{
    Blocked, ByteSize, Difference, Effect, Finding, FindingCode, OwnedKind, Proposal, Risk, Severity, Wave,
};
use crate::storage::iscsi::commands;
use crate::storage::iscsi::facts::backing::{Device, Place};
use crate::storage::iscsi::spec::{Backing, LunSpec};

/// The detail of an owned device that says by what it is known after a boot.
const NAME: &str = "device";

/// Plans a device: taken into the record, and nothing else.
pub(super) fn plan(
    server: &Server<'_>,
    lun: &LunSpec,
    adopted: bool,
    out: &mut Proposal,
) -> Result<Grown, Box<Blocked>> {
    let path = &lun.backing;
    let device = there(server, lun)?;
    usable(server, lun, device)?;
    let own = server
        .record
        .owned
        .iter()
        .find(|entry| entry.kind == OwnedKind::BackingDevice && entry.name == path.as_str());
    let before = own.and_then(|entry| entry.detail.get(NAME));
    if let (Some(before), Some(now)) = (before, &device.name)
        && before != now
    {
        let reason = format!("{path} is another device than the one that was offered: {now}, not {before}");
        let hint = "name the right device by a name that stays, like one below /dev/disk/by-id";
        return refuse(server, lun, reason, hint);
    }
    size(server, lun, device)?;
    if own.is_some() {
        return Ok(Grown::No);
    }
    let carried: Vec<&str> = device.signatures.iter().map(String::as_str).collect();
    let foreign = !carried.is_empty() && !is_offered(server, lun);
    if foreign && !adopted {
        let reason = format!("{path} carries data that stor did not put there: {}", carried.join(", "));
        let hint = format!(
            "look at it with `wipefs {path}`; to offer it with all that is on it write adopt: {path} for this LUN; to offer it empty, \
             run `wipefs --all {path}` yourself"
        );
        return refuse(server, lun, reason, hint);
    }
    let title = match foreign {
        true => format!("take {path} for LUN {}, with what it carries ({})", lun.name, carried.join(", ")),
        false => format!("take {path} for LUN {} as it is", lun.name),
    };
    let run = Effect::Run(vec![commands::backing::check_device(path, &device.identity)]);
    let field = server.subject.field(&format!("luns.{}.device", lun.name));
    let owned = backing(server.subject.id, lun);
    let owned = match &device.name {
        Some(name) => owned.with(NAME, name.as_str()),
        None => owned,
    };
    let step = server.step(Wave::Prerequisites, server.subject.lun(lun), title, run);
    let step = step.because(Difference::new(field, "behind this LUN", "not taken")).owning(owned);
    out.steps.push(if foreign { step.risking(Risk::DataLoss) } else { step });
    Ok(Grown::No)
}

/// The device of a LUN; refuses what is none.
pub(super) fn there<'s>(server: &'s Server<'_>, lun: &LunSpec) -> Result<&'s Device, Box<Blocked>> {
    let path = &lun.backing;
    match server.facts.backing.get(path) {
        Some(Place::Device(device)) => Ok(device),
        None | Some(Place::Absent { .. }) => {
            let hint = "name a device that is there with device:; `lsblk` on the host lists them";
            refuse(server, lun, format!("{path} is not there"), hint)
        }
        Some(Place::File { .. }) => {
            let hint = "name a file with backing:, it needs no loop device";
            refuse(server, lun, format!("{path} is a file, not a block device"), hint)
        }
        Some(Place::Other(kind)) => {
            refuse(server, lun, format!("{path} is a {kind}, not a block device"), "name one with device:")
        }
    }
}

/// Refuses a device that anything but this LUN uses.
pub(super) fn usable(server: &Server<'_>, lun: &LunSpec, device: &Device) -> Result<(), Box<Blocked>> {
    let path = &lun.backing;
    let list = |all: &std::collections::BTreeSet<String>| all.iter().cloned().collect::<Vec<_>>().join(", ");
    let taken = "name another device: one that is in use cannot be offered without destroying what is on it";
    if device.read_only {
        let hint = "let it be written to (`blockdev --setrw`), or name another device";
        return refuse(server, lun, format!("{path} cannot be written to"), hint);
    }
    if !device.mounted.is_empty() {
        return refuse(server, lun, format!("{path} is mounted: {}", list(&device.mounted)), taken);
    }
    if !device.holders.is_empty() {
        let reason = format!("{path} is in use, these are built on it: {}", list(&device.holders));
        return refuse(server, lun, reason, taken);
    }
    if device.claimed && !is_offered(server, lun) {
        let reason = format!("{path} is in use: another program has it for itself");
        return refuse(
            server,
            lun,
            reason,
            "see `lsof` and `targetcli ls` on the host, or name another device",
        );
    }
    Ok(())
}

/// A device has the size that it has, and a LUN always all of it.
fn size(server: &Server<'_>, lun: &LunSpec, device: &Device) -> Result<(), Box<Blocked>> {
    let (path, size) = (&lun.backing, ByteSize::from_bytes(device.size));
    refuse_smaller(server, lun, size)?;
    if size < lun.size {
        let reason = format!("{path} is too small: it has {size}, the file says {}", lun.size);
        return refuse(server, lun, reason, format!("write size: {size}, or name another device"));
    }
    Ok(())
}

/// Says where the host's own LVM would look into what belongs to guests.
pub(super) fn advice(server: &Server<'_>, out: &mut Proposal) {
    let lvm = &server.facts.lvm;
    let spec = server.subject.spec;
    for lun in &spec.luns {
        let path = &lun.backing;
        let looked_into = match (&lun.kind, server.facts.backing.get(path)) {
            (Backing::File(_), _) => false,
            (Backing::Volume(_), _) => lvm.looks_into_volumes,
            (Backing::Device { .. }, Some(Place::Device(device))) if device.kind == "lvm" => {
                lvm.looks_into_volumes
            }
            (Backing::Device { .. }, _) => lvm.looks_everywhere,
        };
        if looked_into {
            let message = format!(
                "host {}: LVM looks for volume groups on {path}, and would use those that a guest makes there",
                spec.server
            );
            let finding = Finding::new(
                Severity::Warning,
                FindingCode::LvmLooksIntoLun,
                server.subject.lun(lun),
                message,
            );
            out.findings.push(finding.on(&spec.server).remedy(format!(
                "in /etc/lvm/lvm.conf, section devices, write global_filter = [ \"r|^{path}$|\", \"a|.*|\" ], or list the host's own \
                 devices with lvmdevices(8)"
            )));
        }
    }
}
