//! The image is the same file on every host, and what the protocol client sees at the servers.

use std::collections::BTreeMap;

use super::{View, code_of, facts};
use crate::model::{FindingCode, HostId, ResourceId, ResourceKind};
use crate::storage::mount_probe::seen::ImageSeen;
use crate::storage::probe::Identity;
use crate::verify::evidence::{ScopedImage, Sized};
use crate::verify::matrix::{Check, CheckKind, Verdict};

const KIND: CheckKind = CheckKind::Identity;

/// What one host saw of one image.
pub(super) fn seen<'a>(view: &View<'a>, image: &ScopedImage, host: &HostId) -> Option<&'a ImageSeen> {
    view.mounted(host)?.looked.as_ref().ok()?.images.get(&image.file)
}

fn known<'a>(view: &View<'a>, image: &ScopedImage, host: &HostId) -> Option<&'a Identity> {
    seen(view, image, host)?.identity.as_ref()?.as_ref().ok()
}

/// Judges one image on one host against all other hosts and the client.
pub(super) fn identity(view: &View<'_>, image: &ScopedImage, host: &HostId) -> Check {
    let Some(evidence) = view.mounted(host) else { return view.uncovered(KIND, host) };
    if let Err(why) = &evidence.looked {
        return view.missing(KIND, host, why);
    }
    let subject = ResourceId::new(ResourceKind::Image, &image.id);
    let wrong = |code, message: String| view.failed(KIND, host, code, message).about(subject.clone());
    let seen = seen(view, image, host).and_then(|seen| Some((seen, seen.identity.as_ref()?)));
    let Some((look, identity)) = seen else { return view.uncovered(KIND, host) };
    let own = match identity {
        Ok(own) => own,
        Err(said) => {
            let (code, what) = match code_of(said, FindingCode::ImageUnreadable) {
                FindingCode::ImageMissing => (FindingCode::ImageMissing, "is missing"),
                code => (code, "cannot be looked at"),
            };
            let remedy = match code {
                FindingCode::ImageMissing => "run `stor apply`, which creates it",
                _ => "see the storage's health with `stor status`",
            };
            let message = format!("host {host}: image {} ({}) {what}", image.id, image.file);
            return wrong(code, message).evidence([said.clone()]).remedy(remedy);
        }
    };
    if let Some(state) = look.split_brain.as_ref().filter(|state| state.contains(":yes")) {
        return wrong(FindingCode::SplitBrain, format!("image {} is in split-brain", image.id))
            .evidence([format!("host {host}: {state}")])
            .remedy(format!("resolve it: `gluster volume heal {} info split-brain`", view.id()));
    }
    compare(view, image, host, own).unwrap_or_else(|failure| {
        let (code, message, remedy) = failure;
        wrong(code, message).evidence(all(view, image)).remedy(remedy)
    })
}

/// What every host, and the client, saw of an image.
fn all(view: &View<'_>, image: &ScopedImage) -> Vec<String> {
    let seen: BTreeMap<&HostId, String> = view
        .scope
        .hosts
        .iter()
        .filter_map(|host| Some((host, known(view, image, host)?.to_string())))
        .collect();
    let client = client(view, image).map(|seen| format!("{}: {seen}", view.client_name()));
    facts(seen).chain(client).collect()
}

fn client<'a>(view: &View<'a>, image: &ScopedImage) -> Option<&'a Identity> {
    view.client()?.identified.get(&image.file)?.as_ref().ok()
}

type Failed = (FindingCode, String, &'static str);

fn compare(view: &View<'_>, image: &ScopedImage, host: &HostId, own: &Identity) -> Result<Check, Failed> {
    let others: Vec<(&HostId, &Identity)> = view
        .scope
        .hosts
        .iter()
        .filter(|other| *other != host)
        .filter_map(|other| Some((other, known(view, image, other)?)))
        .collect();
    let client = client(view, image);
    // The servers themselves are right; without their word, two hosts that differ are both in doubt.
    let strangers: Vec<String> = match client {
        Some(truth) if truth.same_file(own) => Vec::new(),
        Some(_) => vec![view.client_name()],
        None => {
            others.iter().filter(|(_, seen)| !seen.same_file(own)).map(|(host, _)| host.to_string()).collect()
        }
    };
    if !strangers.is_empty() {
        let message =
            format!("host {host}: image {} is another file than on {}", image.id, super::listed(strangers));
        let remedy =
            "the hosts do not use the same storage: compare what is mounted, and do not start the guest";
        return Err((FindingCode::ImageIdentityDiffers, message, remedy));
    }
    let sizes = || others.iter().map(|(_, seen)| seen.size).chain(client.map(|seen| seen.size));
    if image.sized == Sized::Fixed && sizes().any(|size| size != own.size) {
        let message = format!("host {host}: image {} has {} bytes, and others elsewhere", image.id, own.size);
        let remedy =
            "a host's view is stale or the file is being changed: refresh or mount again, then verify";
        return Err((FindingCode::ImageSizeDiffers, message, remedy));
    }
    let mut same: Vec<String> =
        others.iter().filter(|(_, seen)| seen.same_file(own)).map(|(host, _)| host.to_string()).collect();
    same.extend(client.map(|_| view.client_name()));
    let alone = view.scope.hosts.len() > 1 && same.is_empty();
    Ok(match alone {
        true => Check::new(KIND, Verdict::Unknown, format!("{own}; no other host could be compared")),
        false if same.is_empty() => Check::new(KIND, Verdict::Pass, format!("{own}; the only hypervisor")),
        false => Check::new(KIND, Verdict::Pass, format!("{own}; the same on {}", super::listed(same))),
    })
}
