//! How a volume is doing: started, bricks and peers up, nothing left to heal. Pure.
//!
//! Imports `model`, `libvirt::xml` (the XML reader) and `storage::health`. Asked of one server only: `volume status` takes a
//! lock on the whole pool of servers, and two that ask at once are refused.

use crate::libvirt::xml::{self, Element};
use crate::model::{
    Answer, Command, Finding, FindingCode, Query, ResourceId, ResourceKind, Severity, StorageId,
};
use crate::storage::health::{Health, HealthState, Part};

/// Asks for pool, volume, its daemons and what waits to be healed. A constant: the volume is an argument.
///
/// One `gluster` for each: given its commands on standard input, it waits two minutes for a glusterd that is down.
const ASK: &str = "\
gluster --mode=script --xml pool list &&
gluster --mode=script --xml volume info \"$1\" &&
gluster --mode=script --xml volume status \"$1\" &&
gluster --mode=script --xml volume heal \"$1\" info summary
";

/// Asks one server about a volume, in one call; patiently, as [`super::facts`] does.
#[must_use]
pub fn query(volume: &StorageId) -> Query {
    Query::patient(Command::new("sh").args(["-c", ASK, "health", volume.as_str()]))
}

/// Reads the answer of [`query`].
#[must_use]
pub fn read(volume: &StorageId, answer: &Answer) -> Health {
    if answer.not_found() {
        return Health::unknown("gluster is not installed");
    }
    let parts = answer.stdout.split("<?xml ").skip(1).map(|part| format!("<?xml {part}"));
    let documents: Result<Vec<Element>, _> =
        parts.map(|part| xml::parse(&part, "an answer of gluster")).collect();
    match documents.as_deref() {
        Ok([pool, info, status, heal]) => judge(volume, pool, info, status, heal),
        Ok(_) => Health::unknown(format!("glusterd does not answer: {}", last_line(answer))),
        Err(error) => Health::unknown(error.to_string()),
    }
}

fn last_line(answer: &Answer) -> &str {
    let mut said =
        answer.stderr.lines().chain(answer.stdout.lines()).filter(|line| !line.starts_with("Welcome to"));
    said.next_back().unwrap_or("it says nothing")
}

fn judge(volume: &StorageId, pool: &Element, info: &Element, status: &Element, heal: &Element) -> Health {
    let Some(seen) = info.at("volInfo/volumes/volume") else {
        let why = info.text_at("opErrstr").unwrap_or("there is no such volume");
        return Health { state: HealthState::Down, ..Health::unknown(why) };
    };
    let state = seen.text_at("statusStr").unwrap_or("Unknown");
    let mut parts = peers(pool);
    parts.extend(bricks(status));
    parts.sort();
    let down = |kind: &str| parts.iter().filter(|part| part.kind == kind && !part.up).collect::<Vec<_>>();
    let (bricks_down, peers_down) = (down("brick"), down("peer"));
    let (pending, split) =
        (entries(heal, "numberOfEntriesInHealPending"), entries(heal, "numberOfEntriesInSplitBrain"));
    let finding = |severity, code, message: String| {
        Finding::new(severity, code, ResourceId::new(ResourceKind::Volume, volume), message)
    };
    let mut findings: Vec<Finding> = bricks_down
        .iter()
        .map(|brick| {
            finding(
                Severity::Warning,
                FindingCode::BrickDown,
                format!("volume {volume}: brick {} is down", brick.name),
            )
            .remedy(format!(
                "see the brick's log in /var/log/glusterfs/bricks, then `gluster volume start {volume} force`"
            ))
        })
        .chain(peers_down.iter().map(|peer| {
            finding(
                Severity::Warning,
                FindingCode::PeerDisconnected,
                format!("volume {volume}: peer {} is not connected", peer.name),
            )
            .remedy("see whether the host is up and glusterd runs there")
        }))
        .collect();
    if pending.is_some_and(|count| count > 0) {
        let message = format!("volume {volume}: {} files wait to be healed", pending.unwrap_or_default());
        findings.push(finding(Severity::Advice, FindingCode::HealPending, message).remedy(format!(
            "wait, and see `gluster volume heal {volume} info`; do not take another storage host down meanwhile"
        )));
    }
    if split.is_some_and(|count| count > 0) {
        let message = format!("volume {volume}: {} files are in split-brain", split.unwrap_or_default());
        findings.push(
            finding(Severity::Error, FindingCode::SplitBrain, message)
                .remedy(format!("resolve it: `gluster volume heal {volume} info split-brain`")),
        );
    }
    let total = parts.iter().filter(|part| part.kind == "brick").count();
    let verdict = match state {
        "Started" if total > 0 && bricks_down.len() == total => HealthState::Down,
        "Started" if findings.iter().any(|finding| finding.severity > Severity::Advice) => {
            HealthState::Degraded
        }
        "Started" => HealthState::Healthy,
        _ => HealthState::Down,
    };
    let healing = match pending {
        Some(0) => "nothing to heal".to_owned(),
        Some(count) => format!("{count} to heal"),
        None => "heal state unknown".to_owned(),
    };
    let summary = match state {
        "Started" => format!("started, {} of {total} bricks up, {healing}", total - bricks_down.len()),
        other => other.to_lowercase(),
    };
    Health { state: verdict, summary, parts, findings }
}

