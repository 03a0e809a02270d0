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
