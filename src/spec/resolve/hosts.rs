//! Hosts and how stor logs in to them. Imports what `resolve` imports.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::files;
use super::super::input::{At, Entries};
use super::super::problem::{Problem, Problems};
use super::super::raw::{RawElevation, RawHost, RawHypervisor, RawSsh};
use super::{named, number, optional};
use crate::model::HostId;
use crate::model::{Driver, Elevation, HostSpec, Role, SshSpec};

/// Resolves the hosts; the second map names all of them, also those with a problem.
pub fn resolve(
    raw: At<Entries<HostId, RawHost>>,
    common: RawSsh,
    base: &Path,
    problems: &mut Problems,
) -> (BTreeMap<HostId, HostSpec>, BTreeMap<HostId, Role>) {
    let (mut hosts, mut roles, mut addresses) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    if raw.value.entries.is_empty() {
        problems.add(|| Problem::new(raw.place, "hosts: no host is declared"));
    }
    let common = ssh(&common, "ssh", base, problems);
    for (At { value: id, .. }, host) in named("hosts", raw.value, problems) {
        let role = match host.hypervisor {
            None | Some(RawHypervisor::False) => Role::Server,
            Some(RawHypervisor::True | RawHypervisor::Kvm) => Role::Hypervisor(Driver::Qemu),
            Some(RawHypervisor::Xen) => Role::Hypervisor(Driver::Xen),
        };
        roles.insert(id.clone(), role);
        let own = host
            .ssh
            .as_ref()
            .map(|raw| ssh(raw, &format!("host {id}: ssh"), base, problems))
            .unwrap_or_default();
        let Some(address) = host.address.parse_at(format_args!("host {id}: address"), problems) else {
            continue;
        };
        if let Some((other, place)) = addresses.insert(address.value.clone(), (id.clone(), address.place)) {
            problems.add(|| {
                let message = format!("host {id}: address {} is also that of host {other}", address.value);
                Problem::new(address.place, message)
                    .and(place, "first used here")
                    .hint("give each host its own address")
            });
        }
        let ssh = own.over(&common);
        hosts.insert(id.clone(), HostSpec { id, address: address.value.to_string(), role, ssh });
    }
    (hosts, roles)
}

/// The login settings of one level: the file's or a host's own.
#[derive(Debug, Clone, Default)]
struct Login {
    user: Option<String>,
    port: Option<u16>,
    identity_file: Option<std::path::PathBuf>,
    elevation: Option<Elevation>,
}

impl Login {
    fn over(self, common: &Self) -> SshSpec {
        let elevation = self.elevation.or(common.elevation).unwrap_or(Elevation::Root);
        SshSpec {
            user: self.user.or_else(|| common.user.clone()),
            port: self.port.or(common.port),
            identity_file: self.identity_file.or_else(|| common.identity_file.clone()),
            elevation,
        }
    }
}

fn ssh(raw: &RawSsh, subject: &str, base: &Path, problems: &mut Problems) -> Login {
    let user = optional(raw.user.as_ref(), format_args!("{subject}: user"), problems);
    let key = optional(raw.identity_file.as_ref(), format_args!("{subject}: identity_file"), problems);
    let port = number(raw.port, 22, 1..=u16::MAX, format_args!("{subject}: port"), problems);
    Login {
        user: user.map(|at| at.value.0),
        port: raw.port.map(|_| port),
        identity_file: key
            .and_then(|at| files::locate(&at, base, format_args!("{subject}: identity_file"), problems)),
        elevation: raw.elevation.map(|elevation| match elevation {
            RawElevation::None => Elevation::Root,
            RawElevation::Sudo => Elevation::Sudo,
        }),
    }
}
