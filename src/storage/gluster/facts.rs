//! What is asked of a storage server, and how its answers are read. Pure.
//!
//! Imports `model`, `libvirt`'s XML reader and the shared queries of `storage`. What follows from the facts is decided in
//! `plan`.

use std::collections::{BTreeMap, BTreeSet};

use super::commands::{DAEMON, GROUP, SERVER};
use super::spec::GlusterSpec;
use crate::libvirt::xml::{self, Element};
use crate::model::{AbsPath, Answer, Command, HostId, Observations, Query};
use crate::storage::facts::FactsError;
use crate::storage::mount_probe::{self, mount_table};
use crate::storage::mount_unit::{self, UnitState};
use crate::storage::packages;

/// One storage server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// Packages that it lacks.
    pub missing: Vec<&'static str>,
    /// How they are installed.
    pub family: packages::Family,
    /// glusterd's unit.
    pub daemon: UnitState,
    /// What glusterd says; `None` when it does not run.
    pub said: Option<Said>,
    /// Whether glusterd keeps peers or volumes on disk, which a daemon that does not run cannot tell about.
    pub has_state: bool,
    /// The options of the `virt` group as this server's file has them; `None` when there is no such file.
    pub group: Option<BTreeMap<String, String>>,
    /// What lies where the bricks go, by path.
    pub bricks: BTreeMap<AbsPath, BrickPlace>,
}

/// What glusterd says about its pool and its volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The UUID of this server.
    pub own_uuid: String,
    /// The other servers of its pool, sorted by UUID.
    pub peers: Vec<Peer>,
    /// All volumes of the pool, sorted by name.
    pub volumes: Vec<Volume>,
}

/// Another server, as one server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its UUID.
    pub uuid: String,
    /// Name or address by which it was probed, or by which its address resolved.
    pub name: String,
    /// All names that are known for it.
    pub names: BTreeSet<String>,
    /// Whether it is connected now.
    pub connected: bool,
    /// `Peer in Cluster`, `Peer Rejected` ...
    pub state: String,
}

impl Peer {
    /// Tells whether it is a full member (glusterd's state 3).
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.state == "Peer in Cluster"
    }
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Name.
    pub name: String,
    /// Whether it is started, stopped, or has never been started.
    pub status: VolumeStatus,
    /// Copies of each file.
    pub replica: u32,
    /// Arbiters in each replica set.
    pub arbiter: u32,
    /// Bricks in order.
    pub bricks: Vec<VolumeBrick>,
    /// Options that are not at their defaults.
    pub options: BTreeMap<String, String>,
}

impl Volume {
    /// Tells whether it is started.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.status == VolumeStatus::Started
    }
}

/// Whether a volume is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeStatus {
    /// Never started.
    Created,
    /// Started.
    Started,
    /// Stopped by somebody.
    Stopped,
}

/// A brick of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeBrick {
    /// `HOST:PATH` as the volume has it.
    pub name: String,
    /// Its directory.
    pub path: String,
    /// The UUID of its server.
    pub host_uuid: String,
}

/// What lies where a brick goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrickPlace {
    /// What the path itself is; `None` when there is nothing.
    pub kind: Option<String>,
    /// Whether it, or the nearest directory above it that exists, lies on the file system of `/`.
    pub on_root: bool,
    /// Whether something is mounted at the path itself.
    pub is_mount_point: bool,
    /// A directory above it that is a brick itself.
    pub inside_brick: Option<AbsPath>,
    /// Whether it has the directory in which GlusterFS keeps its own files.
    pub marked: bool,
    /// Whether that directory holds anything: the volume was in use once.
    pub used: bool,
    /// One file in it that is none of GlusterFS's or the file system's own.
    pub entry: Option<String>,
}

/// Two processes, although one could answer both from its standard input: there, `gluster` waits two minutes for a daemon
/// that does not run, and with the command as its arguments it fails at once.
fn pool() -> Query {
    glusterd(&["pool", "list"])
}

fn volume_info() -> Query {
    glusterd(&["volume", "info"])
}

/// Asks one glusterd, patiently: it answers one client after the other, and nobody while it greets a peer that has just booted;
/// gluster(8) itself waits for two minutes.
fn glusterd(question: &[&str]) -> Query {
    Query::patient(Command::new("gluster").args(["--mode=script", "--xml"]).args(question.iter().copied()))
}

fn kept_on_disk() -> Query {
    Query::new(Command::new("ls").args(["-A", "--", "/var/lib/glusterd/peers", "/var/lib/glusterd/vols"]))
}

fn group() -> Query {
    Query::new(Command::new("cat").arg(format!("/var/lib/glusterd/groups/{GROUP}")))
}

