//! What `virsh` tells about the state of all domains of a host, in one read-only call.
//!
//! Pure. Imports `model`. Used where a batch of queries already goes to the host; live guests are asked through
//! [`super::Hypervisor`].

use std::collections::BTreeMap;

use super::{DomainState, PauseReason};
use crate::model::{Answer, Command, Query};

/// Asks for the state of all domains.
#[must_use]
pub fn query() -> Query {
    Query::new(Command::new("virsh").args(["-r", "-c", "qemu:///system", "domstats", "--state"]))
}

/// Reads the answer of [`query`]; the error is a sentence about what is wrong.
///
/// # Errors
/// When virsh is missing, could not reach the daemon, or printed something else.
pub fn parse(answer: &Answer) -> Result<BTreeMap<String, DomainState>, String> {
    if answer.not_found() {
        return Err("virsh is not installed".to_owned());
    }
    if !answer.ok() {
        return Err(answer.stderr.trim().to_owned());
    }
    let mut domains = BTreeMap::new();
    for block in answer.stdout.split("Domain: '").skip(1) {
        let (name, rest) = block.split_once('\'').ok_or("virsh printed half a domain")?;
        let number =
            |key: &str| rest.lines().find_map(|line| line.trim().strip_prefix(key)?.parse::<u32>().ok());
        domains.insert(name.to_owned(), state(number("state.state="), number("state.reason=")));
    }
    Ok(domains)
}

/// `virDomainState` and `virDomainPausedReason` (libvirt-domain.h).
fn state(state: Option<u32>, reason: Option<u32>) -> DomainState {
    match state {
        Some(1 | 2) => DomainState::Running,
        Some(3) => DomainState::Paused(match reason {
            Some(1) => PauseReason::User,
            Some(2) => PauseReason::Migration,
            Some(5) => PauseReason::IoError,
            Some(11) => PauseReason::StartingUp,
            Some(12) => PauseReason::PostCopy,
            Some(13) => PauseReason::PostCopyFailed,
            _ => PauseReason::Other,
        }),
        Some(4) => DomainState::ShuttingDown,
        Some(5) => DomainState::ShutOff,
        Some(6) => DomainState::Crashed,
        Some(7) => DomainState::Suspended,
        _ => DomainState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_running_paused_and_stopped_domains_are_read() {
        let text = include_str!("../../fixtures/outputs/virsh/debian13-libvirt11.3-domstats-state.txt");
        let answer = Answer { status: Some(0), stdout: text.to_owned(), stderr: String::new() };
        let domains = parse(&answer).unwrap();
        let expected = [
            ("web1", DomainState::Running),
            ("web2", DomainState::Paused(PauseReason::User)),
            ("web3", DomainState::ShutOff),
        ];
        assert_eq!(domains, expected.map(|(name, state)| (name.to_owned(), state)).into());
    }

    #[test]
    fn a_daemon_that_cannot_be_reached_is_an_error_and_not_an_empty_list() {
        let answer =
            Answer { status: Some(1), stdout: String::new(), stderr: "error: failed to connect".to_owned() };
        assert!(parse(&answer).is_err());
    }
}
