//! Answers of real hosts, as `scripts/capture-fixtures` keeps them, turned into one round of observations.
//!
//! A case keeps only what differs from the case that it builds on; an answer of `null` takes one away, which makes the
//! query one that was killed at its deadline.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use stor::model::{Answer, HostId, HostSeen, Observations, Query, Stdin};
use stor::spec::Cluster;
use stor::storage;

/// One case's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The case that it builds on.
    base: Option<String>,
    /// Hosts that were not observed, with the reason.
    #[serde(default)]
    unobserved: BTreeMap<HostId, String>,
    /// Answers by host and by the query's words.
    #[serde(default)]
    answers: BTreeMap<HostId, BTreeMap<String, Option<Kept>>>,
}

/// One answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    status: i32,
    #[serde(default)]
    stdout: String,
    #[serde(default)]
    stderr: String,
}

/// Reads `DIRECTORY/CASE/answers.json`, with the cases that it builds on, for the storage queries of `cluster`.
pub fn observations(directory: &Path, case: &str, cluster: &Cluster) -> Observations {
    let mut chain = Vec::new();
    let mut next = Some(case.to_owned());
    while let Some(name) = next {
        let path = directory.join(&name).join("answers.json");
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let case: Case =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        next = case.base.clone();
        chain.push(case);
    }
    let mut seen = Observations::default();
    for host in cluster.hosts.keys() {
        if let Some(reason) = chain.iter().find_map(|case| case.unobserved.get(host)) {
            seen.insert(host.clone(), HostSeen::Unobserved(reason.clone()));
            continue;
        }
        let queries = storage::backends(cluster).into_iter().flat_map(|backend| backend.queries(host));
        let answers = queries.map(|query| {
            let words = words(&query);
            let kept = chain.iter().find_map(|case| case.answers.get(host)?.get(&words));
            let kept = kept.unwrap_or_else(|| panic!("no case answers `{words}` on {host}"));
            let answer = match kept {
                Some(kept) => Answer {
                    status: Some(kept.status),
                    stdout: kept.stdout.clone(),
                    stderr: kept.stderr.clone(),
                },
                None => Answer { status: None, stdout: String::new(), stderr: String::new() },
            };
            (query, answer)
        });
        seen.insert(host.clone(), HostSeen::Answered(answers.collect()));
    }
    seen
}

/// A query's words, and what it reads.
fn words(query: &Query) -> String {
    match &query.command().stdin {
        Stdin::Text(text) => format!("{query} <<< {}", text.trim_end().replace('\n', "; ")),
        _ => query.to_string(),
    }
}
