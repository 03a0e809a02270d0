//! The kernel's server: fixed ports, packages, daemon, exports file.

use std::collections::BTreeSet;

use super::server::Server;
use super::{Subject, daemon, kernel_export};
use crate::host::block::{begin_mark, end_mark};
use crate::model::{
    BlockLine, BlockSpec, Difference, Effect, FileContent, FileMode, FileSpec, Owned, OwnedKind, Proposal,
    ResourceId, ResourceKind, Wave,
};
use crate::storage::facts::FactsError;
use crate::storage::nfs::commands::kernel::{self, PortsIn, SERVICE};
use crate::storage::nfs::commands::{self, same_clients};
use crate::storage::nfs::spec::Version;
use crate::storage::service::enable_and_start;

/// The word behind `stor` in the marks around the ports in a file of the distribution's.
const PORTS_MARKER: &str = "nfs-ports";

/// Plans package, daemon and export.
pub(super) fn plan(server: &Server<'_>, out: &mut Proposal) -> Result<(), FactsError> {
    if !server.facts.kernel_has_nfsd {
        let hint = "write provider: ganesha, or boot a kernel with nfsd";
        let reason = "its kernel has no NFS server (nfsd)";
        out.blocked.push(server.subject.refused(Wave::Prerequisites, reason, hint));
        return Ok(());
    }
    refused_versions(server, out);
    // Before the packages: the daemons then start with these ports.
    ports(server, out);
    server.install(kernel::SERVER, out)?;
    service(server, out);
    export(server, out);
    Ok(())
}

/// Refuses a version of the protocol that the running server has switched off: other exports may want it so.
fn refused_versions(server: &Server<'_>, out: &mut Proposal) {
    let spec = server.subject.spec;
    let wanted = spec.mount.as_ref().map_or(Version::V3, |mount| mount.version);
    if server.facts.versions.get(wanted.option()) == Some(&false) {
        let reason = format!("NFS {wanted} is switched off on its server");
        let hint = "switch it on in /etc/nfs.conf ([nfsd]) and restart nfs-server, or mount another version:";
        out.blocked.push(server.subject.refused(Wave::Prerequisites, reason, hint));
    }
}

/// What the record may hold of the ports, wherever they are written.
pub(super) fn ports_claims() -> Vec<Owned> {
    [PortsIn::NfsConf, PortsIn::DebianDefault, PortsIn::Sysconfig].into_iter().map(ports_owned).collect()
}

fn ports_owned(place: PortsIn) -> Owned {
    let path = place.path();
    match place {
        PortsIn::NfsConf => Owned::new(OwnedKind::File, path.as_str()),
        _ => Owned::new(OwnedKind::Block, path.as_str()).with("marker", PORTS_MARKER),
    }
}

/// NFSv4 needs no port but 2049.
fn ports(server: &Server<'_>, out: &mut Proposal) {
    if !server.subject.spec.protocols.v3 {
        return;
    }
    let (place, seen) = &server.facts.ports;
    let (path, lines) = (place.path(), place.lines());
    let whole = lines.join("\n") + "\n";
    let (effect, right) = if *place == PortsIn::NfsConf {
        let content = FileContent::Text(whole.as_str().into());
        let file = FileSpec { path: path.clone(), mode: FileMode(0o644), content };
        (Effect::WriteFile(file), seen.as_ref() == Some(&whole))
    } else {
        let block = format!("{}\n{whole}{}\n", begin_mark(PORTS_MARKER), end_mark(PORTS_MARKER));
        let lines: Vec<BlockLine> = lines.into_iter().map(BlockLine::Text).collect();
        let spec = BlockSpec {
            path: path.clone(),
            mode: FileMode(0o644),
            marker: PORTS_MARKER.to_owned(),
            lines: Some(lines.into()),
        };
        (Effect::EditBlock(spec), seen.as_ref().is_some_and(|text| text.contains(&block)))
    };
    if right {
        return;
    }
    let what = ResourceId::new(ResourceKind::Service, SERVICE);
    let observed = if seen.is_some() { "other settings" } else { "absent" };
    let why = Difference::new(format!("file {path}"), "fixed ports", observed);
    let title = format!("fix the ports of NFS in {path}");
    let step = server.step(Wave::Prerequisites, what.clone(), title, effect);
    out.steps.push(step.because(why).owning(ports_owned(*place)));
    if server.facts.kernel.is_active() {
        let run = Effect::Run(vec![kernel::restart_side_daemons()]);
        let title = "have mountd and statd take up their ports".to_owned();
        let why = Difference::new("service.nfs-mountd.service", "with fixed ports", "started before");
        out.steps.push(server.step(Wave::Prerequisites, what, title, run).because(why));
    }
}

