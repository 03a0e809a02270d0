//! Access as the user that QEMU runs as.

use super::{View, code_of, identity};
use crate::libvirt::qemu_conf::{DynamicOwnership, QemuUser};
use crate::model::{FindingCode, HostId, ResourceId, ResourceKind};
use crate::storage::mount_probe::seen::{ImageSeen, Looked, OwnSeen};
use crate::verify::evidence::{MountedEvidence, ScopedImage};
use crate::verify::matrix::{Check, CheckKind, Verdict};

const KIND: CheckKind = CheckKind::Access;

/// The user, the host's evidence, and what it saw; or the check that says why there is nothing to judge.
fn known<'a>(
    view: &View<'a>,
    host: &HostId,
) -> Result<(&'a QemuUser, &'a MountedEvidence, &'a Looked), Box<Check>> {
    let (Some(seen), Some(evidence)) = (view.mounted(host), view.host(host)) else {
        return Err(Box::new(view.uncovered(KIND, host)));
    };
    let looked = seen.looked.as_ref().map_err(|why| Box::new(view.missing(KIND, host, why)))?;
    match &evidence.user {
        Ok(Some(user)) => Ok((user, seen, looked)),
        Ok(None) => {
            let seen =
                "QEMU's user is not known: qemu.conf names none, and there is neither libvirt-qemu nor qemu";
            Err(Box::new(Check::new(KIND, Verdict::Unknown, seen)))
        }
        Err(why) => Err(Box::new(view.missing(KIND, host, why))),
    }
}

/// libvirt makes QEMU's user the owner before a guest starts, and the storage lets it: proved on the probe file. Where the storage
/// takes root's rights away, root gives away only what is the user's whom it becomes there (chown(2)).
fn given(user: &QemuUser, seen: &MountedEvidence, own: Option<&OwnSeen>, image: &ImageSeen) -> bool {
    let made_by = seen.written.as_ref().ok().and_then(|written| written.made_by.as_deref());
    let owner = image.owner.split(' ').next();
    user.dynamic_ownership == DynamicOwnership::On
        && own.is_some_and(|own| own.chown.is_ok() && own.write.is_ok())
        && (made_by == Some("root") || (made_by == owner && made_by != Some("UNKNOWN")))
}

/// QEMU's user opens the image for reading and for writing.
pub(super) fn image(view: &View<'_>, image: &ScopedImage, host: &HostId) -> Check {
    let (user, evidence, looked) = match known(view, host) {
        Ok(known) => known,
        Err(check) => return *check,
    };
    let Some(seen) = identity::seen(view, image, host) else { return view.uncovered(KIND, host) };
    let (Some(read), Some(write)) = (&seen.read, &seen.write) else {
        return Check::new(KIND, Verdict::Unknown, "not tried: the image could not be looked at");
    };
    let name = &user.user;
    let denied: Vec<String> = [read, write].into_iter().filter_map(|result| result.clone().err()).collect();
    if denied.is_empty() {
        return Check::new(KIND, Verdict::Pass, format!("opened for reading and writing as {name}"));
    }
    let denials =
        denied.iter().all(|said| code_of(said, FindingCode::ProbeFailed) == FindingCode::AccessDenied);
    if denials && given(user, evidence, looked.own.as_ref(), seen) {
        let seen = format!(
            "owner {}; libvirt gives it to {name} before a guest starts (dynamic_ownership), which the storage lets it do",
            seen.owner
        );
        return Check::new(KIND, Verdict::Pass, seen);
    }
    let what = match (read, write) {
        (Err(_), Err(_)) => "reading or writing",
        (Err(_), _) => "reading",
        _ => "writing",
    };
    let code =
        denied.first().map_or(FindingCode::AccessDenied, |said| code_of(said, FindingCode::ImageUnreadable));
    let remedy = match code {
        FindingCode::AccessDenied => format!(
            "give the image to {name} ({name}:{}), or set the user that QEMU runs as in /etc/libvirt/qemu.conf",
            user.group
        ),
        _ => "see the storage's health with `stor status`".to_owned(),
    };
    let message = format!("host {host}: user {name} cannot open image {} for {what}", image.id);
    view.failed(KIND, host, code, message)
        .about(ResourceId::new(ResourceKind::Image, &image.id))
        .evidence(denied)
        .evidence([format!("owner and mode {}", seen.owner)])
        .remedy(remedy)
}

/// QEMU's user writes to stor's own probe file: what a storage without images can show.
pub(super) fn storage(view: &View<'_>, host: &HostId) -> Check {
    let (user, _, looked) = match known(view, host) {
        Ok(known) => known,
        Err(check) => return *check,
    };
    match &looked.own {
        Some(OwnSeen { write: Ok(()), .. }) => {
            Check::new(KIND, Verdict::Pass, format!("probe file written as {}", user.user))
        }
        Some(OwnSeen { write: Err(said), chown }) => {
            let message = format!("host {host}: user {} cannot write to storage {}", user.user, view.id());
            view.failed(KIND, host, code_of(said, FindingCode::ProbeFailed), message)
                .evidence([said.clone()])
                .evidence(chown.clone().err())
                .remedy("let that user through the directories above, or see the export's squashing options")
        }
        None => Check::new(KIND, Verdict::Unknown, "not tried: there is no probe file"),
    }
}
