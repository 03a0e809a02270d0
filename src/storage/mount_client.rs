//! What a hypervisor needs to have a storage mounted: unit, mount point, mount, and the directory pool on it. Pure.
//!
//! Shared by the backends that mount. Recognises what the user mounts himself and what stands in the way. Imports
//! `mount_unit`, `mount_probe`, `planning`, `pool`, `libvirt` (readers), `spec` and `model`. Packages and the unit's own words are the
//! backend's.

use std::collections::BTreeSet;

use super::Attached;
use super::mount_probe::mount_table::{self, Mount};
use super::mount_probe::mounts;
use super::mount_unit::{self, MountUnit, UnitState};
use super::planning::{Stop, refuse};
use super::pool::{self, Pool};
use crate::libvirt::qemu_conf;
use crate::model::{
    AbsPath, Difference, Driver, Effect, HostId, Observations, Owned, OwnedKind, Query, Record, ResourceId,
    ResourceKind, Risk, Step, StorageId, Unknown, Wave,
};
use crate::spec::Cluster;

/// Everything that planning for a mounted storage wants answered by a hypervisor.
#[must_use]
pub fn queries(id: &StorageId, path: &AbsPath) -> Vec<Query> {
    let unit = mount_unit::unit_name(path);
    vec![
        mounts(),
        mount_unit::state(&unit),
        mount_unit::text_on_host(&unit),
        mount_unit::first_entry(path, &[]),
        pool::query(id),
    ]
}

/// What the record of a hypervisor holds for a mounted storage.
#[must_use]
pub fn claims(id: &StorageId, path: &AbsPath) -> [Owned; 3] {
    [unit(id, path), mount_point(id, path), pool::claim(id)]
}

fn unit(id: &StorageId, path: &AbsPath) -> Owned {
    Owned::new(OwnedKind::Unit, mount_unit::unit_name(path)).of_storage(id).with("path", path.as_str())
}

fn mount_point(id: &StorageId, path: &AbsPath) -> Owned {
    Owned::new(OwnedKind::Directory, path.as_str()).of_storage(id)
}

/// Whether a hypervisor has a storage mounted, as the kernel's mount table shows it.
///
/// # Errors
/// [`Unknown`] when it was not observed.
pub fn attached(
    seen: &Observations,
    host: &HostId,
    path: &AbsPath,
    fs_type: &str,
    sources: &BTreeSet<String>,
) -> Result<Attached, Unknown> {
    let table = mount_table::parse(&seen.answer(host, &mounts())?.stdout);
    Ok(match mount_table::at(&table, path) {
        None => Attached::No,
        // A directory of the storage that is bound there holds other files.
        Some(mount) if mount.fs_type == fs_type && sources.contains(&mount.source) && mount.root == "/" => {
            Attached::Yes
        }
        Some(mount) => Attached::Other(mount.to_string()),
    })
}

/// The user who has to own a storage's top directory: QEMU's, where all hypervisors agree and it is not root.
///
/// Numbers count, because files carry numbers. A hypervisor that was not observed does not vote, nor does Xen, whose QEMU is
/// root.
#[must_use]
pub fn qemu_owner(cluster: &Cluster, seen: &Observations) -> Option<u32> {
    let mut uids = cluster.hypervisors_with(Driver::Qemu).filter_map(|host| {
        let conf = seen.answer(&host.id, &qemu_conf::configuration()).ok()?;
        let users = seen.answer(&host.id, &qemu_conf::users()).ok()?;
        qemu_conf::user(&conf.stdout, &users.stdout)?.uid(&users.stdout)
    });
    let first = uids.next()?;
    (first != 0 && uids.all(|uid| uid == first)).then_some(first)
}

/// What follows from the unit that is there.
enum UnitWork {
    /// stor's unit goes here; the difference says why it has to be written, if it has.
    Own(Option<Difference>),
    /// The user's own unit or fstab line mounts this storage: only started when it is not.
    Users,
}

