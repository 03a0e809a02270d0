//! What stor made and the file no longer asks for: how each kind is removed, and what keeps it from being removed.
//!
//! Pure. Imports `storage` (commands that remove), `model` and the scene. Removal steps may run again after having been
//! interrupted, because an entry is forgotten only when all of its steps have run (`ownership`). Data stays unless the
//! user named its storage.

use std::collections::{BTreeMap, BTreeSet};

use super::DeleteData;
use super::domains::{Domain, DomainsError};
use super::scene::Scene;
use super::users;
use super::{guard, occupants};
use crate::model::{
    AbsPath, BlockSpec, Blocked, Command, Difference, Effect, FileMode, Finding, FindingCode, GuestId,
    HostId, Owned, OwnedKind, Proposal, ResourceId, ResourceKind, Risk, SecretId, Severity, Step, StorageId,
    Wave,
};
use crate::storage::spec::StorageSpec;
use crate::storage::{gluster, iscsi, mount_unit, nfs, service, traces};

/// What becomes of data that the file no longer asks for.
#[derive(Clone, Copy)]
pub(super) enum Data<'a> {
    /// It stays, and stor keeps knowing it as its own: the user may still have it deleted by name.
    Keep,
    /// stor leaves: named data is deleted, all other data is the user's from now on.
    Leave(&'a DeleteData),
}

/// What one part of the record is removed by.
#[derive(Default)]
pub(super) struct Release {
    /// Steps and blocked parts.
    pub proposal: Proposal,
    /// Storage of which nothing at all is changed, because something uses what would go.
    pub frozen: BTreeSet<StorageId>,
    /// Entries that their hosts' records forget, unless a step that removes them does not run.
    pub forgotten: BTreeMap<HostId, Vec<Owned>>,
}

/// Why what left the file stays as it is.
#[derive(Default)]
pub(super) struct Kept {
    /// Storage of the file of which the same plan refuses a part.
    pub refused: BTreeSet<StorageId>,
}

/// Plans the removal of every recorded entry that `claims` does not name.
pub(super) fn plan(
    scene: &Scene<'_>,
    claims: &BTreeMap<HostId, Vec<Owned>>,
    kept: &Kept,
    data: Data<'_>,
) -> Release {
    let mut going: BTreeMap<&HostId, Vec<&Owned>> = BTreeMap::new();
    let mut moved: BTreeMap<&HostId, Vec<&Owned>> = BTreeMap::new();
    for (host, record) in &scene.records {
        let Ok(record) = record else { continue };
        let claimed: BTreeMap<(OwnedKind, &str), &Owned> = claims
            .get(host)
            .into_iter()
            .flatten()
            .map(|entry| ((entry.kind, entry.name.as_str()), entry))
            .collect();
        for entry in &record.owned {
            match claimed.get(&(entry.kind, entry.name.as_str())) {
                Some(claim) if leads_elsewhere(entry, claim) => moved.entry(host).or_default().push(entry),
                Some(_) => {}
                None if (is_data(entry) || entry.kind.is_note()) && matches!(data, Data::Keep) => {}
                None => going.entry(host).or_default().push(entry),
            }
        }
    }
    let held = users::of(scene, &going, &moved, data);
    let mut release = Release::default();
    for ((storage, only), uses) in &held {
        release.proposal.blocked.extend(uses.blocked(storage, only.as_ref()));
        release.frozen.extend(StorageId::new(storage.as_str()).ok().filter(|_| only.is_none()));
    }
    for (host, entries) in &going {
        // Deeper paths first: a directory is empty only when what stor made in it is gone.
        let mut entries = entries.clone();
        entries.sort_by(|a, b| (a.kind, &b.name).cmp(&(b.kind, &a.name)));
        for entry in entries {
            let is_held = entry.storage.as_ref().is_some_and(|storage| {
                held.contains_key(&(storage.clone(), None))
                    || held.contains_key(&(storage.clone(), Some((*host).clone())))
            });
            if is_held {
                continue;
            }
            let stays = matches!(data, Data::Keep).then(|| stays(scene, host, entry, kept));
            if let Some(blocked) = stays.flatten() {
                release.proposal.blocked.push(blocked);
                continue;
            }
            match steps(scene, host, entry, data) {
                Ok(steps) => {
                    release.proposal.steps.extend(steps);
                    release.forgotten.entry((*host).clone()).or_default().push(entry.clone());
                }
                Err(blocked) => release.proposal.blocked.push(*blocked),
            }
        }
    }
    release
}

