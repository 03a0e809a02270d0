//! What differs between the file and a target that is offered: offered anew while nobody uses it, changed bit by bit, or
//! refused, while somebody does.

use super::super::Subject;
use super::super::backing::Grown;
use super::super::server::Server;
use super::{offer, owning};
use crate::model::{Difference, Effect, Proposal, Step, Wave};
use crate::storage::iscsi::commands;
use crate::storage::iscsi::commands::tgt::{self, Admission};
use crate::storage::iscsi::facts::{Lun, Target};
use crate::storage::iscsi::spec::LunSpec;

/// One difference, and what ends it while the target is in use.
struct Change {
    why: Difference,
    online: Option<Step>,
}

/// Plans what ends the differences.
pub(super) fn plan(server: &Server<'_>, shown: &Target, grown: Grown, out: &mut Proposal) {
    if refuse_moved(server, shown, out) {
        return;
    }
    let mut changes = Vec::new();
    luns(server, shown, &mut changes);
    admissions(server, shown, &mut changes);
    if grown == Grown::Yes {
        let why = Difference::new(server.subject.field("luns"), "opened anew", "as they were before");
        changes.push(Change { why, online: None });
    }
    let Some(user) = shown.connected.first() else {
        let mut reasons = changes.into_iter().map(|change| change.why);
        if let Some(first) = reasons.next() {
            let step = reasons.fold(offer(server, first), Step::because);
            let wanted = commands::clients(server.subject.cluster, server.subject.spec);
            out.steps.push(step.taking(shown.addresses.difference(&wanted).cloned()));
        }
        return;
    };
    for Change { why, online } in changes {
        match online {
            Some(step) => out.steps.push(step.because(why)),
            None => {
                let Difference { field, desired, observed } = why;
                let reason = format!(
                    "{user} uses the target, and {field} cannot change meanwhile: {desired}, not {observed}"
                );
                let hint = "shut the guests down that use this target, then apply again";
                out.blocked.push(server.subject.refused(Wave::Export, reason, hint));
            }
        }
    }
}

/// Refuses LUNs that would get another number, by which guests know them; tells whether there is one.
fn refuse_moved(server: &Server<'_>, shown: &Target, out: &mut Proposal) -> bool {
    let Subject { cluster, id, spec, .. } = *server.subject;
    let before = out.blocked.len();
    for lun in &spec.luns {
        let (serial, wanted) = (commands::serial(&cluster.name, id, lun), u32::from(lun.number));
        let moved = shown.luns.iter().find(|(number, other)| other.serial == serial && **number != wanted);
        let Some((number, _)) = moved else { continue };
        let reason = format!("LUN {} has number {number}, and would get {wanted}", lun.name);
        let hint = format!("guests know it by its number: write number: {number} for it");
        out.blocked.push(server.subject.refused(Wave::Export, reason, hint));
    }
    out.blocked.len() > before
}

fn luns(server: &Server<'_>, shown: &Target, changes: &mut Vec<Change>) {
    let Subject { cluster, id, spec, .. } = *server.subject;
    for lun in &spec.luns {
        let Some(seen) = shown.luns.get(&u32::from(lun.number)) else {
            let field = server.subject.field(&format!("luns.{}", lun.name));
            let title = format!("offer LUN {} as number {}", lun.name, lun.number);
            let run = Effect::Run(vec![tgt::add_lun(cluster, id, spec, lun)]);
            let step = server.step(Wave::Export, server.subject.lun(lun), title, run);
            let online = Some(owning(server, step));
            changes.push(Change { why: Difference::new(field, "offered", "absent"), online });
            continue;
        };
        let found = differences(server, lun, seen);
        changes.extend(found.into_iter().map(|why| Change { why, online: None }));
    }
    for (number, lun) in &shown.luns {
        if !spec.luns.iter().any(|wanted| u32::from(wanted.number) == *number) {
            let field = server.subject.field(&format!("luns.{number}"));
            changes.push(Change { why: Difference::new(field, "absent", &lun.path), online: None });
        }
    }
}

fn differences(server: &Server<'_>, lun: &LunSpec, seen: &Lun) -> Vec<Difference> {
    let Subject { cluster, id, .. } = *server.subject;
    let field = |name: &str| server.subject.field(&format!("luns.{}.{name}", lun.name));
    let all = [
        ("backing", lun.backing.to_string(), seen.path.clone()),
        ("scsi_id", tgt::scsi_id(cluster, id, lun), seen.scsi_id.clone()),
        ("serial", commands::serial(&cluster.name, id, lun), seen.serial.clone()),
        ("online", "yes".to_owned(), if seen.online { "yes" } else { "no" }.to_owned()),
    ];
    let mut found: Vec<Difference> = all
        .into_iter()
        .filter(|(_, wanted, seen)| wanted != seen)
        .map(|(name, wanted, seen)| Difference::new(field(name), wanted, seen))
        .collect();
    // tgt shows whole millions of bytes, rounded.
    let megabytes = lun.size.bytes() / 1_000_000;
    if let Some(seen) = seen.megabytes.filter(|seen| seen.abs_diff(megabytes) > 1) {
        found.push(Difference::new(field("size"), lun.size, format!("{seen} MB")));
    }
    found
}

/// Who may log in: addresses, and CHAP users that are asked for no more.
fn admissions(server: &Server<'_>, shown: &Target, changes: &mut Vec<Change>) {
    let Subject { cluster, spec, .. } = *server.subject;
    let iqn = &spec.iqn;
    let step = |title: String, command| {
        server.step(Wave::Export, server.subject.target(), title, Effect::Run(vec![command]))
    };
    let wanted = commands::clients(cluster, spec);
    let field = |address: &str| server.subject.field(&format!("clients.{address}"));
    for address in wanted.difference(&shown.addresses) {
        let command = tgt::admit(iqn, address, Admission::Bind);
        let online = Some(step(format!("let {address} use target {iqn}"), command));
        changes.push(Change { why: Difference::new(field(address), "let in", "kept out"), online });
    }
    for address in shown.addresses.difference(&wanted) {
        let command = tgt::admit(iqn, address, Admission::Unbind);
        let online = step(format!("keep {address} from target {iqn}"), command).taking([address.clone()]);
        let why = Difference::new(field(address), "kept out", "let in");
        changes.push(Change { why, online: Some(online) });
    }
    let asked = spec.chap.as_ref().map(|chap| chap.user.to_string());
    for user in shown.accounts.iter().filter(|user| Some(*user) != asked.as_ref()) {
        let command = tgt::unbind_account(iqn, user);
        let online = Some(step(format!("ask for CHAP user {user} no more at target {iqn}"), command));
        let why = Difference::new(server.subject.field(&format!("chap.{user}")), "absent", "asked for");
        changes.push(Change { why, online });
    }
}
