//! What a command can end in besides success: a message, a hint, and one documented exit code.
//!
//! Imports the errors of the stages. `docs/exit-codes.md` lists the codes for users.

use std::fmt;

/// How a command ended: the exit codes of stor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Everything is as asked.
    Done = 0,
    /// Something that stor does not expect.
    Unexpected = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A file is invalid.
    InvalidFile = 3,
    /// Changes are pending (`plan --detailed-exitcode`).
    Pending = 4,
    /// A host is unreachable or busy.
    Unreachable = 5,
    /// An apply or destroy did not do everything.
    Incomplete = 6,
    /// The evidence is missing or speaks against.
    NotVerified = 7,
    /// Preflight refused.
    Refused = 8,
    /// The migration failed; the guest runs at its source.
    NotMoved = 9,
    /// Where a guest is cannot be told: a person must look.
    PlacementUnknown = 10,
}

impl Exit {
    /// The code for the operating system.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong, with its causes.
    pub message: String,
    /// What the user can do.
    pub hint: Option<String>,
}

impl Failure {
    /// Makes a failure from an error and all its sources.
    #[must_use]
    pub fn new(exit: Exit, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            message = format!("{message}: {inner}");
            source = inner.source();
        }
        Self { exit, message, hint: None }
    }

    /// Makes a failure from words.
    #[must_use]
    pub fn say(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string(), hint: None }
    }

    /// Says what the user can do.
    #[must_use]
    pub fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Exit {
    /// The exit for a code of this table; any other number is unexpected.
    #[must_use]
    pub fn of(code: u8) -> Self {
        const ALL: [Exit; 11] = [
            Exit::Done,
            Exit::Unexpected,
            Exit::Usage,
            Exit::InvalidFile,
            Exit::Pending,
            Exit::Unreachable,
            Exit::Incomplete,
            Exit::NotVerified,
            Exit::Refused,
            Exit::NotMoved,
            Exit::PlacementUnknown,
        ];
        ALL.get(usize::from(code)).copied().unwrap_or(Self::Unexpected)
    }
}