/// Tells whether what a claimed entry stands for has another path or name now: its clients would lose what they use.
fn leads_elsewhere(entry: &Owned, claim: &Owned) -> bool {
    use OwnedKind::{GaneshaExport, IscsiTarget, KernelExport};
    matches!(entry.kind, KernelExport | GaneshaExport | IscsiTarget)
        && ["path", "iqn"].iter().any(|key| {
            let (old, new) = (entry.detail.get(*key), claim.detail.get(*key));
            old.is_some() && old != new
        })
}

/// Says why an entry is not removed although nothing claims it: its storage is in the file, or a part of it is refused in the
/// same plan, so that the plan would take what the refused part stands for.
fn stays(scene: &Scene<'_>, host: &HostId, entry: &Owned, kept: &Kept) -> Option<Blocked> {
    use OwnedKind::{Firewall, GlusterPeer, GlusterVolume, Service};
    let of = |id: &StorageId| entry.storage.as_deref() == Some(id.as_str());
    let storage = scene.cluster.storage.iter().find(|(id, _)| of(id));
    let blocked = |reason: String| {
        let subject = match (entry.storage.as_deref(), entry.kind) {
            (Some(storage), _) => ResourceId::new(ResourceKind::Storage, storage),
            (None, GlusterPeer) => ResourceId::new(ResourceKind::Peer, &entry.name),
            (None, Firewall) => ResourceId::new(ResourceKind::Firewall, &entry.name),
            (None, _) => ResourceId::new(ResourceKind::Service, &entry.name),
        };
        let mut blocked = Blocked::new(Wave::ReleaseGuest, subject, reason).on(host);
        blocked.storage = storage.map(|(id, _)| id.clone());
        blocked
    };
    if let (GlusterVolume, Some((id, StorageSpec::Gluster(_)))) = (entry.kind, storage) {
        let reason = format!("volume {id} is storage of the file, so it is not removed from {host}");
        return Some(
            blocked(reason).hint("name its bricks as they are, or take the storage out of the file first"),
        );
    }
    let waits = match (entry.kind, storage) {
        (kind, Some((id, _))) if traces::is_server_side(kind) => kept.refused.get(id),
        // It may be the same volume, export or target under another name.
        (kind, None) if traces::is_server_side(kind) => kept.refused.first(),
        (Service | GlusterPeer | Firewall, None) => kept.refused.first(),
        _ => None,
    };
    waits.map(|id| {
        let reason = format!("{} stays as long as a part of storage {id} is blocked", entry.name);
        blocked(reason).hint("see what blocks that storage")
    })
}

/// Tells whether an entry stands for the user's data.
pub(super) fn is_data(entry: &Owned) -> bool {
    use OwnedKind::{BackingFile, DataDirectory, Image, LogicalVolume};
    matches!(entry.kind, Image | DataDirectory | BackingFile | LogicalVolume)
}

/// One removal in the making.
struct Removal<'a> {
    host: &'a HostId,
    entry: &'a Owned,
    kind: ResourceKind,
}

impl Removal<'_> {
    fn step(&self, wave: Wave, title: String, effect: Effect) -> Step {
        let subject = ResourceId::new(self.kind, &self.entry.name);
        let field = subject.to_string();
        let mut step = Step::new(wave, self.host, subject, title, effect)
            .because(Difference::new(field, "absent", "made by stor"))
            .risking(Risk::Disruptive)
            .forgetting(self.entry.clone());
        step.storage = self.entry.storage.as_deref().and_then(|name| StorageId::new(name).ok());
        step
    }

    fn path(&self) -> Result<AbsPath, Box<Blocked>> {
        AbsPath::new(&*self.entry.name).map_err(|error| {
            let subject = ResourceId::new(self.kind, &self.entry.name);
            Box::new(Blocked::new(Wave::ReleaseHost, subject, error).on(self.host))
        })
    }
}

