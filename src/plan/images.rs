//! Images: whether they exist, seen from a hypervisor that has their storage attached, or on the servers themselves.
//!
//! Pure. Imports `storage` (where an image is), `spec`, `model` and the scene. An image that exists is never touched: a
//! differing size is reported, not repaired.

use std::collections::{BTreeMap, BTreeSet};

use super::guests;
use super::scene::Scene;
use crate::model::{
    AbsPath, Answer, Blocked, ByteSize, Command, Difference, Effect, GuestId, HostId, HostSpec, ImageFormat,
    ImageId, ImageLocation, ImageSpec, Observations, Owned, OwnedKind, Proposal, Query, ResourceId,
    ResourceKind, Step, Unknown, Wave,
};
use crate::spec::{Cluster, ImageEntry};
use crate::storage::image_format::{self, Signature};
use crate::storage::probe::Way;
use crate::storage::{Attached, Backend, mount_probe};

/// Hypervisors that are asked about images; one answer is enough, the others stand in for it.
const ASKED: usize = 3;

/// What a guest needs to know of its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ImageState {
    /// It exists, or this plan creates it.
    Ready,
    /// It cannot be planned.
    Blocked {
        /// Whether waiting may help.
        unknown: bool,
    },
}

/// What has to be asked on `host` about all images.
pub(super) fn queries<'a>(
    cluster: &Cluster,
    backends: impl Iterator<Item = &'a dyn Backend>,
    host: &HostId,
) -> Vec<Query> {
    let asked = cluster.hypervisors().take(ASKED).any(|hypervisor| hypervisor.id == *host);
    let mut queries = Vec::new();
    for backend in backends.filter(|backend| !backend.makes_images()) {
        let paths = looked_at(cluster, backend, host, asked);
        queries.extend((!paths.is_empty()).then(|| stat(&paths)));
        queries.extend(left(cluster, backend, host, asked));
        for image in cluster.images_on(backend.id()) {
            for path in files(backend, image, host, asked) {
                queries.push(image_format::first_bytes(path.as_str()));
                queries.extend((image.format == ImageFormat::Qcow2).then(|| info(&path)));
            }
        }
    }
    queries
}

/// All paths of one storage that one `stat` looks at on `host`: through its mount, and what it keeps as a server.
fn looked_at(cluster: &Cluster, backend: &dyn Backend, host: &HostId, asked: bool) -> BTreeSet<AbsPath> {
    let mut paths = BTreeSet::new();
    for image in cluster.images_on(backend.id()) {
        paths.extend(files(backend, image, host, asked));
        let backing = backend.backing(image);
        paths.extend(backing.into_iter().filter(|(on, _)| on == host).map(|(_, path)| path));
    }
    paths
}

/// The whole file of an image as `host` sees it: through its mount if it is `asked` as a hypervisor, or as the server that
/// makes the images.
fn files(backend: &dyn Backend, image: &ImageEntry, host: &HostId, asked: bool) -> Vec<AbsPath> {
    let made = backend.made_on(image).filter(|(server, _)| server == host).map(|(_, path)| path);
    match (made, backend.locate(image)) {
        (Some(path), _) => vec![path],
        (None, ImageLocation::File(path)) if asked => vec![path],
        _ => Vec::new(),
    }
}

/// What stor would own on `host`: on any hypervisor, or on the server that makes the images.
pub(super) fn claims<'a>(
    cluster: &'a Cluster,
    backends: impl Iterator<Item = &'a dyn Backend>,
    host: &HostId,
) -> Vec<Owned> {
    let hypervisor = cluster.hypervisors().any(|hypervisor| hypervisor.id == *host);
    let mine = |backend: &dyn Backend, image: &ImageEntry| match backend.made_on(image) {
        Some((server, _)) => server == *host,
        None => hypervisor,
    };
    let all = backends.filter(|backend| !backend.makes_images()).flat_map(|backend| {
        let images = cluster.images_on(backend.id()).filter(move |image| mine(backend, image));
        images.map(move |image| owned(backend, image))
    });
    all.collect()
}

fn owned(backend: &dyn Backend, image: &ImageEntry) -> Owned {
    Owned::new(OwnedKind::Image, backend.locate(image).to_string()).of_storage(backend.id())
}

/// Plans all images; `broken` says what is blocked already, so that no host without the mount is chosen.
pub(super) fn plan(
    scene: &Scene<'_>,
    broken: &dyn Fn(&Step) -> bool,
) -> (Proposal, BTreeMap<ImageId, ImageState>) {
    let mut proposal = Proposal::default();
    let mut states = BTreeMap::new();
    for backend in scene.backends {
        for image in scene.cluster.images_on(backend.id()) {
            if backend.makes_images() {
                // What keeps the storage from being planned keeps its guests from being defined.
                states.insert(image.id.clone(), ImageState::Ready);
                continue;
            }
            let (one, state) = match one(scene, &**backend, image, broken) {
                Ok(one) => (one, ImageState::Ready),
                Err(blocked) => {
                    let state = ImageState::Blocked { unknown: blocked.unknown };
                    (Proposal { blocked: vec![*blocked], ..Proposal::default() }, state)
                }
            };
            proposal.extend(one);
            states.insert(image.id.clone(), state);
        }
    }
    (proposal, states)
}

