//! Where data lies, as one host sees it: files with their mounts, block devices, files that QEMU reaches by URL, and the storages
//! that are mounted above them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{BlockDevice, FileFacts, Known, Mount, Stat, block, known};
use crate::libvirt::domain_xml::DiskSource;
use crate::model::{Answer, Command, HostId, HostSeen, Observations, Query, StorageId};
use crate::spec::Cluster;
use crate::storage::probe::{LunTarget, Way};
use crate::storage::{self, Attached, direct_probe, lun_probe};

/// Where a disk's file is on every host: its own path, or its pool's place in the cluster file.
#[must_use]
pub fn disk_path(source: &DiskSource, cluster: &Cluster) -> Option<String> {
    match source {
        DiskSource::File(path) => Some(path.clone()),
        DiskSource::Volume { pool, volume } => {
            let found = cluster.storage.iter().find(|(id, _)| id.as_str() == pool.as_str());
            found.and_then(|(_, storage)| Some(format!("{}/{volume}", storage.mounted_at()?)))
        }
        _ => None,
    }
}

/// The storage of the cluster file below whose mount point a path is.
#[must_use]
pub fn storage_of<'c>(path: &str, cluster: &'c Cluster) -> Option<&'c StorageId> {
    let plain = path.split('/').filter(|part| !matches!(*part, "" | "."));
    let plain = plain.fold(String::new(), |path, part| format!("{path}/{part}"));
    let mut mounted = cluster.storage.iter().filter_map(|(id, storage)| Some((id, storage.mounted_at()?)));
    mounted.find(|(_, place)| plain.starts_with(&format!("{place}/"))).map(|(id, _)| id)
}

/// QEMU's URL of a disk that it reaches itself (qemu-block-drivers(7)); `None` for other disks, and for protocols that
/// need a secret or a configuration of their own: of LUNs, only those of the cluster file can be opened.
#[must_use]
pub fn disk_url(source: &DiskSource, cluster: &Cluster) -> Option<String> {
    located(source, cluster).map(|(url, _)| url)
}

/// A disk that QEMU reaches itself, and how it is opened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Remote {
    url: String,
    query: Query,
    kind: RemoteKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RemoteKind {
    File,
    Lun,
}

impl Remote {
    pub(super) fn file(url: String) -> Self {
        let query = direct_probe::open(&url);
        Self { url, query, kind: RemoteKind::File }
    }

    fn opened(&self, answer: &Answer) -> Known<()> {
        match self.kind {
            RemoteKind::File => direct_probe::opened(answer),
            RemoteKind::Lun => lun_probe::opened(answer),
        }
    }
}

/// The disk as a host opens it.
fn remote(host: &HostId, source: &DiskSource, cluster: &Cluster) -> Option<Remote> {
    let (url, lun) = located(source, cluster)?;
    let Some((target, image)) = lun else { return Some(Remote::file(url)) };
    let query = lun_probe::open(&target, host, &image);
    Some(Remote { url, query, kind: RemoteKind::Lun })
}

/// QEMU's URL of a disk, and which LUN of which target it is, if it is one.
fn located(source: &DiskSource, cluster: &Cluster) -> Option<(String, Option<(LunTarget, String)>)> {
    let DiskSource::Network { protocol, name, hosts } = source else { return None };
    let host = hosts.first()?;
    match protocol.as_str() {
        "gluster" => Some((format!("gluster://{host}/{name}"), None)),
        "nfs" => Some((format!("nfs://{host}{name}?uid=0&gid=0"), None)),
        "iscsi" => {
            let (target, lun) = name.rsplit_once('/')?;
            let targets =
                cluster.storage.keys().filter_map(|id| match storage::backend(cluster, id)?.probe().way {
                    Way::Luns(target) => Some(target),
                    Way::Mounted(_) | Way::Direct(_) => None,
                });
            // Another server may have a target of the same name.
            let own = targets.into_iter().find(|own| own.iqn == target && own.address == *host)?;
            let (image, _) = own.luns.iter().find(|(_, own)| own.number.to_string() == lun)?;
            let silent = own.login.as_ref().is_some_and(|login| login.secret.is_none());
            let image = image.clone();
            (!silent).then(|| (format!("iscsi://{host}/{name}"), Some((*own, image))))
        }
        _ => None,
    }
}

fn device(source: &DiskSource) -> Option<String> {
    match source {
        DiskSource::Block(path) => Some(path.clone()),
        _ => None,
    }
}

