//! How long a plan of a thousand hosts takes, and how much memory: `cargo bench --bench plan`.
//!
//! The hosts are a stub transport: a fleet in memory that answers what Debian would. Counted is what stor adds to it: the
//! answers, the plan, and everything in between.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use stor::execute::execute;
use stor::model::Cancel;
use stor::plan::{Plan, plan, queries};
use stor::spec::Cluster;

use support::{World, cluster, synthetic};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Storage servers, in groups of three with a volume each, and hypervisors.
const SIZES: [(usize, usize); 3] = [(9, 91), (9, 991), (30, 970)];
const ROUNDS: usize = 11;

fn main() {
    println!(
        "{:>6} {:>8} {:>8} {:>7} {:>12} {:>12}",
        "hosts", "volumes", "state", "steps", "plan, median", "peak memory"
    );
    for (servers, hypervisors) in SIZES {
        let file = cluster(&synthetic::cluster(servers, hypervisors));
        let world = World::bare(&file);
        measure(&file, &world, "bare");
        // Twice: keys of hosts exist only after the first.
        for _ in 0..2 {
            let plan = plan(&file, &world.observe(&queries(&file)));
            let journal = execute(&plan, &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
            assert!(
                journal.is_complete(),
                "{:?}",
                journal.entries.iter().find(|entry| entry.end != stor::execute::StepEnd::Done)
            );
        }
        measure(&file, &world, "applied");
    }
}

fn measure(file: &Cluster, world: &World, state: &str) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let seen = world.observe(&queries(file));
    let mut times = Vec::new();
    let mut last = Plan::default();
    for _ in 0..ROUNDS {
        drop(std::mem::take(&mut last));
        let begin = Instant::now();
        last = plan(file, &seen);
        times.push(begin.elapsed());
    }
    let peak = MEMORY.peak_usage() - before;
    times.sort();
    println!(
        "{:>6} {:>8} {:>8} {:>7} {:>9.0} ms {:>9.1} MB",
        file.hosts.len(),
        file.storage.len(),
        state,
        last.steps().count(),
        millis(times[ROUNDS / 2]),
        peak as f64 / 1e6,
    );
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
