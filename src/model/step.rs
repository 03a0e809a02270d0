//! Steps: what a plan is made of. All decisions stand here; executing has no choices left.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::{Effect, Finding, HostId, Owned, StorageId, Wave};

/// The kind of a resource, in the field's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the variants are the field's own words")]
pub enum ResourceKind {
    Host,
    Record,
    Package,
    Service,
    Directory,
    Peer,
    Brick,
    Volume,
    Export,
    File,
    Target,
    Lun,
    Mount,
    Session,
    Pool,
    Secret,
    Trust,
    Firewall,
    Boolean,
    Image,
    Guest,
    Storage,
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{self:?}").to_lowercase())
    }
}

/// Names one resource, shown as `volume gfs`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ResourceId {
    /// The kind.
    pub kind: ResourceKind,
    /// The name within its kind.
    pub name: String,
}

impl ResourceId {
    /// Names a resource.
    #[must_use]
    pub fn new(kind: ResourceKind, name: impl fmt::Display) -> Self {
        Self { kind, name: name.to_string() }
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// One difference between what the file wants and what a host shows: the reason for a step.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Difference {
    /// What differs, as a dotted path in the field's words, e.g. `volume.gfs.options.auth.allow`.
    pub field: String,
    /// What the file wants.
    pub desired: String,
    /// What the host shows; `absent` when it is known to be absent.
    pub observed: String,
}

impl Difference {
    /// Names a difference.
    #[must_use]
    pub fn new(field: impl Into<String>, desired: impl fmt::Display, observed: impl fmt::Display) -> Self {
        Self { field: field.into(), desired: desired.to_string(), observed: observed.to_string() }
    }
}

/// What a step may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// Takes nothing away from anybody.
    Safe,
    /// Interrupts or removes a service, mount, pool or definition; data stays.
    Disruptive,
    /// Destroys data; only ever planned when the user named it.
    DataLoss,
}

/// One change on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// When it runs.
    pub wave: Wave,
    /// Where it runs.
    pub host: HostId,
    /// What it changes.
    pub subject: ResourceId,
    /// The storage that it serves, if any; decides what a failure stops.
    pub storage: Option<StorageId>,
    /// What it does, in one line: `create volume gfs (replica 3, arbiter 1)`.
    pub title: String,
    /// The differences that call for it.
    pub why: Vec<Difference>,
    /// What runs.
    pub effect: Effect,
    /// What would take it back, when that is known.
    pub undo: Option<Box<Effect>>,
    /// What it may cost.
    pub risk: Risk,
    /// What stor owns on the host once this step ran, if it creates something.
    pub owns: Option<Box<Owned>>,
    /// What stor no longer owns once this step ran, if it removes something.
    pub forgets: Option<Box<Owned>>,
    /// Clients that lose access to the storage by it, as the access list calls them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub takes: BTreeSet<String>,
}

impl Step {
    /// Makes a safe step without reasons, undo or ownership.
    #[must_use]
    pub fn new(
        wave: Wave,
        host: &HostId,
        subject: ResourceId,
        title: impl Into<String>,
        effect: Effect,
    ) -> Self {
        Self {
            wave,
            host: host.clone(),
            subject,
            storage: None,
            title: title.into(),
            why: Vec::new(),
            effect,
            undo: None,
            risk: Risk::Safe,
            owns: None,
            forgets: None,
            takes: BTreeSet::new(),
        }
    }
    /// Adds a reason.
    #[must_use]
    pub fn because(mut self, difference: Difference) -> Self {
        self.why.push(difference);
        self
    }
    /// Says which storage it serves.
    #[must_use]
    pub fn serving(mut self, storage: &StorageId) -> Self {
        self.storage = Some(storage.clone());
        self
    }
    /// Says what stor owns once it ran.
    #[must_use]
    pub fn owning(mut self, owned: Owned) -> Self {
        self.owns = Some(Box::new(owned));
        self
    }
    /// Says what stor no longer owns once it ran.
    #[must_use]
    pub fn forgetting(mut self, owned: Owned) -> Self {
        self.forgets = Some(Box::new(owned));
        self
    }
    /// Says which clients lose access by it; the planner makes it disruptive unless they are let in by another name.
    #[must_use]
    pub fn taking(mut self, clients: impl IntoIterator<Item = String>) -> Self {
        self.takes.extend(clients);
        self
    }
    /// Sets the risk.
    #[must_use]
    pub fn risking(mut self, risk: Risk) -> Self {
        self.risk = risk;
        self
    }
    /// Says what takes it back.
    #[must_use]
    pub fn undone_by(mut self, effect: Effect) -> Self {
        self.undo = Some(Box::new(effect));
        self
    }
}

/// Something that failed, was skipped or cannot be planned: what stands behind it must not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken<'a> {
    /// Its wave.
    pub wave: Wave,
    /// Its host; `None` when it concerns all of them.
    pub host: Option<&'a HostId>,
    /// The storage that it serves, if any.
    pub storage: Option<&'a StorageId>,
}

impl<'a> Broken<'a> {
    /// A step that failed, or that was skipped because of another.
    #[must_use]
    pub fn step(step: &'a Step) -> Self {
        Self { wave: step.wave, host: Some(&step.host), storage: step.storage.as_ref() }
    }

