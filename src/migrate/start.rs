//! Starting a guest where it is defined, after every hypervisor was asked whether it runs there.
//!
//! Imports the rest of `migrate`, `libvirt`, `host`, `spec` and `model`. The one rule: never a second writer, and never
//! over a directory on which nothing is mounted.

use super::Site;
use super::facts::{LayerQuestions, PlaceFacts, Questions, ShellFacts, chain, disk_path, disk_url};
use super::image_locks;
use super::locate::{other_of_this_name, survey};
use super::members::unasked_members;
use super::run::{domain_everywhere, strangers};
use crate::host::claim::Locks;
use crate::host::{Holder, HostError, LockKind};
use crate::libvirt::domain_xml::{self, DiskAccess, DiskSource, DomainSummary, Layer};
use crate::libvirt::{DomainFacts, DomainState, LibvirtError};
use crate::model::{Cancel, Command, GuestId, HostId, HostSpec, Query};
use crate::spec::{Autostart, Cluster, GuestDefinition};
use crate::writers::{self, Domains, Hypervisors, Subject, User};

/// What a start found or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// The guest was started on this host.
    Now(HostId),
    /// It was already active on this host.
    Already(HostId),
}

/// Says why a guest was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A hypervisor could not be asked: the guest may run there.
    #[error("guest {guest}: not started: it may run on a hypervisor that could not be asked: {reason}")]
    Unknown {
        /// The guest.
        guest: GuestId,
        /// Which ones and why.
        reason: String,
    },
    /// It runs on more than one hypervisor, or a migration holds it.
    #[error("guest {guest}: not started: {reason}")]
    Unplaced {
        /// The guest.
        guest: GuestId,
        /// What was seen.
        reason: String,
    },
    /// No hypervisor has it.
    #[error("guest {guest}: no hypervisor has a guest of this name")]
    NotDefined {
        /// The guest.
        guest: GuestId,
    },
    /// No hypervisor has it, but one has another domain of its name.
    #[error("guest {guest}: not started: host {host} has another domain of this name, UUID {uuid}")]
    Stranger {
        /// The guest.
        guest: GuestId,
        /// The hypervisor.
        host: HostId,
        /// The other domain's UUID.
        uuid: String,
    },
    /// libvirt knows it by another name.
    #[error("guest {guest}: it is called {name} on {host}")]
    Renamed {
        /// The guest.
        guest: GuestId,
        /// The hypervisor.
        host: HostId,
        /// Its name there.
        name: String,
    },
    /// A domain that is active uses what it would use.
    #[error("host {host}: guest {guest}: not started: its disk {user}")]
    InUse {
        /// The host.
        host: HostId,
        /// The guest.
        guest: GuestId,
        /// Who uses which disk.
        user: Box<User>,
    },
    /// Several hypervisors have a definition of it.
    #[error("guest {guest}: not started: it is defined on {}", hosts.join(" and "))]
    DefinedTwice {
        /// The guest.
        guest: GuestId,
        /// The hypervisors.
        hosts: Vec<String>,
    },
    /// Its image is not there, or not on the storage that the file names.
    #[error("host {host}: guest {guest}: not started: {reason}")]
    Image {
        /// The host.
        host: HostId,
        /// The guest.
        guest: GuestId,
        /// What is wrong with which file.
        reason: String,
    },
    /// Its image is there, but the locks that QEMU takes on it are not answered.
    #[error("host {host}: guest {guest}: not started: {reason}")]
    LockSilent {
        /// The host.
        host: HostId,
        /// The guest.
        guest: GuestId,
        /// Which file.
        reason: String,
    },
    /// The host could not be asked for its files.
    #[error("guest {guest}: its image could not be looked at")]
    Host {
        /// The guest.
        guest: GuestId,
        /// Why.
        #[source]
        source: HostError,
    },
    /// Another stor is at work on a hypervisor, or the lock that kept it away was lost.
    #[error("guest {guest}: not started: {reason}")]
    Locked {
        /// The guest.
        guest: GuestId,
        /// Who holds which host.
        reason: String,
    },
    /// libvirt refused.
    #[error("guest {guest}: not started")]
    Libvirt {
        /// The guest.
        guest: GuestId,
        /// What it said.
        #[source]
        source: LibvirtError,
    },
    /// The user wanted to stop.
    #[error("guest {guest}: not started: cancelled")]
    Cancelled {
        /// The guest.
        guest: GuestId,
    },
}

