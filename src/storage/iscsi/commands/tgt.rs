//! What tgt is told: its configuration file, and tgtadm(8) for what changes while guests use the target. Pure.
//!
//! Sources: targets.conf(5), tgtadm(8), tgt-admin(8).
//!
//! tgtadm takes a CHAP secret as an argument only, which every user of the server could see. So the account is made through
//! tgtd's own socket, before tgt-admin reads the file: it leaves an account alone that exists.

use super::{clients, header, serial};
use crate::model::{
    AbsPath, Command, FileContent, FileMode, FileSpec, Query, Secret, Stamp, Stdin, StorageId,
};
use crate::spec::Cluster;
use crate::storage::iscsi::spec::{ChapUser, Iqn, IscsiSpec, LunSpec};
use crate::storage::packages::{Family, Need};

/// What a server needs.
pub const SERVER: Need = Need { debian: &["tgt"], red_hat: &["scsi-target-utils"], suse: &["tgt"] };
/// What stands for the secret where it is not shown.
const HIDDEN: &str = "-";
/// Makes an account; a constant, the user is an argument and the secret comes on standard input.
const ACCOUNT: &str = include_str!("tgt/account.pl");
/// Changes a target that is offered; a constant, see the file for its arguments.
const TARGET: &str = include_str!("tgt/target.sh");
/// Shows a configuration file without its secret, and its mode; a constant, the path is an argument.
const SHOW_FILE: &str = r#"stat --format='mode %a' -- "$1" 2>/dev/null || { echo absent; exit 0; }
sed -E 's/^([[:blank:]]*incominguser[[:blank:]]+[^[:blank:]]+).*/\1 -/' -- "$1""#;
/// Shows which targets other configuration files of tgt have; a constant.
const SHOW_TARGETS: &str = r"find /etc/tgt -maxdepth 2 -type f -name '*.conf' -exec grep -s -H -i -o -E '^[[:blank:]]*<target[[:blank:]]+[^>]+>' {} + ; true";

/// The service, as the distribution calls it.
#[must_use]
pub fn service(family: Option<Family>) -> &'static str {
    match family {
        Some(Family::RedHat | Family::Suse) => "tgtd.service",
        Some(Family::Debian) | None => "tgt.service",
    }
}

/// Where the configuration of a storage lies.
#[must_use]
pub fn conf_path(cluster: &Cluster, id: &StorageId) -> AbsPath {
    let path = format!("/etc/tgt/conf.d/stor-{}-{id}.conf", cluster.name);
    #[expect(clippy::expect_used, reason = "names of clusters and storage are [a-z0-9-]")]
    AbsPath::new(path).expect("a valid path")
}

/// Asks for all targets as they are now.
#[must_use]
pub fn targets() -> Query {
    Query::new(Command::new("tgtadm").args(["--lld", "iscsi", "--op", "show", "--mode", "target"]))
}

/// Asks for the names of all CHAP users.
#[must_use]
pub fn accounts() -> Query {
    Query::new(Command::new("tgtadm").args(["--lld", "iscsi", "--op", "show", "--mode", "account"]))
}

/// Asks for stor's own configuration file, without the secret.
#[must_use]
pub fn conf(path: &AbsPath) -> Query {
    Query::new(Command::new("sh").args(["-c", SHOW_FILE, "stor-tgt-conf", path.as_str()]))
}

/// Asks which targets are configured, by file.
#[must_use]
pub fn configured() -> Query {
    Query::new(Command::new("sh").args(["-c", SHOW_TARGETS]))
}

/// The SCSI identifier of a LUN (VPD page 0x83), at most 36 characters.
#[must_use]
pub fn scsi_id(cluster: &Cluster, id: &StorageId, lun: &LunSpec) -> String {
    format!("stor{}", serial(&cluster.name, id, lun))
}

/// The configuration file as it is shown: everything but secret and stamp.
///
/// The write cache is off: what a guest was told is on disk is on disk.
#[must_use]
pub fn conf_shown(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec) -> String {
    conf_text(cluster, id, spec, HIDDEN)
}

