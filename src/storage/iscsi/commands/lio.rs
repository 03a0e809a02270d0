//! What the kernel's target (LIO) is told, through rtslib. Pure.
//!
//! Two constant programs, each one start of Python: targetcli would take as long for every single change, and ends with status
//! 0 whatever became of it. Sources: rtslib-fb 2.1 (`rtslib_fb`), saveconfig.json(5), targetcli(8).

use std::collections::BTreeSet;

use serde::Serialize;

use super::serial;
use crate::model::{Command, Query, Secret, Stdin, StorageId};
use crate::spec::Cluster;
use crate::storage::iscsi::spec::{IscsiSpec, LunSpec, Portal};
use crate::storage::packages::{Family, Need};

/// What a server needs.
pub const SERVER: Need =
    Need { debian: &["targetcli-fb"], red_hat: &["targetcli"], suse: &["python3-targetcli-fb"] };
/// Shows what is offered and saved; a constant.
pub(super) const SHOW: &str = include_str!("lio/show.py");
/// Changes one target; a constant, see the file for its arguments.
const TARGET: &str = include_str!("lio/target.py");

/// The service that restores targets at boot, as the distribution calls it.
#[must_use]
pub fn service(family: Option<Family>) -> &'static str {
    match family {
        Some(Family::RedHat | Family::Suse) => "target.service",
        Some(Family::Debian) | None => "rtslib-fb-targetctl.service",
    }
}

/// Asks for all targets and backing objects, as they are and as they are saved; patiently, because Python starts slowly on a busy
/// host.
#[must_use]
pub fn show() -> Query {
    Query::patient(Command::new("python3").args(["-c", SHOW]))
}

/// The name of a LUN's backing object. The names of cluster, storage and LUN may have `-` in them, so it cannot part them.
#[must_use]
pub fn object(cluster: &Cluster, id: &StorageId, lun: &LunSpec) -> String {
    format!("stor-{}.{id}.{}", cluster.name, lun.name)
}

/// How the kernel opens what is behind a LUN.
#[must_use]
pub fn plugin(lun: &LunSpec) -> &'static str {
    if lun.is_block() { "block" } else { "fileio" }
}

/// Whether stor made a target, or was about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It may be there.
    Before,
    /// One that is there is somebody else's.
    Never,
}

/// What becomes of a target besides what the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer<'a> {
    /// The names of the initiators that are let in.
    pub initiators: &'a BTreeSet<String>,
    /// Those that are let in no more.
    pub expelled: &'a BTreeSet<String>,
    /// Backing objects of LUNs that are offered no more.
    pub removed: &'a BTreeSet<String>,
    /// Whether the target is stor's already.
    pub made: Made,
}

#[derive(Serialize)]
struct Wanted<'a> {
    iqn: &'a str,
    new: bool,
    user: Option<String>,
    portals: Vec<WantedPortal>,
    luns: Vec<WantedLun<'a>>,
    initiators: &'a BTreeSet<String>,
    expelled: &'a BTreeSet<String>,
    removed: &'a BTreeSet<String>,
}

#[derive(Serialize)]
struct WantedPortal {
    address: String,
    port: u16,
}

#[derive(Serialize)]
struct WantedLun<'a> {
    object: String,
    number: u8,
    plugin: &'static str,
    path: &'a str,
    size: u64,
    serial: String,
}

/// Where the target listens: nowhere but there.
#[must_use]
pub fn portals(cluster: &Cluster, spec: &IscsiSpec) -> BTreeSet<Portal> {
    super::portals(cluster, spec).into_iter().collect()
}

/// Has the kernel offer a target as the file says, and saves it for the next boot; fails unless all of it is so afterwards.
#[must_use]
pub fn offer(
    cluster: &Cluster,
    id: &StorageId,
    spec: &IscsiSpec,
    secret: Option<&Secret>,
    offer: &Offer<'_>,
) -> Command {
    let lun = |lun: &'_ LunSpec| (object(cluster, id, lun), serial(&cluster.name, id, lun));
    let wanted = Wanted {
        iqn: spec.iqn.as_str(),
        new: offer.made == Made::Never,
        user: spec.chap.as_ref().map(|chap| chap.user.to_string()),
        portals: portals(cluster, spec)
            .into_iter()
            .map(|portal| WantedPortal { address: portal.address, port: portal.port })
            .collect(),
        luns: spec
            .luns
            .iter()
            .map(|spec| {
                let (object, serial) = lun(spec);
                let (path, plugin) = (spec.backing.as_str(), plugin(spec));
                WantedLun { object, number: spec.number, plugin, path, size: spec.size.bytes(), serial }
            })
            .collect(),
        initiators: offer.initiators,
        expelled: offer.expelled,
        removed: offer.removed,
    };
    #[expect(clippy::expect_used, reason = "strings, numbers and lists always have a JSON form")]
    let wanted = serde_json::to_string(&wanted).expect("a target has a JSON form");
    Command::new("python3").args(["-c", TARGET, "offer", &wanted]).stdin(Stdin::line(secret))
}

/// Withdraws a target with its backing objects, then its stamp; fails while an initiator is logged in. May run again.
#[must_use]
pub fn forget<'n>(iqn: &str, objects: impl Iterator<Item = &'n str>, stamp: &str) -> Vec<Command> {
    let forget = Command::new("python3").args(["-c", TARGET, "forget", iqn]).args(objects);
    vec![forget, Command::new("rm").args(["-f", "--", stamp])]
}

/// What initiators show as the WWN of a LUN: NAA 6, the kernel's company identifier, and the serial number
/// (`target_core_spc.c`, `spc_gen_naa_6h_vendor_specific`).
#[must_use]
pub fn wwid(serial: &str) -> String {
    crate::storage::iscsi::spec::wwid(serial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_makes_the_wwid_that_initiators_show() {
        for (shown, saved) in [
            (
                include_str!("../../../../fixtures/outputs/lsblk/debian13-util-linux2.41-iscsi.json"),
                include_str!("../../../../fixtures/outputs/saveconfig/debian13-targetcli2.1.53-chap.json"),
            ),
            (
                include_str!("../../../../fixtures/outputs/lsblk/debian12-util-linux2.38-iscsi.json"),
                include_str!("../../../../fixtures/outputs/saveconfig/debian12-targetcli2.1.53-chap.json"),
            ),
        ] {
            let objects = crate::storage::iscsi::facts::lio::read_saved(saved).unwrap().objects;
            assert_eq!(objects.len(), 2);
            for wwid in objects.values().map(|object| wwid(&object.serial)) {
                assert!(
                    shown.replace("\":\"", "\": \"").contains(&format!("\"wwn\": \"0x{wwid}\"")),
                    "{wwid}"
                );
            }
        }
    }
}
