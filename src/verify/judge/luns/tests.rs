//! What is judged of LUNs, on what real hosts showed of them.

use super::*;
use crate::model::{Answer, StorageId};
use crate::storage::lun_probe;
use crate::storage::probe::{ClientAnswer, Identity, KernelSessions, Lun, LunPool, Probe, Way};
use crate::verify::evidence::{Evidence, HostEvidence, Scope, ScopedStorage, Sized};
use crate::verify::judge::judge;
use crate::verify::matrix::Matrix;

const SERIAL: &str = "ad7a76a290cb5399a1b1fb7b0cc57ba4";
const SIZE: u64 = 67_108_864;

macro_rules! output {
    ($name:literal) => {
        include_str!(concat!("../../../../fixtures/outputs/probe-luns/debian13-", $name, ".txt"))
    };
}

fn luns(text: &str) -> lun_probe::LunsSeen {
    let answer = Answer { status: Some(0), stdout: text.to_owned(), stderr: String::new() };
    lun_probe::seen(&answer).unwrap()
}

fn target() -> LunTarget {
    let lun = Lun {
        number: 1,
        serial: SERIAL.to_owned(),
        backing: "/data/luns/web1.img".to_owned().try_into().unwrap(),
    };
    LunTarget {
        server: "store1".parse().unwrap(),
        address: "10.78.0.11".to_owned(),
        port: 3260,
        iqn: "iqn.2026-01.lab.stor:san".to_owned(),
        luns: [("web1.img".to_owned(), lun)].into(),
        login: None,
        initiators: std::collections::BTreeMap::new(),
        initiator: "iqn.2026-01.lab.stor:stor".to_owned(),
        kernel: None,
        pool: None,
    }
}

fn client(ends: &str) -> ClientAnswer {
    let identity = Identity { inode: 1, id: Some(format!("t10.stor{SERIAL}")), size: SIZE };
    ClientAnswer {
        identified: [("web1.img".to_owned(), Ok(identity))].into(),
        read: [("web1.img".to_owned(), Ok(ends.to_owned()))].into(),
        ..ClientAnswer::default()
    }
}

/// Judges what one hypervisor and, before and after it, the initiator saw.
fn judged(host: &str, before: Option<ClientAnswer>, after: Option<ClientAnswer>) -> Matrix {
    judged_image(target(), ("web1", "web1.img"), host, before, after)
}

fn judged_image(
    target: LunTarget,
    (image, file): (&str, &str),
    host: &str,
    before: Option<ClientAnswer>,
    after: Option<ClientAnswer>,
) -> Matrix {
    let id: StorageId = "san".parse().unwrap();
    let kvm1: HostId = "kvm1".parse().unwrap();
    let probe = Probe { storage: id.clone(), way: Way::Luns(Box::new(target)), client: None, keeper: None };
    let image = ScopedImage { id: image.parse().unwrap(), file: file.to_owned(), sized: Sized::Fixed };
    let storages = vec![ScopedStorage { probe, images: vec![image] }];
    let scope = Scope { hosts: vec![kvm1.clone()], users: std::collections::BTreeMap::new(), storages };
    let seen = HostEvidence {
        mounts: Ok(Vec::new()),
        pools: Ok(crate::libvirt::pools::Pools::default()),
        user: Ok(None),
        mounted: std::collections::BTreeMap::new(),
        direct: std::collections::BTreeMap::new(),
        luns: [(id.clone(), Ok(luns(host)))].into(),
    };
    let evidence = Evidence {
        hosts: [(kvm1, seen)].into(),
        earlier: before.map(|answer| (id.clone(), answer)).into_iter().collect(),
        clients: after.map(|answer| (id.clone(), Ok(answer))).into_iter().collect(),
        ..Evidence::default()
    };
    judge(&"lab".parse().unwrap(), &scope, &evidence)
}

fn of(matrix: &Matrix, kind: CheckKind) -> (Verdict, Option<FindingCode>) {
    let check = matrix.cells[0].checks.iter().find(|check| check.kind == kind).unwrap();
    (check.verdict, check.finding.as_ref().map(|finding| finding.code))
}

