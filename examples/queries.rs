//! Prints what stor asks each host of a cluster file about its storage, as JSON: `cargo run --example queries FILE`.
//!
//! `scripts/capture-fixtures` runs these on real hosts and keeps the answers; `tests/gluster_plans.rs` plans from them.

use std::collections::BTreeMap;
use std::path::Path;

use stor::model::{HostId, Query};
use stor::{spec, storage};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: queries FILE")?;
    let cluster = spec::load(Path::new(&path))?;
    let mut queries: BTreeMap<HostId, Vec<Query>> = BTreeMap::new();
    for backend in storage::backends(&cluster) {
        for host in cluster.hosts.keys() {
            queries.entry(host.clone()).or_default().extend(backend.queries(host));
        }
    }
    serde_json::to_writer_pretty(std::io::stdout(), &queries)?;
    Ok(())
}
