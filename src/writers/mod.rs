//! One image, one active guest: who else uses the data of a guest's disks, asked of all hypervisors at once.
//!
//! Imports `libvirt`, `host`, `storage` (addresses) and `model`. Asked right before a guest is defined and before it starts; what the
//! answer means is the caller's matter. A domain that starts after it was asked is not seen: only leases could exclude that.

mod data;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use self::data::Data;
use crate::host::Fleet;
use crate::libvirt::domain_xml::{self, DiskAccess, DiskSource, DiskUse};
use crate::libvirt::{Connector, DomainFacts};
use crate::model::{Answer, Command, HostId, Query, chain};
use crate::storage::mount_probe::mount_table::{self, Mount};
use crate::storage::{address, image_format};

/// Who is asked, and how.
#[derive(Clone, Copy)]
pub struct Hypervisors<'a> {
    /// All of them.
    pub hosts: &'a [HostId],
    /// Their shells.
    pub fleet: &'a Fleet,
    /// Their libvirt daemons.
    pub connector: &'a dyn Connector,
}

/// The guest whose disks must be its own.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its UUID.
    pub uuid: &'a str,
    /// The host where it is to be.
    pub host: &'a HostId,
    /// Its definition.
    pub xml: &'a str,
}

/// A domain that uses what the guest uses, one of the two for writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its host.
    pub host: HostId,
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Whether QEMU or Xen holds it.
    pub active: bool,
    /// The guest's disk, and what it leads to.
    pub disk: String,
    /// The domain's disk, and what it leads to.
    pub its_disk: String,
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.active { "active" } else { "defined" };
        let Self { host, name, uuid, disk, its_disk, .. } = self;
        write!(f, "{disk} is also {its_disk} of domain {name}, UUID {uuid}, {state} on {host}")
    }
}

/// Says that the question has no answer: a host, or a disk that is in use, could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Unknown(pub Vec<String>);

/// A domain that has a guest's name or UUID already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host {host} has domain {name}, UUID {uuid}")]
pub struct Namesake {
    /// Its host.
    pub host: HostId,
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
}

/// What all hypervisors showed of their domains.
#[derive(Debug)]
pub struct Domains(BTreeMap<HostId, Vec<DomainFacts>>);

impl Domains {
    /// Asks all hypervisors at once.
    ///
    /// # Errors
    /// [`Unknown`] when one cannot be asked.
    pub fn ask(of: Hypervisors<'_>) -> Result<Self, Unknown> {
        let ask = |host: &HostId| of.connector.open(host).and_then(|daemon| daemon.domains());
        let (mut seen, mut unknown) = (BTreeMap::new(), Vec::new());
        for (host, answer) in of.fleet.each(of.hosts, ask) {
            match answer {
                Ok(domains) => _ = seen.insert(host, domains),
                Err(error) => unknown.push(error.to_string()),
            }
        }
        if unknown.is_empty() { Ok(Self(seen)) } else { Err(Unknown(unknown)) }
    }

    /// A domain of this name or UUID, if there is one.
    #[must_use]
    pub fn namesake(&self, name: &str, uuid: &str) -> Option<Namesake> {
        let mut all = self.all().filter(|(_, domain)| domain.name == name || domain.uuid == uuid);
        let found = |(host, domain): (&HostId, &DomainFacts)| Namesake {
            host: host.clone(),
            name: domain.name.clone(),
            uuid: domain.uuid.clone(),
        };
        all.next().map(found)
    }

    fn all(&self) -> impl Iterator<Item = (&HostId, &DomainFacts)> {
        self.0.iter().flat_map(|(host, domains)| domains.iter().map(move |domain| (host, domain)))
    }

