//! How a target is doing: tgtd or the kernel offers it, with every LUN online. Pure.
//!
//! Imports `model`, `facts` (readers) and `storage::health`.

use std::collections::BTreeMap;

use super::facts::{lio, read_targets};
use super::spec::{IscsiProvider, IscsiSpec};
use crate::model::{Answer, Finding, FindingCode, ResourceId, ResourceKind, Severity};
use crate::storage::health::{Health, HealthState, Part};

/// Reads what tgtd shows.
#[must_use]
pub fn read(spec: &IscsiSpec, answer: &Answer) -> Health {
    // What the kernel shows is JSON, what tgtd shows is not.
    let (server, targets) = match (spec.provider, lio::read(&answer.stdout)) {
        (IscsiProvider::Lio | IscsiProvider::Auto, Ok(lio)) => ("the kernel", lio.now.plain_targets()),
        (IscsiProvider::Lio, Err(_)) => ("the kernel", BTreeMap::new()),
        (IscsiProvider::Tgt | IscsiProvider::Auto, _) => ("tgt", read_targets(&answer.stdout)),
    };
    let target = targets.get(spec.iqn.as_str());
    let online = |number: u8| {
        let lun = target.and_then(|target| target.luns.get(&u32::from(number)));
        lun.is_some_and(|lun| lun.online)
    };
    let part = |lun: &super::spec::LunSpec| Part {
        kind: "lun",
        name: format!("{}/{}", spec.iqn, lun.number),
        up: online(lun.number),
    };
    let parts: Vec<Part> = spec.luns.iter().map(part).collect();
    let up = parts.iter().filter(|part| part.up).count();
    let (state, summary) = match (target, up) {
        (Some(target), up) if up == parts.len() => (
            HealthState::Healthy,
            format!("offered by {server}, {} initiators logged in", target.connected.len()),
        ),
        (Some(_), 0) => (HealthState::Down, format!("offered by {server} without its LUNs")),
        (Some(_), up) => (HealthState::Degraded, format!("{up} of {} LUNs are online", parts.len())),
        (None, _) if answer.ok() => (HealthState::Down, format!("{server} does not offer it")),
        (None, _) => (HealthState::Down, format!("{server} does not answer")),
    };
    let mut health = Health { state, summary, parts, findings: Vec::new() };
    if state != HealthState::Healthy {
        let subject = ResourceId::new(ResourceKind::Target, &spec.iqn);
        let message = format!("host {}: {}", spec.server, health.summary);
        let finding = Finding::new(Severity::Error, FindingCode::TargetMissing, subject, message)
            .on(&spec.server)
            .remedy("run `stor apply`, and see the journal of the host");
        health.findings.push(finding);
    }
    health
}
