//! The hypervisors behind `qemu+ssh` and `xen+ssh`, one kept connection each, through the `virt` crate.
//!
//! Imports `host` (which ssh wrapper leads to a host), `spec` and `model`. Decides nothing about guests: it does what
//! it is asked and reports what libvirt said.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once, PoisonError, mpsc};
use std::time::{Duration, Instant};

use virt::connect::Connect;
use virt::error::Error;
use virt_sys as sys;

use super::{Connector, Hypervisor, LibvirtError, uri};
use crate::host::ssh::SshConfig;
use crate::model::{Driver, HostId, HostSpec};

mod domains;
mod pools;
mod secrets;

/// Time for ssh, its key exchange and the daemon's handshake. ssh's own ConnectTimeout only covers the first part.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// Time for the daemons to hear that stor leaves.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// A daemon that answers none of this many keepalive messages, this many seconds apart, is given up.
const KEEPALIVE: (i32, u32) = (5, 4);

/// Opens libvirt daemons over ssh; one connection per host is kept and reused, and opened anew when it broke.
pub struct SshConnector {
    ways: BTreeMap<HostId, (Driver, PathBuf)>,
    open: BTreeMap<HostId, Mutex<Option<Arc<SshHypervisor>>>>,
}

impl SshConnector {
    /// Makes a connector to the hypervisors of a cluster, through the ssh configuration that its hosts are reached by.
    #[must_use]
    pub fn new(hosts: &BTreeMap<HostId, HostSpec>, config: &SshConfig) -> Self {
        let way = |host: &HostSpec| {
            // A host that is no hypervisor any more still has pools, secrets and guests to be removed.
            let driver = host.role.driver().unwrap_or(Driver::Qemu);
            Some((host.id.clone(), (driver, config.wrapper(&host.id)?.to_owned())))
        };
        Self::from_wrappers(hosts.values().filter_map(way).collect())
    }

    /// Makes a connector from each host's driver and the wrapper that leads there: a program that takes ssh's arguments.
    #[must_use]
    pub fn from_wrappers(ways: BTreeMap<HostId, (Driver, PathBuf)>) -> Self {
        let open = ways.keys().map(|host| (host.clone(), Mutex::new(None))).collect();
        Self { ways, open }
    }
}

impl Connector for SshConnector {
    fn open(&self, host: &HostId) -> Result<Arc<dyn Hypervisor>, LibvirtError> {
        let (Some((driver, wrapper)), Some(slot)) = (self.ways.get(host), self.open.get(host)) else {
            let reason = "the cluster file has no such host".to_owned();
            return Err(LibvirtError::Connect { host: host.clone(), reason });
        };
        // Not asked under the lock: a connection that hangs must not keep others from opening their own.
        let kept = slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(kept) = kept.filter(|kept| kept.connect.is_alive().unwrap_or(false)) {
            return Ok(kept);
        }
        let uri = uri::control(host, *driver, wrapper);
        let connect = connect(host, uri.clone())?;
        let opened = Arc::new(SshHypervisor { host: host.clone(), driver: *driver, uri, connect });
        let before = slot.lock().unwrap_or_else(PoisonError::into_inner).replace(Arc::clone(&opened));
        drop(close(before));
        Ok(opened)
    }

    fn forsake(&self, host: &HostId) {
        if let Some(slot) = self.open.get(host) {
            drop(close(slot.lock().unwrap_or_else(PoisonError::into_inner).take()));
        }
    }
}

impl Drop for SshConnector {
    /// Closes all connections at once; one whose daemon does not answer is left behind.
    fn drop(&mut self) {
        let take = |slot: &Mutex<Option<_>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let closing: Vec<_> = self.open.values().map(|slot| close(take(slot))).collect();
        let end = Instant::now() + CLOSE_DEADLINE;
        for closed in closing {
            // Nothing is ever sent: the thread drops its end once the connection is closed.
            closed.recv_timeout(end.saturating_duration_since(Instant::now())).unwrap_or(());
        }
    }
}

/// Closes a connection in a thread of its own, because that asks the daemon once more; the receiver ends when it is closed.
fn close(connection: Option<Arc<SshHypervisor>>) -> mpsc::Receiver<()> {
    let (closed, receiver) = mpsc::channel();
    if let Some(connection) = connection {
        std::thread::spawn(move || {
            drop(connection);
            drop(closed);
        });
    }
    receiver
}

/// Opens one connection; the thread of an attempt that never ends is left behind.
fn connect(host: &HostId, uri: String) -> Result<Connect, LibvirtError> {
    let fail = |reason: String| LibvirtError::Connect { host: host.clone(), reason };
    start_events().map_err(fail)?;
    let (sender, receiver) = mpsc::channel();
    let attempt = move || {
        let opened = Connect::open(Some(&uri)).and_then(|connect| {
            connect.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1)?;
            Ok(connect)
        });
        // Nobody listens any more once the deadline has passed; the connection is then closed here.
        drop(sender.send(opened));
    };
    std::thread::Builder::new()
        .name(format!("libvirt {host}"))
        .spawn(attempt)
        .map_err(|error| fail(error.to_string()))?;
    match receiver.recv_timeout(CONNECT_DEADLINE) {
        Ok(Ok(connect)) => Ok(connect),
        Ok(Err(error)) => Err(fail(error.message().to_owned())),
        Err(_) => Err(fail(format!("no answer within {}", humantime::format_duration(CONNECT_DEADLINE)))),
    }
}

/// Starts libvirt's event loop, which keepalive needs, and keeps libvirt from printing errors by itself.
fn start_events() -> Result<(), String> {
    static START: Once = Once::new();
    static OUTCOME: Mutex<Option<String>> = Mutex::new(None);
    START.call_once(|| {
        if let Err(reason) = run_events() {
            *OUTCOME.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        }
    });
    match OUTCOME.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
        None => Ok(()),
        Some(reason) => Err(reason.clone()),
    }
}

fn run_events() -> Result<(), String> {
    super::lazy::load()?;
    virt::error::clear_error_callback();
    // Must come before the first connection is opened (virEventRegisterDefaultImpl).
    virt::event::event_register_default_impl().map_err(|error| error.message().to_owned())?;
    let events = || {
        loop {
            if let Err(error) = virt::event::event_run_default_impl() {
                tracing::warn!("libvirt's event loop: {}", error.message());
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    };
    let thread = std::thread::Builder::new().name("libvirt events".to_owned()).spawn(events);
    thread.map(drop).map_err(|error| format!("cannot start the event loop: {error}"))
}

/// One daemon over one connection.
struct SshHypervisor {
    host: HostId,
    driver: Driver,
    uri: String,
    connect: Connect,
}

impl SshHypervisor {
    /// Says on which host which action failed.
    fn failed(&self, action: impl Into<String>) -> impl FnOnce(Error) -> LibvirtError {
        let (host, action) = (self.host.clone(), action.into());
        move |error| LibvirtError::Call {
            host,
            action,
            reason: error.message().to_owned(),
            code: error.code().to_raw(),
        }
    }

    /// An error that libvirt did not number.
    fn refused(&self, action: impl Into<String>, reason: impl Into<String>) -> LibvirtError {
        LibvirtError::Call { host: self.host.clone(), action: action.into(), reason: reason.into(), code: 0 }
    }
}

/// Turns one of libvirt's "there is none" errors into `None`.
fn unless<T>(result: Result<T, Error>, absent: sys::virErrorNumber) -> Result<Option<T>, Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code().to_raw() == absent => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