/// The places that a host is asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) files: Vec<String>,
    pub(super) remote: Vec<Remote>,
    pub(super) devices: Vec<String>,
    /// What tells whether the storages are attached; nothing where no file can be on one.
    pub(super) storages: Vec<Query>,
}

/// What one host shows of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlaceFacts {
    /// Files by path.
    pub files: BTreeMap<String, FileFacts>,
    /// Files that QEMU reaches by URL, and whether they could be opened here.
    pub remote: BTreeMap<String, Known<()>>,
    /// Block devices by path; `None` when it is known that there is no such device.
    pub devices: BTreeMap<String, Known<Option<BlockDevice>>>,
    /// Whether the storages of the cluster file that are mounted are so here; only where a file was asked for.
    pub storages: BTreeMap<StorageId, Known<Attached>>,
}

impl PlaceFacts {
    /// Takes in what a second batch found.
    pub fn extend(&mut self, more: Self) {
        self.files.extend(more.files);
        self.remote.extend(more.remote);
        self.devices.extend(more.devices);
        self.storages.extend(more.storages);
    }
}

/// Why a file is not where the cluster file says, on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misplaced {
    /// That could not be found out.
    Unknown(String),
    /// Its storage is not mounted.
    NotMounted(String),
    /// Something else is mounted in its place, or it lies on something else.
    Elsewhere(String),
}

impl Misplaced {
    /// The reason, in one sentence.
    #[must_use]
    pub fn reason(self) -> String {
        match self {
            Self::Unknown(reason) | Self::NotMounted(reason) | Self::Elsewhere(reason) => reason,
        }
    }
}

impl PlaceFacts {
    /// Whether a file is on the storage below whose mount point its path is, and that storage is the cluster file's, as its backend
    /// judges; `None` when nothing speaks against it, or no storage has to do with it.
    #[must_use]
    pub fn misplaced(&self, path: &str, cluster: &Cluster) -> Option<Misplaced> {
        let mount = self.files.get(path).and_then(|file| file.mount.as_ref().ok()?.as_ref());
        let named = storage_of(path, cluster);
        let lies_on = |id: &&StorageId| {
            let place = cluster.storage.get(id).and_then(|storage| storage.mounted_at());
            place.zip(mount).is_some_and(|(place, mount)| mount.target == place.as_str())
        };
        let id = named.or_else(|| cluster.storage.keys().find(lies_on))?;
        let place = cluster.storage.get(id)?.mounted_at()?;
        match self.storages.get(id) {
            None => Some(Misplaced::Unknown(format!("storage {id} was not looked at"))),
            Some(Err(reason)) => Some(Misplaced::Unknown(reason.clone())),
            Some(Ok(Attached::No)) => {
                Some(Misplaced::NotMounted(format!("storage {id} is not mounted on {place}")))
            }
            Some(Ok(Attached::Other(what))) => {
                Some(Misplaced::Elsewhere(format!("{place} is not storage {id}: {what} is mounted there")))
            }
            Some(Ok(Attached::Yes | Attached::Remote)) if lies_on(&id) || mount.is_none() => None,
            Some(Ok(Attached::Yes | Attached::Remote)) => mount.map(|mount| {
                let Mount { source, kind, target, .. } = mount;
                let on =
                    format!("{path} is not on storage {id}, but on {source} ({kind}), mounted on {target}");
                Misplaced::Elsewhere(on)
            }),
        }
    }
}

