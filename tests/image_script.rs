//! The program that makes images, run for real on this machine beside somebody who plants links: nothing but the image is made or changed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use stor::model::{AbsPath, ByteSize, Effect, ImageFormat, ImageLocation, ImageSpec};
use stor::plan::expand::{Action, expand};

const SIZE: u64 = 1 << 20;

/// A directory on which others write as well, and a file of this host that is none of their business.
struct Share {
    all: tempfile::TempDir,
}

impl Share {
    fn new() -> Self {
        let all = tempfile::Builder::new().prefix("stor").tempdir().unwrap();
        fs::create_dir(all.path().join("share")).unwrap();
        fs::write(all.path().join("canary"), "root's own").unwrap();
        fs::set_permissions(all.path().join("canary"), fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(all.path().join("share"), Some(1234), Some(1234)).unwrap();
        Self { all }
    }
    fn at(&self, name: &str) -> PathBuf {
        self.all.path().join("share").join(name)
    }
    fn canary(&self) -> PathBuf {
        self.all.path().join("canary")
    }
    #[track_caller]
    fn assert_untouched(&self) {
        let seen = fs::symlink_metadata(self.canary()).unwrap();
        assert_eq!(fs::read_to_string(self.canary()).unwrap(), "root's own");
        assert_eq!((seen.mode(), seen.uid(), seen.gid(), seen.nlink()), (0o100_640, 0, 0, 1));
    }
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.at(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
    /// Makes an image as apply does, from a file or empty.
    fn make(&self, name: &str, format: ImageFormat, source: Option<&Path>) -> Output {
        let location = ImageLocation::File(AbsPath::new(self.at(name).to_str().unwrap()).unwrap());
        let size = ByteSize::from_bytes(SIZE);
        let effect = Effect::CreateImage(ImageSpec {
            location,
            format,
            size,
            source: source.map(Into::into),
            mounted: None,
        });
        let expansion = expand(&effect).unwrap();
        let command = match expansion.actions.as_slice() {
            [Action::Run(command)] => duct::cmd(command.program, &command.args).stdin_null(),
            [Action::Feed { source, command }] => {
                let length = fs::metadata(source).unwrap().len().to_string();
                duct::cmd(command.program, command.args.iter().chain([&length])).stdin_path(source)
            }
            other => panic!("{other:?}"),
        };
        command.env("LC_ALL", "C").stdout_capture().stderr_capture().unchecked().run().unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_image_is_the_directorys_owners_and_nobody_elses_to_read() {
    let share = Share::new();
    let source = share.all.path().join("source");
    fs::write(&source, [7; 1000]).unwrap();
    for (name, format, source) in [
        ("a.img", ImageFormat::Raw, None),
        ("b.img", ImageFormat::Qcow2, None),
        ("c.img", ImageFormat::Raw, Some(source.as_path())),
    ] {
        let output = share.make(name, format, source);
        assert!(output.status.success(), "{name}: {}", said(&output));
        let seen = fs::symlink_metadata(share.at(name)).unwrap();
        assert_eq!((seen.mode(), seen.uid(), seen.gid(), seen.nlink()), (0o100_600, 1234, 1234, 1), "{name}");
    }
    assert_eq!(fs::read(share.at("b.img")).unwrap()[..4], *b"QFI\xfb");
    let copied = fs::read(share.at("c.img")).unwrap();
    assert!(
        copied.len() as u64 == SIZE && copied[..1000] == [7; 1000] && copied[1000..].iter().all(|b| *b == 0)
    );
    assert_eq!(share.names(), ["a.img", "b.img", "c.img"]);
}

#[test]
fn whatever_has_the_name_of_an_image_is_left_as_it_is() {
    let share = Share::new();
    symlink(share.canary(), share.at("link.img")).unwrap();
    symlink(share.all.path().join("nowhere"), share.at("dangling.img")).unwrap();
    fs::create_dir(share.at("directory.img")).unwrap();
    fs::write(share.at("file.img"), "precious").unwrap();
    fs::hard_link(share.canary(), share.at("hard.img")).unwrap();
    let before = share.names();
    for name in &before {
        for format in [ImageFormat::Raw, ImageFormat::Qcow2] {
            let output = share.make(name, format, None);
            assert!(
                !output.status.success() && said(&output).contains("File exists"),
                "{name}: {}",
                said(&output)
            );
        }
    }
    assert_eq!(share.names(), before);
    assert!(!share.all.path().join("nowhere").exists());
    assert_eq!(fs::read_to_string(share.at("file.img")).unwrap(), "precious");
    fs::remove_file(share.at("hard.img")).unwrap();
    share.assert_untouched();
}

#[test]
fn what_a_killed_run_left_goes_and_what_only_looks_like_it_stays() {
    let share = Share::new();
    fs::write(share.at(".a.img.stor-0123456789abcdef.partial"), "left").unwrap();
    fs::write(share.at(".ab.img.stor-0123456789abcdef.partial"), "of another image").unwrap();
    symlink(share.canary(), share.at(".a.img.stor-fedcba9876543210.partial")).unwrap();
    assert!(share.make("a.img", ImageFormat::Raw, None).status.success());
    let left = [".a.img.stor-fedcba9876543210.partial", ".ab.img.stor-0123456789abcdef.partial", "a.img"];
    assert_eq!(share.names(), left);
    share.assert_untouched();
}

/// Root on another host that has the storage: puts a link in place of every file that appears, as fast as it can.
fn plant(share: &Share, stop: &AtomicBool) -> usize {
    let mut planted = 0;
    let new = share.at(".new-link");
    while !stop.load(Ordering::Relaxed) {
        for entry in fs::read_dir(share.at("")).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if name.contains(".stor-") && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                let _ = fs::remove_file(&new);
                let swapped = symlink(share.canary(), &new).and_then(|()| fs::rename(&new, entry.path()));
                planted += usize::from(swapped.is_ok());
            }
        }
    }
    planted
}

#[test]
fn links_planted_in_place_of_an_unfinished_image_lead_nowhere() {
    let share = Share::new();
    let source = share.all.path().join("source");
    fs::write(&source, vec![7; SIZE as usize]).unwrap();
    for fixed in [".a.img.stor-partial", ".a.img.stor-copy"] {
        symlink(share.canary(), share.at(fixed)).unwrap();
    }
    let stop = AtomicBool::new(false);
    let (mut refused, planted) = std::thread::scope(|scope| {
        let planter = scope.spawn(|| plant(&share, &stop));
        let mut refused = Vec::new();
        for round in 0..60 {
            let format = if round % 3 == 0 { ImageFormat::Qcow2 } else { ImageFormat::Raw };
            let output = share.make("a.img", format, (round % 3 == 1).then_some(source.as_path()));
            share.assert_untouched();
            match fs::symlink_metadata(share.at("a.img")) {
                Ok(seen) => {
                    assert!(seen.is_file(), "round {round}: {seen:?}");
                    assert!(seen.uid() == 1234 && seen.mode() == 0o100_600, "round {round}: {seen:?}");
                    fs::remove_file(share.at("a.img")).unwrap();
                }
                Err(_) => assert!(!output.status.success(), "round {round}: {}", said(&output)),
            }
            if !output.status.success() {
                refused.push(said(&output));
            }
        }
        stop.store(true, Ordering::Relaxed);
        (refused, planter.join().unwrap())
    });
    share.assert_untouched();
    assert!(planted > 5, "only {planted} links were planted in time");
    refused.retain(|said| said.contains("was replaced"));
    assert!(refused.len() > 5, "only {} were noticed of {planted}", refused.len());
}
