use super::places::{Remote, mount, stat};
use super::*;
use crate::storage::mount_probe::mounts;

/// Output of a real tool on Debian 13, captured in the lab.
macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/outputs/", $name))
    };
}

fn ok(text: &str) -> Answer {
    Answer { status: Some(0), stdout: text.to_owned(), stderr: String::new() }
}

fn failed(status: i32, stderr: &str) -> Answer {
    Answer { status: Some(status), stdout: String::new(), stderr: stderr.to_owned() }
}

#[test]
fn a_file_that_is_missing_is_an_answer_and_a_hung_mount_is_none() {
    let missing = failed(1, fixture!("stat/debian13-coreutils9.7-missing.stderr"));
    assert_eq!(stat(Some(&missing)), Ok(None));
    let hung = Answer { status: None, stdout: String::new(), stderr: String::new() };
    assert_eq!(stat(Some(&hung)), Err("`stat` did not finish in time".to_owned()));
    let broken = failed(1, "stat: cannot statx '/x/web1.img': Transport endpoint is not connected");
    assert!(stat(Some(&broken)).unwrap_err().ends_with("Transport endpoint is not connected"));
    let image = ok(fixture!("stat/debian13-coreutils9.7-image.txt"));
    assert_eq!(stat(Some(&image)), Ok(Some(Stat { inode: 10_715_299_376_853_924_695, size: 64 << 20 })));
    assert!(stat(Some(&ok("what\n"))).is_err());
}

