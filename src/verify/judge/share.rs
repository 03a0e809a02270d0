//! What one host writes the others read, and what one host locks the others are refused.

use super::{View, code_of, listed};
use crate::model::{FindingCode, HostId};
use crate::storage::mount_probe::seen::{LockAnswer, LockTried, Written};
use crate::verify::evidence::MountedEvidence;
use crate::verify::matrix::{Check, CheckKind, Verdict};

/// A host's nonce is read by all others and by the client, and it reads theirs.
pub(super) fn nonce(view: &View<'_>, host: &HostId) -> Check {
    const KIND: CheckKind = CheckKind::Nonce;
    let Some(seen) = view.mounted(host) else { return view.uncovered(KIND, host) };
    let written = match &seen.written {
        Ok(written) => written,
        Err(why) => return view.missing(KIND, host, why),
    };
    if let Err(said) = &written.nonce {
        let message = format!("host {host}: cannot write its probe file to storage {}", view.id());
        return view
            .failed(KIND, host, code_of(said, FindingCode::ProbeFailed), message)
            .evidence([said.clone()])
            .remedy("see whether the storage is full, read-only or lacks quorum: `stor status`");
    }
    let looked = match &seen.looked {
        Ok(looked) => looked,
        Err(why) => return view.missing(KIND, host, why),
    };
    let others: Vec<&HostId> = view.writers().filter(|other| *other != host).collect();
    let blind: Vec<String> = others
        .iter()
        .filter_map(|other| {
            let read = looked.nonces.get(&view.probe_file(other)).map_or("nothing", String::as_str);
            let right = read == view.evidence.nonce(view.id(), other);
            (!right).then(|| format!("host {host} read of {other}'s probe file: {read}"))
        })
        .collect();
    let client = view.client().and_then(|seen| seen.read.get(&view.probe_file(host)));
    let unseen = client.and_then(|read| {
        let text = read.as_ref().map_or_else(String::as_str, String::as_str);
        (text != view.evidence.nonce(view.id(), host))
            .then(|| format!("{} read of {host}'s probe file: {text}", view.client_name()))
    });
    if !blind.is_empty() || unseen.is_some() {
        let message = format!("host {host}: what is written on one host is not read on the other");
        return view
            .failed(KIND, host, FindingCode::NonceNotSeen, message)
            .evidence(blind.into_iter().chain(unseen))
            .remedy("the hosts do not share this storage, or a cache is stale: compare what is mounted");
    }
    let by: Vec<String> =
        others.iter().map(ToString::to_string).chain(client.map(|_| view.client_name())).collect();
    let alone = view.scope.hosts.len() == 1;
    match (by.is_empty(), alone) {
        (true, true) => Check::new(KIND, Verdict::NotApplicable, "the only hypervisor"),
        (true, false) => Check::new(KIND, Verdict::Unknown, "no other host could be compared"),
        (false, _) => Check::new(KIND, Verdict::Pass, format!("exchanged with {}", listed(by))),
    }
}

/// A lock held on this host is refused on another, and free there once let go; and the other way round.
pub(super) fn lock(view: &View<'_>, host: &HostId) -> Check {
    const KIND: CheckKind = CheckKind::Lock;
    if view.scope.hosts.len() == 1 {
        return Check::new(KIND, Verdict::NotApplicable, "the only hypervisor");
    }
    let Some(seen) = view.mounted(host) else { return view.uncovered(KIND, host) };
    let written = match &seen.written {
        Ok(written) => written,
        Err(why) => return view.missing(KIND, host, why),
    };
    let held = match written {
        Written { nonce: Err(_), .. } => {
            return Check::new(KIND, Verdict::Unknown, "not tried: there is no probe file to lock");
        }
        Written { lock: Err(said), .. } => {
            let message = format!("host {host}: cannot lock its own probe file on storage {}", view.id());
            return view
                .failed(KIND, host, FindingCode::LockNotHonoured, message)
                .evidence([said.clone()])
                .remedy("the storage refuses locks, so QEMU cannot guard images: enable them on the server");
        }
        Written { lock: Ok(held), .. } => held,
    };
    // As holder: whoever tried this host's lock. As rival: the lock that this host tried.
    let tries = view.scope.hosts.iter().filter_map(|rival| {
        let seen = view.mounted(rival)?;
        let holder = seen.rival.as_ref()?;
        (holder == host || rival == host).then_some((holder, rival, seen))
    });
    let mut proved = Vec::new();
    let mut unclear = Vec::new();
    for (holder, rival, seen) in tries {
        match one(view, holder, seen) {
            Tried::Honoured => proved.push(format!("held on {holder} and refused on {rival}")),
            Tried::Unclear(said) => unclear.push(format!("{rival} trying the lock of {holder}: {said}")),
            Tried::Granted(said) => {
                let message = format!("a lock held on host {holder} was granted on host {rival}");
                return view
                    .failed(KIND, host, FindingCode::LockNotHonoured, message)
                    .evidence([said])
                    .remedy(
                        "two guests could write one image: mount without local locks, then verify again",
                    );
            }
            Tried::Kept(said) => {
                let message = format!("a lock let go on host {holder} is still refused on host {rival}");
                return view
                    .failed(KIND, host, FindingCode::LockNotHonoured, message)
                    .evidence([said])
                    .remedy("a dead client's lock is kept: see the storage server's locks");
            }
        }
    }
    match (proved.is_empty(), unclear.is_empty()) {
        (false, true) => {
            Check::new(KIND, Verdict::Pass, format!("{}, free again after ({})", listed(proved), held.kind))
        }
        (_, false) => Check::new(KIND, Verdict::Unknown, listed(unclear)),
        (true, true) => Check::new(KIND, Verdict::Unknown, "no other host could try the lock"),
    }
}

enum Tried {
    Honoured,
    Granted(String),
    Kept(String),
    Unclear(String),
}

/// What one rival saw of one holder's lock, held and let go.
fn one(view: &View<'_>, holder: &HostId, rival: &MountedEvidence) -> Tried {
    let file = view.probe_file(holder);
    let said = |tried: &LockTried| match tried.said.as_str() {
        "" => format!("{} exited {}", tried.tool, tried.status),
        said => said.to_owned(),
    };
    let held = match &rival.looked {
        Ok(looked) => looked.locks.get(&file),
        Err(why) => return Tried::Unclear(why.to_string()),
    };
    let Some(held) = held else { return Tried::Unclear("not tried".to_owned()) };
    match held.answer() {
        LockAnswer::Granted => return Tried::Granted(said(held)),
        LockAnswer::Unclear => return Tried::Unclear(said(held)),
        LockAnswer::Refused => {}
    }
    match rival.released.as_ref().map(|locks| locks.get(&file)) {
        Ok(Some(free)) => match free.answer() {
            LockAnswer::Granted => Tried::Honoured,
            LockAnswer::Refused => Tried::Kept(said(free)),
            LockAnswer::Unclear => Tried::Unclear(said(free)),
        },
        Ok(None) => Tried::Unclear("refused while held; not tried again".to_owned()),
        Err(why) => Tried::Unclear(why.to_string()),
    }
}
