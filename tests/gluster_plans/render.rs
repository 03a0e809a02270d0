//! A proposal as text, for people who review a change of a golden plan.

use std::fmt::Write as _;

use stor::host::quote;
use stor::model::{Effect, FileContent, Proposal, Risk, Step};

/// Every step in the order of the waves, then what is blocked, then the findings.
pub fn text(proposal: &Proposal) -> String {
    let mut out = String::new();
    let mut steps: Vec<&Step> = proposal.steps.iter().collect();
    steps.sort_by_key(|step| (step.wave, &step.host));
    for step in steps {
        writeln!(out, "[{}] {}: {}", step.wave, step.host, step.title).unwrap();
        assert_eq!(step.risk, Risk::Safe, "nothing that this backend plans takes anything away");
        for why in &step.why {
            writeln!(out, "    {}: {} -> {}", why.field, why.observed, why.desired).unwrap();
        }
        effect(&step.effect, &mut out);
        if let Some(owned) = &step.owns {
            writeln!(out, "    owns {:?} {}", owned.kind, owned.name).unwrap();
        }
    }
    for blocked in &proposal.blocked {
        let host = blocked.host.as_ref().map_or("-", |host| host.as_str());
        let kind = if blocked.unknown { "unknown" } else { "refused" };
        writeln!(out, "BLOCKED [{}] {host}: {} ({kind})", blocked.wave, blocked.subject).unwrap();
        writeln!(out, "    {}", blocked.reason).unwrap();
        if let Some(hint) = &blocked.hint {
            writeln!(out, "    hint: {hint}").unwrap();
        }
    }
    for finding in &proposal.findings {
        writeln!(out, "FINDING {:?} {}: {}", finding.severity, finding.code, finding.message).unwrap();
        for fact in finding.evidence.iter().chain(&finding.remedy) {
            writeln!(out, "    {fact}").unwrap();
        }
    }
    out
}

fn effect(effect: &Effect, out: &mut String) {
    match effect {
        Effect::Run(commands) => {
            for command in commands {
                writeln!(out, "    $ {}", quote::line(command, None)).unwrap();
            }
        }
        Effect::WriteFile(file) => {
            let FileContent::Text(text) = &file.content else { panic!("a secret") };
            writeln!(out, "    > {} {:o}, {} lines", file.path, file.mode.0, text.lines().count()).unwrap();
        }
        Effect::EnsurePool { name, xml } => {
            writeln!(out, "    pool {name}: {}", xml.split_whitespace().collect::<Vec<_>>().join(" "))
                .unwrap();
        }
        other => panic!("not an effect of this backend: {other:?}"),
    }
}