#[test]
fn a_directory_that_is_missing_has_no_mount_and_the_upper_one_of_two_mounts_counts() {
    let read = |text| mount(Some(&ok(text))).unwrap().map(|mount| (mount.target, mount.source, mount.kind));
    let words = |a: &str, b: &str, c: &str| Some((a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(
        read(fixture!("findmnt/debian13-util-linux2.41-gluster.json")),
        words("/var/lib/libvirt/images/gfs", "10.77.0.11:/gfs", "fuse.glusterfs")
    );
    assert_eq!(
        read(fixture!("findmnt/debian13-util-linux2.41-not-mounted.json")),
        words("/", "lv-kvm1", "overlay")
    );
    assert_eq!(
        read(fixture!("findmnt/debian13-util-linux2.41-two-on-top.json")),
        words("/srv/p2", "upper", "tmpfs")
    );
    assert_eq!(mount(Some(&failed(1, ""))), Ok(None));
    assert!(mount(Some(&failed(127, "findmnt: not found"))).is_err());
}

#[test]
fn only_the_host_itself_proves_that_a_port_can_be_reached() {
    let said = |text: &str| port(Some(&failed(255, text)));
    assert_eq!(said(fixture!("ssh/debian13-openssh10.0-refused.stderr")), PortSeen::Reachable);
    assert_eq!(said(fixture!("ssh/debian13-openssh10.0-listener-silent.stderr")), PortSeen::Reachable);
    for text in [
        fixture!("ssh/debian13-openssh10.0-dropped.stderr"),
        fixture!("ssh/debian13-openssh10.0-rejected.stderr"),
        "ssh: connect to host 10.77.0.22 port 49215: Network is unreachable",
    ] {
        assert!(matches!(said(text), PortSeen::Blocked(_)), "{text}");
    }
    assert!(matches!(said("sh: 1: ssh: not found"), PortSeen::Unclear(_)));
}

#[test]
fn a_device_that_is_no_bridge_is_not_taken_for_one() {
    assert!(is_bridge(&ok(fixture!("ip/debian13-iproute2-6.15-bridge.json"))));
    assert!(!is_bridge(&ok(fixture!("ip/debian13-iproute2-6.15-veth.json"))));
    assert!(!is_bridge(&failed(1, "Device \"br0\" does not exist.")));
}

#[test]
fn memory_pools_and_the_host_uuid_are_read() {
    let meminfo = memory_available(fixture!("meminfo/linux6.18.txt")).unwrap();
    assert!(meminfo.bytes() > 1 << 30, "{meminfo}");
    assert!(memory_available("MemTotal: 1 kB\n").is_err());
    let pools = names(fixture!("virsh/debian13-libvirt11.3-pool-list-name.txt"));
    assert_eq!(pools.into_iter().collect::<Vec<_>>(), vec!["gfs"]);
    let uuid = host_uuid(fixture!("virsh/debian13-libvirt11.3-capabilities.xml")).unwrap();
    assert_eq!(uuid, "bac50dd0-7731-a444-4e8f-71c6d0c0c4f7");
}

#[test]
fn a_batch_is_read_back_in_the_order_in_which_it_was_asked() {
    let questions = Questions {
        places: Places {
            files: vec!["/a/x.img".to_owned(), "/b/y.img".to_owned()],
            remote: vec![Remote::file("nfs://10.77.0.11/srv/a/x.img?uid=0&gid=0".to_owned())],
            devices: vec!["/dev/disk/by-path/x".to_owned()],
            storages: vec![mounts()],
        },
        images: vec![Image { place: "/a/x.img".to_owned(), format: None }],
        bridges: vec!["br0".to_owned()],
        boot_files: vec!["/boot/k".to_owned()],
        xen: false,
        peer: None,
    }
    .towards(&cluster(), "10.77.0.22");
    let asked: Vec<String> = questions.queries().iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(asked.join("\n"));
    let mount = r#"{"filesystems":[{"target":"/","source":"x","fstype":"ext4","options":"rw"}]}"#;
    let answers = [
        ok("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"),
        ok("gfs\n\n"),
        ok("default\n"),
        ok("1 2"),
        ok(mount),
        ok("{}"),
        ok("3 4"),
        failed(1, ""),
        failed(1, ""),
        ok("r nfs://10.77.0.11/srv/a/x.img?uid=0&gid=0\n| read 192/192 bytes at offset 0\n"),
        ok(r#"{"blockdevices":[{"wwn":"0x6001405a","serial":"s","size":5}]}"#),
        ok("1 0 0:1 / / rw - ext4 /dev/vda1 rw\n"),
        ok(" 51 46 49 fb\n==\n"),
        ok(r#"[{"ifname":"br0","linkinfo":{"info_kind":"bridge","info_data":{"stp_state":0}}}]"#),
        failed(1, ""),
        ok("<capabilities><host><uuid>ABC</uuid></host></capabilities>"),
        failed(255, "Connection refused"),
    ];
    assert_eq!(answers.len(), questions.queries().len());
    let facts = questions.read(&"kvm1".parse().unwrap(), &cluster(), &answers);
    assert_eq!(facts.memory_available, Ok(ByteSize::from_bytes(2 << 20)));
    assert_eq!(facts.pools.unwrap().into_iter().collect::<Vec<_>>(), vec!["gfs"]);
    assert_eq!(facts.places.files["/b/y.img"].stat, Ok(Some(Stat { inode: 3, size: 4 })));
    assert_eq!(facts.places.files["/b/y.img"].mount, Ok(None));
    assert!(facts.places.remote.values().all(Result::is_ok) && facts.places.remote.len() == 1);
    let device = facts.places.devices["/dev/disk/by-path/x"].clone().unwrap().unwrap();
    assert_eq!((device.identity(), device.size), (Some(("0x6001405a", "s")), 5));
    assert_eq!(facts.images.values().next().unwrap().signature.as_ref().unwrap().to_string(), "qcow2");
    assert!(facts.bridges["br0"]);
    assert!(!facts.boot_files["/boot/k"]);
    let peer = facts.peer.unwrap();
    assert_eq!((peer.reached, peer.port), (Ok("abc".to_owned()), PortSeen::Reachable));
}

fn cluster() -> Cluster {
    Cluster {
        name: crate::model::ClusterName::new("homelab").unwrap(),
        base: std::path::PathBuf::new(),
        hosts: BTreeMap::new(),
        storage: BTreeMap::new(),
        images: BTreeMap::new(),
        guests: BTreeMap::new(),
        migration: crate::spec::MigrationPolicy {
            bandwidth: None,
            max_downtime: Duration::from_millis(300),
            timeout: Duration::from_secs(600),
            on_timeout: crate::spec::OnTimeout::Abort,
            per_host: 2,
            per_cluster: 5,
        },
        secrets: crate::model::Secrets::default(),
    }
}

#[test]
fn a_file_belongs_to_the_storage_above_it_however_its_path_is_written() {
    let text = "version: 1
name: lab
hosts:
  store1: { address: 10.78.0.11 }
  kvm1: { address: 10.78.0.21, hypervisor: true }
storage:
  vmstore:
    nfs: { server: store1, path: /srv/vmstore }
";
    let cluster = crate::spec::parse(text, std::path::Path::new("/"), "cluster.yaml").unwrap();
    let host: HostId = "kvm1".parse().unwrap();
    let place = "/var/lib/libvirt/images/vmstore";
    assert!(storage_of(&format!("{place}//a/./b.img"), &cluster).is_some());
    assert_eq!(storage_of(&format!("{place}2/b.img"), &cluster), None);
    let judged = |path: &str, target: &str, table: &str| {
        let places = Places::of(&host, [].iter(), [path.to_owned()].into_iter(), &cluster);
        let json = format!(r#"{{"filesystems":[{{"target":"{target}","source":"s","fstype":"k"}}]}}"#);
        let answers = [ok("1 2"), ok(&json), ok(&json), ok(table)];
        assert_eq!(places.queries().len(), answers.len());
        let mut answers = answers.iter();
        let found = places.read(&host, &cluster, &mut || answers.next()).misplaced(path, &cluster);
        found.map(Misplaced::reason)
    };
    let image = format!("{place}/a.img");
    let right = format!("40 1 0:40 / {place} rw - nfs4 10.78.0.11:/srv/vmstore rw\n");
    assert_eq!(judged(&image, place, &right), None);
    let bound = right.replace(":40 / ", ":40 /sub ");
    for (target, table, words) in [
        (place, right.replace("/srv/vmstore", "/srv/other"), "10.78.0.11:/srv/other is mounted there"),
        (place, bound, "its directory /sub is mounted there"),
        ("/", "1 0 0:1 / / rw - ext4 /dev/vda1 rw\n".to_owned(), "storage vmstore is not mounted on"),
        // A link in the storage that leads out of it, and a mount below its own.
        ("/", right.clone(), "is not on storage vmstore, but on s (k), mounted on /"),
        ("/var/lib/libvirt/images/vmstore/a", right.clone(), "is not on storage vmstore"),
    ] {
        let found = judged(&image, target, &table).unwrap();
        assert!(found.contains(words), "{found}");
    }
    // A link from elsewhere into the storage.
    assert_eq!(judged("/vms/a.img", place, &right), None);
    assert!(judged("/vms/a.img", place, &right.replace("/srv/vmstore", "/srv/other")).is_some());
    assert_eq!(judged("/vms/a.img", "/", &right), None);
}

#[test]
fn a_lun_is_opened_only_where_the_cluster_file_has_it() {
    let text = "version: 1
name: lab
hosts:
  store1: { address: 10.78.0.11 }
  kvm1: { address: 10.78.0.21, hypervisor: true }
storage:
  san:
    iscsi:
      server: store1
      iqn: iqn.2026-01.lab.stor:san
      access: direct
      luns: [{ name: web1, number: 3, size: 64MiB, backing: /data/web1.img }]
";
    let cluster = crate::spec::parse(text, std::path::Path::new("/"), "cluster.yaml").unwrap();
    let url = |name: &str, host: &str| {
        let (protocol, hosts) = ("iscsi".to_owned(), vec![host.to_owned()]);
        disk_url(&DiskSource::Network { protocol, name: name.to_owned(), hosts }, &cluster)
    };
    let own = "iqn.2026-01.lab.stor:san/3";
    assert_eq!(url(own, "10.78.0.11"), Some(format!("iscsi://10.78.0.11/{own}")));
    assert_eq!(url(own, "10.78.0.12"), None, "another server");
    assert_eq!(url("iqn.2026-01.lab.stor:san/4", "10.78.0.11"), None, "another LUN");
    assert_eq!(url("iqn.2026-01.lab.stor:other/3", "10.78.0.11"), None, "another target");

    // The kernel's target lets names in, not addresses.
    let disk = |own: &str| {
        format!(
            "<disk type='network'><source protocol='iscsi' name='{own}'><host name='10.78.0.11' port='3260'/></source><target dev='vda'/></disk>"
        )
    };
    let xml = format!("<domain><name>web1</name><devices>{}</devices></domain>", disk(own));
    let guest = crate::libvirt::domain_xml::read(&xml).unwrap();
    let asked = Questions::about(&"kvm1".parse().unwrap(), &guest, &cluster).queries();
    let names =
        asked.iter().filter(|query| format!("{query:?}").contains("iqn.2026-01.lab.stor:stor-lab.host.kvm1"));
    assert_eq!(names.count(), 1, "{asked:?}");
}
