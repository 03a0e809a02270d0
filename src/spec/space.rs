//! Who uses which directory and target: two claims on one place, or one inside the other, would overwrite each other's data.
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

/// All claims of a cluster file, by `HOST:/PATH`; a mount is on every hypervisor and has no host.
#[derive(Debug, Default)]
pub struct Space {
    served: BTreeMap<String, (HostId, Claim)>,
    mounts: BTreeMap<String, Claim>,
    targets: BTreeMap<String, Claim>,
    users: BTreeMap<String, Claim>,
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
        if !allowed(path, &claim, problems) {
            return;
        }
        self.claim((host, path), claim, "directory", problems);
    }

    /// Claims a block device of a host for a LUN, which is `owner`.
    pub fn device(&mut self, on: (&HostId, &AbsPath), place: Place, owner: String, problems: &mut Problems) {
        self.claim(on, Claim { place, owner, what: "device" }, "device", problems);
    }

    fn claim(
        &mut self,
        (host, path): (&HostId, &AbsPath),
        claim: Claim,
        kind: &str,
        problems: &mut Problems,
    ) {
        let key = format!("{host}:{path}");
        match self.served.get(&key) {
            Some((_, first)) => twice(&format!("host {host}: {path}"), first, &claim, kind, problems),
            None => drop(self.served.insert(key, (host.clone(), claim))),
        }
    }

    /// Claims the name of an iSCSI target, which is unique in the world.
    pub fn target(&mut self, iqn: &str, place: Place, owner: String, problems: &mut Problems) {
        let claim = Claim { place, owner, what: "target" };
        match self.targets.get(iqn) {
            Some(first) => twice(iqn, first, &claim, "name", problems),
            None => drop(self.targets.insert(iqn.to_owned(), claim)),
        }
    }

    /// Claims a CHAP user of a host, whose server keeps one secret for each.
    pub fn chap_user(
        &mut self,
        (host, user): (&HostId, &dyn fmt::Display),
        place: Place,
        owner: String,
        problems: &mut Problems,
    ) {
        let claim = Claim { place, owner, what: "CHAP user" };
        match self.users.get(&format!("{host}:{user}")) {
            Some(first) => twice(&format!("host {host}: {user}"), first, &claim, "name", problems),
            None => drop(self.users.insert(format!("{host}:{user}"), claim)),
        }
    }

    /// Claims a directory on every hypervisor, to mount storage on.
    pub fn mount(&mut self, path: &AbsPath, place: Place, owner: String, problems: &mut Problems) {
        let claim = Claim { place, owner, what: "mount" };
        if !allowed(path, &claim, problems) {
            return;
        }
        let key = format!(":{path}");
        match self.mounts.get(&key) {
            Some(first) => twice(path.as_str(), first, &claim, "directory", problems),
            None => drop(self.mounts.insert(key, claim)),
        }
    }

    /// Reports claims that lie inside one another.
    pub fn check(&self, is_hypervisor: impl Fn(&HostId) -> bool, problems: &mut Problems) {
        let mut on_hypervisors = BTreeMap::new();
        for (key, (host, claim)) in &self.served {
            let prefix = format!("host {host}: ");
            if let Some((outer, (_, other))) = above(key).find_map(|outer| self.served.get_key_value(outer)) {
                nested(&prefix, (key, claim), (outer, other), problems);
            }
            if is_hypervisor(host) {
                let on_any = &key[host.as_str().len()..];
                on_hypervisors.insert(on_any, claim);
                let at_or_above = std::iter::once(on_any).chain(above(on_any));
                if let Some((outer, other)) =
                    at_or_above.into_iter().find_map(|at| self.mounts.get_key_value(at))
                {
                    nested(&prefix, (key, claim), (outer, other), problems);
                }
            }
        }
        for (key, claim) in &self.mounts {
            if let Some((outer, other)) = above(key).find_map(|outer| self.mounts.get_key_value(outer)) {
                nested("", (key, claim), (outer, other), problems);
            }
            if let Some((outer, other)) = above(key).find_map(|outer| on_hypervisors.get_key_value(outer)) {
                nested("", (key, claim), (outer, other), problems);
            }
        }
    }
}

/// The directories above the one of a key, or of a path, nearest first, without `/`.
fn above(key: &str) -> impl Iterator<Item = &str> {
    key.rmatch_indices('/')
        .map(|(at, _)| &key[..at])
        .filter(|outer| !outer.is_empty() && !outer.ends_with(':'))
}

/// The path of a key.
fn path_of(key: &str) -> &str {
    key.split_once(':').map_or(key, |(_, path)| path)
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

fn twice(what: &str, first: &Claim, second: &Claim, kind: &str, problems: &mut Problems) {
    problems.add(|| {
        Problem::new(second.place, format!("{what} is used twice: {first}, {second}"))
            .and(first.place, "first used here")
            .hint(format!("give each a {kind} of its own"))
    });
}

fn nested(prefix: &str, inner: (&str, &Claim), outer: (&str, &Claim), problems: &mut Problems) {
    let ((path, claim), (over, other)) = ((path_of(inner.0), inner.1), (path_of(outer.0), outer.1));
    problems.add(|| {
        let how = if path == over { "is also" } else { "lies inside" };
        let message = format!("{prefix}{path} ({claim}) {how} {over} ({other})");
        Problem::new(claim.place, message).and(other.place, over).hint("give each a directory of its own")
    });
}