    /// Tells whether `later`, which comes after this in the plan, must not run: the one rule, for planning and executing.
    ///
    /// Removal stops as a whole: a volume must not go before its mounts, nor a daemon before its volumes, nor the record
    /// before any of them. On the server side everything later of the same storage stops on every host; on the client
    /// side on that host; what serves no storage stops everything later on its host. Access is taken only after all that
    /// used it has gone.
    #[must_use]
    pub fn stops(&self, later: &Step) -> bool {
        let of_its_storage = self.storage.is_none() || self.storage == later.storage.as_ref();
        if self.wave.is_release() && !later.takes.is_empty() && of_its_storage {
            return true;
        }
        if self.wave.is_release() && (later.wave.is_release() || later.wave == Wave::Settle) {
            return later.wave > self.wave || self.host == Some(&later.host);
        }
        let same_host = self.host.is_none_or(|host| *host == later.host);
        match self.storage {
            None => same_host,
            Some(_) if self.storage != later.storage.as_ref() => false,
            Some(_) => same_host || (self.wave.is_server_side() && later.wave > self.wave),
        }
    }
}

/// Something that cannot be planned now, and why; nothing that depends on it is planned either.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Blocked {
    /// The wave in which it would have run; with `storage` and `host` it decides what depends on it, by the same rule as
    /// for a step that failed ([`Wave::is_server_side`]).
    pub wave: Wave,
    /// The host that it would change, if it is one.
    pub host: Option<HostId>,
    /// What cannot be planned.
    pub subject: ResourceId,
    /// The storage that it serves, if any.
    pub storage: Option<StorageId>,
    /// Whether waiting helps: the host was unreachable or did not answer in time.
    pub unknown: bool,
    /// Why, with the facts.
    pub reason: String,
    /// What the user can do.
    pub hint: Option<String>,
}

impl Blocked {
    /// Says that `subject`, which `wave` would have changed, cannot be planned.
    #[must_use]
    pub fn new(wave: Wave, subject: ResourceId, reason: impl fmt::Display) -> Self {
        let reason = reason.to_string();
        Self { wave, host: None, subject, storage: None, unknown: false, reason, hint: None }
    }
    /// Says that `subject` cannot be planned because a fact about it is unknown: waiting may help.
    #[must_use]
    pub fn unknown(wave: Wave, subject: ResourceId, reason: impl fmt::Display) -> Self {
        Self { unknown: true, ..Self::new(wave, subject, reason) }
    }
    /// Says which host it would have changed.
    #[must_use]
    pub fn on(mut self, host: &HostId) -> Self {
        self.host = Some(host.clone());
        self
    }
    /// Says which storage it serves.
    #[must_use]
    pub fn serving(mut self, storage: &StorageId) -> Self {
        self.storage = Some(storage.clone());
        self
    }
    /// Says what the user can do.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.hint = Some(text.into());
        self
    }
}

/// What one part of the planner asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Proposal {
    /// Steps, in the order in which they run within a wave on a host.
    pub steps: Vec<Step>,
    /// What cannot be planned.
    pub blocked: Vec<Blocked>,
    /// What the user should know.
    pub findings: Vec<Finding>,
}

impl Proposal {
    /// Appends another proposal.
    pub fn extend(&mut self, other: Self) {
        self.steps.extend(other.steps);
        self.blocked.extend(other.blocked);
        self.findings.extend(other.findings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(wave: Wave, host: &str, storage: Option<&str>) -> Step {
        let subject = ResourceId::new(ResourceKind::Host, host);
        let mut step = Step::new(wave, &host.parse().unwrap(), subject, "x", Effect::Run(Vec::new()));
        step.storage = storage.map(|name| name.parse().unwrap());
        step
    }

    #[test]
    fn a_failure_stops_what_stands_behind_it_and_nothing_else() {
        use Wave::{Export, Mount, Pool, Prerequisites, Record, ReleaseMount, ReleasePool, Settle};
        let table = [
            // A volume that was not created stops its mounts everywhere, and no other storage's.
            ((Export, "s1", Some("a")), (Mount, "k1", Some("a")), true),
            ((Export, "s1", Some("a")), (Mount, "s1", Some("b")), false),
            // A mount that failed stops its pool on that host only.
            ((Mount, "k1", Some("a")), (Pool, "k1", Some("a")), true),
            ((Mount, "k1", Some("a")), (Pool, "k2", Some("a")), false),
            // What serves no storage stops its host.
            ((Record, "k1", None), (Pool, "k1", Some("a")), true),
            ((Prerequisites, "k1", None), (Pool, "k2", Some("a")), false),
            // Removal stops as a whole, and so does forgetting; what is created goes on.
            ((ReleasePool, "k1", Some("a")), (ReleaseMount, "k2", Some("b")), true),
            ((ReleasePool, "k1", Some("a")), (ReleasePool, "k2", Some("b")), false),
            ((ReleasePool, "k1", Some("a")), (Settle, "s1", None), true),
            ((ReleasePool, "k1", Some("a")), (Export, "s1", Some("b")), false),
        ];
        for (broken, later, expected) in table {
            let (broken, later) = (step(broken.0, broken.1, broken.2), step(later.0, later.1, later.2));
            assert_eq!(Broken::step(&broken).stops(&later), expected, "{broken:?} {later:?}");
        }
        // A session or mount that did not go keeps its access.
        let taking = |storage| step(Export, "s1", Some(storage)).taking(["10.0.0.1".to_owned()]);
        let kept = step(ReleaseMount, "k1", Some("a"));
        assert!(Broken::step(&kept).stops(&taking("a")) && !Broken::step(&kept).stops(&taking("b")));
    }
}
