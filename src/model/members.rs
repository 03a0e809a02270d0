//! The cluster's hypervisors as the records of the hosts remember them, and which of them the user named as dead.
//!
//! Pure. A hypervisor that left the file may still run guests. It is remembered until it was asked as a plain host and had
//! nothing left, or until the user says that it is gone for good.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use super::{ClusterName, Driver, HostId, HostSpec, Observations, Owned, OwnedKind, Query, Record};

/// A client as an access list may call it: a host's name in the file, an address, a DNS name, a pattern, an initiator's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct ClientName(String);

/// Says why a text names no client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a host's name nor an address")]
pub struct ClientNameError(String);

impl ClientName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether it names a single host, and no pattern.
    #[must_use]
    pub fn is_single(&self) -> bool {
        !self.0.contains(['*', '?', '[', '/', '@']) && self.0 != "ALL"
    }
}

impl FromStr for ClientName {
    type Err = ClientNameError;
    fn from_str(text: &str) -> Result<Self, ClientNameError> {
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '\'' | '"' | '\\' | '`' | '$' | ';');
        match text.is_empty() || text.starts_with('-') || text.len() > 255 || !text.chars().all(plain) {
            true => Err(ClientNameError(text.to_owned())),
            false => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Hosts and clients that the user named as gone for good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dead(pub BTreeSet<ClientName>);

/// A hypervisor under the address that it was let in by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its name in the file of then.
    pub host: String,
    /// Its address in the file of then.
    pub address: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.host, self.address)
    }
}

/// Where a remembered hypervisor is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is a hypervisor of the file, under this name and address.
    Hypervisor,
    /// It is this hypervisor of the file, which has another name or address now.
    Renamed(HostId),
    /// It is this host of the file, which is no hypervisor any more.
    Plain(HostId),
    /// The user named it as dead.
    Dead,
    /// It is not in the file: nobody asked it.
    Lost,
}

/// All that the records remember.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    known: BTreeMap<Member, Option<Driver>>,
    /// Which host of the file says of itself that it is which member.
    selves: BTreeSet<(HostId, String)>,
    dead: BTreeSet<String>,
}

/// The detail of a member's entry on its own host.
const HERE: &str = "here";
const DRIVER: &str = "driver";

