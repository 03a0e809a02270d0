//! Progress on standard error: a bar on a terminal, plain lines otherwise, one JSON object per line for programs.

use std::sync::PoisonError;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{Screen, say};
use crate::cli::args::Format;
use crate::execute::{ExecuteEvent, StepEnd};
use crate::lab::LabEvent;
use crate::migrate::run::MigrateEvent;
use crate::verify::VerifyEvent;

impl Screen {
    /// Ends the bar, so that other text stands on lines of its own.
    pub fn clear(&self) {
        if let Some(bar) = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }

    /// One event: text for people, an object for programs.
    pub fn event(&self, value: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
        let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.format, bar.as_ref()) {
            (Format::Json, _) => say(&mut std::io::stderr(), &value().to_string()),
            (Format::Human, Some(bar)) => bar.println(text()),
            (Format::Human, None) => say(&mut std::io::stderr(), &text()),
        }
    }

    /// What executing does.
    pub fn executing(&self, event: ExecuteEvent<'_>) {
        let (step, end) = match event {
            ExecuteEvent::Began(_) => return,
            ExecuteEvent::Ended(step, end) => (step, end),
        };
        let value = || json!({ "event": "step", "host": step.host, "title": step.title, "end": end });
        self.event(value, || {
            let mark = match end {
                StepEnd::Done => self.green("done"),
                StepEnd::Failed(_) => self.red("FAILED"),
                StepEnd::Skipped(_) => self.yellow("skipped"),
            };
            format!("  {mark}  {}: {}", step.host, step.title)
        });
    }

    /// What verifying does.
    pub fn verifying(&self, event: &VerifyEvent) {
        let VerifyEvent::Round { number, of, doing } = event;
        self.event(
            || json!({ "event": "verify", "round": number, "of": of, "doing": doing }),
            || format!("  verify {number}/{of}: {doing}"),
        );
    }

    /// What the lab does.
    pub fn lab_event(&self, event: &LabEvent) {
        self.event(
            || json!({ "event": "lab", "lab": event }),
            || match event {
                LabEvent::RootAwaited => "  lab: another stor builds the root; waiting for it".to_owned(),
                LabEvent::RootBuilding { stage } => format!("  lab: building the root, once: {stage}"),
                LabEvent::RootBuilt { elapsed } => {
                    format!("  lab: root built in {:.0} s", elapsed.as_secs_f64())
                }
                LabEvent::HostFound { host } => format!("  lab: {host} runs already"),
                LabEvent::HostStarting { host } => format!("  lab: {host} boots"),
                LabEvent::HostReady { host, elapsed } => {
                    format!("  lab: {host} is up after {:.1} s", elapsed.as_secs_f64())
                }
                LabEvent::HostStopped { host } => format!("  lab: {host} stopped"),
            },
        );
    }

    /// What a migration does.
    pub fn migrating(&self, event: &MigrateEvent) {
        match event {
            MigrateEvent::Began(guest, from, to) | MigrateEvent::Attached(guest, from, to) => {
                self.engaged(guest, Some(format!("was being moved from {from} to {to}")));
            }
            MigrateEvent::Ended(outcome) => self.engaged(&outcome.guest, None),
            _ => {}
        }
        if let MigrateEvent::Progressed(guest, progress) = event {
            if self.bars {
                self.advance(guest.as_ref(), progress.permille, progress.eta);
            } else if self.format == Format::Json {
                let value = || json!({ "event": "progress", "guest": guest, "progress": progress });
                self.event(value, String::new);
            }
            return;
        }
        let (guest, what) = match event {
            MigrateEvent::Located(guest, host) => (guest, format!("is on {host}")),
            MigrateEvent::Checked(guest, findings) => {
                (guest, format!("preflight: {} findings", findings.len()))
            }
            MigrateEvent::Began(guest, from, to) => (guest, format!("moves from {from} to {to}")),
            MigrateEvent::Attached(guest, from, to) => {
                (guest, format!("was already moving from {from} to {to}; watching"))
            }
            MigrateEvent::Paused(guest) => {
                (guest, "paused at the deadline, so that the rest can be copied".to_owned())
            }
            MigrateEvent::Stopping(guest, host) => (guest, format!("is asked to shut down on {host}")),
            MigrateEvent::Aborting(guest, reason) => (guest, format!("cancelling: {reason:?}")),
            MigrateEvent::Confirming(guest) => (guest, "asking both hosts where it is".to_owned()),
            MigrateEvent::Progressed(..) | MigrateEvent::Ended(_) => return self.clear(),
        };
        self.event(
            || json!({ "event": "migrate", "guest": guest, "what": what }),
            || format!("  guest {guest}: {what}"),
        );
    }

    fn advance(&self, guest: &str, permille: u16, eta: Option<std::time::Duration>) {
        let mut slot = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = slot.get_or_insert_with(|| {
            let bar = ProgressBar::new(1000);
            if let Ok(style) = ProgressStyle::with_template("  {msg:24} {bar:40} {percent:>3}% {prefix}") {
                bar.set_style(style);
            }
            bar
        });
        bar.set_message(format!("guest {guest}"));
        bar.set_position(u64::from(permille));
        bar.set_prefix(eta.map_or_else(String::new, |eta| format!("ETA {:.1} s", eta.as_secs_f64())));
    }
}
