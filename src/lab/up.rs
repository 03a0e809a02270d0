//! Brings a lab up, or what of it is missing.
//!
//! The record is written before anything else is made, so that `down` finds a lab whose `up` was killed. Every step
//! makes sure of something instead of making it, so `up` after a crash converges.

use std::{
    path::PathBuf,
    sync::mpsc,
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    Lab, LabError, LabEvent, LabHost, LabSpec, access, boot, down,
    group::Groups,
    identity, names, network, prerequisites, process, root,
    settings::Settings,
    state::{self, Record},
    subnet::Subnet,
};
use crate::model::{Cancel, HostId, Stdin};

/// How long a host may take from its start until it lets stor in.
const BOOT: Duration = Duration::from_secs(120);

/// Brings up the lab of `spec`; hosts that run already are left alone, hosts that are new join.
///
/// # Errors
/// What this machine lacks, before anything is changed; [`LabError::Changed`] when the lab is up with other
/// addresses; [`LabError::Busy`]; [`LabError::Hosts`] when hosts do not start. What was made until then stays, for a
/// look at it; [`down()`](super::down()) removes it.
pub fn up(
    spec: &LabSpec,
    settings: &Settings,
    cancel: &Cancel,
    progress: &mut dyn FnMut(LabEvent),
) -> Result<Lab, LabError> {
    Subnet::of(&spec.hosts)?;
    let groups = prerequisites::check(settings)?;
    let root = root::ensure(settings, cancel, progress)?;
    let files = settings.lab(&spec.name);
    state::make_directory(&files.directory, 0o700)?;
    let _lock = state::lock(&spec.name, &files)?;

    let before = Record::load(&files)?;
    let record = merge(before.as_ref(), spec, root)?;
    let subnet = Subnet::of(&record.hosts)?;
    record.save(&files)?;
    let lab = Lab { record, files, subnet };
    lab.make_identities()?;
    network::ensure_switch(lab.name(), &lab.subnet)?;
    let started = lab.start_missing(&groups, cancel, progress)?;
    lab.await_hosts(&started, cancel, progress)?;
    let known: Vec<_> = before.map(|before| before.hosts).unwrap_or_default();
    if known.len() < lab.hosts().len() {
        let older = known.iter().filter(|host| !started.contains(&host.id));
        lab.introduce_new_hosts(older)?;
    }
    Ok(lab)
}

/// Joins what the lab is with what the file says.
fn merge(before: Option<&Record>, spec: &LabSpec, root: PathBuf) -> Result<Record, LabError> {
    let mut hosts = before.map(|before| before.hosts.clone()).unwrap_or_default();
    let changed = |before: String, now: String| LabError::Changed { lab: spec.name.clone(), before, now };
    for host in &spec.hosts {
        match hosts.iter().find(|known| known.id == host.id) {
            None => hosts.push(host.clone()),
            Some(known) if known == host => {}
            Some(known) => return Err(changed(describe(known), describe(host))),
        }
    }
    hosts.sort_by(|one, other| one.id.cmp(&other.id));
    if let Some(before) = before {
        let [was, is] = [Subnet::of(&before.hosts)?, Subnet::of(&hosts)?];
        if was != is {
            let tell = |subnet: Subnet| format!("network {subnet} and its own address {}", subnet.admin);
            return Err(changed(tell(was), tell(is)));
        }
    }
    // Layers belong to the root that they were begun on, even when this version of stor has another.
    let root = before.map_or(root, |before| before.root.clone());
    if !root.is_dir() {
        return Err(LabError::RootGone { lab: spec.name.clone(), root });
    }
    Ok(Record { name: spec.name.clone(), root, hosts })
}

fn describe(host: &LabHost) -> String {
    let kind = if host.hypervisor { "hypervisor" } else { "server" };
    format!("{kind} {} at {}", host.id, host.address)
}

impl Lab {
    fn make_identities(&self) -> Result<(), LabError> {
        identity::ensure_lab_key(self.name(), &self.files)?;
        let hosts_file = identity::hosts_file(self.hosts(), self.subnet.admin);
        for host in self.hosts() {
            identity::prepare(host, &self.files, &hosts_file)?;
        }
        identity::write_known_hosts(self.hosts(), &self.files)?;
        state::make_directory(&names::control_directory(self.name()), 0o700)
    }

    /// Starts the hosts that do not run, and gives their names.
    fn start_missing(
        &self,
        groups: &Groups,
        cancel: &Cancel,
        progress: &mut dyn FnMut(LabEvent),
    ) -> Result<Vec<HostId>, LabError> {
        let mut started = Vec::new();
        for host in self.hosts() {
            if self.is_running(&host.id) {
                progress(LabEvent::HostFound { host: host.id.clone() });
                continue;
            }
            if cancel.is_cancelled() {
                return Err(LabError::Cancelled);
            }
            down::clear_group(&groups.host(self.name(), &host.id))?;
            network::connect(self.name(), host, &self.subnet)?;
            boot::start(groups, self.name(), &host.id, &self.files.host(&host.id), &self.record.root)?;
            progress(LabEvent::HostStarting { host: host.id.clone() });
            started.push(host.id.clone());
        }
        Ok(started)
    }

