//! Who may log in to a target that knows initiators by their names.

use std::collections::BTreeSet;

use super::Subject;
use crate::storage::iscsi::commands;
use crate::storage::iscsi::facts::initiator;
use crate::storage::iscsi::spec::IscsiAccess;

/// The names that are let in.
pub(super) struct Admitted {
    pub names: BTreeSet<String>,
    /// Whether the name of every hypervisor is known.
    pub complete: bool,
}

/// Guests' own names and those of the hosts' tools where QEMU logs in itself; where hypervisors do, theirs. Besides them this
/// machine, when the file lets further addresses in.
pub(super) fn admitted(subject: &Subject<'_>) -> Admitted {
    let (cluster, spec) = (subject.cluster, subject.spec);
    let mut admitted = Admitted { names: BTreeSet::new(), complete: true };
    if !spec.allow.is_empty() {
        admitted.names.insert(commands::host_initiator(&cluster.name, spec, None));
    }
    for host in cluster.hypervisors() {
        match spec.access {
            IscsiAccess::Direct => {
                admitted.names.insert(commands::host_initiator(&cluster.name, spec, Some(&host.id)));
            }
            IscsiAccess::Session => match initiator::name(subject.seen, cluster, &host.id) {
                Ok(name) => drop(admitted.names.insert(name.into_name())),
                Err(_) => admitted.complete = false,
            },
        }
    }
    if spec.access == IscsiAccess::Direct {
        let guests = spec.luns.iter().map(|lun| commands::guest_initiator(&cluster.name, spec, lun));
        admitted.names.extend(guests);
    }
    admitted
}

/// The client that an initiator's name stands for: a host by its name in the file, or the initiator itself. `None` for guests,
/// which log in as long as their LUN is offered, and for the machine that runs stor, which only looks.
pub(super) fn client(subject: &Subject<'_>, initiator: &str) -> Option<String> {
    let Subject { cluster, spec, .. } = *subject;
    let own = spec.iqn.sibling(&format!("stor-{}.", cluster.name));
    match initiator.strip_prefix(&own) {
        None => Some(initiator.to_owned()),
        Some(rest) => rest.strip_prefix("host.").map(str::to_owned),
    }
}
