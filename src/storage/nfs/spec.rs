//! What the cluster file says about one NFS export: the YAML shape and its own rules.
//!
//! Imports only `model`, the building blocks of `spec` and the shared part of the storage entries.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::{AbsPath, HostId, StorageId};
use crate::spec::input::{At, Place, Scalar, Text};
use crate::spec::problem::Problem;
use crate::spec::scalar::{Address, ScalarError};
use crate::spec::{Declared, number};
use crate::storage::spec::{Access, resolve_mount};

/// Where guests' images begin to fail: an I/O error instead of waiting for the server, or a lock that nobody else sees.
const REFUSED_OPTIONS: [(&str, &str); 12] = [
    ("soft", "a guest would see I/O errors, and lose writes, whenever the server is away for a moment"),
    ("softerr", "a guest would see I/O errors, and lose writes, whenever the server is away for a moment"),
    ("softreval", "a stale answer could lead to another file"),
    ("ro", "guests write to their images"),
    ("nolock", "two hosts could then lock the same image"),
    ("local_lock", "two hosts could then lock the same image"),
    ("vers", "stor sets it from version:"),
    ("nfsvers", "stor sets it from version:"),
    ("minorversion", "stor sets it from version:"),
    ("nconnect", "stor sets it from nconnect:"),
    ("hard", "stor sets it always"),
    ("_netdev", "stor sets it always"),
];

/// A directory of one host, exported to the hypervisors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsSpec {
    /// The host that has it.
    pub server: HostId,
    /// The directory there.
    pub path: AbsPath,
    /// Which server exports it.
    pub provider: Provider,
    /// The versions of the protocol that it is exported with.
    pub protocols: Protocols,
    /// Whose rights clients have.
    pub squash: Squash,
    /// How hypervisors mount it; `None`: QEMU's own client (libnfs) reaches it.
    pub mount: Option<MountSpec>,
    /// Further addresses that may use the export besides the hypervisors (e.g. the machine that runs stor).
    pub allow: Vec<String>,
}

/// How hypervisors mount an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    /// Where; default `/var/lib/libvirt/images/NAME`.
    pub path: AbsPath,
    /// What mounts it.
    pub by: MountedBy,
    /// The version of the protocol.
    pub version: Version,
    /// TCP connections to the server; `None`: the kernel's default of one.
    pub nconnect: Option<u32>,
    /// Further mount options, in the order of the file.
    pub options: Vec<String>,
}

/// Which server exports a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Provider {
    /// The one that exports it already; else the kernel's where the kernel has one, else nfs-ganesha.
    Auto,
    /// The kernel's (nfsd).
    Kernel,
    /// nfs-ganesha.
    Ganesha,
}

/// What mounts an export on a hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum MountedBy {
    /// A systemd unit, ordered before libvirt, with a directory pool on it.
    Systemd,
    /// libvirt, with a pool of the type `netfs`.
    Libvirt,
}

/// Versions of the protocol that an export is offered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocols {
    /// NFSv3 (RFC 1813).
    pub v3: bool,
    /// NFSv4 (RFC 7530, RFC 8881, RFC 7862).
    pub v4: bool,
}

/// The version of the protocol that hypervisors mount with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// NFSv3.
    V3,
    /// NFSv4.0.
    V40,
    /// NFSv4.1.
    V41,
    /// NFSv4.2.
    V42,
}

impl Version {
    /// As the mount option `vers=` has it (nfs(5)).
    #[must_use]
    pub fn option(self) -> &'static str {
        match self {
            Self::V3 => "3",
            Self::V40 => "4.0",
            Self::V41 => "4.1",
            Self::V42 => "4.2",
        }
    }

    /// What the kernel's mount table calls a mount of this version.
    #[must_use]
    pub fn kernel_type(self) -> &'static str {
        if self == Self::V3 { "nfs" } else { "nfs4" }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.option())
    }
}

