//! Images: whether they exist, seen from a hypervisor that has their storage attached, or on the servers themselves.
//!
//! Pure. Imports `storage` (where an image is), `spec`, `model` and the scene. An image that exists is never touched: a
//! differing size is reported, not repaired.

use std::collections::{BTreeMap, BTreeSet};

use super::scene::Scene;
use crate::model::{
    AbsPath, Blocked, ByteSize, Command, Difference, Effect, HostId, ImageFormat, ImageId, ImageLocation,
    ImageSpec, Observations, Owned, OwnedKind, Proposal, Query, ResourceId, ResourceKind, Step, Unknown,
    Wave,
};
use crate::spec::{Cluster, ImageEntry};
use crate::storage::{Attached, Backend};

/// Hypervisors that are asked about images; one answer is enough, the others stand in for it.
const ASKED: usize = 3;

/// What a guest needs to know of its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ImageState {
    /// It exists, or this plan creates it.
    Ready,
    /// It cannot be planned.
    Blocked,
}

/// What has to be asked on `host` about all images.
pub(super) fn queries<'a>(
    cluster: &Cluster,
    backends: impl Iterator<Item = &'a dyn Backend>,
    host: &HostId,
) -> Vec<Query> {
    let asked = cluster.hypervisors().take(ASKED).any(|hypervisor| hypervisor.id == *host);
    let mut queries = Vec::new();
    for backend in backends {
        for image in cluster.images_on(backend.id()) {
            if asked && let ImageLocation::File(path) = backend.locate(image) {
                queries.extend(look(image, &path));
            }
            let backing = backend.backing(image);
            queries.extend(backing.iter().filter(|(on, _)| on == host).map(|(_, path)| stat(path)));
        }
    }
    queries
}