fn steps(scene: &Scene<'_>, host: &HostId, entry: &Owned, data: Data<'_>) -> Result<Vec<Step>, Box<Blocked>> {
    let name = entry.name.as_str();
    let removal = |kind| Removal { host, entry, kind };
    let run =
        |kind, wave, title: String, commands| vec![removal(kind).step(wave, title, Effect::Run(commands))];
    Ok(match entry.kind {
        OwnedKind::Guest if is_left_behind(scene, host, entry, data) => {
            left_behind(scene, &removal(ResourceKind::Guest))?
        }
        OwnedKind::Guest => guest(scene, &removal(ResourceKind::Guest), data)?,
        OwnedKind::Pool => {
            let effect = Effect::RemovePool { name: name.to_owned() };
            vec![removal(ResourceKind::Pool).step(Wave::ReleasePool, format!("remove pool {name}"), effect)]
        }
        OwnedKind::IscsiSession => session(&removal(ResourceKind::Session))?,
        OwnedKind::Secret => secret(&removal(ResourceKind::Secret))?,
        OwnedKind::Unit => {
            let title = format!("stop and remove {name}");
            run(ResourceKind::Mount, Wave::ReleaseMount, title, mount_unit::remove(name))
        }
        OwnedKind::File => file(&removal(ResourceKind::File))?,
        OwnedKind::Block => block(scene, &removal(ResourceKind::File))?,
        OwnedKind::GlusterVolume => {
            let title = format!("stop and delete volume {name}, its bricks keep their data");
            run(ResourceKind::Volume, Wave::ReleaseExport, title, gluster::commands::stop_and_delete(name))
        }
        OwnedKind::KernelExport => {
            let title = format!("remove {name}, the directory keeps its data");
            let file = removal(ResourceKind::Export).path()?;
            run(ResourceKind::Export, Wave::ReleaseExport, title, nfs::commands::kernel::unexport(&file))
        }
        OwnedKind::GaneshaExport => ganesha_export(&removal(ResourceKind::Export))?,
        OwnedKind::IscsiTarget => {
            let detail = |key: &str| entry.detail.get(key).map_or("", String::as_str);
            let target = removal(ResourceKind::Target);
            let forget = iscsi::commands::tgt::forget(detail("iqn"), detail("user"), &target.path()?);
            let title = format!("withdraw target {}, its LUNs keep their data", detail("iqn"));
            vec![target.step(Wave::ReleaseExport, title, Effect::Run(vec![forget]))]
        }
        OwnedKind::LioTarget => {
            let detail = |key: &str| entry.detail.get(key).map_or("", String::as_str);
            let objects = detail("objects").split_whitespace();
            let commands = iscsi::commands::lio::forget(name, objects, detail("stamp"));
            let title = format!("withdraw target {name}, its LUNs keep their data");
            run(ResourceKind::Target, Wave::ReleaseExport, title, commands)
        }
        OwnedKind::BackingFile => backing_file(&removal(ResourceKind::Lun), data)?,
        // Without its LUN a device is the user's again, with all that is on it.
        OwnedKind::BackingDevice => Vec::new(),
        OwnedKind::LogicalVolume => logical_volume(&removal(ResourceKind::Lun), data),
        OwnedKind::GlusterPeer => {
            let title = format!("detach peer {name}");
            run(ResourceKind::Peer, Wave::ReleaseService, title, gluster::commands::detach(name))
        }
        OwnedKind::Service => {
            let title = format!("stop and disable {name}");
            run(ResourceKind::Service, Wave::ReleaseHost, title, vec![service::stop_and_disable(name)])
        }
        OwnedKind::Directory => {
            let path = removal(ResourceKind::Directory).path()?;
            let title = format!("remove directory {path} if it is empty");
            run(ResourceKind::Directory, Wave::ReleaseHost, title, remove_directory(&path).into())
        }
        OwnedKind::DataDirectory => data_directory(&removal(ResourceKind::Brick), data)?,
        OwnedKind::Firewall => {
            let commands = guard::close(scene, host, name)?;
            let title = format!("take stor's rules out of the firewall ({name})");
            let steps = run(ResourceKind::Firewall, Wave::ReleaseHost, title, commands.clone());
            if commands.is_empty() { Vec::new() } else { steps }
        }
        OwnedKind::Boolean => match guard::former(scene, host, entry)? {
            Some(command) => {
                let title = format!("set SELinux boolean {name} back");
                run(ResourceKind::Boolean, Wave::ReleaseHost, title, vec![command])
            }
            None => Vec::new(),
        },
        OwnedKind::Image => image(scene, &removal(ResourceKind::Image), data)?,
        OwnedKind::Member | OwnedKind::DeadHost => Vec::new(),
    })
}

