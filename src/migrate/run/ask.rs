//! Asks the hosts: where a guest is, and the facts that preflight wants.

use std::collections::{BTreeMap, BTreeSet};

use super::{Journey, Run};
use crate::libvirt::domain_xml::{DomainSummary, Layer};
use crate::libvirt::{DomainFacts, JobStats, NodeFacts, domain_xml};
use crate::migrate::Site;
use crate::migrate::facts::{HostFacts, Known, LayerQuestions, PlaceFacts, Questions, ShellFacts, chain};
use crate::migrate::image_locks;
use crate::model::{
    Answer, Driver, Finding, FindingCode, GuestId, HostId, Query, ResourceId, ResourceKind, Severity,
};

/// Asks every hypervisor for a guest, all at once: by its UUID, because another domain may have its name.
pub(in crate::migrate) fn domain_everywhere(
    site: Site<'_>,
    guest: &GuestId,
) -> BTreeMap<HostId, Known<Option<DomainFacts>>> {
    everywhere(site, &site.cluster.guest_uuid(guest))
}

/// The domains that have a guest's name and are not it, as far as the hypervisors can be asked.
pub(in crate::migrate) fn strangers(site: Site<'_>, guest: &GuestId) -> Vec<(HostId, DomainFacts)> {
    let uuid = site.cluster.guest_uuid(guest);
    let named = everywhere(site, guest.as_str()).into_iter();
    named
        .filter_map(|(host, answer)| Some((host, answer.ok()??)))
        .filter(|(_, domain)| domain.uuid != uuid)
        .collect()
}

/// Asks every hypervisor for a domain by UUID or name, all at once.
fn everywhere(site: Site<'_>, domain: &str) -> BTreeMap<HostId, Known<Option<DomainFacts>>> {
    let ask = |host: &HostId| {
        let found = site.connector.open(host).and_then(|hypervisor| hypervisor.domain(domain));
        found.map_err(|error| error.to_string())
    };
    std::thread::scope(|scope| {
        let asked: Vec<_> =
            site.cluster.hypervisors().map(|host| (host.id.clone(), scope.spawn(|| ask(&host.id)))).collect();
        let join = |(host, thread): (HostId, std::thread::ScopedJoinHandle<'_, _>)| {
            (host, thread.join().unwrap_or_else(|_| Err("asking it failed".to_owned())))
        };
        asked.into_iter().map(join).collect()
    })
}

/// What libvirt at one host says.
struct DaemonFacts {
    node: NodeFacts,
    domains: Vec<DomainFacts>,
    cpu: Known<Result<(), String>>,
    job: Option<JobStats>,
}

