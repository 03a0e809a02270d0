//! Domains of one daemon: looked at, defined, started, moved.

use std::time::Duration;

use virt::connect::Connect;
use virt::domain::{Domain, DomainPausedReason, DomainState as State, DomainStateReason, MigrateParameters};
use virt::enumutil::Enum;
use virt_sys as sys;

use super::{SshHypervisor, unless};
use crate::libvirt::domain_xml::StateKind;
use crate::libvirt::job::{self, GuestCpu, Which};
use crate::libvirt::{
    DomainFacts, DomainState, Hypervisor, JobOperation, JobStats, Keeps, LibvirtError, MigrationRequest,
    NodeFacts, PauseReason, domain_xml, is_uuid, xml,
};
use crate::model::{ByteSize, Driver, HostId, Secret, SecretId};

impl SshHypervisor {
    fn find(&self, domain: &str) -> Result<Option<Domain>, LibvirtError> {
        unless(look_up(&self.connect, domain), sys::VIR_ERR_NO_DOMAIN)
            .map_err(self.failed(format!("look up guest {domain}")))
    }

    /// Runs `work` on a domain that must exist.
    fn with<T>(
        &self,
        verb: &str,
        domain: &str,
        work: impl FnOnce(&Domain) -> Result<T, virt::error::Error>,
    ) -> Result<T, LibvirtError> {
        let found = look_up(&self.connect, domain).map_err(self.failed(format!("{verb} guest {domain}")))?;
        work(&found).map_err(self.failed(format!("{verb} guest {}", shown(&found, domain))))
    }

    fn facts(&self, domain: &Domain) -> Result<DomainFacts, LibvirtError> {
        let name = domain.name().map_err(self.failed("read a guest's name"))?;
        let look = |action: &str| self.failed(format!("{action} of guest {name}"));
        Ok(DomainFacts {
            uuid: domain.uuid_string().map_err(look("read the UUID"))?.to_ascii_lowercase(),
            state: self.state(domain, &name)?,
            persistent: domain.is_persistent().map_err(look("read the persistence"))?,
            // A transient domain has no autostart, and libvirt answers with an error.
            autostart: domain.is_persistent().map_err(look("read the persistence"))?
                && domain.autostart().map_err(look("read the autostart"))?,
            xml: domain.xml_desc(0).map_err(look("read the XML"))?,
            name,
        })
    }

    /// Removes a definition and leaves what the host keeps of the guest beside it: without KEEP_TPM libvirt deletes the state of an
    /// emulated TPM, and with it the keys of every disk that is sealed with it.
    fn undefine_only(&self, domain: &Domain, name: &str) -> Result<(), LibvirtError> {
        let action = format!("undefine guest {name}");
        if self.driver == Driver::Xen {
            // The Xen driver knows no such flags, and a guest's firmware variables are a file that it leaves alone.
            return domain.undefine_flags(0).map_err(self.failed(action));
        }
        let flags = sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | sys::VIR_DOMAIN_UNDEFINE_KEEP_TPM;
        let error = match domain.undefine_flags(flags) {
            Ok(()) => return Ok(()),
            Err(error) if error.code().to_raw() == sys::VIR_ERR_INVALID_ARG => error,
            Err(error) => return Err(self.failed(action)(error)),
        };
        // libvirt before 8.9 does not know KEEP_TPM and refuses it; it deletes the state of any emulated TPM.
        let text = domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE).map_err(self.failed(action.as_str()))?;
        let has_tpm = domain_xml::read(&text)?.state.iter().any(|state| state.kind == StateKind::Tpm);
        if has_tpm {
            let reason = format!(
                "this libvirt would delete the state of its TPM ({}); it can keep it from version 8.9 on",
                error.message()
            );
            return Err(self.refused(action, reason));
        }
        domain.undefine_flags(sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM).map_err(self.failed(action))
    }

    /// The state, or an error: virt 0.5 swallows a failed `virDomainGetState` and leaves -1, and "unknown" must never be
    /// taken for an answer when stor decides where a guest is.
    fn state(&self, domain: &Domain, name: &str) -> Result<DomainState, LibvirtError> {
        let action = format!("read the state of guest {name}");
        let (state, reason) = domain.state().map_err(self.failed(action.as_str()))?;
        let Enum::Known(state) = state else {
            return Err(self.refused(action, "libvirt gave no state that stor knows"));
        };
        // libxl calls a domain shut off while it still takes it down, its disks open; only then it is no longer active.
        let going = self.driver == Driver::Xen
            && matches!(state, State::Shutoff | State::Crashed)
            && domain.is_active().map_err(self.failed(action.as_str()))?;
        if going {
            return Ok(DomainState::ShuttingDown);
        }
        Ok(match state {
            State::Running | State::Blocked => DomainState::Running,
            State::Paused => DomainState::Paused(match reason {
                Enum::Known(DomainStateReason::Paused(Enum::Known(reason))) => pause_reason(reason),
                _ => PauseReason::Other,
            }),
            State::Shutdown => DomainState::ShuttingDown,
            State::Shutoff => DomainState::ShutOff,
            State::Crashed => DomainState::Crashed,
            State::PMSuspended => DomainState::Suspended,
            State::NoState => DomainState::Unknown,
        })
    }
}