impl Members {
    /// Reads the records of the file's hosts; `dead` is what the user says besides.
    pub fn read<'a>(records: impl Iterator<Item = (&'a HostId, &'a Record)>, dead: &Dead) -> Self {
        let mut members = Self::default();
        members.dead.extend(dead.0.iter().map(|name| name.0.clone()));
        for (host, record) in records {
            for entry in &record.owned {
                match entry.kind {
                    OwnedKind::DeadHost => _ = members.dead.insert(entry.name.clone()),
                    OwnedKind::Member => {
                        let Some(member) = Member::of(entry) else { continue };
                        if entry.detail.contains_key(HERE) {
                            members.selves.insert((host.clone(), member.host.clone()));
                        }
                        let xen = entry.detail.get(DRIVER).is_some_and(|driver| driver == "xen");
                        let driver = if xen { Driver::Xen } else { Driver::Qemu };
                        members.known.insert(member, Some(driver));
                    }
                    _ => {}
                }
            }
        }
        members
    }

    /// Reads what the hosts of the file showed; a record that cannot be read says nothing.
    #[must_use]
    pub fn observed(
        seen: &Observations,
        cluster: &ClusterName,
        hosts: &BTreeMap<HostId, HostSpec>,
        dead: &Dead,
    ) -> Self {
        let records: Vec<(&HostId, Record)> = hosts
            .keys()
            .filter_map(|host| Some((host, Record::observed(seen, cluster, host).ok()?)))
            .collect();
        Self::read(records.iter().map(|(host, record)| (*host, record)), dead)
    }

    /// Takes hypervisors up by addresses that something else shows, where the records are of an older stor and remember none.
    pub fn or_shown(&mut self, shown: impl Iterator<Item = String>) {
        if self.known.is_empty() {
            self.known.extend(shown.map(|address| (Member { host: address.clone(), address }, None)));
        }
    }

    /// Every remembered hypervisor, sorted.
    pub fn all(&self) -> impl Iterator<Item = &Member> {
        self.known.keys()
    }

    /// Where a remembered hypervisor is now, as the file and the hosts' own records say.
    #[must_use]
    pub fn standing(&self, hosts: &BTreeMap<HostId, HostSpec>, member: &Member) -> Standing {
        let of = |host: &HostSpec| match (host.role.is_hypervisor(), host.id.as_str() == member.host) {
            (true, true) if host.address == member.address => Standing::Hypervisor,
            (true, _) => Standing::Renamed(host.id.clone()),
            (false, _) => Standing::Plain(host.id.clone()),
        };
        if let Some(host) = hosts.values().find(|host| host.address == member.address) {
            return of(host);
        }
        // At another address, or under another name too: its own record has to say that it is the same.
        let says = |host: &&HostSpec| self.selves.contains(&(host.id.clone(), member.host.clone()));
        if let Some(host) = hosts.values().find(says) {
            return of(host);
        }
        if self.is_dead(&member.host) || self.is_dead(&member.address) {
            Standing::Dead
        } else {
            Standing::Lost
        }
    }

    /// Remembered hypervisors that nobody asked.
    #[must_use]
    pub fn lost(&self, hosts: &BTreeMap<HostId, HostSpec>) -> Vec<&Member> {
        self.known.keys().filter(|member| self.standing(hosts, member) == Standing::Lost).collect()
    }

    /// Hosts of the file that were hypervisors and are none any more, with the driver that ran their guests.
    #[must_use]
    pub fn plain(&self, hosts: &BTreeMap<HostId, HostSpec>) -> BTreeMap<HostId, Driver> {
        let plain = self.known.iter().filter_map(|(member, driver)| match self.standing(hosts, member) {
            Standing::Plain(host) => Some((host, driver.unwrap_or(Driver::Qemu))),
            _ => None,
        });
        plain.collect()
    }

    /// The remembered hypervisor of an address or name, if there is one.
    #[must_use]
    pub fn named(&self, client: &str) -> Option<&Member> {
        self.known.keys().find(|member| member.address == client || member.host == client)
    }

    /// Tells whether the user named it as dead, now or before.
    #[must_use]
    pub fn is_dead(&self, client: &str) -> bool {
        self.dead.contains(client)
    }

    /// What the records say of the dead, sorted.
    pub fn dead(&self) -> impl Iterator<Item = &str> {
        self.dead.iter().map(String::as_str)
    }
}

impl Member {
    /// The member that an entry of a record stands for.
    #[must_use]
    pub fn of(entry: &Owned) -> Option<Self> {
        let (host, address) = entry.name.split_once(' ').filter(|_| entry.kind == OwnedKind::Member)?;
        Some(Self { host: host.to_owned(), address: address.to_owned() })
    }

    /// The entry of a hypervisor that is not in the file.
    #[must_use]
    pub fn entry_of_absent(&self) -> Owned {
        Owned::new(OwnedKind::Member, format!("{} {}", self.host, self.address))
    }

    /// The entry of a hypervisor in the record of `on`.
    #[must_use]
    pub fn entry(hypervisor: &HostSpec, on: &HostId) -> Owned {
        let mut entry = Owned::new(OwnedKind::Member, format!("{} {}", hypervisor.id, hypervisor.address));
        if hypervisor.role.driver() == Some(Driver::Xen) {
            entry = entry.with(DRIVER, "xen");
        }
        if hypervisor.id == *on { entry.with(HERE, "yes") } else { entry }
    }
}

/// Says which hypervisors left the file unasked, as the records of its hosts remember them; `None` when there is none.
///
/// Guests may run there, so none may be defined or started meanwhile.
#[must_use]
pub fn unasked(
    seen: &Observations,
    cluster: &ClusterName,
    hosts: &BTreeMap<HostId, HostSpec>,
) -> Option<String> {
    let members = Members::observed(seen, cluster, hosts, &Dead::default());
    let lost = members.lost(hosts).into_iter().map(|member| format!("host {member}, which left the file"));
    let plain = members.plain(hosts).into_keys();
    let plain =
        plain.map(|host| format!("host {host}, which is no hypervisor any more and was not let go yet"));
    let all: Vec<String> = lost.chain(plain).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// The queries that [`unasked`] goes by.
#[must_use]
pub fn queries(cluster: &ClusterName) -> [Query; 1] {
    [Record::query(cluster)]
}

/// What the user can do about a hypervisor that left the file.
pub const REMEDY: &str = "write it back under hosts: without `hypervisor: true` and run `stor apply`, which asks it; or, if it is \
     gone for good and runs nothing, `stor apply --dead NAME`";
