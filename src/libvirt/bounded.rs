//! Hypervisors whose calls end: each runs in a thread of its own, up to a deadline or until the user no longer waits.
//!
//! libvirt's calls have no deadline. A daemon answers keepalive messages while the call itself waits for a QEMU whose monitor is
//! silent, for a domain's job, or for a mount that hangs: the call then never returns. A thread that is stuck stays behind with its
//! connection; later calls get a new one. Imports `model` and the traits of `libvirt`.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::{Connector, DomainFacts, Hypervisor, JobStats, Keeps, LibvirtError, MigrationRequest, NodeFacts};
use crate::model::{Cancel, HostId, Secret, SecretId};

/// How long calls are waited for; tests shorten it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Connecting: longer than the connector's own deadline, so that its message is seen.
    pub connect: Duration,
    /// A look at a domain, or an order to its job. libvirt itself gives a domain's job lock up after 30 s
    /// (`QEMU_JOB_WAIT_TIME`) and then says who holds it.
    pub look: Duration,
    /// A look at the whole host: its daemon may first ask every QEMU what it can do.
    pub host: Duration,
    /// A change: a FUSE mount that hangs can hold a pool's start for a long time.
    pub change: Duration,
    /// What all calls together still get once the user no longer waits.
    pub grace: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(40),
            look: seconds(40),
            host: seconds(60),
            change: seconds(120),
            grace: seconds(1),
        }
    }
}

/// Time between two looks at whether the user still waits.
const TICK: Duration = Duration::from_millis(50);

/// Hands out hypervisors whose calls end.
pub struct Bounded {
    inner: Arc<dyn Connector>,
    patience: Patience,
    cancel: Cancel,
}

impl Bounded {
    /// Puts a limit to every call of a connector's hypervisors; `cancel` says when the user no longer waits.
    #[must_use]
    pub fn new(inner: Arc<dyn Connector>, patience: Patience, cancel: Cancel) -> Self {
        Self { inner, patience, cancel }
    }
}

impl Drop for Bounded {
    /// Closing a connection is a call as well, which may hang.
    fn drop(&mut self) {
        if self.cancel.is_abandoned() {
            std::mem::forget(Arc::clone(&self.inner));
        }
    }
}

impl Connector for Bounded {
    fn open(&self, host: &HostId) -> Result<Arc<dyn Hypervisor>, LibvirtError> {
        let (inner, id) = (Arc::clone(&self.inner), host.clone());
        let waiting = Waiting { host, cancel: &self.cancel, grace: self.patience.grace };
        let opened = waiting.run("connect".to_owned(), self.patience.connect, move || inner.open(&id))?;
        Ok(Arc::new(BoundedHypervisor {
            host: host.clone(),
            inner: opened,
            connector: Arc::clone(&self.inner),
            patience: self.patience,
            cancel: self.cancel.clone(),
        }))
    }

    fn forsake(&self, host: &HostId) {
        self.inner.forsake(host);
    }
}

/// A call that is waited for.
struct Waiting<'a> {
    host: &'a HostId,
    cancel: &'a Cancel,
    grace: Duration,
}

impl Waiting<'_> {
    /// Runs `work` in a thread of its own and waits for it, not longer than `limit`, nor than the grace once the user has given
    /// up.
    fn run<T: Send + 'static>(
        &self,
        action: String,
        limit: Duration,
        work: impl FnOnce() -> Result<T, LibvirtError> + Send + 'static,
    ) -> Result<T, LibvirtError> {
        let (sender, receiver) = mpsc::channel();
        let name = format!("libvirt {}", self.host);
        let call = move || {
            if sender.send(work()).is_err() {
                tracing::debug!("libvirt answered after its deadline");
            }
        };
        std::thread::Builder::new().name(name).spawn(call).map_err(|error| LibvirtError::Call {
            host: self.host.clone(),
            action: action.clone(),
            reason: error.to_string(),
            code: 0,
        })?;
        let begin = Instant::now();
        loop {
            match receiver.recv_timeout(TICK.min(limit)) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => {
                    let reason = "the call ended without a result".to_owned();
                    return Err(LibvirtError::Call { host: self.host.clone(), action, reason, code: 0 });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if begin.elapsed() >= limit {
                return Err(LibvirtError::Silent { host: self.host.clone(), action, within: limit });
            }
            if self.cancel.abandoned_for().is_some_and(|time| time >= self.grace) {
                return Err(LibvirtError::Abandoned { host: self.host.clone(), action });
            }
        }
    }
}

