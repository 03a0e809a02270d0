//! Cluster files that are right: what they resolve to, and that schema, reference and template say the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use stor::model::{HostId, ImageFormat};
use stor::spec::{self, Accel, Autostart, Cluster, Elevation, GuestDefinition, OnTimeout, Role};
use stor::storage::gluster::spec::{Arbiter, Force};
use stor::storage::spec::Access;
use stor::storage::spec::StorageSpec;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn load(path: &Path) -> Cluster {
    spec::load(path).unwrap_or_else(|error| panic!("{}: {error:?}", path.display()))
}

fn good(name: &str) -> Cluster {
    load(&root().join("fixtures/good").join(name))
}

fn host<'a>(cluster: &'a Cluster, name: &str) -> &'a spec::HostSpec {
    &cluster.hosts[&HostId::new(name).unwrap()]
}

fn gluster<'a>(cluster: &'a Cluster, name: &str) -> &'a stor::storage::spec::GlusterSpec {
    let StorageSpec::Gluster(volume) = &cluster.storage[&name.parse().unwrap()] else { panic!("gluster") };
    volume
}

#[test]
fn the_example_of_the_design_resolves() {
    let cluster = good("design.yaml");
    assert_eq!(cluster.name.as_str(), "homelab");
    let hypervisors: Vec<_> = cluster.hypervisors().map(|host| host.address.as_str()).collect();
    assert_eq!(hypervisors, ["10.77.0.21", "10.77.0.22"]);
    let store1 = host(&cluster, "store1");
    assert_eq!((store1.role, store1.ssh.elevation), (Role::Server, Elevation::Root));
    assert!(store1.ssh.identity_file.as_ref().unwrap().is_absolute());
    assert_eq!(gluster(&cluster, "gfs").mount.as_str(), "/var/lib/libvirt/images/gfs");
    let image = cluster.images.values().next().unwrap();
    assert_eq!((image.format, image.file_name().as_str()), (ImageFormat::Raw, "web1.img"));
    assert!(cluster.base.ends_with("fixtures/good"));
}

#[test]
fn every_key_reaches_the_cluster() {
    let cluster = good("full.yaml");
    let (store1, store2) = (&host(&cluster, "store1").ssh, &host(&cluster, "store2").ssh);
    assert_eq!(
        (store1.user.as_deref(), store1.port, store1.elevation),
        (Some("root"), Some(22), Elevation::Root)
    );
    assert!(store1.identity_file.as_ref().unwrap().ends_with(".ssh/store1"));
    assert_eq!(
        (store2.user.as_deref(), store2.port, store2.elevation),
        (Some("admin"), Some(2222), Elevation::Sudo)
    );
    assert_eq!(store2.identity_file, Some(root().join("fixtures/good/keys/stor")));

    let two = gluster(&cluster, "two");
    assert_eq!(
        (two.replica, two.arbiter, two.access, two.force),
        (2, Arbiter::No, Access::Direct, Force::Yes)
    );
    assert_eq!(two.allow, ["10.77.0.1", "backup.example.org"]);
    let options: Vec<_> = two.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(
        options,
        ["cluster.heal-timeout=300", "network.ping-timeout=20", "performance.write-behind=on"]
    );
    let three = gluster(&cluster, "three");
    assert_eq!((three.replica, three.arbiter, three.mount.as_str()), (3, Arbiter::Yes, "/srv/three"));

    let web1 = &cluster.images[&"web1".parse().unwrap()];
    assert_eq!(web1.source, Some(root().join("fixtures/good/images/seed.img")));
    assert_eq!(cluster.images[&"web2".parse().unwrap()].file_name(), "web2.qcow2");

    let GuestDefinition::Generated(shape) = &cluster.guests[&"web1".parse().unwrap()].definition else {
        panic!("web1 is described in the file")
    };
    assert_eq!((shape.vcpus, shape.accel, shape.autostart), (4, Accel::Kvm, Autostart::On));
    assert_eq!((shape.bridge.as_deref(), shape.mac.as_deref()), (Some("br0"), Some("52:54:00:ab:cd:ef")));
    assert_eq!(shape.boot.as_ref().unwrap().cmdline, "console=ttyS0 root=/dev/vda");

    let policy = &cluster.migration;
    assert_eq!(policy.bandwidth.unwrap().bytes_per_second(), 100_000_000);
    assert_eq!((policy.max_downtime, policy.timeout), (Duration::from_secs(1), Duration::from_secs(5400)));
    assert_eq!((policy.on_timeout, policy.per_host, policy.per_cluster), (OnTimeout::PostCopy, 1, 3));
}

#[test]
fn a_guests_own_xml_names_its_images_however_it_reaches_them() {
    let cluster = good("full.yaml");
    let GuestDefinition::Written { xml, images } = &cluster.guests[&"db1".parse().unwrap()].definition else {
        panic!("db1 has its own XML")
    };
    assert!(xml.starts_with("<domain type='kvm'>"));
    let names: Vec<_> = images.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        ["db1", "iso", "web2"],
        "a file, a libgfapi path and a volume of a pool; no scratch disk"
    );
}

#[test]
fn defaults_written_out_change_nothing() {
    assert_eq!(good("minimal.yaml"), good("defaults.yaml"));
}

