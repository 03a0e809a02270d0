//! Storage that QEMU reaches itself: nothing is mounted, so the proofs go through QEMU's own tools and the servers.

use super::{View, code_of, listed};
use crate::model::{Finding, FindingCode, HostId, ResourceId, ResourceKind, Severity};
use crate::storage::direct_probe::DirectSeen;
use crate::storage::probe::Way;
use crate::verify::evidence::ScopedImage;
use crate::verify::matrix::{Cell, Check, CheckKind, Verdict};

/// All cells of one storage.
pub(super) fn cells(view: &View<'_>, kind: &str) -> Vec<Cell> {
    let mut cells = Vec::new();
    for host in &view.scope.hosts {
        let absent = |kind| Check::new(kind, Verdict::NotApplicable, "QEMU reaches the storage itself");
        let cut = cut_off(view, host, kind);
        let nonce = match &cut {
            Some(finding) if view.storage.images.is_empty() => {
                Check::with(CheckKind::Nonce, Verdict::Fail, finding.clone())
            }
            Some(_) => Check::new(CheckKind::Nonce, Verdict::Unknown, NOTHING_OPENED),
            None => nonce(view, host),
        };
        let mut cell = |image: Option<&ScopedImage>| {
            let (identity, access) = match (image, &cut) {
                (Some(_), Some(finding)) => (
                    Check::new(CheckKind::Identity, Verdict::Unknown, NOTHING_OPENED),
                    Check::with(CheckKind::Access, Verdict::Fail, finding.clone()),
                ),
                (Some(image), None) => (identity(view, image, host), access(view, image, host)),
                (None, _) => {
                    let none = |kind| Check::new(kind, Verdict::NotApplicable, "no image on this storage");
                    (none(CheckKind::Identity), none(CheckKind::Access))
                }
            };
            let lock = Check::new(
                CheckKind::Lock,
                Verdict::NotApplicable,
                format!("QEMU's {kind} client takes no locks"),
            );
            cells.push(Cell {
                storage: view.id().clone(),
                image: image.map(|image| image.id.clone()),
                host: host.clone(),
                checks: vec![
                    absent(CheckKind::Mounted),
                    absent(CheckKind::Pool),
                    identity,
                    nonce.clone(),
                    access,
                    lock,
                ],
            });
        };
        view.storage.images.iter().for_each(|image| cell(Some(image)));
        if view.storage.images.is_empty() {
            cell(None);
        }
    }
    cells
}

const NOTHING_OPENED: &str = "the host could open nothing on this storage";

/// Why a host reaches no file of the storage: one cause, one finding, however many images there are.
fn cut_off(view: &View<'_>, host: &HostId, kind: &str) -> Option<Finding> {
    let looked = seen(view, host, CheckKind::Access).ok()?;
    let said = looked.all_failed()?;
    let has = |text: &str| said.iter().any(|said| said.contains(text));
    let ports = looked.closed_ports();
    let (code, what, remedy) = if let Some(ports) = &ports {
        let remedy = format!(
            "`stor status` says whether the server runs; if it does, let host {host} through the firewalls between them"
        );
        (FindingCode::PortBlocked, format!("cannot connect to the server: {ports}"), remedy)
    } else if has("MNT3ERR_ACCES") {
        let remedy = "run `stor apply`, which exports it to every hypervisor".to_owned();
        (FindingCode::AccessDenied, "is refused by the server".to_owned(), remedy)
    } else if has("MNT3ERR_NOENT") {
        let remedy = "run `stor apply`, which exports it".to_owned();
        (FindingCode::ExportMissing, "is told by the server that there is no such export".to_owned(), remedy)
    } else if has("no answer within") {
        let remedy = "the server takes connections and does not answer: see its log and load".to_owned();
        (FindingCode::ProbeTimedOut, "gets no answer from the server".to_owned(), remedy)
    } else {
        return None;
    };
    let message = format!("host {host}: QEMU's {kind} client {what}");
    let finding = Finding::new(Severity::Error, code, view.subject(), message).on(host).remedy(remedy);
    Some(said.first().into_iter().fold(finding, |finding, said| finding.evidence(*said)))
}