fn look_up(connect: &Connect, domain: &str) -> Result<Domain, virt::error::Error> {
    if is_uuid(domain) {
        connect.lookup_domain_by_uuid_string(domain)
    } else {
        connect.lookup_domain_by_name(domain)
    }
}

/// What people call a domain.
fn shown(found: &Domain, domain: &str) -> String {
    found.name().unwrap_or_else(|_| domain.to_owned())
}

fn pause_reason(reason: DomainPausedReason) -> PauseReason {
    match reason {
        DomainPausedReason::User => PauseReason::User,
        DomainPausedReason::Migration => PauseReason::Migration,
        DomainPausedReason::PostCopy => PauseReason::PostCopy,
        DomainPausedReason::PostCopyFailed => PauseReason::PostCopyFailed,
        DomainPausedReason::IOError => PauseReason::IoError,
        DomainPausedReason::StartingUp => PauseReason::StartingUp,
        _ => PauseReason::Other,
    }
}

/// The flags of every migration that stor starts; an "unsafe" one is never among them.
fn migrate_flags(request: &MigrationRequest) -> u32 {
    let mut flags = sys::VIR_MIGRATE_LIVE
        | sys::VIR_MIGRATE_PEER2PEER
        | sys::VIR_MIGRATE_PERSIST_DEST
        | sys::VIR_MIGRATE_UNDEFINE_SOURCE
        | sys::VIR_MIGRATE_ABORT_ON_ERROR;
    if request.paused {
        flags |= sys::VIR_MIGRATE_PAUSED;
    }
    if request.post_copy {
        flags |= sys::VIR_MIGRATE_POSTCOPY;
    }
    flags
}

impl Hypervisor for SshHypervisor {
    fn host(&self) -> &HostId {
        &self.host
    }

    fn node(&self) -> Result<NodeFacts, LibvirtError> {
        let look = |action: &str| self.failed(action.to_owned());
        let connect = &self.connect;
        let capabilities = connect.capabilities().map_err(look("read the capabilities"))?;
        let uuid = xml::parse(&capabilities, "the capabilities")?
            .text_at("host/uuid")
            .map(str::to_ascii_lowercase)
            .unwrap_or_default();
        Ok(NodeFacts {
            uuid,
            hostname: connect.hostname().map_err(look("read the host name"))?,
            libvirt: u64::from(connect.lib_version().map_err(look("read libvirt's version"))?),
            qemu: u64::from(connect.hyp_version().map_err(look("read the hypervisor's version"))?),
            free_memory: ByteSize::from_bytes(connect.free_memory().map_err(look("read the free memory"))?),
            capabilities,
        })
    }

    fn domains(&self) -> Result<Vec<DomainFacts>, LibvirtError> {
        let found = self.connect.list_all_domains(0).map_err(self.failed("list guests"))?;
        let mut facts = found.iter().map(|domain| self.facts(domain)).collect::<Result<Vec<_>, _>>()?;
        facts.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(facts)
    }

    fn domain(&self, name: &str) -> Result<Option<DomainFacts>, LibvirtError> {
        self.find(name)?.map(|domain| self.facts(&domain)).transpose()
    }

    fn definition(&self, name: &str) -> Result<Secret, LibvirtError> {
        let flags = sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE;
        self.with("read the definition of", name, |domain| domain.xml_desc(flags)).map(Secret::new)
    }

    fn keeps(&self, name: &str) -> Result<Keeps, LibvirtError> {
        self.with("look at what is kept of", name, |domain| {
            // libxl keeps no snapshots, and its driver cannot be asked for them.
            let snapshots = if self.driver == Driver::Xen { 0 } else { domain.num_snapshots(0)? };
            Ok(Keeps { managed_save: domain.has_managed_save(0)?, snapshots })
        })
    }

    fn shutdown_domain(&self, name: &str) -> Result<(), LibvirtError> {
        self.with("shut down", name, Domain::shutdown)
    }

    fn define_domain(&self, text: &str) -> Result<(), LibvirtError> {
        let summary = domain_xml::read(text)?;
        let action = format!("define guest {}", summary.name);
        if self.find(&summary.name)?.is_some() {
            return Err(self.refused(action, "the host has a guest of this name"));
        }
        if let Some(uuid) = &summary.uuid {
            let found = self.connect.lookup_domain_by_uuid_string(uuid);
            if unless(found, sys::VIR_ERR_NO_DOMAIN).map_err(self.failed(action.as_str()))?.is_some() {
                return Err(self.refused(action, format!("the host has a guest with UUID {uuid}")));
            }
        }
        self.connect.define_domain_xml(text).map(drop).map_err(self.failed(action))
    }

    fn undefine_domain(&self, name: &str) -> Result<(), LibvirtError> {
        let Some(domain) = self.find(name)? else {
            return Err(self.refused(format!("undefine guest {name}"), "the host has no such guest"));
        };
        let name = shown(&domain, name);
        let active = domain.is_active().map_err(self.failed(format!("look at guest {name}")))?;
        if active {
            // libvirt would make it transient: its definition would be lost at the next stop.
            return Err(self.refused(format!("undefine guest {name}"), "it is not shut off"));
        }
        self.undefine_only(&domain, &name)
    }

