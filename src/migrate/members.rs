//! Hypervisors that left the file unasked, as the records of those that stayed remember them.
//!
//! Imports `host` and `model`. A guest may still run there, so none is started or moved shut off meanwhile. A live move adds
//! no writer and goes on.

use super::Site;
use crate::model::members::{queries, unasked};
use crate::model::{HostId, HostSeen, Observations};

/// Asks all hypervisors of the file at once for their records; says which others a guest may run on.
///
/// Hypervisors that do not answer are the business of whoever asks for the guest itself.
pub(in crate::migrate) fn unasked_members(site: Site<'_>) -> Option<String> {
    let Site { cluster, fleet, .. } = site;
    let hosts: Vec<HostId> = cluster.hypervisors().map(|host| host.id.clone()).collect();
    let ask = |id: &HostId| match fleet.host(id).map(|host| host.query(&queries(&cluster.name))) {
        Some(Ok(answers)) => HostSeen::Answered(queries(&cluster.name).into_iter().zip(answers).collect()),
        Some(Err(error)) => HostSeen::Unobserved(error.to_string()),
        None => HostSeen::Unobserved("it is not reached over ssh".to_owned()),
    };
    let mut seen = Observations::default();
    for (host, answers) in fleet.each(&hosts, ask) {
        seen.insert(host, answers);
    }
    unasked(&seen, &cluster.name, &cluster.hosts)
}
