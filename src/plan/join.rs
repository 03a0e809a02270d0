//! Joins what the parts ask for: each step once, none that stands behind something blocked, in waves, in one order.
//!
//! Pure. Imports `model` and the scene. What a part asks for is its own matter.

use std::collections::{BTreeMap, BTreeSet};

use super::Plan;
use super::ownership;
use super::scene::Scene;
use crate::model::{Blocked, Broken, Finding, HostId, Owned, Proposal, Step, StorageId, Wave};

/// Steps that may run, and what may not.
#[derive(Default)]
pub(super) struct Joined {
    steps: Vec<Step>,
    blocked: BTreeSet<Blocked>,
    findings: Vec<Finding>,
    barriers: Barriers,
}

/// For each reach of a blocked part, the first wave in which it is blocked: whether a step stands behind any of a
/// thousand blocked parts is then a few look-ups.
#[derive(Default)]
struct Barriers {
    release: Option<Wave>,
    hosts: BTreeMap<HostId, Wave>,
    storage: BTreeMap<StorageId, Wave>,
    storage_on_host: BTreeMap<(StorageId, HostId), Wave>,
    everything: Option<Wave>,
    /// Storage of which something is not released; `None` for what serves no storage.
    unreleased: BTreeSet<Option<StorageId>>,
    /// Storage of which nothing is changed at all.
    frozen: BTreeSet<StorageId>,
    /// Clients that keep their access.
    kept: BTreeSet<String>,
}

impl Barriers {
    fn add(&mut self, blocked: &Blocked) {
        let wave = blocked.wave;
        let first = |slot: &mut Wave| *slot = (*slot).min(wave);
        if wave.is_release() || wave == Wave::Record {
            self.release = Some(self.release.map_or(wave, |at| at.min(wave)));
        }
        if wave.is_release() {
            self.unreleased.insert(blocked.storage.clone());
            return;
        }
        match (&blocked.storage, &blocked.host) {
            (Some(storage), Some(host)) => {
                let key = (storage.clone(), host.clone());
                self.storage_on_host.entry(key).and_modify(first).or_insert(wave);
                if wave.is_server_side() {
                    self.storage.entry(storage.clone()).and_modify(first).or_insert(wave);
                }
            }
            (Some(storage), None) => {
                _ = self.storage.entry(storage.clone()).and_modify(first).or_insert(wave)
            }
            (None, Some(host)) => _ = self.hosts.entry(host.clone()).and_modify(first).or_insert(wave),
            (None, None) => self.everything = Some(self.everything.map_or(wave, |at| at.min(wave))),
        }
    }

    /// Tells whether something in an earlier wave that `step` stands behind is blocked.
    fn stop(&self, step: &Step) -> bool {
        let before = |wave: Option<&Wave>| wave.is_some_and(|wave| *wave < step.wave);
        if is_removal(step) && before(self.release.as_ref()) {
            return true;
        }
        let frozen = step.storage.as_ref().is_some_and(|storage| self.frozen.contains(storage));
        if frozen || (!step.takes.is_empty() && self.keeps(step)) {
            return true;
        }
        before(self.everything.as_ref())
            || before(self.hosts.get(&step.host))
            || step.storage.as_ref().is_some_and(|storage| {
                before(self.storage.get(storage))
                    || before(self.storage_on_host.get(&(storage.clone(), step.host.clone())))
            })
    }
}

impl Barriers {
    /// Tells whether a step takes access from who keeps it, or from a storage that something has not let go.
    fn keeps(&self, step: &Step) -> bool {
        let unreleased = self.unreleased.contains(&None) || self.unreleased.contains(&step.storage);
        unreleased || step.takes.iter().any(|client| self.kept.contains(client))
    }
}

/// Tells whether a step removes or forgets something.
fn is_removal(step: &Step) -> bool {
    step.wave.is_release() || step.wave == Wave::Settle
}

/// What stays as it is, whoever asks for a change.
#[derive(Default)]
pub(super) struct Stays {
    /// Storage of which nothing at all is changed.
    pub frozen: BTreeSet<StorageId>,
    /// Clients that keep their access.
    pub kept: BTreeSet<String>,
}

/// What the records remember besides what steps make and remove.
#[derive(Default)]
pub(super) struct Notes {
    /// Taken up before everything else.
    pub taken_up: BTreeMap<HostId, Vec<Owned>>,
    /// What is no longer true, forgotten before everything else.
    pub outdated: BTreeMap<HostId, Vec<Owned>>,
    /// Forgotten after everything else.
    pub forgotten: BTreeMap<HostId, Vec<Owned>>,
}

/// Joins a proposal.
pub(super) fn join(proposal: Proposal, stays: Stays) -> Joined {
    let mut joined = Joined::default();
    joined.barriers.frozen = stays.frozen;
    joined.barriers.kept = stays.kept;
    joined.add(proposal);
    joined
}

