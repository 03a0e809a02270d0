//! What is read from the answers of real servers: tgt (captured in the lab), devices and LVM (captured on virtual machines).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use std::path::Path;

use stor::model::Answer;
use stor::spec;
use stor::storage::health::HealthState;
use stor::storage::iscsi::facts::backing::{
    Behind, Daemon, Device, Identity, Place, read_behind, read_place,
};
use stor::storage::iscsi::facts::{lvm, read_targets};
use stor::storage::iscsi::health;
use stor::storage::spec::StorageSpec;

fn output(name: &str) -> String {
    output_of("tgtadm", name)
}

fn output_of(tool: &str, name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/outputs").join(tool).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_targets_luns_users_and_initiators_are_read() {
    let targets = read_targets(&output("debian13-tgt1.0.85-two-luns.txt"));
    let target = &targets["iqn.2026-01.lab.stor:san"];
    let luns: Vec<_> = target
        .luns
        .iter()
        .map(|(number, lun)| (*number, lun.path.as_str(), lun.scsi_id.as_str(), lun.megabytes, lun.online))
        .collect();
    assert_eq!(
        luns,
        [
            (1, "/data/luns/web1.img", "storad7a76a290cb5399a1b1fb7b0cc57ba4", Some(67), true),
            (2, "/data/luns/web2.img", "stor7423abe0558952a3a41b24a62ffc192d", Some(34), true),
        ]
    );
    assert_eq!(target.luns[&1].serial, "ad7a76a290cb5399a1b1fb7b0cc57ba4");
    assert_eq!(target.accounts, ["stor".to_owned()].into());
    assert_eq!(target.addresses, ["10.78.0.1", "10.78.0.21", "10.78.0.22"].map(str::to_owned).into());
    assert_eq!(target.connected, ["10.78.0.21".to_owned()].into());
}

#[test]
fn a_target_is_healthy_with_all_its_luns_and_down_without_a_daemon() {
    let text = "version: 1
name: iscsilab
hosts:
  store1: { address: 10.78.0.11 }
  kvm1: { address: 10.78.0.21, hypervisor: true }
storage:
  san:
    iscsi:
      server: store1
      iqn: iqn.2026-01.lab.stor:san
      access: direct
      luns:
        - { name: web1, size: 64MiB, backing: /data/luns/web1.img }
        - { name: web2, size: 32MiB, backing: /data/luns/web2.img }
";
    let cluster = spec::parse(text, Path::new("/"), "cluster.yaml").unwrap();
    let StorageSpec::Iscsi(spec) = &cluster.storage[&"san".parse().unwrap()] else { panic!("iscsi") };
    let state = |status, stdout: String| {
        let answer = Answer { status: Some(status), stdout, stderr: String::new() };
        health::read(spec, &answer).state
    };
    assert_eq!(state(0, output("debian13-tgt1.0.85-two-luns.txt")), HealthState::Healthy);
    assert_eq!(state(0, output("debian13-tgt1.0.85-target-in-use.txt")), HealthState::Degraded);
    assert_eq!(state(0, String::new()), HealthState::Down);
    assert_eq!(state(107, String::new()), HealthState::Down);
}

fn place(case: &str) -> Result<Place, String> {
    read_place(&output_of("place", &format!("debian13-util-linux2.41-{case}.txt")))
}

fn device(case: &str) -> Device {
    match place(case) {
        Ok(Place::Device(device)) => device,
        other => panic!("{case}: {other:?}"),
    }
}

