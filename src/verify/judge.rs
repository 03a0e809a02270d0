//! Judges the evidence: pure, no I/O, tested on tables. One function per check in the files below this one.
//!
//! Imports `model`, `storage::{probe, mount_probe}` (types and readers) and `libvirt::{pools, qemu_conf}`.

mod access;
mod direct;
mod luns;
mod identity;
mod mount;
mod share;

use std::collections::BTreeMap;

use super::evidence::{Evidence, HostEvidence, MountedEvidence, Scope, ScopedStorage};
use super::matrix::{Cell, Check, CheckKind, ClientNote, Matrix, Verdict};
use crate::model::{
    ClusterName, Finding, FindingCode, HostId, ResourceId, ResourceKind, Severity, StorageId,
};
use crate::storage::mount_probe;
use crate::storage::mount_probe::seen::NoFacts;
use crate::storage::probe::{ClientAnswer, MountedDirectory, NoClient, Way};

/// Judges everything.
#[must_use]
pub fn judge(cluster: &ClusterName, scope: &Scope, evidence: &Evidence) -> Matrix {
    let mut matrix = Matrix::default();
    for storage in &scope.storages {
        let view = View { cluster, scope, evidence, storage };
        if let Some(note) = view.client_note() {
            matrix.clients.insert(storage.probe.storage.clone(), note);
        }
        matrix.notes.extend(view.let_in());
        match &storage.probe.way {
            Way::Mounted(directory) => {
                matrix.cells.extend(view.mounted_cells(directory));
                matrix.notes.extend(view.leftovers());
            }
            Way::Luns(target) => {
                matrix.cells.extend(luns::cells(&view, target));
                matrix.notes.push(luns::advice(&view, target));
            }
            Way::Direct(directory) => {
                matrix.cells.extend(direct::cells(&view, directory.kind));
                matrix.notes.extend(direct::server_silent(&view));
                matrix.notes.push(direct::advice(
                    &view,
                    directory.kind,
                    "set `access: mount` for this storage",
                ));
            }
        }
    }
    matrix.cells.sort_by(|a, b| (&a.storage, &a.image, &a.host).cmp(&(&b.storage, &b.image, &b.host)));
    matrix
}

/// One storage of the run, with what every host and the client showed of it.
struct View<'a> {
    cluster: &'a ClusterName,
    scope: &'a Scope,
    evidence: &'a Evidence,
    storage: &'a ScopedStorage,
}