/// Whose rights clients have on the server (exports(5), "User ID Mapping").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Squash {
    /// Their own: root on a hypervisor is root here.
    None,
    /// Root has this user's.
    Root(Anonymous),
    /// Everybody has this user's.
    All(Anonymous),
}

impl Squash {
    /// The user that root on a hypervisor becomes, if it does.
    #[must_use]
    pub fn anonymous(self) -> Option<Anonymous> {
        match self {
            Self::None => None,
            Self::Root(anonymous) | Self::All(anonymous) => Some(anonymous),
        }
    }

    /// The user (uid, gid) as whom QEMU's own client calls: the anonymous one, or root where nobody is made anonymous.
    #[must_use]
    pub fn caller(self) -> (u32, u32) {
        self.anonymous().map_or((0, 0), |user| (user.uid, user.gid))
    }
}

/// A user by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anonymous {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The word for a squash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum SquashWord {
    /// Nobody.
    None,
    /// Root.
    Root,
    /// Everybody.
    All,
}

/// A directory of one host, exported to the hypervisors by NFS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Nfs")]
pub struct RawNfs {
    /// The host that exports it.
    pub server: Text<HostId>,
    /// The directory on that host. stor makes it when it is missing, and never removes what is in it.
    pub path: Text<AbsPath>,
    /// How hypervisors reach it: `mount` (the kernel's client, with a libvirt pool on it) or `direct` (QEMU's libnfs, nothing
    /// mounted; NFSv3, without locks).
    #[schemars(extend("default" = "mount"))]
    pub access: Option<Access>,
    /// Which server exports it: the `kernel`'s, nfs-`ganesha`, or `auto`: the kernel's where the host's kernel has one.
    #[schemars(extend("default" = "auto"))]
    pub provider: Option<Provider>,
    /// The versions of the protocol that it is exported with: `3`, `4`.
    #[schemars(extend("default" = [3, 4]))]
    pub protocols: Option<At<Vec<At<u32>>>>,
    /// The version that hypervisors mount with: `3`, `4.0`, `4.1` or `4.2`. Only with `access: mount`.
    #[schemars(extend("x-default" = "`4.2`, or `3` without protocol 4"))]
    pub version: Option<Text<Version>>,
    /// Whose rights are taken away: `none`, `root` or `all`. libvirt gives images to QEMU's user, which takes root's rights on
    /// the server; with `root` and `all` the images belong to `anonuid` and `anongid`.
    #[schemars(extend("default" = "none"))]
    pub squash: Option<At<SquashWord>>,
    /// The user that clients get with `squash: root` or `all`: the number of QEMU's user, the same on every hypervisor.
    pub anonuid: Option<At<u32>>,
    /// Likewise the group.
    pub anongid: Option<At<u32>>,
    /// What mounts it: a `systemd` unit with a directory pool on it, or `libvirt` with a pool of type `netfs`. Only with
    /// `access: mount`.
    #[schemars(extend("default" = "systemd"))]
    pub mounted_by: Option<At<MountedBy>>,
    /// Where hypervisors mount it. Only with `access: mount`.
    #[schemars(extend("x-default" = "/var/lib/libvirt/images/NAME"))]
    pub mount: Option<Text<AbsPath>>,
    /// TCP connections of one hypervisor to the server. Only with `access: mount`.
    #[schemars(range(min = 1, max = 16), extend("x-default" = "the kernel's: one"))]
    pub nconnect: Option<At<u32>>,
    /// Further mount options. `hard` and `_netdev` are always set; what would lose writes is refused. Only with
    /// `access: mount`.
    #[schemars(extend("default" = []))]
    pub mount_options: Option<At<Vec<Text<MountOption>>>>,
    /// Further addresses that may use the export besides the hypervisors, e.g. that of the machine that runs stor.
    #[schemars(extend("default" = []))]
    pub allow: Option<Vec<Text<Address>>>,
}