/// Whether what is mounted has to be mounted anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anew {
    /// What is mounted stays.
    No,
    /// It is unmounted before its server changes, and mounted again: its file handles would be another server's.
    Yes,
}

/// One mounted storage on one hypervisor.
#[derive(Debug, Clone, Copy)]
pub struct MountClient<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The storage; its pool has the same name.
    pub id: &'a StorageId,
    /// What the hosts showed.
    pub seen: &'a Observations,
    /// The hypervisor.
    pub host: &'a HostId,
    /// The storage in the words of its backend: `volume gfs`.
    pub what: &'a str,
    /// The unit as it should be.
    pub unit: &'a MountUnit,
    /// What the kernel's mount table calls the type.
    pub fs_type: &'static str,
    /// What it calls another version of the same, which has to be mounted anew.
    pub other_types: &'static [&'static str],
    /// The definition of its pool.
    pub pool: &'a str,
    /// What the mount table may have as the source.
    pub sources: &'a BTreeSet<String>,
    /// Whether it has to be mounted anew whatever is mounted.
    pub anew: Anew,
}

impl MountClient<'_> {
    /// What a step about the mount changes.
    #[must_use]
    pub fn mount_id(&self) -> ResourceId {
        ResourceId::new(ResourceKind::Mount, &self.unit.path)
    }

    /// What a step about the pool changes.
    #[must_use]
    pub fn pool_id(&self) -> ResourceId {
        ResourceId::new(ResourceKind::Pool, self.id)
    }

    fn step(&self, wave: Wave, what: ResourceId, title: String, effect: Effect) -> Step {
        Step::new(wave, self.host, what, title, effect).serving(self.id)
    }

    fn is_right(&self, mount: &Mount) -> bool {
        let known = mount.fs_type == self.fs_type || self.other_types.contains(&mount.fs_type.as_str());
        known && self.sources.contains(&mount.source)
    }

    /// Plans unit, mount point and mount.
    ///
    /// # Errors
    /// [`Stop`]
    pub fn mount(&self, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let Self { id, seen, host, .. } = *self;
        let name = self.unit.name();
        let mut mounted = self.mounted()?;
        if mounted.is_none() {
            self.refuse_covering_files()?;
        }
        let state = seen.answer(host, &mount_unit::state(&name))?;
        let Some(state) = mount_unit::parse_state(&state.stdout) else {
            return refuse(
                format!("host {host}: systemd does not answer: {}", state.stderr.trim()),
                "stor mounts with systemd units",
            );
        };
        let work = match self.whose(&state)? {
            UnitWork::Users if mounted.is_none() => {
                steps.push(self.start(&name, "mounted", "not mounted"));
                return Ok(());
            }
            UnitWork::Users => return Ok(()),
            UnitWork::Own(difference) => difference,
        };
        if let Some(old) = mounted.take_if(|mount| self.is_outdated(mount)) {
            if state.is_active() && !self.netfs_goes()? {
                steps.push(self.unmount(&name, &old));
            }
        } else {
            self.mount_point(mounted.as_ref(), steps)?;
        }
        let write = work.is_some();
        if let Some(difference) = work {
            let title = format!("write the mount unit of {}", self.unit.path);
            let effect = Effect::WriteFile(self.unit.file());
            let step = self.step(Wave::Mount, self.mount_id(), title, effect);
            steps.push(step.because(difference).owning(unit(id, &self.unit.path)));
        }
        self.activate(&name, &state, write, mounted.is_some(), steps);
        Ok(())
    }

    /// Tells whether a mount of this storage has to go and come back.
    fn is_outdated(&self, mount: &Mount) -> bool {
        self.anew == Anew::Yes || mount.fs_type != self.fs_type || matches!(self.netfs_goes(), Ok(true))
    }

    /// Tells whether a pool of libvirt's own mounts the storage now and has to give way.
    fn netfs_goes(&self) -> Result<bool, Stop> {
        let pool = self.libvirt_pool();
        let shown = match pool.shown() {
            Ok(shown) => shown,
            // Whether libvirt can be asked at all is said when the pool is planned.
            Err(Stop::Refused(..)) => None,
            Err(unknown) => return Err(unknown),
        };
        let netfs = shown.filter(|shown| shown.active && shown.definition.kind == "netfs");
        let goes = netfs.is_some_and(|shown| self.anew == Anew::Yes || !pool.differences(&shown).is_empty());
        Ok(goes && pool.is_own()?)
    }

    /// Fails, and changes nothing, while anybody has a file open there.
    fn unmount(&self, name: &str, old: &Mount) -> Step {
        let path = &self.unit.path;
        let effect = Effect::Run(mount_unit::stop(name));
        let title = format!("unmount {path}, to mount it anew");
        let desired = format!("{} from {}", self.fs_type, self.unit.source);
        let difference = Difference::new(format!("mount.{path}"), desired, format!("{old}, of before"));
        self.step(Wave::ReleaseMount, self.mount_id(), title, effect)
            .because(difference)
            .risking(Risk::Disruptive)
    }

    /// What is mounted at the place, when it is this storage.
    fn mounted(&self) -> Result<Option<Mount>, Stop> {
        let Self { id, seen, host, .. } = *self;
        let table = mount_table::parse(&seen.answer(host, &mounts())?.stdout);
        let Some(mount) = mount_table::at(&table, &self.unit.path) else { return Ok(None) };
        if self.is_right(mount) {
            return Ok(Some(mount.clone()));
        }
        refuse(
            format!("host {host}: {} is mounted already: {mount}", self.unit.path),
            format!("unmount it there, or give storage {id} another path with `mount:`"),
        )
    }

    /// A mount would hide them, and a guest may be running from them.
    fn refuse_covering_files(&self) -> Result<(), Stop> {
        let Self { id, seen, host, .. } = *self;
        let answer = seen.answer(host, &mount_unit::first_entry(&self.unit.path, &[]))?;
        let Some(entry) = answer.stdout.lines().next() else { return Ok(()) };
        refuse(
            format!("host {host}: nothing is mounted at {}, but it holds {entry}", self.unit.path),
            format!("move these files away, or give storage {id} another path with `mount:`"),
        )
    }

    /// Decides whose unit mounts the place.
    fn whose(&self, state: &UnitState) -> Result<UnitWork, Stop> {
        let Self { cluster, id, seen, host, .. } = *self;
        let (desired, name) = (self.unit, self.unit.name());
        let field = format!("mount.{}.unit", self.unit.path);
        let answer = seen.answer(host, &mount_unit::text_on_host(&name))?;
        let text = answer.ok().then_some(answer.stdout.as_str());
        let record = Record::observed(seen, &cluster.name, host)?;
        let headed = text.is_some_and(|text| text.starts_with(&mount_unit::header(&cluster.name)));
        if headed || record.owns(OwnedKind::Unit, &name) {
            return Ok(UnitWork::Own(match text {
                None => Some(Difference::new(field, mount_unit::unit_file(&name), "absent")),
                Some(text) if text != desired.text() => {
                    Some(Difference::new(field, "as the file says", "edited, or written for an older file"))
                }
                Some(_) => None,
            }));
        }
        // A mount that somebody made by hand has no file: it is gone after the next boot.
        if text.is_none() && state.fragment.is_empty() {
            return Ok(UnitWork::Own(Some(Difference::new(field, mount_unit::unit_file(&name), "absent"))));
        }
        if self.sources.contains(&state.what) {
            return Ok(UnitWork::Users);
        }
        let whose = if state.enabled == "generated" { "/etc/fstab" } else { state.fragment.as_str() };
        refuse(
            format!("host {host}: {whose} has {} mounted at {}", state.what, self.unit.path),
            format!("remove it there, or give storage {id} another path with `mount:`"),
        )
    }

    fn mount_point(&self, mounted: Option<&Mount>, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let Self { id, seen, host, .. } = *self;
        let answer = seen.answer(host, &mount_unit::first_entry(&self.unit.path, &[]))?;
        if mounted.is_some() || answer.ok() {
            return Ok(());
        }
        let title = format!("make the mount point {}", self.unit.path);
        let effect = Effect::Run(vec![mount_unit::make_mount_point(&self.unit.path)]);
        let difference = Difference::new(format!("mount.{}.directory", self.unit.path), "present", "absent");
        let step = self.step(Wave::Mount, self.mount_id(), title, effect);
        steps.push(step.because(difference).owning(mount_point(id, &self.unit.path)));
        Ok(())
    }

    /// Enables stor's unit and mounts; what is mounted stays as it is.
    fn activate(&self, name: &str, state: &UnitState, written: bool, mounted: bool, steps: &mut Vec<Step>) {
        let mut commands = Vec::new();
        if written || state.needs_reload || !state.is_enabled() {
            commands.extend(mount_unit::enable(name));
        }
        if !mounted {
            commands.extend(mount_unit::start(name, &self.unit.path, self.fs_type));
        }
        if commands.is_empty() {
            return;
        }
        let field = format!("mount.{}", self.unit.path);
        let (title, difference) = if !mounted {
            let observed = format!("{}, not mounted", state.summary());
            let title = format!("mount {} at {}", self.what, self.unit.path);
            (title, Difference::new(field, "enabled, active, mounted", observed))
        } else if state.is_enabled() {
            let title = format!("have systemd read the mount unit of {} again", self.unit.path);
            (title, Difference::new(field, "unit file read", "an older unit file read"))
        } else {
            let title = format!("have {} mounted with the host", self.unit.path);
            (title, Difference::new(field, "enabled", state.summary()))
        };
        let step = self.step(Wave::Mount, self.mount_id(), title, Effect::Run(commands));
        steps.push(step.because(difference));
    }

    fn start(&self, name: &str, desired: &str, observed: &str) -> Step {
        let effect = Effect::Run(mount_unit::start(name, &self.unit.path, self.fs_type));
        let title = format!("mount {} at {} with the user's own unit", self.what, self.unit.path);
        let difference = Difference::new(format!("mount.{}", self.unit.path), desired, observed);
        self.step(Wave::Mount, self.mount_id(), title, effect).because(difference)
    }

    /// Plans the mount point of a mount that a pool of libvirt's makes when it starts.
    ///
    /// # Errors
    /// [`Stop`] when something else is mounted there, or files would be hidden.
    pub fn leave_to_pool(&self, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let mounted = self.mounted()?;
        if mounted.is_none() {
            self.refuse_covering_files()?;
        }
        self.mount_point(mounted.as_ref(), steps)
    }

    /// Plans the pool on the mount.
    ///
    /// # Errors
    /// [`Stop`]
    pub fn pool(&self, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let (id, pool) = (self.id, self.libvirt_pool());
        let mut besides = Vec::new();
        if self.netfs_goes()? {
            let effect = Effect::RemovePool { name: id.to_string() };
            let title = format!("stop pool {id}, which unmounts it, to make it anew");
            let difference =
                Difference::new(format!("pool.{id}"), "as the file says", "mounted by libvirt as before");
            let step = self.step(Wave::ReleasePool, self.pool_id(), title, effect);
            steps.push(step.because(difference).risking(Risk::Disruptive));
            besides.push(Difference::new(pool.field("state"), "active", "stopped before"));
        }
        let active = pool.shown()?.is_some_and(|shown| shown.active);
        if active && pool.is_own()? && self.mounted()?.is_none() {
            let field = pool.field("volumes");
            besides.push(Difference::new(field, "as the mount has them", "read before it was mounted"));
        }
        steps.extend(pool.plan(besides)?);
        Ok(())
    }

    fn libvirt_pool(&self) -> Pool<'_> {
        let Self { cluster, id, seen, host, pool, .. } = *self;
        Pool { cluster, id, seen, host, xml: pool }
    }
}
