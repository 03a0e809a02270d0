//! The CHAP secret that every hypervisor's libvirt keeps for a storage. Pure.
//!
//! Shared by the backends whose pools or disks log in with one. Imports `planning` (why a part stops), `stamp_file`, `libvirt`
//! (secrets), `spec` and `model`. Where a target keeps its side of the secret is the backend's.
//!
//! libvirt never tells a private value, so a stamp in a file beside the record tells whether the value that was set last is
//! the one of now (`docs/adr/0112`). The file is written after the value: a run that dies in between sets it once more.

use super::planning::{Stop, refuse};
use super::stamp_file::{self, GivenTo};
use crate::libvirt::secrets;
use crate::model::{
    AbsPath, Difference, Effect, HostId, Observations, Owned, OwnedKind, Query, Record, ResourceId,
    ResourceKind, SecretId, SecretRef, Stamp, Step, StorageId, Wave,
};
use crate::spec::Cluster;

/// The secret of one storage.
#[derive(Debug, Clone, Copy)]
pub struct ChapSecret<'a> {
    /// The cluster, with the values of its secrets.
    pub cluster: &'a Cluster,
    /// The storage.
    pub storage: &'a StorageId,
    /// Where its value is kept.
    pub reference: &'a SecretRef,
}

impl ChapSecret<'_> {
    /// The UUID by which pools and disks name it; the same on every hypervisor.
    #[must_use]
    pub fn id(&self) -> SecretId {
        secrets::id(&self.cluster.name, self.storage)
    }

    fn stamp_path(&self) -> AbsPath {
        stamp_file::path(&self.cluster.name, self.storage, GivenTo::Libvirt)
    }

    fn stamp_query(&self) -> Query {
        stamp_file::query(&self.cluster.name, self.storage, GivenTo::Libvirt)
    }

    /// What a hypervisor is asked.
    #[must_use]
    pub fn queries(&self) -> Vec<Query> {
        vec![secrets::query(self.id()), self.stamp_query()]
    }

    /// What the record of a hypervisor holds.
    #[must_use]
    pub fn claim(&self) -> Owned {
        Owned::new(OwnedKind::Secret, self.id().to_string())
            .of_storage(self.storage)
            .with("stamp", self.stamp_path().as_str())
    }

    /// What a step about it changes.
    #[must_use]
    pub fn subject(&self) -> ResourceId {
        ResourceId::new(ResourceKind::Secret, self.id())
    }

    /// Plans the secret on a hypervisor; no step when it is there with the value of now.
    ///
    /// # Errors
    /// [`Stop`]
    pub fn plan(&self, host: &HostId, seen: &Observations) -> Result<Option<Step>, Stop> {
        let (id, storage) = (self.id(), self.storage);
        let Some(value) = self.cluster.secrets.get(self.reference) else {
            return refuse(
                format!("the secret of storage {storage} was not read ({})", self.reference),
                "this command plans without secrets; run `stor plan` or `stor apply`".to_owned(),
            );
        };
        let here = secrets::parse(id, seen.answer(host, &secrets::query(id))?).or_else(|reason| {
            refuse(
                format!("host {host}: cannot ask libvirt for its secrets: {reason}"),
                "install libvirt's daemon and clients there, and see `systemctl status libvirtd`".to_owned(),
            )
        })?;
        let usage = secrets::usage(&self.cluster.name, storage);
        if let Some((other, _)) = here.others.iter().find(|(_, other)| *other == usage) {
            return refuse(
                format!("host {host}: secret {other} is for {usage} already, and stor did not make it"),
                format!("remove it: `virsh secret-undefine {other}`"),
            );
        }
        let owned =
            Record::observed(seen, &self.cluster.name, host)?.owns(OwnedKind::Secret, &id.to_string());
        let field = |name: &str| format!("secret.{id}{name}");
        let difference = match &here.secret {
            None => Some(Difference::new(field(""), "defined, with its value", "absent")),
            Some(found) if !owned || found.usage != usage || found.kind != "iscsi" => {
                return refuse(
                    format!(
                        "host {host}: secret {id} exists (for {}), and stor did not make it",
                        found.usage
                    ),
                    format!("remove it: `virsh secret-undefine {id}`"),
                );
            }
            Some(_) => match self.stamp(host, seen)? {
                None => Some(Difference::new(field(".value"), "set", "unknown")),
                Some(stamp) if stamp.fits(value) => None,
                Some(_) => Some(Difference::new(field(".value"), "as its reference says", "another one")),
            },
        };
        Ok(difference.map(|difference| {
            let title = match here.secret {
                None => format!("define the CHAP secret of storage {storage} in libvirt"),
                Some(_) => format!("set the CHAP secret of storage {storage} in libvirt"),
            };
            let stamp = self.cluster.secrets.stamp(value);
            let stamp = stamp_file::file(&self.cluster.name, storage, GivenTo::Libvirt, stamp);
            let xml = secrets::chap(&self.cluster.name, storage);
            let effect = Effect::EnsureSecret { id, xml, value: value.clone(), stamp };
            Step::new(Wave::ClientPrerequisites, host, self.subject(), title, effect)
                .because(difference)
                .serving(storage)
                .owning(self.claim())
        }))
    }

    /// Whether the value that a hypervisor's libvirt has is another one than that of now.
    #[must_use]
    pub fn is_outdated(&self, host: &HostId, seen: &Observations) -> bool {
        let value = self.cluster.secrets.get(self.reference);
        let stamp = self.stamp(host, seen).ok().flatten();
        value.zip(stamp).is_some_and(|(value, stamp)| !stamp.fits(value))
    }

    /// The stamp of the value that was set last; `None` when there is none that can be read.
    fn stamp(&self, host: &HostId, seen: &Observations) -> Result<Option<Stamp>, Stop> {
        let answer = seen.answer(host, &self.stamp_query())?;
        if answer.ok() {
            return Ok(Stamp::parse(&answer.stdout));
        }
        // strerror(ENOENT) in the C locale, which every command runs in.
        if answer.stderr.trim_end().ends_with("No such file or directory") {
            return Ok(None);
        }
        Err(Stop::Unknown(format!("host {host}: {}: {}", self.stamp_path(), answer.stderr.trim())))
    }
}