#[test]
fn what_a_device_is_who_uses_it_and_what_it_carries_is_read() {
    let words = |all: &std::collections::BTreeSet<String>| all.iter().cloned().collect::<Vec<_>>().join(" ");
    let shown = |case: &str| {
        let device = device(case);
        let overlapping: Vec<&str> = device.overlapping.iter().map(Identity::as_str).collect();
        format!(
            "{} {} {} mounted [{}] holders [{}] overlapping {overlapping:?} carries [{}] claimed {} ro {}",
            device.identity.as_str(),
            device.kind,
            device.size,
            words(&device.mounted),
            words(&device.holders),
            words(&device.signatures),
            device.claimed,
            device.read_only,
        )
    };
    let table = [
        (
            "device-offered-by-lio",
            "b:254:18 part 536870912 mounted [] holders [] overlapping [\"b:254:16\"] carries [ext4] claimed true ro false",
        ),
        (
            "device-with-mounted-partition",
            "b:254:0 disk 4294967296 mounted [/] holders [] overlapping [\"b:254:1\"] carries [dos] claimed true ro false",
        ),
        (
            "device-with-physical-volume",
            "b:254:16 disk 2147483648 mounted [] holders [/dev/mapper/vg0-web1] overlapping [\"b:254:17\", \"b:254:18\"] \
             carries [PMBR gpt] claimed true ro false",
        ),
        (
            "device-physical-volume",
            "b:254:17 part 1073741824 mounted [] holders [/dev/mapper/vg0-web1] overlapping [\"b:254:16\"] \
             carries [LVM2_member] claimed true ro false",
        ),
        (
            "volume-offered-by-lio",
            "b:253:0 lvm 268435456 mounted [] holders [] overlapping [] carries [] claimed true ro false",
        ),
    ];
    for (case, expected) in table {
        assert_eq!(shown(case), expected, "{case}");
    }
    let id = "DM_UUID=LVM-UZoL6DmgcQG1HjTs3SQfl3oSWdY3j1enLwKaqENLQRItf0Uc8wDW3uUdj5RSz9A2";
    assert_eq!(device("volume-offered-by-lio").name.as_deref(), Some(id));
    assert_eq!(device("device-with-mounted-partition").name, None);
}

#[test]
fn files_other_kinds_and_nothing_are_told_apart_and_half_an_answer_is_none() {
    let file = Place::File {
        size: 67_108_864,
        identity: Identity::new("f:65025:13266"),
        looped: None,
        unfinished: false,
    };
    assert_eq!(place("file"), Ok(file));
    assert_eq!(place("directory"), Ok(Place::Other("directory".to_owned())));
    assert_eq!(place("absent"), Ok(Place::Absent { unfinished: false }));
    let whole = output_of("place", "debian13-util-linux2.41-volume-offered-by-lio.txt");
    for word in ["below ", "above ", "signatures "] {
        let without: String =
            whole.lines().filter(|line| !line.starts_with(word)).map(|line| format!("{line}\n")).collect();
        assert!(read_place(&without).is_err(), "without {word}");
    }
    assert!(read_place("").is_err());
}

#[test]
fn what_is_behind_all_luns_of_a_host_is_read() {
    let behind = read_behind(&output_of("behind", "debian13-linux6.12-lio.txt"));
    let web2 = Behind {
        daemon: Daemon::Lio,
        owner: "stor-vm-backing.san.web2".to_owned(),
        identity: Some(Identity::new("b:254:18")),
        path: "/dev/vdb2".to_owned(),
    };
    assert!(behind.len() == 3 && behind.contains(&web2), "{behind:?}");
}

#[test]
fn volume_groups_volumes_and_the_devices_that_lvm_looks_at_are_read() {
    let groups = lvm::read_groups(&output_of("vgs", "debian13-lvm2.03.31-one.json")).unwrap();
    assert_eq!(groups["vg0"], lvm::Group { free: 801_112_064, extent: 4 << 20 });
    let volumes = lvm::read_volumes(&output_of("lvs", "debian13-lvm2.03.31-one.json")).unwrap();
    assert_eq!(volumes["vg0/web1"], lvm::Volume { size: 256 << 20, active: true });
    assert!(lvm::read_groups("").is_err() && lvm::read_volumes("{}").is_err());
    // Debian looks at every device, but at none of its own volumes.
    let defaults = output_of("lvmconfig", "debian13-lvm2.03.31-defaults.txt");
    assert_eq!(lvm::read_settings(&defaults), (true, false));
    assert_eq!(lvm::read_settings(&defaults.replace("scan_lvs=0", "scan_lvs=1")), (true, true));
    assert_eq!(lvm::read_settings(&defaults.replace("devicesfile=0", "devicesfile=1")), (false, false));
    assert_eq!(lvm::read_settings(&defaults.replace("a|.*|", "r|/dev/vdb|")), (false, false));
    assert_eq!(lvm::read_settings(""), (false, false));
}
