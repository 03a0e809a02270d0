//! The cluster file: load, parse, resolve; and its JSON Schema.
//!
//! [`Cluster`] is what every later stage works with: names resolved, defaults filled in, rules checked.
//! Imports `model`, `libvirt::domain_xml` (to read the user's own XML) and the backends' `spec.rs` (the YAML shape and local
//! rules of each backend, which import only `model` and the building blocks here). What a backend does with its shape
//! belongs in `storage/`.

mod cluster;
pub mod domain;
mod error;
mod files;
pub mod input;
pub mod problem;
mod raw;
mod reference;
mod resolve;
pub mod scalar;
mod schema;
pub mod secret;
mod shape;
pub mod space;
mod yaml;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use crate::model::{
    Accel, Autostart, Driver, Elevation, GuestShape, HostSpec, KernelBoot, Role, SshSpec,
};
pub use cluster::{Cluster, GuestDefinition, GuestEntry, ImageEntry, MigrationPolicy, OnTimeout};
pub use error::{Invalid, SpecError};
pub use problem::Problem;
pub use reference::reference;
pub use resolve::{Declared, number, some_of};
pub use schema::{schema, schema_of};

/// What `stor init` writes: a commented cluster file that `stor check` accepts.
pub const TEMPLATE: &str = include_str!("template.yaml");

/// The most bytes that a cluster file may have.
pub const FILE_MAX: u64 = 4 << 20;

/// Loads a cluster file.
///
/// Relative paths in it start at its directory.
///
/// # Errors
/// [`SpecError`] when the file cannot be read, or says something that is not a cluster; with all problems found.
pub fn load(path: &Path) -> Result<Cluster, SpecError> {
    let fail = |source| SpecError::Read { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(fail)?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(SpecError::TooLarge { path: path.to_path_buf(), max: FILE_MAX });
    }
    let text = String::from_utf8(bytes).map_err(|error| not_text(path, &error))?;
    let full = std::path::absolute(path).map_err(fail)?;
    let base = full.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
    parse(&text, &base, &path.display().to_string())
}

fn not_text(path: &Path, error: &std::string::FromUtf8Error) -> SpecError {
    let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let line_start = good.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    SpecError::NotText {
        path: path.to_path_buf(),
        line: good.iter().filter(|byte| **byte == b'\n').count() + 1,
        byte: good.len() - line_start + 1,
    }
}

/// Parses and resolves the text of a cluster file; `base` is where relative paths start, `origin` what messages call it.
///
/// Reads the image sources and domain XML that the text names.
///
/// # Errors
/// [`SpecError::Invalid`] with all problems found.
pub fn parse(text: &str, base: &Path, origin: &str) -> Result<Cluster, SpecError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut problems = problem::Problems::default();
    let cluster = yaml::parse(text, &mut problems).and_then(|raw| resolve::resolve(raw, base, &mut problems));
    cluster.ok_or_else(|| {
        let (list, hidden) = problems.into_sorted();
        SpecError::Invalid(Box::new(Invalid::new(origin, text, list, hidden)))
    })
}
