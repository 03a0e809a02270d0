//! How an export is doing: a server runs, and exports the directory to somebody. Pure.
//!
//! Imports `model`, `facts` (readers) and `storage::health`.

use super::commands::ganesha;
use super::facts::{read_etab, read_shown};
use super::spec::NfsSpec;
use crate::model::{
    Answer, Command, Finding, FindingCode, Query, ResourceId, ResourceKind, Severity, StorageId,
};
use crate::spec::Cluster;
use crate::storage::health::{Health, HealthState, Part};

/// Asks for both servers and what they export. A constant: the export's number is an argument.
const ASK: &str = "\
echo \"kernel $(systemctl is-active nfs-server.service)\"
echo \"ganesha $(systemctl is-active nfs-ganesha.service)\"
sed 's/^/etab /' /var/lib/nfs/etab 2>/dev/null
echo \"shown $(busctl --json=short --timeout=5 call org.ganesha.nfsd /org/ganesha/nfsd/ExportMgr \
org.ganesha.nfsd.exportmgr DisplayExport q \"$1\" 2>/dev/null)\"
";

/// Asks the server, in one call.
#[must_use]
pub fn query(cluster: &Cluster, id: &StorageId, spec: &NfsSpec) -> Query {
    let number = ganesha::export_id(cluster, id, spec).to_string();
    Query::new(Command::new("sh").args(["-c", ASK, "health", &number]))
}

/// Reads the answer of [`query`].
#[must_use]
pub fn read(cluster: &Cluster, spec: &NfsSpec, answer: &Answer) -> Health {
    let line = |word: &str| answer.stdout.lines().find_map(|line| line.strip_prefix(word));
    let (Some(kernel), Some(ganesha)) = (line("kernel "), line("ganesha ")) else {
        return Health::unknown(format!("the server says nothing: {}", answer.stderr.trim()));
    };
    let (kernel, ganesha) = (kernel == "active", ganesha == "active");
    let etab: String = answer
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("etab "))
        .map(|line| format!("{line}\n"))
        .collect();
    let path = spec.path.as_str();
    let by_kernel = read_etab(&etab).into_iter().filter(|entry| entry.path == path).count();
    let shown = Answer { stdout: line("shown ").unwrap_or_default().to_owned(), ..answer.clone() };
    let by_ganesha =
        read_shown(&shown).filter(|shown| shown.path == path).map_or(0, |shown| shown.clients.len());
    let (server, clients) = match (kernel, ganesha) {
        (true, _) => (Some("the kernel's server"), by_kernel),
        (false, true) => (Some("nfs-ganesha"), by_ganesha),
        (false, false) => (None, 0),
    };
    let name = format!("{}:{path}", cluster.address_of(&spec.server));
    let parts = vec![Part { kind: "export", name: name.clone(), up: clients > 0 }];
    let summary = match server {
        Some(server) if clients > 0 => format!("exported by {server} to {clients} clients"),
        Some(server) => format!("{server} runs and does not export it"),
        None => "no NFS server runs".to_owned(),
    };
    if clients > 0 {
        return Health { state: HealthState::Healthy, summary, parts, findings: Vec::new() };
    }
    let subject = ResourceId::new(ResourceKind::Export, &name);
    let message = format!("host {}: {summary}", spec.server);
    let finding = Finding::new(Severity::Error, FindingCode::ExportMissing, subject, message)
        .on(&spec.server)
        .remedy("run `stor apply`, and see `journalctl -u nfs-server -u nfs-ganesha` on the host");
    Health { state: HealthState::Down, summary, parts, findings: vec![finding] }
}