impl<'a> View<'a> {
    fn id(&self) -> &'a StorageId {
        &self.storage.probe.storage
    }

    fn subject(&self) -> ResourceId {
        ResourceId::new(ResourceKind::Storage, self.id())
    }

    fn host(&self, host: &HostId) -> Option<&'a HostEvidence> {
        self.evidence.hosts.get(host)
    }

    fn mounted(&self, host: &HostId) -> Option<&'a MountedEvidence> {
        self.host(host)?.mounted.get(self.id())
    }

    fn client(&self) -> Option<&'a ClientAnswer> {
        self.evidence.clients.get(self.id())?.as_ref().ok()
    }

    /// Who looked at the servers themselves.
    fn client_name(&self) -> String {
        match self.evidence.stand_ins.get(self.id()) {
            Some(stand_in) => format!("server {}", stand_in.host),
            None => self.storage.probe.client.as_ref().map_or("no client", |client| client.name()).to_owned(),
        }
    }

    fn probe_file(&self, host: &HostId) -> String {
        mount_probe::probe_file(self.cluster, host, &self.evidence.run)
    }

    /// Hosts whose nonce is on the storage.
    fn writers(&self) -> impl Iterator<Item = &'a HostId> {
        self.scope.hosts.iter().filter(|host| {
            self.mounted(host).is_some_and(|seen| matches!(&seen.written, Ok(w) if w.nonce.is_ok()))
        })
    }

    fn mounted_cells(&self, directory: &MountedDirectory) -> Vec<Cell> {
        let mut cells = Vec::new();
        for host in &self.scope.hosts {
            let mounted = mount::mounted(self, directory, host);
            let pool = mount::pool(self, (&directory.pool, Some(&directory.path)), host);
            let explained = |check: Check| mount::explained(&mounted, check);
            let nonce = explained(share::nonce(self, host));
            let lock = share::lock(self, host);
            let mut cell = |image, identity, access| {
                cells.push(Cell {
                    storage: self.id().clone(),
                    image,
                    host: host.clone(),
                    checks: vec![
                        mounted.clone(),
                        pool.clone(),
                        identity,
                        nonce.clone(),
                        access,
                        lock.clone(),
                    ],
                });
            };
            for image in &self.storage.images {
                let identity = identity::identity(self, image, host);
                cell(Some(image.id.clone()), identity, explained(access::image(self, image, host)));
            }
            if self.storage.images.is_empty() {
                let none =
                    Check::new(CheckKind::Identity, Verdict::NotApplicable, "no image on this storage");
                cell(None, none, explained(access::storage(self, host)));
            }
        }
        cells
    }

    fn client_note(&self) -> Option<ClientNote> {
        let answer = self.evidence.clients.get(self.id())?;
        let stand_in = self.evidence.stand_ins.get(self.id());
        let client = self.storage.probe.client.as_ref().map_or("no client", |client| client.name());
        let looked = answer.as_ref().map(|answer| {
            let count = answer.identified.values().filter(|seen| seen.is_ok()).count();
            format!("looked at {count} images on the servers themselves")
        });
        let Some(why) = stand_in.map(|stand_in| &stand_in.why).or(answer.as_ref().err()) else {
            return Some(ClientNote { client, verdict: Verdict::Pass, seen: looked.ok()?, remedy: None });
        };
        let instead = match (stand_in, &looked) {
            (Some(_), Ok(seen)) => format!("{} {seen}", self.client_name()),
            (Some(_), Err(second)) => format!("{}: {}", self.client_name(), second.reason()),
            (None, _) => "the hypervisors' own proofs stand alone".to_owned(),
        };
        let verdict = match (why, stand_in, &looked) {
            (NoClient::LetIn { .. }, ..) => Verdict::Fail,
            (NoClient::NotApplicable { .. }, None, _) => Verdict::NotApplicable,
            (NoClient::NotApplicable { .. }, Some(_), Ok(_)) => Verdict::Pass,
            _ => Verdict::Unknown,
        };
        let seen = format!("{}; {instead}", why.reason());
        Some(ClientNote { client, verdict, seen, remedy: why.remedy().map(str::to_owned) })
    }

    /// An export that lets in whom the file does not name.
    fn let_in(&self) -> Option<Finding> {
        let answer = self.evidence.clients.get(self.id()).and_then(|answer| answer.as_ref().err());
        let why = self.evidence.stand_ins.get(self.id()).map(|stand_in| &stand_in.why).or(answer)?;
        let NoClient::LetIn { reason, remedy } = why else { return None };
        let finding = Finding::new(Severity::Error, FindingCode::ExportOpen, self.subject(), reason.clone());
        Some(finding.remedy(remedy.clone()))
    }

    /// Probe files that could not be removed.
    fn leftovers(&self) -> Vec<Finding> {
        let left = |host: &HostId| {
            let seen = self.mounted(host)?;
            let (Ok(_), Err(why)) = (&seen.written, &seen.removed) else { return None };
            let message = format!("probe file {} was not removed: {why}", self.probe_file(host));
            let finding = Finding::new(Severity::Advice, FindingCode::ProbeFailed, self.subject(), message);
            Some(finding.on(host).remedy("the next `stor verify` removes it, or remove it by hand"))
        };
        self.scope.hosts.iter().filter_map(left).collect()
    }

    /// A check for which there are no facts.
    fn missing(&self, kind: CheckKind, host: &HostId, why: &NoFacts) -> Check {
        let finding =
            |severity, code, message: String| Finding::new(severity, code, self.subject(), message).on(host);
        match why {
            NoFacts::TimedOut => Check::with(
                kind,
                Verdict::Fail,
                finding(
                    Severity::Error,
                    FindingCode::ProbeTimedOut,
                    format!("host {host}: the storage gives {why}"),
                )
                .remedy(format!(
                    "see whether host {host} reaches the storage servers; a mount that hangs has to be mounted again"
                )),
            ),
            NoFacts::Unreachable(reason) => Check::with(
                kind,
                Verdict::Unknown,
                finding(
                    Severity::Error,
                    FindingCode::HostUnobserved,
                    format!("host {host} could not be asked"),
                )
                .evidence(reason.clone())
                .remedy(format!("see why `ssh {host}` fails")),
            ),
            NoFacts::Malformed(_) => Check::with(
                kind,
                Verdict::Unknown,
                finding(
                    Severity::Error,
                    FindingCode::ProbeFailed,
                    format!("host {host}: the probe gave an {why}"),
                ),
            ),
            NoFacts::Refused(_) => {
                Check::new(kind, Verdict::Unknown, "not tried: the directory is not the right mount")
            }
            NoFacts::NotAsked(_) => Check::new(kind, Verdict::Unknown, why.to_string()),
        }
    }

    /// A check that a host's evidence does not cover at all.
    fn uncovered(&self, kind: CheckKind, host: &HostId) -> Check {
        self.missing(kind, host, &NoFacts::NotAsked(format!("host {host} was not part of the run")))
    }

    fn failed(&self, kind: CheckKind, host: &HostId, code: FindingCode, message: String) -> Failure {
        let finding = Finding::new(Severity::Error, code, self.subject(), message).on(host);
        Failure { kind, finding }
    }
}

/// A failing check under construction.
struct Failure {
    kind: CheckKind,
    finding: Finding,
}

impl Failure {
    fn about(mut self, subject: ResourceId) -> Self {
        self.finding.subject = subject;
        self
    }
    fn evidence(mut self, facts: impl IntoIterator<Item = String>) -> Self {
        self.finding.evidence.extend(facts);
        self
    }
    fn remedy(mut self, text: impl Into<String>) -> Check {
        self.finding.remedy = Some(text.into());
        Check::with(self.kind, Verdict::Fail, self.finding)
    }
}

/// A finding's code for what the kernel said about a file, beyond the plain cases.
fn code_of(said: &str, otherwise: FindingCode) -> FindingCode {
    [
        ("Read-only file system", FindingCode::ReadOnlyMount),
        ("Input/output error", FindingCode::ImageUnreadable),
        ("Stale file handle", FindingCode::StaleHandle),
        ("No such file or directory", FindingCode::ImageMissing),
        ("Permission denied", FindingCode::AccessDenied),
        ("Operation not permitted", FindingCode::AccessDenied),
    ]
    .into_iter()
    .find(|(text, _)| said.contains(text))
    .map_or(otherwise, |(_, code)| code)
}

/// Names in one enumeration: `kvm1, kvm2`.
fn listed<T: std::fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}

/// What a map holds for a host, sorted, each as `host NAME: TEXT`.
fn facts<'a>(of: BTreeMap<&'a HostId, String>) -> impl Iterator<Item = String> + 'a {
    of.into_iter().map(|(host, text)| format!("host {host}: {text}"))
}
