//! The round of storage whose images are LUNs: an initiator on this machine looks, then QEMU's own tools on every hypervisor,
//! then the initiator again, so that a LUN that is being written can be told from two different ones.

use std::collections::BTreeMap;

use super::super::evidence::ScopedStorage;
use super::{Rounds, ServerSide, fact};
use crate::model::{HostId, Query, StorageId};
use crate::storage::lun_probe;
use crate::storage::probe::{ClientRequest, LunTarget, NoClient, Way};
use crate::verify::evidence::StandIn;

impl<'a> Rounds<'a> {
    pub(super) fn targets(&self) -> impl Iterator<Item = (&'a ScopedStorage, &'a LunTarget)> + use<'a> {
        self.scope.storages.iter().filter_map(|storage| match &storage.probe.way {
            Way::Luns(target) => Some((storage, &**target)),
            Way::Mounted(_) | Way::Direct(_) => None,
        })
    }

    /// Looks at all LUNs, three times.
    pub(super) fn luns(&mut self) {
        if self.targets().next().is_none() {
            return;
        }
        let before = self.look_at_luns();
        let mut queries: BTreeMap<(HostId, StorageId), Query> = BTreeMap::new();
        for (storage, target) in self.targets() {
            let files: Vec<String> = storage.images.iter().map(|image| image.file.clone()).collect();
            for host in &self.scope.hosts {
                let key = (host.clone(), storage.probe.storage.clone());
                queries.insert(key, lun_probe::query(target, host, &files));
            }
        }
        let seen = self.ask(self.batches(queries.iter()));
        for ((host, id), query) in &queries {
            let luns = fact(&seen, host, query, lun_probe::seen);
            if let Some(evidence) = self.evidence.hosts.get_mut(host) {
                evidence.luns.insert(id.clone(), luns);
            }
        }
        let after = self.look_at_luns();
        self.evidence.earlier =
            before.into_iter().filter_map(|(id, (answer, _))| Some((id, answer.ok()?))).collect();
        self.take(after);
    }

    /// The server stands in where the initiator on this machine may not, or cannot, look.
    fn look_at_luns(&self) -> BTreeMap<StorageId, ServerSide> {
        let mut requests = BTreeMap::new();
        for (storage, _) in self.targets() {
            let files: Vec<String> = storage.images.iter().map(|image| image.file.clone()).collect();
            let request = ClientRequest { identify: files.clone(), read: files, ..ClientRequest::default() };
            requests.insert(storage.probe.storage.clone(), request);
        }
        let mut looked = self.look(requests);
        for (storage, target) in self.targets() {
            let Some(side) = looked.get_mut(&storage.probe.storage) else { continue };
            let why = match &side.0 {
                Ok(_) | Err(NoClient::LetIn { .. }) => continue,
                Err(why) => why.clone(),
            };
            let files: Vec<String> = storage.images.iter().map(|image| image.file.clone()).collect();
            let query = lun_probe::server_query(target, &files);
            let seen = self.ask([(target.server.clone(), vec![query.clone()])].into());
            let answer = match seen.answer(&target.server, &query) {
                Ok(answer) => lun_probe::as_client(target, answer),
                Err(unknown) => Err(NoClient::Failed { reason: unknown.to_string() }),
            };
            *side = (answer, Some(StandIn { host: target.server.clone(), why }));
        }
        looked
    }
}
