//! How a GlusterFS volume is proved, and the look at it through libgfapi.
//!
//! libgfapi runs in a process of its own, started by re-executing stor with [`CHILD`]: it can hang, it takes 10 s to end
//! in good order, and it starts threads. The child reads one job as JSON on standard input and prints one answer.
//! Imports `host::local`, `spec`, `model` and `storage::probe`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::commands;
use super::gfapi::{self, Volume};
use super::spec::GlusterSpec;
use crate::host::local;
use crate::model::{Command, Stdin, StorageId};
use crate::spec::Cluster;
use crate::storage::probe::{
    Client, ClientAnswer, ClientRequest, DirectDirectory, GlusterVolume, Identity, MountedDirectory,
    NoClient, Probe, Way, names, own_address,
};
use crate::storage::spec::Access;

/// The hidden argument with which stor starts itself as libgfapi's process.
pub const CHILD: &str = "__gfapi";
/// Time for the volume to open and answer: what a volume that lets nobody in costs at most.
const CLIENT_DEADLINE: Duration = Duration::from_secs(4);
/// glusterd's port.
const GLUSTERD_PORT: u16 = 24007;

/// Describes how a volume is proved.
#[must_use]
pub fn describe(cluster: &Cluster, id: &StorageId, spec: &GlusterSpec) -> Probe {
    let servers = commands::servers(cluster, spec).into_iter().map(str::to_owned).collect();
    let volume = GlusterVolume { servers, volume: id.as_str().to_owned() };
    let mut allowed = volume.servers.clone();
    allowed.extend(cluster.hypervisors().map(|host| host.address.clone()));
    allowed.extend(spec.allow.iter().cloned());
    let way = match spec.access {
        Access::Mount => Way::Mounted(MountedDirectory {
            path: spec.mount.clone(),
            fs_type: commands::KERNEL_TYPE,
            sources: commands::mount_sources(cluster, id, spec).into_iter().collect(),
            pool: id.as_str().to_owned(),
            identity: Some("glusterfs.gfid.string"),
            split_brain: Some("replica.split-brain-status"),
        }),
        Access::Direct => Way::Direct(DirectDirectory {
            before: format!("gluster://{}/{id}/", volume.servers.first().map_or("", String::as_str)),
            after: String::new(),
            kind: "GlusterFS",
        }),
    };
    Probe { storage: id.clone(), way, client: Some(Client::Gfapi { volume, allowed }), keeper: None }
}

/// What the child is told.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    volume: GlusterVolume,
    request: ClientRequest,
}

/// Looks at a volume through libgfapi on this machine.
///
/// # Errors
/// [`NoClient`]: the library is missing, the volume does not let this machine in, or it did not answer in time.
pub fn look(
    volume: &GlusterVolume,
    allowed: &[String],
    request: &ClientRequest,
) -> Result<ClientAnswer, NoClient> {
    let failed = |reason: String| NoClient::Failed { reason };
    if let Some(here) = own_address(&volume.servers, GLUSTERD_PORT)
        && !allowed.iter().any(|address| names(address, here))
    {
        return Err(NoClient::NotApplicable {
            reason: format!("volume {} does not let this machine ({here}) in", volume.volume),
            remedy: format!("add {here} to `allow:` of the storage and run `stor apply`"),
        });
    }
    let job = Job { volume: volume.clone(), request: request.clone() };
    let job = serde_json::to_string(&job).map_err(|error| failed(error.to_string()))?;
    // The child watches its own deadline, to say why; this one is for a child that cannot even do that.
    let command = Command::new("/proc/self/exe")
        .arg(CHILD)
        .stdin(Stdin::Text(job))
        .deadline(CLIENT_DEADLINE + Duration::from_secs(1));
    let answer = local::ask(&command).map_err(|error| failed(chain(&error)))?;
    match serde_json::from_str::<Reply>(&answer.stdout) {
        Ok(Reply::Seen(seen)) => Ok(seen),
        Ok(Reply::NotInstalled(reason)) => Err(NoClient::NotApplicable {
            reason: format!("libgfapi cannot be used on this machine: {reason}"),
            remedy: "install libgfapi0 and glusterfs-common (Debian, Ubuntu) or glusterfs-api (Red Hat, SUSE) on this \
                     machine"
                .to_owned(),
        }),
        Ok(Reply::Failed(reason)) if reason.contains("Authentication failed") => Err(NoClient::NotApplicable {
            reason: format!("volume {} does not let this machine in", volume.volume),
            remedy: "add this machine's address to `allow:` of the storage and run `stor apply`".to_owned(),
        }),
        Ok(Reply::Failed(reason)) => Err(failed(reason)),
        Err(_) if answer.status.is_none() => {
            Err(failed(format!("no answer within {}", humantime::format_duration(command.deadline))))
        }
        Err(error) => Err(failed(format!("{error}: {}", answer.stderr.trim()))),
    }
}

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Seen(ClientAnswer),
    NotInstalled(String),
    Failed(String),
}

