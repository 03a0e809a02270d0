//! What the kernel's NFS server is told: the exports file, fixed ports, exportfs(8). Pure.
//!
//! Sources: exports(5), exportfs(8), nfs.conf(5).

use std::time::Duration;

use uuid::Uuid;

use super::{LOCKD_PORT, MOUNTD_PORT, STATD_OUTGOING_PORT, STATD_PORT, clients, header};
use crate::model::{AbsPath, Command, FileContent, FileMode, FileSpec, StorageId};
use crate::spec::Cluster;
use crate::storage::nfs::spec::{NfsSpec, Squash};
use crate::storage::packages::Need;

/// The kernel's server, on every distribution with systemd.
pub const SERVICE: &str = "nfs-server.service";
/// What a server needs.
pub const SERVER: Need =
    Need { debian: &["nfs-kernel-server"], red_hat: &["nfs-utils"], suse: &["nfs-kernel-server"] };
/// The name space of the identifiers that stor gives to exports (UUID version 5, RFC 9562 section 5.5); chosen once at random.
const NAMESPACE: Uuid = Uuid::from_u128(0x2f0e_8c35_91d4_4a6b_8d7e_6a53_0c1b_f4d2);

/// Has the server read its exports again, and fails unless each of the named clients then has the path.
///
/// Its status says nothing: `exportfs -r` ends with 0 although a client could not be resolved, and with 1 for a mistake in
/// somebody else's file. What it then exports (`/var/lib/nfs/etab`) tells. A constant: path and clients are arguments.
const REEXPORT: &str = r#"
said=$(exportfs -ra 2>&1)
path=$1
shift
addresses() { getent ahostsv4 "$1" | cut -d ' ' -f 1 | sort -u; }
exported() {
    for name in $shown; do
        [ "$name" != "$1" ] || return 0
        for address in $(addresses "$name"); do
            for other in $(addresses "$1"); do [ "$address" != "$other" ] || return 0; done
        done
    done
    return 1
}
set -f
shown=$(awk -F '\t' -v path="$path" '$1 == path { sub(/\(.*/, "", $2); print $2 }' /var/lib/nfs/etab)
for client in "$@"; do
    exported "$client" || { printf '%s is not exported to %s: %s\n' "$path" "$client" "$said" >&2; exit 1; }
done
"#;

/// Has the server forget what is exported no more; succeeds where there is no server (any more).
const FORGET: &str = "command -v exportfs >/dev/null || exit 0; exec exportfs -ra";

/// Waits until the server's grace periods are over, in which clients that open or lock a file wait (RFC 8881, section 8.4.2.1): a minute after
/// each start for version 3's locks, which hold up version 4's too; 90 s where clients of version 4 are on record that may reclaim
/// theirs. A kernel that does not say (fs/lockd/procfs.c, fs/nfsd/nfsctl.c) is not waited for, and a longer grace period is somebody's wish.
const AWAIT: &str = r#"
left=120
in_grace() { grep -aqs '^N' "$1"; }
while in_grace /proc/fs/lockd/nlm_end_grace || in_grace /proc/fs/nfsd/v4_end_grace; do
    [ $left != 0 ] || break
    left=$((left - 1))
    sleep 1
done
"#;
/// Longer than that.
const AWAIT_DEADLINE: Duration = Duration::from_secs(180);

/// The identifier of an export's file system (`fsid=`): the same after a reboot, on whatever device the directory lies.
#[must_use]
pub fn fsid(cluster: &Cluster, id: &StorageId) -> String {
    Uuid::new_v5(&NAMESPACE, format!("{}/{id}", cluster.name).as_bytes()).to_string()
}

/// Where the exports file of a storage lies.
#[must_use]
pub fn exports_path(cluster: &Cluster, id: &StorageId) -> AbsPath {
    file_in("/etc/exports.d", &format!("stor-{}-{id}.exports", cluster.name))
}

fn file_in(directory: &str, name: &str) -> AbsPath {
    #[expect(clippy::expect_used, reason = "names of clusters and storage are [a-z0-9-]")]
    AbsPath::new(format!("{directory}/{name}")).expect("a valid path")
}

