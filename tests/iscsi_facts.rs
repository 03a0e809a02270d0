//! What is read from the answers of a real tgt (captured in the lab).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use std::path::Path;

use stor::model::Answer;
use stor::spec;
use stor::storage::health::HealthState;
use stor::storage::iscsi::facts::read_targets;
use stor::storage::iscsi::health;
use stor::storage::spec::StorageSpec;

fn output(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/outputs/tgtadm").join(name);
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
