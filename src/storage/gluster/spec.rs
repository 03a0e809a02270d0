//! What the cluster file says about one GlusterFS volume: the YAML shape and its own rules.
//!
//! Imports only `model` and the building blocks of `spec`.

use std::collections::BTreeMap;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::{AbsPath, HostId, StorageId};
use crate::spec::input::{At, Entries, Scalar, Text};
use crate::spec::problem::Problem;
use crate::spec::scalar::{Address, ScalarError};
use crate::spec::{Declared, number};
use crate::storage::spec::{Access, resolve_mount};

/// A replicated GlusterFS volume, named like its storage entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlusterSpec {
    /// Copies of each file: 2 or 3.
    pub replica: u32,
    /// Whether the last brick of three holds metadata only.
    pub arbiter: Arbiter,
    /// Bricks in order; a multiple of `replica`.
    pub bricks: Vec<Brick>,
    /// How hypervisors reach it.
    pub access: Access,
    /// Where hypervisors mount it; default `/var/lib/libvirt/images/NAME`.
    pub mount: AbsPath,
    /// Further addresses that may use the volume besides hypervisors and bricks (e.g. the machine that runs stor).
    pub allow: Vec<String>,
    /// Whether `gluster volume create` gets `force` (bricks on the root file system or on a mount point itself).
    pub force: Force,
    /// Volume options besides those of the `virt` group, which win over it.
    pub options: BTreeMap<String, String>,
}

/// One brick.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Brick {
    /// Its host.
    pub host: HostId,
    /// Its directory there.
    pub path: AbsPath,
}

/// Whether the third brick is an arbiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arbiter {
    /// All bricks hold data.
    No,
    /// The last brick of each replica set holds metadata only.
    Yes,
}

/// Whether `force` is passed to `gluster volume create`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It is not.
    No,
    /// The file says so.
    Yes,
}

/// A replicated GlusterFS volume, named like its storage entry.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Gluster")]
pub struct RawGluster {
    /// Copies of each file: `2` or `3`. Two copies cannot outvote each other: stor warns.
    #[schemars(range(min = 2, max = 3), extend("default" = 3))]
    pub replica: Option<At<u32>>,
    /// Whether the last brick of each three holds metadata only. Needs `replica: 3`.
    #[schemars(extend("default" = false))]
    pub arbiter: Option<At<bool>>,
    /// The bricks, each `HOST:/PATH`, in order; their number is a multiple of `replica`. Each run of `replica` bricks holds
    /// the same files, so they lie on different hosts.
    #[schemars(length(min = 2))]
    pub bricks: At<Vec<Text<BrickWord>>>,
    /// How hypervisors reach the volume: `mount` (FUSE, with a libvirt pool on it) or `direct` (QEMU's libgfapi, nothing
    /// mounted; deprecated by QEMU since 9.2).
    #[schemars(extend("default" = "mount"))]
    pub access: Option<Access>,
    /// Where hypervisors mount it. Only with `access: mount`.
    #[schemars(extend("x-default" = "/var/lib/libvirt/images/NAME"))]
    pub mount: Option<Text<AbsPath>>,
    /// Further addresses that may use the volume, besides the hypervisors and the bricks' hosts.
    #[schemars(extend("default" = []))]
    pub allow: Option<Vec<Text<Address>>>,
    /// Whether `gluster volume create` gets `force`: bricks on the root file system, or on a mount point itself.
    #[schemars(extend("default" = false))]
    pub force: Option<bool>,
    /// Volume options; they win over those of gluster's `virt` group, which stor sets.
    #[schemars(extend("default" = {}))]
    pub options: Option<Entries<OptionName, Text<OptionValue>>>,
}

/// A brick as it is written: `HOST:/PATH`.
#[derive(Debug, Clone)]
pub struct BrickWord(Brick);

impl Scalar for BrickWord {
    const KIND: &'static str = "brick";
    const PATTERN: &'static str = "^[a-z0-9][a-z0-9-]{0,62}:/[A-Za-z0-9/._+@=-]*$";
}
impl FromStr for BrickWord {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let Some((host, path)) = text.split_once(':') else {
            return Err(ScalarError::Form {
                text: text.to_owned(),
                expected: "a brick like store1:/data/bricks/gfs",
            });
        };
        Ok(Self(Brick { host: HostId::new(host)?, path: AbsPath::new(path)? }))
    }
}

/// The name of a volume option; always with a dot: gluster itself would expand a short one, and show the long one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OptionName(String);

