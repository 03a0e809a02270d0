//! Everything that stor says to GlusterFS: command lines, the mount unit, the names of packages.
//!
//! Pure. Imports `model`, `spec`, and the shared builders of `storage`. When each is needed is decided in `plan.rs`.
//!
//! Commands that change something go without `--xml`: with it, `gluster` 11.1 ends with status 0 even when it failed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::spec::{Arbiter, Force, GlusterSpec};
use crate::model::{AbsPath, ClusterName, Command, HostId, StorageId};
use crate::spec::Cluster;
use crate::storage::mount_probe::mount_table::Mount;
use crate::storage::mount_unit::MountUnit;
use crate::storage::packages::Need;
use crate::storage::spec::Access;

/// The daemon of every storage server.
pub const DAEMON: &str = "glusterd.service";
/// Where glusterd listens.
pub const DAEMON_PORTS: (u16, u16) = (24007, 24007);
/// Where bricks listen: glusterd's `base-port` and `max-port` (glusterd.vol).
pub const BRICK_PORTS: (u16, u16) = (49152, 60999);
/// What the mount helper registers for.
pub const MOUNT_TYPE: &str = "glusterfs";
/// What the kernel's mount table calls it.
pub const KERNEL_TYPE: &str = "fuse.glusterfs";
/// The volume option that says which cluster made a volume; glusterd keeps every option that begins with `user.`.
pub const CLUSTER_OPTION: &str = "user.stor.cluster";
/// The volume option that lists, with commas, the options that the file named: those that it names no more are reset.
pub const OPTIONS_OPTION: &str = "user.stor.options";
/// What [`OPTIONS_OPTION`] says when the file names none any more; glusterd cannot reset options that begin with `user.`.
const NO_OPTIONS: &str = "none";
/// The volume option that says who may use a volume.
pub const ALLOW_OPTION: &str = "auth.allow";
/// The volume option that makes QEMU's user the owner of the volume's top directory.
pub const OWNER_OPTION: &str = "storage.owner-uid";
/// The group of options that GlusterFS keeps for virtual machines.
pub const GROUP: &str = "virt";

/// Deadline of a command that every server takes part in; glusterd itself waits up to two minutes for them.
const CLUSTER_DEADLINE: Duration = Duration::from_secs(150);

/// What a storage server needs.
pub const SERVER: Need =
    Need { debian: &["glusterfs-server"], red_hat: &["glusterfs-server"], suse: &["glusterfs"] };
/// What a hypervisor needs to mount a volume, and to show the identity of its files (getfattr).
pub const MOUNTING: Need = Need {
    debian: &["attr", "glusterfs-client"],
    red_hat: &["attr", "glusterfs-fuse"],
    suse: &["attr", "glusterfs"],
};
/// What a hypervisor needs for QEMU's own client. Debian's libgfapi comes without the translators that it loads.
pub const DIRECT: Need = Need {
    debian: &["glusterfs-common", "qemu-block-extra"],
    red_hat: &["qemu-block-gluster"],
    suse: &["qemu-block-gluster"],
};

fn gluster() -> Command {
    Command::new("gluster").arg("--mode=script").deadline(CLUSTER_DEADLINE)
}

/// Makes a brick's directory with all its parents; glusterd itself would make the last one only.
#[must_use]
pub fn make_brick(path: &AbsPath) -> Command {
    Command::new("mkdir").args(["-p", "--", path.as_str()])
}

/// Makes a brick's directory anew after a `volume create` that failed half-way left its marks on it.
///
/// glusterd marks bricks while it still checks the other servers, and then refuses what is marked. `rmdir` removes nothing
/// that holds anything.
#[must_use]
pub fn renew_brick(path: &AbsPath) -> Vec<Command> {
    let marks = format!("{path}/.glusterfs");
    vec![Command::new("rmdir").args(["--", &marks, path.as_str()]), make_brick(path)]
}

/// Takes a server into the pool.
#[must_use]
pub fn probe_peer(address: &str) -> Command {
    gluster().args(["peer", "probe", address])
}

/// How long servers get to connect to each other; on a busy machine it takes them a few seconds.
const MEETING: Duration = Duration::from_secs(60);

