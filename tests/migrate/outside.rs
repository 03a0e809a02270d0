//! What ping printed, and progress and decisions over time.

use std::time::Duration;

use stor::libvirt::JobStats;
use stor::migrate::monitor::{AbortReason, Decision, Watch, decide};
use stor::migrate::outside::figures;
use stor::migrate::progress::Meter;
use stor::migrate::strategy::{Arrival, AtDeadline, Strategy};

#[test]
fn the_longest_gap_between_replies_is_found_and_other_lines_are_passed_over() {
    let output = "PING 10.77.0.101 (10.77.0.101) 56(84) bytes of data.
[1763686800.000100] 64 bytes from 10.77.0.101: icmp_seq=1 ttl=64 time=0.19 ms
[1763686800.050100] 64 bytes from 10.77.0.101: icmp_seq=2 ttl=64 time=0.19 ms
[1763686800.300000] From 10.77.0.1 icmp_seq=7 Destination Host Unreachable
[1763686800.470100] 64 bytes from 10.77.0.101: icmp_seq=10 ttl=64 time=0.19 ms
[1763686800.520100] 64 bytes from 10.77.0.101: icmp_seq=11 ttl=64 time=0.19 ms
";
    let seen = figures(output).unwrap();
    assert_eq!((seen.replies, seen.longest_gap), (4, Duration::from_millis(420)));
    let real = include_str!("../../fixtures/outputs/ping/debian12-iputils20221126-migration.txt");
    let seen = figures(real).unwrap();
    assert_eq!((seen.replies, seen.longest_gap), (72, Duration::from_micros(197536)));
    assert_eq!(figures("PING\n[1.000001] 64 bytes from x: icmp_seq=1\n"), None);
}

#[test]
fn progress_never_runs_backwards_and_has_no_eta_while_memory_is_dirtied_faster_than_copied() {
    let stats = |remaining, bandwidth, dirty| JobStats {
        memory_total: 1000,
        memory_remaining: remaining,
        bandwidth,
        dirty_pages_per_second: dirty,
        page_size: 10,
        ..JobStats::default()
    };
    let mut meter = Meter::default();
    let mut sample = |stats| {
        let progress = meter.sample(&stats, Duration::ZERO);
        (progress.permille, progress.eta)
    };
    assert_eq!(sample(JobStats::default()), (0, None));
    assert_eq!(sample(stats(400, 100, 0)), (600, Some(Duration::from_secs(4))));
    assert_eq!(sample(stats(700, 100, 20)), (600, None));
    assert_eq!(sample(stats(100, 100, 5)), (900, Some(Duration::from_secs(2))));
    assert_eq!(sample(stats(0, 100, 0)), (990, Some(Duration::ZERO)));
}

#[test]
fn the_monitor_waits_until_the_deadline_then_does_what_the_policy_says_and_obeys_the_user_at_once() {
    let seconds = Duration::from_secs;
    let strategy = |at_deadline| Strategy {
        bandwidth: None,
        max_downtime: Duration::from_millis(300),
        deadline: seconds(10),
        at_deadline,
        pause_limit: seconds(5),
        arrival: Arrival::Running,
    };
    let watch = |elapsed, paused_at: Option<u64>, cancelled| Watch {
        elapsed: seconds(elapsed),
        paused_at: paused_at.map(seconds),
        cancelled,
    };
    let table = [
        (AtDeadline::Abort, watch(9, None, false), Decision::Wait),
        (AtDeadline::Abort, watch(10, None, false), Decision::Abort(AbortReason::Deadline)),
        (AtDeadline::Pause, watch(9, None, false), Decision::Wait),
        (AtDeadline::Pause, watch(10, None, false), Decision::Pause),
        (AtDeadline::Pause, watch(14, Some(10), false), Decision::Wait),
        (AtDeadline::Pause, watch(15, Some(10), false), Decision::Abort(AbortReason::PausedTooLong)),
        (AtDeadline::Abort, watch(0, None, true), Decision::Abort(AbortReason::Cancelled)),
        (AtDeadline::Pause, watch(11, Some(10), true), Decision::Abort(AbortReason::Cancelled)),
    ];
    for (at_deadline, watch, expected) in table {
        assert_eq!(decide(&strategy(at_deadline), watch), expected, "{at_deadline:?} {watch:?}");
    }
}
