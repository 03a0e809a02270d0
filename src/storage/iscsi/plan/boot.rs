//! Has the program that offers the target wait for its devices at boot.

use super::Subject;
use super::server::Server;
use crate::model::{
    Command, Difference, Effect, HostId, Owned, OwnedKind, Proposal, ResourceId, ResourceKind, StorageId,
    Wave,
};
use crate::spec::Cluster;
use crate::storage::iscsi::commands::{boot, lio, tgt};
use crate::storage::iscsi::facts::Software;
use crate::storage::iscsi::spec::{IscsiProvider, IscsiSpec};
use crate::storage::packages::Family;

/// Plans the drop-in file, and that systemd reads it.
pub(super) fn plan(server: &Server<'_>, out: &mut Proposal) {
    let Subject { cluster, id, spec, .. } = *server.subject;
    if !boot::is_needed(spec) {
        return;
    }
    let service = service(server.software, server.facts.family);
    let file = boot::file(service, cluster, id, spec);
    let observed = match server.facts.boot.get(&file.path) {
        Some(text) if *text == boot::text(cluster, spec) => return,
        Some(_) => "edited, or written for an older file",
        None => "absent",
    };
    let why = Difference::new(format!("file {}", file.path), "as the file says", observed);
    let what = || ResourceId::new(ResourceKind::Service, service);
    let owned = self::file(service, cluster, id);
    let title = format!("have {service} wait for the devices behind the LUNs");
    let step = server.step(Wave::Export, what(), title, Effect::WriteFile(file)).because(why.clone());
    out.steps.push(step.owning(owned));
    let run = Effect::Run(vec![Command::new("systemctl").arg("daemon-reload")]);
    let directory = Owned::new(OwnedKind::Directory, boot::directory(service).as_str()).of_storage(id);
    let step = server.step(Wave::Export, what(), "have systemd read that".to_owned(), run);
    out.steps.push(step.because(why).owning(directory));
}

fn service(software: Software, family: Option<Family>) -> &'static str {
    match software {
        Software::Lio => lio::service(family),
        Software::Tgt => tgt::service(family),
    }
}

fn file(service: &str, cluster: &Cluster, id: &StorageId) -> Owned {
    Owned::new(OwnedKind::File, boot::path(service, cluster, id).as_str()).of_storage(id)
}

/// All that stor would own of this on the server.
pub(super) fn claims(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec, host: &HostId) -> Vec<Owned> {
    if !boot::is_needed(spec) || spec.server != *host {
        return Vec::new();
    }
    let families = [Some(Family::Debian), Some(Family::RedHat)];
    let of = |software| families.map(|family| service(software, family));
    let services = match spec.provider {
        IscsiProvider::Lio => of(Software::Lio).to_vec(),
        IscsiProvider::Tgt => of(Software::Tgt).to_vec(),
        IscsiProvider::Auto => [of(Software::Lio), of(Software::Tgt)].concat(),
    };
    let both = |service: &str| {
        let directory = Owned::new(OwnedKind::Directory, boot::directory(service).as_str());
        [file(service, cluster, id), directory.of_storage(id)]
    };
    services.into_iter().flat_map(both).collect()
}
