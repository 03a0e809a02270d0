//! Who may import whom (docs/ARCHITECTURE.md), where processes start, and how long a file may be: read off the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// The levels, highest first; a module imports its own level and those below.
const LEVELS: [&[&str]; 12] = [
    &["cli"],
    &["playbook"],
    &["lab"],
    &["migrate"],
    &["apply"],
    &["verify", "execute", "observe", "status"],
    &["plan"],
    &["writers"],
    &["storage", "guard"],
    &["spec"],
    &["libvirt", "host"],
    &["error", "model"],
];

fn sources() -> Vec<(PathBuf, String)> {
    files_of("src")
}

/// The Rust files of a directory of the project, with paths below it.
fn files_of(directory: &str) -> Vec<(PathBuf, String)> {
    fn walk(directory: &Path, into: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                into.push((path, text));
            }
        }
    }
    let mut all = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    walk(&root, &mut all);
    all.iter().map(|(path, text)| (path.strip_prefix(&root).unwrap().to_owned(), text.clone())).collect()
}

fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests") || path.iter().any(|part| part == "tests")
}

/// The code of a file without its unit tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
}

fn level(module: &str) -> Option<usize> {
    LEVELS.iter().position(|names| names.contains(&module))
}

/// The level of a file; a backend's shape in the cluster file belongs to `spec`.
fn level_of(path: &Path) -> Option<usize> {
    let module = path.iter().next()?.to_str()?.trim_end_matches(".rs");
    let shape = module == "storage" && path.file_name().is_some_and(|name| name == "spec.rs");
    level(if shape { "spec" } else { module })
}

#[test]
fn every_module_has_a_level() {
    let lib = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).unwrap();
    for line in lib.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let module = line.trim_end_matches(';');
        assert!(level(module).is_some(), "module {module} has no level");
    }
}

#[test]
fn imports_go_downwards() {
    let mut wrong = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| !is_test(path)) {
        let Some(own) = level_of(path) else { continue };
        for line in code(text).lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (at, _) in line.match_indices("crate::") {
                let rest = &line[at + 7..];
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                let shape = rest.starts_with("storage::spec") || rest.starts_with("storage::gluster::spec");
                let target = if shape { level("spec") } else { level(&rest[..end]) };
                // The cluster file may name a user's domain XML, which libvirt's reader reads.
                if target.is_some_and(|target| target < own) {
                    wrong.push(format!("{}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "upward imports:\n{}", wrong.join("\n"));
}

#[test]
fn processes_start_in_few_places_only() {
    let allowed = ["host", "lab/process.rs", "libvirt/lazy"];
    for (path, text) in sources().iter().filter(|(path, _)| !is_test(path)) {
        let name = path.to_str().unwrap();
        let starts = ["process::Command::new", "duct::cmd"].iter().any(|word| code(text).contains(word));
        assert!(!starts || allowed.iter().any(|prefix| name.starts_with(prefix)), "{name} starts a process");
    }
}

#[test]
fn files_stay_under_500_lines() {
    for (path, text) in ["src", "tests", "benches"].into_iter().flat_map(files_of) {
        assert!(text.lines().count() <= 500, "{} has {} lines", path.display(), text.lines().count());
    }
}
