use super::*;
use crate::model::AbsPath;

fn fixture(text: &str) -> Answer {
    Answer { status: Some(0), stdout: text.to_owned(), stderr: String::new() }
}

const WRITTEN: &str = include_str!("../../../../fixtures/outputs/probe-write/debian13-glusterfs11.1.txt");
const NOT_MOUNTED: &str =
    include_str!("../../../../fixtures/outputs/probe-write/debian13-glusterfs11.1-not-mounted.txt");
const OTHER_VOLUME: &str =
    include_str!("../../../../fixtures/outputs/probe-write/debian13-glusterfs11.1-other-volume.txt");
const READ_ONLY: &str =
    include_str!("../../../../fixtures/outputs/probe-write/debian13-glusterfs11.1-read-only.txt");
const LOCK_HELD: &str =
    include_str!("../../../../fixtures/outputs/probe-read/debian13-glusterfs11.1-root-lock-held.txt");
const DENIED: &str =
    include_str!("../../../../fixtures/outputs/probe-read/debian13-glusterfs11.1-denied.txt");
const RELEASED: &str = include_str!("../../../../fixtures/outputs/probe-release/debian13-glusterfs11.1.txt");
const STILL_HELD: &str =
    include_str!("../../../../fixtures/outputs/probe-release/debian13-glusterfs11.1-still-held.txt");
const REMOVED: &str = include_str!("../../../../fixtures/outputs/probe-remove/debian13-glusterfs11.1.txt");

fn directory() -> MountedDirectory {
    MountedDirectory {
        path: AbsPath::new("/var/lib/libvirt/images/gfs").unwrap(),
        fs_type: "fuse.glusterfs",
        sources: vec!["10.79.0.11:/gfs".to_owned()],
        pool: "gfs".to_owned(),
        identity: Some("glusterfs.gfid.string"),
        split_brain: Some("replica.split-brain-status"),
    }
}

#[test]
fn a_written_nonce_tells_who_holds_its_lock() {
    let seen = written(&fixture(WRITTEN)).unwrap();
    assert_eq!(seen.nonce, Ok(()));
    assert_eq!(seen.lock.unwrap().kind, "fcntl");
}

#[test]
fn a_directory_that_is_not_the_mount_is_refused_and_named() {
    assert_eq!(written(&fixture(NOT_MOUNTED)), Err(NoFacts::Refused("not a mount point".into())));
    let other = NoFacts::Refused("fuse.glusterfs from 10.79.0.11:/gfs".into());
    assert_eq!(written(&fixture(OTHER_VOLUME)), Err(other));
}

#[test]
fn a_read_only_mount_leaves_nonce_and_lock_undone() {
    let seen = written(&fixture(READ_ONLY)).unwrap();
    assert!(seen.nonce.unwrap_err().contains("Read-only file system"));
    assert!(seen.lock.is_err());
}

#[test]
fn images_nonces_locks_and_access_are_read() {
    let seen = looked(&directory(), &fixture(LOCK_HELD)).unwrap();
    let web1 = &seen.images["web1.img"];
    let identity = web1.identity.clone().unwrap().unwrap();
    assert_eq!(identity.id.as_deref(), Some("34c8c44b-1b3d-47a7-90d4-18cf3c49330a"));
    assert_eq!((identity.inode, identity.size), (0x90d4_18cf_3c49_330a, 1 << 30));
    assert_eq!((web1.read.clone(), web1.write.clone()), (Some(Ok(())), Some(Ok(()))));
    assert_eq!(web1.owner, "root root 644");
    assert!(seen.images["nope.img"].identity.clone().unwrap().unwrap_err().contains("No such file"));
    assert_eq!(seen.nonces[".stor-probe-homelab-kvm1.0a1b2c3d"], "0a1b2c3d/gfs/kvm1");
    assert!(seen.nonces[".stor-probe-homelab-kvm3.0a1b2c3d"].contains("No such file"));
    assert_eq!(seen.locks[".stor-probe-homelab-kvm1.0a1b2c3d"].answer(), LockAnswer::Refused);
}

#[test]
fn denied_access_keeps_what_the_kernel_said() {
    let seen = looked(&directory(), &fixture(DENIED)).unwrap();
    let write = seen.images["web1.img"].write.clone().unwrap();
    assert!(write.unwrap_err().contains("Permission denied"));
    assert_eq!(seen.own, Some(OwnSeen { chown: Ok(()), write: Ok(()) }));
}

#[test]
fn a_lock_that_was_let_go_is_told_from_one_that_was_not() {
    let free = released(&fixture(RELEASED)).unwrap();
    assert_eq!(free[".stor-probe-homelab-kvm1.0a1b2c3d"].answer(), LockAnswer::Granted);
    let held = released(&fixture(STILL_HELD)).unwrap();
    assert_eq!(held[".stor-probe-homelab-kvm2.0a1b2c3d"].answer(), LockAnswer::Refused);
}

#[test]
fn a_lock_tool_that_fails_otherwise_proves_nothing() {
    let cases = [
        ("flock", 75, "", LockAnswer::Refused),
        ("flock", 66, "flock: cannot open lock file x: No such file or directory", LockAnswer::Unclear),
        ("qemu-io", 1, "qemu-io: can't open device x: Failed to get \"write\" lock", LockAnswer::Refused),
        ("qemu-io", 1, "qemu-io: can't open device x: Could not open 'x': No such file", LockAnswer::Unclear),
        ("qemu-io", 0, "", LockAnswer::Granted),
    ];
    for (tool, status, said, answer) in cases {
        let tried = LockTried { tool: tool.to_owned(), status, said: said.to_owned() };
        assert_eq!(tried.answer(), answer, "{tool} {status} {said}");
    }
}

#[test]
fn a_killed_or_torn_answer_gives_no_facts() {
    let mut answer = fixture(WRITTEN);
    answer.status = None;
    assert_eq!(written(&answer), Err(NoFacts::TimedOut));
    let torn = Answer { status: Some(2), stdout: String::new(), stderr: "sh: syntax error".to_owned() };
    assert_eq!(written(&torn), Err(NoFacts::Malformed("status 2: sh: syntax error".into())));
}

#[test]
fn removal_is_told() {
    assert_eq!(removed(&fixture(REMOVED)), Ok(()));
}
