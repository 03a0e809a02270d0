//! One effect on one host: what `plan::expand` says, through `host` and `libvirt`.
//!
//! Imports `plan::expand`, `writers`, `host`, `libvirt` and `model`.

use std::sync::Arc;

use crate::host::{Fleet, Host, HostError};
use crate::libvirt::{Connector, Hypervisor, LibvirtError};
use crate::model::{AbsPath, BlockLine, BlockSpec, Command, HostId, PeerKey, Query, Step};
use crate::plan::expand::{Action, ExpandError, NO_SUCH_FILE, expand};
use crate::writers::{self, Domains, Hypervisors, Subject};

/// Says why an effect failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum EffectError {
    /// On the host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// In libvirt.
    #[error(transparent)]
    Libvirt(#[from] LibvirtError),
    /// The effect cannot be carried out safely.
    #[error("host {host}: the step cannot be carried out safely")]
    Expand { host: HostId, source: ExpandError },
    /// What was to be created exists.
    #[error("host {host}: {subject} exists already")]
    Exists { host: HostId, subject: String },
    /// Whether it exists cannot be told.
    #[error("host {host}: cannot tell whether {subject} exists: {reason}")]
    MayExist { host: HostId, subject: String, reason: String },
    /// The public key of another host could not be read.
    #[error("host {host}: the public key {path} cannot be used: {reason}")]
    PeerKey { host: HostId, path: AbsPath, reason: String },
    /// Whether a guest is somewhere, or its images in use, cannot be told.
    #[error("guest {guest}: not defined: a hypervisor may have it, or use its images")]
    GuestUnknown { guest: String, source: writers::Unknown },
    /// A hypervisor has a domain of the guest's name or UUID by now.
    #[error("guest {guest}: not defined")]
    Namesake { guest: String, source: writers::Namesake },
    /// A domain that is active uses an image of the guest.
    #[error("guest {guest}: not defined: its disk {user}")]
    ImageInUse { guest: String, user: Box<writers::User> },
    /// The plan names a host that the fleet does not have.
    #[error("host {host}: not in the fleet")]
    NoHost { host: HostId },
}

impl EffectError {
    /// Tells whether the step's host cannot be worked on any further.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Host(HostError::Unreachable { .. } | HostError::Elevation { .. }))
    }

    /// The lock whose loss ends the run, if that is what went wrong.
    pub(super) fn lost_lock(&self) -> Option<&HostId> {
        match self {
            Self::Host(HostError::LockLost { host }) => Some(host),
            _ => None,
        }
    }

    /// Tells whether the effect may have happened all the same.
    pub(super) fn is_unknown(&self) -> bool {
        match self {
            Self::Host(error) => matches!(
                error,
                HostError::Unreachable { .. } | HostError::Deadline { .. } | HostError::Protocol { .. }
            ),
            Self::Libvirt(error) => error.is_unanswered(),
            _ => false,
        }
    }

    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Host(HostError::Unreachable { hint, .. }) => hint.clone(),
            _ => None,
        }
    }
}

/// Carries out the effect of a step.
pub(super) fn carry_out(step: &Step, fleet: &Fleet, connector: &dyn Connector) -> Result<(), EffectError> {
    let host = host_of(fleet, &step.host)?;
    let expansion =
        expand(&step.effect).map_err(|source| EffectError::Expand { host: step.host.clone(), source })?;
    expansion.actions.iter().try_for_each(|action| act(action, &**host, fleet, connector))
}

fn host_of<'f>(fleet: &'f Fleet, id: &HostId) -> Result<&'f Arc<dyn Host>, EffectError> {
    fleet.host(id).ok_or_else(|| EffectError::NoHost { host: id.clone() })
}

fn act(
    action: &Action<'_>,
    host: &dyn Host,
    fleet: &Fleet,
    connector: &dyn Connector,
) -> Result<(), EffectError> {
    match action {
        Action::Run(command) => host.run(command).map(drop)?,
        Action::MustBeAbsent { probe, subject } => must_be_absent(host, probe, subject)?,
        Action::WriteFile(file) | Action::Stamp(file) => host.write_file(file)?,
        Action::EditBlock(block) => host.edit_block(block, &peer_keys(block, fleet)?)?,
        Action::Feed { source, command } => host.feed(command, source).map(drop)?,
        Action::EnsurePool { name, xml } => libvirt(host, connector)?.ensure_pool(name, xml)?,
        Action::RemovePool { name } => libvirt(host, connector)?.remove_pool(name)?,
        Action::EnsureSecret { id, xml, value } => {
            libvirt(host, connector)?.ensure_secret(*id, xml, value)?;
        }
        Action::RemoveSecret { id } => libvirt(host, connector)?.remove_secret(*id)?,
        Action::DefineGuest { name, uuid, hypervisors, xml } => {
            let subject = Subject { name, uuid, host: host.id(), xml };
            must_be_its_own(Hypervisors { hosts: hypervisors, fleet, connector }, subject)?;
            // It is defined here because it was seen nowhere else, and nobody may have brought it there since.
            hold_locks(fleet)?;
            libvirt(host, connector)?.define_domain(xml)?;
        }
        Action::UndefineGuest { uuid, .. } => libvirt(host, connector)?.undefine_domain(uuid)?,
    }
    Ok(())
}

