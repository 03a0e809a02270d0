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