#[test]
fn equal_ends_prove_a_lun_and_other_ones_disprove_it() {
    let good = output!("qemu10.0-libiscsi1.20");
    let ends = luns(good).luns["web1.img"].clone().unwrap().ends.unwrap();
    let same = judged(good, Some(client(&ends)), Some(client(&ends)));
    assert_eq!(of(&same, CheckKind::Identity), (Verdict::Pass, None));
    assert_eq!(of(&same, CheckKind::Access), (Verdict::Pass, None));
    assert_eq!(of(&same, CheckKind::Nonce).0, Verdict::NotApplicable);
    let other = judged(good, Some(client("a b")), Some(client("a b")));
    assert_eq!(of(&other, CheckKind::Identity), (Verdict::Fail, Some(FindingCode::LunDiffers)));
    let written = judged(good, Some(client("a b")), Some(client("c b")));
    assert_eq!(of(&written, CheckKind::Identity), (Verdict::Pass, None), "a guest writes to it");
    assert_eq!(of(&judged(good, None, None), CheckKind::Identity).0, Verdict::Unknown);
}

#[test]
fn another_lun_behind_the_number_and_another_size_are_named() {
    let good = output!("qemu10.0-libiscsi1.20");
    let mut swapped = client("a b");
    swapped.identified.insert("web1.img".to_owned(), Err(lun_probe::swapped(1, "beef", SERIAL)));
    let matrix = judged(good, Some(swapped.clone()), Some(swapped));
    assert_eq!(of(&matrix, CheckKind::Identity), (Verdict::Fail, Some(FindingCode::LunSwapped)));
    let mut larger = client("a b");
    let identity = Identity { inode: 1, id: None, size: SIZE * 2 };
    larger.identified.insert("web1.img".to_owned(), Ok(identity));
    let matrix = judged(good, Some(larger.clone()), Some(larger));
    assert_eq!(of(&matrix, CheckKind::Identity), (Verdict::Fail, Some(FindingCode::ImageSizeDiffers)));
}

#[test]
fn every_way_not_to_reach_a_lun_has_its_own_words() {
    let table = [
        (output!("qemu10.0-wrong-chap"), FindingCode::AccessDenied, "does not accept the CHAP secret"),
        (output!("qemu10.0-no-target"), FindingCode::TargetMissing, "there is no target"),
        (output!("qemu10.0-no-host"), FindingCode::TargetMissing, "nobody listens at the portal"),
    ];
    for (text, code, words) in table {
        let matrix = judged(text, None, None);
        assert_eq!(of(&matrix, CheckKind::Access), (Verdict::Fail, Some(code)), "{text}");
        assert!(matrix.findings().iter().any(|finding| finding.message.contains(words)), "{words}");
    }
    let missing = luns(output!("qemu10.0-libiscsi1.20")).luns["nope.img"].clone().unwrap_err();
    let image = ScopedImage { id: "nope".parse().unwrap(), file: "nope.img".to_owned(), sized: Sized::Fixed };
    let (code, message, _) = refusal(&missing, &"kvm1".parse().unwrap(), &image);
    assert_eq!((code, message.contains("no LUN")), (FindingCode::ImageMissing, true));
}

#[test]
fn a_server_says_what_is_behind_its_luns_in_the_words_of_an_initiator() {
    let answer =
        Answer { status: Some(0), stdout: output!("tgt1.0.85-server").to_owned(), stderr: String::new() };
    let seen = lun_probe::as_client(&target(), &answer).unwrap();
    let file = seen.identified["web1.img"].clone().unwrap();
    assert_eq!((file.size, file.id.as_deref()), (SIZE, Some(format!("serial {SERIAL}").as_str())));
    let ends = luns(output!("qemu10.0-libiscsi1.20")).luns["web1.img"].clone().unwrap().ends;
    assert_eq!(seen.read["web1.img"], ends, "both scripts take the same digests");
    let mut other = target();
    other.luns.get_mut("web1.img").unwrap().serial = "another".to_owned();
    let swapped = lun_probe::as_client(&other, &answer).unwrap().identified["web1.img"].clone();
    assert!(swapped.unwrap_err().ends_with(SWAPPED));
}