/// What is known of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sight {
    /// It exists; its virtual size if it could be told, the format that its first bytes are a sign of if that could be told, and
    /// unfinished files beside it that killed runs left, as this host sees them.
    There { size: Option<ByteSize>, signature: Option<Signature>, leftover: Option<(HostId, Vec<AbsPath>)> },
    /// It does not.
    Absent,
}

fn subject(image: &ImageEntry) -> ResourceId {
    ResourceId::new(ResourceKind::Image, &image.id)
}

fn one(
    scene: &Scene<'_>,
    backend: &dyn Backend,
    image: &ImageEntry,
    broken: &dyn Fn(&Step) -> bool,
) -> Result<Proposal, Box<Blocked>> {
    let blocked =
        |reason: String| Box::new(Blocked::new(Wave::Image, subject(image), reason).serving(backend.id()));
    let unknown = |reason: String| {
        Box::new(Blocked::unknown(Wave::Image, subject(image), reason).serving(backend.id()))
    };
    let mut proposal = Proposal::default();
    let seen = sight(scene.seen, scene.cluster, backend, image).map_err(|why| match why {
        SightError::NoFile { .. } => {
            let hint = "look at where it leads and who made it; then take it away, or put the image itself in its place";
            Box::new((*blocked(why.to_string())).hint(hint))
        }
        why => unknown(why.to_string()),
    })?;
    match seen {
        Sight::Absent => {
            if let Some((guest, host)) = running_user(scene, image) {
                let reason =
                    format!("guest {guest} runs on {host} with it, so it was moved away or is hidden");
                let hint = format!(
                    "see where it went: `lsof` on the server, `stor verify`; or destroy {guest} if its data is lost"
                );
                return Err(Box::new((*blocked(reason)).hint(hint)));
            }
            // By name, not by who has the storage already: a run that was broken off goes on with the same host.
            let hosts: Vec<HostId> = match backend.made_on(image) {
                Some((server, _)) => vec![server],
                None => {
                    let able = |host: &&HostSpec| can_create(scene, backend, &host.id);
                    scene.cluster.hypervisors().filter(able).map(|host| host.id.clone()).collect()
                }
            };
            let step = hosts.iter().map(|host| create(backend, image, host)).find(|step| !broken(step));
            let Some(step) = step else {
                let reason = match backend.made_on(image) {
                    Some((server, _)) => format!("waits for the export on {server}"),
                    None => format!("no hypervisor has storage {} attached", backend.id()),
                };
                return Err(blocked(reason));
            };
            proposal.steps.push(step);
        }
        Sight::There { size, signature, leftover } => {
            if let Some(signature) = signature.filter(|signature| !signature.fits(image.format)) {
                let reason = format!("the image is {signature}, the file says {}", image.format);
                let hint = "name the format that it has, or convert it while its guest is shut off: `qemu-img convert`";
                return Err(Box::new((*blocked(reason)).hint(hint)));
            }
            if let Some((host, paths)) = leftover {
                let names = paths.iter().map(AbsPath::as_str).collect::<Vec<_>>().join(", ");
                let why =
                    Difference::new(format!("file {names}"), "absent", "left by a run that was interrupted");
                let title = format!("remove the unfinished {names}");
                let effect = Effect::RemoveFiles(paths);
                let step = Step::new(Wave::Image, &host, subject(image), title, effect);
                proposal.steps.push(step.because(why).serving(backend.id()));
            }
            if let Some(size) = size.filter(|size| *size != image.size) {
                let verb = if size < image.size { "growing" } else { "shrinking" };
                let reason = format!("image is {size}, the file says {}: {verb} is not planned", image.size);
                let hint = "write the size that the image has into the file, or resize the image while its guest is shut off";
                return Err(Box::new((*blocked(reason)).hint(hint)));
            }
        }
    }
    Ok(proposal)
}

/// A running guest that has the image as a disk: an empty one must not take its place.
fn running_user<'s>(scene: &'s Scene<'_>, image: &ImageEntry) -> Option<(&'s GuestId, &'s HostId)> {
    let users = scene.cluster.guests.values().filter(|guest| guests::images(guest).contains(&&image.id));
    users.into_iter().find_map(|guest| {
        let mut domains = scene.domains_named(guest.id.as_str());
        let (host, _) = domains.find(|(_, domain)| domain.active && guests::is_ours(scene, guest, domain))?;
        Some((&guest.id, host))
    })
}

