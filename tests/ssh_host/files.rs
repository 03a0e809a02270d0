//! Files, blocks and images on the host.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount, umount};
use stor::host::{Host, HostError};
use stor::model::{
    AbsPath, BlockLine, BlockSpec, ByteSize, Effect, FileContent, FileMode, FileSpec, ImageFormat,
    ImageLocation, ImageSpec, Secret, Stdin,
};
use stor::plan::expand::{Action, expand};

use crate::server::Server;

fn abs(path: &Path) -> AbsPath {
    AbsPath::new(path.display().to_string()).unwrap()
}

fn text(path: &Path, text: &str) -> FileSpec {
    FileSpec { path: abs(path), mode: FileMode(0o644), content: FileContent::Text(text.into()) }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_written_whole_with_its_mode_and_new_directories() {
    let server = Server::start("");
    let host = server.host();
    let path = server.path("new/deep/file.conf");
    let content = "it's\n\"$(id)\" \\n %s\n\n";
    host.write_file(&text(&path, content)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), content);
    let (file, dir) = (fs::metadata(&path).unwrap(), fs::metadata(path.parent().unwrap()).unwrap());
    assert_eq!((file.mode() & 0o7777, dir.mode() & 0o7777, file.uid()), (0o644, 0o755, 0));

    let secret = FileSpec {
        path: abs(&path),
        mode: FileMode(0o600),
        content: FileContent::Secret(Secret::new("s3cret")),
    };
    host.write_file(&secret).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_to_string(&path).unwrap(), "s3cret");
    host.write_file(&text(&path, &"x".repeat(1 << 20))).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 20);
    assert_eq!(names(path.parent().unwrap()), ["file.conf"]);
}

#[test]
fn what_a_killed_write_left_and_links_are_replaced_and_a_directory_is_not() {
    let server = Server::start("");
    let host = server.host();
    let (path, precious) = (server.path("a.conf"), server.path("precious"));
    fs::write(&precious, "precious").unwrap();
    symlink(&precious, &path).unwrap();
    symlink(&precious, server.path(".a.conf.stor-new")).unwrap();
    host.write_file(&text(&path, "mine")).unwrap();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    assert!(fs::symlink_metadata(server.path(".a.conf.stor-new")).is_err());

    fs::create_dir(server.path("dir")).unwrap();
    match host.write_file(&text(&server.path("dir"), "x")).unwrap_err() {
        HostError::Failed { command, .. } => {
            assert_eq!(command, format!("write {}", server.path("dir").display()))
        }
        other => panic!("{other:?}"),
    }
    assert!(names(&server.path("dir")).is_empty());
}

/// A file system of 64 KiB.
struct Tiny(PathBuf);
impl Tiny {
    fn new(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap();
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
        Self(path)
    }
}
impl Drop for Tiny {
    fn drop(&mut self) {
        umount(&self.0).unwrap();
    }
}

