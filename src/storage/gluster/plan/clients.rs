//! Hypervisors: packages; then, as `storage::mount_client` has it, mount and pool.

use super::{Service, Subject, packages_of};
use crate::libvirt::qemu_conf;
use crate::model::{Difference, Effect, HostId, Proposal, Query, ResourceId, Step, StorageId, Wave};
use crate::storage::gluster::commands;
use crate::storage::gluster::spec::{Access, GlusterSpec};
use crate::storage::mount_client::{self, MountClient, Stop};
use crate::storage::packages::{self, PackagesError};

/// Everything that planning for a hypervisor wants answered.
pub(in crate::storage::gluster) fn queries(id: &StorageId, spec: &GlusterSpec) -> Vec<Query> {
    let mut queries = packages::queries(commands::client_needs(spec.access));
    queries.extend([qemu_conf::configuration(), qemu_conf::users()]);
    if spec.access == Access::Mount {
        queries.extend(mount_client::queries(id, &spec.mount));
    }
    queries
}

impl From<PackagesError> for Stop {
    fn from(error: PackagesError) -> Self {
        match error {
            PackagesError::Unknown(unknown) => unknown.into(),
            other => Self::Refused(other.to_string(), Some("install GlusterFS's client by hand".to_owned())),
        }
    }
}

/// Plans for one hypervisor.
pub(super) fn plan(subject: &Subject<'_>, host: &HostId, service: Service, out: &mut Proposal) {
    let Subject { cluster, id, spec, seen } = *subject;
    let packages = install(subject, host, &mut out.steps);
    if !keep(packages, (Wave::ClientPrerequisites, packages_of(host)), (subject, host), out) {
        return;
    }
    if spec.access == Access::Direct || service != Service::Coming {
        return;
    }
    let (unit, sources) =
        (commands::mount_unit(cluster, id, spec), commands::mount_sources(cluster, id, spec));
    let what = format!("volume {id}");
    let (unit, sources, what) = (&unit, &sources, what.as_str());
    let client = MountClient { cluster, id, seen, host, what, unit, fs_type: commands::KERNEL_TYPE, sources };
    let mount = client.mount(&mut out.steps);
    if !keep(mount, (Wave::Mount, client.mount_id()), (subject, host), out) {
        return;
    }
    let pool = client.pool(&mut out.steps);
    keep(pool, (Wave::Pool, client.pool_id()), (subject, host), out);
}

/// Notes why a part stopped; tells whether to go on.
fn keep(
    result: Result<(), Stop>,
    (wave, what): (Wave, ResourceId),
    (subject, host): (&Subject<'_>, &HostId),
    out: &mut Proposal,
) -> bool {
    let Err(stop) = result else { return true };
    out.blocked.push(stop.blocked(wave, what).on(host).serving(subject.id));
    false
}

fn install(subject: &Subject<'_>, host: &HostId, steps: &mut Vec<Step>) -> Result<(), Stop> {
    let needs = commands::client_needs(subject.spec.access);
    let (family, missing) = packages::missing(subject.seen, host, needs)?;
    if missing.is_empty() {
        return Ok(());
    }
    let effect = Effect::Run(packages::install(family, &missing));
    let title = format!("install {}", missing.join(" "));
    let mut step =
        Step::new(Wave::ClientPrerequisites, host, packages_of(host), title, effect).serving(subject.id);
    for name in missing {
        step = step.because(Difference::new(format!("package.{name}"), "installed", "absent"));
    }
    steps.push(step);
    Ok(())
}
