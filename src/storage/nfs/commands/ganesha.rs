//! What nfs-ganesha is told: an export's file, the line that includes it, reload and restart. Pure.
//!
//! Sources: ganesha-config(8), ganesha-core-config(8), ganesha-export-config(8); its D-Bus interface
//! (`org.ganesha.nfsd.exportmgr`, `org.ganesha.nfsd.admin`).

use std::time::Duration;

use uuid::Uuid;

use super::{LOCKD_PORT, MOUNTD_PORT, clients, header};
use crate::model::{
    AbsPath, BlockLine, BlockSpec, Command, FileContent, FileMode, FileSpec, Query, StorageId,
};
use crate::spec::Cluster;
use crate::storage::nfs::spec::{NfsSpec, Squash};
use crate::storage::packages::Need;

/// The daemon.
pub const SERVICE: &str = "nfs-ganesha.service";
/// What a server needs.
pub const SERVER: Need = Need {
    debian: &["nfs-ganesha", "nfs-ganesha-vfs"],
    red_hat: &["nfs-ganesha", "nfs-ganesha-vfs"],
    suse: &["nfs-ganesha", "nfs-ganesha-vfs"],
};
/// The configuration that the package brings; it includes nothing.
const MAIN: &str = "/etc/ganesha/ganesha.conf";
/// Where exports lie.
const DIRECTORY: &str = "/etc/ganesha/exports.d";
/// The name space of the numbers that stor gives to exports; chosen once at random.
const NAMESPACE: Uuid = Uuid::from_u128(0x75d1_64a9_3be2_4f10_b2c8_91e0_4d3a_7c66);
/// Seconds for which a restarted server lets clients reclaim their locks before it serves anything else, and for which a
/// lease holds. ganesha's own 90 and 60 would let every guest stand still for that long.
const GRACE_SECONDS: u32 = 20;
const LEASE_SECONDS: u32 = 15;
/// Longer than the grace period.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// Waits until ganesha shows the export and is out of its grace period, in which it refuses to create files. A constant: the
/// export's number and path are arguments.
const AWAIT: &str = r#"
left=450
until [ $left = 0 ]; do
    shown=$(busctl --json=short call org.ganesha.nfsd /org/ganesha/nfsd/ExportMgr org.ganesha.nfsd.exportmgr DisplayExport q "$1" 2>&1)
    grace=$(busctl --json=short call org.ganesha.nfsd /org/ganesha/nfsd/admin org.ganesha.nfsd.admin get_grace 2>&1)
    case $shown in
    *"\"$2\""*) case $grace in *'"data":[false,'*) exit 0 ;; esac ;;
    esac
    left=$((left - 1))
    sleep 0.2
done
printf 'nfs-ganesha does not serve %s: %s; %s\n' "$2" "$shown" "$grace" >&2
grep -E ':(CRIT|FATAL|MAJ) :' /var/log/ganesha/ganesha.log | tail -n 3 >&2
exit 1
"#;

/// Has a running ganesha forget an export; succeeds where it does not run (any more). Where nothing is left to be read, it
/// is stopped: a reload of an empty configuration ends ganesha 6.5 by SIGSEGV.
const FORGET: &str = "\
systemctl is-active --quiet nfs-ganesha.service || exit 0
grep -qE '^[[:space:]]*[%A-Za-z]' /etc/ganesha/ganesha.conf && exec systemctl reload nfs-ganesha.service
exec systemctl stop nfs-ganesha.service
";

/// The number of an export; the same for the same names and path. ganesha does not let the path of a number change.
#[must_use]
pub fn export_id(cluster: &Cluster, id: &StorageId, spec: &NfsSpec) -> u16 {
    let digest = Uuid::new_v5(&NAMESPACE, format!("{}/{id}{}", cluster.name, spec.path).as_bytes());
    let (number, _) = digest.as_u64_pair();
    // 0 is the pseudo file system's; low numbers are what people take.
    u16::try_from(1000 + number % 64_000).unwrap_or(1000)
}

/// Where the export file of a storage lies.
#[must_use]
pub fn export_path(cluster: &Cluster, id: &StorageId) -> AbsPath {
    constant(&format!("{DIRECTORY}/stor-{}-{id}.conf", cluster.name))
}

fn constant(path: &str) -> AbsPath {
    #[expect(clippy::expect_used, reason = "names of clusters and storage are [a-z0-9-]")]
    AbsPath::new(path).expect("a valid path")
}

/// The settings of the whole server: fixed ports, a short grace period, and no failure where the kernel does not let it
/// mark itself as a provider of memory (PR_SET_IO_FLUSHER, prctl(2)), as in containers. The same in every file of stor's.
#[must_use]
pub fn core() -> String {
    format!(
        "NFS_CORE_PARAM {{\n    MNT_Port = {MOUNTD_PORT};\n    NLM_Port = {LOCKD_PORT};\n    Enable_RQUOTA = false;\n    \
         allow_set_io_flusher_fail = true;\n}}\nNFSV4 {{\n    Grace_Period = {GRACE_SECONDS};\n    \
         Lease_Lifetime = {LEASE_SECONDS};\n}}\n"
    )
}

