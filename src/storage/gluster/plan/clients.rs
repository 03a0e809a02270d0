//! Hypervisors: packages, mount, pool.

use super::{Service, Subject, packages_of};
use crate::libvirt::{pool_xml, pools};
use crate::model::{
    Blocked, Difference, Effect, HostId, Owned, OwnedKind, Proposal, Record, RecordError, ResourceId,
    ResourceKind, Step, StorageId, Unknown, Wave,
};
use crate::storage::gluster::commands;
use crate::storage::gluster::spec::{Access, GlusterSpec};
use crate::storage::mount_probe::mount_table::{self, Mount};
use crate::storage::mount_probe::mounts;
use crate::storage::mount_unit::{self, MountUnit, UnitState};
use crate::storage::packages::{self, PackagesError};
use crate::{libvirt::qemu_conf, model::Query, spec::Cluster};

/// Everything that planning for a hypervisor wants answered.
pub(in crate::storage::gluster) fn queries(id: &StorageId, spec: &GlusterSpec) -> Vec<Query> {
    let mut queries = packages::queries(commands::client_needs(spec.access));
    queries.extend([qemu_conf::configuration(), qemu_conf::users()]);
    if spec.access == Access::Mount {
        let unit = mount_unit::unit_name(&spec.mount);
        queries.extend([mounts(), mount_unit::state(&unit), mount_unit::text_on_host(&unit)]);
        queries.extend([mount_unit::first_entry(&spec.mount, &[]), pools::query([id.as_str()])]);
    }
    queries
}

/// Why a hypervisor's part cannot be planned.
enum Stop {
    Unknown(String),
    Refused(String, Option<String>),
}

impl From<Unknown> for Stop {
    fn from(error: Unknown) -> Self {
        Self::Unknown(error.to_string())
    }
}
impl From<PackagesError> for Stop {
    fn from(error: PackagesError) -> Self {
        match error {
            PackagesError::Unknown(unknown) => unknown.into(),
            other => Self::Refused(other.to_string(), Some("install GlusterFS's client by hand".to_owned())),
        }
    }
}
impl From<RecordError> for Stop {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Unknown(unknown) => unknown.into(),
            other => Self::Refused(other.to_string(), None),
        }
    }
}

fn refuse<T>(reason: String, hint: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Refused(reason, Some(hint.into())))
}

/// Plans for one hypervisor.
pub(super) fn plan(subject: &Subject<'_>, host: &HostId, service: Service, out: &mut Proposal) {
    let client = Client { subject, host };
    let packages = client.packages(&mut out.steps);
    if !client.keep(packages, Wave::ClientPrerequisites, packages_of(host), out) {
        return;
    }
    if subject.spec.access == Access::Direct || service != Service::Coming {
        return;
    }
    let mount = client.mount(&mut out.steps);
    if !client.keep(mount, Wave::Mount, client.mount_id(), out) {
        return;
    }
    let pool = client.pool(&mut out.steps);
    client.keep(pool, Wave::Pool, ResourceId::new(ResourceKind::Pool, subject.id), out);
}

/// The unit as the record of a hypervisor keeps it.
pub(in crate::storage::gluster) fn unit(id: &StorageId, spec: &GlusterSpec) -> Owned {
    Owned::new(OwnedKind::Unit, mount_unit::unit_name(&spec.mount))
        .of_storage(id)
        .with("path", spec.mount.as_str())
}

/// The mount point as the record of a hypervisor keeps it.
pub(in crate::storage::gluster) fn mount_point(id: &StorageId, spec: &GlusterSpec) -> Owned {
    Owned::new(OwnedKind::Directory, spec.mount.as_str()).of_storage(id)
}

/// The pool as the record of a hypervisor keeps it.
pub(in crate::storage::gluster) fn pool(id: &StorageId) -> Owned {
    Owned::new(OwnedKind::Pool, id.as_str()).of_storage(id)
}

/// Tells whether a mount's source is this volume, from whichever of its servers.
pub(in crate::storage::gluster) fn is_this_volume(
    cluster: &Cluster,
    id: &StorageId,
    spec: &GlusterSpec,
    source: &str,
) -> bool {
    commands::mount_sources(cluster, id, spec).contains(source)
}

/// What follows from the unit that is there.
enum UnitWork {
    /// stor's unit goes here; the difference says why it has to be written, if it has.
    Own(Option<Difference>),
    /// The user's own unit or fstab line mounts this volume: only started when it is not.
    Users,
}

struct Client<'a> {
    subject: &'a Subject<'a>,
    host: &'a HostId,
}