struct BoundedHypervisor {
    host: HostId,
    inner: Arc<dyn Hypervisor>,
    connector: Arc<dyn Connector>,
    patience: Patience,
    cancel: Cancel,
}

impl BoundedHypervisor {
    fn call<T: Send + 'static>(
        &self,
        action: impl Into<String>,
        limit: Duration,
        work: impl FnOnce(&dyn Hypervisor) -> Result<T, LibvirtError> + Send + 'static,
    ) -> Result<T, LibvirtError> {
        let inner = Arc::clone(&self.inner);
        let waiting = Waiting { host: &self.host, cancel: &self.cancel, grace: self.patience.grace };
        let result = waiting.run(action.into(), limit, move || work(&*inner));
        if matches!(result, Err(LibvirtError::Silent { .. })) {
            // Beside a call that is stuck, libvirt's client may leave others on the same connection unsent.
            self.connector.forsake(&self.host);
        }
        result
    }

    fn look<T: Send + 'static>(
        &self,
        action: impl Into<String>,
        work: impl FnOnce(&dyn Hypervisor) -> Result<T, LibvirtError> + Send + 'static,
    ) -> Result<T, LibvirtError> {
        self.call(action, self.patience.look, work)
    }

    /// A change; none is begun once the user no longer waits.
    fn change(
        &self,
        action: impl Into<String>,
        work: impl FnOnce(&dyn Hypervisor) -> Result<(), LibvirtError> + Send + 'static,
    ) -> Result<(), LibvirtError> {
        let action = action.into();
        if self.cancel.is_abandoned() {
            let (host, reason) = (self.host.clone(), "interrupted before it began".to_owned());
            return Err(LibvirtError::Call { host, action, reason, code: 0 });
        }
        self.call(action, self.patience.change, work)
    }

    /// A change to one guest.
    fn on(
        &self,
        verb: &str,
        name: &str,
        work: impl FnOnce(&dyn Hypervisor, &str) -> Result<(), LibvirtError> + Send + 'static,
    ) -> Result<(), LibvirtError> {
        let guest = name.to_owned();
        self.change(format!("{verb} guest {name}"), move |inner| work(inner, &guest))
    }

    /// An order about a guest's job: as quick as a look, and given even when the user no longer waits.
    fn order(
        &self,
        verb: &str,
        name: &str,
        work: impl FnOnce(&dyn Hypervisor, &str) -> Result<(), LibvirtError> + Send + 'static,
    ) -> Result<(), LibvirtError> {
        let guest = name.to_owned();
        self.look(format!("{verb} guest {name}"), move |inner| work(inner, &guest))
    }
}

impl Hypervisor for BoundedHypervisor {
    fn host(&self) -> &HostId {
        &self.host
    }

    fn node(&self) -> Result<NodeFacts, LibvirtError> {
        self.call("describe the host", self.patience.host, |inner| inner.node())
    }

    fn domains(&self) -> Result<Vec<DomainFacts>, LibvirtError> {
        self.look("list guests", |inner| inner.domains())
    }

    fn domain(&self, name: &str) -> Result<Option<DomainFacts>, LibvirtError> {
        let guest = name.to_owned();
        self.look(format!("look at guest {name}"), move |inner| inner.domain(&guest))
    }

    fn definition(&self, name: &str) -> Result<Secret, LibvirtError> {
        let guest = name.to_owned();
        self.look(format!("read the definition of guest {name}"), move |inner| inner.definition(&guest))
    }

    fn keeps(&self, name: &str) -> Result<Keeps, LibvirtError> {
        let guest = name.to_owned();
        self.look(format!("look at what is kept of guest {name}"), move |inner| inner.keeps(&guest))
    }

