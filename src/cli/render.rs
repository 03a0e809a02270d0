//! What people and programs see: results on standard output, messages and progress on standard error.
//!
//! With `--format json`, standard output holds one document `{"version":1,"command":...}` and standard error one JSON object
//! per line. Decides nothing; everything shown comes sorted from the stages.

mod progress;
mod text;

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::args::{Color, Format};
use crate::apply::{Applied, End};
use crate::error::{Exit, Failure};
use crate::execute::StepEnd;
use crate::lab::LabStatus;
use crate::migrate::outcome::Outcome;
use crate::model::GuestId;
use crate::plan::Plan;
use crate::status::Status;
use crate::verify::Matrix;

/// Where and how things are shown.
pub struct Screen {
    format: Format,
    color: bool,
    bars: bool,
    bar: Mutex<Option<ProgressBar>>,
    under_way: Mutex<BTreeMap<GuestId, String>>,
}

impl Screen {
    /// Looks at the terminal once.
    pub fn new(format: Format, color: Color) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !plain,
        };
        let bars = format == Format::Human && std::io::stderr().is_terminal();
        Self { format, color, bars, bar: Mutex::default(), under_way: Mutex::default() }
    }

    /// Writes a command's result: text for people, or one JSON document.
    pub fn document(
        &self,
        command: &str,
        value: Value,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        self.clear();
        let out = match self.format {
            Format::Human => text(),
            Format::Json => {
                let mut document = json!({ "version": 1, "command": command });
                if let (Some(into), Value::Object(from)) = (document.as_object_mut(), value) {
                    into.extend(from);
                }
                format!("{document}\n")
            }
        };
        match std::io::stdout().write_all(out.as_bytes()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Failure::new(Exit::Unexpected, &error))
            }
            _ => Ok(()),
        }
    }

    /// Shows why a command did not do what was asked.
    pub fn failure(&self, command: &str, failure: &Failure) {
        self.clear();
        if self.format == Format::Json {
            let error =
                json!({ "exit": failure.exit.code(), "message": failure.message, "hint": failure.hint });
            let document = json!({ "version": 1, "command": command, "error": error });
            say(&mut std::io::stdout(), &document.to_string());
        }
        say(&mut std::io::stderr(), &format!("{} {}", self.red("error:"), failure.message));
        if let Some(hint) = &failure.hint {
            say(&mut std::io::stderr(), &format!("hint: {hint}"));
        }
    }

    /// Takes note of what is done with a guest from here on, until it is known how it ended.
    pub fn engaged(&self, guest: &GuestId, doing: Option<String>) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        match doing {
            Some(doing) => under_way.insert(guest.clone(), doing),
            None => under_way.remove(guest),
        };
    }

    /// What stands when stor is to end at once; `None` when nothing was begun with any guest.
    pub fn interrupted(&self) -> Option<Failure> {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<String> = under_way
            .iter()
            .map(|(guest, doing)| {
                format!("guest {guest}: interrupted while it {doing}; libvirt may go on with what was begun")
            })
            .collect();
        let hint = "look at the hosts with `stor status` before anything is started; the same command again goes on \
                    with what it finds";
        (!lines.is_empty())
            .then(|| Failure::say(Exit::PlacementUnknown, lines.join("\n")).hint(Some(hint.to_owned())))
    }

    /// Asks a question on standard error.
    pub fn ask(&self, question: &str) {
        let mut err = std::io::stderr();
        if write!(err, "{question}").and_then(|()| err.flush()).is_err() {
            tracing::debug!("standard error is gone");
        }
    }

    /// A plan as JSON: waves with their steps, what is blocked, what was found.
    pub fn plan_json(&self, plan: &Plan) -> Value {
        let waves: Vec<Value> =
            plan.waves.iter().map(|(wave, steps)| json!({ "wave": wave, "steps": steps })).collect();
        json!({ "waves": waves, "blocked": plan.blocked, "findings": plan.findings })
    }

    /// Shows a plan on standard error, before it is run.
    pub fn show_plan(&self, plan: &Plan) {
        if self.format == Format::Human {
            say(&mut std::io::stderr(), &self.plan(plan));
        }
    }

    /// A plan for people.
    pub fn plan(&self, plan: &Plan) -> String {
        text::plan(plan, self)
    }

    /// What an apply or destroy did, for people; the plan itself was shown before.
    pub fn applied(&self, applied: &Applied) -> String {
        let mut out = String::new();
        match &applied.end {
            End::Nothing if applied.plan.has_errors() => out.push_str(&self.plan(&applied.plan)),
            End::Nothing => out.push_str("nothing to do: every host is as it should be\n"),
            End::Declined(reason) | End::Overtaken(reason) => {
                out.push_str(&format!("nothing was changed: {reason}\n"))
            }
            End::Ran => {
                for entry in &applied.journal.entries {
                    let (word, reason) = match &entry.end {
                        StepEnd::Done => continue,
                        StepEnd::Failed(reason) => ("failed", reason),
                        StepEnd::Skipped(reason) => ("skipped", reason),
                    };
                    out.push_str(&format!("{}: {} {}: {reason}\n", entry.host, self.red(word), entry.title));
                }
                let done = applied.journal.entries.iter().filter(|entry| entry.end == StepEnd::Done).count();
                out.push_str(&format!("{done} of {} steps done\n", applied.journal.entries.len()));
                if !applied.remaining.is_empty() || applied.remaining.has_errors() {
                    out.push_str("still to be done, by what the hosts show now:\n");
                    out.push_str(&self.plan(&applied.remaining));
                }
            }
        }
        if let Some(matrix) = &applied.matrix {
            out.push_str(&self.matrix(matrix));
        }
        out
    }

    /// The evidence matrix for people.
    pub fn matrix(&self, matrix: &Matrix) -> String {
        text::matrix(matrix, self)
    }

    /// The state of everything for people.
    pub fn status(&self, status: &Status) -> String {
        text::status(status, self)
    }

    /// The state of a lab for people.
    pub fn lab(&self, status: &LabStatus) -> String {
        text::lab(status)
    }

    /// How migrations ended, for people.
    pub fn outcomes(&self, outcomes: &[Outcome]) -> String {
        outcomes.iter().map(|outcome| text::outcome(outcome, self)).collect()
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
    fn red(&self, text: &str) -> String {
        self.paint("31", text)
    }
    fn green(&self, text: &str) -> String {
        self.paint("32", text)
    }
    fn yellow(&self, text: &str) -> String {
        self.paint("33", text)
    }
    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }
}

/// Writes a line; a reader that went away takes nothing from what the command does.
fn say(out: &mut dyn std::io::Write, line: &str) {
    if writeln!(out, "{}", line.trim_end_matches('\n')).is_err() {
        tracing::debug!("the output is gone");
    }
}

/// A diagnostic with its source lines, without colour so that it reads the same in a log.
pub fn render_diagnostic(diagnostic: &dyn miette::Diagnostic) -> String {
    let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
        .with_links(false)
        .with_width(100);
    let mut out = String::new();
    match handler.render_report(&mut out, diagnostic) {
        Ok(()) => out.trim().to_owned(),
        Err(_) => diagnostic.to_string(),
    }
}
