//! What a host keeps of a guest in files beside its disks: a cold move carries the definition alone, so they have to be on shared
//! storage. A live move carries them itself (QEMU's stream has both).

use super::GuestFacts;
use super::shared::{Lies, Use};
use crate::libvirt::domain_xml::StateKind;
use crate::migrate::facts::Stat;
use crate::model::{Finding, FindingCode, Severity};

/// Refuses to leave firmware variables or the state of a TPM behind.
pub(super) fn kept(guest: &GuestFacts, lies: Lies<'_>, out: &mut Vec<Finding>) {
    let (from, to) = (lies.from, lies.to);
    for state in &guest.summary.state {
        let remedy = match state.kind {
            StateKind::FirmwareVariables => {
                "move the guest while it runs, which carries them; or put the file of <nvram> on shared storage"
            }
            StateKind::Tpm => {
                "move the guest while it runs, which carries it; or keep it on shared storage: <source type='dir' path='..'/> \
                 in the <backend> of <tpm>"
            }
        };
        let finding = |message: String| {
            guest.finding(Severity::Error, FindingCode::StateKept, message).on(&from.host).remedy(remedy)
        };
        let Some(place) = &state.place else {
            out.push(finding(format!("{} would stay on {}", state.kind, from.host)));
            continue;
        };
        let stat =
            |facts: &crate::migrate::facts::HostFacts| facts.places.files.get(place).map(|f| f.stat.clone());
        // A guest that never ran has none yet.
        let none: Option<Result<Option<Stat>, String>> = Some(Ok(None));
        if stat(from) == none && stat(to) == none {
            continue;
        }
        let Some(fault) = lies.fault(place, Use::Written) else { continue };
        let message = format!("{} would stay on {}: {}", state.kind, from.host, fault.message);
        out.push(fault.evidence.into_iter().fold(finding(message), Finding::evidence));
    }
}
