//! The rounds of storage that QEMU reaches itself: the probe files are made and removed at the server, written and read by
//! QEMU's own tool on the hypervisors.

use std::collections::BTreeMap;

use super::super::evidence::HostEvidence;
use super::{Rounds, fact};
use crate::model::{HostId, Observations, Query, StorageId};
use crate::storage::direct_probe;
use crate::storage::mount_probe::seen::NoFacts;
use crate::storage::probe::ClientRequest;

impl Rounds<'_> {
    /// Round 2 of volumes that QEMU reaches itself: open the images, write the own nonce.
    pub(super) fn direct_writes(&self) -> BTreeMap<(HostId, StorageId), Query> {
        let mut asked = BTreeMap::new();
        for (storage, directory) in self.direct() {
            let id = &storage.probe.storage;
            let images: Vec<String> = storage.images.iter().map(|image| image.file.clone()).collect();
            for host in self.reachable() {
                let (file, nonce) = (self.probe(&host), self.evidence.nonce(id, &host));
                let made = self.evidence.clients.get(id).and_then(|client| client.as_ref().ok());
                let made = made.is_some_and(|seen| matches!(seen.created.get(&file), Some(Ok(()))));
                let own = made.then_some((file.as_str(), nonce.as_str()));
                let query = direct_probe::write(directory, self.actor(&host).as_ref(), own, &images);
                asked.insert((host, id.clone()), query);
            }
        }
        asked
    }

    /// Hosts that answered in round 1.
    fn reachable(&self) -> Vec<HostId> {
        let answered = |(_, seen): &(&HostId, &HostEvidence)| seen.mounts.is_ok();
        self.evidence.hosts.iter().filter(answered).map(|(host, _)| host.clone()).collect()
    }

    /// One more round for volumes that QEMU reaches itself: read the others' nonces, here and through the client.
    pub(super) fn direct_read(&mut self, asked: &BTreeMap<(HostId, StorageId), Query>, wrote: &Observations) {
        let mut queries = BTreeMap::new();
        let mut requests = BTreeMap::new();
        for (storage, directory) in self.direct() {
            let id = &storage.probe.storage;
            let files = self.probes();
            // Where nobody could make probe files there are none to read.
            let made = matches!(self.evidence.clients.get(id), Some(Ok(_)));
            for host in self.reachable() {
                let others: Vec<String> =
                    files.iter().filter(|file| made && **file != self.probe(&host)).cloned().collect();
                let query = direct_probe::read(directory, self.actor(&host).as_ref(), &others);
                queries.insert((host, id.clone()), query);
            }
            if made {
                let identify = storage.images.iter().map(|image| image.file.clone()).collect();
                requests
                    .insert(id.clone(), ClientRequest { identify, read: files, ..ClientRequest::default() });
            }
        }
        if queries.is_empty() {
            return;
        }
        let read = self.ask(self.batches(queries.iter()));
        let looked = self.look(requests);
        self.take(looked);
        for (key, query) in asked {
            let (host, id) = key;
            let first = fact(wrote, host, query, direct_probe::seen);
            let second = fact(&read, host, &queries[key], direct_probe::seen);
            let both = first.and_then(|first| {
                second.map(|second| direct_probe::DirectSeen { nonces: second.nonces, ..first })
            });
            if let Some(seen) = self.evidence.hosts.get_mut(host) {
                seen.direct.insert(id.clone(), both);
            }
        }
        for (storage, _) in self.direct() {
            let unreachable: Vec<(HostId, NoFacts)> = self
                .evidence
                .hosts
                .iter()
                .filter_map(|(host, seen)| Some((host.clone(), seen.mounts.clone().err()?)))
                .collect();
            for (host, why) in unreachable {
                if let Some(seen) = self.evidence.hosts.get_mut(&host) {
                    seen.direct.insert(storage.probe.storage.clone(), Err(why));
                }
            }
        }
    }
}