    /// Waits until every host lets stor in.
    fn await_hosts(
        &self,
        started: &[HostId],
        cancel: &Cancel,
        progress: &mut dyn FnMut(LabEvent),
    ) -> Result<(), LabError> {
        let begun = Instant::now();
        let (tell, told) = mpsc::channel();
        let mut failures = std::thread::scope(|scope| {
            for host in self.hosts() {
                let tell = tell.clone();
                scope.spawn(move || {
                    let result = self.await_host(host, begun, cancel);
                    // The receiver lives until every sender is gone.
                    tell.send((host, result)).unwrap_or_default();
                });
            }
            drop(tell);
            let mut failures = Vec::new();
            for (host, result) in told {
                match result {
                    Err(error) => failures.push((&host.id, error)),
                    Ok(()) if started.contains(&host.id) => {
                        progress(LabEvent::HostReady { host: host.id.clone(), elapsed: begun.elapsed() });
                    }
                    Ok(()) => {}
                }
            }
            failures
        });
        failures.sort_by_key(|(host, _)| *host);
        match failures.len() {
            0 => Ok(()),
            _ if cancel.is_cancelled() => Err(LabError::Cancelled),
            _ => {
                let failures = failures.into_iter().map(|(_, error)| error).collect();
                Err(LabError::Hosts { lab: self.name().clone(), failures })
            }
        }
    }

    fn await_host(&self, host: &LabHost, begun: Instant, cancel: &Cancel) -> Result<(), LabError> {
        network::join(&names::switch_namespace(self.name()))?;
        let files = self.files.host(&host.id);
        let id = || (self.name().clone(), host.id.clone());
        loop {
            if access::is_listening(host) && access::lets_in(&self.access(), host)? {
                return Ok(());
            }
            if !self.is_running(&host.id) {
                let (lab, host) = id();
                return Err(LabError::Died { lab, host, console: boot::console_end(&files) });
            }
            if begun.elapsed() >= BOOT {
                let (lab, host) = id();
                return Err(LabError::Boot { lab, host, deadline: BOOT, console: boot::console_end(&files) });
            }
            if cancel.is_cancelled() {
                return Err(LabError::Cancelled);
            }
            sleep(Duration::from_millis(100));
        }
    }

    /// Tells hosts that were running already the names of the new ones.
    fn introduce_new_hosts<'a>(&self, older: impl Iterator<Item = &'a LabHost>) -> Result<(), LabError> {
        let text = identity::hosts_file(self.hosts(), self.subnet.admin);
        for host in older {
            let write =
                self.access().ssh(host.address).args(["tee", "/etc/hosts"]).stdin(Stdin::Text(text.clone()));
            network::inside(self.name(), || process::run(&write))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ClusterName;

    fn host(name: &str, last: u8, hypervisor: bool) -> LabHost {
        LabHost { id: HostId::new(name).unwrap(), address: [10, 77, 0, last].into(), hypervisor }
    }

    fn spec(hosts: Vec<LabHost>) -> LabSpec {
        LabSpec { name: ClusterName::new("demo").unwrap(), hosts }
    }

    fn record(hosts: Vec<LabHost>) -> Record {
        Record { name: ClusterName::new("demo").unwrap(), root: "/".into(), hosts }
    }

    #[test]
    fn new_hosts_join_and_old_ones_stay() {
        let before = record(vec![host("b", 2, false), host("c", 3, true)]);
        let merged =
            merge(Some(&before), &spec(vec![host("a", 4, true), host("c", 3, true)]), "/".into()).unwrap();
        let names: Vec<_> = merged.hosts.iter().map(|host| host.id.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn changed_address_is_refused() {
        let before = record(vec![host("a", 2, false)]);
        let error = merge(Some(&before), &spec(vec![host("a", 3, false)]), "/".into()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "lab demo is up with server a at 10.77.0.2, the cluster file now says server a at 10.77.0.3"
        );
    }

    #[test]
    fn host_that_takes_the_admins_address_is_refused() {
        let before = record(vec![host("a", 2, false)]);
        let error = merge(Some(&before), &spec(vec![host("b", 1, false)]), "/".into()).unwrap_err();
        assert!(matches!(error, LabError::Changed { .. }));
    }

    #[test]
    fn layers_keep_the_root_they_were_begun_on() {
        let before = record(vec![host("a", 2, false)]);
        let merged = merge(Some(&before), &spec(vec![]), "/tmp".into()).unwrap();
        assert_eq!(merged.root, PathBuf::from("/"));
        let gone = Record { root: "/no/such/root".into(), ..before };
        assert!(matches!(merge(Some(&gone), &spec(vec![]), "/".into()), Err(LabError::RootGone { .. })));
    }
}