impl Client<'_> {
    /// Notes why a part stopped; tells whether to go on.
    fn keep(&self, result: Result<(), Stop>, wave: Wave, what: ResourceId, out: &mut Proposal) -> bool {
        let blocked = match result {
            Ok(()) => return true,
            Err(Stop::Unknown(reason)) => Blocked::unknown(wave, what, reason),
            Err(Stop::Refused(reason, hint)) => Blocked { hint, ..Blocked::new(wave, what, reason) },
        };
        out.blocked.push(blocked.on(self.host).serving(self.subject.id));
        false
    }

    fn mount_id(&self) -> ResourceId {
        ResourceId::new(ResourceKind::Mount, &self.subject.spec.mount)
    }

    fn step(&self, wave: Wave, what: ResourceId, title: String, effect: Effect) -> Step {
        Step::new(wave, self.host, what, title, effect).serving(self.subject.id)
    }

    fn packages(&self, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let needs = commands::client_needs(self.subject.spec.access);
        let (family, missing) = packages::missing(self.subject.seen, self.host, needs)?;
        if missing.is_empty() {
            return Ok(());
        }
        let effect = Effect::Run(packages::install(family, &missing));
        let title = format!("install {}", missing.join(" "));
        let mut step = self.step(Wave::ClientPrerequisites, packages_of(self.host), title, effect);
        for name in missing {
            step = step.because(Difference::new(format!("package.{name}"), "installed", "absent"));
        }
        steps.push(step);
        Ok(())
    }

    fn mount(&self, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let Subject { cluster, id, spec, seen } = *self.subject;
        let desired = commands::mount_unit(cluster, id, spec);
        let name = desired.name();
        let mounted = self.mounted()?;
        if mounted.is_none() {
            self.refuse_covering_files()?;
        }
        let state = seen.answer(self.host, &mount_unit::state(&name))?;
        let Some(state) = mount_unit::parse_state(&state.stdout) else {
            return refuse(
                format!("host {}: systemd does not answer: {}", self.host, state.stderr.trim()),
                "stor mounts with systemd units",
            );
        };
        let work = match self.unit(&desired, &state)? {
            UnitWork::Users if mounted.is_none() => {
                steps.push(self.start(&name, "mounted", "not mounted"));
                return Ok(());
            }
            UnitWork::Users => return Ok(()),
            UnitWork::Own(difference) => difference,
        };
        self.mount_point(mounted.as_ref(), steps)?;
        let write = work.is_some();
        if let Some(difference) = work {
            let title = format!("write the mount unit of {}", spec.mount);
            let effect = Effect::WriteFile(desired.file());
            let step = self.step(Wave::Mount, self.mount_id(), title, effect);
            steps.push(step.because(difference).owning(unit(id, spec)));
        }
        self.activate(&name, &state, write, mounted.is_some(), steps);
        Ok(())
    }

    /// What is mounted at the place, when it is this volume.
    fn mounted(&self) -> Result<Option<Mount>, Stop> {
        let Subject { cluster, id, spec, seen } = *self.subject;
        let table = mount_table::parse(&seen.answer(self.host, &mounts())?.stdout);
        let Some(mount) = mount_table::at(&table, &spec.mount) else { return Ok(None) };
        if mount.fs_type == commands::KERNEL_TYPE && is_this_volume(cluster, id, spec, &mount.source) {
            return Ok(Some(mount.clone()));
        }
        refuse(
            format!("host {}: {} is mounted already: {mount}", self.host, spec.mount),
            format!("unmount it there, or give storage {id} another path with `mount:`"),
        )
    }

    /// A mount would hide them, and a guest may be running from them.
    fn refuse_covering_files(&self) -> Result<(), Stop> {
        let Subject { id, spec, seen, .. } = *self.subject;
        let answer = seen.answer(self.host, &mount_unit::first_entry(&spec.mount, &[]))?;
        let Some(entry) = answer.stdout.lines().next() else { return Ok(()) };
        refuse(
            format!("host {}: nothing is mounted at {}, but it holds {entry}", self.host, spec.mount),
            format!("move these files away, or give storage {id} another path with `mount:`"),
        )
    }

    /// Decides whose unit mounts the place.
    fn unit(&self, desired: &MountUnit, state: &UnitState) -> Result<UnitWork, Stop> {
        let Subject { cluster, id, spec, seen } = *self.subject;
        let name = desired.name();
        let field = format!("mount.{}.unit", spec.mount);
        let answer = seen.answer(self.host, &mount_unit::text_on_host(&name))?;
        let text = answer.ok().then_some(answer.stdout.as_str());
        let record = Record::observed(seen, &cluster.name, self.host)?;
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
        if is_this_volume(cluster, id, spec, &state.what) {
            return Ok(UnitWork::Users);
        }
        let whose = if state.enabled == "generated" { "/etc/fstab" } else { state.fragment.as_str() };
        refuse(
            format!("host {}: {whose} has {} mounted at {}", self.host, state.what, spec.mount),
            format!("remove it there, or give storage {id} another path with `mount:`"),
        )
    }

    fn mount_point(&self, mounted: Option<&Mount>, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let Subject { id, spec, seen, .. } = *self.subject;
        let answer = seen.answer(self.host, &mount_unit::first_entry(&spec.mount, &[]))?;
        if mounted.is_some() || answer.ok() {
            return Ok(());
        }
        let title = format!("make the mount point {}", spec.mount);
        let effect = Effect::Run(vec![mount_unit::make_mount_point(&spec.mount)]);
        let difference = Difference::new(format!("mount.{}.directory", spec.mount), "present", "absent");
        let step = self.step(Wave::Mount, self.mount_id(), title, effect);
        steps.push(step.because(difference).owning(mount_point(id, spec)));
        Ok(())
    }

    /// Enables stor's unit and mounts; a volume that is mounted stays as it is.
    fn activate(&self, name: &str, state: &UnitState, written: bool, mounted: bool, steps: &mut Vec<Step>) {
        let spec = self.subject.spec;
        let mut commands = Vec::new();
        if written || state.needs_reload || !state.is_enabled() {
            commands.extend(mount_unit::enable(name));
        }
        if !mounted {
            commands.extend(mount_unit::start(name, &spec.mount, commands::KERNEL_TYPE));
        }
        if commands.is_empty() {
            return;
        }
        let field = format!("mount.{}", spec.mount);
        let (title, difference) = if !mounted {
            let observed = format!("{}, not mounted", state.summary());
            let title = format!("mount volume {} at {}", self.subject.id, spec.mount);
            (title, Difference::new(field, "enabled, active, mounted", observed))
        } else if state.is_enabled() {
            let title = format!("have systemd read the mount unit of {} again", spec.mount);
            (title, Difference::new(field, "unit file read", "an older unit file read"))
        } else {
            let title = format!("have {} mounted with the host", spec.mount);
            (title, Difference::new(field, "enabled", state.summary()))
        };
        let step = self.step(Wave::Mount, self.mount_id(), title, Effect::Run(commands));
        steps.push(step.because(difference));
    }

    fn start(&self, name: &str, desired: &str, observed: &str) -> Step {
        let spec = self.subject.spec;
        let effect = Effect::Run(mount_unit::start(name, &spec.mount, commands::KERNEL_TYPE));
        let title = format!("mount volume {} at {} with the user's own unit", self.subject.id, spec.mount);
        let difference = Difference::new(format!("mount.{}", spec.mount), desired, observed);
        self.step(Wave::Mount, self.mount_id(), title, effect).because(difference)
    }

    fn pool(&self, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let Subject { cluster, id, spec, seen } = *self.subject;
        let answer = seen.answer(self.host, &pools::query([id.as_str()]))?;
        let pools = match pools::parse(answer) {
            Ok(pools) => pools,
            Err(reason) => {
                return refuse(
                    format!("host {}: cannot ask libvirt for its pools: {reason}", self.host),
                    "install libvirt's daemon and clients there, and see `systemctl status libvirtd`",
                );
            }
        };
        let xml = pool_xml::dir_pool(id, &spec.mount);
        let field = |name: &str| format!("pool.{id}.{name}");
        let mut why = Vec::new();
        if let Some(found) = pools.get(id.as_str()) {
            // The builder's own XML always reads back.
            why = pool_xml::parse(&xml).map(|own| own.differences(&found.definition)).unwrap_or_default();
            if !found.active {
                why.push(Difference::new(field("state"), "active", "inactive"));
            }
            if !found.autostart {
                why.push(Difference::new(field("autostart"), "yes", "no"));
            }
            let owned = Record::observed(seen, &cluster.name, self.host)?.owns(OwnedKind::Pool, id.as_str());
            if !why.is_empty() && !owned {
                let seen: Vec<String> =
                    why.iter().map(|it| format!("{} is {}", it.field, it.observed)).collect();
                return refuse(
                    format!(
                        "host {}: pool {id} exists, stor did not make it, and {}",
                        self.host,
                        seen.join(", ")
                    ),
                    format!(
                        "give the storage another name, or remove the pool: `virsh pool-destroy {id}`, `virsh pool-undefine {id}`"
                    ),
                );
            }
            if owned && found.active && self.mounted()?.is_none() {
                why.push(Difference::new(
                    field("volumes"),
                    "as the mount has them",
                    "read before it was mounted",
                ));
            }
        } else {
            why.push(Difference::new(format!("pool.{id}"), "active, autostarted", "absent"));
        }
        if why.is_empty() {
            return Ok(());
        }
        let effect = Effect::EnsurePool { name: id.to_string(), xml };
        let what = ResourceId::new(ResourceKind::Pool, id);
        let title = match pools.get(id.as_str()) {
            Some(pool) if pool.active => format!("bring pool {id} up to date"),
            _ => format!("define and start pool {id}"),
        };
        let mut step = self.step(Wave::Pool, what, title, effect).owning(pool(id));
        step.why = why;
        steps.push(step);
        Ok(())
    }
}
