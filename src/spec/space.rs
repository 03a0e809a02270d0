//! Who uses which directory: two claims on one place, or one inside the other, would overwrite each other's data.
//!
//! Imports `model`, `input` and `problem`. Backends claim places while they resolve; [`Space::check`] compares them at the end.

use std::collections::BTreeMap;
use std::fmt;

use super::input::Place;
use super::problem::{Problem, Problems};
use crate::model::{AbsPath, HostId};

/// Directories that belong to the system: neither storage nor a mount may take them over.
const SYSTEM: [&str; 24] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/var/lib",
    "/var/lib/glusterd",
    "/var/lib/libvirt",
    "/var/lib/stor",
];
/// Trees in which nothing of stor's may lie.
const SYSTEM_TREES: [&str; 9] =
    ["/boot", "/dev", "/etc", "/proc", "/run", "/sys", "/usr", "/var/lib/glusterd", "/var/lib/stor"];
/// Longest path of a claim in bytes: a mount unit is named after its path, and a file name has at most 255 bytes.
const LONGEST: usize = 200;

/// One claim on a directory.
#[derive(Debug, Clone)]
struct Claim {
    place: Place,
    owner: String,
    what: &'static str,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.what, self.owner)
    }
}

/// All claims of a cluster file.
#[derive(Debug, Default)]
pub struct Space {
    served: BTreeMap<HostId, BTreeMap<String, Claim>>,
    mounts: BTreeMap<String, Claim>,
}

impl Space {
    /// Claims a directory of a host for the `what` (a brick, an export) of `owner` (`storage gfs`).
    pub fn serve(
        &mut self,
        (host, path): (&HostId, &AbsPath),
        place: Place,
        owner: String,
        what: &'static str,
        problems: &mut Problems,
    ) {
        let claim = Claim { place, owner, what };
        if allowed(path, &claim, problems) {
            let on_host = self.served.entry(host.clone()).or_default();
            insert(on_host, path, claim, &format!("host {host}: "), problems);
        }
    }

    /// Claims a directory on every hypervisor, to mount storage on.
    pub fn mount(&mut self, path: &AbsPath, place: Place, owner: String, problems: &mut Problems) {
        let claim = Claim { place, owner, what: "mount" };
        if allowed(path, &claim, problems) {
            insert(&mut self.mounts, path, claim, "", problems);
        }
    }

    /// Reports claims that lie inside one another.
    pub fn check(&self, is_hypervisor: impl Fn(&HostId) -> bool, problems: &mut Problems) {
        let mut on_hypervisors = BTreeMap::new();
        for (host, served) in &self.served {
            let prefix = format!("host {host}: ");
            for (path, claim) in served {
                if let Some((outer, other)) = above(path).find_map(|outer| served.get_key_value(outer)) {
                    nested(&prefix, (path, claim), (outer, other), problems);
                }
                if is_hypervisor(host) {
                    on_hypervisors.insert(path.as_str(), claim.clone());
                    let mounted = std::iter::once(path.as_str()).chain(above(path));
                    if let Some((outer, other)) =
                        mounted.into_iter().find_map(|at| self.mounts.get_key_value(at))
                    {
                        nested(&prefix, (path, claim), (outer, other), problems);
                    }
                }
            }
        }
        for (path, claim) in &self.mounts {
            if let Some((outer, other)) = above(path).find_map(|outer| self.mounts.get_key_value(outer)) {
                nested("", (path, claim), (outer, other), problems);
            }
            if let Some((outer, other)) = above(path).find_map(|outer| on_hypervisors.get_key_value(outer)) {
                nested("", (path, claim), (outer, other), problems);
            }
        }
    }
}

/// The directories above a path, nearest first, without `/`.
fn above(path: &str) -> impl Iterator<Item = &str> {
    path.rmatch_indices('/').map(|(at, _)| &path[..at]).filter(|outer| !outer.is_empty())
}

fn allowed(path: &AbsPath, claim: &Claim, problems: &mut Problems) -> bool {
    let text = path.as_str();
    let system = SYSTEM.contains(&text) || above(text).any(|outer| SYSTEM_TREES.contains(&outer));
    if system {
        problems.add(|| {
            Problem::new(claim.place, format!("{}: {} {path} belongs to the system", claim.owner, claim.what))
                .hint("choose a directory of its own, like /srv/NAME or /data/NAME")
        });
    }
    if text.len() > LONGEST {
        problems.add(|| {
            let (owner, what, len) = (&claim.owner, claim.what, text.len());
            Problem::new(
                claim.place,
                format!("{owner}: {what} path is {len} bytes long, at most {LONGEST} are allowed"),
            )
        });
    }
    !system && text.len() <= LONGEST
}

fn insert(
    claims: &mut BTreeMap<String, Claim>,
    path: &AbsPath,
    claim: Claim,
    prefix: &str,
    problems: &mut Problems,
) {
    match claims.get(path.as_str()) {
        None => {
            claims.insert(path.as_str().to_owned(), claim);
        }
        Some(first) => problems.add(|| {
            let message = format!("{prefix}{path} is used twice: {first}, {claim}");
            Problem::new(claim.place, message)
                .and(first.place, "first used here")
                .hint("give each a directory of its own")
        }),
    }
}

fn nested(
    prefix: &str,
    inner: (&String, &Claim),
    outer: (&(impl AsRef<str> + ?Sized), &Claim),
    problems: &mut Problems,
) {
    let ((path, claim), (over, other)) = (inner, (outer.0.as_ref(), outer.1));
    problems.add(|| {
        let how = if path == over { "is also" } else { "lies inside" };
        let message = format!("{prefix}{path} ({claim}) {how} {over} ({other})");
        Problem::new(claim.place, message).and(other.place, over).hint("give each a directory of its own")
    });
}