impl Scalar for Version {
    const KIND: &'static str = "NFS version";
    const PATTERN: &'static str = r"^(3|4\.[012])$";
    const JSON_TYPES: &'static [&'static str] = &["string", "number"];
}
impl FromStr for Version {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let all = [Self::V3, Self::V40, Self::V41, Self::V42];
        all.into_iter().find(|version| version.option() == text).ok_or_else(|| ScalarError::Form {
            text: text.to_owned(),
            expected: "an NFS version: 3, 4.0, 4.1 or 4.2",
        })
    }
}

/// One mount option: `rsize=1048576`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOption(String);

impl Scalar for MountOption {
    const KIND: &'static str = "mount option";
    const PATTERN: &'static str = "^[a-z][a-z0-9_]*(=[A-Za-z0-9.:/_-]+)?$";
}
impl FromStr for MountOption {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let (name, value) = text.split_once('=').unwrap_or((text, "x"));
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let fine = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(word)
            && !value.is_empty()
            && value.len() <= 64
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || b".:/_-".contains(&b));
        if fine {
            return Ok(Self(text.to_owned()));
        }
        Err(ScalarError::Form { text: text.to_owned(), expected: "one mount option like rsize=1048576" })
    }
}

impl RawNfs {
    /// Checks the export's own rules and claims its places.
    pub fn resolve(self, id: &StorageId, declared: &mut Declared<'_>) -> Option<NfsSpec> {
        let subject = format!("storage {id}: server");
        let server = self
            .server
            .parse_at(&subject, declared.problems)
            .filter(|server| declared.host(&server.value, server.place, format!("storage {id}")).is_some());
        let path = self.path.parse(format_args!("storage {id}: path"), declared.problems);
        if let (Some(server), Some(path)) = (&server, &path) {
            declared.space.serve(
                (&server.value, path),
                self.path.place,
                format!("storage {id}"),
                "export",
                declared.problems,
            );
        }
        let access = self.access.unwrap_or(Access::Mount);
        let protocols = self.resolve_protocols(id, declared);
        if let (Access::Direct, false, Some(at)) = (access, protocols.v3, &self.protocols) {
            problem(
                declared,
                at.place,
                format!("storage {id}: access: direct needs protocol 3"),
                "QEMU's libnfs speaks NFSv3: write protocols: [3, 4], or access: mount",
            );
        }
        let squash = self.resolve_squash(id, declared);
        let mount = self.resolve_mount(id, access, protocols, declared);
        let allow = self.allow.iter().flatten();
        let allow: Vec<Option<Address>> =
            allow.map(|word| word.parse(format_args!("storage {id}: allow"), declared.problems)).collect();
        Some(NfsSpec {
            server: server?.value,
            path: path?,
            provider: self.provider.unwrap_or(Provider::Auto),
            protocols,
            squash: squash?,
            mount: mount?,
            allow: allow.into_iter().flatten().map(|address| address.to_string()).collect(),
        })
    }

    fn resolve_protocols(&self, id: &StorageId, declared: &mut Declared<'_>) -> Protocols {
        let Some(list) = &self.protocols else { return Protocols { v3: true, v4: true } };
        for at in list.value.iter().filter(|at| !matches!(at.value, 3 | 4)) {
            let message = format!("storage {id}: protocol {} is none of 3 and 4", at.value);
            problem(
                declared,
                at.place,
                message,
                "write [3, 4], [3] or [4]; version: says which one is mounted",
            );
        }
        if list.value.is_empty() {
            let message = format!("storage {id}: an export without a protocol cannot be used");
            problem(declared, list.place, message, "write [3, 4], [3] or [4]");
        }
        let has = |version: u32| list.value.iter().any(|at| at.value == version);
        Protocols { v3: has(3), v4: has(4) }
    }