    /// The domains that use what the guest uses, sorted: not the guest itself, wherever it is defined, but it as well where it is
    /// active on another host than its own.
    ///
    /// # Errors
    /// [`Unknown`] when a disk of the guest, or one that is in use, cannot be looked at.
    pub fn users(&self, of: Hypervisors<'_>, subject: Subject<'_>) -> Result<Vec<User>, Unknown> {
        let fail = |error: crate::libvirt::LibvirtError| Unknown(vec![error.to_string()]);
        let own = domain_xml::uses(subject.xml).map_err(fail)?;
        let mut parts = vec![Part { host: subject.host, domain: None, uses: own }];
        for (host, domain) in self.all() {
            let is_subject =
                domain.uuid == subject.uuid && (host == subject.host || !domain.state.is_active());
            if !is_subject {
                let uses = domain_xml::uses(&domain.xml).map_err(fail)?;
                parts.push(Part { host, domain: Some(domain), uses });
            }
        }
        let views = View::ask(of, &parts, subject)?;
        let mut unknown = Vec::new();
        let own = views.of(&parts[0], &mut unknown);
        let own: Vec<_> =
            own.into_iter().chain(views.layers.iter().map(|(used, data)| (used, data.clone()))).collect();
        let mut users = Vec::new();
        for part in parts.iter().skip(1) {
            let Some(domain) = part.domain else { continue };
            let mut reasons = Vec::new();
            let theirs = views.of(part, &mut reasons);
            // What nobody uses now cannot be written now.
            if domain.state.is_active() {
                unknown.extend(reasons);
            }
            let clash = own.iter().find_map(|(mine, data)| {
                let (its, _) =
                    theirs.iter().find(|(its, other)| excludes(mine, its) && data.overlaps(other))?;
                Some((shown(mine), shown(its)))
            });
            users.extend(clash.map(|(disk, its_disk)| User {
                host: part.host.clone(),
                name: domain.name.clone(),
                uuid: domain.uuid.clone(),
                active: domain.state.is_active(),
                disk,
                its_disk,
            }));
        }
        if unknown.is_empty() || users.iter().any(|user| user.active) {
            Ok(users)
        } else {
            Err(Unknown(unknown))
        }
    }
}

/// Whether two uses of the same data exclude each other: one writes, and not both expect the other to.
fn excludes(a: &DiskUse, b: &DiskUse) -> bool {
    use DiskAccess::{Exclusive, ReadOnly, Shareable};
    match (a.access, b.access) {
        (ReadOnly, ReadOnly) | (Shareable, Shareable) => false,
        (Exclusive | Shareable | ReadOnly, _) => true,
    }
}

fn shown(used: &DiskUse) -> String {
    let place = match &used.source {
        DiskSource::File(path) | DiskSource::Block(path) | DiskSource::Other(path) => path.clone(),
        DiskSource::Network { protocol, name, .. } => format!("{protocol} {name}"),
        DiskSource::Volume { pool, volume } => format!("volume {volume} of pool {pool}"),
        DiskSource::Empty => "nothing".to_owned(),
    };
    format!("{} ({place})", used.target)
}

/// One domain and what it uses; the first has no domain, it is the guest.
struct Part<'a> {
    host: &'a HostId,
    domain: Option<&'a DomainFacts>,
    uses: Vec<DiskUse>,
}

/// What the hosts show of all disks.
struct View {
    /// Where volumes of pools are, by host, pool and volume.
    volumes: BTreeMap<(HostId, String, String), Result<String, String>>,
    /// What paths lead to, by host.
    paths: BTreeMap<(HostId, String), Result<Option<Data>, String>>,
    /// The images that the guest's own images build on.
    layers: Vec<(DiskUse, Data)>,
}