#[test]
fn a_full_disk_leaves_the_old_file_and_nothing_else() {
    let server = Server::start("");
    let host = server.host();
    let tiny = Tiny::new(server.path("tiny"));
    let path = tiny.0.join("f");
    host.write_file(&text(&path, "old")).unwrap();
    match host.write_file(&text(&path, &"x".repeat(200_000))).unwrap_err() {
        HostError::Failed { stderr, .. } => assert!(stderr.contains("No space left"), "{stderr}"),
        other => panic!("{other:?}"),
    }
    let big = BlockSpec {
        path: abs(&path),
        mode: FileMode(0o600),
        marker: "x".into(),
        lines: Some(vec![BlockLine::Text("y".repeat(200_000))].into()),
    };
    assert!(matches!(host.edit_block(&big, &[]), Err(HostError::Failed { .. })));
    fs::write(server.path("image"), vec![7; 200_000]).unwrap();
    let fed = make_image(&tiny.0.join("image"), Some(&server.path("image")), 200_000);
    assert!(matches!(made(&*host, &fed), Err(HostError::Failed { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(names(&tiny.0), ["f"]);
}

#[test]
fn a_block_keeps_every_other_byte_the_owner_the_mode_and_a_link() {
    let server = Server::start("");
    let host = server.host();
    let (real, link) = (server.path("real"), server.path("authorized_keys"));
    let old = b"first\n\xff\xfe it's \\ %s\r\n\n  no newline at the end";
    fs::write(&real, old).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&real, Some(1234), Some(5678)).unwrap();
    symlink("real", &link).unwrap();
    let block = |lines: Option<&[&str]>| BlockSpec {
        path: abs(&link),
        mode: FileMode(0o600),
        marker: "homelab".into(),
        lines: lines.map(|lines| lines.iter().map(|line| BlockLine::Text((*line).into())).collect()),
    };
    host.edit_block(&block(Some(&["from=\"10.0.0.1\" key", "it's"])), &[]).unwrap();
    let mut expected = old.to_vec();
    expected.extend(b"\n# BEGIN stor homelab\nfrom=\"10.0.0.1\" key\nit's\n# END stor homelab\n");
    assert_eq!(fs::read(&real).unwrap(), expected);
    let seen = fs::metadata(&real).unwrap();
    assert_eq!((seen.mode() & 0o7777, seen.uid(), seen.gid()), (0o640, 1234, 5678));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

    let inode = seen.ino();
    host.edit_block(&block(Some(&["from=\"10.0.0.1\" key", "it's"])), &[]).unwrap();
    assert_eq!(fs::metadata(&real).unwrap().ino(), inode, "an edit that changes nothing writes nothing");
    host.edit_block(&block(None), &[]).unwrap();
    expected.truncate(old.len() + 1);
    assert_eq!(fs::read(&real).unwrap(), expected);

    let new = BlockSpec { path: abs(&server.path("none/keys")), ..block(Some(&["a"])) };
    host.edit_block(&BlockSpec { lines: None, ..new.clone() }, &[]).unwrap();
    assert!(!server.path("none").exists(), "taking a block out of no file makes none");
    host.edit_block(&new, &[]).unwrap();
    assert_eq!(fs::metadata(server.path("none/keys")).unwrap().mode() & 0o7777, 0o600);

    fs::write(&real, b"nul \0 byte").unwrap();
    assert!(matches!(host.edit_block(&block(Some(&["a"])), &[]), Err(HostError::Protocol { .. })));
    fs::write(&real, "# BEGIN stor homelab\n").unwrap();
    assert!(matches!(host.edit_block(&block(None), &[]), Err(HostError::Protocol { .. })));
}

/// The effect that makes a raw image of this size.
fn make_image(target: &Path, source: Option<&Path>, size: u64) -> Effect {
    let (location, format) = (ImageLocation::File(abs(target)), ImageFormat::Raw);
    let (size, source) = (ByteSize::from_bytes(size), source.map(Into::into));
    Effect::CreateImage(ImageSpec { location, format, size, source, mounted: None })
}

fn made(host: &dyn Host, effect: &Effect) -> Result<(), HostError> {
    expand(effect).unwrap().actions.iter().try_for_each(|action| match action {
        Action::Run(command) => host.run(command).map(drop),
        Action::Feed { source, command } => host.feed(command, source).map(drop),
        other => panic!("{other:?}"),
    })
}

#[test]
fn an_image_arrives_whole_and_sparse_and_never_over_another() {
    let server = Server::start("");
    let host = server.host();
    let share = server.path("share");
    fs::create_dir(&share).unwrap();
    std::os::unix::fs::chown(&share, Some(1234), Some(5678)).unwrap();
    let (source, target) = (server.path("source.img"), share.join("web1.img"));
    let mut bytes = vec![0; 24 << 20];
    bytes[5 << 20..(5 << 20) + 3].copy_from_slice(b"\xff\0x");
    bytes[17 << 20] = 9;
    bytes.extend([0; 12_800]);
    fs::write(&source, &bytes).unwrap();
    let grown = bytes.len() as u64 + (1 << 20);
    made(&*host, &make_image(&target, Some(&source), grown)).unwrap();
    assert!(fs::read(&target).unwrap()[..bytes.len()] == bytes);
    let seen = fs::symlink_metadata(&target).unwrap();
    assert!(seen.blocks() * 512 < 4 << 20, "{} blocks", seen.blocks());
    assert_eq!(
        (seen.len(), seen.mode(), seen.uid(), seen.gid(), seen.nlink()),
        (grown, 0o100_600, 1234, 5678, 1)
    );
    assert_eq!(names(&share), ["web1.img"]);

    fs::write(&target, "precious").unwrap();
    for source in [Some(source.as_path()), None] {
        match made(&*host, &make_image(&target, source, grown)).unwrap_err() {
            HostError::Failed { stderr, .. } => assert!(stderr.contains("File exists"), "{stderr}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    let none = make_image(&target, Some(&server.path("no")), grown);
    assert!(matches!(made(&*host, &none), Err(HostError::Local { .. })));
}

#[test]
fn a_connection_that_breaks_while_an_image_is_copied_leaves_nothing() {
    let server = Server::start("");
    let host = server.host();
    let target = server.path("web1.img");
    fs::write(server.path("source.img"), "whole").unwrap();
    let expansion = make_image(&target, Some(&server.path("source.img")), 512);
    let expanded = expand(&expansion).unwrap();
    let [Action::Feed { command, source }] = expanded.actions.as_slice() else { panic!() };
    // More is announced than comes.
    let short =
        stor::model::Command { args: [&command.args[..], &["6".to_owned()]].concat(), ..command.clone() };
    let told = host.run(&short.stdin(Stdin::Text(fs::read_to_string(source).unwrap()))).unwrap_err();
    assert!(told.to_string().contains("not the length of its source"), "{told}");
    assert!(!names(server.dir.path()).iter().any(|name| name.contains("web1.img")));
}
