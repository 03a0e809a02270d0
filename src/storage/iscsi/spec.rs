//! What the cluster file says about one iSCSI target: the YAML shape and its own rules.
//!
//! Imports only `model`, the building blocks of `spec` and the shared part of the storage entries. A LUN is in
//! `lun`, single words are in `words`.

mod lun;
mod words;

pub use lun::{Allocation, Backing, LunSpec, RawLun, wwid};
pub use words::{ChapUser, Iqn, PORT, Portal, VolumeName};

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::{ByteSize, ClusterName, HostId, ImageFormat, ImageId, SecretRef, StorageId};
use crate::spec::input::{At, Place, Text};
use crate::spec::problem::Problem;
use crate::spec::scalar::Address;
use crate::spec::secret::RawSecret;
use crate::spec::{Declared, some_of};
use crate::storage::spec::{Refusal, RefusedKey};

/// The highest number of a LUN: what every initiator and target writes as one byte (SAM-5, peripheral device addressing).
const LAST_NUMBER: u8 = 255;
/// The most LUNs of one target; the number 0 is tgt's controller.
const MOST_LUNS: usize = LAST_NUMBER as usize;

/// A target of one host, whose LUNs are the images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IscsiSpec {
    /// The host that has it.
    pub server: HostId,
    /// Its name.
    pub iqn: Iqn,
    /// Its LUNs, in the order of the file.
    pub luns: Vec<LunSpec>,
    /// How initiators prove who they are; `None`: their address is enough.
    pub chap: Option<ChapSpec>,
    /// How hypervisors reach it.
    pub access: IscsiAccess,
    /// Whether libvirt has a pool of its LUNs where QEMU reaches it itself. Where the kernel is logged in it always has.
    pub pool: bool,
    /// Which server offers it.
    pub provider: IscsiProvider,
    /// Where the server listens.
    pub portals: Vec<Portal>,
    /// Further addresses that may use the target besides the hypervisors (e.g. the machine that runs stor).
    pub allow: Vec<String>,
}

impl IscsiSpec {
    /// The LUN that is an image.
    #[must_use]
    pub fn lun(&self, image: &ImageId) -> Option<&LunSpec> {
        self.luns.iter().find(|lun| lun.name == *image)
    }

    /// The LUN that a device's path names, and whether it names this target at all: udev's links by portal and number, and, of the
    /// kernel's target, by WWN; a partition of a LUN counts as the LUN.
    #[must_use]
    pub fn at_path(&self, cluster: Option<&ClusterName>, id: &StorageId, path: &str) -> LunPath<'_> {
        if let Some((_, number)) = path.split_once(&format!("-iscsi-{}-lun-", self.iqn)) {
            return self.numbered(number.split('-').next().unwrap_or_default());
        }
        let names = |lun: &&LunSpec| {
            let wwid = cluster.map(|cluster| wwid(&lun.serial(cluster, id)));
            wwid.is_some_and(|wwid| path.starts_with("/dev/") && path.contains(&wwid))
        };
        self.luns.iter().find(names).map_or(LunPath::Elsewhere, LunPath::Lun)
    }

    /// The LUN that `NUMBER` means, as it stands in names within the target (`IQN/1`, `unit:0:0:1`).
    #[must_use]
    pub fn numbered(&self, number: &str) -> LunPath<'_> {
        let lun = self.luns.iter().find(|lun| number.parse() == Ok(lun.number));
        lun.map_or(LunPath::Undeclared, LunPath::Lun)
    }

    /// Says why an image is none of the LUNs.
    #[must_use]
    pub fn refuses(&self, image: &ImageId, format: ImageFormat, size: Option<ByteSize>) -> Option<Refusal> {
        let Some(lun) = self.lun(image) else {
            let names: Vec<&str> = self.luns.iter().map(|lun| lun.name.as_str()).collect();
            return Some(Refusal {
                key: RefusedKey::Storage,
                reason: "it has no LUN of this name".to_owned(),
                hint: format!("an image is the LUN of the same name; it has {}", some_of(names.into_iter())),
            });
        };
        if format != ImageFormat::Raw {
            return Some(Refusal {
                key: RefusedKey::Format,
                reason: format!("a LUN is raw, not {format}"),
                hint: "write format: raw".to_owned(),
            });
        }
        let differs = size.filter(|size| *size != lun.size)?;
        Some(Refusal {
            key: RefusedKey::Size,
            reason: format!("the LUN has {}, not {differs}", lun.size),
            hint: "give both the same size".to_owned(),
        })
    }
}

/// Where a path or name leads, seen from one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LunPath<'a> {
    /// To another place.
    Elsewhere,
    /// To this target, but to none of its declared LUNs.
    Undeclared,
    /// To this LUN.
    Lun(&'a LunSpec),
}