impl Run<'_> {
    /// The facts of both hosts, asked at the same time; a finding when a host cannot be asked.
    pub(super) fn facts(&self, journey: &Journey<'_>) -> Result<(HostFacts, HostFacts), Box<Finding>> {
        let summary = domain_xml::read(&journey.domain.xml).map_err(|error| {
            Box::new(self.trouble(journey, &journey.from, FindingCode::GuestNotDefined, error.to_string()))
        })?;
        let broken = || {
            let text = "asking it failed".to_owned();
            Box::new(self.trouble(journey, &journey.from, FindingCode::HostUnobserved, text))
        };
        let (mut from, mut to) = std::thread::scope(|scope| {
            let from = scope.spawn(|| self.facts_of(journey, &journey.from, &summary));
            let to = self.facts_of(journey, self.to, &summary);
            Ok::<_, Box<Finding>>((from.join().unwrap_or_else(|_| Err(broken()))?, to?))
        })?;
        // What lies below an image is only known once its host was asked; what that host does not know is judged later.
        let found =
            summary.disks.iter().filter_map(|disk| chain::layers(disk, &from.images, self.site.cluster).ok());
        let found: Vec<Layer> = found.flatten().collect();
        let (here, there) = std::thread::scope(|scope| {
            let here = scope.spawn(|| self.layers_of(journey, &journey.from, &found, &summary));
            let there = self.layers_of(journey, self.to, &found, &summary);
            Ok::<_, Box<Finding>>((here.join().unwrap_or_else(|_| Err(broken()))?, there?))
        })?;
        from.places.extend(here);
        to.places.extend(there);
        Ok((from, to))
    }

    /// Where layers lie that the XML does not name; no question where there are none.
    fn layers_of(
        &self,
        journey: &Journey<'_>,
        host: &HostId,
        layers: &[Layer],
        summary: &DomainSummary,
    ) -> Result<PlaceFacts, Box<Finding>> {
        let cluster = self.site.cluster;
        let Some(questions) = LayerQuestions::about(host, layers, summary, cluster) else {
            return Ok(PlaceFacts::default());
        };
        let answers = self.ask(journey, host, &questions.queries())?;
        Ok(questions.read(host, cluster, &answers))
    }

    fn ask(
        &self,
        journey: &Journey<'_>,
        host: &HostId,
        queries: &[Query],
    ) -> Result<Vec<Answer>, Box<Finding>> {
        let unobserved =
            |reason: String| Box::new(self.trouble(journey, host, FindingCode::HostUnobserved, reason));
        let shell =
            self.site.fleet.host(host).ok_or_else(|| unobserved("it is not reached over ssh".to_owned()))?;
        shell.query(queries).map_err(|error| unobserved(error.to_string()))
    }

    fn facts_of(
        &self,
        journey: &Journey<'_>,
        host: &HostId,
        summary: &DomainSummary,
    ) -> Result<HostFacts, Box<Finding>> {
        let (shell, silent_locks) = self.shell_facts(journey, host, summary)?;
        let daemon = self.daemon_facts(journey, host)?;
        Ok(HostFacts {
            host: host.clone(),
            address: self.site.cluster.hosts.get(host).map(|spec| spec.address.clone()).unwrap_or_default(),
            node: daemon.node.clone(),
            domains: daemon.domains,
            places: shell.places,
            images: shell.images,
            // What Linux says is domain 0's own memory; guests get what Xen has left.
            memory_available: match self.site.cluster.driver_of(host) {
                Some(Driver::Xen) => Ok(daemon.node.free_memory),
                _ => shell.memory_available,
            },
            bridges: shell.bridges,
            boot_files: shell.boot_files,
            pools: shell.pools,
            networks: shell.networks,
            cpu: daemon.cpu,
            xen: shell.xen,
            peer: shell.peer,
            job: daemon.job,
            silent_locks,
        })
    }

    fn shell_facts(
        &self,
        journey: &Journey<'_>,
        host: &HostId,
        summary: &DomainSummary,
    ) -> Result<(ShellFacts, BTreeSet<String>), Box<Finding>> {
        let cluster = self.site.cluster;
        let mut questions = Questions::about(host, summary, cluster);
        if host != self.to {
            questions = questions.with_images(summary, cluster);
            if cluster.peers().any(|peer| peer.id == *host) {
                questions = questions.towards(cluster, &journey.address);
            }
        }
        let locked = if host == self.to { image_locks::paths(summary, cluster) } else { Vec::new() };
        let mut batch = questions.queries();
        let asked = batch.len();
        batch.extend(image_locks::queries(&locked));
        let answers = self.ask(journey, host, &batch)?;
        let (facts, of_locks) = answers.split_at(asked.min(answers.len()));
        Ok((questions.read(host, cluster, facts), image_locks::silent(&locked, of_locks)))
    }

    fn daemon_facts(&self, journey: &Journey<'_>, host: &HostId) -> Result<DaemonFacts, Box<Finding>> {
        let arriving = host == self.to;
        let ask = || {
            let daemon = self.site.connector.open(host)?;
            let cpu = if arriving {
                daemon.cpu_fits(&journey.domain.xml).map_err(|error| error.to_string())
            } else {
                Ok(Ok(()))
            };
            Ok(DaemonFacts {
                node: daemon.node()?,
                domains: daemon.domains()?,
                cpu,
                job: if arriving { None } else { daemon.job(&journey.domain.uuid)? },
            })
        };
        ask().map_err(|error: crate::libvirt::LibvirtError| {
            Box::new(self.trouble(journey, host, FindingCode::DaemonDown, error.to_string()))
        })
    }

    fn trouble(&self, journey: &Journey<'_>, host: &HostId, code: FindingCode, reason: String) -> Finding {
        let subject = ResourceId::new(ResourceKind::Guest, journey.guest);
        let remedy = match code {
            FindingCode::DaemonDown => format!("`systemctl status libvirtd` on {host}"),
            _ => format!("`ssh {host}` must work, and `virsh` there"),
        };
        Finding::new(Severity::Error, code, subject, reason).on(host).remedy(remedy)
    }
}
