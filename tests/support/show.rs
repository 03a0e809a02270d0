//! A plan as text, for snapshots and for failures that a person reads.

use std::fmt::Write as _;

use stor::host::quote;
use stor::model::{Command, Effect, FileContent, ResourceKind, Risk, Severity, Stdin};
use stor::plan::Plan;

/// What is planned for storage on some hosts: titles, reasons, commands and files; then what is blocked on any host, and warnings.
///
/// Trust between hypervisors, guests and the record serve no storage, and have tests of their own.
pub fn plan(plan: &Plan, hosts: &[&str]) -> String {
    let mut out = String::new();
    for (wave, steps) in &plan.waves {
        // Services serve all storage of their host.
        let shown =
            steps.iter().filter(|step| step.storage.is_some() || step.subject.kind == ResourceKind::Service);
        for step in shown.filter(|step| hosts.contains(&step.host.as_str())) {
            let risk = if step.risk == Risk::Safe { String::new() } else { format!(" [{:?}]", step.risk) };
            writeln!(out, "[{wave}] {}: {}{risk}", step.host, step.title).unwrap();
            for why in &step.why {
                writeln!(out, "    {}: {} -> {}", why.field, why.observed, why.desired).unwrap();
            }
            effect(&step.effect, &mut out);
        }
    }
    for blocked in &plan.blocked {
        let on = blocked.host.as_ref().map_or("every host", |host| host.as_str());
        let kind = if blocked.unknown { "unknown" } else { "refused" };
        writeln!(out, "BLOCKED [{}] {on}: {} ({kind}): {}", blocked.wave, blocked.subject, blocked.reason)
            .unwrap();
        writeln!(out, "    hint: {}", blocked.hint.as_deref().unwrap_or("none")).unwrap();
    }
    for finding in plan.findings.iter().filter(|finding| finding.severity > Severity::Advice) {
        writeln!(out, "FOUND {}: {}", finding.code, finding.message).unwrap();
    }
    out
}

fn effect(effect: &Effect, out: &mut String) {
    match effect {
        Effect::Run(commands) => {
            commands.iter().for_each(|one| writeln!(out, "    $ {}", command(one)).unwrap());
        }
        Effect::WriteFile(file) => {
            writeln!(out, "    > {} {:o}", file.path, file.mode.0).unwrap();
            if let FileContent::Text(text) = &file.content {
                text.lines().for_each(|line| writeln!(out, "      | {line}").unwrap());
            }
        }
        Effect::EnsurePool { xml, .. } => {
            xml.lines().for_each(|line| writeln!(out, "      | {line}").unwrap());
        }
        Effect::EditBlock(block) => {
            writeln!(out, "    block {} in {}: {:?}", block.marker, block.path, block.lines).unwrap();
        }
        _ => {}
    }
}

/// Constant programs are shown by their arguments, the first of which names them; standard input is not shown.
fn command(command: &Command) -> String {
    let mut shown = command.clone();
    if matches!(command.program, "sh" | "perl" | "python3") {
        shown.args.remove(1);
    }
    shown.stdin = Stdin::Empty;
    quote::line(&shown, None)
}