impl Joined {
    /// Tells whether a step would stand behind something blocked.
    pub fn is_broken(&self, step: &Step) -> bool {
        self.barriers.stop(step)
    }

    /// Adds what another part asks for; parts that block others come before them.
    pub fn add(&mut self, proposal: Proposal) {
        for blocked in proposal.blocked {
            self.barriers.add(&blocked);
            self.blocked.insert(blocked);
        }
        self.findings.extend(proposal.findings);
        let mut steps = proposal.steps;
        steps.sort_by_key(|step| step.wave);
        steps.retain(|step| {
            let stopped = self.barriers.stop(step);
            if stopped {
                let waiting = self.waiting(step);
                self.barriers.add(&waiting);
                self.blocked.insert(waiting);
            }
            !stopped
        });
        if self.steps.is_empty() {
            self.steps = steps;
        } else {
            self.steps.append(&mut steps);
        }
    }

    /// Says what a dropped step waits for: the first blocked part that it stands behind.
    fn waiting(&self, step: &Step) -> Blocked {
        let cause = self.blocked.iter().find(|blocked| {
            let broken =
                Broken { wave: blocked.wave, host: blocked.host.as_ref(), storage: blocked.storage.as_ref() };
            blocked.wave < step.wave
                && (broken.stops(step) || (is_removal(step) && blocked.wave == Wave::Record))
        });
        let of_its_storage =
            |blocked: &&Blocked| blocked.storage.is_some() && blocked.storage == step.storage;
        let cause = cause.or_else(|| self.blocked.iter().find(of_its_storage));
        let reason = match cause {
            Some(Blocked { subject, host: Some(host), .. }) => format!("waits for {subject} on {host}"),
            Some(Blocked { subject, host: None, .. }) => format!("waits for {subject}"),
            None => "waits for a part that is blocked".to_owned(),
        };
        let mut blocked = Blocked::new(step.wave, step.subject.clone(), reason).on(&step.host);
        blocked.unknown = cause.is_some_and(|cause| cause.unknown);
        blocked.storage.clone_from(&step.storage);
        blocked
    }

    /// Makes the plan: merges, adds the record steps, sorts.
    pub fn finish(mut self, scene: &Scene<'_>, notes: &Notes) -> Plan {
        let mut steps = std::mem::take(&mut self.steps);
        merge(&mut steps);
        // Nothing is forgotten while any removal waits: the entries say what the next run has to look at.
        let nothing = BTreeMap::new();
        let forgotten = if self.barriers.release.is_none() { &notes.forgotten } else { &nothing };
        steps.extend(ownership::records(scene, &steps, notes, forgotten));
        steps.sort_by(|a, b| (a.wave, &a.host).cmp(&(b.wave, &b.host)));
        let mut waves: Vec<(Wave, Vec<Step>)> = Vec::new();
        while let Some(wave) = steps.first().map(|step| step.wave) {
            let later = steps.split_off(steps.partition_point(|step| step.wave == wave));
            steps.shrink_to_fit();
            waves.push((wave, std::mem::replace(&mut steps, later)));
        }
        self.findings.sort_by(|a, b| (&a.subject, a.code, &a.host).cmp(&(&b.subject, b.code, &b.host)));
        self.findings.dedup();
        Plan { waves, blocked: self.blocked.into_iter().collect(), findings: self.findings }
    }
}

/// Merges steps that do the same on the same host in the same wave; two storages may need one package.
///
/// A merged step that serves several storages serves none in particular: its failure stops its host.
fn merge(steps: &mut Vec<Step>) {
    steps.sort_by(|a, b| (a.wave, &a.host).cmp(&(b.wave, &b.host)));
    let mut doubles = Vec::with_capacity(steps.len());
    let mut start = 0;
    for at in 0..steps.len() {
        let (before, rest) = steps.split_at_mut(at);
        let Some(step) = rest.first_mut() else { continue };
        if before.last().is_some_and(|last| (last.wave, &last.host) != (step.wave, &step.host)) {
            start = at;
        }
        let same = |other: &&mut Step| other.effect == step.effect && other.owns == step.owns;
        let first = before[start..].iter_mut().find(same);
        doubles.push(first.is_some());
        if let Some(first) = first {
            absorb(first, step);
        }
    }
    let mut doubles = doubles.into_iter();
    steps.retain(|_| doubles.next() != Some(true));
}

fn absorb(first: &mut Step, double: &mut Step) {
    if first.storage != double.storage {
        first.storage = None;
    }
    first.why.append(&mut double.why);
    first.why.sort();
    first.why.dedup();
    first.risk = first.risk.max(double.risk);
}