/// How initiators prove who they are (RFC 1994; RFC 7143 section 12.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChapSpec {
    /// The name that they give.
    pub user: ChapUser,
    /// Where the secret is.
    pub secret: SecretRef,
}

/// How hypervisors reach a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum IscsiAccess {
    /// The kernel's initiator logs in, and libvirt has a pool of its LUNs.
    Session,
    /// QEMU's own client (libiscsi) reaches it; there is no session, and a pool only if the file wants one.
    Direct,
}

/// Which server offers a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum IscsiProvider {
    /// The one that has the target already; else the kernel's where there is one, and tgt elsewhere.
    Auto,
    /// The kernel's (LIO).
    Lio,
    /// tgt, in user space.
    Tgt,
}

/// A target of one host, whose LUNs are images.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Iscsi")]
pub struct RawIscsi {
    /// The host that offers it.
    pub server: Text<HostId>,
    /// The target's name: `iqn.`, the year and month in which you had the domain, the domain backwards, a colon and a name of
    /// yours.
    pub iqn: Text<Iqn>,
    /// Its LUNs. Each is the image of the same name.
    pub luns: At<Vec<RawLun>>,
    /// Has initiators prove that they know a secret (CHAP).
    #[schemars(extend("x-default" = "their address is enough"))]
    pub chap: Option<RawChap>,
    /// How hypervisors reach it: `session` (their kernels log in with open-iscsi, the LUNs are block devices and a libvirt pool)
    /// or `direct` (QEMU's libiscsi, no session).
    #[schemars(extend("default" = "session"))]
    pub access: Option<At<IscsiAccess>>,
    /// With `direct`: whether libvirt gets a pool of kind `iscsi-direct`, which lists the LUNs (`virsh vol-list`). Guests do not need
    /// it. With `session` there always is one.
    #[schemars(extend("x-default" = "false with `direct`"))]
    pub pool: Option<At<bool>>,
    /// Which server offers it: `tgt`, `lio` (the kernel's) or `auto`: the one that has it already, else the kernel's where there is one.
    /// Another word here lets the target pass to the other server while nobody uses it.
    #[schemars(extend("default" = "auto"))]
    pub provider: Option<At<IscsiProvider>>,
    /// The server's addresses on the networks that hypervisors reach it by. With `session` and `lio` there may be several: then
    /// multipath joins the ways, and libvirt's pool knows the first.
    #[schemars(extend("x-default" = "the server's address, port 3260"))]
    pub portals: Option<At<Vec<Text<Portal>>>>,
    /// Further addresses that may use the target besides the hypervisors, e.g. that of the machine that runs stor.
    #[schemars(extend("default" = []))]
    pub allow: Option<Vec<Text<Address>>>,
}

/// How initiators prove who they are.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Chap")]
pub struct RawChap {
    /// The name that they give.
    pub user: Text<ChapUser>,
    /// Where the secret is, never the secret itself.
    pub secret: At<RawSecret>,
}

impl RawIscsi {
    /// Checks the target's own rules and claims its places.
    pub fn resolve(self, id: &StorageId, declared: &mut Declared<'_>) -> Option<IscsiSpec> {
        let server = self
            .server
            .parse_at(format_args!("storage {id}: server"), declared.problems)
            .filter(|server| declared.host(&server.value, server.place, format!("storage {id}")).is_some());
        let iqn = self.iqn.parse_at(format_args!("storage {id}: iqn"), declared.problems);
        if let Some(iqn) = &iqn {
            declared.space.target(iqn.value.as_str(), iqn.place, format!("storage {id}"), declared.problems);
        }
        let luns = self.resolve_luns(id, server.as_ref().map(|server| &server.value), declared);
        let chap = match &self.chap {
            None => Some(None),
            Some(raw) => raw.resolve(id, declared).map(Some),
        };
        let access = self.access.map_or(IscsiAccess::Session, |at| at.value);
        let portals = self.resolve_portals(id, access, declared);
        self.refuse_unsupported(id, access, declared);
        if let (Some(server), Some(Some(chap))) = (&server, &chap) {
            let place = self.chap.as_ref().map_or(declared.place, |chap| chap.user.place);
            let owner = format!("storage {id}");
            declared.space.chap_user((&server.value, &chap.user), place, owner, declared.problems);
        }
        let allow = self.allow.iter().flatten();
        let allow: Vec<Option<Address>> =
            allow.map(|word| word.parse(format_args!("storage {id}: allow"), declared.problems)).collect();
        Some(IscsiSpec {
            server: server?.value,
            iqn: iqn?.value,
            luns: luns?,
            chap: chap?,
            access,
            pool: self.pool.is_some_and(|at| at.value),
            provider: self.provider.map_or(IscsiProvider::Auto, |at| at.value),
            portals: portals?,
            allow: allow.into_iter().flatten().map(|address| address.to_string()).collect(),
        })
    }

