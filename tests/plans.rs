//! Plans as a whole: cluster and what the hosts show in, plan out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use stor::model::{HostSeen, Risk};
use stor::plan::{DeleteData, Plan, plan, plan_destroy, queries};
use support::{CLUSTER, World, cluster, host};

/// A plan for people who review a test: one line per step, reason and blocked part.
fn show(plan: &Plan) -> String {
    let mut out = String::new();
    for (wave, steps) in &plan.waves {
        writeln!(out, "{wave}").unwrap();
        for step in steps {
            let risk = if step.risk == Risk::Safe { String::new() } else { format!(" [{:?}]", step.risk) };
            let storage = step.storage.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
            writeln!(out, "  {}: {}{storage}{risk}", step.host, step.title).unwrap();
        }
    }
    for blocked in &plan.blocked {
        let host = blocked.host.as_ref().map_or("every host", |host| host.as_str());
        let unknown = if blocked.unknown { " (unknown)" } else { "" };
        writeln!(out, "blocked: {} on {host}{unknown}: {}", blocked.subject, blocked.reason).unwrap();
    }
    for finding in &plan.findings {
        writeln!(out, "finding: {} {}: {}", finding.code, finding.subject, finding.message).unwrap();
    }
    out
}

#[test]
fn bare_hosts_get_everything_in_order() {
    let cluster = cluster(CLUSTER);
    let world = World::bare(&cluster);
    let seen = world.observe(&queries(&cluster));
    insta::assert_snapshot!(show(&plan(&cluster, &seen)));
}