/// The paths above and at a brick, from `/` on.
fn ladder(path: &AbsPath) -> Vec<AbsPath> {
    let mut rungs = vec![path.clone()];
    while let Some(last) = rungs.last().filter(|last| last.as_str() != "/") {
        rungs.push(last.parent());
    }
    rungs.reverse();
    rungs
}

/// The directory in which GlusterFS keeps its own files, below a brick.
fn marks(path: &AbsPath) -> String {
    format!("{}/.glusterfs", path.as_str().trim_end_matches('/'))
}

fn places(paths: &[&AbsPath]) -> Query {
    let rungs: BTreeSet<AbsPath> = paths.iter().flat_map(|path| ladder(path)).collect();
    let words = rungs.iter().flat_map(|rung| [rung.to_string(), marks(rung)]);
    Query::new(Command::new("stat").args(["--format=%d %F:%n", "--"]).args(words))
}

fn entry(path: &AbsPath) -> Query {
    mount_unit::first_entry(path, &[".glusterfs", "lost+found"])
}

fn mark_entry(path: &AbsPath) -> Query {
    Query::new(Command::new("find").arg(marks(path)).args([
        "-mindepth",
        "1",
        "-maxdepth",
        "1",
        "-printf",
        "%f\\n",
        "-quit",
    ]))
}

fn brick_paths<'a>(spec: &'a GlusterSpec, host: &HostId) -> Vec<&'a AbsPath> {
    spec.bricks.iter().filter(|brick| brick.host == *host).map(|brick| &brick.path).collect()
}

/// Everything that [`server`] wants answered by a server of `spec`.
#[must_use]
pub fn queries(spec: &GlusterSpec, host: &HostId) -> Vec<Query> {
    let paths = brick_paths(spec, host);
    let mut queries = packages::queries(&[SERVER]);
    queries.extend([mount_unit::state(DAEMON), pool(), volume_info(), kept_on_disk(), group()]);
    queries.extend([mount_probe::mounts(), places(&paths)]);
    queries.extend(paths.iter().flat_map(|path| [entry(path), mark_entry(path)]));
    queries
}

/// Reads what a server answered.
///
/// # Errors
/// [`FactsError`] when the host was not observed or an answer cannot be read.
pub fn server(seen: &Observations, spec: &GlusterSpec, host: &HostId) -> Result<ServerFacts, FactsError> {
    let (family, missing) = packages::missing(seen, host, &[SERVER])?;
    let unreadable = |query: &Query, reason: String| FactsError::Unreadable {
        host: host.clone(),
        query: query.to_string(),
        reason,
    };
    let ask = mount_unit::state(DAEMON);
    let answer = seen.answer(host, &ask)?;
    let daemon = mount_unit::parse_state(&answer.stdout)
        .ok_or_else(|| unreadable(&ask, answer.stderr.trim().to_owned()))?;
    let said = said(seen, host)?;
    let on_disk = &seen.answer(host, &kept_on_disk())?.stdout;
    let group = seen.answer(host, &group())?;
    Ok(ServerFacts {
        missing,
        family,
        daemon,
        said,
        // `ls` heads each directory with its name and a colon.
        has_state: on_disk.lines().any(|line| !line.is_empty() && !line.ends_with(':')),
        group: group.ok().then(|| parse_group(&group.stdout)),
        bricks: bricks(seen, &brick_paths(spec, host), host)?,
    })
}

/// Reads what `gluster` printed; `None` when it is not installed or its daemon does not run.
fn said(seen: &Observations, host: &HostId) -> Result<Option<Said>, FactsError> {
    let read = |query: Query| {
        let document = document(seen.answer(host, &query)?);
        let query = query.to_string();
        document.map_err(|reason| FactsError::Unreadable { host: host.clone(), query, reason })
    };
    let (Some(pool), Some(info)) = (read(pool())?, read(volume_info())?) else { return Ok(None) };
    let unreadable = |reason: String| {
        let query = "gluster --xml".to_owned();
        FactsError::Unreadable { host: host.clone(), query, reason }
    };
    let (own, peers) = peers(&pool);
    let own_uuid = own.ok_or_else(|| unreadable("the pool has no localhost".to_owned()))?;
    let mut volumes = volumes(&info).map_err(unreadable)?;
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Some(Said { own_uuid, peers, volumes }))
}

/// Reads one document, and refuses one that says that its command failed; `None` when there is no daemon to ask.
fn document(answer: &Answer) -> Result<Option<Element>, String> {
    let said = [answer.stderr.as_str(), answer.stdout.as_str()];
    if answer.not_found() || said.iter().any(|text| text.contains("Connection failed")) {
        return Ok(None);
    }
    let root = xml::parse(&answer.stdout, "an answer of gluster")
        .map_err(|error| format!("{error}; {}", answer.stderr.trim()))?;
    match root.text_at("opRet") {
        Some("0") => Ok(Some(root)),
        Some(_) => Err(root.text_at("opErrstr").unwrap_or("a failure without a reason").to_owned()),
        None => Err("a document without opRet".to_owned()),
    }
}