impl StartError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { .. } => Some(
                "bring that hypervisor back; or, if it is gone for good, take it out of the file and run `stor apply --dead NAME`"
                    .to_owned(),
            ),
            Self::NotDefined { .. } => Some("declare it in the cluster file and run `stor apply`".to_owned()),
            Self::DefinedTwice { guest, hosts } => {
                let host = hosts.last().map_or("", String::as_str);
                Some(format!("keep one: `virsh undefine {guest}` on {host}, say"))
            }
            Self::LockSilent { .. } => Some(image_locks::REMEDY.to_owned()),
            Self::Stranger { uuid, .. } => Some(other_of_this_name(uuid)),
            Self::Renamed { guest, name, .. } => {
                Some(format!("give it one name: `virsh domrename {name} {guest}`"))
            }
            Self::InUse { user, .. } => Some(format!(
                "shut {} down on {} and undefine it, or give each an image of its own: two writers destroy it",
                user.name, user.host
            )),
            Self::Image { .. } => Some("run `stor apply`, then `stor verify`".to_owned()),
            Self::Locked { .. } => Some("wait for it to end, then try again".to_owned()),
            Self::Unplaced { .. } | Self::Host { .. } | Self::Libvirt { .. } | Self::Cancelled { .. } => None,
        }
    }

    /// The exit code (`docs/exit-codes.md`).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unknown { .. } | Self::Host { .. } | Self::Locked { .. } => 5,
            Self::NotDefined { .. }
            | Self::Stranger { .. }
            | Self::Renamed { .. }
            | Self::InUse { .. }
            | Self::DefinedTwice { .. }
            | Self::Image { .. }
            | Self::LockSilent { .. } => 8,
            Self::Unplaced { .. } => 10,
            Self::Libvirt { .. } | Self::Cancelled { .. } => 1,
        }
    }
}

/// Starts a guest while no apply and no cold move is at work on any hypervisor; live moves of others go on.
///
/// # Errors
/// [`StartError`], as [`start`].
pub fn start_locked(
    site: Site<'_>,
    guest: &GuestId,
    holder: &Holder,
    cancel: &Cancel,
) -> Result<Started, StartError> {
    let holder = Holder { kind: LockKind::Shared, ..holder.clone() };
    let ask = |host: &HostSpec| (host.id.clone(), vec![Query::new(Command::new("true"))]);
    let mut locks = Locks::default();
    // A hypervisor that cannot be reached has no lock to take, and keeps the guest from being started below.
    locks.take(site.fleet, &holder, &site.cluster.hypervisors().map(ask).collect()).map_err(|busy| {
        let reason = busy.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        StartError::Locked { guest: guest.clone(), reason }
    })?;
    start(site, guest, cancel)
}

/// Starts a guest on the host that has its definition.
///
/// # Errors
/// [`StartError`]; nothing was started, unless libvirt itself reports an error after the start.
pub fn start(site: Site<'_>, guest: &GuestId, cancel: &Cancel) -> Result<Started, StartError> {
    let guest = guest.clone();
    let survey = survey(&domain_everywhere(site, &guest));
    let words = |hosts: Vec<&HostId>| hosts.into_iter().map(HostId::to_string).collect::<Vec<_>>();
    match survey.active.as_slice() {
        [] => {}
        [(host, domain)] => return named(&guest, host, domain).map(|()| Started::Already(host.clone())),
        several => {
            let hosts = words(several.iter().map(|(host, _)| host).collect());
            return Err(StartError::Unplaced {
                guest,
                reason: format!("it is active on {}", hosts.join(" and ")),
            });
        }
    }
    if !survey.transit.is_empty() {
        let hosts = words(survey.transit.iter().collect());
        let reason = format!("a migration holds it on {}", hosts.join(" and "));
        return Err(StartError::Unplaced { guest, reason });
    }
    if !survey.unseen.is_empty() {
        return Err(StartError::Unknown { guest, reason: survey.unseen.join("; ") });
    }
    if let Some(reason) = unasked_members(site) {
        return Err(StartError::Unknown { guest, reason });
    }
    let (host, domain) = match survey.defined.as_slice() {
        [] => {
            return Err(match strangers(site, &guest).into_iter().next() {
                None => StartError::NotDefined { guest },
                Some((host, other)) => StartError::Stranger { guest, host, uuid: other.uuid },
            });
        }
        [(host, domain)] => (host, domain),
        several => {
            let hosts = words(several.iter().map(|(host, _)| host).collect());
            return Err(StartError::DefinedTwice { guest, hosts });
        }
    };
    named(&guest, host, domain)?;
    check_images(site, &guest, host, domain)?;
    check_locks(site, &guest, host, domain)?;
    check_users(site, &guest, host, domain)?;
    if cancel.is_cancelled() {
        return Err(StartError::Cancelled { guest });
    }
    begin(site, &guest, host, domain)
}

