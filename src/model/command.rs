//! What runs on a host: argument vectors with a deadline, never a shell line.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::Secret;

/// Deadline of a command that nobody gave another one.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(60);
/// Deadline of a query that nobody gave another one: what a question that hangs costs a whole round. A host with one busy CPU
/// was seen to take more than ten seconds for `systemctl show`; libvirtd gives up on a silent client after about thirty
/// (`keepalive_interval` times `keepalive_count` + 1, libvirtd.conf).
pub const QUERY_DEADLINE: Duration = Duration::from_secs(30);

/// What a command reads on its standard input.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stdin {
    /// Nothing: `/dev/null`.
    #[default]
    Empty,
    /// Text that may be shown in a plan.
    Text(String),
    /// A value that may not.
    Secret(Secret),
}

impl Stdin {
    /// A secret as the only line; nothing where there is none.
    #[must_use]
    pub fn line(secret: Option<&Secret>) -> Self {
        secret.map_or(Self::Empty, |secret| Self::Secret(Secret::new(format!("{}\n", secret.reveal()))))
    }
}

/// One program with its arguments, standard input and deadline; run without a shell, with `LC_ALL=C`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Command {
    /// Program name, looked up in the host's `PATH`.
    pub program: &'static str,
    /// Arguments, not quoted.
    pub args: Vec<String>,
    /// What it reads on standard input.
    pub stdin: Stdin,
    /// Time after which it is killed.
    pub deadline: Duration,
}

impl Command {
    /// Makes a command without arguments, with [`COMMAND_DEADLINE`].
    #[must_use]
    pub fn new(program: &'static str) -> Self {
        Self { program, args: Vec::new(), stdin: Stdin::Empty, deadline: COMMAND_DEADLINE }
    }

    /// Appends one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Appends several arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: Into<String>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets the standard input.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Sets the deadline.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

impl fmt::Display for Command {
    /// Shows the words separated by blanks, for messages; not quoted, so not for a shell. Of a program that is an argument it
    /// shows the first line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program)?;
        self.args.iter().try_for_each(|arg| match arg.split_once('\n') {
            Some((first, _)) => write!(f, " {first} [...]"),
            None => write!(f, " {arg}"),
        })
    }
}

/// A command that only reads; the only kind that observing may run.
///
/// Clones share the words: a thousand hosts are asked the same, and each answer is kept with its query.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Query(Arc<Command>);

impl Query {
    /// Declares `command` read-only and gives it [`QUERY_DEADLINE`] unless it carries a shorter one.
    #[must_use]
    pub fn new(command: Command) -> Self {
        let deadline = command.deadline.min(QUERY_DEADLINE);
        Self(Arc::new(command.deadline(deadline)))
    }

    /// Declares `command` read-only and leaves it its own deadline, [`COMMAND_DEADLINE`] where it was given none: for what is known
    /// to take longer, such as a daemon that answers one client after the other.
    #[must_use]
    pub fn patient(command: Command) -> Self {
        Self(Arc::new(command))
    }

    /// Takes a probe into a batch: it writes to nothing but stor's own probe file, which the same run removes.
    ///
    /// Only `verify` uses it; what plans are made from never writes.
    #[must_use]
    pub fn probe(command: Command) -> Self {
        Self::new(command)
    }

    /// The command behind the query.
    #[must_use]
    pub fn command(&self) -> &Command {
        &self.0
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a query ended on the host, with what it printed. A non-zero status is an answer, not an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Exit status (127: program not found); `None` when it was killed at its deadline or by a signal.
    pub status: Option<i32>,
    /// Standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

impl Answer {
    /// Tells whether the query ended with status 0.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.status == Some(0)
    }

    /// Tells whether the program is not installed on the host (status 127, POSIX sh).
    #[must_use]
    pub fn not_found(&self) -> bool {
        self.status == Some(127)
    }
}

/// What a command that ended with status 0 printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}
