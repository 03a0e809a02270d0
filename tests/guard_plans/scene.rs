//! A fleet in memory whose hosts show the firewalls of real ones.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use stor::host::quote;
use stor::model::{
    Answer, Effect, FileContent, HostId, HostSeen, Observations, Owned, OwnedKind, Record, ResourceKind,
    Risk, Wave,
};
use stor::plan::{DeleteData, Plan, plan, plan_destroy, queries};
use stor::spec::Cluster;

use crate::support::{World, cluster, host};

/// What introduces a section of the answer.
pub const SECTION: &str = "\n%stor:";

/// What some hosts say, and what their records hold.
#[derive(Default)]
pub struct Hosts {
    answers: BTreeMap<HostId, Answer>,
    owned: BTreeMap<HostId, Vec<Owned>>,
    down: Vec<String>,
}

pub fn fixture(tool: &str, case: &str) -> String {
    let path = format!("{}/fixtures/outputs/{tool}-{case}.txt", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

impl Hosts {
    /// Hosts without a firewall.
    pub fn bare() -> Self {
        Self::default()
    }

    /// Has a host show what a real one showed.
    pub fn show(self, name: &str, tool: &str, case: &str) -> Self {
        let text = fixture(tool, case);
        self.say(name, &text)
    }

    pub fn say(mut self, name: &str, text: &str) -> Self {
        let answer = Answer { status: Some(0), stdout: text.to_owned(), stderr: String::new() };
        self.answers.insert(host(name), answer);
        self
    }

    /// Has a host's answer stay away.
    pub fn silent(mut self, name: &str) -> Self {
        self.answers
            .insert(host(name), Answer { status: None, stdout: String::new(), stderr: String::new() });
        self
    }

    pub fn down(mut self, name: &str) -> Self {
        self.down.push(name.to_owned());
        self
    }

    /// Lets a host's record hold the rules in this firewall.
    pub fn owned(mut self, name: &str, tool: &str) -> Self {
        self.owned.entry(host(name)).or_default().push(Owned::new(OwnedKind::Firewall, tool));
        self
    }

    pub fn owned_boolean(mut self, name: &str, boolean: &str, former: &str) -> Self {
        let owned = Owned::new(OwnedKind::Boolean, boolean).with("former", former);
        self.owned.entry(host(name)).or_default().push(owned);
        self
    }

    fn observe(&self, file: &Cluster) -> Observations {
        let world = World::bare(file);
        for (name, owned) in self.owned.iter().filter(|(name, _)| world.hosts.contains_key(*name)) {
            let mut record = Record::empty(&file.name);
            record.owned.extend(owned.iter().cloned());
            world.hosts[name].files(|files| files.put(&Record::path(&file.name), record.render(), 0o600));
        }
        self.down.iter().for_each(|name| world.set_down(name, true));
        let mut seen = world.observe(&queries(file));
        for (name, answer) in &self.answers {
            let Some(HostSeen::Answered(answers)) = seen.host(name) else { continue };
            let mut answers = answers.clone();
            let guard = |words: &[String]| words.get(2).is_some_and(|word| word == "guard");
            let (_, said) = answers.iter_mut().find(|(query, _)| guard(&query.command().args)).unwrap();
            said.clone_from(answer);
            seen.insert(name.clone(), HostSeen::Answered(answers));
        }
        seen
    }

    /// What is planned for the guards.
    pub fn plan(&self, text: &str) -> String {
        let file = cluster(text);
        render(&plan(&file, &self.observe(&file)))
    }

    pub fn destroy(&self, text: &str) -> String {
        let file = cluster(text);
        render(&plan_destroy(&file, &self.observe(&file), &DeleteData::default()))
    }

    /// How much is blocked, and in which waves something is planned.
    pub fn waves(&self, text: &str) -> (usize, Vec<Wave>) {
        let file = cluster(text);
        let plan = plan(&file, &self.observe(&file));
        (plan.blocked.len(), plan.waves.iter().map(|(wave, _)| *wave).collect())
    }
}

fn render(plan: &Plan) -> String {
    let guards = [ResourceKind::Firewall, ResourceKind::Boolean];
    let mut out = String::new();
    for step in plan.steps().filter(|step| guards.contains(&step.subject.kind)) {
        let risk = if step.risk == Risk::Safe { "" } else { ", disruptive" };
        writeln!(out, "[{}{risk}] {}: {}", step.wave, step.host, step.title).unwrap();
        for why in &step.why {
            writeln!(out, "    {}: {} -> {}", why.field, why.observed, why.desired).unwrap();
        }
        match &step.effect {
            Effect::Run(commands) => commands.iter().for_each(|command| {
                let scripts = [("forget", "forget.sh"), ("guard", "ask.sh")];
                let script = |(word, file): &(&str, &'static str)| {
                    (command.args.get(2).map(String::as_str) == Some(*word)).then_some(*file)
                };
                let mut command = command.clone();
                if let Some(file) = scripts.iter().find_map(script) {
                    file.clone_into(&mut command.args[1]);
                }
                writeln!(out, "    $ {}", quote::line(&command, None)).unwrap();
            }),
            Effect::WriteFile(file) => {
                let FileContent::Text(text) = &file.content else { panic!("a secret") };
                writeln!(out, "    > {} {:o}", file.path, file.mode.0).unwrap();
                text.lines().for_each(|line| writeln!(out, "    | {line}").unwrap());
            }
            other => panic!("not an effect on a guard: {other:?}"),
        }
        if let Some(owned) = &step.owns {
            writeln!(out, "    owns {:?} {} {:?}", owned.kind, owned.name, owned.detail).unwrap();
        }
    }
    for blocked in plan.blocked.iter().filter(|blocked| guards.contains(&blocked.subject.kind)) {
        let kind = if blocked.unknown { "unknown" } else { "refused" };
        writeln!(out, "BLOCKED [{}] {} ({kind})\n    {}", blocked.wave, blocked.subject, blocked.reason)
            .unwrap();
        blocked.hint.iter().for_each(|hint| writeln!(out, "    hint: {hint}").unwrap());
    }
    out
}
