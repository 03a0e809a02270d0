//! Images that are LUNs: the same serial number, size and ends, whoever looks. Nothing is written, so there is no nonce.

use super::{View, listed, mount};
use crate::model::{Finding, FindingCode, HostId, ResourceId, ResourceKind, Severity};
use crate::storage::lun_probe::{LunSeen, SWAPPED, swapped};
use crate::storage::probe::{KernelSessions, LunTarget};
use crate::verify::evidence::ScopedImage;
use crate::verify::matrix::{Cell, Check, CheckKind, Verdict};

/// All cells of one storage.
pub(super) fn cells(view: &View<'_>, target: &LunTarget) -> Vec<Cell> {
    let mut cells = Vec::new();
    let none = |kind, why: &str| Check::new(kind, Verdict::NotApplicable, why);
    for host in &view.scope.hosts {
        let pool = match &target.pool {
            None => none(CheckKind::Pool, "QEMU reaches the LUN itself"),
            Some(pool) => mount::pool(view, (&pool.name, pool.path.as_ref()), host),
        };
        let (mounted, lock) = match &target.kernel {
            None => (
                none(CheckKind::Mounted, "QEMU reaches the LUN itself"),
                none(CheckKind::Lock, "QEMU's iSCSI client takes no locks"),
            ),
            Some(kernel) => (
                logged_in(view, target, kernel, host),
                none(CheckKind::Lock, "locks on a block device hold on one host only"),
            ),
        };
        let out = mounted.finding.as_ref().is_some_and(|finding| finding.code == FindingCode::NotLoggedIn);
        for image in &view.storage.images {
            // One cause, one finding.
            let access = match out {
                true => Check::new(CheckKind::Access, Verdict::Unknown, "the host is not logged in"),
                false => access(view, target, image, host),
            };
            cells.push(Cell {
                storage: view.id().clone(),
                image: Some(image.id.clone()),
                host: host.clone(),
                checks: vec![
                    mounted.clone(),
                    pool.clone(),
                    identity(view, target, image, host),
                    none(CheckKind::Nonce, "nothing is ever written into a LUN: its ends are compared"),
                    access,
                    lock.clone(),
                ],
            });
        }
    }
    cells
}

/// What the user has to know about storage without locks.
pub(super) fn advice(view: &View<'_>, target: &LunTarget) -> Finding {
    let message = match target.kernel {
        None => "QEMU's iSCSI client takes no locks, so nothing refuses a second writer",
        Some(_) => "locks on a block device hold on one host only, so nothing refuses a second writer",
    };
    Finding::new(Severity::Advice, FindingCode::LockNotHonoured, view.subject(), message)
        .remedy("start guests with `stor start`, which looks at every hypervisor first")
}

/// The host's kernel has a live session at every portal.
fn logged_in(view: &View<'_>, target: &LunTarget, kernel: &KernelSessions, host: &HostId) -> Check {
    const KIND: CheckKind = CheckKind::Mounted;
    let sessions = match view.host(host).and_then(|seen| seen.luns.get(view.id())) {
        None => return view.uncovered(KIND, host),
        Some(Err(why)) => return view.missing(KIND, host, why),
        Some(Ok(seen)) => &seen.sessions,
    };
    let iqn = &target.iqn;
    let absent: Vec<&String> = kernel.portals.iter().filter(|at| !sessions.contains_key(*at)).collect();
    if !absent.is_empty() {
        let message = format!("host {host}: is not logged in to target {iqn} at {}", listed(absent));
        return view.failed(KIND, host, FindingCode::NotLoggedIn, message).remedy("run `stor apply`");
    }
    let lost: Vec<&String> =
        sessions.iter().filter(|(_, state)| *state != "LOGGED_IN").map(|(at, _)| at).collect();
    if !lost.is_empty() {
        let message = format!("host {host}: has lost its session with target {iqn} at {}", listed(lost));
        let remedy = "see whether the server is up and a firewall lets it be reached; the session comes back by itself";
        return view.failed(KIND, host, FindingCode::SessionLost, message).remedy(remedy);
    }
    Check::new(KIND, Verdict::Pass, format!("logged in to {iqn} at {}", listed(&kernel.portals)))
}

