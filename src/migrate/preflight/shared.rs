//! Whether a path is one file on both hosts: on shared storage, the same export, the same inode, and where it belongs.

use crate::migrate::facts::{FileFacts, HostFacts, Misplaced, Mount};
use crate::model::{FindingCode, HostId, Severity};
use crate::spec::Cluster;

/// File systems that libvirt takes as shared (`virFileIsSharedFSType`), by the type that `findmnt` shows.
const SHARED: [&str; 13] = [
    "nfs",
    "nfs4",
    "gfs2",
    "ocfs2",
    "afs",
    "cifs",
    "smb3",
    "ceph",
    "gpfs",
    "fuse.quobyte",
    "acfs",
    "fuse.glusterfs",
    "beegfs",
];

/// What a guest does with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It writes: there must be one.
    Written,
    /// It reads what must be the same on both hosts: a layer below its image.
    Layer,
    /// It reads, and a copy will do: a disk that it may not write.
    ReadOnly,
}

/// Which host a finding is about.
#[derive(Clone, Copy)]
enum Where {
    Source,
    Target,
    Both,
}

type Problem = (FindingCode, Where, String, &'static str);

/// What speaks against a file.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) severity: Severity,
    pub(super) code: FindingCode,
    /// The host that it is about, if it is about one.
    pub(super) host: Option<HostId>,
    pub(super) message: String,
    pub(super) evidence: [String; 2],
    pub(super) remedy: &'static str,
}

/// The two hosts and the file that says where storages are.
#[derive(Clone, Copy)]
pub(super) struct Lies<'a> {
    pub(super) from: &'a HostFacts,
    pub(super) to: &'a HostFacts,
    pub(super) cluster: &'a Cluster,
}

impl Lies<'_> {
    /// The first thing that speaks against a file which both hosts were asked about.
    pub(super) fn fault(&self, path: &str, used: Use) -> Option<Fault> {
        let Self { from, to, .. } = self;
        let asked = from.places.files.get(path).zip(to.places.files.get(path));
        let Some((here, there)) = asked else {
            return Some(Fault {
                severity: Severity::Error,
                code: FindingCode::HostUnobserved,
                host: None,
                message: format!("{path} was not looked at"),
                evidence: [format!("host {}: not asked", from.host), format!("host {}: not asked", to.host)],
                remedy: "try again",
            });
        };
        let (severity, (code, host, message, remedy)) = match used {
            Use::ReadOnly => self.read_only(path, here, there)?,
            Use::Written | Use::Layer => (Severity::Error, self.shared(path, here, there, used)?),
        };
        let host = match host {
            Where::Source => Some(from.host.clone()),
            Where::Target => Some(to.host.clone()),
            Where::Both => None,
        };
        let evidence =
            [format!("host {}: {}", from.host, shown(here)), format!("host {}: {}", to.host, shown(there))];
        Some(Fault { severity, code, host, message, evidence, remedy })
    }

    /// Whether the file is where the cluster file says, on either host.
    fn misplaced(&self, path: &str) -> Option<Problem> {
        let sides = [(self.from, Where::Source), (self.to, Where::Target)];
        let (host, problem) = sides
            .into_iter()
            .find_map(|(facts, side)| Some((side, facts.places.misplaced(path, self.cluster)?)))?;
        Some(match problem {
            Misplaced::Unknown(reason) => {
                (FindingCode::ProbeTimedOut, host, reason, "look at the mount on that host: it may hang")
            }
            Misplaced::NotMounted(reason) => (FindingCode::NotMounted, host, reason, APPLY),
            Misplaced::Elsewhere(reason) => (FindingCode::WrongMount, host, reason, UNMOUNT),
        })
    }

    /// What speaks against `path` being one file on both hosts: evidence of now, never the file's word.
    fn shared(&self, path: &str, here: &FileFacts, there: &FileFacts, used: Use) -> Option<Problem> {
        let [_, away] = match same_mount(path, here, there) {
            Ok(mounts) => mounts,
            Err(problem) => return Some(problem),
        };
        if used == Use::Written && away.options.split(',').any(|option| option == "ro") {
            let message = format!("{} is mounted read-only", away.target);
            return Some((FindingCode::ReadOnlyMount, Where::Target, message, "mount it read-write"));
        }
        same_file(path, here, there).or_else(|| self.misplaced(path))
    }

    /// A disk that the guest only reads may be a copy, but it must be there.
    fn read_only(&self, path: &str, here: &FileFacts, there: &FileFacts) -> Option<(Severity, Problem)> {
        let (severity, code, message, remedy) = match &there.stat {
            Err(reason) => {
                let message = format!("{path} could not be looked at: {reason}");
                (Severity::Error, FindingCode::ProbeTimedOut, message, "look at that mount")
            }
            Ok(None) => {
                let message = format!("{path} is not on the destination");
                (Severity::Error, FindingCode::DeviceLocal, message, "eject it, or copy it there")
            }
            Ok(Some(_)) => {
                self.shared(path, here, there, Use::ReadOnly)?;
                let message = format!("{path} is not shared; the destination's file may differ");
                (Severity::Warning, FindingCode::DeviceLocal, message, "eject it, or compare them")
            }
        };
        Some((severity, (code, Where::Target, message, remedy)))
    }
}

