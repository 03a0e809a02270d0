//! The commands that change hosts: apply and destroy.

use std::io::{BufRead as _, IsTerminal as _};

use serde_json::json;

use super::args::{ApplyArgs, Cli, DestroyArgs};
use super::render::Screen;
use super::session::Session;
use crate::apply::{Applied, Consent, Goal, Shell, apply as reach};
use crate::error::{Exit, Failure};
use crate::execute::ExecuteEvent;
use crate::model::{Cancel, Risk};
use crate::plan::{DeleteData, Plan};
use crate::verify::VerifyEvent;

/// Makes every host match the file.
pub fn apply(cli: &Cli, args: &ApplyArgs, screen: &Screen, cancel: &Cancel) -> Result<Exit, Failure> {
    let session = Session::open(cli)?.heeding(cancel).with_secrets()?;
    let shell = Terminal { screen, ask: Ask::Apply { yes: args.yes, prune: args.prune } };
    let applied = run(&session, &Goal::Match, cancel, &shell, "apply")?;
    report(screen, "apply", &applied)
}

/// Removes what stor owns.
pub fn destroy(cli: &Cli, args: &DestroyArgs, screen: &Screen, cancel: &Cancel) -> Result<Exit, Failure> {
    let session = Session::open(cli)?.heeding(cancel);
    if let Some(unknown) = args.delete_data.iter().find(|name| !session.cluster.storage.contains_key(name)) {
        return Err(Failure::say(
            Exit::Usage,
            format!("--delete-data {unknown}: the file has no such storage"),
        ));
    }
    let goal = Goal::Gone(DeleteData(args.delete_data.iter().cloned().collect()));
    let name = session.cluster.name.to_string();
    let shell = Terminal { screen, ask: Ask::Destroy { yes: args.yes, name } };
    let applied = run(&session, &goal, cancel, &shell, "destroy")?;
    report(screen, "destroy", &applied)
}

/// Runs apply or destroy; a busy host ends it with who holds the lock.
pub fn run(
    session: &Session,
    goal: &Goal,
    cancel: &Cancel,
    shell: &dyn Shell,
    doing: &str,
) -> Result<Applied, Failure> {
    let holder = session.holder(doing);
    reach(&session.cluster, &session.fleet, &session.connector, goal, &holder, cancel, shell).map_err(
        |busy| {
            let lines: Vec<String> = busy.iter().map(ToString::to_string).collect();
            Failure::say(Exit::Unreachable, lines.join("\n"))
                .hint(Some("wait for it to end, then try again".to_owned()))
        },
    )
}

fn report(screen: &Screen, command: &str, applied: &Applied) -> Result<Exit, Failure> {
    let value = json!({
        "end": applied.end, "plan": screen.plan_json(&applied.plan), "journal": applied.journal,
        "remaining": screen.plan_json(&applied.remaining), "matrix": applied.matrix,
    });
    screen.document(command, value, || screen.applied(applied))?;
    Ok(exit(applied))
}

/// The exit code of what was done.
pub fn exit(applied: &Applied) -> Exit {
    match (applied.is_complete(), applied.is_proved()) {
        (true, true) => Exit::Done,
        (true, false) => Exit::NotVerified,
        (false, _) => Exit::Incomplete,
    }
}

enum Ask {
    Apply { yes: bool, prune: bool },
    Destroy { yes: bool, name: String },
}

/// Asks on the terminal and shows progress.
struct Terminal<'a> {
    screen: &'a Screen,
    ask: Ask,
}

impl Shell for Terminal<'_> {
    fn consent(&self, plan: &Plan) -> Consent {
        self.screen.show_plan(plan);
        if plan.waves.is_empty() {
            return Consent::Given;
        }
        let disruptive = plan.steps().any(|step| step.risk > Risk::Safe);
        match &self.ask {
            Ask::Apply { prune: true, yes: true } | Ask::Destroy { yes: true, .. } => Consent::Given,
            Ask::Apply { yes: true, .. } if !disruptive => Consent::Given,
            Ask::Apply { yes: true, .. } if !std::io::stdin().is_terminal() => Consent::Refused(
                "the plan removes or interrupts something; give --prune as well to allow that".to_owned(),
            ),
            Ask::Apply { .. } => self.typed("yes", "type yes to run this plan: "),
            Ask::Destroy { name, .. } => {
                self.typed(name, &format!("type the cluster's name ({name}) to run this plan: "))
            }
        }
    }

    fn executing(&self, event: ExecuteEvent<'_>) {
        self.screen.executing(event);
    }

    fn verifying(&self, event: VerifyEvent) {
        self.screen.verifying(&event);
    }
}

impl Terminal<'_> {
    fn typed(&self, wanted: &str, question: &str) -> Consent {
        if !std::io::stdin().is_terminal() {
            return Consent::Refused("nobody is there to ask; give --yes to run the plan".to_owned());
        }
        self.screen.ask(question);
        let mut line = String::new();
        match std::io::stdin().lock().read_line(&mut line) {
            Ok(_) if line.trim() == wanted => Consent::Answered,
            Ok(_) => Consent::Refused("you did not agree".to_owned()),
            Err(error) => Consent::Refused(format!("your answer could not be read: {error}")),
        }
    }
}