/// Tells whether a hypervisor has the storage, or will have it when its earlier steps have run.
fn can_create(scene: &Scene<'_>, backend: &dyn Backend, host: &HostId) -> bool {
    matches!(backend.attached(host, scene.seen), Ok(Attached::Yes | Attached::No | Attached::Remote))
}

fn create(backend: &dyn Backend, image: &ImageEntry, host: &HostId) -> Step {
    let location = match backend.made_on(image) {
        Some((_, path)) => ImageLocation::File(path),
        None => backend.locate(image),
    };
    let title = format!("create image {} at {location} ({}, {})", image.id, image.size, image.format);
    let source = image.source.clone();
    let mounted = match (backend.made_on(image), backend.probe().way) {
        (None, Way::Mounted(directory)) => Some(mount_probe::mounted(&directory)),
        _ => None,
    };
    let spec = ImageSpec { location, format: image.format, size: image.size, source, mounted };
    let why =
        Difference::new(format!("image {}", image.id), format!("{} {}", image.size, image.format), "absent");
    Step::new(Wave::Image, host, subject(image), title, Effect::CreateImage(spec))
        .because(why)
        .serving(backend.id())
        .owning(owned(backend, image))
}

/// Looks from hypervisors that have the storage; the servers' own files count only when none of them has it.
fn sight(
    seen: &Observations,
    cluster: &Cluster,
    backend: &dyn Backend,
    image: &ImageEntry,
) -> Result<Sight, SightError> {
    if let Some((server, path)) = backend.made_on(image) {
        let Some(server) = cluster.hosts.get(&server) else { return Err(SightError::NoServer) };
        return looked(seen, &Look::new(seen, cluster, backend, &server.id)?, image, &path);
    }
    let mut doubt = None;
    if let ImageLocation::File(path) = backend.locate(image) {
        for host in cluster.hypervisors().take(ASKED) {
            match backend.attached(&host.id, seen).map_err(SightError::from) {
                Ok(Attached::Yes) => match Look::new(seen, cluster, backend, &host.id)
                    .and_then(|look| looked(seen, &look, image, &path))
                {
                    Ok(sight) => return Ok(sight),
                    Err(error @ SightError::NoFile { .. }) => return Err(error),
                    Err(error) => doubt = doubt.or(Some(error)),
                },
                Ok(_) => {}
                Err(error) => doubt = doubt.or(Some(error)),
            }
        }
    }
    match on_servers(seen, cluster, backend, image) {
        Ok(sight) => Ok(sight),
        Err(error) => Err(doubt.unwrap_or(error)),
    }
}

/// Says why it is not known whether an image exists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum SightError {
    #[error(transparent)]
    Unknown(#[from] Unknown),
    #[error("host {host}: cannot look at {path}: {reason}")]
    Failed { host: HostId, path: AbsPath, reason: String },
    #[error(
        "host {host}: {path} is a {kind}, no regular file: any host that has the storage can lead it elsewhere"
    )]
    NoFile { host: HostId, path: AbsPath, kind: &'static str },
    #[error("no server was named that keeps it")]
    NoServer,
}

/// Looks for what killed runs of `expand/image.sh` left in the directories of images; other kinds of files are somebody else's.
fn left(cluster: &Cluster, backend: &dyn Backend, host: &HostId, asked: bool) -> Option<Query> {
    let images = cluster.images_on(backend.id()).flat_map(|image| files(backend, image, host, asked));
    let directories: BTreeSet<AbsPath> = images.map(|path| path.parent()).collect();
    let find = Command::new("find").args(directories.iter().map(AbsPath::as_str));
    let find = find.args(["-maxdepth", "1", "-type", "f", "-name", ".*.stor-*.partial", "-print"]);
    (!directories.is_empty()).then(|| Query::new(find))
}

/// Those of `found` that were to become the image at `path`.
fn leftovers(found: &str, path: &AbsPath) -> Vec<AbsPath> {
    let begin = path.parent().join(&format!(".{}.stor-", path.file_name()));
    let Ok(begin) = begin else { return Vec::new() };
    let own = |line: &&str| {
        let random = line.strip_prefix(begin.as_str()).and_then(|rest| rest.strip_suffix(".partial"));
        random.is_some_and(|random| random.len() == 16 && random.chars().all(|c| c.is_ascii_hexdigit()))
    };
    let mut paths: Vec<AbsPath> =
        found.lines().filter(own).filter_map(|line| AbsPath::new(line).ok()).collect();
    paths.sort();
    paths
}

/// Follows no link: what a name leads to is for its host alone to say.
fn stat(paths: &BTreeSet<AbsPath>) -> Query {
    let paths = paths.iter().map(AbsPath::as_str);
    Query::new(Command::new("stat").args(["--format=%s %f %n", "--"]).args(paths))
}