const APPLY: &str = "run `stor apply`, then `stor verify`";
const SHARE: &str = "move it to shared storage";
const UNMOUNT: &str = "unmount what is there, then `stor apply`";

/// The mounts of a file on both hosts, when they lead to one shared storage.
fn same_mount<'f>(path: &str, here: &'f FileFacts, there: &'f FileFacts) -> Result<[&'f Mount; 2], Problem> {
    let timed_out = |host, reason: &String| {
        let message = format!("{path} could not be looked at: {reason}");
        (FindingCode::ProbeTimedOut, host, message, "look at the mount on that host: it may hang")
    };
    let home = match (&here.mount, &here.stat) {
        (Err(reason), _) | (_, Err(reason)) => return Err(timed_out(Where::Source, reason)),
        (Ok(Some(mount)), Ok(Some(_))) => mount,
        _ => {
            let message = format!("{path} is not there, although the guest uses it");
            return Err((FindingCode::ImageMissing, Where::Source, message, "look at the source's mount"));
        }
    };
    if !is_shared(home) {
        let message = format!("{path} is on {} ({}), which is not shared", home.source, home.kind);
        return Err((FindingCode::ImageNotShared, Where::Source, message, SHARE));
    }
    let away = match (&there.mount, &there.stat) {
        (Err(reason), _) | (_, Err(reason)) => return Err(timed_out(Where::Target, reason)),
        (Ok(mount), Ok(_)) => mount.as_ref(),
    };
    let Some(away) = away.filter(|away| is_shared(away)) else {
        let message = format!("{} is not mounted on {}", home.source, home.target);
        return Err((FindingCode::NotMounted, Where::Target, message, APPLY));
    };
    if away.kind != home.kind || !same_export(home, away) {
        let message = format!("{path} lies on different storage on the two hosts");
        return Err((FindingCode::ImageNotShared, Where::Both, message, APPLY));
    }
    Ok([home, away])
}

/// What speaks against one inode on the same export.
fn same_file(path: &str, here: &FileFacts, there: &FileFacts) -> Option<Problem> {
    let (Ok(Some(home)), Ok(Some(away))) = (&here.stat, &there.stat) else {
        return Some((FindingCode::ImageMissing, Where::Target, format!("{path} is not there"), APPLY));
    };
    if away.inode != home.inode {
        let message = format!("{path} is another file on the destination");
        return Some((
            FindingCode::ImageNotShared,
            Where::Both,
            message,
            "find out which of the two is the image",
        ));
    }
    (path.ends_with(".img") && away.size != home.size).then(|| {
        let message = format!("{path} has another size on the destination");
        (FindingCode::ImageSizeDiffers, Where::Both, message, "look for a stale cache or a split brain")
    })
}

fn is_shared(mount: &Mount) -> bool {
    SHARED.contains(&mount.kind.as_str())
}

/// Whether two mounts lead to the same export. A GlusterFS volume may be mounted from any of its servers: the volume's
/// name and, later, the inode (made of the gfid) tell. Of others the whole source must be equal.
fn same_export(a: &Mount, b: &Mount) -> bool {
    let volume = |mount: &Mount| {
        let (_, volume) = mount.source.rsplit_once(':')?;
        Some(volume.trim_matches('/').to_owned())
    };
    let plain = |mount: &Mount| mount.source.trim_end_matches('/').to_owned();
    match a.kind.as_str() {
        "fuse.glusterfs" => volume(a).is_some() && volume(a) == volume(b),
        _ => plain(a) == plain(b),
    }
}

fn shown(file: &FileFacts) -> String {
    let mount = match &file.mount {
        Ok(Some(mount)) => format!("{} ({}) on {}", mount.source, mount.kind, mount.target),
        Ok(None) => "no such directory".to_owned(),
        Err(reason) => reason.clone(),
    };
    match &file.stat {
        Ok(Some(stat)) => format!("{mount}, inode {}, {} bytes", stat.inode, stat.size),
        Ok(None) => format!("{mount}, no such file"),
        Err(reason) => format!("{mount}, {reason}"),
    }
}