#[test]
fn anchors_merge_keys_and_windows_line_ends_are_understood() {
    let cluster = good("anchors.yaml");
    assert_eq!(cluster.hypervisors().count(), 2);
    assert_eq!(host(&cluster, "b").address, "10.0.0.2");
    assert_eq!(host(&cluster, "c").address, "10.0.0.3");
    assert_eq!(host(&cluster, "c").ssh.user.as_deref(), Some("root"));
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_file() {
    let text = std::fs::read_to_string(root().join("fixtures/good/minimal.yaml")).unwrap();
    let with_mark = format!("\u{feff}{text}");
    assert_eq!(spec::parse(&with_mark, &root().join("fixtures/good"), "x").unwrap(), good("minimal.yaml"));
}

#[test]
fn the_demo_cluster_and_the_template_resolve() {
    let demo = load(&root().join("playbooks/gluster-live-migration/cluster.yaml"));
    assert_eq!((demo.hosts.len(), demo.hypervisors().count()), (5, 2));
    assert_eq!(gluster(&demo, "gfs").force, Force::Yes);
    let template = spec::parse(spec::TEMPLATE, Path::new("/nowhere"), "cluster.yaml").unwrap();
    assert_eq!(template.guests.len(), 1);
}

/// All keys of the schema, without those that users choose.
fn keys(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(entries) => {
            if let Some(Value::Object(properties)) = entries.get("properties") {
                found.extend(properties.keys().cloned());
            }
            entries.values().for_each(|inner| keys(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| keys(inner, found)),
        _ => {}
    }
}

#[test]
fn template_and_full_example_mention_every_key() {
    let mut known = BTreeSet::new();
    keys(&spec::schema(), &mut known);
    assert!(known.len() > 40, "{known:?}");
    let full = std::fs::read_to_string(root().join("fixtures/good/full.yaml")).unwrap();
    for key in known {
        for (name, text) in [("template", spec::TEMPLATE), ("full.yaml", full.as_str())] {
            assert!(text.contains(&format!("{key}:")), "{name} does not mention {key}");
        }
    }
}

#[test]
fn commented_lines_of_the_template_are_proper_keys() {
    let text: String = spec::TEMPLATE
        .lines()
        .map(|line| match line.trim_start().strip_prefix("# ") {
            Some(rest) if line.starts_with("  ") => {
                format!("{}{rest}\n", " ".repeat(line.len() - line.trim_start().len()))
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let error = spec::parse(&text, Path::new("/nowhere"), "cluster.yaml").unwrap_err();
    let messages: Vec<_> = error.problems().iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "image db1: source: cannot read images/debian-13.qcow2: no such file",
            "guest db1: domain: cannot read guests/db1.xml: no such file"
        ]
    );
}

#[test]
fn the_schema_is_strict_about_every_mapping() {
    fn check(schema: &Value, path: &str) {
        let Value::Object(entries) = schema else { return };
        if entries.contains_key("properties") {
            assert_eq!(entries.get("additionalProperties"), Some(&Value::Bool(false)), "{path}");
            for (key, property) in entries["properties"].as_object().unwrap() {
                let told = property
                    .get("description")
                    .or(property.get("$ref"))
                    .or(property.get("additionalProperties"));
                assert!(told.is_some(), "{path}.{key} has no description");
            }
        }
        for (key, inner) in entries {
            check(inner, &format!("{path}.{key}"));
        }
    }
    check(&spec::schema(), "schema");
}

#[test]
fn the_reference_in_docs_is_up_to_date() {
    let path: PathBuf = root().join("docs/cluster-yaml.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, spec::reference()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == spec::reference(),
        "docs/cluster-yaml.md is stale: UPDATE_DOCS=1 cargo test --test spec"
    );
}

#[test]
fn a_guest_may_read_a_file_on_the_share_that_nobody_declares_and_never_write_one() {
    let directory = tempfile::tempdir().unwrap();
    let disk = |device: &str, name: &str, end: &str| {
        format!(
            "<disk type='file' device='{device}'><driver name='qemu' type='raw'/>\
             <source file='/srv/share/{name}'/><target dev='{device}'/>{end}</disk>"
        )
    };
    let read = |more: &str| {
        let xml = format!(
            "<domain type='kvm'><name>ci</name><devices>{}{more}</devices></domain>",
            disk("disk", "ci.img", "")
        );
        std::fs::write(directory.path().join("ci.xml"), xml).unwrap();
        let text = "version: 1\nname: homelab\nhosts:\n  s1: { address: 10.77.0.11 }\n  \
                    k1: { address: 10.77.0.21, hypervisor: true }\n  k2: { address: 10.77.0.22, hypervisor: true }\n\
                    storage:\n  vm: { nfs: { server: s1, path: /srv/vm, mount: /srv/share } }\n\
                    images:\n  ci: { storage: vm, size: 1GiB }\nguests:\n  ci: { domain: ci.xml, on: k1 }\n";
        spec::parse(text, directory.path(), "cluster.yaml").map_err(|error| format!("{error:?}"))
    };
    for iso in [disk("cdrom", "iso/debian.iso", "<readonly/>"), disk("cdrom", "debian.iso", "")] {
        let cluster = read(&iso).unwrap();
        assert_eq!(cluster.guests.len(), 1);
    }
    assert!(read(&disk("floppy", "debian.iso", "")).unwrap_err().contains("which is no image"));
}
