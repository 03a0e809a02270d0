//! nfs-ganesha: packages, export file, the line that includes it, daemon.

use std::collections::{BTreeMap, BTreeSet};

use super::server::Server;
use super::{Subject, daemon, ganesha_export};
use crate::host::block::{begin_mark, end_mark};
use crate::model::{Difference, Effect, FileContent, Proposal, ResourceId, ResourceKind, Risk, Step, Wave};
use crate::storage::facts::FactsError;
use crate::storage::nfs::commands;
use crate::storage::nfs::commands::ganesha::{self, SERVICE};
use crate::storage::service::enable_and_start;

/// Plans package, export and daemon.
pub(super) fn plan(server: &Server<'_>, out: &mut Proposal) -> Result<(), FactsError> {
    server.install(ganesha::SERVER, out)?;
    let Subject { cluster, id, spec, .. } = *server.subject;
    let file = ganesha::export_file(cluster, id, spec);
    let FileContent::Text(desired) = &file.content else { return Ok(()) };
    let found = server.facts.ganesha_files.get(file.path.as_str());
    let written = found.is_some_and(|text| **text == **desired);
    if !written {
        let observed = if found.is_none() { "absent" } else { "edited, or written for an older file" };
        let title = format!("write {}", file.path);
        let why = Difference::new(format!("file {}", file.path), "as the file says", observed);
        let step = server.step(Wave::Export, server.subject.export(), title, Effect::WriteFile(file.clone()));
        let step = step.because(why).owning(ganesha_export((cluster, id, spec)));
        out.steps.push(step.taking(shut_out(server, found.map(String::as_str))));
    }
    let included = include(server, out);
    // What the whole server is told counts only from its next start on.
    let settings = found.is_none_or(|text| text.contains(&ganesha::core()));
    let active = server.facts.ganesha.is_active();
    if active && settings {
        let difference = shown(server);
        if !(written && included && difference.is_none()) {
            out.steps.push(reload(server, difference).taking(shut_out(server, found.map(String::as_str))));
        }
    } else {
        out.steps.push(restart(server, active).taking(shut_out(server, found.map(String::as_str))));
    }
    if active && settings && !server.facts.ganesha.is_enabled() {
        let what = ResourceId::new(ResourceKind::Service, SERVICE);
        let run = Effect::Run(vec![enable_and_start(SERVICE)]);
        let why = Difference::new(format!("service.{SERVICE}"), "enabled", server.facts.ganesha.summary());
        let step = server.step(Wave::Export, what, "have nfs-ganesha start with the host".to_owned(), run);
        out.steps.push(step.because(why).owning(daemon(SERVICE)));
    }
    Ok(())
}

/// Plans the line that includes the export's file; tells whether it is there already.
fn include(server: &Server<'_>, out: &mut Proposal) -> bool {
    let Subject { cluster, id, .. } = *server.subject;
    let (file, marker) = (ganesha::export_path(cluster, id), ganesha::marker(cluster, id));
    let block = ganesha::include(&marker, Some(&file));
    let line = format!("{}\n%include \"{file}\"\n{}\n", begin_mark(&marker), end_mark(&marker));
    let included =
        server.facts.ganesha_files.get(block.path.as_str()).is_some_and(|text| text.contains(&line));
    if !included {
        let title = format!("include {file} in {}", block.path);
        let why = Difference::new(format!("file {}", block.path), "includes the export", "does not");
        let step = server.step(Wave::Export, server.subject.export(), title, Effect::EditBlock(block));
        // The export's entry of the record stands for this line, too.
        out.steps.push(step.because(why).owning(ganesha_export((cluster, id, server.subject.spec))));
    }
    included
}

