//! The probe scripts, run for real on this machine: they write only below the mount that they were told of.

use std::fs;
use std::path::Path;

use stor::model::{AbsPath, Answer, HostId, Query};
use stor::storage::keeper;
use stor::storage::mount_probe::seen::{LockAnswer, NoFacts, released, removed, written};
use stor::storage::mount_probe::{self, Rival, mount_table};
use stor::storage::probe::{ClientRequest, Keeper, MountedDirectory};

fn directory(path: &Path, fs_type: &'static str, source: &str) -> MountedDirectory {
    MountedDirectory {
        path: AbsPath::new(path.to_str().unwrap()).unwrap(),
        fs_type,
        sources: vec!["10.77.0.99:/gfs".to_owned(), source.to_owned()],
        pool: "gfs".to_owned(),
        identity: None,
        split_brain: None,
    }
}

fn run(query: &Query) -> Answer {
    let command = query.command();
    let output = duct::cmd(command.program, &command.args)
        .env("LC_ALL", "C")
        .stdin_null()
        .stdout_capture()
        .stderr_capture()
        .unchecked()
        .run()
        .unwrap();
    Answer {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).unwrap().next().is_none()
}

/// A directory without unusual characters in its path.
fn plain() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("stor").tempdir().unwrap()
}

#[test]
fn a_plain_directory_stays_empty() {
    let dir = plain();
    let place = directory(dir.path(), "ext4", "/dev/vda");
    let seen = written(&run(&mount_probe::write(&place, ".stor-probe-a-b.1", "nonce")));
    assert_eq!(seen, Err(NoFacts::Refused("not a mount point".to_owned())));
    assert!(removed(&run(&mount_probe::remove(&place, ".stor-probe-a-b.1"))).is_err());
    assert!(is_empty(dir.path()));
}

#[test]
fn a_missing_directory_is_not_made() {
    let dir = plain();
    let path = dir.path().join("gone");
    let seen =
        written(&run(&mount_probe::write(&directory(&path, "ext4", "x"), ".stor-probe-a-b.1", "nonce")));
    assert!(matches!(seen, Err(NoFacts::Refused(why)) if why.contains("No such file or directory")));
    assert!(!path.exists());
}

/// A mount that everybody may write to, with its type and source: `/dev/shm` of any Linux.
fn shared_memory() -> mount_table::Mount {
    let table = mount_table::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap());
    mount_table::at(&table, &AbsPath::new("/dev/shm").unwrap()).unwrap().clone()
}

#[test]
fn a_mount_of_another_type_or_source_is_refused_and_named() {
    let mount = shared_memory();
    let probe = format!(".stor-probe-refused-{}.1", std::process::id());
    let other_type = directory(Path::new("/dev/shm"), "fuse.glusterfs", &mount.source);
    let other_source = directory(Path::new("/dev/shm"), "tmpfs", "elsewhere:/gfs");
    for place in [other_type, other_source] {
        let seen = written(&run(&mount_probe::write(&place, &probe, "nonce")));
        assert_eq!(seen, Err(NoFacts::Refused(mount.to_string())));
        assert!(!Path::new("/dev/shm").join(&probe).exists());
    }
}

#[test]
fn nothing_is_made_where_the_storage_is_not_mounted() {
    let mount = shared_memory();
    let tried = |place: &MountedDirectory| run(&Query::new(mount_probe::mounted(place)));
    assert!(tried(&directory(Path::new("/dev/shm"), "tmpfs", &mount.source)).ok());
    let plain = plain();
    for place in [
        directory(Path::new("/dev/shm"), "fuse.glusterfs", &mount.source),
        directory(Path::new("/dev/shm"), "tmpfs", "elsewhere:/gfs"),
        directory(plain.path(), "tmpfs", &mount.source),
        directory(Path::new("/dev/shm/gone"), "tmpfs", &mount.source),
    ] {
        let answer = tried(&place);
        assert_eq!(answer.status, Some(1), "{place:?}");
        assert!(answer.stderr.contains("is not the storage"), "{answer:?}");
    }
}

