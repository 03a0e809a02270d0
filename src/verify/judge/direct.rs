//! Storage that QEMU reaches itself: nothing is mounted, so the proofs go through QEMU's own tools and the servers.

use super::{View, code_of, listed};
use crate::model::{Finding, FindingCode, HostId, ResourceId, ResourceKind, Severity};
use crate::storage::direct_probe::DirectSeen;
use crate::verify::evidence::ScopedImage;
use crate::verify::matrix::{Cell, Check, CheckKind, Verdict};

/// All cells of one storage.
pub(super) fn cells(view: &View<'_>, kind: &str) -> Vec<Cell> {
    let mut cells = Vec::new();
    for host in &view.scope.hosts {
        let absent = |kind| Check::new(kind, Verdict::NotApplicable, "QEMU reaches the storage itself");
        let nonce = nonce(view, host);
        let mut cell = |image: Option<&ScopedImage>| {
            let (identity, access) = match image {
                Some(image) => (identity(view, image, host), access(view, image, host)),
                None => {
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
            view.failed(KIND, host, code_of(said, FindingCode::AccessDenied), message)
                .about(ResourceId::new(ResourceKind::Image, &image.id))
                .evidence([said.clone()])
                .remedy("see whether the server runs and lets this host in, and who owns the image")
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