/// What a host saw of a LUN; `None` when it could not open it.
fn seen<'a>(
    view: &View<'a>,
    image: &ScopedImage,
    host: &HostId,
    kind: CheckKind,
) -> Result<Result<&'a LunSeen, &'a String>, Box<Check>> {
    match view.host(host).and_then(|seen| seen.luns.get(view.id())) {
        None => Err(Box::new(view.uncovered(kind, host))),
        Some(Err(why)) => Err(Box::new(view.missing(kind, host, why))),
        Some(Ok(seen)) => match seen.luns.get(&image.file) {
            None => Err(Box::new(view.uncovered(kind, host))),
            Some(lun) => Ok(lun.as_ref()),
        },
    }
}

fn access(view: &View<'_>, target: &LunTarget, image: &ScopedImage, host: &HostId) -> Check {
    const KIND: CheckKind = CheckKind::Access;
    let device = target.kernel.as_ref().and_then(|kernel| kernel.devices.get(&image.file));
    if let Some(held) = view.client().and_then(|client| client.reserved.get(&image.file)) {
        let message = format!("host {host}: somebody has reserved the LUN of image {}: {held}", image.id);
        return view
            .failed(KIND, host, FindingCode::LunReserved, message)
            .about(ResourceId::new(ResourceKind::Image, &image.id))
            .remedy("find out which cluster uses it (`sg_persist --in --read-full-status` on a host with its device), and take the reservation away there");
    }
    match (seen(view, image, host, KIND), device) {
        (Err(check), _) => *check,
        (Ok(Ok(_)), None) => {
            Check::new(KIND, Verdict::Pass, "opened for reading and writing by QEMU's client")
        }
        (Ok(Ok(_)), Some(path)) => {
            Check::new(KIND, Verdict::Pass, format!("{path} opened for reading and writing"))
        }
        (Ok(Err(said)), device) => {
            let (code, message, remedy) = match device {
                None => refusal(said, host, image),
                Some(_) => device_refusal(said, host, image),
            };
            view.failed(KIND, host, code, message)
                .about(ResourceId::new(ResourceKind::Image, &image.id))
                .evidence([said.clone()])
                .remedy(remedy)
        }
    }
}

/// Which of the usual refusals this is, in libiscsi's words (RFC 7143 section 11.13.5 has the numbers).
fn refusal(said: &str, host: &HostId, image: &ScopedImage) -> (FindingCode, String, &'static str) {
    let id = &image.id;
    if said.contains("Authentication failure") {
        let message = format!("host {host}: the target does not accept the CHAP secret for image {id}");
        (FindingCode::AccessDenied, message, "run `stor apply`, which gives both sides the same secret")
    } else if said.contains("Target not found") || said.contains("Authorization failure") {
        let message = format!("host {host}: there is no target for image {id}, or it is not for this host");
        (FindingCode::TargetMissing, message, "run `stor apply`, which offers it to every hypervisor")
    } else if said.contains("LOGICAL_UNIT_NOT_SUPPORTED") {
        let message = format!("host {host}: the target has no LUN for image {id}");
        (FindingCode::ImageMissing, message, "run `stor apply`, which makes what is missing")
    } else if said.contains("iscsi_service failed") {
        let message =
            format!("host {host}: nobody listens at the portal of image {id}, or no way leads there");
        (
            FindingCode::TargetMissing,
            message,
            "see whether the server is up and tgt runs there: `stor status`",
        )
    } else if said.contains("within 4s") || said.contains("Killed") {
        let message = format!("host {host}: nobody answers at the portal of image {id}");
        (FindingCode::ProbeTimedOut, message, "see whether the server is up, and what a firewall drops")
    } else {
        let message = format!("host {host}: QEMU's client cannot open image {id}");
        (FindingCode::AccessDenied, message, "see whether the server runs and lets this host in")
    }
}