fn reload(server: &Server<'_>, difference: Option<Difference>) -> Step {
    let Subject { cluster, id, spec, .. } = *server.subject;
    let clients: Vec<String> = commands::clients(cluster, spec).into_iter().collect();
    let title = format!("export {} to {}", spec.path, clients.join(", "));
    let run = Effect::Run(ganesha::reload(cluster, id, spec));
    let why = difference
        .unwrap_or_else(|| Difference::new(server.subject.field("file"), "read", "changed by this plan"));
    server.step(Wave::Export, server.subject.export(), title, run).because(why)
}

fn restart(server: &Server<'_>, active: bool) -> Step {
    let Subject { cluster, id, spec, .. } = *server.subject;
    let what = ResourceId::new(ResourceKind::Service, SERVICE);
    let state = server.facts.ganesha.summary();
    let (title, why) = if active {
        let why = Difference::new(format!("service.{SERVICE}.settings"), "as stor writes them", "older ones");
        ("restart nfs-ganesha: guests wait for their disks meanwhile", why)
    } else {
        let why = Difference::new(format!("service.{SERVICE}"), "enabled, active", state);
        ("enable and start nfs-ganesha, and wait until its grace period ends", why)
    };
    let run = Effect::Run(ganesha::restart(cluster, id, spec));
    let mut step = server.step(Wave::Export, what, title.to_owned(), run).because(why);
    if active {
        step = step.risking(Risk::Disruptive);
    }
    if server.facts.ganesha.is_enabled() { step } else { step.owning(daemon(SERVICE)) }
}

/// What differs between the file and what the server shows now.
fn shown(server: &Server<'_>) -> Option<Difference> {
    let Subject { cluster, spec, .. } = *server.subject;
    let desired = commands::clients(cluster, spec);
    let listed = |clients: &BTreeSet<String>| clients.iter().cloned().collect::<Vec<_>>().join(" ");
    let field = server.subject.field("clients");
    match &server.facts.shown {
        None => Some(Difference::new(field, listed(&desired), "not exported")),
        Some(shown) if shown.path != spec.path.as_str() => {
            Some(Difference::new(server.subject.field("path"), &spec.path, &shown.path))
        }
        Some(shown) if !as_resolved(&desired, &shown.clients, &server.facts.names) => {
            Some(Difference::new(field, listed(&desired), listed(&shown.clients)))
        }
        Some(_) => None,
    }
}

/// Whom the server lets in now, by its file or by what it shows, and would not any more.
fn shut_out(server: &Server<'_>, file: Option<&str>) -> BTreeSet<String> {
    let Subject { cluster, spec, .. } = *server.subject;
    let desired = commands::clients(cluster, spec);
    let names = &server.facts.names;
    let leads = |client: &String| names.get(client).cloned().unwrap_or_default();
    let all: BTreeSet<String> = desired.iter().flat_map(leads).chain(desired.iter().cloned()).collect();
    let lines = file.into_iter().flat_map(str::lines).map(str::trim);
    let lists = lines.filter_map(|line| line.strip_prefix("Clients")?.trim_start().strip_prefix('='));
    let written =
        lists.flat_map(|list| list.trim_end_matches(';').split(',')).map(|word| word.trim().to_owned());
    let shown = server.facts.shown.iter().filter(|shown| shown.path == spec.path.as_str());
    let shown = shown.flat_map(|shown| shown.clients.iter().cloned());
    written.chain(shown).filter(|client| !client.is_empty() && !all.contains(client)).collect()
}

/// Tells whether the shown clients are those that it should have: ganesha shows the addresses that it resolved names to.
fn as_resolved(
    desired: &BTreeSet<String>,
    shown: &BTreeSet<String>,
    names: &BTreeMap<String, BTreeSet<String>>,
) -> bool {
    let leads = |client: &String| names.get(client).cloned().unwrap_or_else(|| [client.clone()].into());
    let each = desired.iter().all(|client| leads(client).iter().any(|address| shown.contains(address)));
    let all: BTreeSet<String> = desired.iter().flat_map(leads).collect();
    each && shown.is_subset(&all)
}
