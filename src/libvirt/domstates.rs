//! What `virsh` tells about the state of all domains of a host, in one read-only call.
//!
//! Pure. Imports `model`. Used where a batch of queries already goes to the host; live guests are asked through
//! [`super::Hypervisor`].

use std::collections::BTreeMap;

use super::{DomainState, PauseReason};
use crate::model::{Answer, Command, Driver, Query};

/// Asks for the state of all domains. The Xen driver has no statistics, but lists the names of those in a state.
#[must_use]
pub fn query(driver: Driver) -> Query {
    let asked: &[&str] = match driver {
        Driver::Qemu => &["-r", "domstats", "--state"],
        Driver::Xen => &["-r", LISTS],
    };
    Query::new(Command::new("virsh").args(asked.iter().copied()))
}

/// All names, then those of the states of [`LISTED`]; an empty line ends each list (virsh(1), `list`).
const LISTS: &str = "list --all --name; list --all --name --state-running; list --all --name --state-paused; \
                     list --all --name --state-shutoff";
const LISTED: [DomainState; 3] =
    [DomainState::Running, DomainState::Paused(PauseReason::Other), DomainState::ShutOff];

/// Reads the answer of [`query`] to a driver; the error is a sentence about what is wrong.
///
/// # Errors
/// When virsh is missing, could not reach the daemon, or printed something else.
pub fn parse(driver: Driver, answer: &Answer) -> Result<BTreeMap<String, DomainState>, String> {
    if answer.not_found() {
        return Err("virsh is not installed".to_owned());
    }
    if !answer.ok() {
        return Err(answer.stderr.trim().to_owned());
    }
    match driver {
        Driver::Qemu => statistics(&answer.stdout),
        Driver::Xen => Ok(lists(&answer.stdout)),
    }
}

fn lists(text: &str) -> BTreeMap<String, DomainState> {
    let mut lines = text.lines();
    let mut list = || {
        lines.by_ref().take_while(|line| !line.is_empty()).map(|line| line.trim_end().to_owned()).collect()
    };
    let all: Vec<String> = list();
    // A guest that is in none of the states, or changed it between two lists, is in a state that is not known.
    let mut domains: BTreeMap<String, DomainState> =
        all.into_iter().map(|name| (name, DomainState::Unknown)).collect();
    for state in LISTED {
        domains.extend(list().into_iter().map(|name| (name, state)));
    }
    domains
}

fn statistics(text: &str) -> Result<BTreeMap<String, DomainState>, String> {
    let mut domains = BTreeMap::new();
    for block in text.split("Domain: '").skip(1) {
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
    fn states_of_an_older_libvirt_are_read_alike() {
        let text = include_str!("../../fixtures/outputs/virsh/debian12-libvirt9.0-guests-state.txt");
        let answer = Answer { status: Some(0), stdout: text.to_owned(), stderr: String::new() };
        let domains = parse(Driver::Qemu, &answer).unwrap();
        assert_eq!(domains, BTreeMap::from([("web1".to_owned(), DomainState::Running)]));
    }

    #[test]
    fn states_of_running_paused_and_stopped_domains_are_read() {
        let text = include_str!("../../fixtures/outputs/virsh/debian13-libvirt11.3-domstats-state.txt");
        let answer = Answer { status: Some(0), stdout: text.to_owned(), stderr: String::new() };
        let domains = parse(Driver::Qemu, &answer).unwrap();
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
        assert!(parse(Driver::Qemu, &answer).is_err());
    }

    #[test]
    fn states_of_xens_domains_are_read_from_lists() {
        let text = include_str!("../../fixtures/outputs/virsh/debian13-libvirt11.3-xen-states.txt");
        let answer = Answer { status: Some(0), stdout: text.to_owned(), stderr: String::new() };
        let domains: Vec<_> = parse(Driver::Xen, &answer).unwrap().into_iter().collect();
        let name = |name: &str| name.to_owned();
        assert_eq!(
            domains,
            [
                (name("Domain-0"), DomainState::Running),
                (name("off"), DomainState::ShutOff),
                (name("runs"), DomainState::Running),
            ]
        );
        let changed = "a\nb\n\na\n\n\n\n";
        let answer = Answer { stdout: changed.to_owned(), ..answer };
        assert_eq!(parse(Driver::Xen, &answer).unwrap()["b"], DomainState::Unknown);
    }
}