/// Likewise where the host's kernel has the LUN.
fn device_refusal(said: &str, host: &HostId, image: &ScopedImage) -> (FindingCode, String, &'static str) {
    let id = &image.id;
    if said.ends_with("No such file or directory") {
        let message = format!("host {host}: has no block device of image {id}");
        (FindingCode::ImageMissing, message, "run `stor apply`, which logs in and looks for new LUNs")
    } else if said.contains("within 4s") || said.contains("Killed") {
        let message = format!("host {host}: the block device of image {id} does not answer");
        (FindingCode::ProbeTimedOut, message, "see whether the server is up, and what a firewall drops")
    } else {
        let message = format!("host {host}: cannot open the block device of image {id}");
        (FindingCode::AccessDenied, message, "see what holds the device: `lsblk` on the host")
    }
}

fn identity(view: &View<'_>, target: &LunTarget, image: &ScopedImage, host: &HostId) -> Check {
    const KIND: CheckKind = CheckKind::Identity;
    let own = match seen(view, image, host, KIND) {
        Err(check) => return *check,
        Ok(Err(_)) => return Check::new(KIND, Verdict::Unknown, "the LUN could not be opened"),
        Ok(Ok(own)) => own,
    };
    let about = ResourceId::new(ResourceKind::Image, &image.id);
    if let Some((lun, serial)) = target.luns.get(&image.file).zip(own.serial.as_ref())
        && *serial != lun.serial
    {
        let message = format!("host {host}: image {} is not the LUN that stor made", image.id);
        return view
            .failed(KIND, host, FindingCode::LunSwapped, message)
            .about(about)
            .evidence([swapped(lun.number, serial, &lun.serial)])
            .remedy("find out who changed the target; shut its guest down before anything else");
    }
    let file = match view.client().and_then(|client| client.identified.get(&image.file)) {
        Some(Err(said)) => {
            let swapped = said.ends_with(SWAPPED);
            let code = if swapped { FindingCode::LunSwapped } else { FindingCode::ImageMissing };
            let message = format!("image {} is not the LUN that stor made", image.id);
            return view
                .failed(KIND, host, code, message)
                .about(about)
                .evidence([format!("{}: {said}", view.client_name())])
                .remedy("find out who changed the target; shut its guest down before anything else");
        }
        Some(Ok(file)) => Some(file),
        None => None,
    };
    if let Some(file) = file.filter(|file| file.size != own.size) {
        let message =
            format!("host {host}: image {} has {} bytes, the LUN {}", image.id, own.size, file.size);
        return view
            .failed(KIND, host, FindingCode::ImageSizeDiffers, message)
            .about(about)
            .remedy("see whether all hosts use the same server");
    }
    let looks = |client: &crate::storage::probe::ClientAnswer| client.read.get(&image.file)?.clone().ok();
    let (before, after) =
        (view.evidence.earlier.get(view.id()).and_then(looks), view.client().and_then(looks));
    match (file, before, after, &own.ends) {
        (None, ..) => {
            let text = format!("{} bytes; nobody could say which LUN it is", own.size);
            Check::new(KIND, Verdict::Unknown, text)
        }
        (Some(file), Some(before), Some(after), Ok(ends)) if before == after => {
            if *ends == after {
                let text = format!("{file}; both ends equal those that {} sees", view.client_name());
                return Check::new(KIND, Verdict::Pass, text);
            }
            let others = view.scope.hosts.iter().filter(|other| {
                *other != host
                    && matches!(seen(view, image, other, KIND), Ok(Ok(lun)) if lun.ends == own.ends)
            });
            let message = format!("host {host}: image {} holds other data than the LUN", image.id);
            view.failed(KIND, host, FindingCode::LunDiffers, message)
                .about(about)
                .evidence([format!("the same as on: {}", listed(others))])
                .remedy("see whether the host reaches another server by the same address")
        }
        (Some(file), Some(_), Some(_), Ok(_)) => {
            let text = format!("{file}; it is being written, so its ends were not compared");
            Check::new(KIND, Verdict::Pass, text)
        }
        (Some(file), _, _, Err(said)) => {
            Check::new(KIND, Verdict::Unknown, format!("{file}; its ends could not be read: {said}"))
        }
        (Some(file), ..) => Check::new(KIND, Verdict::Unknown, format!("{file}; its ends were not read")),
    }
}

#[cfg(test)]
mod tests;
