//! The `stor` command: arguments in, exit code out.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::let_underscore_must_use)]

use std::process::ExitCode;

use stor::storage::gluster::probe;

fn main() -> ExitCode {
    // libgfapi's process is stor itself; it must not parse a command line or start a thread first.
    if std::env::args_os().nth(1).is_some_and(|word| word == probe::CHILD) {
        probe::child()
    }
    ExitCode::from(stor::cli::main())
}
