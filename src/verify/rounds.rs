//! The rounds: who is asked what, and when. The only part of verify that reaches hosts.
//!
//! First every hypervisor writes its own nonce and locks it. Then every hypervisor reads what the others wrote, looks at
//! the images, and tries the lock of its neighbour. Third, the locks are let go and tried again. Last, the probe files
//! are removed. The last two rounds run in any case. No round depends on a clock: each begins when all hosts have ended
//! the one before.

mod direct;
mod luns;

use std::collections::BTreeMap;

use super::evidence::{Evidence, Fact, HostEvidence, MountedEvidence, Scope, ScopedStorage, StandIn};
use super::{Clients, VerifyEvent};
use crate::host::Fleet;
use crate::libvirt::pools;
use crate::libvirt::qemu_conf;
use crate::model::{Answer, Cancel, ClusterName, HostId, Observations, Query, StorageId, Unknown};
use crate::observe::{Batches, observe};
use crate::storage::keeper;
use crate::storage::mount_probe::seen::NoFacts;
use crate::storage::mount_probe::{self, Actor, Reading, Rival, mount_table, seen};
use crate::storage::probe::{
    ClientAnswer, ClientRequest, DirectDirectory, Keeper, MountedDirectory, NoClient, Probe, Way,
};

/// What was seen of a storage at its servers, and who stood in for the client on this machine.
type ServerSide = (Result<ClientAnswer, NoClient>, Option<StandIn>);

const ROUNDS: [&str; 4] =
    ["write and lock", "read, compare and try the locks", "let go of the locks", "clean up"];

/// Runs all rounds.
pub(super) fn gather(
    cluster: &ClusterName,
    fleet: &Fleet,
    scope: &Scope,
    clients: &dyn Clients,
    run: &str,
    cancel: &Cancel,
    on_event: &dyn Fn(VerifyEvent),
) -> Evidence {
    let mut rounds = Rounds {
        cluster,
        fleet,
        scope,
        clients,
        evidence: Evidence { run: run.to_owned(), ..Evidence::default() },
    };
    let begin = |number: usize| {
        on_event(VerifyEvent::Round { number, of: ROUNDS.len(), doing: ROUNDS[number - 1] });
    };
    begin(1);
    rounds.write();
    if !cancel.is_cancelled() {
        begin(2);
        rounds.read();
    }
    begin(3);
    rounds.release();
    begin(4);
    rounds.remove();
    rounds.evidence
}

struct Rounds<'a> {
    cluster: &'a ClusterName,
    fleet: &'a Fleet,
    scope: &'a Scope,
    clients: &'a dyn Clients,
    evidence: Evidence,
}

/// The fact that an answer holds, or why there is none.
fn fact<T>(
    seen: &Observations,
    host: &HostId,
    query: &Query,
    read: impl FnOnce(&Answer) -> Fact<T>,
) -> Fact<T> {
    match seen.answer(host, query) {
        Ok(answer) => read(answer),
        Err(Unknown::Deadline { .. }) => Err(NoFacts::TimedOut),
        Err(error @ Unknown::Host { .. }) => Err(NoFacts::Unreachable(error.to_string())),
        Err(error @ Unknown::NotAsked { .. }) => Err(NoFacts::NotAsked(error.to_string())),
    }
}

fn later<T>() -> Fact<T> {
    Err(NoFacts::NotAsked("the run was stopped".to_owned()))
}

impl<'a> Rounds<'a> {
    /// Asks every host of a round at once; one without queries is left out.
    fn ask(&self, mut batches: Batches) -> Observations {
        batches.retain(|_, batch| !batch.is_empty());
        observe(self.fleet, &batches)
    }