/// Proves every lock that this run took, on whichever host.
fn hold_locks(fleet: &Fleet) -> Result<(), EffectError> {
    let hosts: Vec<HostId> = fleet.ids().cloned().collect();
    let proved = fleet.each(&hosts, |id| fleet.host(id).map_or(Ok(()), |host| host.holds_lock()));
    let mut failed: Vec<HostError> = proved.into_values().filter_map(Result::err).collect();
    // A lock that is lost ends the run, whatever else went wrong on other hosts.
    failed.sort_by_key(|error| !matches!(error, HostError::LockLost { .. }));
    failed.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
}

/// Asks all hypervisors once more, right before a guest is defined: what was planned for may have changed since it was observed.
fn must_be_its_own(of: Hypervisors<'_>, subject: Subject<'_>) -> Result<(), EffectError> {
    let guest = subject.name.to_owned();
    let unknown = |source| EffectError::GuestUnknown { guest: guest.clone(), source };
    let domains = Domains::ask(of).map_err(unknown)?;
    if let Some(source) = domains.namesake(subject.name, subject.uuid) {
        return Err(EffectError::Namesake { guest, source });
    }
    let users = domains.users(of, subject).map_err(unknown)?;
    match users.into_iter().find(|user| user.active) {
        Some(user) => Err(EffectError::ImageInUse { guest, user: Box::new(user) }),
        None => Ok(()),
    }
}

fn must_be_absent(host: &dyn Host, probe: &Command, subject: &str) -> Result<(), EffectError> {
    let answers = host.query(&[Query::patient(probe.clone())])?;
    let (id, subject) = (host.id().clone(), subject.to_owned());
    match answers.first() {
        Some(answer) if answer.ok() => Err(EffectError::Exists { host: id, subject }),
        Some(answer) if answer.status.is_some() && answer.stderr.contains(NO_SUCH_FILE) => Ok(()),
        Some(answer) if answer.status.is_none() => {
            let reason = format!("`{probe}` did not finish in time");
            Err(EffectError::MayExist { host: id, subject, reason })
        }
        Some(answer) => {
            let reason = answer.stderr.trim().to_owned();
            Err(EffectError::MayExist { host: id, subject, reason })
        }
        None => Err(EffectError::MayExist { host: id, subject, reason: "no answer".to_owned() }),
    }
}

/// The host's libvirt, for something that it is to change now: the lock under which that was planned is still held.
fn libvirt(host: &dyn Host, connector: &dyn Connector) -> Result<Arc<dyn Hypervisor>, EffectError> {
    let daemon = connector.open(host.id())?;
    host.holds_lock()?;
    Ok(daemon)
}

/// The keys that a block's lines name, read from their hosts where they did not exist when the plan was made.
fn peer_keys(block: &BlockSpec, fleet: &Fleet) -> Result<Vec<String>, EffectError> {
    let lines = block.lines.iter().flat_map(|lines| lines.iter());
    lines
        .filter_map(|line| match line {
            BlockLine::Key(key) => Some(key),
            BlockLine::Text(_) => None,
        })
        .map(|key| match &key.known {
            Some(known) => public_key(known).ok_or_else(|| unusable(key, "it is no public key")),
            None => read_key(key, fleet),
        })
        .collect()
}

fn read_key(key: &PeerKey, fleet: &Fleet) -> Result<String, EffectError> {
    let query = Query::new(Command::new("cat").args(["--", key.path.as_str()]));
    let answers = host_of(fleet, &key.of)?.query(&[query])?;
    match answers.first() {
        Some(answer) if answer.ok() => {
            public_key(&answer.stdout).ok_or_else(|| unusable(key, "it is no public key"))
        }
        Some(answer) => Err(unusable(key, answer.stderr.trim())),
        None => Err(unusable(key, "no answer")),
    }
}

fn unusable(key: &PeerKey, reason: &str) -> EffectError {
    EffectError::PeerKey { host: key.of.clone(), path: key.path.clone(), reason: reason.to_owned() }
}

/// Type and base64 of the one key in `text`. Anything else is refused: another host's file must not be able to add a
/// line or an option to `authorized_keys(5)` here.
fn public_key(text: &str) -> Option<String> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    let mut words = line.split_ascii_whitespace();
    let (kind, key) = (words.next()?, words.next()?);
    let plain = |word: &str, more: &str| word.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    let known = ["ssh-", "ecdsa-", "sk-"].iter().any(|prefix| kind.starts_with(prefix));
    (known && plain(kind, "-@.") && plain(key, "+/=")).then(|| format!("{kind} {key}"))
}