#[test]
fn in_the_right_mount_a_probe_file_is_written_locked_let_go_and_removed() {
    let mount = shared_memory();
    let place = directory(Path::new("/dev/shm"), "tmpfs", &mount.source);
    let name = |run: u32| format!(".stor-probe-script-{}.{run}", std::process::id());
    let file = |run| Path::new("/dev/shm").join(name(run));
    fs::write(file(1), "left by a killed run").unwrap();
    let seen = written(&run(&mount_probe::write(&place, &name(2), "nonce; $(id) 'x'"))).unwrap();
    assert_eq!(seen.nonce, Ok(()));
    assert_eq!(fs::read_to_string(file(2)).unwrap().trim_end(), "nonce; $(id) 'x'");
    assert_eq!(fs::metadata(file(2)).unwrap().len(), 4096);
    let hold = seen.lock.unwrap();
    let rival = Rival { host: HostId::new("a").unwrap(), file: name(2), kind: hold.kind };
    let rivals = std::slice::from_ref(&rival);
    let held = released(&run(&mount_probe::release(&place, &name(3), None, rivals))).unwrap();
    assert_eq!(held[&name(2)].answer(), LockAnswer::Refused, "{held:?}");
    let own = released(&run(&mount_probe::release(&place, &name(2), Some(hold.pid), rivals))).unwrap();
    assert_eq!(own[&name(2)].answer(), LockAnswer::Granted, "{own:?}");
    assert_eq!(removed(&run(&mount_probe::remove(&place, &name(2)))), Ok(()));
    assert!(!file(2).exists() && !file(1).exists(), "the killed run's file goes too");
}

#[test]
fn a_link_that_another_host_put_in_place_of_its_probe_file_is_neither_followed_nor_filled() {
    let mount = shared_memory();
    let place = directory(Path::new("/dev/shm"), "tmpfs", &mount.source);
    let elsewhere = plain();
    let name = format!(".stor-probe-link-{}.1", std::process::id());
    let file = Path::new("/dev/shm").join(&name);
    std::os::unix::fs::symlink(elsewhere.path().join("nologin"), &file).unwrap();
    for kind in ["flock".to_owned(), "fcntl".to_owned()] {
        let rival = Rival { host: HostId::new("a").unwrap(), file: name.clone(), kind };
        let rivals = std::slice::from_ref(&rival);
        let seen = released(&run(&mount_probe::release(&place, &name, None, rivals))).unwrap();
        assert_eq!(seen[&name].answer(), LockAnswer::Unclear, "{seen:?}");
        assert!(is_empty(elsewhere.path()));
    }
    fs::remove_file(&file).unwrap();
}

#[test]
fn a_server_makes_new_files_only_and_writes_to_nothing_that_a_client_put_in_their_place() {
    let dir = plain();
    let link = |name: &str, to: &Path| std::os::unix::fs::symlink(to, dir.path().join(name)).unwrap();
    link("device", Path::new("/dev/zero"));
    link("nowhere", &dir.path().join("made"));
    fs::write(dir.path().join("there"), "x").unwrap();
    let create = ["new", "device", "nowhere", "there"].map(str::to_owned).to_vec();
    let request = ClientRequest { create, ..ClientRequest::default() };
    let directory = AbsPath::new(dir.path().to_str().unwrap()).unwrap();
    let keeper = Keeper { host: HostId::new("store1").unwrap(), directory };
    let seen = keeper::read(&run(&keeper::query(&keeper, &request))).unwrap();
    let made: Vec<&str> =
        seen.created.iter().filter(|(_, made)| made.is_ok()).map(|(name, _)| name.as_str()).collect();
    assert_eq!(made, ["new"], "{seen:?}");
    assert_eq!(fs::metadata(dir.path().join("new")).unwrap().len(), 4096);
    assert!(!dir.path().join("made").exists());
    assert_eq!(fs::read(dir.path().join("there")).unwrap(), b"x");
}
