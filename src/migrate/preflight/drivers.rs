//! What runs the guests of the two hosts: a guest moves between hosts of one kind, and under Xen only shut off.

use super::{GuestFacts, version};
use crate::migrate::facts::HostFacts;
use crate::model::{Driver, Finding, FindingCode, HostId, Severity};
use crate::spec::Cluster;

pub(super) fn same(
    guest: &GuestFacts,
    from: &HostFacts,
    to: &HostFacts,
    cluster: &Cluster,
    out: &mut Vec<Finding>,
) {
    let (here, there) = (cluster.driver_of(&from.host), cluster.driver_of(&to.host));
    if here == there {
        return;
    }
    let shown = |host: &HostId, driver: Option<Driver>| {
        let driver = driver.map_or_else(|| "no hypervisor".to_owned(), |driver| driver.to_string());
        format!("host {host}: {driver}")
    };
    let message = "the guest is made for the hypervisor of its host, and the destination has another";
    out.push(
        guest
            .finding(Severity::Error, FindingCode::HypervisorDiffers, message)
            .on(&to.host)
            .evidence(shown(&from.host, here))
            .evidence(shown(&to.host, there))
            .remedy("move it to a host of the same kind"),
    );
}

/// Live migration of a Xen guest, which stor refuses. Of a PV guest the reason can be seen: without shadow paging Xen cannot
/// log which pages the guest writes while they are copied (libxl then says "Failed to enable logdirty: 22").
pub(super) fn no_live_move(guest: &GuestFacts, from: &HostFacts, to: &HostFacts, out: &mut Vec<Finding>) {
    let is_pv = guest.summary.machine.as_deref() == Some("xenpv");
    let finding =
        |message: &str| guest.finding(Severity::Error, FindingCode::LiveUnsupported, message).on(&from.host);
    let finding = match &from.xen {
        Ok(able) if is_pv && !able.contains("shadow") => {
            let able = able.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
            finding("the source's Xen was built without shadow paging, so it cannot follow what a running PV guest writes")
                .evidence(format!("host {}: Xen {}, virt_caps: {able}", from.host, version(from.node.qemu)))
        }
        Ok(_) => finding(
            "stor moves guests of Xen only while they are shut off: a live one was never seen to arrive",
        ),
        Err(reason) => {
            finding("stor moves guests of Xen only while they are shut off").evidence(reason.clone())
        }
    };
    out.push(finding.remedy(format!("`stor migrate {} --to {} --cold --shutdown`", guest.id, to.host)));
}
