//! tgt: daemon, CHAP account and configuration file; the target as it is offered now is in `live`.
//!
//! In this order: the account comes before the file, because a file with the stamp of a secret says that the account has it.

mod live;

use super::backing::Grown;
use super::server::Server;
use super::{Subject, daemon, target};
use crate::model::{Difference, Effect, Proposal, ResourceId, ResourceKind, Secret, Step, Wave};
use crate::storage::iscsi::commands::tgt;
use crate::storage::iscsi::spec::ChapSpec;
use crate::storage::service::enable_and_start;

/// Plans everything about tgt.
pub(super) fn plan(server: &Server<'_>, grown: Grown, out: &mut Proposal) {
    let Subject { cluster, spec, .. } = *server.subject;
    let secret = match &spec.chap {
        None => None,
        Some(chap) => match cluster.secrets.get(&chap.secret) {
            Some(value) => Some((chap, value)),
            None => {
                let reason = format!("the CHAP secret was not read ({})", chap.secret);
                let hint = "this command plans without secrets; run `stor plan` or `stor apply`";
                out.blocked.push(server.subject.refused(Wave::Export, reason, hint));
                return;
            }
        },
    };
    service(server, out);
    let kept = account(server, secret, out);
    conf(server, secret, kept, out);
    match server.shown() {
        Some(shown) => live::plan(server, shown, grown, out),
        None => {
            let why = Difference::new(server.subject.field("offered"), "yes", "no");
            out.steps.push(offer(server, why));
        }
    }
}

fn service(server: &Server<'_>, out: &mut Proposal) {
    let facts = &server.facts;
    if facts.tgt_unit.is_active() && facts.tgt_unit.is_enabled() {
        return;
    }
    let unit = tgt::service(facts.family);
    let what = ResourceId::new(ResourceKind::Service, unit);
    let why = Difference::new(format!("service.{unit}"), "enabled, active", facts.tgt_unit.summary());
    let title = "enable and start tgt".to_owned();
    let step = server.step(Wave::Export, what, title, Effect::Run(vec![enable_and_start(unit)])).because(why);
    out.steps.push(if facts.tgt_unit.is_enabled() { step } else { step.owning(daemon(unit)) });
}

/// Whether the secret that was given away last is the one of now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Yes,
    No,
}

/// Plans the CHAP account.
fn account(server: &Server<'_>, secret: Option<(&ChapSpec, &Secret)>, out: &mut Proposal) -> Kept {
    let stamp = server.facts.conf.as_ref().and_then(|conf| conf.stamp);
    let Some((chap, value)) = secret else {
        return if stamp.is_none() { Kept::Yes } else { Kept::No };
    };
    let user = chap.user.to_string();
    let kept = if stamp.is_some_and(|stamp| stamp.fits(value)) { Kept::Yes } else { Kept::No };
    let bound = server.shown().is_none_or(|target| target.accounts.contains(&user));
    let observed = match (server.facts.accounts.contains(&user), kept, bound) {
        (true, Kept::Yes, true) => return kept,
        (false, ..) => "absent",
        (true, Kept::No, _) => "another secret",
        (true, Kept::Yes, false) => "not asked for",
    };
    let run = Effect::Run(tgt::set_account(&chap.user, value, &server.subject.spec.iqn));
    let title = format!("give CHAP user {user} its secret in tgt");
    let wanted = format!("user {user}, as its reference says");
    let why = Difference::new(server.subject.field("chap"), wanted, observed);
    let step = server.step(Wave::Export, server.subject.target(), title, run).because(why);
    out.steps.push(owning(server, step));
    kept
}

fn owning(server: &Server<'_>, step: Step) -> Step {
    let Subject { cluster, id, spec, .. } = *server.subject;
    step.owning(target(cluster, id, spec))
}

/// Plans the configuration file, which tgt reads when it starts.
fn conf(server: &Server<'_>, secret: Option<(&ChapSpec, &Secret)>, kept: Kept, out: &mut Proposal) {
    let Subject { cluster, id, spec, .. } = *server.subject;
    let observed = match &server.facts.conf {
        None => "absent",
        Some(conf) if conf.text != tgt::conf_shown(cluster, id, spec) => {
            "edited, or written for an older file"
        }
        Some(_) if kept == Kept::No => "with another secret",
        Some(conf) if conf.mode != "600" => "readable by others than root",
        Some(_) => return,
    };
    let stamped = secret.map(|(_, value)| (value, cluster.secrets.stamp(value)));
    let file = tgt::conf_file(cluster, id, spec, stamped);
    let title = format!("write {}", file.path);
    let why = Difference::new(format!("file {}", file.path), "as the file says", observed);
    let effect = Effect::WriteFile(file);
    let step = server.step(Wave::Export, server.subject.target(), title, effect).because(why);
    out.steps.push(owning(server, step));
}

/// Offers the target as its configuration file says; tgt does so only while nobody uses it.
fn offer(server: &Server<'_>, why: Difference) -> Step {
    let spec = server.subject.spec;
    let names: Vec<&str> = spec.luns.iter().map(|lun| lun.name.as_str()).collect();
    let title = format!("offer target {} with {}", spec.iqn, names.join(", "));
    let run = Effect::Run(vec![tgt::offer(spec)]);
    owning(server, server.step(Wave::Export, server.subject.target(), title, run).because(why))
}