impl Scalar for OptionName {
    const KIND: &'static str = "option name";
    const PATTERN: &'static str = r"^[a-z0-9][a-z0-9-]*(\.[a-z0-9-]+)+$";
}
impl FromStr for OptionName {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if !text.contains('.') || text.starts_with('-') || text.len() > 128 || !text.split('.').all(part) {
            return Err(ScalarError::Form {
                text: text.to_owned(),
                expected: "the full name of a volume option like network.ping-timeout",
            });
        }
        if ["auth.allow", "auth.reject"].contains(&text) || text.starts_with("user.stor.") {
            return Err(ScalarError::Reserved { text: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

/// The value of a volume option: one line of printable ASCII that gluster cannot take for a flag of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionValue(String);

impl Scalar for OptionValue {
    const KIND: &'static str = "text or number";
    const PATTERN: &'static str = "^(?!--)[!-~]([ -~]{0,1022}[!-~])?$";
    const JSON_TYPES: &'static [&'static str] = &["string", "number", "boolean"];
}
impl FromStr for OptionValue {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let printable = text.bytes().all(|b| (b' '..=b'~').contains(&b));
        if text.is_empty() || text.trim() != text || text.len() > 1024 || text.starts_with("--") || !printable
        {
            return Err(ScalarError::Form {
                text: text.to_owned(),
                expected: "one line of printable ASCII without '--' or blanks at its ends",
            });
        }
        Ok(Self(text.to_owned()))
    }
}

impl RawGluster {
    /// Checks the volume's own rules and claims its places.
    pub fn resolve(self, id: &StorageId, declared: &mut Declared<'_>) -> Option<GlusterSpec> {
        let replica =
            number(self.replica, 3, 2..=3, format_args!("storage {id}: replica"), declared.problems);
        let arbiter = if self.arbiter.is_some_and(|at| at.value) { Arbiter::Yes } else { Arbiter::No };
        if let (Arbiter::Yes, Some(at)) = (arbiter, self.arbiter)
            && replica != 3
        {
            declared.problems.add(|| {
                Problem::new(
                    at.place,
                    format!("storage {id}: an arbiter needs replica 3, here it is {replica}"),
                )
                .hint("write replica: 3; the arbiter is the third brick")
            });
        }
        let bricks = self.resolve_bricks(id, replica, declared);
        let access = self.access.unwrap_or(Access::Mount);
        let mount = resolve_mount(self.mount.as_ref(), id, access, declared);
        let allow = self.allow.iter().flatten();
        let allow: Vec<Option<Address>> =
            allow.map(|word| word.parse(format_args!("storage {id}: allow"), declared.problems)).collect();
        let options = self.options.map(|entries| resolve_options(id, entries, declared)).unwrap_or_default();
        Some(GlusterSpec {
            replica,
            arbiter,
            bricks: bricks?,
            access,
            mount: mount?,
            allow: allow.into_iter().flatten().map(|address| address.to_string()).collect(),
            force: if self.force == Some(true) { Force::Yes } else { Force::No },
            options,
        })
    }

    fn resolve_bricks(
        &self,
        id: &StorageId,
        replica: u32,
        declared: &mut Declared<'_>,
    ) -> Option<Vec<Brick>> {
        let words = &self.bricks.value;
        let subject = format!("storage {id}: bricks");
        let bricks: Vec<_> = words.iter().map(|word| word.parse_at(&subject, declared.problems)).collect();
        if words.is_empty() || !words.len().is_multiple_of(replica as usize) {
            let (place, count) = (words.last().map_or(self.bricks.place, |last| last.place), words.len());
            declared.problems.add(|| {
                Problem::new(
                    place,
                    format!("storage {id}: {count} bricks are no multiple of replica {replica}"),
                )
                .hint(format!("list {replica} bricks, or a multiple of {replica}"))
            });
        }
        for brick in bricks.iter().flatten() {
            if declared.host(&brick.value.0.host, brick.place, &subject).is_none() {
                continue;
            }
            let Brick { host, path } = &brick.value.0;
            declared.space.serve(
                (host, path),
                brick.place,
                format!("storage {id}"),
                "brick",
                declared.problems,
            );
        }
        for set in bricks.chunks(replica as usize) {
            one_host_each(id, set, declared);
        }
        bricks.into_iter().map(|brick| brick.map(|at| at.value.0)).collect()
    }
}

/// Refuses two copies of the same files on one host: they fail together.
fn one_host_each(id: &StorageId, set: &[Option<At<BrickWord>>], declared: &mut Declared<'_>) {
    let mut seen = BTreeMap::new();
    for brick in set.iter().flatten() {
        let host = &brick.value.0.host;
        if let Some(first) = seen.insert(host, brick.place) {
            declared.problems.add(|| {
                Problem::new(
                    brick.place,
                    format!("storage {id}: two copies of the same files lie on host {host}"),
                )
                .and(first, "the first")
                .hint("order the bricks so that each replica set has one brick per host")
            });
        }
    }
}

fn resolve_options(
    id: &StorageId,
    entries: Entries<OptionName, Text<OptionValue>>,
    declared: &mut Declared<'_>,
) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    for (name, value) in entries.entries {
        let known = name.parse(format_args!("storage {id}: options"), declared.problems);
        let value = value.parse(format_args!("storage {id}: option {}", name.text), declared.problems);
        if let (Some(OptionName(name)), Some(OptionValue(value))) = (known, value) {
            options.insert(name, value);
        }
    }
    options
}
