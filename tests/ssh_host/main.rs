//! Hosts over a real OpenSSH server on loopback. Needs root, sshd and sudo; a missing one fails every test.

#![expect(clippy::disallowed_methods, reason = "sshd is started by the test")]

mod commands;
mod files;
mod locks;
mod login;
mod server;

use stor::model::Command;

/// A command of the shell, for tests only.
fn sh(script: &str) -> Command {
    Command::new("sh").args(["-c", script])
}
