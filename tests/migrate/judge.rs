//! The full table of placements.

use stor::libvirt::{DomainFacts, DomainState, PauseReason};
use stor::migrate::confirm::Placement::{self, Moved, Nowhere, OnBoth, Stayed, Unknown};
use stor::migrate::confirm::{Seen, judge};

/// Rows: the source; columns: the target, in the order of `all`.
const TABLE: [[Placement; 6]; 6] = [
    // runs    paused   transit  defined  absent   unseen
    [OnBoth, OnBoth, Unknown, Stayed, Stayed, Unknown], // runs
    [OnBoth, OnBoth, Unknown, Stayed, Stayed, Unknown], // paused
    [Unknown, Unknown, Unknown, Unknown, Unknown, Unknown], // in transit
    [Moved, Moved, Unknown, Nowhere, Nowhere, Unknown], // defined
    [Moved, Moved, Unknown, Nowhere, Nowhere, Unknown], // absent
    [Unknown, Unknown, Unknown, Unknown, Unknown, Unknown], // unseen
];

fn all() -> [Seen; 6] {
    let unseen = Seen::Unseen("down".to_owned());
    [Seen::Runs, Seen::Paused, Seen::InTransit, Seen::Defined, Seen::Absent, unseen]
}

#[test]
fn every_pair_of_what_two_hosts_show_has_its_placement() {
    for (source, row) in all().iter().zip(TABLE) {
        for (target, expected) in all().iter().zip(row) {
            assert_eq!(judge(source, target), expected, "source {source}, target {target}");
        }
    }
}

#[test]
fn every_state_of_a_domain_is_seen_as_what_it_means_for_a_migration() {
    let table = [
        (DomainState::Running, Seen::Runs),
        (DomainState::Paused(PauseReason::User), Seen::Paused),
        (DomainState::Paused(PauseReason::IoError), Seen::Paused),
        (DomainState::Paused(PauseReason::Other), Seen::Paused),
        (DomainState::Suspended, Seen::Paused),
        (DomainState::Paused(PauseReason::Migration), Seen::InTransit),
        (DomainState::Paused(PauseReason::PostCopy), Seen::InTransit),
        (DomainState::Paused(PauseReason::PostCopyFailed), Seen::InTransit),
        (DomainState::Paused(PauseReason::StartingUp), Seen::InTransit),
        (DomainState::ShuttingDown, Seen::InTransit),
        (DomainState::ShutOff, Seen::Defined),
        (DomainState::Crashed, Seen::Defined),
    ];
    for (state, expected) in table {
        let domain = DomainFacts {
            name: "web1".to_owned(),
            uuid: "u".to_owned(),
            state,
            persistent: true,
            autostart: false,
            xml: String::new(),
        };
        assert_eq!(Seen::of(Ok(Some(&domain)), "u"), expected, "{state:?}");
        assert_eq!(Seen::of(Ok(Some(&domain)), "another"), Seen::Absent, "another guest of the same name");
    }
    assert_eq!(Seen::of(Ok(None), "u"), Seen::Absent);
    assert!(matches!(Seen::of(Err("down".to_owned()), "u"), Seen::Unseen(_)));
}