/// Counts the servers that are connected, again and again, until there are enough of them. A constant: the number is an
/// argument.
const MEET: &str = "\
end=$(($(date +%s) + 45))
while :; do
  connected=$(gluster --mode=script pool list | grep -c '[[:blank:]]Connected[[:blank:]]*$')
  [ \"$connected\" -ge \"$1\" ] && exit 0
  [ \"$(date +%s)\" -lt \"$end\" ] || break
  sleep 0.3
done
gluster --mode=script pool list >&2
echo \"$connected of $1 servers are connected\" >&2
exit 1
";

/// Waits until a server is connected to all of its pool, itself counted.
///
/// `gluster peer probe` returns as soon as the server that runs it has met the new one. The others meet it later, and until
/// then `volume create` fails with "Host ... not connected".
#[must_use]
pub fn meet(servers: usize) -> Command {
    Command::new("sh").args(["-c", MEET, "meet", &servers.to_string()]).deadline(MEETING)
}

/// Lets a server go; may run again after having been interrupted.
///
/// `gluster` fails for a server that has left already, so it runs only where glusterd still keeps the peer.
#[must_use]
pub fn detach(address: &str) -> Vec<Command> {
    let is_this_peer = ["grep", "-qxF", "-e"].map(str::to_owned).into_iter().chain([
        format!("hostname1={address}"),
        "-e".to_owned(),
        format!("hostname2={address}"),
        "{}".to_owned(),
        ";".to_owned(),
    ]);
    let find = find_in("peers").args(["-type", "f", "-exec"]).args(is_this_peer);
    vec![or_fail(find, &gluster().args(["peer", "detach", address]))]
}

/// Starts a search among what glusterd keeps on disk.
fn find_in(directory: &str) -> Command {
    let path = format!("/var/lib/glusterd/{directory}");
    Command::new("find").args([&path, "-mindepth", "1", "-maxdepth", "1"]).deadline(CLUSTER_DEADLINE)
}

/// Ends a search with a command for what it found; `find` then ends with the status 1 if the command failed.
fn or_fail(find: Command, command: &Command) -> Command {
    find.args(["!", "-exec", command.program])
        .args(command.args.iter().cloned())
        .args([";", "-exec", "false", "{}", "+"])
}

/// A brick as glusterd writes it.
#[must_use]
pub fn brick_name(address: &str, path: &AbsPath) -> String {
    format!("{address}:{path}")
}

/// Creates a volume.
#[must_use]
pub fn create(cluster: &Cluster, id: &StorageId, spec: &GlusterSpec) -> Command {
    let mut command = gluster().args(["volume", "create", id.as_str(), "replica", &spec.replica.to_string()]);
    if spec.arbiter == Arbiter::Yes {
        command = command.args(["arbiter", "1"]);
    }
    command = command.args(["transport", "tcp"]);
    command = command
        .args(spec.bricks.iter().map(|brick| brick_name(cluster.address_of(&brick.host), &brick.path)));
    if spec.force == Force::Yes { command.arg("force") } else { command }
}

/// Sets options, all in one call: glusterd takes all or none.
#[must_use]
pub fn set_options(id: &StorageId, options: &BTreeMap<String, String>) -> Command {
    let words = options.iter().flat_map(|(name, value)| [name.clone(), value.clone()]);
    gluster().args(["volume", "set", id.as_str()]).args(words)
}

/// The options that the file named when stor last set them, as the volume remembers them.
pub fn named_before(options: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    let names = options.get(OPTIONS_OPTION).filter(|names| *names != NO_OPTIONS);
    names.into_iter().flat_map(|names| names.split(',')).filter(|name| !name.is_empty())
}

/// Gives options back to their defaults and keeps in mind that the file names these and no others.
#[must_use]
pub fn reset_options(id: &StorageId, names: &[String], spec: &GlusterSpec) -> Vec<Command> {
    let reset = |name: &String| gluster().args(["volume", "reset", id.as_str(), name]);
    let mut commands: Vec<Command> = names.iter().map(reset).collect();
    if spec.options.is_empty() {
        commands.push(gluster().args(["volume", "set", id.as_str(), OPTIONS_OPTION, NO_OPTIONS]));
    }
    commands
}

/// Sets the group's options, whatever the server's own file says; they cannot be named in one call with others.
#[must_use]
pub fn set_group(id: &StorageId) -> Command {
    gluster().args(["volume", "set", id.as_str(), "group", GROUP])
}

/// Starts a volume.
#[must_use]
pub fn start(id: &StorageId) -> Command {
    gluster().args(["volume", "start", id.as_str()])
}

/// Fails as long as anybody has a volume mounted or open through libgfapi, after ten seconds in which those that just left may
/// go. A volume that does not run has no client. A constant: the volume is an argument.
const IDLE: &str = "\
left=20
while used=$(gluster --mode=script volume status \"$1\" client-list 2>/dev/null | grep -E '^(fuse|gfapi)'); do
  left=$((left - 1))
  [ $left -gt 0 ] || { echo \"volume $1 is in use, nothing was removed: $(echo $used)\" >&2; exit 1; }
  sleep 0.5
done
exit 0
";

/// Stops and deletes a volume that nobody uses; the bricks keep their data. May run again after having been interrupted, even when glusterd
/// itself has been stopped since.
#[must_use]
pub fn stop_and_delete(name: &str) -> Vec<Command> {
    // With --xml it ends with 0 even for a volume that is stopped already.
    let stop = gluster().args(["--xml", "volume", "stop", name, "force"]);
    let idle = Command::new("sh").args(["-c", IDLE, "idle", name]);
    vec![
        or_fail(find_in("vols").args(["-name", name]), &idle),
        or_fail(find_in("vols").args(["-name", name]), &stop),
        or_fail(find_in("vols").args(["-name", name]), &gluster().args(["volume", "delete", name])),
    ]
}

/// The options that the file asks for beyond the group's, which they win over.
#[must_use]
pub fn own_options(
    cluster: &ClusterName,
    spec: &GlusterSpec,
    allowed: &BTreeSet<String>,
    owner: Option<u32>,
) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    options.insert(ALLOW_OPTION.to_owned(), allowed.iter().cloned().collect::<Vec<_>>().join(","));
    if let Some(uid) = owner {
        options.insert(OWNER_OPTION.to_owned(), uid.to_string());
    }
    options.extend(spec.options.clone());
    if !spec.options.is_empty() {
        let names: Vec<&str> = spec.options.keys().map(String::as_str).collect();
        options.insert(OPTIONS_OPTION.to_owned(), names.join(","));
    }
    options.insert(CLUSTER_OPTION.to_owned(), cluster.to_string());
    options
}

/// The addresses that may use the volume: hypervisors, the bricks' hosts, and what the file adds.
#[must_use]
pub fn allowed(cluster: &Cluster, spec: &GlusterSpec) -> BTreeSet<String> {
    let hypervisors = cluster.hypervisors().map(|host| host.address.clone());
    let servers = servers(cluster, spec).into_iter().map(str::to_owned);
    hypervisors.chain(servers).chain(spec.allow.iter().cloned()).collect()
}

/// The bricks' hosts in the order of their first bricks, each once.
#[must_use]
pub fn server_ids(spec: &GlusterSpec) -> Vec<&HostId> {
    let mut seen = BTreeSet::new();
    spec.bricks.iter().map(|brick| &brick.host).filter(|host| seen.insert(*host)).collect()
}

/// The addresses of [`server_ids`].
#[must_use]
pub fn servers<'a>(cluster: &'a Cluster, spec: &GlusterSpec) -> Vec<&'a str> {
    server_ids(spec).into_iter().map(|id| cluster.address_of(id)).collect()
}

/// The mount on a hypervisor: the first server hands out the volume's description, the others do when it is down.
#[must_use]
pub fn mount_unit(cluster: &Cluster, id: &StorageId, spec: &GlusterSpec) -> MountUnit {
    let servers = servers(cluster, spec);
    let (first, others) = servers.split_first().unwrap_or((&"", &[]));
    let mut options = vec!["_netdev".to_owned()];
    if !others.is_empty() {
        options.push(format!("backup-volfile-servers={}", others.join(":")));
    }
    MountUnit {
        cluster: cluster.name.clone(),
        description: format!("GlusterFS volume {id}"),
        source: format!("{first}:/{id}"),
        path: spec.mount.clone(),
        fs_type: MOUNT_TYPE,
        options,
        after: vec![DAEMON],
    }
}

/// What the mount table may call this volume: any of its servers, by address or by its name in the file, with or without
/// the slash.
#[must_use]
pub fn mount_sources(cluster: &Cluster, id: &StorageId, spec: &GlusterSpec) -> BTreeSet<String> {
    let names = server_ids(spec).into_iter().flat_map(|host| [cluster.address_of(host), host.as_str()]);
    names.flat_map(|name| [format!("{name}:/{id}"), format!("{name}:{id}")]).collect()
}

/// Tells whether a mount is of a volume, whatever server handed it out.
#[must_use]
pub fn is_mount_of(volume: &str, mount: &Mount) -> bool {
    let name = mount.source.rsplit(':').next().map(|path| path.trim_start_matches('/'));
    mount.fs_type == KERNEL_TYPE && name == Some(volume)
}

/// What a hypervisor needs, by how it reaches the volume.
#[must_use]
pub fn client_needs(access: Access) -> &'static [Need] {
    match access {
        Access::Mount => &[MOUNTING],
        Access::Direct => &[DIRECT],
    }
}
