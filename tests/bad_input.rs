//! Cluster files that are wrong: each ends in errors that name line and column, and show the lines.
//!
//! One file under `fixtures/bad` per kind of error; the snapshots are what a user sees, without colour, 100 columns wide.

use std::fs;
use std::path::{Path, PathBuf};

use stor::spec::{self, SpecError};

fn bad() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bad")
}

fn render(error: &SpecError) -> String {
    let mut out = String::new();
    miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
        .with_width(100)
        .render_report(&mut out, error)
        .expect("a String takes everything");
    out.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn every_bad_file_is_explained_at_its_place() {
    let mut files: Vec<_> = fs::read_dir(bad()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(files.len() > 80, "only {} files", files.len());
    for path in files {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let error = spec::parse(&fs::read_to_string(&path).unwrap(), &bad(), &format!("{name}.yaml"))
            .expect_err(name);
        assert!(!error.problems().is_empty(), "{name}");
        for problem in error.problems() {
            assert!(problem.line > 0 && problem.column > 0, "{name}: {problem:?}");
            assert!(
                !problem.message.ends_with('.') && !problem.message.contains('\n'),
                "{name}: {problem:?}"
            );
        }
        let shown = render(&error);
        for problem in error.problems() {
            assert!(
                shown.contains(&format!("[{name}.yaml:{}:{}]", problem.line, problem.column)),
                "{name}: {problem:?}\n{shown}"
            );
        }
        insta::assert_snapshot!(name, shown);
    }
}

#[test]
fn a_missing_file_names_the_way_out() {
    let error = spec::load(Path::new("/nowhere/cluster.yaml")).unwrap_err();
    let shown = render(&error);
    assert!(shown.contains("cluster file /nowhere/cluster.yaml: cannot be read"), "{shown}");
    assert!(shown.contains("No such file or directory") && shown.contains("stor init"), "{shown}");
}

#[test]
fn a_file_that_is_no_text_names_line_and_byte() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), b"version: 1\nname: caf\xe9\n").unwrap();
    let error = spec::load(file.path()).unwrap_err();
    assert!(error.to_string().ends_with("not UTF-8 text at line 2, byte 10"), "{error}");
}

#[test]
fn what_is_shown_of_a_file_cannot_steer_the_terminal() {
    let text = "version: 1\nname: \"\u{9b}31m \u{202e}\"\nhosts: {\u{7f}a: {}}\r\n#a\rb\r\n";
    let shown = render(&spec::parse(text, &bad(), "\u{1b}[31mfile").unwrap_err());
    let harmful = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!shown.contains(harmful), "{shown:?}");
}

/// The places where a good file is cut and what is put there.
fn spoil(text: &str, cuts: &[(usize, usize, String)]) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for (at, len, word) in cuts {
        let start = at % (text.len() + 1);
        let end = (start + len).min(text.len());
        text.splice(start..end, word.chars());
    }
    text.into_iter().collect()
}

fn harmless(text: &str) {
    if let Err(error) = spec::parse(text, &bad(), "any.yaml") {
        assert!(!render(&error).is_empty() && !error.problems().is_empty());
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_makes_it_panic(text in proptest::prelude::any::<String>()) {
        harmless(&text);
    }

    #[test]
    fn no_yaml_makes_it_panic(words in proptest::collection::vec(
        proptest::sample::select(vec![
            "version", "name", "hosts", "storage", "gluster", "images", "guests", "boot", ": ", ":", "\n", "\n  ", "\n    ",
            "- ", "{", "}", "[", "]", ", ", "&a ", "*a", "<<", "1", "x", "\"", "'", "|", ">", "~", "#", "---", "? ", "!t ", "é",
        ]),
        0..60,
    )) {
        harmless(&words.concat());
    }

    #[test]
    fn no_spoilt_cluster_makes_it_panic(
        cuts in proptest::collection::vec((0..4000_usize, 0..12_usize, "[ -~\n\té]{0,6}"), 1..4)
    ) {
        harmless(&spoil(include_str!("../fixtures/good/full.yaml"), &cuts));
    }
}