    fn mounted(&self) -> impl Iterator<Item = (&'a ScopedStorage, &'a MountedDirectory)> + use<'a> {
        self.scope.storages.iter().filter_map(|storage| match &storage.probe.way {
            Way::Mounted(directory) => Some((storage, directory)),
            Way::Direct(_) | Way::Luns(_) => None,
        })
    }

    fn direct(&self) -> impl Iterator<Item = (&'a ScopedStorage, &'a DirectDirectory)> + use<'a> {
        self.scope.storages.iter().filter_map(|storage| match &storage.probe.way {
            Way::Direct(directory) => Some((storage, directory)),
            Way::Mounted(_) | Way::Luns(_) => None,
        })
    }

    fn probe(&self, host: &HostId) -> String {
        mount_probe::probe_file(self.cluster, host, &self.evidence.run)
    }

    fn probes(&self) -> Vec<String> {
        self.scope.hosts.iter().map(|host| self.probe(host)).collect()
    }

    /// Looks at some storages at their servers, all at once.
    fn look(&self, requests: BTreeMap<StorageId, ClientRequest>) -> BTreeMap<StorageId, ServerSide> {
        let asked: Vec<StorageId> = requests.keys().cloned().collect();
        let probe = |id: &StorageId| {
            let mut storages = self.scope.storages.iter();
            Some(&storages.find(|storage| storage.probe.storage == *id)?.probe)
        };
        let answers = self.fleet.each(&asked, |id| self.look_at(probe(id)?, &requests[id]));
        answers.into_iter().filter_map(|(id, answer)| Some((id, answer?))).collect()
    }

    /// A client only looks: files are made and removed by the server that keeps them, where there is one.
    fn look_at(&self, probe: &Probe, request: &ClientRequest) -> Option<ServerSide> {
        let Some(keeper) = &probe.keeper else {
            return Some((self.clients.look(probe.client.as_ref()?, request), None));
        };
        if !(request.create.is_empty() && request.remove.is_empty()) {
            return Some((self.ask_keeper(keeper, request), None));
        }
        match probe.client.as_ref().map(|client| self.clients.look(client, request)) {
            Some(Ok(answer)) => Some((Ok(answer), None)),
            Some(Err(why)) => {
                let stand_in = StandIn { host: keeper.host.clone(), why };
                Some((self.ask_keeper(keeper, request), Some(stand_in)))
            }
            None => Some((self.ask_keeper(keeper, request), None)),
        }
    }

    fn ask_keeper(&self, keeper: &Keeper, request: &ClientRequest) -> Result<ClientAnswer, NoClient> {
        let query = keeper::query(keeper, request);
        let seen = self.ask([(keeper.host.clone(), vec![query.clone()])].into());
        match seen.answer(&keeper.host, &query) {
            Ok(answer) => keeper::read(answer),
            Err(unknown) => Err(NoClient::Failed { reason: unknown.to_string() }),
        }
    }

    fn take(&mut self, looked: BTreeMap<StorageId, ServerSide>) {
        for (id, (answer, stand_in)) in looked {
            self.evidence.stand_ins.extend(stand_in.map(|stand_in| (id.clone(), stand_in)));
            self.evidence.clients.insert(id, answer);
        }
    }

    /// Round 1.
    fn write(&mut self) {
        let mounted = self.mounted().map(|(_, directory)| directory.pool.as_str());
        let of_luns = self.targets().filter_map(|(_, target)| Some(target.pool.as_ref()?.name.as_str()));
        let pools = pools::query(mounted.chain(of_luns));
        let writes = |host: &HostId| {
            let write = |(storage, directory): (&ScopedStorage, &MountedDirectory)| {
                let id = &storage.probe.storage;
                let nonce = self.evidence.nonce(id, host);
                (id.clone(), mount_probe::write(directory, &self.probe(host), &nonce))
            };
            self.mounted().map(write).collect::<BTreeMap<StorageId, Query>>()
        };
        let facts = [mount_probe::mounts(), pools.clone(), qemu_conf::configuration(), qemu_conf::users()];
        let batches: Batches = self
            .scope
            .hosts
            .iter()
            .map(|host| (host.clone(), facts.iter().cloned().chain(writes(host).into_values()).collect()))
            .collect();
        let create = |(storage, _): (&ScopedStorage, &DirectDirectory)| {
            (
                storage.probe.storage.clone(),
                ClientRequest { create: self.probes(), ..ClientRequest::default() },
            )
        };
        let requests: BTreeMap<_, _> = self.direct().map(create).collect();
        let (seen, clients) = std::thread::scope(|scope| {
            let clients = scope.spawn(|| self.look(requests));
            let seen = self.ask(batches);
            (seen, clients.join().unwrap_or_default())
        });
        let hosts = self.scope.hosts.iter().map(|host| {
            let mounted = writes(host)
                .into_iter()
                .map(|(id, query)| {
                    let written = fact(&seen, host, &query, seen::written);
                    let evidence = MountedEvidence {
                        written,
                        looked: later(),
                        rival: None,
                        released: later(),
                        removed: Err(NoFacts::NotAsked("there was nothing to remove".to_owned())),
                    };
                    (id, evidence)
                })
                .collect();
            let evidence = HostEvidence {
                mounts: fact(&seen, host, &facts[0], |answer| Ok(mount_table::parse(&answer.stdout))),
                pools: fact(&seen, host, &pools, |answer| pools::parse(answer).map_err(NoFacts::Malformed)),
                user: match self.scope.users.get(host) {
                    Some(user) => Ok(Some(user.clone())),
                    None => fact(&seen, host, &facts[2], |conf| {
                        fact(&seen, host, &facts[3], |users| Ok(qemu_conf::user(&conf.stdout, &users.stdout)))
                    }),
                },
                mounted,
                direct: BTreeMap::new(),
                luns: BTreeMap::new(),
            };
            (host.clone(), evidence)
        });
        let hosts = hosts.collect();
        self.evidence.hosts = hosts;
        self.take(clients);
    }

    fn evidence(&self, host: &HostId, storage: &StorageId) -> Option<&MountedEvidence> {
        self.evidence.hosts.get(host)?.mounted.get(storage)
    }

    fn update(&mut self, host: &HostId, storage: &StorageId, change: impl FnOnce(&mut MountedEvidence)) {
        if let Some(seen) = self.evidence.hosts.get_mut(host).and_then(|seen| seen.mounted.get_mut(storage)) {
            change(seen);
        }
    }

    fn actor(&self, host: &HostId) -> Option<Actor> {
        let user = self.evidence.hosts.get(host)?.user.as_ref().ok()?.as_ref()?;
        Some(Actor { user: user.user.clone(), group: user.group.clone() })
    }

    /// The hosts that hold a lock on their own probe file; each tries the lock of the one before it, in a ring.
    fn rivals(&self, storage: &StorageId) -> BTreeMap<HostId, Rival> {
        let holder = |host: &HostId| {
            let hold = self.evidence(host, storage)?.written.as_ref().ok()?.lock.as_ref().ok()?;
            Some(Rival { host: host.clone(), file: self.probe(host), kind: hold.kind.clone() })
        };
        let ring: Vec<Rival> = self.scope.hosts.iter().filter_map(holder).collect();
        let before = ring.iter().cycle().skip(ring.len().saturating_sub(1));
        let pairs = ring.iter().zip(before).filter(|(rival, holder)| rival.host != holder.host);
        pairs.map(|(rival, holder)| (rival.host.clone(), holder.clone())).collect()
    }

    /// Hosts whose nonce is on a mounted storage.
    fn writers(&self, storage: &StorageId) -> Vec<HostId> {
        let wrote = |host: &&HostId| {
            self.evidence(host, storage).is_some_and(|seen| matches!(&seen.written, Ok(w) if w.nonce.is_ok()))
        };
        self.scope.hosts.iter().filter(wrote).cloned().collect()
    }

    /// Round 2.
    fn read(&mut self) {
        let mut asked: BTreeMap<(HostId, StorageId), Query> = BTreeMap::new();
        let mut requests = BTreeMap::new();
        for (storage, directory) in self.mounted() {
            let id = &storage.probe.storage;
            let writers = self.writers(id);
            let rivals = self.rivals(id);
            let files = |hosts: &[HostId]| hosts.iter().map(|host| self.probe(host)).collect::<Vec<_>>();
            let images: Vec<String> = storage.images.iter().map(|image| image.file.clone()).collect();
            for host in &self.scope.hosts {
                let others: Vec<HostId> = writers.iter().filter(|other| *other != host).cloned().collect();
                let reading = Reading {
                    images: images.clone(),
                    nonces: files(&others),
                    locks: rivals.get(host).cloned().into_iter().collect(),
                };
                let wrote = writers.contains(host).then(|| self.probe(host));
                let query = mount_probe::read(
                    directory,
                    wrote.as_deref().unwrap_or(""),
                    self.actor(host).as_ref(),
                    &reading,
                );
                asked.insert((host.clone(), id.clone()), query);
            }
            let request =
                ClientRequest { identify: images, read: files(&writers), ..ClientRequest::default() };
            requests.insert(id.clone(), request);
        }
        // A host where writing came to nothing for want of an answer or of the right mount is not asked again.
        let why: BTreeMap<(HostId, StorageId), NoFacts> = asked
            .keys()
            .filter_map(|key| match &self.evidence(&key.0, &key.1)?.written {
                Ok(_) => None,
                Err(why) => Some((key.clone(), why.clone())),
            })
            .collect();
        asked.retain(|key, _| !why.contains_key(key));
        let direct = self.direct_writes();
        let batches = self.batches(asked.iter().chain(&direct));
        let (seen, clients) = std::thread::scope(|scope| {
            let clients = scope.spawn(|| self.look(requests));
            let seen = self.ask(batches);
            (seen, clients.join().unwrap_or_default())
        });
        self.take(clients);
        for (storage, directory) in self.mounted() {
            let id = &storage.probe.storage;
            let rivals = self.rivals(id);
            for host in &self.scope.hosts {
                let key = (host.clone(), id.clone());
                let looked = match (asked.get(&key), why.get(&key)) {
                    (Some(query), _) => fact(&seen, host, query, |answer| seen::looked(directory, answer)),
                    (None, Some(why)) => Err(why.clone()),
                    (None, None) => later(),
                };
                let rival = rivals.get(host).map(|holder| holder.host.clone());
                self.update(host, id, |evidence| {
                    evidence.looked = looked;
                    evidence.rival = rival;
                });
            }
        }
        self.direct_read(&direct, &seen);
        self.luns();
    }

    fn batches<'q>(&self, queries: impl Iterator<Item = (&'q (HostId, StorageId), &'q Query)>) -> Batches {
        let mut batches = Batches::new();
        for ((host, _), query) in queries {
            batches.entry(host.clone()).or_default().push(query.clone());
        }
        batches
    }

    /// Round 3: only where something was written.
    fn release(&mut self) {
        let mut asked = BTreeMap::new();
        for (storage, directory) in self.mounted() {
            let id = &storage.probe.storage;
            let rivals = self.rivals(id);
            for host in &self.scope.hosts {
                let Some(Ok(written)) = self.evidence(host, id).map(|seen| &seen.written) else { continue };
                let pid = written.lock.as_ref().ok().map(|hold| hold.pid);
                let locks: Vec<Rival> = rivals.get(host).cloned().into_iter().collect();
                let query = mount_probe::release(directory, &self.probe(host), pid, &locks);
                asked.insert((host.clone(), id.clone()), query);
            }
        }
        let seen = self.ask(self.batches(asked.iter()));
        for ((host, id), query) in &asked {
            let released = fact(&seen, host, query, seen::released);
            self.update(host, id, |evidence| evidence.released = released);
        }
    }

    /// Round 4: likewise.
    fn remove(&mut self) {
        let mut asked = BTreeMap::new();
        for (storage, directory) in self.mounted() {
            let id = &storage.probe.storage;
            for host in &self.scope.hosts {
                if matches!(self.evidence(host, id).map(|seen| &seen.written), Some(Ok(_))) {
                    let query = mount_probe::remove(directory, &self.probe(host));
                    asked.insert((host.clone(), id.clone()), query);
                }
            }
        }
        let made = |probe: &Probe| {
            probe.keeper.is_some() || matches!(self.evidence.clients.get(&probe.storage), Some(Ok(_)))
        };
        let files = |probe: &Probe| {
            (probe.storage.clone(), ClientRequest { remove: self.probes(), ..Default::default() })
        };
        let probes = self.direct().map(|(storage, _)| &storage.probe);
        let requests: BTreeMap<_, _> = probes.filter(|probe| made(probe)).map(files).collect();
        let (seen, _) = (self.ask(self.batches(asked.iter())), self.look(requests));
        for ((host, id), query) in &asked {
            let removed = fact(&seen, host, query, seen::removed);
            self.update(host, id, |evidence| evidence.removed = removed);
        }
    }
}