    fn resolve_squash(&self, id: &StorageId, declared: &mut Declared<'_>) -> Option<Squash> {
        let word = self.squash.map_or(SquashWord::None, |at| at.value);
        let ids = [("anonuid", self.anonuid), ("anongid", self.anongid)];
        if word == SquashWord::None {
            for (key, at) in ids {
                if let Some(at) = at {
                    let message = format!("storage {id}: {key} has no meaning without squash: root or all");
                    problem(declared, at.place, message, "remove the key");
                }
            }
            return Some(Squash::None);
        }
        for (key, at) in ids {
            if at.is_none() {
                let place = self.squash.map_or(declared.place, |at| at.place);
                let message = format!("storage {id}: key {key:?} is missing beside squash");
                let hint = "QEMU's user has to own the images: write its number, as `id libvirt-qemu` (Debian) or `id qemu` \
                            (Red Hat, SUSE) shows it on the hypervisors";
                problem(declared, place, message, hint);
            }
        }
        let anonymous = Anonymous { uid: self.anonuid?.value, gid: self.anongid?.value };
        Some(if word == SquashWord::Root { Squash::Root(anonymous) } else { Squash::All(anonymous) })
    }

    /// `None` when something is wrong.
    fn resolve_mount(
        &self,
        id: &StorageId,
        access: Access,
        protocols: Protocols,
        declared: &mut Declared<'_>,
    ) -> Option<Option<MountSpec>> {
        let path = resolve_mount(self.mount.as_ref(), id, access, declared);
        if access == Access::Direct {
            for (key, place) in self.mount_keys() {
                let message = format!("storage {id}: {key}: nothing is mounted with access: direct");
                problem(declared, place, message, "remove the key, or write access: mount");
            }
            return Some(None);
        }
        let version = self.resolve_version(id, protocols, declared);
        let nconnect = self
            .nconnect
            .map(|at| number(Some(at), 1, 1..=16, format_args!("storage {id}: nconnect"), declared.problems));
        let options = self.resolve_options(id, declared);
        let by = self.mounted_by.map_or(MountedBy::Systemd, |at| at.value);
        Some(Some(MountSpec { path: path?, by, version: version?, nconnect, options }))
    }

    fn mount_keys(&self) -> impl Iterator<Item = (&'static str, Place)> {
        let keys = [
            ("version", self.version.as_ref().map(|word| word.place)),
            ("mounted_by", self.mounted_by.map(|at| at.place)),
            ("nconnect", self.nconnect.map(|at| at.place)),
            ("mount_options", self.mount_options.as_ref().map(|at| at.place)),
        ];
        keys.into_iter().filter_map(|(key, place)| Some((key, place?)))
    }

    fn resolve_version(
        &self,
        id: &StorageId,
        protocols: Protocols,
        declared: &mut Declared<'_>,
    ) -> Option<Version> {
        let Some(word) = &self.version else {
            return Some(if protocols.v4 { Version::V42 } else { Version::V3 });
        };
        let version = word.parse(format_args!("storage {id}: version"), declared.problems)?;
        let offered = if version == Version::V3 { protocols.v3 } else { protocols.v4 };
        if !offered {
            let message = format!("storage {id}: version {version} is not among its protocols");
            problem(declared, word.place, message, "add it to protocols:, or mount with another version");
        }
        Some(version)
    }

    fn resolve_options(&self, id: &StorageId, declared: &mut Declared<'_>) -> Vec<String> {
        let mut options = Vec::new();
        for word in self.mount_options.iter().flat_map(|at| &at.value) {
            let subject = format!("storage {id}: mount_options");
            let Some(MountOption(option)) = word.parse(subject, declared.problems) else { continue };
            let name = option.split('=').next().unwrap_or_default();
            if let Some((_, why)) = REFUSED_OPTIONS.iter().find(|(refused, _)| *refused == name) {
                let message = format!("storage {id}: mount option {name} is refused: {why}");
                problem(declared, word.place, message, "remove it");
            }
            options.push(option);
        }
        options
    }
}

fn problem(declared: &mut Declared<'_>, place: Place, message: String, hint: &str) {
    declared.problems.add(|| Problem::new(place, message).hint(hint));
}