    fn start_domain(&self, name: &str) -> Result<(), LibvirtError> {
        self.with("start", name, Domain::create)
    }

    fn destroy_domain(&self, name: &str) -> Result<(), LibvirtError> {
        self.with("stop", name, Domain::destroy)
    }

    fn set_autostart(&self, name: &str, autostart: bool) -> Result<(), LibvirtError> {
        self.with("set autostart of", name, |domain| domain.set_autostart(autostart))
    }

    fn ensure_pool(&self, name: &str, xml: &str) -> Result<(), LibvirtError> {
        self.make_pool(name, xml)
    }

    fn refresh_pool(&self, name: &str) -> Result<(), LibvirtError> {
        self.rescan_pool(name)
    }

    fn remove_pool(&self, name: &str) -> Result<(), LibvirtError> {
        self.drop_pool(name)
    }

    fn ensure_secret(&self, id: SecretId, xml: &str, value: &Secret) -> Result<(), LibvirtError> {
        self.make_secret(id, xml, value)
    }

    fn remove_secret(&self, id: SecretId) -> Result<(), LibvirtError> {
        self.drop_secret(id)
    }

    fn cpu_fits(&self, domain_xml: &str) -> Result<Result<(), String>, LibvirtError> {
        let summary = domain_xml::read(domain_xml)?;
        let Some(cpu) = xml::cut(domain_xml, "cpu", "a domain")? else { return Ok(Ok(())) };
        let guest = GuestCpu {
            xml: cpu,
            arch: summary.arch.as_deref(),
            machine: summary.machine.as_deref(),
            kind: &summary.kind,
        };
        match job::compare_cpu(&self.connect, guest) {
            Ok(()) => Ok(Ok(())),
            Err(error) if error.code().to_raw() == sys::VIR_ERR_CPU_INCOMPATIBLE => {
                Ok(Err(error.message().to_owned()))
            }
            Err(error) => Err(self.failed(format!("compare the CPU of guest {}", summary.name))(error)),
        }
    }

    fn migrate(&self, request: &MigrationRequest) -> Result<(), LibvirtError> {
        let parameters = MigrateParameters {
            uri: Some(request.stream.clone()),
            bandwidth: request.bandwidth.map(crate::model::Rate::mib_per_second),
            dest_xml: request.destination_xml.clone(),
            ..MigrateParameters::default()
        };
        // A connection of its own: beside a call that takes long, libvirt 9.0's client may leave another thread's call
        // unsent until the next keepalive (5 s seen), and the migration could be neither watched nor cancelled.
        let connect = super::connect(&self.host, self.uri.clone())?;
        let action = format!("migrate guest {}", request.domain);
        let domain = look_up(&connect, &request.domain).map_err(self.failed(action))?;
        let action = format!("migrate guest {}", shown(&domain, &request.domain));
        domain
            .migrate_to_uri3(Some(&request.destination), parameters, migrate_flags(request))
            .map_err(self.failed(action))
    }

    fn job(&self, domain: &str) -> Result<Option<JobStats>, LibvirtError> {
        let Some(found) = self.find(domain)? else { return Ok(None) };
        match job::stats(&found, Which::Current) {
            Ok(stats) => Ok(stats),
            Err(error) => match error.code().to_raw() {
                // A domain that has just left is no longer active, or no longer there.
                sys::VIR_ERR_OPERATION_INVALID | sys::VIR_ERR_NO_DOMAIN => Ok(None),
                // "migration statistics are available only on the source host"
                sys::VIR_ERR_OPERATION_UNSUPPORTED => {
                    Ok(Some(JobStats { operation: JobOperation::MigrationIn, ..JobStats::default() }))
                }
                _ => Err(self.failed(format!("read the job of guest {domain}"))(error)),
            },
        }
    }

    fn completed_job(&self, domain: &str) -> Result<Option<JobStats>, LibvirtError> {
        let Some(found) = self.find(domain)? else { return Ok(None) };
        job::stats(&found, Which::Completed)
            .map_err(self.failed(format!("read the last job of guest {domain}")))
    }

    fn suspend_domain(&self, name: &str) -> Result<(), LibvirtError> {
        self.with("suspend", name, |domain| domain.suspend().map(drop))
    }

    fn resume_domain(&self, name: &str) -> Result<(), LibvirtError> {
        self.with("resume", name, |domain| domain.resume().map(drop))
    }

    fn set_max_downtime(&self, domain: &str, downtime: Duration) -> Result<(), LibvirtError> {
        let millis = u64::try_from(downtime.as_millis()).unwrap_or(u64::MAX);
        self.with("set the downtime of", domain, |domain| domain.migrate_set_max_downtime(millis, 0))
    }

    fn abort_job(&self, domain: &str) -> Result<(), LibvirtError> {
        self.with("cancel the job of", domain, job::abort)
    }
}