/// The options of an export, as the server has to show them.
///
/// `sync`: what the guest was told is on disk is on disk. `no_subtree_check`: a file that is renamed keeps its handle.
/// `insecure` where QEMU itself is the client: it is no root, so it cannot use ports below 1024.
#[must_use]
pub fn options(cluster: &Cluster, id: &StorageId, spec: &NfsSpec) -> Vec<String> {
    let mut options: Vec<String> = ["rw", "sync", "no_subtree_check", "sec=sys"].map(str::to_owned).into();
    options.push(format!("fsid={}", fsid(cluster, id)));
    options.push(if spec.mount.is_some() { "secure" } else { "insecure" }.to_owned());
    options.push(
        match spec.squash {
            Squash::None => "no_root_squash",
            Squash::Root(_) => "root_squash",
            Squash::All(_) => "all_squash",
        }
        .to_owned(),
    );
    if let Some(anonymous) = spec.squash.anonymous() {
        options.push(format!("anonuid={}", anonymous.uid));
        options.push(format!("anongid={}", anonymous.gid));
    }
    options
}

/// The exports file: one line per client, none of them a pattern.
#[must_use]
pub fn exports_file(cluster: &Cluster, id: &StorageId, spec: &NfsSpec) -> FileSpec {
    let options = options(cluster, id, spec).join(",");
    let mut text = header(&cluster.name);
    for client in clients(cluster, spec) {
        text.push_str(&format!("{} {client}({options})\n", spec.path));
    }
    FileSpec {
        path: exports_path(cluster, id),
        mode: FileMode(0o644),
        content: FileContent::Text(text.into()),
    }
}

/// Has the server take up the exports file, and checks that it did.
#[must_use]
pub fn reexport(cluster: &Cluster, spec: &NfsSpec) -> Command {
    Command::new("sh")
        .args(["-c", REEXPORT, "stor-exportfs", spec.path.as_str()])
        .args(clients(cluster, spec))
}

/// Removes an exports file and has the server forget it; may run again.
#[must_use]
pub fn unexport(file: &AbsPath) -> Vec<Command> {
    vec![Command::new("rm").args(["-f", "--", file.as_str()]), Command::new("sh").args(["-c", FORGET])]
}

/// Where the fixed ports are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortsIn {
    /// `/etc/nfs.conf.d/stor.conf` (nfs.conf(5)).
    NfsConf,
    /// A block in `/etc/default/nfs-kernel-server` (Debian before 12, Ubuntu before 22.04).
    DebianDefault,
    /// A block in `/etc/sysconfig/nfs` (Red Hat 7).
    Sysconfig,
}

impl PortsIn {
    /// The file.
    #[must_use]
    pub fn path(self) -> AbsPath {
        match self {
            Self::NfsConf => file_in("/etc/nfs.conf.d", "stor.conf"),
            Self::DebianDefault => file_in("/etc/default", "nfs-kernel-server"),
            Self::Sysconfig => file_in("/etc/sysconfig", "nfs"),
        }
    }

    /// The lines that fix the ports, for the whole host and so for every cluster.
    #[must_use]
    pub fn lines(self) -> Vec<String> {
        match self {
            Self::NfsConf => [
                "# Written by stor: the ports of NFSv3's side protocols, fixed so that a firewall can name them.".to_owned(),
                "[lockd]".to_owned(),
                format!("port={LOCKD_PORT}"),
                format!("udp-port={LOCKD_PORT}"),
                "[mountd]".to_owned(),
                format!("port={MOUNTD_PORT}"),
                "[statd]".to_owned(),
                format!("port={STATD_PORT}"),
                format!("outgoing-port={STATD_OUTGOING_PORT}"),
            ]
            .into(),
            Self::DebianDefault => vec![format!("RPCMOUNTDOPTS=\"--manage-gids --port {MOUNTD_PORT}\"")],
            Self::Sysconfig => vec![
                format!("LOCKD_TCPPORT={LOCKD_PORT}"),
                format!("LOCKD_UDPPORT={LOCKD_PORT}"),
                format!("MOUNTD_PORT={MOUNTD_PORT}"),
                format!("STATD_PORT={STATD_PORT}"),
                format!("STATD_OUTGOING_PORT={STATD_OUTGOING_PORT}"),
            ],
        }
    }
}

/// Has the daemons beside the server take up their ports; the server itself, and with it every guest, goes on.
#[must_use]
pub fn restart_side_daemons() -> Command {
    Command::new("systemctl").args(["try-restart", "--", "rpc-statd.service", "nfs-mountd.service"])
}

/// Waits until a server that was started serves clients, two minutes at most.
#[must_use]
pub fn past_grace() -> Command {
    Command::new("sh").args(["-c", AWAIT, "stor-nfsd"]).deadline(AWAIT_DEADLINE)
}