/// Two LUNs of the kernel's target as block devices of a hypervisor, one that is missing, and a disk of its own.
const DEVICES: &str = include_str!("../../../../fixtures/outputs/probe-devices/debian13-linux6.12-lio.txt");
const OF_DEVICE: &str = "96c741bac199507b9a758bcf3bcd9fe3";

fn kernel_target() -> LunTarget {
    let path = |name: &str| crate::model::AbsPath::new(format!("/dev/disk/by-id/{name}")).unwrap();
    let mut target = target();
    target.luns.get_mut("web1.img").unwrap().serial = OF_DEVICE.to_owned();
    let devices = ["web1.img", "nope.img", "other.img"].map(|file| (file.to_owned(), path(file)));
    target.kernel =
        Some(KernelSessions { portals: vec!["10.78.0.11:3260".to_owned()], devices: devices.into() });
    let path = crate::model::AbsPath::new("/dev/disk/by-path").unwrap();
    target.pool = Some(LunPool { name: "san".to_owned(), path: Some(path) });
    target
}

/// Judges one image of a hypervisor whose kernel is logged in.
fn judged_device(host: &str, file: &str, target: LunTarget) -> Matrix {
    let ends = luns(DEVICES).luns["web1.img"].clone().unwrap().ends.unwrap();
    let seen = client(&ends);
    judged_image(target, (file.trim_end_matches(".img"), file), host, Some(seen.clone()), Some(seen))
}

#[test]
fn a_block_device_of_the_target_is_proved_by_serial_size_and_ends() {
    let good = judged_device(DEVICES, "web1.img", kernel_target());
    for kind in [CheckKind::Mounted, CheckKind::Identity, CheckKind::Access] {
        assert_eq!(of(&good, kind), (Verdict::Pass, None), "{kind:?}");
    }
    assert_eq!(of(&good, CheckKind::Pool), (Verdict::Fail, Some(FindingCode::PoolInactive)), "there is none");
    let mut other = kernel_target();
    other.luns.get_mut("web1.img").unwrap().serial = "another".to_owned();
    let swapped = judged_device(DEVICES, "web1.img", other);
    assert_eq!(of(&swapped, CheckKind::Identity), (Verdict::Fail, Some(FindingCode::LunSwapped)));
    let missing = judged_device(DEVICES, "nope.img", kernel_target());
    assert_eq!(of(&missing, CheckKind::Access), (Verdict::Fail, Some(FindingCode::ImageMissing)));
    let local = judged_device(DEVICES, "other.img", kernel_target());
    assert_eq!(
        of(&local, CheckKind::Access),
        (Verdict::Fail, Some(FindingCode::AccessDenied)),
        "no LUN of it"
    );
}

#[test]
fn a_host_that_is_not_logged_in_and_one_that_lost_its_session_have_one_finding_each() {
    let out = DEVICES.replace("session 10.78.0.11:3260 LOGGED_IN\n", "");
    let matrix = judged_device(&out, "nope.img", kernel_target());
    assert_eq!(of(&matrix, CheckKind::Mounted), (Verdict::Fail, Some(FindingCode::NotLoggedIn)));
    assert_eq!(of(&matrix, CheckKind::Access), (Verdict::Unknown, None));
    let lost = DEVICES.replace("LOGGED_IN", "FAILED");
    let matrix = judged_device(&lost, "web1.img", kernel_target());
    assert_eq!(of(&matrix, CheckKind::Mounted), (Verdict::Fail, Some(FindingCode::SessionLost)));
}

#[test]
fn a_lun_that_somebody_reserved_is_told_with_the_reservation() {
    let good = output!("qemu10.0-libiscsi1.20");
    let ends = luns(good).luns["web1.img"].clone().unwrap().ends.unwrap();
    let mut seen = client(&ends);
    seen.reserved.insert("web1.img".to_owned(), "Write Exclusive, key 0xabc".to_owned());
    let matrix = judged(good, Some(seen.clone()), Some(seen));
    assert_eq!(of(&matrix, CheckKind::Access), (Verdict::Fail, Some(FindingCode::LunReserved)));
    assert!(matrix.findings().iter().any(|finding| finding.message.contains("Write Exclusive, key 0xabc")));
}