/// After the pool, which has logged out at one of the portals.
fn session(removal: &Removal<'_>) -> Result<Vec<Step>, Box<Blocked>> {
    let (iqn, detail) = (removal.entry.name.as_str(), &removal.entry.detail);
    let words = |name: &str| detail.get(name).map_or("", String::as_str).split_whitespace();
    let leave = iscsi::commands::open_iscsi::leave(iqn, words("devices"), words("portals"));
    let stamp = detail.get("stamp").map(|path| Command::new("rm").args(["-f", "--", path.as_str()]));
    let commands = [leave].into_iter().chain(stamp).collect();
    let title = format!("log out of target {iqn}, its LUNs keep their data");
    Ok(vec![removal.step(Wave::ReleaseMount, title, Effect::Run(commands))])
}

/// After the pools and sessions that log in with it.
fn secret(removal: &Removal<'_>) -> Result<Vec<Step>, Box<Blocked>> {
    let name = &removal.entry.name;
    let damaged = |reason: String| {
        let subject = ResourceId::new(removal.kind, name);
        let blocked = Blocked::new(Wave::ReleaseMount, subject, reason).on(removal.host);
        Box::new(
            blocked.hint("the record names it wrongly: remove the secret with virsh, and the entry by hand"),
        )
    };
    let id = name.parse().map(SecretId).map_err(|_| damaged(format!("{name:?} is no UUID of a secret")))?;
    let stamp = removal.entry.detail.get("stamp").map_or("", String::as_str);
    let stamp = AbsPath::new(stamp).map_err(|error| damaged(error.to_string()))?;
    let title = format!("remove secret {id} from libvirt");
    Ok(vec![removal.step(Wave::ReleaseMount, title, Effect::RemoveSecret { id, stamp })])
}

/// The line that includes the file goes first: a missing file would keep the server from starting.
fn ganesha_export(removal: &Removal<'_>) -> Result<Vec<Step>, Box<Blocked>> {
    use nfs::commands::ganesha;
    let file = removal.path()?;
    let marker = removal.entry.detail.get("marker").map_or("", String::as_str);
    let include = ganesha::include(marker, None);
    let title = format!("remove the line that includes {file} from {}", include.path);
    let first = removal.step(Wave::ReleaseExport, title, Effect::EditBlock(include));
    let title = format!("remove {file}, the directory keeps its data");
    let second = removal.step(Wave::ReleaseExport, title, Effect::Run(ganesha::unexport(&file)));
    Ok(vec![first, second])
}

/// Tells whether an entry is of a guest of the file on a host that is no hypervisor any more.
fn is_left_behind(scene: &Scene<'_>, host: &HostId, entry: &Owned, data: Data<'_>) -> bool {
    let in_file = scene.cluster.guests.keys().any(|guest| guest.as_str() == entry.name);
    in_file && scene.plain.contains_key(host) && matches!(data, Data::Keep)
}

/// A guest of the file is not undefined with its host: it moves away first, with its state.
fn left_behind(scene: &Scene<'_>, removal: &Removal<'_>) -> Result<Vec<Step>, Box<Blocked>> {
    let (name, host) = (removal.entry.name.as_str(), removal.host);
    let subject = ResourceId::new(ResourceKind::Guest, name);
    let domains = match scene.domains.get(host) {
        None | Some(Err(DomainsError::NoLibvirt(_))) => return Ok(Vec::new()),
        Some(Err(error)) => {
            return Err(Box::new(Blocked::unknown(Wave::ReleaseGuest, subject, error).on(host)));
        }
        Some(Ok(domains)) => domains,
    };
    let Some(domain) = domains.iter().find(|domain| domain.name == name) else { return Ok(Vec::new()) };
    let state = if domain.active { "runs" } else { "is defined" };
    let reason = format!("guest {name} {state} on {host}, which is no hypervisor any more");
    let hint = format!(
        "write `hypervisor: true` back, `stor migrate {name} --to HOST` (--cold when it is shut off), then take it away again"
    );
    Err(Box::new(Blocked::new(Wave::ReleaseGuest, subject, reason).on(host).hint(hint)))
}

