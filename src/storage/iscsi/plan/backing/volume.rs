//! Logical volumes behind LUNs: made in a volume group that is there, grown, activated, never shrunk.

use std::collections::BTreeMap;

use super::super::server::Server;
use super::{Grown, backing, device, grow, refuse, refuse_opened, refuse_smaller};
use crate::model::{Blocked, ByteSize, Difference, Effect, OwnedKind, Proposal, Wave};
use crate::storage::iscsi::commands::backing as commands;
use crate::storage::iscsi::facts::lvm::Group;
use crate::storage::iscsi::spec::{Backing, LunSpec, VolumeName};

/// Plans a logical volume.
pub(super) fn plan(
    server: &Server<'_>,
    lun: &LunSpec,
    name: &VolumeName,
    out: &mut Proposal,
) -> Result<Grown, Box<Blocked>> {
    let group = group(server, lun, name)?;
    let field = server.subject.field(&format!("luns.{}.volume", lun.name));
    let Some(volume) = server.facts.lvm.volumes.get(&name.to_string()) else {
        whole_extents(server, lun, group)?;
        let title = format!("make logical volume {name} for LUN {} ({})", lun.name, lun.size);
        let run = Effect::Run(vec![commands::make_volume(name, lun.size)]);
        let step = server.step(Wave::Prerequisites, server.subject.lun(lun), title, run);
        let step = step.because(Difference::new(field, name, "absent"));
        out.steps.push(step.owning(backing(server.subject.id, lun)));
        return Ok(Grown::No);
    };
    if !server.record.owns(OwnedKind::LogicalVolume, &name.to_string()) {
        let reason = format!("there is a logical volume {name} already, and stor did not make it");
        let hint = format!("to offer it as it is write device: {} instead of volume:", name.device());
        return refuse(server, lun, reason, hint);
    }
    if volume.active {
        device::usable(server, lun, device::there(server, lun)?)?;
    } else {
        let title = format!("activate logical volume {name}");
        let run = Effect::Run(vec![commands::activate_volume(name)]);
        let step = server.step(Wave::Prerequisites, server.subject.lun(lun), title, run);
        out.steps.push(step.because(Difference::new(field, "active", "inactive")));
    }
    let size = ByteSize::from_bytes(volume.size);
    if size == lun.size {
        return Ok(Grown::No);
    }
    refuse_smaller(server, lun, size)?;
    whole_extents(server, lun, group)?;
    refuse_opened(server, lun)?;
    let title = format!("let logical volume {name} grow to {}", lun.size);
    out.steps.push(grow(server, lun, size, title, Effect::Run(vec![commands::grow_volume(name, lun.size)])));
    Ok(Grown::Yes)
}

fn group<'s>(server: &'s Server<'_>, lun: &LunSpec, name: &VolumeName) -> Result<&'s Group, Box<Blocked>> {
    let lvm = &server.facts.lvm;
    if !lvm.installed {
        let reason = format!("there is no volume group {}: LVM is not installed", name.group);
        return refuse(server, lun, reason, "install lvm2 and make the group with vgcreate(8)");
    }
    match lvm.groups.get(&name.group) {
        Some(group) => Ok(group),
        None => {
            let reason = format!("there is no volume group {}", name.group);
            refuse(server, lun, reason, "make it with vgcreate(8), or name one of those that `vgs` lists")
        }
    }
}

/// lvcreate(8) rounds up, which would make the LUN larger than its image.
fn whole_extents(server: &Server<'_>, lun: &LunSpec, group: &Group) -> Result<(), Box<Blocked>> {
    let extent = group.extent.max(1);
    if lun.size.bytes().is_multiple_of(extent) {
        return Ok(());
    }
    let whole = ByteSize::from_bytes(lun.size.bytes().div_ceil(extent) * extent);
    let reason =
        format!("{} is no whole number of the group's extents of {}", lun.size, ByteSize::from_bytes(extent));
    refuse(server, lun, reason, format!("write size: {whole}, for the LUN and its image"))
}

/// Refuses volumes that their groups have no room for, all of a group together.
pub(super) fn room(server: &Server<'_>, out: &mut Proposal) {
    let lvm = &server.facts.lvm;
    let mut wanted: BTreeMap<&str, (u64, &LunSpec)> = BTreeMap::new();
    for lun in &server.subject.spec.luns {
        let Backing::Volume(name) = &lun.kind else { continue };
        let has = lvm.volumes.get(&name.to_string()).map_or(0, |volume| volume.size);
        let (sum, last) = wanted.entry(&name.group).or_insert((0, lun));
        let more = lun.size.bytes().saturating_sub(has);
        *sum += more;
        if more > 0 {
            *last = lun;
        }
    }
    for (name, (more, lun)) in wanted {
        let Some(group) = lvm.groups.get(name).filter(|group| group.free < more) else { continue };
        let (free, more) = (ByteSize::from_bytes(group.free), ByteSize::from_bytes(more));
        let reason = format!("volume group {name} is too small: {free} are free, {more} are needed");
        let refused: Result<(), _> =
            refuse(server, lun, reason, "add a device to it with vgextend(8), or write smaller sizes");
        out.blocked.extend(refused.err().map(|blocked| *blocked));
    }
}
