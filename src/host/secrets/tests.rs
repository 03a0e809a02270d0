//! Every kind of reference, good and bad; no error may show what was read.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::*;
use crate::model::chain;

const CANARY: &str = "canary-4711-canary";

fn file(directory: &tempfile::TempDir, content: &str, mode: u32) -> SecretRef {
    let path: PathBuf = directory.path().join("chap");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    SecretRef::File(path)
}

fn program(words: &[&str]) -> SecretRef {
    SecretRef::Command(words.iter().map(|word| (*word).to_owned()).collect())
}

fn flaw(reference: &SecretRef) -> Flaw {
    match read(reference).unwrap_err() {
        SecretError::Flaw { flaw, .. } => flaw,
        other => panic!("{other}"),
    }
}

#[test]
fn a_secret_is_read_from_a_file_or_a_program_without_its_line_end() {
    let directory = tempfile::tempdir().unwrap();
    for text in [CANARY.to_owned(), format!("{CANARY}\n"), format!("{CANARY}\r\n")] {
        let kept = file(&directory, &text, 0o600);
        assert_eq!(read(&kept).unwrap(), Secret::new(CANARY));
    }
    assert_eq!(read(&program(&["echo", CANARY])).unwrap(), Secret::new(CANARY));
}

#[test]
fn a_file_that_others_may_read_is_refused_before_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    for mode in [0o640, 0o604, 0o660, 0o666, 0o620, 0o610] {
        let kept = file(&directory, CANARY, mode);
        assert_eq!(flaw(&kept), Flaw::Mode { mode }, "{mode:o}");
        let SecretRef::File(path) = &kept else { panic!() };
        assert!(check_file(path).is_err(), "{mode:o}");
    }
    let kept = file(&directory, CANARY, 0o400);
    let SecretRef::File(path) = &kept else { panic!() };
    assert!(check_file(path).is_ok() && read(&kept).is_ok());
    assert_eq!(flaw(&SecretRef::File(directory.path().to_owned())), Flaw::NotAFile);
    assert!(matches!(read(&SecretRef::File("/does/not/exist".into())), Err(SecretError::Read { .. })));
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert_eq!(flaw(&SecretRef::File(path)), Flaw::NotAFile);
}

#[test]
fn a_value_that_is_no_chap_secret_is_refused_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let long = "x".repeat(256);
    let table = [
        ("", Flaw::Empty),
        ("\n", Flaw::Empty),
        ("canary-4711", Flaw::Short { len: 11 }),
        (&long, Flaw::Long),
        ("canary-4711\ncanary", Flaw::Character { position: 12 }),
        ("canary-4711 canary", Flaw::Character { position: 12 }),
        ("canary-4711\u{1}canary", Flaw::Character { position: 12 }),
        ("canary-4711'canary", Flaw::Character { position: 12 }),
        ("canary-4711-ä", Flaw::Character { position: 13 }),
    ];
    for (text, expected) in table {
        let kept = file(&directory, text, 0o600);
        let error = read(&kept).unwrap_err();
        assert!(!chain(&error).contains("canary") && !format!("{error:?}").contains("canary"), "{error}");
        assert!(error.hint().unwrap().contains("openssl"));
        assert_eq!(flaw(&kept), expected, "{text:?}");
    }
}

#[test]
fn a_program_that_fails_or_hangs_is_named_without_what_it_printed() {
    let failing = program(&["sh", "-c", "echo canary-out; echo canary-err >&2; exit 3"]);
    let error = read(&failing).unwrap_err();
    assert_eq!(error.to_string(), "secret: command sh exited 3");
    assert!(!format!("{} {:?}", chain(&error), error.hint()).contains("canary"));
    assert_eq!(flaw(&program(&["/does/not/exist"])), Flaw::Status { status: 127 });
}

#[test]
fn a_variable_that_is_not_set_is_refused_and_one_that_is_stays_out_of_other_processes() {
    let missing = SecretRef::Env("STOR_TEST_NO_SUCH_VARIABLE".to_owned());
    assert_eq!(flaw(&missing), Flaw::Unset);
    // cargo sets it, and nothing here reads it.
    let name = "CARGO_PKG_DESCRIPTION";
    assert!(std::env::var_os(name).is_some());
    hide([&SecretRef::Env(name.to_owned())]);
    let out = local::ask(&Command::new("printenv").arg(name)).unwrap();
    assert_eq!((out.status, out.stdout.as_str()), (Some(1), ""));
}