/// What a mode is of besides a regular file (`S_IFMT`, inode(7)).
fn odd_kind(mode: u32) -> Option<&'static str> {
    match mode & 0o170_000 {
        0o100_000 => None,
        0o120_000 => Some("symbolic link"),
        0o040_000 => Some("directory"),
        0o060_000 => Some("block device"),
        _ => Some("special file"),
    }
}

fn info(path: &AbsPath) -> Query {
    let args = ["info", "--force-share", "--output=json", "-f", "qcow2", path.as_str()];
    Query::new(Command::new("qemu-img").args(args))
}

/// What one host answered about the files of one storage.
struct Look<'a> {
    host: &'a HostId,
    answer: &'a Answer,
    /// What lies beside images; nothing where nobody looks for it.
    left: &'a str,
}

impl<'a> Look<'a> {
    fn new(
        seen: &'a Observations,
        cluster: &Cluster,
        backend: &dyn Backend,
        host: &'a HostId,
    ) -> Result<Self, SightError> {
        let asked = cluster.hypervisors().take(ASKED).any(|hypervisor| hypervisor.id == *host);
        let paths = looked_at(cluster, backend, host, asked);
        let left = match left(cluster, backend, host, asked) {
            Some(query) => &seen.answer(host, &query)?.stdout,
            None => "",
        };
        Ok(Self { host, answer: seen.answer(host, &stat(&paths))?, left })
    }

    /// The size of a file; `None` when there is none (strerror(ENOENT) in the C locale).
    fn size_of(&self, path: &AbsPath) -> Result<Option<u64>, SightError> {
        let named = |line: &&str| line.contains(&format!("'{path}'"));
        let mut files = self.answer.stdout.lines().filter_map(|line| {
            let (size, rest) = line.split_once(' ')?;
            let (mode, name) = rest.split_once(' ')?;
            (name == path.as_str()).then_some((size.parse::<u64>(), u32::from_str_radix(mode, 16)))
        });
        match files.next() {
            Some((Ok(size), Ok(mode))) => {
                return match odd_kind(mode) {
                    None => Ok(Some(size)),
                    Some(kind) => {
                        Err(SightError::NoFile { host: self.host.clone(), path: path.clone(), kind })
                    }
                };
            }
            Some(_) => return Err(self.failed(path, "stat printed no size or no mode")),
            None => {}
        }
        match self.answer.stderr.lines().find(named) {
            Some(line) if line.ends_with(": No such file or directory") => Ok(None),
            Some(line) => Err(self.failed(path, line)),
            None => Err(self.failed(path, "stat did not name it")),
        }
    }

    fn failed(&self, path: &AbsPath, reason: &str) -> SightError {
        SightError::Failed { host: self.host.clone(), path: path.clone(), reason: reason.trim().to_owned() }
    }
}

fn looked(
    seen: &Observations,
    look: &Look<'_>,
    image: &ImageEntry,
    path: &AbsPath,
) -> Result<Sight, SightError> {
    let Some(bytes) = look.size_of(path)? else { return Ok(Sight::Absent) };
    let size = match image.format {
        ImageFormat::Raw => Some(bytes),
        ImageFormat::Qcow2 => {
            let answer = seen.answer(look.host, &info(path))?;
            let json: Option<serde_json::Value> = serde_json::from_str(&answer.stdout).ok();
            json.and_then(|json| json.get("virtual-size")?.as_u64())
        }
    };
    // What a server lets nobody but its owner read is told when a guest starts.
    let first = seen.answer(look.host, &image_format::first_bytes(path.as_str()))?;
    let signature = image_format::signature(first).ok();
    let left = leftovers(look.left, path);
    let leftover = (!left.is_empty()).then(|| (look.host.clone(), left));
    Ok(Sight::There { size: size.map(ByteSize::from_bytes), signature, leftover })
}

/// One server that keeps the file is enough to know that it exists; that it does not has to be seen on all of them.
fn on_servers(
    seen: &Observations,
    cluster: &Cluster,
    backend: &dyn Backend,
    image: &ImageEntry,
) -> Result<Sight, SightError> {
    let backing = backend.backing(image);
    let mut doubt = backing.is_empty().then_some(SightError::NoServer);
    let places: BTreeSet<&(HostId, AbsPath)> = backing.iter().collect();
    for (host, path) in places {
        match Look::new(seen, cluster, backend, host).and_then(|look| look.size_of(path)) {
            Ok(Some(_)) => return Ok(Sight::There { size: None, signature: None, leftover: None }),
            Ok(None) => {}
            Err(error) => doubt = doubt.or(Some(error)),
        }
    }
    doubt.map_or(Ok(Sight::Absent), Err)
}
