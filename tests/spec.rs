//! Cluster files that are right: what they resolve to.

use std::path::Path;

use stor::model::{HostId, ImageFormat};
use stor::spec::{self, Elevation, GuestDefinition, OnTimeout, Role};

fn good(name: &str) -> spec::Cluster {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/good").join(name);
    match spec::load(&path) {
        Ok(cluster) => cluster,
        Err(error) => panic!("{name}: {:?}", error.problems()),
    }
}

#[test]
fn the_example_of_the_design_resolves() {
    let cluster = good("design.yaml");
    assert_eq!(cluster.name.as_str(), "homelab");
    assert_eq!(
        cluster.hypervisors().map(|host| host.address.as_str()).collect::<Vec<_>>(),
        ["10.77.0.21", "10.77.0.22"]
    );
    let store1 = &cluster.hosts[&HostId::new("store1").unwrap()];
    assert_eq!((store1.role, store1.ssh.elevation), (Role::Server, Elevation::Root));
    let image = cluster.images.values().next().unwrap();
    assert_eq!((image.format, image.file_name().as_str()), (ImageFormat::Raw, "web1.img"));
    let guest = cluster.guests.values().next().unwrap();
    assert!(
        matches!(&guest.definition, GuestDefinition::Generated(shape) if shape.bridge.as_deref() == Some("br0"))
    );
    assert_eq!(cluster.migration.on_timeout, OnTimeout::Abort);
    assert!(cluster.base.ends_with("fixtures/good"));
}