/// A guest is undefined where it is now, and only when it is shut off and still the one that stor defined.
fn guest(scene: &Scene<'_>, removal: &Removal<'_>, data: Data<'_>) -> Result<Vec<Step>, Box<Blocked>> {
    let name = removal.entry.name.as_str();
    let subject = || ResourceId::new(ResourceKind::Guest, name);
    let unknown = |error: &DomainsError| !matches!(error, DomainsError::NoLibvirt(_));
    let domains = &scene.domains;
    if let Some((host, Err(error))) = domains.iter().find(|(_, seen)| seen.as_ref().is_err_and(unknown)) {
        return Err(Box::new(Blocked::unknown(Wave::ReleaseGuest, subject(), error).on(host)));
    }
    // A record of an older stor holds no UUID; then the file tells which domain of the name is the guest.
    let of_file = || GuestId::new(name).ok().filter(|id| scene.cluster.guests.contains_key(id));
    let recorded = removal.entry.detail.get("uuid").cloned();
    let uuid = recorded.clone().or_else(|| Some(scene.cluster.guest_uuid(&of_file()?)));
    let ours = |domain: &Domain| uuid.as_ref() == Some(&domain.uuid);
    let mut named = scene.domains_named(name);
    if recorded.is_none()
        && let Some((host, other)) = named.find(|(_, domain)| !ours(domain))
    {
        let reason = format!(
            "host {host} has a domain of this name, UUID {}, and nothing tells whether stor defined it",
            other.uuid
        );
        let hint = format!(
            "if it is the guest, write its <uuid> into its domain file, or `virsh undefine {name}` on {host}; else rename it"
        );
        return Err(Box::new(Blocked::new(Wave::ReleaseGuest, subject(), reason).on(host).hint(hint)));
    }
    let mut steps = Vec::new();
    for (host, domain) in scene.all_domains().filter(|(_, domain)| ours(domain)) {
        if domain.active {
            let reason = format!("guest {name} runs on {host}");
            let hint = format!("shut it down first, e.g. virsh shutdown {name}");
            return Err(Box::new(Blocked::new(Wave::ReleaseGuest, subject(), reason).on(host).hint(hint)));
        }
        if matches!(data, Data::Keep) {
            occupants::has_no_heir(scene, host, domain)?;
        }
        let effect = Effect::UndefineGuest { name: name.to_owned(), uuid: domain.uuid.clone() };
        let kept: String = domain.state.iter().map(|state| format!(", {state}")).collect();
        let title = format!("undefine guest {name}, its image{kept} stays");
        let mut step = removal.step(Wave::ReleaseGuest, title, effect);
        step.host = host.clone();
        steps.push(step);
    }
    Ok(steps)
}

fn file(removal: &Removal<'_>) -> Result<Vec<Step>, Box<Blocked>> {
    let mut paths = vec![removal.path()?];
    paths.extend(removal.entry.detail.get("companion").and_then(|path| AbsPath::new(&**path).ok()));
    let title = format!("remove {}", removal.entry.name);
    Ok(vec![removal.step(Wave::ReleaseMount, title, Effect::RemoveFiles(paths))])
}

/// The block goes; the file goes with it only if stor made the file and nobody wrote anything else into it.
fn block(scene: &Scene<'_>, removal: &Removal<'_>) -> Result<Vec<Step>, Box<Blocked>> {
    let path = removal.path()?;
    let marker = removal.entry.detail.get("marker").map_or(scene.cluster.name.as_str(), String::as_str);
    let spec =
        BlockSpec { path: path.clone(), mode: FileMode(0o600), marker: marker.to_owned(), lines: None };
    let title = format!("remove stor's block from {path}");
    let mut steps = vec![removal.step(Wave::ReleaseMount, title, Effect::EditBlock(spec))];
    if removal.entry.detail.contains_key("created") {
        let directory = path.parent();
        let make = Command::new("mkdir").args(["-p", "--", directory.as_str()]);
        let find = Command::new("find").args([directory.as_str(), "-maxdepth", "1", "-path", path.as_str()]);
        let commands = vec![make, find.args(["-type", "f", "-empty", "-delete"])];
        let title = format!("remove {path} if nothing else is in it");
        steps.push(removal.step(Wave::ReleaseMount, title, Effect::Run(commands)));
    }
    Ok(steps)
}

/// `rmdir` fails for a directory that is gone already; `mkdir -p` before it makes the pair repeatable.
fn remove_directory(path: &AbsPath) -> [Command; 2] {
    [
        Command::new("mkdir").args(["-p", "--", path.as_str()]),
        Command::new("rmdir").args(["--ignore-fail-on-non-empty", "--", path.as_str()]),
    ]
}