fn service(server: &Server<'_>, out: &mut Proposal) {
    let state = &server.facts.kernel;
    if state.is_active() && state.is_enabled() {
        return;
    }
    let what = ResourceId::new(ResourceKind::Service, SERVICE);
    let effect = Effect::Run(vec![enable_and_start(SERVICE), kernel::past_grace()]);
    let why = Difference::new(format!("service.{SERVICE}"), "enabled, active", state.summary());
    let mut step =
        server.step(Wave::Prerequisites, what, "enable and start the kernel's NFS server".to_owned(), effect);
    if !state.is_enabled() {
        step = step.owning(daemon(SERVICE));
    }
    out.steps.push(step.because(why));
}

fn export(server: &Server<'_>, out: &mut Proposal) {
    let Subject { cluster, id, spec, .. } = *server.subject;
    let file = kernel::exports_file(cluster, id, spec);
    let FileContent::Text(desired) = &file.content else { return };
    let lines: Vec<_> = server.facts.exports.iter().filter(|line| line.file == file.path.as_str()).collect();
    let shown: Vec<String> = lines.iter().map(|line| format!("{} {}", line.path, line.clients)).collect();
    let wanted: Vec<&str> = desired.lines().filter(|line| !line.starts_with('#')).collect();
    let written = shown == wanted;
    if !written {
        let observed = if lines.is_empty() { "absent" } else { "edited, or written for an older file" };
        let title = format!("write {}", file.path);
        let why = Difference::new(format!("file {}", file.path), "as the file says", observed);
        let step = server.step(Wave::Export, server.subject.export(), title, Effect::WriteFile(file.clone()));
        out.steps.push(step.because(why).owning(kernel_export((cluster, id, spec))).taking(shut_out(server)));
    }
    let difference = exported(server);
    if written && difference.is_none() {
        return;
    }
    let clients: Vec<String> = commands::clients(cluster, spec).into_iter().collect();
    let title = format!("export {} to {}", spec.path, clients.join(", "));
    let step = server.step(
        Wave::Export,
        server.subject.export(),
        title,
        Effect::Run(vec![kernel::reexport(cluster, spec)]),
    );
    let why = difference
        .unwrap_or_else(|| Difference::new(server.subject.field("file"), "read", "changed by this plan"));
    out.steps.push(step.because(why).taking(shut_out(server)));
}

/// Whom the server lets in now, by its file or by what it exports, and would not any more.
fn shut_out(server: &Server<'_>) -> BTreeSet<String> {
    let Subject { cluster, id, spec, .. } = *server.subject;
    let desired = commands::clients(cluster, spec);
    let file = kernel::exports_path(cluster, id);
    let lines = server.facts.exports.iter().filter(|line| line.file == file.as_str());
    let words = lines.flat_map(|line| line.clients.split_whitespace());
    let written: BTreeSet<String> = words
        .map(|word| word.split('(').next().unwrap_or("").to_owned())
        .filter(|word| !word.is_empty())
        .collect();
    let entries = server.facts.etab.iter().filter(|entry| entry.path == spec.path.as_str());
    let shown: BTreeSet<String> = entries.map(|entry| entry.client.clone()).collect();
    let mut out: BTreeSet<String> = written.difference(&desired).cloned().collect();
    // A name may be what the server shows for an address that stays.
    let hidden = desired.difference(&shown).count();
    let (names, others): (BTreeSet<&String>, BTreeSet<&String>) =
        shown.difference(&desired).partition(|client| commands::is_plain_name(client));
    out.extend(others.into_iter().cloned());
    if names.len() > hidden + written.difference(&desired).count() {
        out.extend(names.into_iter().cloned());
    }
    out
}

/// What differs between the file and what the server exports now.
fn exported(server: &Server<'_>) -> Option<Difference> {
    let Subject { cluster, id, spec, .. } = *server.subject;
    let entries: Vec<_> = server.facts.etab.iter().filter(|entry| entry.path == spec.path.as_str()).collect();
    let desired = commands::clients(cluster, spec);
    let shown: BTreeSet<String> = entries.iter().map(|entry| entry.client.clone()).collect();
    let listed = |clients: &BTreeSet<String>| match clients.is_empty() {
        true => "nobody".to_owned(),
        false => clients.iter().cloned().collect::<Vec<_>>().join(" "),
    };
    if !same_clients(&desired, &shown) {
        return Some(Difference::new(server.subject.field("clients"), listed(&desired), listed(&shown)));
    }
    let options = kernel::options(cluster, id, spec);
    entries.iter().find_map(|entry| {
        let lacking: Vec<&str> =
            options.iter().filter(|option| !entry.options.contains(*option)).map(String::as_str).collect();
        let field = server.subject.field(&format!("{}.options", entry.client));
        (!lacking.is_empty()).then(|| Difference::new(field, lacking.join(","), "others"))
    })
}
