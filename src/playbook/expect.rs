//! What a playbook expects, looked up on the hosts now.

use std::time::{Duration, Instant};

use super::file::{Beats, RunsOn};
use crate::lab::heartbeat::{self, Heartbeat};
use crate::migrate::Site;
use crate::model::{AbsPath, Cancel, Command, GuestId, HostId, ImageLocation};
use crate::observe::observe;
use crate::plan;
use crate::spec::GuestDefinition;
use crate::status::{self, GuestStatus};
use crate::storage;

/// How much of an image is read for its heartbeat, in MiB: two hours at ten beats a second.
const READ: &str = "36";

/// Whether nothing is left to apply.
pub fn plan_empty(site: Site<'_>) -> Result<String, String> {
    let plan = plan::plan(site.cluster, &observe(site.fleet, &plan::queries(site.cluster)));
    match (plan.steps().count(), plan.blocked.len()) {
        (0, 0) => Ok("every host is as it should be".to_owned()),
        (steps, blocked) => Err(format!("{steps} steps are left, {blocked} blocked")),
    }
}

/// Whether a guest is active on this host and on no other.
pub fn runs_on(site: Site<'_>, at: &RunsOn) -> Result<String, String> {
    let status = status::status(site.cluster, site.fleet);
    let guest =
        status.guests.iter().find(|guest| guest.guest == at.guest).ok_or("the file has no such guest")?;
    if let Some((host, reason)) = guest.unknown.first_key_value() {
        return Err(format!("host {host} could not tell: {reason}"));
    }
    match active(guest).as_slice() {
        [host] if *host == at.host.as_str() => Ok(format!("active on {host} only")),
        [] => Err("it is active nowhere".to_owned()),
        hosts => Err(format!("it is active on {}", hosts.join(" and "))),
    }
}

fn active(guest: &GuestStatus) -> Vec<&str> {
    guest.active().map(crate::model::HostId::as_str).collect()
}

/// Waits until the guest wrote enough beats; each look must prove all beats so far.
pub fn beats(site: Site<'_>, wanted: &Beats, cancel: &Cancel) -> Result<Heartbeat, String> {
    let until = Instant::now() + Duration::from_secs(wanted.within);
    loop {
        let seen = read(site, &wanted.guest)?;
        if seen.fault_count > 0 {
            return Err(format!("{seen}: {:?}", seen.faults));
        }
        if seen.beats >= wanted.beats {
            return Ok(seen);
        }
        if Instant::now() >= until || cancel.is_cancelled() {
            return Err(format!("{seen}; {} were expected within {} s", wanted.beats, wanted.within));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Reads a guest's image with O_DIRECT on one host that can.
fn read(site: Site<'_>, guest: &GuestId) -> Result<Heartbeat, String> {
    let entry = site.cluster.guests.get(guest).ok_or("the file has no such guest")?;
    let image = match &entry.definition {
        GuestDefinition::Generated(shape) => Some(&shape.image),
        GuestDefinition::Written { images, .. } => images.first(),
    };
    let image = image.and_then(|id| site.cluster.images.get(id)).ok_or("the guest has no image")?;
    let backend = storage::backend(site.cluster, &image.storage).ok_or("the image has no storage")?;
    // Where nothing is mounted, a server's own file is looked at.
    let places: Vec<(HostId, AbsPath)> = match backend.locate(image) {
        ImageLocation::File(path) | ImageLocation::Device(path) => {
            site.cluster.hypervisors().map(|host| (host.id.clone(), path.clone())).collect()
        }
        ImageLocation::Gluster { .. } | ImageLocation::Nfs { .. } | ImageLocation::Iscsi { .. } => {
            backend.backing(image)
        }
    };
    let mut reasons = Vec::new();
    for (host, path) in places {
        let Some(host) = site.fleet.host(&host) else { continue };
        let command = Command::new("dd")
            .args([&format!("if={path}"), "bs=1M", &format!("count={READ}"), "iflag=direct", "status=none"])
            .deadline(Duration::from_secs(30));
        match host.run(&command) {
            Ok(output) => {
                return heartbeat::check(output.stdout.as_bytes()).map_err(|error| error.to_string());
            }
            Err(error) => reasons.push(error.to_string()),
        }
    }
    Err(reasons.join("; "))
}