impl Places {
    /// Where these sources lead on a host; `files` are paths besides.
    pub(super) fn of<'d>(
        host: &HostId,
        sources: impl Iterator<Item = &'d DiskSource> + Clone,
        files: impl Iterator<Item = String>,
        cluster: &Cluster,
    ) -> Self {
        let sorted = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>();
        let remote: BTreeSet<Remote> =
            sources.clone().filter_map(|source| remote(host, source, cluster)).collect();
        let paths = sources.clone().filter_map(|source| disk_path(source, cluster));
        let files = sorted(paths.chain(files).collect());
        let backends = storage::backends(cluster);
        let asked: BTreeSet<Query> = backends
            .iter()
            .flat_map(|backend| backend.attached_queries())
            .filter(|_| !files.is_empty())
            .collect();
        Self {
            files,
            remote: remote.into_iter().collect(),
            devices: sorted(sources.filter_map(device).collect()),
            storages: asked.into_iter().collect(),
        }
    }

    pub(super) fn queries(&self) -> Vec<Query> {
        let mut batch = Vec::new();
        for path in &self.files {
            batch.push(Query::new(Command::new("stat").args(["-L", "-c", "%i %s", "--", path])));
            // Of the file itself, because it may be a link that leads elsewhere; of its directory, where it does not exist.
            let parent = path.rsplit_once('/').map_or("/", |(parent, _)| parent);
            for place in [path, parent] {
                let findmnt =
                    Command::new("findmnt").args(["-J", "-o", "TARGET,SOURCE,FSTYPE,OPTIONS", "-T"]);
                batch.push(Query::new(findmnt.arg(place)));
            }
        }
        batch.extend(self.remote.iter().map(|remote| remote.query.clone()));
        batch.extend(self.devices.iter().map(|path| block::query(path)));
        batch.extend(self.storages.iter().cloned());
        batch
    }

    /// Reads the answers to [`Places::queries`], which come next.
    pub(super) fn read<'a>(
        &self,
        host: &HostId,
        cluster: &Cluster,
        next: &mut dyn FnMut() -> Option<&'a Answer>,
    ) -> PlaceFacts {
        let mut file = |path: &String| {
            let stat = stat(next());
            let (own, parent) = (mount(next()), mount(next()));
            let mount = if own == Ok(None) { parent } else { own };
            (path.clone(), FileFacts { stat, mount })
        };
        let files = self.files.iter().map(&mut file).collect();
        let opened = |remote: &Remote| {
            let opened = next().map_or(Err("it was not asked".to_owned()), |answer| remote.opened(answer));
            (remote.url.clone(), opened)
        };
        let remote = self.remote.iter().map(opened).collect();
        let devices = self.devices.iter().map(|path| (path.clone(), block::read(next()))).collect();
        let answered =
            self.storages.iter().filter_map(|query| Some((query.clone(), next()?.clone()))).collect();
        PlaceFacts { files, remote, devices, storages: self.attached(host, cluster, answered) }
    }

    fn attached(
        &self,
        host: &HostId,
        cluster: &Cluster,
        answered: BTreeMap<Query, Answer>,
    ) -> BTreeMap<StorageId, Known<Attached>> {
        if self.storages.is_empty() {
            return BTreeMap::new();
        }
        let mut seen = Observations::default();
        seen.insert(host.clone(), HostSeen::Answered(answered));
        let mounted =
            |id: &StorageId| cluster.storage.get(id).is_some_and(|spec| spec.mounted_at().is_some());
        storage::backends(cluster)
            .iter()
            .filter(|backend| mounted(backend.id()))
            .map(|backend| {
                let attached = backend.attached(host, &seen).map_err(|unknown| unknown.to_string());
                (backend.id().clone(), attached)
            })
            .collect()
    }
}

/// A file that does not exist is an answer; one that cannot be asked for is not.
pub(super) fn stat(answer: Option<&Answer>) -> Known<Option<Stat>> {
    if let Some(answer) = answer
        && answer.status.is_some_and(|status| status != 0)
        && (answer.stderr.contains("No such file or directory") || answer.stderr.contains("Not a directory"))
    {
        return Ok(None);
    }
    let text = known(answer, "stat")?;
    let fields: Vec<u64> = text.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    match fields.as_slice() {
        [inode, size] => Ok(Some(Stat { inode: *inode, size: *size })),
        _ => Err(format!("`stat` printed {:?}", text.trim())),
    }
}

#[derive(Deserialize)]
struct Findmnt {
    filesystems: Vec<FindmntEntry>,
}

#[derive(Deserialize)]
struct FindmntEntry {
    target: String,
    source: Option<String>,
    fstype: String,
    options: Option<String>,
}

/// `findmnt` ends with 1 and prints nothing when the directory does not exist.
pub(super) fn mount(answer: Option<&Answer>) -> Known<Option<Mount>> {
    if answer.is_some_and(|answer| answer.status == Some(1) && answer.stdout.trim().is_empty()) {
        return Ok(None);
    }
    let text = known(answer, "findmnt")?;
    let found: Findmnt = serde_json::from_str(&text).map_err(|error| format!("`findmnt`: {error}"))?;
    // With mounts on top of each other, the last one is what a path leads to.
    Ok(found.filesystems.into_iter().next_back().map(|entry| Mount {
        target: entry.target,
        source: entry.source.unwrap_or_default(),
        kind: entry.fstype,
        options: entry.options.unwrap_or_default(),
    }))
}
