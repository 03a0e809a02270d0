//! Gives the raw shapes their meaning: names resolved, defaults filled in, every rule checked, all problems collected.
//!
//! Imports `raw`, `cluster`, `model`, the backends' `spec.rs`; no I/O but through `files` (image sources, domain XML).

mod guests;
mod hosts;
mod images;
mod migration;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;

use super::cluster::Cluster;
use super::input::{At, Entries, Place, Scalar, Text};
use super::problem::{Problem, Problems, did_you_mean};
use super::raw::RawCluster;
use super::space::Space;
use crate::model::{HostId, Role, Secrets, StorageId};
use crate::storage::spec::StorageSpec;

/// What is declared so far, and what is wrong so far; backends resolve against it.
#[derive(Debug)]
pub struct Declared<'a> {
    /// The hosts of the file, also those whose own entry has a problem.
    pub hosts: &'a BTreeMap<HostId, Role>,
    /// Directory of the cluster file: relative paths start here.
    pub base: &'a Path,
    /// Who uses which directory.
    pub space: &'a mut Space,
    /// Where the name of the entry stands that is being resolved.
    pub place: Place,
    /// What is wrong.
    pub problems: &'a mut Problems,
}

impl Declared<'_> {
    /// Checks that a host is declared.
    pub fn host(&mut self, id: &HostId, place: Place, subject: impl fmt::Display) -> Option<Role> {
        lookup(self.hosts, id, "host", place, subject, self.problems).copied()
    }
}

/// Resolves a file; `None` means that `problems` says why.
pub fn resolve(raw: RawCluster, base: &Path, problems: &mut Problems) -> Option<Cluster> {
    if raw.version.value != 1 {
        problems.add(|| unknown_version(raw.version.place, &raw.version.value.to_string()));
    }
    let name = raw.name.parse("cluster name", problems);
    let (hosts, roles) = hosts::resolve(raw.hosts, raw.ssh.unwrap_or_default(), base, problems);
    let mut space = Space::default();
    let mut storage = BTreeMap::new();
    let mut storage_ids = BTreeMap::new();
    for (At { value: id, place }, entry) in named("storage", raw.storage.unwrap_or_default(), problems) {
        let mut declared = Declared { hosts: &roles, base, space: &mut space, problems, place };
        let spec = entry.resolve(&id, &mut declared);
        storage_ids.insert(id.clone(), ());
        storage.extend(spec.map(|spec| (id, spec)));
    }
    space.check(|host| roles.get(host).is_some_and(|role| role.is_hypervisor()), problems);
    let images = images::resolve(raw.images.unwrap_or_default(), (&storage_ids, &storage), base, problems);
    let around =
        guests::Around { cluster: name.as_ref(), roles: &roles, images: &images, storage: &storage, base };
    let guests = guests::resolve(raw.guests.unwrap_or_default(), &around, problems);
    let migration = migration::resolve(raw.migration.unwrap_or_default(), problems);
    let images = images.into_iter().filter_map(|(id, image)| Some((id, image?))).collect();
    let base = base.to_path_buf();
    Some(Cluster {
        name: name?,
        base,
        hosts,
        storage,
        images,
        guests,
        migration,
        secrets: Secrets::default(),
    })
    .filter(|_| problems.is_empty())
}

/// The problem of a file version that this stor does not read.
pub fn unknown_version(place: Place, found: &str) -> Problem {
    Problem::new(place, format!("cluster file: version {found} is unknown"))
        .hint("this stor reads version 1; a newer file needs a newer stor")
}

/// Parses the keys of a section; entries without a proper name are left out.
fn named<K: Scalar, V>(section: &str, raw: Entries<K, V>, problems: &mut Problems) -> Vec<(At<K>, V)> {
    raw.entries
        .into_iter()
        .filter_map(|(key, value)| Some((key.parse_at(section, problems)?, value)))
        .collect()
}

/// Finds what a name refers to.
fn lookup<'m, K: Ord + fmt::Display + AsRef<str>, V>(
    known: &'m BTreeMap<K, V>,
    id: &K,
    kind: &str,
    place: Place,
    subject: impl fmt::Display,
    problems: &mut Problems,
) -> Option<&'m V> {
    let found = known.get(id);
    // A file without hosts is one problem, not one per mention of a host.
    let said = kind == "host" && known.is_empty();
    if found.is_none() && !said {
        problems.add(|| {
            let hint = match did_you_mean(id.as_ref(), known.keys().map(AsRef::as_ref)) {
                None if known.is_empty() => format!("no {kind} is declared"),
                None => format!("declared: {}", some_of(known.keys())),
                Some(hint) => hint,
            };
            Problem::new(place, format!("{subject}: {kind} {id} is not declared")).hint(hint)
        });
    }
    found
}

/// Lists names for a person, the first few of many.
pub fn some_of<T: fmt::Display>(names: impl ExactSizeIterator<Item = T>) -> String {
    let more = names.len().saturating_sub(8);
    let mut list: Vec<String> = names.take(8).map(|name| name.to_string()).collect();
    if more > 0 {
        list.push(format!("and {more} more"));
    }
    list.join(", ")
}

/// Reads a number that must lie in a range; out of range it is a problem and the default stands in.
pub fn number<N>(
    at: Option<At<N>>,
    default: N,
    range: RangeInclusive<N>,
    subject: impl fmt::Display,
    problems: &mut Problems,
) -> N
where
    N: PartialOrd + fmt::Display + Copy,
{
    match at {
        None => default,
        Some(at) if range.contains(&at.value) => at.value,
        Some(at) => {
            problems.add(|| {
                let (low, high) = (range.start(), range.end());
                Problem::new(at.place, format!("{subject} is {}, it must be {low} to {high}", at.value))
            });
            default
        }
    }
}

/// What an optional word says: nothing, a value, or a problem that has been reported.
fn optional<T: Scalar>(
    word: Option<&Text<T>>,
    subject: impl fmt::Display,
    problems: &mut Problems,
) -> Option<At<T>> {
    word.and_then(|word| word.parse_at(subject, problems))
}

/// The storage of a resolved file, by name.
pub type Storages = BTreeMap<StorageId, StorageSpec>;