/// The export file: access for the named clients and nobody else. What stor does to files on the server itself (it creates,
/// grows and gives them away) counts at once: ganesha would go by what it knew for another minute.
#[must_use]
pub fn export_file(cluster: &Cluster, id: &StorageId, spec: &NfsSpec) -> FileSpec {
    let squash = match spec.squash {
        Squash::None => "No_Root_Squash",
        Squash::Root(_) => "Root_Squash",
        Squash::All(_) => "All_Squash",
    };
    let anonymous = spec.squash.anonymous().map_or_else(String::new, |user| {
        format!("    Anonymous_uid = {};\n    Anonymous_gid = {};\n", user.uid, user.gid)
    });
    let versions: Vec<&str> = [(spec.protocols.v3, "3"), (spec.protocols.v4, "4")]
        .into_iter()
        .filter_map(|(offered, version)| offered.then_some(version))
        .collect();
    let text = format!(
        "{}{}EXPORT {{\n    Export_Id = {};\n    Path = {path};\n    Pseudo = {path};\n    Protocols = {};\n    \
         Transports = TCP;\n    SecType = sys;\n    Attr_Expiration_Time = 0;\n    Access_Type = NONE;\n    Squash = {squash};\n{anonymous}    CLIENT {{\n        \
         Clients = {};\n        Access_Type = RW;\n    }}\n    FSAL {{\n        Name = VFS;\n    }}\n}}\n",
        header(&cluster.name),
        core(),
        export_id(cluster, id, spec),
        versions.join(", "),
        clients(cluster, spec).into_iter().collect::<Vec<_>>().join(", "),
        path = spec.path,
    );
    FileSpec {
        path: export_path(cluster, id),
        mode: FileMode(0o644),
        content: FileContent::Text(text.into()),
    }
}

/// The word behind `stor` in the marks around the line that includes an export's file.
#[must_use]
pub fn marker(cluster: &Cluster, id: &StorageId) -> String {
    format!("{}-{id}", cluster.name)
}

/// The line in the package's configuration that includes an export's file; `None` removes it.
///
/// One file each, not `%dir`: a directory that is included twice would have every export in it twice.
#[must_use]
pub fn include(marker: &str, file: Option<&AbsPath>) -> BlockSpec {
    BlockSpec {
        path: constant(MAIN),
        mode: FileMode(0o644),
        marker: marker.to_owned(),
        lines: file.map(|file| [BlockLine::Text(format!("%include \"{file}\""))].into()),
    }
}

/// Has a running server read its exports again, and waits until it serves this one.
#[must_use]
pub fn reload(cluster: &Cluster, id: &StorageId, spec: &NfsSpec) -> Vec<Command> {
    vec![Command::new("systemctl").args(["reload", "--", SERVICE]), await_export(cluster, id, spec)]
}

/// Starts the server now and with the host, and waits until it serves an export. One that runs is started anew: settings of
/// the whole server are only read then.
#[must_use]
pub fn restart(cluster: &Cluster, id: &StorageId, spec: &NfsSpec) -> Vec<Command> {
    vec![
        Command::new("systemctl").args(["enable", "--quiet", "--", SERVICE]),
        Command::new("systemctl").args(["restart", "--", SERVICE]),
        await_export(cluster, id, spec),
    ]
}

fn await_export(cluster: &Cluster, id: &StorageId, spec: &NfsSpec) -> Command {
    let number = export_id(cluster, id, spec).to_string();
    Command::new("sh")
        .args(["-c", AWAIT, "stor-ganesha", &number, spec.path.as_str()])
        .deadline(START_DEADLINE)
}

/// Removes an export's file and has the server forget it; its include is removed before.
#[must_use]
pub fn unexport(file: &AbsPath) -> Vec<Command> {
    vec![Command::new("rm").args(["-f", "--", file.as_str()]), Command::new("sh").args(["-c", FORGET])]
}

fn call(method: &'static str) -> Command {
    let object = "/org/ganesha/nfsd/ExportMgr";
    Command::new("busctl").args([
        "--json=short",
        "--timeout=5",
        "call",
        "org.ganesha.nfsd",
        object,
        "org.ganesha.nfsd.exportmgr",
        method,
    ])
}

/// Asks what a running server shows of one export; fails when there is no such export, or no server.
#[must_use]
pub fn shown(cluster: &Cluster, id: &StorageId, spec: &NfsSpec) -> Query {
    Query::new(call("DisplayExport").args(["q", &export_id(cluster, id, spec).to_string()]))
}
