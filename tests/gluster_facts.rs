//! How the answers of real storage servers are read (`fixtures/plans/gluster/CASE/answers.json`).

#[path = "gluster_plans/answers.rs"]
mod answers;

use std::path::Path;

use stor::spec::{self, Cluster};
use stor::storage::facts::FactsError;
use stor::storage::gluster::facts::{self, ServerFacts, VolumeStatus};
use stor::storage::spec::StorageSpec;

fn read(case: &str, host: &str) -> Result<ServerFacts, FactsError> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/plans/gluster");
    let cluster: Cluster = spec::load(&directory.join("cluster.yaml")).unwrap();
    let seen = answers::observations(&directory, case, &cluster);
    let StorageSpec::Gluster(spec) = &cluster.storage[&"gfs".parse().unwrap()] else { panic!("gluster") };
    facts::server(&seen, spec, &host.parse().unwrap())
}

#[test]
fn a_running_volume_is_read_with_its_pool_bricks_and_options() {
    let facts = read("complete", "store1").unwrap();
    let said = facts.said.unwrap();
    let mut peers: Vec<_> = said.peers.iter().map(|peer| (peer.name.as_str(), peer.connected)).collect();
    peers.sort();
    assert_eq!(peers, [("10.77.0.12", true), ("10.77.0.13", true)]);
    assert!(said.peers.iter().all(|peer| peer.is_member() && peer.uuid != said.own_uuid));
    let [volume] = said.volumes.as_slice() else { panic!("{:?}", said.volumes) };
    assert_eq!((volume.name.as_str(), volume.status), ("gfs", VolumeStatus::Started));
    assert_eq!((volume.replica, volume.arbiter), (3, 1));
    let bricks: Vec<_> =
        volume.bricks.iter().map(|brick| (brick.name.as_str(), brick.path.as_str())).collect();
    assert_eq!(bricks[2], ("10.77.0.13:/data/bricks/gfs", "/data/bricks/gfs"));
    assert_eq!(volume.bricks[0].host_uuid, said.own_uuid);
    assert_eq!(volume.options["user.stor.cluster"], "homelab");
    assert_eq!(facts.group.unwrap()["features.shard"], "on");
    assert!(facts.missing.is_empty() && facts.has_state && facts.daemon.is_active());
}

#[test]
fn all_servers_of_a_pool_tell_the_same_about_it() {
    let uuids = |host: &str| {
        let said = read("complete", host).unwrap().said.unwrap();
        let mut all: Vec<_> = said.peers.into_iter().map(|peer| peer.uuid).collect();
        all.push(said.own_uuid);
        all.sort();
        (all, said.volumes)
    };
    assert_eq!(uuids("store1"), uuids("store2"));
    assert_eq!(uuids("store1"), uuids("store3"));
}

#[test]
fn volumes_that_do_not_run_are_told_apart() {
    let status = |case| read(case, "store1").unwrap().said.unwrap().volumes[0].status;
    assert_eq!(status("volume-stopped"), VolumeStatus::Stopped);
    assert_eq!(status("volume-half-made"), VolumeStatus::Created);
}

#[test]
fn a_daemon_that_does_not_run_says_nothing_and_its_pool_misses_it() {
    let stopped = read("daemon-stopped", "store3").unwrap();
    assert_eq!(stopped.said, None);
    assert!(stopped.has_state && !stopped.daemon.is_active());
    let said = read("daemon-stopped", "store1").unwrap().said.unwrap();
    let lost: Vec<_> =
        said.peers.iter().filter(|peer| !peer.connected).map(|peer| peer.name.as_str()).collect();
    assert_eq!(lost, ["10.77.0.13"]);
}

#[test]
fn a_bare_host_lacks_the_package_and_keeps_nothing() {
    let facts = read("bare", "store2").unwrap();
    assert_eq!(facts.missing, ["glusterfs-server"]);
    assert!(facts.said.is_none() && !facts.has_state && facts.group.is_none() && !facts.daemon.exists());
    let place = facts.bricks.values().next().unwrap();
    assert_eq!(place.kind, None);
    assert!(!place.on_root && !place.is_mount_point && !place.marked && place.inside_brick.is_none());
}

#[test]
fn what_lies_where_a_brick_goes_is_seen() {
    let place = |case, host| read(case, host).unwrap().bricks.into_values().next().unwrap();
    let failed = place("creation-failed", "store1");
    assert!(failed.marked && !failed.used && failed.entry.is_none());
    let used = place("volume-deleted-by-hand", "store1");
    assert!(used.marked && used.used);
    assert_eq!(used.kind.as_deref(), Some("directory"));
}

#[test]
fn a_server_that_was_not_observed_is_unknown() {
    let error = read("server-unobserved", "store3").unwrap_err();
    assert!(error.is_unknown(), "{error}");
    assert!(error.to_string().starts_with("host store3 was not observed"), "{error}");
}
