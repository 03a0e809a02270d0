//! How a target is doing: tgtd offers it, with every LUN online. Pure.
//!
//! Imports `model`, `facts` (readers) and `storage::health`.

use super::facts::read_targets;
use super::spec::IscsiSpec;
use crate::model::{Answer, Finding, FindingCode, ResourceId, ResourceKind, Severity};
use crate::storage::health::{Health, HealthState, Part};

/// Reads what tgtd shows.
#[must_use]
pub fn read(spec: &IscsiSpec, answer: &Answer) -> Health {
    let targets = read_targets(&answer.stdout);
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
        (Some(target), up) if up == parts.len() => {
            (HealthState::Healthy, format!("offered by tgt, {} initiators logged in", target.connected.len()))
        }
        (Some(_), 0) => (HealthState::Down, "offered by tgt without its LUNs".to_owned()),
        (Some(_), up) => (HealthState::Degraded, format!("{up} of {} LUNs are online", parts.len())),
        (None, _) if answer.ok() => (HealthState::Down, "tgt does not offer it".to_owned()),
        (None, _) => (HealthState::Down, "tgt does not run".to_owned()),
    };
    let mut health = Health { state, summary, parts, findings: Vec::new() };
    if state != HealthState::Healthy {
        let subject = ResourceId::new(ResourceKind::Target, &spec.iqn);
        let message = format!("host {}: {}", spec.server, health.summary);
        let finding = Finding::new(Severity::Error, FindingCode::TargetMissing, subject, message)
            .on(&spec.server)
            .remedy("run `stor apply`, and see `journalctl -u tgt` on the host");
        health.findings.push(finding);
    }
    health
}
