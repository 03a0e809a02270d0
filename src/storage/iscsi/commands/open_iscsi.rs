//! What a hypervisor's own initiator (open-iscsi) is asked and told. Pure.
//!
//! Four constant scripts: every start of iscsiadm costs a round trip to its daemon, and some of what has to be done it cannot do
//! by itself. Sources: iscsiadm(8), iscsid.conf(5) of open-iscsi 2.1, multipath(8), the kernel's scsi_transport_iscsi.c (sysfs).

use std::time::Duration;

use super::{lio, portals, serial};
use crate::libvirt::pool_xml;
use crate::model::{AbsPath, Command, FileContent, FileMode, FileSpec, Query, Secret, Stdin, StorageId};
use crate::spec::Cluster;
use crate::storage::iscsi::spec::{IscsiProvider, IscsiSpec, LunSpec, Portal};
use crate::storage::packages::{Family, Need};

/// The initiator.
pub const CLIENT: Need =
    Need { debian: &["open-iscsi"], red_hat: &["iscsi-initiator-utils"], suse: &["open-iscsi"] };
/// What joins several ways to one LUN.
pub const MULTIPATH: Need =
    Need { debian: &["multipath-tools"], red_hat: &["device-mapper-multipath"], suse: &["multipath-tools"] };

const SHOW: &str = include_str!("open_iscsi/show.sh");
const RECORD: &str = include_str!("open_iscsi/record.sh");
const ATTACH: &str = include_str!("open_iscsi/attach.sh");
const LEAVE: &str = include_str!("open_iscsi/leave.sh");

/// How the device of a LUN with a WWN begins.
const BY_WWN: &str = "/dev/disk/by-id/wwn-0x";
/// Deadline for logging in and out at all portals: open-iscsi tries for up to two minutes.
const SESSION_DEADLINE: Duration = Duration::from_secs(150);
/// Seconds after which I/O of a lost session fails: with one way it is better to wait, with several to go another one.
const ONE_WAY: u32 = 120;
const SEVERAL_WAYS: u32 = 15;

/// The service that logs in when the host boots, as the distribution calls it.
#[must_use]
pub fn service(family: Option<Family>) -> &'static str {
    match family {
        Some(Family::RedHat | Family::Suse) => "iscsi.service",
        Some(Family::Debian) | None => "open-iscsi.service",
    }
}

/// Where a pool has its volumes.
#[must_use]
pub fn pool_path() -> AbsPath {
    #[expect(clippy::expect_used, reason = "a constant")]
    AbsPath::new(pool_xml::ISCSI_PATH).expect("a constant path")
}

/// Where a LUN is on every hypervisor. The kernel's target has it by its WWN, a link that leads to the multipath map where there is
/// one and to no other LUN ever; tgt gives the same WWN to LUNs of different targets, so its LUNs have the path of their only portal.
#[must_use]
pub fn device(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec, lun: &LunSpec) -> AbsPath {
    let name = match (spec.provider, portals(cluster, spec).first()) {
        (IscsiProvider::Auto | IscsiProvider::Tgt, Some(portal)) => {
            ("by-path", format!("ip-{portal}-iscsi-{}-lun-{}", spec.iqn, lun.number))
        }
        _ => ("by-id", format!("wwn-0x{}", lio::wwid(&serial(&cluster.name, id, lun)))),
    };
    AbsPath::device_link(name.0, &name.1)
}

/// Tells whether a device's path names a LUN of this target, whoever wrote it.
#[must_use]
pub fn leads_to(path: &str, iqn: &str) -> bool {
    path.contains(&format!("-iscsi-{iqn}-lun-"))
}

/// Seconds after which I/O of a lost session fails.
#[must_use]
pub fn replacement_timeout(portals: &[Portal]) -> u32 {
    if portals.len() > 1 { SEVERAL_WAYS } else { ONE_WAY }
}

/// Asks for the sessions with a target and where paths lead.
#[must_use]
pub fn sessions(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec) -> Query {
    let paths = spec.luns.iter().map(|lun| device(cluster, id, spec, lun).to_string());
    Query::new(Command::new("sh").args(["-c", SHOW, "stor-sessions", spec.iqn.as_str()]).args(paths))
}

/// Asks for open-iscsi's records of a target; it shows no secret.
#[must_use]
pub fn records(spec: &IscsiSpec) -> Query {
    let args = ["--mode", "node", "--targetname", spec.iqn.as_str(), "--op", "show"];
    Query::new(Command::new("iscsiadm").args(args))
}

/// Has libvirt load a backend that was installed after it started; guests run on. systemd takes a pattern that matches no unit,
/// but no name of one that does not exist.
#[must_use]
pub fn reload_libvirt() -> Command {
    Command::new("systemctl").args(["try-restart", "--", "[l]ibvirtd.service", "[v]irtstoraged.service"])
}

/// Has open-iscsi know the target at its portals.
#[must_use]
pub fn record(spec: &IscsiSpec, portals: &[Portal], secret: Option<&Secret>) -> Command {
    let user = spec.chap.as_ref().map(|chap| chap.user.to_string()).unwrap_or_default();
    let timeout = replacement_timeout(portals).to_string();
    Command::new("sh")
        .args(["-c", RECORD, "stor-node", spec.iqn.as_str(), &timeout, &user])
        .args(portals.iter().map(Portal::to_string))
        .stdin(Stdin::line(secret))
}

/// Logs in where the host is not, and looks at LUNs and their sizes anew.
#[must_use]
pub fn attach(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec, portals: &[Portal]) -> Command {
    let portals: Vec<String> = portals.iter().map(Portal::to_string).collect();
    Command::new("sh")
        .args(["-c", ATTACH, "stor-attach", spec.iqn.as_str(), &portals.join(" ")])
        .args(spec.luns.iter().map(|lun| device(cluster, id, spec, lun).to_string()))
        .deadline(SESSION_DEADLINE)
}

/// Logs out at these portals and forgets them; has multipath forget the LUNs of these devices, unless another portal stays.
#[must_use]
pub fn leave<'p>(
    iqn: &str,
    devices: impl IntoIterator<Item = &'p str>,
    portals: impl IntoIterator<Item = &'p str>,
) -> Command {
    // multipath puts the type of the identifier before it: 3, NAA (multipath.conf(5), "uid_attrs").
    let wwid = |device: &str| Some(format!("3{}", device.strip_prefix(BY_WWN)?));
    let wwids: Vec<String> = devices.into_iter().filter_map(wwid).collect();
    let words = ["-c", LEAVE, "stor-leave", iqn, &wwids.join(" ")];
    Command::new("sh").args(words).args(portals).deadline(SESSION_DEADLINE)
}

/// The file with a host's own name as an initiator.
#[must_use]
pub fn initiator_file(path: AbsPath, name: &str) -> FileSpec {
    let content = FileContent::Text(format!("InitiatorName={name}\n").into());
    FileSpec { path, mode: FileMode(0o600), content }
}
