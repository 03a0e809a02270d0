//! What a fake daemon does with each call, short of moving guests.

use super::*;
use crate::libvirt::is_uuid;

impl FakeHypervisor {
    /// Waits for as long as the call is to hang.
    pub(super) fn wait_while_stalled(&self, action: &str) {
        let hangs = |state: &mut State| state.hang.as_ref().is_some_and(|hang| hang(&self.host, action));
        drop(
            self.shared.changed.wait_while(self.shared.lock(), hangs).unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Looks at the daemon.
    fn read<T>(
        &self,
        action: &str,
        work: impl FnOnce(&FakeDaemon) -> Result<T, (u32, String)>,
    ) -> Result<T, LibvirtError> {
        self.wait_while_stalled(action);
        let state = self.shared.lock();
        let daemon = state.daemons.get(&self.host).filter(|daemon| daemon.reachable);
        let daemon = daemon.ok_or_else(|| unreachable(&self.host))?;
        work(daemon).map_err(|(code, reason)| self.refused(action, code, reason))
    }

    /// Changes the daemon, unless a fault strikes, and notes the call.
    pub(super) fn change<T>(
        &self,
        action: &str,
        work: impl FnOnce(&mut FakeDaemon) -> Result<T, (u32, String)>,
    ) -> Result<T, LibvirtError> {
        self.wait_while_stalled(action);
        self.strike(action, Moment::Before)?;
        let done = {
            let mut state = self.shared.lock();
            let daemon = state.daemons.get_mut(&self.host).filter(|daemon| daemon.reachable);
            let daemon = daemon.ok_or_else(|| unreachable(&self.host))?;
            let done = work(daemon).map_err(|(code, reason)| self.refused(action, code, reason))?;
            state.calls.push(format!("{}: {action}", self.host));
            done
        };
        self.strike(action, Moment::After)?;
        Ok(done)
    }

    fn strike(&self, action: &str, moment: Moment) -> Result<(), LibvirtError> {
        let fault = self.shared.lock().fault.clone();
        match fault {
            Some(fault) if fault(&self.host, action, moment) => {
                Err(self.refused(action, code::OPERATION_FAILED, "the connection broke".to_owned()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn refused(&self, action: &str, code: u32, reason: String) -> LibvirtError {
        LibvirtError::Call { host: self.host.clone(), action: action.to_owned(), reason, code }
    }

    /// The name of the domain that is meant, by UUID or name.
    pub(super) fn named(&self, domain: &str) -> String {
        let state = self.shared.lock();
        let found = state
            .daemons
            .get(&self.host)
            .and_then(|daemon| daemon.domains.values().find(|found| is_uuid(domain) && found.uuid == domain));
        found.map_or(domain, |found| found.name.as_str()).to_owned()
    }

    fn on_domain(
        &self,
        verb: &str,
        domain: &str,
        work: impl FnOnce(&mut DomainFacts) -> Result<(), String>,
    ) -> Result<(), LibvirtError> {
        let name = &self.named(domain);
        self.change(&format!("{verb} guest {name}"), |daemon| {
            let domain = daemon.domains.get_mut(name).ok_or_else(|| no_domain(name))?;
            work(domain).map_err(|reason| (code::OPERATION_INVALID, reason))
        })
    }
}

fn no_domain(name: &str) -> (u32, String) {
    (code::NO_DOMAIN, format!("Domain not found: no domain with matching name '{name}'"))
}

fn no_pool(name: &str) -> (u32, String) {
    (code::NO_STORAGE_POOL, format!("Storage pool not found: no storage pool with matching name '{name}'"))
}

impl Hypervisor for FakeHypervisor {
    fn host(&self) -> &HostId {
        &self.host
    }

    fn node(&self) -> Result<NodeFacts, LibvirtError> {
        self.read("describe the host", |daemon| Ok(daemon.node.clone()))
    }

    fn domains(&self) -> Result<Vec<DomainFacts>, LibvirtError> {
        self.read("list guests", |daemon| Ok(daemon.domains.values().cloned().collect()))
    }

    fn domain(&self, name: &str) -> Result<Option<DomainFacts>, LibvirtError> {
        let name = self.named(name);
        self.read("look at a guest", |daemon| Ok(daemon.domains.get(&name).cloned()))
    }

    fn definition(&self, name: &str) -> Result<Secret, LibvirtError> {
        let name = self.named(name);
        let name = name.as_str();
        self.read(&format!("read the definition of guest {name}"), |daemon| {
            let domain = daemon.domains.get(name).ok_or_else(|| no_domain(name))?;
            Ok(Secret::new(domain.xml.clone()))
        })
    }

    fn keeps(&self, name: &str) -> Result<Keeps, LibvirtError> {
        let name = self.named(name);
        let name = name.as_str();
        self.read("look at what is kept of a guest", |daemon| {
            Ok(daemon.keeps.get(name).copied().unwrap_or_default())
        })
    }

    fn shutdown_domain(&self, name: &str) -> Result<(), LibvirtError> {
        let name = self.named(name);
        let name = name.as_str();
        self.change(&format!("shut down guest {name}"), |daemon| {
            let deaf = daemon.deaf.contains(name);
            let domain = daemon.domains.get_mut(name).ok_or_else(|| no_domain(name))?;
            if !domain.state.is_active() {
                return Err((code::OPERATION_INVALID, "domain is not running".to_owned()));
            }
            if !deaf {
                domain.state = DomainState::ShutOff;
            }
            Ok(())
        })
    }

    fn define_domain(&self, xml: &str) -> Result<(), LibvirtError> {
        let new = facts(xml, DomainState::ShutOff)?;
        self.change(&format!("define guest {}", new.name), |daemon| {
            if daemon.domains.values().any(|old| old.name == new.name || old.uuid == new.uuid) {
                return Err((code::OPERATION_FAILED, format!("domain '{}' already exists", new.name)));
            }
            daemon.domains.insert(new.name.clone(), new);
            Ok(())
        })
    }

    fn undefine_domain(&self, name: &str) -> Result<(), LibvirtError> {
        let name = self.named(name);
        let name = name.as_str();
        self.change(&format!("undefine guest {name}"), |daemon| {
            let domain = daemon.domains.get(name).ok_or_else(|| no_domain(name))?;
            if domain.state.is_active() {
                return Err((code::OPERATION_INVALID, "domain is running".to_owned()));
            }
            daemon.domains.remove(name);
            Ok(())
        })
    }

    fn start_domain(&self, name: &str) -> Result<(), LibvirtError> {
        self.on_domain("start", name, |domain| {
            if domain.state.is_active() {
                return Err("domain is already running".to_owned());
            }
            domain.state = DomainState::Running;
            Ok(())
        })
    }

    fn destroy_domain(&self, name: &str) -> Result<(), LibvirtError> {
        self.on_domain("stop", name, |domain| {
            if !domain.state.is_active() {
                return Err("domain is not running".to_owned());
            }
            domain.state = DomainState::ShutOff;
            Ok(())
        })
    }

    fn set_autostart(&self, name: &str, autostart: bool) -> Result<(), LibvirtError> {
        self.on_domain("set autostart of", name, |domain| {
            if !domain.persistent {
                return Err("cannot set autostart for transient domain".to_owned());
            }
            domain.autostart = autostart;
            Ok(())
        })
    }

    fn ensure_pool(&self, name: &str, xml: &str) -> Result<(), LibvirtError> {
        let desired = pool_xml::parse(xml)?;
        self.change(&format!("ensure pool {name}"), |daemon| {
            let pool = daemon.pools.entry(name.to_owned()).or_insert_with(|| FakePool {
                xml: xml.to_owned(),
                active: false,
                autostart: false,
                refreshed: 0,
            });
            let same =
                pool_xml::parse(&pool.xml).is_ok_and(|observed| desired.differences(&observed).is_empty());
            if !same {
                xml.clone_into(&mut pool.xml);
            }
            pool.refreshed += 1;
            pool.active = true;
            pool.autostart = true;
            Ok(())
        })
    }

    fn refresh_pool(&self, name: &str) -> Result<(), LibvirtError> {
        self.change(&format!("refresh pool {name}"), |daemon| {
            let pool = daemon.pools.get_mut(name).ok_or_else(|| no_pool(name))?;
            if !pool.active {
                return Err((code::OPERATION_INVALID, format!("storage pool '{name}' is not active")));
            }
            pool.refreshed += 1;
            Ok(())
        })
    }

    fn remove_pool(&self, name: &str) -> Result<(), LibvirtError> {
        self.change(&format!("remove pool {name}"), |daemon| {
            daemon.pools.remove(name);
            Ok(())
        })
    }

    fn ensure_secret(&self, id: SecretId, xml: &str, value: &Secret) -> Result<(), LibvirtError> {
        self.change(&format!("define secret {id}"), |daemon| {
            let old = daemon.secrets.remove(&id).and_then(|old| old.value);
            daemon.secrets.insert(id, FakeSecret { xml: xml.to_owned(), value: old });
            Ok(())
        })?;
        self.change(&format!("set the value of secret {id}"), |daemon| {
            let secret = daemon.secrets.get_mut(&id);
            secret.ok_or((code::NO_SECRET, "Secret not found".to_owned()))?.value = Some(value.clone());
            Ok(())
        })
    }

    fn remove_secret(&self, id: SecretId) -> Result<(), LibvirtError> {
        self.change(&format!("remove secret {id}"), |daemon| {
            daemon.secrets.remove(&id);
            Ok(())
        })
    }

    fn cpu_fits(&self, _domain_xml: &str) -> Result<Result<(), String>, LibvirtError> {
        self.read("compare the CPU", |daemon| Ok(daemon.cpu_lacks.clone().map_or(Ok(()), Err)))
    }

    fn migrate(&self, request: &MigrationRequest) -> Result<(), LibvirtError> {
        self.move_guest(request)
    }

    fn job(&self, domain: &str) -> Result<Option<JobStats>, LibvirtError> {
        self.read("look at the job", |_| Ok(()))?;
        Ok(self.poll_job(&self.named(domain)))
    }

    fn completed_job(&self, domain: &str) -> Result<Option<JobStats>, LibvirtError> {
        self.read("look at the job", |_| Ok(()))?;
        let key = (self.host.clone(), self.named(domain));
        Ok(self.shared.lock().completed.get(&key).cloned())
    }

    fn suspend_domain(&self, name: &str) -> Result<(), LibvirtError> {
        self.on_domain("suspend", name, |domain| {
            domain.state = DomainState::Paused(PauseReason::User);
            Ok(())
        })?;
        self.shared.changed.notify_all();
        Ok(())
    }

    fn resume_domain(&self, name: &str) -> Result<(), LibvirtError> {
        self.on_domain("resume", name, |domain| {
            domain.state = DomainState::Running;
            Ok(())
        })
    }

    fn set_max_downtime(&self, domain: &str, _downtime: Duration) -> Result<(), LibvirtError> {
        self.on_domain("set the downtime of", domain, |_| Ok(()))
    }

    fn abort_job(&self, domain: &str) -> Result<(), LibvirtError> {
        self.cancel_job(&self.named(domain))
    }
}
