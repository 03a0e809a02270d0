//! Turns what ssh and sudo say into an error that a person can act on. Pure.
//!
//! The texts are OpenSSH's (sshconnect.c, ssh.c, packet.c) and sudo's own, in the C locale.

use super::{HostError, last_lines};
use crate::model::Elevation;
use crate::model::HostId;

/// A text of ssh, the reason in plain words, and what the user can do.
const CAUSES: [(&str, &str, &str); 11] = [
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key differs from the one in known_hosts; no command was sent",
        "if the host was reinstalled, remove the old key with ssh-keygen -R and check the new one; otherwise somebody may be in between",
    ),
    (
        "host key is known for",
        "its host key is not in known_hosts; no command was sent",
        "log in once with ssh and compare the fingerprint with the host's own",
    ),
    (
        "Host key verification failed",
        "its host key could not be verified; no command was sent",
        "compare the host's key with known_hosts",
    ),
    (
        "Permission denied (",
        "the login was refused",
        "check ssh.user and ssh.identity_file, and that the key is in the host's authorized_keys",
    ),
    (
        "Too many authentication failures",
        "the login was refused after too many keys",
        "name the one key in ssh.identity_file",
    ),
    ("Connection refused", "nothing listens on its ssh port", "check that sshd runs and the port is right"),
    ("Could not resolve hostname", "its address cannot be resolved", "check the host's address in the file"),
    ("No route to host", "no route leads to it", "check that the host is up and its address right"),
    ("Network is unreachable", "no route leads to it", "check this machine's network"),
    ("timed out", "it does not answer", "check that the host is up and its address right"),
    (
        "Bad configuration option",
        "the user's ssh configuration has an option that ssh does not know",
        "correct ~/.ssh/config",
    ),
];

/// The error of a call that sent no reply.
pub(super) fn no_reply(host: &HostId, elevation: Elevation, status: Option<i32>, stderr: &str) -> HostError {
    let host = host.clone();
    if elevation == Elevation::Sudo && (stderr.contains("sudo: ") || status == Some(127)) {
        let said = stderr.lines().rfind(|line| line.contains("sudo: ")).unwrap_or(stderr).trim();
        return HostError::Elevation { host, reason: said.to_owned() };
    }
    match CAUSES.iter().find(|(text, ..)| stderr.contains(text)) {
        Some((_, reason, hint)) => {
            let login = refused_login(stderr).map(|login| format!(" ({login})")).unwrap_or_default();
            HostError::Unreachable {
                host,
                reason: format!("{reason}{login}"),
                hint: Some((*hint).to_owned()),
            }
        }
        None => HostError::Unreachable { host, reason: unknown(status, stderr), hint: None },
    }
}

/// The login that was refused: ssh begins its message with it.
fn refused_login(stderr: &str) -> Option<&str> {
    stderr.lines().find_map(|line| line.split_once(": Permission denied (")).map(|(login, _)| login)
}

fn unknown(status: Option<i32>, stderr: &str) -> String {
    let said = last_lines(stderr);
    match (said.is_empty(), status) {
        (false, _) => said,
        (true, Some(status)) => format!("ssh exited {status} without a message"),
        (true, None) => "ssh was killed".to_owned(),
    }
}

/// The error of a call whose reply broke off: what it did is unknown.
pub(super) fn broke_off(host: &HostId, words: &str, stderr: &str) -> HostError {
    let said = last_lines(stderr);
    let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
    HostError::Unreachable {
        host: host.clone(),
        reason: format!("the connection broke while `{words}` ran{said}"),
        hint: Some(
            "run the command again once the host answers: what was done is found out by looking".to_owned(),
        ),
    }
}