/// Asks all hypervisors, last of all, whether a domain that is active uses what the guest is about to use.
fn check_users(
    site: Site<'_>,
    guest: &GuestId,
    host: &HostId,
    domain: &DomainFacts,
) -> Result<(), StartError> {
    let hosts: Vec<HostId> = site.cluster.hypervisors().map(|host| host.id.clone()).collect();
    let of = Hypervisors { hosts: &hosts, fleet: site.fleet, connector: site.connector };
    let subject = Subject { name: guest.as_str(), uuid: &domain.uuid, host, xml: &domain.xml };
    let unknown =
        |error: writers::Unknown| StartError::Unknown { guest: guest.clone(), reason: error.to_string() };
    let users = Domains::ask(of).and_then(|domains| domains.users(of, subject)).map_err(unknown)?;
    match users.into_iter().find(|user| user.active) {
        Some(user) => {
            Err(StartError::InUse { guest: guest.clone(), host: host.clone(), user: Box::new(user) })
        }
        None => Ok(()),
    }
}

fn named(guest: &GuestId, host: &HostId, domain: &DomainFacts) -> Result<(), StartError> {
    let renamed =
        || StartError::Renamed { guest: guest.clone(), host: host.clone(), name: domain.name.clone() };
    if domain.name == guest.as_str() { Ok(()) } else { Err(renamed()) }
}

fn begin(
    site: Site<'_>,
    guest: &GuestId,
    host: &HostId,
    domain: &DomainFacts,
) -> Result<Started, StartError> {
    let failed = |source| StartError::Libvirt { guest: guest.clone(), source };
    let mut daemon = site.connector.open(host).map_err(failed)?;
    holds_locks(site).map_err(|reason| StartError::Locked { guest: guest.clone(), reason })?;
    if let Err(error) = daemon.start_domain(&domain.uuid) {
        // A call that was given up, or whose connection broke, may have started it, or may yet: what the host shows decides.
        let again = site.connector.open(host).and_then(|daemon| Ok((daemon.domain(&domain.uuid)?, daemon)));
        match again {
            Ok((Some(seen), again)) if seen.state == DomainState::Running => daemon = again,
            Ok(_) if !error.is_unanswered() => return Err(failed(error)),
            Ok(_) | Err(_) => {
                let reason = format!(
                    "{error}; it may have started it on {host}, or may yet: `virsh domstate {guest}` there"
                );
                return Err(StartError::Unplaced { guest: guest.clone(), reason });
            }
        }
    }
    let autostart = site.cluster.guests.get(guest).is_some_and(|entry| match &entry.definition {
        GuestDefinition::Generated(shape) => shape.autostart == Autostart::On,
        GuestDefinition::Written { .. } => false,
    });
    if autostart && !domain.autostart {
        daemon.set_autostart(&domain.uuid, true).map_err(failed)?;
    }
    match daemon.domain(&domain.uuid).map_err(failed)?.map(|seen| seen.state) {
        Some(DomainState::Running | DomainState::Paused(_)) => Ok(Started::Now(host.clone())),
        other => Err(StartError::Unplaced {
            guest: guest.clone(),
            reason: format!("libvirt started it on {host}, but shows {other:?}"),
        }),
    }
}

/// Proves that the locks that this stor took on hypervisors are still held.
fn holds_locks(site: Site<'_>) -> Result<(), String> {
    let hosts: Vec<HostId> = site.cluster.hypervisors().map(|host| host.id.clone()).collect();
    let proved = site.fleet.each(&hosts, |id| site.fleet.host(id).map_or(Ok(()), |host| host.holds_lock()));
    let lost: Vec<String> =
        proved.into_values().filter_map(Result::err).map(|error| error.to_string()).collect();
    if lost.is_empty() { Ok(()) } else { Err(lost.join("; ")) }
}

/// The locks of the guest's images must be answered: QEMU would wait for them for ever.
fn check_locks(
    site: Site<'_>,
    guest: &GuestId,
    host: &HostId,
    domain: &DomainFacts,
) -> Result<(), StartError> {
    let summary = domain_xml::read(&domain.xml)
        .map_err(|source| StartError::Libvirt { guest: guest.clone(), source })?;
    let paths = image_locks::paths(&summary, site.cluster);
    // That the host can be asked was seen a moment ago.
    let Some(shell) = site.fleet.host(host).filter(|_| !paths.is_empty()) else { return Ok(()) };
    let answers = shell
        .query(&image_locks::queries(&paths))
        .map_err(|source| StartError::Host { guest: guest.clone(), source })?;
    match image_locks::silent(&paths, &answers).first() {
        None => Ok(()),
        Some(path) => Err(StartError::LockSilent {
            host: host.clone(),
            guest: guest.clone(),
            reason: image_locks::reason(path),
        }),
    }
}