/// Images that hypervisors open and the server does not have where it should: it serves a directory that is no longer there.
fn moved_away(view: &View<'_>) -> Option<Finding> {
    let keeper = view.storage.probe.keeper.as_ref()?;
    let opened = |image: &&ScopedImage| {
        view.scope.hosts.iter().any(|host| {
            let looked = seen(view, host, CheckKind::Identity).ok();
            looked.is_some_and(|looked| matches!(looked.sizes.get(&image.file), Some(Ok(_))))
        })
    };
    let gone = |image: &&ScopedImage| {
        let seen = view.client().and_then(|seen| seen.identified.get(&image.file));
        matches!(seen, Some(Err(said)) if code_of(said, FindingCode::ProbeFailed) == FindingCode::ImageMissing)
    };
    let images: Vec<_> = view.storage.images.iter().filter(gone).filter(opened).map(|it| &it.id).collect();
    if images.is_empty() {
        return None;
    }
    let directory = &keeper.directory;
    let message = format!(
        "host {}: hypervisors open {}, but {directory} does not hold it: the directory was moved away or hidden, and the server still serves the old one",
        keeper.host,
        listed(images)
    );
    let finding = Finding::new(Severity::Error, FindingCode::ImageMissing, view.subject(), message);
    Some(finding.on(&keeper.host).remedy(format!(
        "put the old directory back at {directory}, and do not restart the NFS server before: guests would lose their disks"
    )))
}

/// The server that makes the probe files could not: without it, nothing says which files the hypervisors open.
pub(super) fn server_silent(view: &View<'_>) -> Option<Finding> {
    let keeper = view.storage.probe.keeper.as_ref()?;
    let Some(Err(why)) = view.evidence.clients.get(view.id()) else { return None };
    let message = format!("host {}: its side of the storage is not known: {}", keeper.host, why.reason());
    let finding = Finding::new(Severity::Error, FindingCode::ProbeFailed, view.subject(), message);
    Some(finding.on(&keeper.host).remedy(format!(
        "see whether {} is there on host {}, as the hypervisors' files may lie in a directory that was moved away",
        keeper.directory, keeper.host
    )))
}

/// What the user has to know about storage without locks.
pub(super) fn advice(view: &View<'_>, kind: &str, remedy: &str) -> Finding {
    let message = format!("QEMU's {kind} client takes no locks, so nothing refuses a second writer");
    Finding::new(Severity::Advice, FindingCode::LockNotHonoured, view.subject(), message).remedy(remedy)
}

fn seen<'a>(view: &View<'a>, host: &HostId, kind: CheckKind) -> Result<&'a DirectSeen, Box<Check>> {
    match view.host(host).and_then(|seen| seen.direct.get(view.id())) {
        None => Err(Box::new(view.uncovered(kind, host))),
        Some(Err(why)) => Err(Box::new(view.missing(kind, host, why))),
        Some(Ok(seen)) => Ok(seen),
    }
}

/// Every host opens the image, with the size that the others see; the servers say which file it is.
fn identity(view: &View<'_>, image: &ScopedImage, host: &HostId) -> Check {
    const KIND: CheckKind = CheckKind::Identity;
    let size = |host: &HostId| {
        seen(view, host, KIND).ok().and_then(|seen| seen.sizes.get(&image.file)?.as_ref().ok())
    };
    if let Err(check) = seen(view, host, KIND) {
        return *check;
    }
    if let Some(finding) = moved_away(view) {
        return Check::with(KIND, Verdict::Fail, finding);
    }
    if let Some(Err(said)) = view.client().and_then(|seen| seen.identified.get(&image.file)) {
        let message = format!("image {} ({}) cannot be looked at on the servers", image.id, image.file);
        return view
            .failed(KIND, host, code_of(said, FindingCode::ImageUnreadable), message)
            .about(ResourceId::new(ResourceKind::Image, &image.id))
            .evidence([format!("{}: {said}", view.client_name())])
            .remedy("run `stor apply`, which creates what is missing; else see `stor status`");
    }
    let Some(own) = size(host) else {
        return Check::new(KIND, Verdict::Unknown, "the image could not be opened");
    };
    let others: Vec<&HostId> =
        view.scope.hosts.iter().filter(|other| *other != host && size(other).is_some()).collect();
    if others.iter().any(|other| size(other) != Some(own)) {
        let message = format!("host {host}: image {} has {own}, and another size elsewhere", image.id);
        return view
            .failed(KIND, host, FindingCode::ImageSizeDiffers, message)
            .about(ResourceId::new(ResourceKind::Image, &image.id))
            .remedy("see whether all hosts use the same server");
    }
    let client = view.client().and_then(|seen| seen.identified.get(&image.file)?.as_ref().ok());
    match client {
        Some(file) => Check::new(
            KIND,
            Verdict::Pass,
            format!(
                "{file}; {own} on {}",
                listed(view.scope.hosts.iter().filter(|host| size(host).is_some()))
            ),
        ),
        None => Check::new(
            KIND,
            Verdict::Unknown,
            format!("{own} on every host; the servers could not say which file it is"),
        ),
    }
}