impl View {
    fn ask(of: Hypervisors<'_>, parts: &[Part<'_>], subject: Subject<'_>) -> Result<Self, Unknown> {
        let mut wanted: BTreeSet<(HostId, String, String)> = BTreeSet::new();
        let mut paths: BTreeSet<(HostId, String)> = BTreeSet::new();
        for part in parts {
            for used in &part.uses {
                match &used.source {
                    DiskSource::Volume { pool, volume } => {
                        _ = wanted.insert((part.host.clone(), pool.clone(), volume.clone()));
                    }
                    DiskSource::File(path) | DiskSource::Block(path) => {
                        _ = paths.insert((part.host.clone(), path.clone()))
                    }
                    DiskSource::Network { .. } | DiskSource::Empty | DiskSource::Other(_) => {}
                }
            }
        }
        let asked = batch(of, wanted.iter().map(|(host, pool, volume)| (host, vol_path(pool, volume))))?;
        let volumes: BTreeMap<_, _> = wanted.into_iter().zip(asked.iter().map(line)).collect();
        let found =
            volumes.iter().filter_map(|((host, ..), path)| Some((host.clone(), path.as_ref().ok()?.clone())));
        paths.extend(found.filter(|(_, path)| path.starts_with('/')));
        let images = images_with_layers(subject);
        let chains =
            batch(of, images.iter().map(|used| (subject.host, below(used, &volumes, subject.host))))?;
        let layers: Vec<DiskUse> =
            images.iter().zip(&chains).flat_map(|((used, _), answer)| read_chain(used, answer)).collect();
        paths.extend(layers.iter().filter_map(|used| Some((subject.host.clone(), path_of(&used.source)?))));
        let hosts: BTreeSet<&HostId> = paths.iter().map(|(host, _)| host).collect();
        let tables = batch(
            of,
            hosts.iter().map(|host| (*host, Query::new(Command::new("cat").arg("/proc/self/mountinfo")))),
        )?;
        let mounts: BTreeMap<&HostId, Vec<Mount>> =
            hosts.into_iter().zip(tables.iter().map(|answer| mount_table::parse(&answer.stdout))).collect();
        let answers = batch(of, paths.iter().map(|(host, path)| (host, data::query(path))))?;
        let none = Vec::new();
        let looked = paths.iter().zip(&answers).map(|((host, path), answer)| {
            let seen = data::read(host, path, mounts.get(host).unwrap_or(&none), Some(answer));
            ((host.clone(), path.clone()), seen.map_err(|reason| format!("host {host}: {reason}")))
        });
        let mut view = Self { volumes, paths: looked.collect(), layers: Vec::new() };
        let part = Part { host: subject.host, domain: None, uses: layers };
        let mut unknown = Vec::new();
        let layers: Vec<_> =
            view.of(&part, &mut unknown).into_iter().map(|(used, data)| (used.clone(), data)).collect();
        view.layers = layers;
        if unknown.is_empty() { Ok(view) } else { Err(Unknown(unknown)) }
    }

    /// The data of everything that a domain uses; what cannot be told is noted.
    fn of<'p>(&self, part: &'p Part<'_>, unknown: &mut Vec<String>) -> Vec<(&'p DiskUse, Data)> {
        let mut found = Vec::new();
        for used in &part.uses {
            match self.one(part.host, &used.source) {
                Ok(Some(data)) => found.push((used, data)),
                Ok(None) => {}
                Err(reason) => unknown.push(reason),
            }
        }
        found
    }

    fn one(&self, host: &HostId, source: &DiskSource) -> Result<Option<Data>, String> {
        let at_path = |path: &str| {
            if !path.starts_with('/') {
                return Ok(Some(Data::at(address::of_path(path))));
            }
            self.paths.get(&(host.clone(), path.to_owned())).cloned().unwrap_or(Ok(None))
        };
        match source {
            DiskSource::File(path) | DiskSource::Block(path) => at_path(path),
            DiskSource::Network { protocol, name, hosts } => {
                Ok(Some(Data::at(address::of_network(protocol, name, hosts))))
            }
            DiskSource::Volume { pool, volume } => {
                match self.volumes.get(&(host.clone(), pool.clone(), volume.clone())) {
                    Some(Ok(path)) => at_path(path),
                    Some(Err(reason)) => {
                        Err(format!("host {host}: volume {volume} of pool {pool}: {reason}"))
                    }
                    None => Ok(None),
                }
            }
            DiskSource::Empty | DiskSource::Other(_) => Ok(None),
        }
    }
}