/// The configuration file; the secret and its stamp are `None` without CHAP.
#[must_use]
pub fn conf_file(
    cluster: &Cluster,
    id: &StorageId,
    spec: &IscsiSpec,
    secret: Option<(&Secret, Stamp)>,
) -> FileSpec {
    let text = conf_text(cluster, id, spec, secret.map_or(HIDDEN, |(secret, _)| secret.reveal()));
    let content = match secret {
        None => FileContent::Text(text.into()),
        Some((_, stamp)) => {
            FileContent::Secret(Secret::new(format!("{STAMP}{}{text}", stamp.render().reveal())))
        }
    };
    FileSpec { path: conf_path(cluster, id), mode: FileMode(0o600), content }
}

/// What the line with the stamp begins with.
pub const STAMP: &str = "# stamp ";

fn conf_text(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec, secret: &str) -> String {
    let mut text = header(&cluster.name);
    text.push_str(&format!("<target {}>\n", spec.iqn));
    for lun in &spec.luns {
        let (path, number) = (&lun.backing, lun.number);
        let (scsi_id, serial) = (scsi_id(cluster, id, lun), serial(&cluster.name, id, lun));
        text.push_str(&format!(
            "    <backing-store {path}>\n        lun {number}\n        bs-type rdwr\n        write-cache off\n        \
             scsi_id {scsi_id}\n        scsi_sn {serial}\n        vendor_id STOR\n        product_id {}\n    </backing-store>\n",
            product(lun)
        ));
    }
    if let Some(chap) = &spec.chap {
        text.push_str(&format!("    incominguser {} {secret}\n", chap.user));
    }
    for client in clients(cluster, spec) {
        text.push_str(&format!("    initiator-address {client}\n"));
    }
    text.push_str("</target>\n");
    text
}

/// The product identification of a LUN (INQUIRY): 16 characters of its name.
fn product(lun: &LunSpec) -> &str {
    let name = lun.name.as_str();
    &name[..name.len().min(16)]
}

/// Makes the account of a CHAP user anew, and binds it to the target if that is offered already.
#[must_use]
pub fn set_account(user: &ChapUser, secret: &Secret, iqn: &Iqn) -> Vec<Command> {
    let user = user.to_string();
    vec![
        Command::new("perl").args(["-e", ACCOUNT, &user]).stdin(Stdin::Secret(secret.clone())),
        target("bind-account", iqn, [user.as_str()]),
    ]
}

/// Offers a target that nobody uses as its file says, or offers it anew; fails unless each LUN is there afterwards.
#[must_use]
pub fn offer(spec: &IscsiSpec) -> Command {
    target("offer", &spec.iqn, spec.luns.iter().map(|lun| lun.backing.as_str()))
}

/// Lets an address in, or keeps it out.
#[must_use]
pub fn admit(iqn: &Iqn, address: &str, verb: Admission) -> Command {
    let verb = match verb {
        Admission::Bind => "bind-address",
        Admission::Unbind => "unbind-address",
    };
    target(verb, iqn, [address])
}

/// Whether an address is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is from now on.
    Bind,
    /// It is no more.
    Unbind,
}

/// Takes a CHAP user away from a target, so that it is no more asked for.
#[must_use]
pub fn unbind_account(iqn: &Iqn, user: &str) -> Command {
    target("unbind-account", iqn, [user])
}

/// Adds a LUN to a target that may be in use.
#[must_use]
pub fn add_lun(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec, lun: &LunSpec) -> Command {
    let (number, scsi_id) = (lun.number.to_string(), scsi_id(cluster, id, lun));
    let serial = serial(&cluster.name, id, lun);
    let words = [number.as_str(), lun.backing.as_str(), &scsi_id, &serial, product(lun)];
    target("add-lun", &spec.iqn, words)
}

/// Removes a target and its account from tgtd, then its file; fails while an initiator is logged in. May run again.
#[must_use]
pub fn forget(iqn: &str, user: &str, file: &AbsPath) -> Command {
    let words = ["-c", TARGET, "stor-tgt", "forget", iqn, user, file.as_str()];
    Command::new("sh").args(words)
}

fn target<'w>(verb: &str, iqn: &Iqn, words: impl IntoIterator<Item = &'w str>) -> Command {
    Command::new("sh").args(["-c", TARGET, "stor-tgt", verb, iqn.as_str()]).args(words)
}