fn access(view: &View<'_>, image: &ScopedImage, host: &HostId) -> Check {
    const KIND: CheckKind = CheckKind::Access;
    let looked = match seen(view, host, KIND) {
        Ok(looked) => looked,
        Err(check) => return *check,
    };
    match looked.sizes.get(&image.file) {
        Some(Ok(_)) => Check::new(KIND, Verdict::Pass, "opened for reading and writing by QEMU's client"),
        None => view.uncovered(KIND, host),
        Some(Err(said)) => {
            let message = format!("host {host}: QEMU's client cannot open image {}", image.id);
            let remedy = match (said.contains("ACCESS denied"), &view.storage.probe.way) {
                (true, Way::Direct(directory)) if !directory.after.is_empty() => format!(
                    "on the server, give the image to the user as whom clients work: {}",
                    directory.after.trim_start_matches('?').replace('&', " ")
                ),
                _ => "see whether the server runs and lets this host in, and who owns the image".to_owned(),
            };
            view.failed(KIND, host, code_of(said, FindingCode::AccessDenied), message)
                .about(ResourceId::new(ResourceKind::Image, &image.id))
                .evidence([said.clone()])
                .remedy(remedy)
        }
    }
}

fn nonce(view: &View<'_>, host: &HostId) -> Check {
    const KIND: CheckKind = CheckKind::Nonce;
    let looked = match seen(view, host, KIND) {
        Ok(looked) => looked,
        Err(check) => return *check,
    };
    let Some(client) = view.client() else {
        return Check::new(KIND, Verdict::Unknown, "no probe file: none could be made at the servers");
    };
    if moved_away(view).is_some() {
        return Check::new(KIND, Verdict::Fail, "the server's directory is not the one that hosts reach");
    }
    match &looked.written {
        Some(Ok(())) => {}
        Some(Err(said)) => {
            let message = format!("host {host}: QEMU's client cannot write stor's probe file");
            return view
                .failed(KIND, host, code_of(said, FindingCode::ProbeFailed), message)
                .evidence([said.clone()])
                .remedy("see whether the server runs and lets this host in");
        }
        None => return Check::new(KIND, Verdict::Unknown, "no probe file was written"),
    }
    let wrong = |reader: &str, writer: &HostId, read: Option<&Result<String, String>>| {
        let text = read.map_or("nothing", |read| read.as_ref().map_or_else(String::as_str, String::as_str));
        (text != view.evidence.nonce(view.id(), writer))
            .then(|| format!("{reader} read of {writer}'s probe file: {text}"))
    };
    let writers = view.scope.hosts.iter().filter(|other| {
        *other != host && seen(view, other, KIND).is_ok_and(|seen| seen.written == Some(Ok(())))
    });
    let reader = format!("host {host}");
    let mut blind: Vec<String> = writers
        .clone()
        .filter_map(|other| wrong(&reader, other, looked.nonces.get(&view.probe_file(other))))
        .collect();
    blind.extend(wrong(&view.client_name(), host, client.read.get(&view.probe_file(host))));
    if blind.is_empty() {
        let with = listed(writers.map(ToString::to_string).chain([view.client_name()]));
        return Check::new(KIND, Verdict::Pass, format!("exchanged with {with}"));
    }
    view.failed(
        KIND,
        host,
        FindingCode::NonceNotSeen,
        format!("host {host}: what is written on one host is not read on the other"),
    )
    .evidence(blind)
    .remedy("see whether all hosts use the same server")
}
