//! The commands that change hosts: apply and destroy.

use std::io::{BufRead as _, IsTerminal as _};

use serde_json::json;

use super::args::{ApplyArgs, Cli, DestroyArgs};
use super::render::Screen;
use super::session::Session;
use crate::apply::{Applied, Consent, Goal, Shell, apply as reach};
use crate::error::{Exit, Failure};
use crate::execute::ExecuteEvent;
use crate::model::{Cancel, ClientName, Dead, HostSpec, Risk};
use crate::plan::{DeleteData, Plan};
use crate::spec::Cluster;
use crate::verify::VerifyEvent;

/// Makes every host match the file.
pub fn apply(cli: &Cli, args: &ApplyArgs, screen: &Screen, cancel: &Cancel) -> Result<Exit, Failure> {
    let session = Session::open(cli)?.heeding(cancel).with_secrets()?;
    let shell = Terminal { screen, ask: Ask::Apply { yes: args.yes, prune: args.prune } };
    let dead = confirmed(screen, &session.cluster, &args.dead, &args.confirm_dead)?;
    let applied = run(&session, &Goal::Match(dead), cancel, &shell, "apply")?;
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
    let dead = confirmed(screen, &session.cluster, &args.dead, &args.confirm_dead)?;
    let goal = Goal::Gone(DeleteData(args.delete_data.iter().cloned().collect()), dead);
    let name = session.cluster.name.to_string();
    let shell = Terminal { screen, ask: Ask::Destroy { yes: args.yes, name } };
    let applied = run(&session, &goal, cancel, &shell, "destroy")?;
    report(screen, "destroy", &applied)
}

/// Hosts and clients that are named as dead; none of them may be in the file.
pub fn dead(cluster: &Cluster, names: &[ClientName]) -> Result<Dead, Failure> {
    for name in names {
        let is = |host: &&HostSpec| host.id.as_str() == name.as_str() || host.address == name.as_str();
        if let Some(host) = cluster.hosts.values().find(is) {
            let text = format!("--dead {name}: host {} is in the file, so it is asked", host.id);
            let hint = "take it out of the file first, if it is gone for good; name a former host of the same name by its address";
            return Err(Failure::say(Exit::Usage, text).hint(Some(hint.to_owned())));
        }
    }
    Ok(Dead(names.iter().cloned().collect()))
}

/// Likewise, each typed once more by the user, or given again by a script: what still runs there would write beside others.
fn confirmed(
    screen: &Screen,
    cluster: &Cluster,
    names: &[ClientName],
    again: &[ClientName],
) -> Result<Dead, Failure> {
    let dead = dead(cluster, names)?;
    for name in dead.0.iter().filter(|name| !again.contains(name)) {
        let refused = |why: &str| {
            let text = format!("--dead {name}: not confirmed: {why}");
            Failure::say(Exit::Usage, text)
                .hint(Some(format!("a script confirms with --confirm-dead {name}; --yes is not enough")))
        };
        let question = format!(
            "a guest that still runs on {name} would write beside its copy elsewhere; type {name} if it is gone for good: "
        );
        match typed(screen, name.as_str(), &question) {
            Consent::Answered | Consent::Given => {}
            Consent::Refused(why) => return Err(refused(&why)),
        }
    }
    Ok(dead)
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
            _ if !std::io::stdin().is_terminal() => {
                Consent::Refused("nobody is there to ask; give --yes to run the plan".to_owned())
            }
            Ask::Apply { .. } => typed(self.screen, "yes", "type yes to run this plan: "),
            Ask::Destroy { name, .. } => {
                typed(self.screen, name, &format!("type the cluster's name ({name}) to run this plan: "))
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

fn typed(screen: &Screen, wanted: &str, question: &str) -> Consent {
    if !std::io::stdin().is_terminal() {
        return Consent::Refused("nobody is there to ask".to_owned());
    }
    screen.ask(question);
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(_) if line.trim() == wanted => Consent::Answered,
        Ok(_) => Consent::Refused("you did not agree".to_owned()),
        Err(error) => Consent::Refused(format!("your answer could not be read: {error}")),
    }
}