/// Asks each host its queries, all hosts at once; answers in the order of the queries.
fn batch<'q>(
    of: Hypervisors<'_>,
    queries: impl Iterator<Item = (&'q HostId, Query)>,
) -> Result<Vec<Answer>, Unknown> {
    let queries: Vec<(&HostId, Query)> = queries.collect();
    let hosts: Vec<&HostId> =
        queries.iter().map(|(host, _)| *host).collect::<BTreeSet<_>>().into_iter().collect();
    let ask = |host: &&HostId| {
        let shell = of.fleet.host(host).ok_or_else(|| format!("host {host}: not reached over ssh"))?;
        let own: Vec<Query> =
            queries.iter().filter(|(of, _)| of == host).map(|(_, query)| query.clone()).collect();
        shell.query(&own).map_err(|error| chain(&error))
    };
    let (mut answers, mut unknown) = (BTreeMap::new(), Vec::new());
    for (host, answer) in of.fleet.each(&hosts, ask) {
        match answer {
            Ok(answer) => _ = answers.insert(host, answer.into_iter()),
            Err(reason) => unknown.push(reason),
        }
    }
    if !unknown.is_empty() {
        return Err(Unknown(unknown));
    }
    let lost = Answer { status: None, stdout: String::new(), stderr: String::new() };
    let mut next =
        |host: &HostId| answers.get_mut(host).and_then(Iterator::next).unwrap_or_else(|| lost.clone());
    Ok(queries.iter().map(|(host, _)| next(host)).collect())
}

fn vol_path(pool: &str, volume: &str) -> Query {
    Query::new(Command::new("virsh").args(["-r", "vol-path", "--pool", pool, "--", volume]))
}

/// The one line that an answer holds.
fn line(answer: &Answer) -> Result<String, String> {
    match answer.stdout.trim() {
        path if answer.ok() && !path.is_empty() => Ok(path.to_owned()),
        _ => Err(answer.stderr.trim().to_owned()),
    }
}

fn path_of(source: &DiskSource) -> Option<String> {
    match source {
        DiskSource::File(path) | DiskSource::Block(path) => Some(path.clone()),
        _ => None,
    }
}

/// The guest's own images that may have others below them: of a raw one, whose bytes are the guest's, nothing is believed.
fn images_with_layers(subject: Subject<'_>) -> Vec<(DiskUse, String)> {
    let disks = domain_xml::read(subject.xml).map(|summary| summary.disks).unwrap_or_default();
    let local = disks
        .into_iter()
        .filter(|disk| !matches!(disk.source, DiskSource::Network { .. } | DiskSource::Empty));
    let layered = local.filter_map(|disk| {
        let used = DiskUse { target: disk.target, source: disk.source, access: DiskAccess::ReadOnly };
        Some((used, disk.format.filter(|format| format != "raw")?))
    });
    layered.collect()
}

fn below(
    (used, format): &(DiskUse, String),
    volumes: &BTreeMap<(HostId, String, String), Result<String, String>>,
    host: &HostId,
) -> Query {
    let of_pool = match &used.source {
        DiskSource::Volume { pool, volume } => volumes.get(&(host.clone(), pool.clone(), volume.clone())),
        _ => None,
    };
    let path = path_of(&used.source).or_else(|| of_pool?.as_ref().ok().cloned()).unwrap_or_default();
    Query::new(Command::new("sh").args(["-c", image_format::SHOW, "stor-image", format, &path]))
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    filename: String,
}

/// The images below one, read; what cannot be read is found by those who look at chains (`migrate`), or has no image yet.
fn read_chain(used: &DiskUse, answer: &Answer) -> Vec<DiskUse> {
    let chain = answer.stdout.split_once("==\n").map_or("", |(_, chain)| chain);
    let entries: Vec<Entry> = serde_json::from_str(chain).unwrap_or_default();
    let paths = entries.into_iter().skip(1).map(|entry| entry.filename).filter(|name| name.starts_with('/'));
    paths.map(|path| DiskUse { source: DiskSource::File(path), ..used.clone() }).collect()
}