/// Every file of the guest must exist, its images with all layers below them and of the format that its XML says; one below a
/// storage's mount point must be on that storage.
fn check_images(
    site: Site<'_>,
    guest: &GuestId,
    host: &HostId,
    domain: &DomainFacts,
) -> Result<(), StartError> {
    let cluster = site.cluster;
    let wrong = |reason: String| StartError::Image { host: host.clone(), guest: guest.clone(), reason };
    let summary: DomainSummary = domain_xml::read(&domain.xml)
        .map_err(|source| StartError::Libvirt { guest: guest.clone(), source })?;
    let questions = Questions::about(host, &summary, cluster).with_images(&summary, cluster);
    let shell = site.fleet.host(host).ok_or_else(|| wrong("the host is not reached over ssh".to_owned()))?;
    let ask = |queries: &[Query]| {
        shell.query(queries).map_err(|source| StartError::Host { guest: guest.clone(), source })
    };
    let mut facts = questions.read(host, cluster, &ask(&questions.queries())?);
    for disk in &summary.disks {
        if let Some(path) = disk_path(&disk.source, cluster) {
            check_file(cluster, &path, &facts.places).map_err(wrong)?;
        }
    }
    if let Some((url, Err(reason))) = facts.places.remote.iter().find(|(_, opened)| opened.is_err()) {
        return Err(wrong(format!("{url} cannot be opened: {reason}")));
    }
    let layers = check_disks(cluster, &summary, &facts).map_err(wrong)?;
    if let Some(more) = LayerQuestions::about(host, &layers, &summary, cluster) {
        facts.places.extend(more.read(host, cluster, &ask(&more.queries())?));
    }
    for layer in &layers {
        check_layer(cluster, &layer.source, &facts.places).map_err(wrong)?;
    }
    for path in summary.state.iter().filter_map(|state| state.place.as_ref()) {
        if let Some(misplaced) = facts.places.misplaced(path, cluster) {
            return Err(wrong(misplaced.reason()));
        }
    }
    match facts.boot_files.iter().find(|(_, readable)| !**readable) {
        Some((path, _)) => Err(wrong(format!("{path}, which it boots from, is not there"))),
        None => Ok(()),
    }
}

/// The layers of all disks, when they are known and every image has the format that the XML says.
fn check_disks(cluster: &Cluster, summary: &DomainSummary, facts: &ShellFacts) -> Result<Vec<Layer>, String> {
    let mut layers = Vec::new();
    for disk in &summary.disks {
        let target = &disk.target;
        match chain::format_fault(disk, &facts.images, cluster) {
            // What it only reads cannot be destroyed.
            Some(_) if disk.access == DiskAccess::ReadOnly || disk.device == "cdrom" => {}
            Some(Ok(reason)) => return Err(reason),
            Some(Err(reason)) => return Err(format!("disk {target}: its format is not known: {reason}")),
            None => {}
        }
        let below = chain::layers(disk, &facts.images, cluster)
            .map_err(|reason| format!("disk {target}: what its image builds on is not known: {reason}"))?;
        layers.extend(below);
    }
    Ok(layers)
}

fn check_file(cluster: &Cluster, path: &str, places: &PlaceFacts) -> Result<(), String> {
    let Some(file) = places.files.get(path) else { return Err(format!("{path} was not looked at")) };
    if let Some(misplaced) = places.misplaced(path, cluster) {
        return Err(misplaced.reason());
    }
    match file.stat.as_ref().map_err(|reason| format!("{path}: {reason}"))? {
        Some(_) => Ok(()),
        None => Err(format!("{path} is not there")),
    }
}

/// A layer below an image must be there, too.
fn check_layer(cluster: &Cluster, source: &DiskSource, places: &PlaceFacts) -> Result<(), String> {
    let gone = |place: &str, reason: &str| Err(format!("{place}, on which an image builds: {reason}"));
    if let Some(path) = disk_path(source, cluster) {
        return check_file(cluster, &path, places);
    }
    let url = disk_url(source, cluster);
    match (source, url.as_ref().and_then(|url| places.remote.get(url))) {
        (DiskSource::Block(path), _) => match places.devices.get(path) {
            Some(Ok(Some(_))) => Ok(()),
            Some(Ok(None)) => gone(path, "no such device"),
            Some(Err(reason)) => gone(path, reason),
            None => gone(path, "it was not looked at"),
        },
        (_, Some(Ok(()))) => Ok(()),
        (_, Some(Err(reason))) => gone(url.as_deref().unwrap_or_default(), reason),
        (other, None) => gone(&format!("{other:?}"), "stor cannot look at it"),
    }
}
