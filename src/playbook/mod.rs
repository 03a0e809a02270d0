//! Playbooks: a list of steps over one cluster file, run in order; a killed run resumes at the step that it was in.
//!
//! Imports the stages (`apply`, `verify`, `migrate`) and `lab::heartbeat`. Every step can be run again. Showing is the
//! caller's, through [`Show`].

mod expect;
mod file;
mod run;
mod state;

pub use file::{Playbook, PlaybookError, load, schema};
pub use run::{Moved, Report, Show, StepReport, restart, run};
pub use state::{StateError, directory};