fn peers(root: &Element) -> (Option<String>, Vec<Peer>) {
    let all =
        root.first("peerStatus").map(|status| status.all("peer").collect::<Vec<_>>()).unwrap_or_default();
    let text = |peer: &Element, name: &str| peer.text_at(name).unwrap_or_default().to_owned();
    // Only the server itself comes without a state.
    let own = all.iter().find(|peer| peer.first("stateStr").is_none()).map(|peer| text(peer, "uuid"));
    let mut peers: Vec<Peer> = all
        .iter()
        .filter(|peer| peer.first("stateStr").is_some())
        .map(|peer| Peer {
            uuid: text(peer, "uuid"),
            name: text(peer, "hostname"),
            names: peer
                .first("hostnames")
                .map(|names| names.all("hostname").map(|name| name.text.clone()).collect())
                .unwrap_or_default(),
            connected: peer.text_at("connected") == Some("1"),
            state: text(peer, "stateStr"),
        })
        .collect();
    peers.sort_by(|a, b| a.uuid.cmp(&b.uuid));
    (own, peers)
}

fn volumes(root: &Element) -> Result<Vec<Volume>, String> {
    let Some(all) = root.at("volInfo/volumes") else {
        return Err("an answer without volumes".to_owned());
    };
    all.all("volume").map(volume).collect()
}

fn volume(element: &Element) -> Result<Volume, String> {
    let name = element.text_at("name").ok_or("a volume without a name")?.to_owned();
    let status = match element.text_at("status") {
        Some("0") => VolumeStatus::Created,
        Some("1") => VolumeStatus::Started,
        Some("2") => VolumeStatus::Stopped,
        other => return Err(format!("volume {name} has the status {other:?}")),
    };
    let number = |field: &str| element.text_at(field).and_then(|text| text.parse().ok()).unwrap_or(0);
    let bricks = element.first("bricks").into_iter().flat_map(|bricks| bricks.all("brick")).map(|brick| {
        let name = brick.text_at("name").unwrap_or_default().to_owned();
        let path = name.split_once(":/").map_or_else(String::new, |(_, path)| format!("/{path}"));
        let host_uuid = brick.attribute("uuid").unwrap_or_default().to_owned();
        VolumeBrick { name, path, host_uuid }
    });
    let options =
        element.first("options").into_iter().flat_map(|options| options.all("option")).map(|option| {
            let text = |name: &str| option.text_at(name).unwrap_or_default().to_owned();
            (text("name"), text("value"))
        });
    Ok(Volume {
        status,
        replica: number("replicaCount"),
        arbiter: number("arbiterCount"),
        bricks: bricks.collect(),
        options: options.collect(),
        name,
    })
}

/// Reads a group file: one `name=value` per line.
fn parse_group(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

fn bricks(
    seen: &Observations,
    paths: &[&AbsPath],
    host: &HostId,
) -> Result<BTreeMap<AbsPath, BrickPlace>, FactsError> {
    let table = mount_table::parse(&seen.answer(host, &mount_probe::mounts())?.stdout);
    let stat = parse_stat(&seen.answer(host, &places(paths))?.stdout);
    let first_line = |query: &Query| {
        seen.answer(host, query).map(|answer| answer.stdout.lines().next().map(str::to_owned))
    };
    let mut places = BTreeMap::new();
    for path in paths {
        let rungs = ladder(path);
        let device = |rung: &AbsPath| stat.get(rung.as_str()).map(|(device, _)| device.as_str());
        let nearest = rungs.iter().rev().find_map(device);
        let above = rungs.iter().filter(|rung| rung != path);
        let place = BrickPlace {
            kind: stat.get(path.as_str()).map(|(_, kind)| kind.clone()),
            on_root: nearest == stat.get("/").map(|(device, _)| device.as_str()),
            is_mount_point: mount_table::at(&table, path).is_some(),
            inside_brick: above.into_iter().find(|rung| stat.contains_key(&marks(rung))).cloned(),
            marked: stat.contains_key(&marks(path)),
            used: first_line(&mark_entry(path))?.is_some(),
            entry: first_line(&entry(path))?,
        };
        places.insert((*path).clone(), place);
    }
    Ok(places)
}

/// Reads `stat --format='%d %F:%n'`: path to device number and kind.
fn parse_stat(text: &str) -> BTreeMap<String, (String, String)> {
    text.lines()
        .filter_map(|line| {
            let (device, rest) = line.split_once(' ')?;
            let (kind, path) = rest.split_once(':')?;
            Some((path.to_owned(), (device.to_owned(), kind.to_owned())))
        })
        .collect()
}