fn is_named(removal: &Removal<'_>, data: Data<'_>) -> bool {
    match (data, removal.entry.storage.as_deref().map(StorageId::new)) {
        (Data::Leave(named), Some(Ok(storage))) => named.0.contains(&storage),
        _ => false,
    }
}

fn data_directory(removal: &Removal<'_>, data: Data<'_>) -> Result<Vec<Step>, Box<Blocked>> {
    if !is_named(removal, data) {
        return Ok(Vec::new());
    }
    let path = removal.path()?;
    let remove = Command::new("rm").args(["-rf", "--one-file-system", "--", path.as_str()]);
    let remove = remove.deadline(DELETE_DEADLINE);
    let title = format!("delete {path} with everything in it");
    Ok(vec![removal.step(Wave::ReleaseHost, title, Effect::Run(vec![remove])).risking(Risk::DataLoss)])
}

fn backing_file(removal: &Removal<'_>, data: Data<'_>) -> Result<Vec<Step>, Box<Blocked>> {
    if !is_named(removal, data) {
        return Ok(Vec::new());
    }
    let path = removal.path()?;
    let title = format!("delete {path}, the data of a LUN");
    let effect = Effect::RemoveFiles(vec![path]);
    Ok(vec![removal.step(Wave::ReleaseHost, title, effect).risking(Risk::DataLoss)])
}

fn logical_volume(removal: &Removal<'_>, data: Data<'_>) -> Vec<Step> {
    let name = &removal.entry.name;
    let (true, Some((group, volume))) = (is_named(removal, data), name.split_once('/')) else {
        return Vec::new();
    };
    let title = format!("remove logical volume {name}, the data of a LUN");
    let effect = Effect::Run(vec![iscsi::commands::backing::remove_volume(group, volume)]);
    vec![removal.step(Wave::ReleaseHost, title, effect).risking(Risk::DataLoss)]
}

/// Deadline for deleting a brick's files.
const DELETE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(600);

/// An image is deleted through its mount, after its guest and before the mount goes; where nothing is mounted it goes with the bricks, or stays.
fn image(scene: &Scene<'_>, removal: &Removal<'_>, data: Data<'_>) -> Result<Vec<Step>, Box<Blocked>> {
    use crate::storage::Attached;
    let Some(Ok(storage)) = removal.entry.storage.as_deref().map(StorageId::new) else {
        return Ok(Vec::new());
    };
    let attached = scene.backend(&storage).map(|backend| backend.attached(removal.host, scene.seen));
    let (true, Some(Ok(Attached::Yes)), Ok(path)) = (is_named(removal, data), attached, removal.path())
    else {
        return Ok(Vec::new());
    };
    let title = format!("delete image {path}");
    let effect = Effect::RemoveFiles(vec![path]);
    Ok(vec![removal.step(Wave::ReleasePool, title, effect).risking(Risk::DataLoss)])
}

/// Says of which named storage stor owns no data: nothing is left to delete, or, if the file has no such storage either,
/// the name is a mistake and nothing at all is done.
pub(super) fn without_data(scene: &Scene<'_>, delete: &DeleteData) -> Proposal {
    let owned = |storage: &StorageId| {
        let entries = scene.records.values().flatten().flat_map(|record| &record.owned);
        let mut data = entries.filter(|entry| is_data(entry));
        data.any(|entry| entry.storage.as_deref() == Some(storage.as_str()))
    };
    let mut proposal = Proposal::default();
    for storage in delete.0.iter().filter(|storage| !owned(storage)) {
        let subject = ResourceId::new(ResourceKind::Storage, storage);
        let message = format!("stor owns no data of storage {storage} on the hosts that it could ask");
        if scene.cluster.storage.contains_key(storage) {
            let finding = Finding::new(Severity::Advice, FindingCode::DataNotOwned, subject, message);
            let remedy =
                "nothing, if it was deleted before; data that an earlier destroy left is yours to delete";
            proposal.findings.push(finding.remedy(remedy));
        } else {
            let blocked = Blocked::new(Wave::Record, subject, message);
            proposal.blocked.push(blocked.hint("name storage of the file, or storage that stor made before"));
        }
    }
    proposal
}
