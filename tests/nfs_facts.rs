//! What is read from the answers of real NFS servers and mounts (`scripts/capture-vm` captured them, on virtual machines).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;

use stor::libvirt::pool_xml;
use stor::model::{AbsPath, Answer};
use stor::storage::mount_probe::mount_table;
use stor::storage::nfs::commands::same_clients;
use stor::storage::nfs::facts::{ganesha_paths, read_etab, read_exports, read_shown, read_versions};
use stor::storage::nfs::wire;
use stor::storage::probe::{ClientRequest, NfsExport, NoClient};

/// What the same exports of a server look like on Debian 13 and on Debian 12, whose etab names fewer options.
const RELEASES: [&str; 2] = ["debian13-nfs-utils2.8.3", "debian12-nfs-utils2.6.2"];

fn output(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/outputs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_client_of_every_export_is_read_with_its_options() {
    for release in RELEASES {
        let exported = read_etab(&output(&format!("etab/{release}-foreign.txt")));
        let short: Vec<String> =
            exported.iter().map(|entry| format!("{} {}", entry.path, entry.client)).collect();
        assert_eq!(
            short,
            [
                "/srv/vmstore kvm1",
                "/srv/vmstore kvm2",
                "/srv/old/inner kvm1",
                "/srv/old/inner kvm2",
                "/srv/with space kvm1",
                "/srv/old kvm1",
                "/srv/old 10.78.0.0/24",
                "/srv/old @admins",
                "/srv/old *",
            ]
        );
        assert!(exported[0].options.contains("no_root_squash") && exported[0].options.contains("sync"));
        let fsid = "fsid=1a1b6f2e-0d0c-4b5d-9d2b-000000000001";
        assert!(exported[0].options.contains(fsid) && !exported[2].options.contains(fsid));
        let squashed = read_etab(&output(&format!("etab/{release}-all-squash.txt")));
        for option in ["all_squash", "anonuid=64055", "anongid=64055", "secure"] {
            assert!(squashed[0].options.contains(option), "{option}");
        }
    }
    assert_eq!(read_etab(&output("etab/debian13-nfs-utils2.8.3-stopped.txt")), []);
}

#[test]
fn a_client_that_the_server_shows_by_its_name_is_still_that_client() {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    for release in RELEASES {
        let exported = read_etab(&output(&format!("etab/{release}-foreign.txt")));
        let shown = |path: &str| -> BTreeSet<String> {
            exported.iter().filter(|entry| entry.path == path).map(|entry| entry.client.clone()).collect()
        };
        assert!(same_clients(&set(&["10.78.0.21", "10.78.0.22"]), &shown("/srv/vmstore")));
        assert!(!same_clients(&set(&["10.78.0.21"]), &shown("/srv/vmstore")));
        assert!(!same_clients(&set(&["10.78.0.21", "10.78.0.22", "10.78.0.23"]), &shown("/srv/vmstore")));
        assert!(!same_clients(
            &set(&["10.78.0.21", "10.78.0.22", "10.78.0.23", "10.78.0.24"]),
            &shown("/srv/old")
        ));
    }
    assert!(!same_clients(&set(&["10.78.0.21"]), &set(&["10.78.0.22"])));
}

#[test]
fn an_export_without_version_3_is_not_looked_at_over_the_wire_and_that_is_said() {
    let export = NfsExport { server: "192.0.2.1".into(), path: AbsPath::new("/srv/vmstore").unwrap() };
    match wire::look(&export, &[], false, &ClientRequest::default()) {
        Err(NoClient::NotApplicable { reason, .. }) => assert!(reason.contains("NFSv4 only"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn versions_are_on_or_off() {
    let mixed: Vec<_> = read_versions("-3 +4 -4.0 +4.1 +4.2\n").into_iter().collect();
    let expected = [("3", false), ("4", true), ("4.0", false), ("4.1", true), ("4.2", true)];
    assert_eq!(mixed, expected.map(|(version, on)| (version.to_owned(), on)));
}

#[test]
fn mounts_of_every_kind_are_told_apart() {
    let place = AbsPath::new("/var/lib/libvirt/images/vmstore").unwrap();
    for (case, expected) in [
        ("nfs4.2", "nfs4 from 10.78.0.11:/srv/vmstore"),
        ("nfs4.2-by-name", "nfs4 from store1:/srv/vmstore"),
        ("nfs3", "nfs from 10.78.0.11:/srv/vmstore"),
        ("netfs", "nfs4 from 10.78.0.11:/srv/vmstore"),
    ] {
        for release in RELEASES {
            let table = mount_table::parse(&output(&format!("mountinfo/{release}-{case}.txt")));
            assert_eq!(mount_table::at(&table, &place).unwrap().to_string(), expected, "{release}");
        }
    }
}

#[test]
fn exports_of_others_are_read_however_they_are_written() {
    let text = "/etc/exports:# comment\n\
                /etc/exports:/srv/a 10.0.0.1(rw) \\\n\
                /etc/exports:   10.0.0.2(ro)\n\
                /etc/exports:\"/srv/with space\" *(ro)\n\
                /etc/exports:/srv/other\\040one/\tkvm9\n\
                /etc/exports.d/x.exports:/srv/b\n";
    let lines: Vec<_> = read_exports(text).into_iter().map(|line| (line.file, line.path)).collect();
    let own = "/etc/exports".to_owned();
    assert_eq!(
        lines,
        [
            (own.clone(), "/srv/a".to_owned()),
            (own.clone(), "/srv/with space".to_owned()),
            (own, "/srv/other one".to_owned()),
            ("/etc/exports.d/x.exports".to_owned(), "/srv/b".to_owned()),
        ]
    );
}

#[test]
fn ganesha_tells_path_and_clients_of_an_export() {
    let answer =
        |stdout: &str, status| Answer { status: Some(status), stdout: stdout.into(), stderr: String::new() };
    let shown =
        read_shown(&answer(&output("busctl/debian13-nfs-ganesha6.5-display-export.json"), 0)).unwrap();
    assert_eq!(shown.path, "/data/nfs");
    assert_eq!(shown.clients.into_iter().collect::<Vec<_>>(), ["10.77.0.1", "10.77.0.21", "10.77.0.22"]);
    assert_eq!(read_shown(&answer("", 1)), None);
    let conf = "EXPORT { Export_Id = 7; Path = /x; }\n# Path = /no;\nexport\n{\n  path = \"/y\" ;\n Pseudo = /p;\n}\n";
    assert_eq!(ganesha_paths(conf).collect::<Vec<_>>(), ["/x", "/y"]);
}

#[test]
fn a_pool_that_libvirt_mounts_reads_back() {
    let name = "vmstore".parse().unwrap();
    let (from, to) =
        (AbsPath::new("/srv/vmstore").unwrap(), AbsPath::new("/var/lib/libvirt/images/vmstore").unwrap());
    let options = ["hard".to_owned(), "vers=4.2".to_owned()];
    let own = pool_xml::parse(&pool_xml::netfs_pool(&name, "10.78.0.11", &from, &to, &options)).unwrap();
    assert_eq!(own.mount_options, ["hard", "vers=4.2"]);
    assert_eq!(own.differences(&own), []);
    // Made by hand with a protocol version instead of options.
    for release in ["debian13-libvirt11.3", "debian12-libvirt9.0"] {
        let other = pool_xml::parse(&output(&format!("virsh/{release}-pool-netfs.xml"))).unwrap();
        let fields: Vec<String> =
            own.differences(&other).into_iter().map(|difference| difference.field).collect();
        assert_eq!(fields, ["pool.vmstore.mount_options"], "{release}");
    }
}