    /// What this stor cannot set up is said here, before anything is planned with it.
    fn refuse_unsupported(&self, id: &StorageId, access: IscsiAccess, declared: &mut Declared<'_>) {
        if let Some(without) = self.pool.filter(|at| !at.value && access == IscsiAccess::Session) {
            let message = format!("storage {id}: pool: with access: session there always is one");
            problem(declared, without.place, message, "remove the key");
        }
        if self.provider.is_some_and(|at| at.value == IscsiProvider::Lio) {
            return;
        }
        let several = self.portals.as_ref().filter(|list| list.value.len() > 1);
        if let Some(list) = several.filter(|_| access == IscsiAccess::Session) {
            let message = format!(
                "storage {id}: portals: several need LUNs with a WWN of their own, and tgt's have none"
            );
            problem(declared, list.place, message, "write provider: lio, or keep one portal");
        }
        for word in self.portals.iter().flat_map(|list| &list.value) {
            // A word that is no portal has been reported.
            if word.text.parse::<Portal>().is_ok_and(|portal| portal.port != PORT) {
                let message = format!("storage {id}: portals: tgt listens on port {PORT} only");
                problem(declared, word.place, message, "write the address alone");
            }
        }
    }

    fn resolve_luns(
        &self,
        id: &StorageId,
        server: Option<&HostId>,
        declared: &mut Declared<'_>,
    ) -> Option<Vec<LunSpec>> {
        let count = self.luns.value.len();
        if !(1..=MOST_LUNS).contains(&count) {
            let message = format!("storage {id}: {count} luns, it must have 1 to {MOST_LUNS}");
            problem(declared, self.luns.place, message, "each image is a LUN: { name, size, backing }");
            return None;
        }
        let mut names: BTreeMap<ImageId, Place> = BTreeMap::new();
        let mut numbers: BTreeMap<u8, Place> = BTreeMap::new();
        let mut luns = Vec::with_capacity(count);
        for (raw, position) in self.luns.value.iter().zip(1..=LAST_NUMBER) {
            let lun = raw.resolve(id, (server, position), declared);
            let place = raw.number.map_or(raw.name.place, |at| at.place);
            if let Some(lun) = &lun {
                clash(id, ("LUN name", &lun.name), raw.name.place, &mut names, declared);
                clash(id, ("LUN number", &lun.number), place, &mut numbers, declared);
            }
            luns.push(lun);
        }
        luns.into_iter().collect()
    }

    fn resolve_portals(
        &self,
        id: &StorageId,
        access: IscsiAccess,
        declared: &mut Declared<'_>,
    ) -> Option<Vec<Portal>> {
        let Some(list) = &self.portals else { return Some(Vec::new()) };
        let subject = format!("storage {id}: portals");
        let portals: Vec<Option<Portal>> =
            list.value.iter().map(|word| word.parse(&subject, declared.problems)).collect();
        if list.value.is_empty() {
            problem(declared, list.place, format!("{subject}: the list is empty"), "remove the key");
        }
        if access == IscsiAccess::Direct && list.value.len() > 1 {
            let message =
                format!("{subject}: QEMU's own client uses one portal, the list has {}", list.value.len());
            problem(declared, list.place, message, "keep one");
        }
        let mut seen: BTreeMap<Portal, Place> = BTreeMap::new();
        for (portal, word) in portals.iter().flatten().zip(&list.value) {
            clash(id, ("portal", portal), word.place, &mut seen, declared);
        }
        portals.into_iter().collect()
    }
}

impl RawChap {
    fn resolve(&self, id: &StorageId, declared: &mut Declared<'_>) -> Option<ChapSpec> {
        let user = self.user.parse(format_args!("storage {id}: chap user"), declared.problems);
        let subject = format!("storage {id}: chap secret");
        let secret = self.secret.value.resolve(self.secret.place, subject, declared);
        Some(ChapSpec { user: user?, secret: secret? })
    }
}

/// Reports what only one of a storage's entries may have.
fn clash<T: Ord + Clone + fmt::Display>(
    id: &StorageId,
    (what, value): (&str, &T),
    place: Place,
    seen: &mut BTreeMap<T, Place>,
    declared: &mut Declared<'_>,
) {
    if let Some(first) = seen.get(value) {
        let first = *first;
        declared.problems.add(|| {
            Problem::new(place, format!("storage {id}: {what} {value} is used twice"))
                .and(first, "first used here")
                .hint("give each its own")
        });
        return;
    }
    seen.insert(value.clone(), place);
}

fn problem(declared: &mut Declared<'_>, place: Place, message: String, hint: &str) {
    declared.problems.add(|| Problem::new(place, message).hint(hint));
}