/// What stor would own on any hypervisor.
pub(super) fn claims<'a>(
    cluster: &'a Cluster,
    backends: impl Iterator<Item = &'a dyn Backend>,
) -> Vec<Owned> {
    let all = backends.flat_map(|backend| cluster.images_on(backend.id()).map(|image| owned(backend, image)));
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
            let (one, state) = match one(scene, &**backend, image, broken) {
                Ok(one) => (one, ImageState::Ready),
                Err(blocked) => {
                    (Proposal { blocked: vec![*blocked], ..Proposal::default() }, ImageState::Blocked)
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
    /// It exists; its virtual size if it could be told, and a partial file beside it that a killed run left on this host.
    There { size: Option<ByteSize>, leftover: Option<(HostId, AbsPath)> },
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
    match sight(scene.seen, scene.cluster, backend, image).map_err(|why| unknown(why.to_string()))? {
        Sight::Absent => {
            let step = scene
                .cluster
                .hypervisors()
                .filter_map(|host| Some((rank(scene, backend, &host.id)?, create(backend, image, &host.id))))
                .filter(|(_, step)| !broken(step))
                .min_by_key(|(rank, _)| *rank);
            let Some((_, step)) = step else {
                return Err(unknown(format!("no hypervisor has storage {} attached", backend.id())));
            };
            proposal.steps.push(step);
        }
        Sight::There { size, leftover } => {
            if let Some((host, path)) = leftover {
                let why =
                    Difference::new(format!("file {path}"), "absent", "left by a run that was interrupted");
                let title = format!("remove the unfinished {path}");
                let effect = Effect::RemoveFiles(vec![path]);
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

/// Ranks a hypervisor for creating an image: those that have the storage come first; `None` when it cannot.
fn rank(scene: &Scene<'_>, backend: &dyn Backend, host: &HostId) -> Option<u8> {
    match backend.attached(host, scene.seen).ok()? {
        Attached::Yes | Attached::Remote => Some(0),
        Attached::No => Some(1),
        Attached::Other(_) => None,
    }
}

fn create(backend: &dyn Backend, image: &ImageEntry, host: &HostId) -> Step {
    let location = backend.locate(image);
    let title = format!("create image {} at {location} ({}, {})", image.id, image.size, image.format);
    let source = image.source.clone();
    let spec = ImageSpec { location, format: image.format, size: image.size, source };
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
    let mut doubt = None;
    if let ImageLocation::File(path) = backend.locate(image) {
        for host in cluster.hypervisors().take(ASKED) {
            match backend.attached(&host.id, seen).map_err(SightError::from) {
                Ok(Attached::Yes) => match looked(seen, &host.id, image, &path) {
                    Ok(sight) => return Ok(sight),
                    Err(error) => doubt = doubt.or(Some(error)),
                },
                Ok(_) => {}
                Err(error) => doubt = doubt.or(Some(error)),
            }
        }
    }
    match on_servers(seen, &backend.backing(image)) {
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
    #[error("no server was named that keeps it")]
    NoServer,
}

fn partial(path: &AbsPath) -> Option<AbsPath> {
    path.parent().join(&format!(".{}.stor-partial", path.file_name())).ok()
}

fn stat(path: &AbsPath) -> Query {
    Query::new(Command::new("stat").args(["--format=%s %n", "--", path.as_str()]))
}

fn info(path: &AbsPath) -> Query {
    let args = ["info", "--force-share", "--output=json", "-f", "qcow2", path.as_str()];
    Query::new(Command::new("qemu-img").args(args))
}

/// What is asked through a mount: the file and its size, its unfinished form, and the virtual size where that differs.
fn look(image: &ImageEntry, path: &AbsPath) -> Vec<Query> {
    let mut queries = vec![stat(path)];
    queries.extend(partial(path).as_ref().map(stat));
    if image.format == ImageFormat::Qcow2 {
        queries.push(info(path));
    }
    queries
}

/// The size of a file; `None` when there is none (strerror(ENOENT) in the C locale).
fn size_of(seen: &Observations, host: &HostId, path: &AbsPath) -> Result<Option<u64>, SightError> {
    let answer = seen.answer(host, &stat(path))?;
    let failed = |reason: &str| SightError::Failed {
        host: host.clone(),
        path: path.clone(),
        reason: reason.trim().to_owned(),
    };
    if answer.ok() {
        let size = answer.stdout.split(' ').next().and_then(|size| size.parse().ok());
        return size.map(Some).ok_or_else(|| failed("stat printed no size"));
    }
    if answer.stderr.trim_end().ends_with("No such file or directory") {
        return Ok(None);
    }
    Err(failed(&answer.stderr))
}

fn looked(
    seen: &Observations,
    host: &HostId,
    image: &ImageEntry,
    path: &AbsPath,
) -> Result<Sight, SightError> {
    let Some(bytes) = size_of(seen, host, path)? else { return Ok(Sight::Absent) };
    let size = match image.format {
        ImageFormat::Raw => Some(bytes),
        ImageFormat::Qcow2 => {
            let answer = seen.answer(host, &info(path))?;
            let json: Option<serde_json::Value> = serde_json::from_str(&answer.stdout).ok();
            json.and_then(|json| json.get("virtual-size")?.as_u64())
        }
    };
    let leftover = match partial(path) {
        Some(partial) => size_of(seen, host, &partial)?.map(|_| (host.clone(), partial)),
        None => None,
    };
    Ok(Sight::There { size: size.map(ByteSize::from_bytes), leftover })
}

/// One server that keeps the file is enough to know that it exists; that it does not has to be seen on all of them.
fn on_servers(seen: &Observations, backing: &[(HostId, AbsPath)]) -> Result<Sight, SightError> {
    let mut doubt = backing.is_empty().then_some(SightError::NoServer);
    let places: BTreeSet<&(HostId, AbsPath)> = backing.iter().collect();
    for (host, path) in places {
        match size_of(seen, host, path) {
            Ok(Some(_)) => return Ok(Sight::There { size: None, leftover: None }),
            Ok(None) => {}
            Err(error) => doubt = doubt.or(Some(error)),
        }
    }
    doubt.map_or(Ok(Sight::Absent), Err)
}
