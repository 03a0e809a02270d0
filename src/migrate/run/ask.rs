//! Asks the hosts: where a guest is, and the facts that preflight wants.

use std::collections::BTreeMap;

use super::{Journey, Run};
use crate::libvirt::domain_xml::DomainSummary;
use crate::libvirt::{DomainFacts, JobStats, NodeFacts, domain_xml};
use crate::migrate::Site;
use crate::migrate::facts::{HostFacts, Known, Questions, ShellFacts};
use crate::model::{Driver, Finding, FindingCode, HostId, ResourceId, ResourceKind, Severity};

/// Asks every hypervisor for a domain, all at once.
pub(in crate::migrate) fn domain_everywhere(
    site: Site<'_>,
    name: &str,
) -> BTreeMap<HostId, Known<Option<DomainFacts>>> {
    let ask = |host: &HostId| {
        let found = site.connector.open(host).and_then(|hypervisor| hypervisor.domain(name));
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
        std::thread::scope(|scope| {
            let from = scope.spawn(|| self.facts_of(journey, &journey.from, &summary));
            let to = self.facts_of(journey, self.to, &summary);
            let broken = || {
                let text = "asking it failed".to_owned();
                Err(Box::new(self.trouble(journey, &journey.from, FindingCode::HostUnobserved, text)))
            };
            Ok((from.join().unwrap_or_else(|_| broken())?, to?))
        })
    }

    fn facts_of(
        &self,
        journey: &Journey<'_>,
        host: &HostId,
        summary: &DomainSummary,
    ) -> Result<HostFacts, Box<Finding>> {
        let shell = self.shell_facts(journey, host, summary)?;
        let daemon = self.daemon_facts(journey, host)?;
        Ok(HostFacts {
            host: host.clone(),
            address: self.site.cluster.hosts.get(host).map(|spec| spec.address.clone()).unwrap_or_default(),
            node: daemon.node.clone(),
            domains: daemon.domains,
            files: shell.files,
            remote: shell.remote,
            devices: shell.devices,
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
        })
    }

    fn shell_facts(
        &self,
        journey: &Journey<'_>,
        host: &HostId,
        summary: &DomainSummary,
    ) -> Result<ShellFacts, Box<Finding>> {
        let questions = Questions::about(host, summary, self.site.cluster);
        let towards = host != self.to && self.site.cluster.peers().any(|peer| peer.id == *host);
        let questions =
            if towards { questions.towards(self.site.cluster, &journey.address) } else { questions };
        let unobserved =
            |reason: String| Box::new(self.trouble(journey, host, FindingCode::HostUnobserved, reason));
        let shell =
            self.site.fleet.host(host).ok_or_else(|| unobserved("it is not reached over ssh".to_owned()))?;
        let answers = shell.query(&questions.queries()).map_err(|error| unobserved(error.to_string()))?;
        Ok(questions.read(&answers))
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
                job: if arriving { None } else { daemon.job(journey.guest.as_str())? },
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