fn peers(pool: &Element) -> Vec<Part> {
    let all = pool.first("peerStatus").into_iter().flat_map(|status| status.all("peer"));
    // The server that answers calls itself localhost and is up.
    all.filter(|peer| peer.text_at("hostname") != Some("localhost"))
        .map(|peer| Part {
            kind: "peer",
            name: peer.text_at("hostname").unwrap_or("?").to_owned(),
            up: peer.text_at("connected") == Some("1"),
        })
        .collect()
}

/// The bricks; self-heal daemons have no absolute path.
fn bricks(status: &Element) -> Vec<Part> {
    let nodes = status.at("volStatus/volumes/volume").into_iter().flat_map(|volume| volume.all("node"));
    nodes
        .filter_map(|node| {
            let path = node.text_at("path").filter(|path| path.starts_with('/'))?;
            let name = format!("{}:{path}", node.text_at("hostname").unwrap_or("?"));
            Some(Part { kind: "brick", name, up: node.text_at("status") == Some("1") })
        })
        .collect()
}

/// The largest count of any brick: each names the same files. `None` when no brick told.
fn entries(heal: &Element, field: &str) -> Option<u64> {
    let bricks = heal.at("healInfo/bricks")?.all("brick");
    bricks.filter_map(|brick| brick.text_at(field)?.parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(text: &str) -> Health {
        let answer = Answer { status: Some(0), stdout: text.to_owned(), stderr: String::new() };
        read(&StorageId::new("gfs").unwrap(), &answer)
    }

    #[test]
    fn a_volume_with_all_bricks_up_is_healthy() {
        let seen =
            health(include_str!("../../../fixtures/outputs/gluster/debian13-glusterfs11.1-health.xml"));
        assert_eq!(seen.state, HealthState::Healthy, "{seen:?}");
        assert!(seen.summary.starts_with("started, 3 of 3 bricks up"), "{}", seen.summary);
        assert_eq!(seen.parts.len(), 3);
        let older =
            health(include_str!("../../../fixtures/outputs/gluster/debian12-glusterfs10.3-health.xml"));
        assert_eq!(older.state, HealthState::Healthy);
        assert_eq!(older.summary, "started, 3 of 3 bricks up, nothing to heal");
    }

    #[test]
    fn a_brick_that_is_down_degrades_its_volume_and_is_named() {
        let seen = health(include_str!(
            "../../../fixtures/outputs/gluster/debian13-glusterfs11.1-health-brick-down.xml"
        ));
        assert_eq!(seen.state, HealthState::Degraded);
        assert_eq!(seen.summary, "started, 2 of 3 bricks up, 4 to heal");
        let codes: Vec<FindingCode> = seen.findings.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, [FindingCode::BrickDown, FindingCode::HealPending]);
        assert!(seen.findings[0].message.contains("10.79.0.11:/data/bricks/b"));
    }

    #[test]
    fn a_volume_that_was_never_started_is_down_and_a_silent_daemon_unknown() {
        let seen = health(include_str!(
            "../../../fixtures/outputs/gluster/debian13-glusterfs11.1-health-not-started.xml"
        ));
        assert_eq!((seen.state, seen.summary.as_str()), (HealthState::Down, "created"));
        let older = health(include_str!(
            "../../../fixtures/outputs/gluster/debian12-glusterfs10.3-health-not-started.xml"
        ));
        assert_eq!((older.state, older.summary.as_str()), (HealthState::Down, "created"));
        assert_eq!(health("").state, HealthState::Unknown);
    }
}