    fn shutdown_domain(&self, name: &str) -> Result<(), LibvirtError> {
        self.on("shut down", name, |inner, name| inner.shutdown_domain(name))
    }

    fn define_domain(&self, xml: &str) -> Result<(), LibvirtError> {
        let xml = xml.to_owned();
        self.change("define a guest", move |inner| inner.define_domain(&xml))
    }

    fn undefine_domain(&self, name: &str) -> Result<(), LibvirtError> {
        self.on("undefine", name, |inner, name| inner.undefine_domain(name))
    }

    fn start_domain(&self, name: &str) -> Result<(), LibvirtError> {
        self.on("start", name, |inner, name| inner.start_domain(name))
    }

    fn destroy_domain(&self, name: &str) -> Result<(), LibvirtError> {
        self.on("stop", name, |inner, name| inner.destroy_domain(name))
    }

    fn set_autostart(&self, name: &str, autostart: bool) -> Result<(), LibvirtError> {
        self.on("set autostart of", name, move |inner, name| inner.set_autostart(name, autostart))
    }

    fn ensure_pool(&self, name: &str, xml: &str) -> Result<(), LibvirtError> {
        let (pool, xml) = (name.to_owned(), xml.to_owned());
        self.change(format!("start pool {name}"), move |inner| inner.ensure_pool(&pool, &xml))
    }

    fn refresh_pool(&self, name: &str) -> Result<(), LibvirtError> {
        let pool = name.to_owned();
        let action = format!("refresh pool {name}");
        self.call(action, self.patience.host, move |inner| inner.refresh_pool(&pool))
    }

    fn remove_pool(&self, name: &str) -> Result<(), LibvirtError> {
        let pool = name.to_owned();
        self.change(format!("remove pool {name}"), move |inner| inner.remove_pool(&pool))
    }

    fn ensure_secret(&self, id: SecretId, xml: &str, value: &Secret) -> Result<(), LibvirtError> {
        let (xml, value) = (xml.to_owned(), value.clone());
        self.change(format!("set secret {id}"), move |inner| inner.ensure_secret(id, &xml, &value))
    }

    fn remove_secret(&self, id: SecretId) -> Result<(), LibvirtError> {
        self.change(format!("remove secret {id}"), move |inner| inner.remove_secret(id))
    }

    fn cpu_fits(&self, domain_xml: &str) -> Result<Result<(), String>, LibvirtError> {
        let xml = domain_xml.to_owned();
        self.call("compare the CPU", self.patience.host, move |inner| inner.cpu_fits(&xml))
    }

    /// The one call without a deadline: its caller watches it from another thread.
    fn migrate(&self, request: &MigrationRequest) -> Result<(), LibvirtError> {
        self.inner.migrate(request)
    }

    fn job(&self, domain: &str) -> Result<Option<JobStats>, LibvirtError> {
        let guest = domain.to_owned();
        self.look(format!("read the job of guest {domain}"), move |inner| inner.job(&guest))
    }

    fn completed_job(&self, domain: &str) -> Result<Option<JobStats>, LibvirtError> {
        let guest = domain.to_owned();
        self.look(format!("read the last job of guest {domain}"), move |inner| inner.completed_job(&guest))
    }

    fn suspend_domain(&self, name: &str) -> Result<(), LibvirtError> {
        self.order("suspend", name, |inner, name| inner.suspend_domain(name))
    }

    fn resume_domain(&self, name: &str) -> Result<(), LibvirtError> {
        self.order("resume", name, |inner, name| inner.resume_domain(name))
    }

    fn set_max_downtime(&self, domain: &str, downtime: Duration) -> Result<(), LibvirtError> {
        self.order("set the downtime of", domain, move |inner, name| inner.set_max_downtime(name, downtime))
    }

    fn abort_job(&self, domain: &str) -> Result<(), LibvirtError> {
        self.order("cancel the job of", domain, |inner, name| inner.abort_job(name))
    }
}
