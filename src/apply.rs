//! Apply and destroy as a whole: lock and observe, plan, ask, execute, then look again at what really is.
//!
//! Joins the stages in the one order that is safe. Imports `verify`, `execute`, `observe`, `plan` and below; asking the user
//! and showing anything is the caller's, through [`Shell`].

use serde::Serialize;

use crate::execute::{ExecuteEvent, Journal, execute};
use crate::host::{Fleet, Holder, HostError};
use crate::libvirt::Connector;
use crate::model::{Cancel, Dead, Step, chain};
use crate::observe::{observe, observe_locked};
use crate::plan::{self, DeleteData, Plan};
use crate::spec::Cluster;
use crate::verify::{Matrix, Verdict, VerifyEvent, verify};

/// What is to be reached.
#[derive(Debug, Clone)]
pub enum Goal {
    /// Every host matches the file; hosts that the user named as dead are not asked.
    Match(Dead),
    /// Nothing of stor's is left, but for data that is not named here.
    Gone(DeleteData, Dead),
}

/// Whether the user agrees to a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consent {
    /// It may run, without anybody having been asked: no time passed.
    Given,
    /// It may run; somebody was asked and took time to answer, in which the hosts may have changed.
    Answered,
    /// It may not, for this reason.
    Refused(String),
}

/// Who asks and shows.
pub trait Shell: Sync {
    /// Shows a plan that is not empty and asks whether it may run.
    fn consent(&self, plan: &Plan) -> Consent;
    /// Shows what executing does.
    fn executing(&self, event: ExecuteEvent<'_>);
    /// Shows what verifying does.
    fn verifying(&self, event: VerifyEvent);
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// There was nothing to do.
    Nothing,
    /// The user did not agree.
    Declined(String),
    /// The user agreed, but by then the hosts had changed or a lock was lost; nothing was done.
    Overtaken(String),
    /// It was carried out as far as the journal says.
    Ran,
}

/// What an apply did and what the hosts show afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// How it ended.
    pub end: End,
    /// What was planned.
    pub plan: Plan,
    /// What became of each step.
    pub journal: Journal,
    /// What remains to be done by what the hosts show afterwards; empty when nothing ran.
    pub remaining: Plan,
    /// The evidence, if the goal was to match the file and something ran.
    pub matrix: Option<Matrix>,
}

impl Applied {
    /// Tells whether every host now shows what was asked for.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match self.end {
            End::Nothing => !self.plan.has_errors(),
            End::Declined(_) | End::Overtaken(_) => false,
            End::Ran => {
                self.journal.is_complete() && self.remaining.is_empty() && !self.remaining.has_errors()
            }
        }
    }

    /// Tells whether the evidence that was gathered speaks for every image.
    #[must_use]
    pub fn is_proved(&self) -> bool {
        let proved = |matrix: &Matrix| matches!(matrix.verdict(), Verdict::Pass | Verdict::NotApplicable);
        self.matrix.as_ref().is_none_or(proved)
    }
}

/// Reaches a goal as far as it can be reached.
///
/// # Errors
/// [`HostError::Busy`] for each host whose lock another stor holds; nothing was changed.
pub fn apply(
    cluster: &Cluster,
    fleet: &Fleet,
    connector: &dyn Connector,
    goal: &Goal,
    holder: &Holder,
    cancel: &Cancel,
    shell: &dyn Shell,
) -> Result<Applied, Vec<HostError>> {
    let batches = plan::queries(cluster);
    let planned = |seen: &_| match goal {
        Goal::Match(dead) => plan::plan_without(cluster, seen, dead),
        Goal::Gone(delete, dead) => plan::plan_destroy_without(cluster, seen, delete, dead),
    };
    let (seen, locks) = observe_locked(fleet, holder, &batches)?;
    let plan = planned(&seen);
    let mut applied = Applied {
        end: End::Nothing,
        plan,
        journal: Journal::default(),
        remaining: Plan::default(),
        matrix: None,
    };
    if applied.plan.is_empty() {
        return Ok(applied);
    }
    match shell.consent(&applied.plan) {
        Consent::Given => {}
        Consent::Answered => {
            let now = locks.prove(fleet).map(|()| planned(&observe(fleet, &batches)));
            if let Err(reason) = still_holds(&applied.plan, now) {
                applied.end = End::Overtaken(reason);
                return Ok(applied);
            }
        }
        Consent::Refused(reason) => {
            applied.end = End::Declined(reason);
            return Ok(applied);
        }
    }
    applied.end = End::Ran;
    applied.journal = execute(&applied.plan, fleet, connector, cancel, &|event| shell.executing(event));
    applied.remaining = planned(&observe(fleet, &batches));
    if matches!(goal, Goal::Match(_)) && !cancel.is_cancelled() {
        applied.matrix = Some(verify(cluster, fleet, cancel, &|event| shell.verifying(event)));
    }
    drop(locks);
    Ok(applied)
}

/// Whether what was agreed to is still what the hosts need, under the locks that it was planned under.
fn still_holds(agreed: &Plan, now: Result<Plan, Vec<HostError>>) -> Result<(), String> {
    let now = now.map_err(|lost| lost.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; "))?;
    if agreed.waves == now.waves {
        return Ok(());
    }
    let line = |step: &Step| format!("\n  {}: {}", step.host, step.title);
    let only = |one: &Plan, other: &Plan| {
        let known: Vec<&Step> = other.steps().collect();
        one.steps().filter(|step| !known.contains(step)).map(line).collect::<String>()
    };
    let (gone, new) = (only(agreed, &now), only(&now, agreed));
    let part =
        |words: &str, steps: String| if steps.is_empty() { steps } else { format!("\n{words}:{steps}") };
    let difference = part("no longer as you were shown", gone) + &part("to be done now", new);
    Err(format!("the hosts have changed while you were asked; look at the new plan{difference}"))
}