/// The child's whole life: reads a job, prints a reply, ends the process.
pub fn child() -> ! {
    let log = tempfile::NamedTempFile::new();
    let reply = match (&log, job()) {
        (Ok(log), Ok(job)) => work(&job, log.path()),
        (Err(error), _) => Reply::Failed(format!("no temporary file for libgfapi's log: {error}")),
        (_, Err(reason)) => Reply::Failed(reason),
    };
    drop(log);
    say(&reply)
}

fn say(reply: &Reply) -> ! {
    use std::io::Write as _;
    let told = serde_json::to_vec(reply)
        .map_err(std::io::Error::other)
        .and_then(|text| std::io::stdout().write_all(&text))
        .and_then(|()| std::io::stdout().flush());
    gfapi::leave(i32::from(told.is_err()))
}

fn job() -> Result<Job, String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

fn work(job: &Job, log: &std::path::Path) -> Reply {
    let library = match gfapi::load() {
        Ok(library) => library,
        Err(error) => return Reply::NotInstalled(chain(&error)),
    };
    let watched = log.to_owned();
    // libgfapi waits 10 s for a volume that refuses it; the log knows after milliseconds.
    std::thread::spawn(move || {
        let begin = std::time::Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let reason = last_error(&watched);
            if reason.contains("Authentication failed") || begin.elapsed() > CLIENT_DEADLINE {
                let told =
                    if reason.is_empty() { "no answer from the volume in time" } else { reason.as_str() };
                if let Err(error) = std::fs::remove_file(&watched) {
                    tracing::debug!(%error, "libgfapi's log stays");
                }
                say(&Reply::Failed(told.to_owned()));
            }
        }
    });
    match Volume::open(library, &job.volume.volume, &job.volume.servers, log) {
        Ok(volume) => Reply::Seen(answer(&volume, &job.request)),
        Err(error) => {
            let logged = last_error(log);
            // libgfapi0 alone is a shell: the translators come with another package (ENOENT at once, nothing logged).
            match std::error::Error::source(&error).and_then(|source| source.downcast_ref::<std::io::Error>())
            {
                Some(source) if source.kind() == std::io::ErrorKind::NotFound && logged.is_empty() => {
                    Reply::NotInstalled("its translators are missing".to_owned())
                }
                _ if logged.is_empty() => Reply::Failed(chain(&error)),
                _ => Reply::Failed(format!("{}: {logged}", chain(&error))),
            }
        }
    }
}

/// The last error of libgfapi's log, without time and source line; empty when there is none.
fn last_error(log: &std::path::Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let errors = || text.lines().filter(|line| line.contains("] E ["));
    let line = errors().find(|line| line.contains("Authentication failed")).or_else(|| errors().next_back());
    line.map(|line| line.rsplit_once("] 0-").map_or(line, |(_, said)| said).trim().to_owned())
        .unwrap_or_default()
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn answer(volume: &Volume, request: &ClientRequest) -> ClientAnswer {
    let each = |names: &[String], work: &dyn Fn(&str) -> std::io::Result<()>| {
        names.iter().map(|name| (name.clone(), work(name).map_err(|error| error.to_string()))).collect()
    };
    ClientAnswer {
        created: each(&request.create, &|name| volume.create(name, &[b' '; gfapi::BLOCK])),
        identified: map(&request.identify, |name| {
            let gfid = uuid::Uuid::from_bytes(volume.gfid(name)?);
            // The inode number that FUSE shows (gfid_to_ino, libglusterfs/src/inode.c).
            let inode = gfid.as_u64_pair().1;
            Ok(Identity { inode, id: Some(gfid.to_string()), size: volume.size(name)? })
        }),
        read: map(&request.read, |name| {
            let text = String::from_utf8_lossy(&volume.read(name)?).into_owned();
            Ok(text.trim_end_matches([' ', '\n', '\0']).to_owned())
        }),
        removed: each(&request.remove, &|name| volume.remove(name)),
        reserved: BTreeMap::new(),
    }
}

fn map<T>(
    names: &[String],
    work: impl Fn(&str) -> std::io::Result<T>,
) -> BTreeMap<String, Result<T, String>> {
    names.iter().map(|name| (name.clone(), work(name).map_err(|error| error.to_string()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_found_in_the_log_among_later_errors() {
        let log = std::path::Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/outputs/gfapi-log/debian12-glusterfs10.3-refused.txt"
        ));
        assert!(last_error(log).starts_with("gfs-client-0: SETVOLUME on remote-host failed"));
        assert!(last_error(log).contains("Authentication failed"));
    }
}
