//! Receipts: one JSON file per migration that was begun, kept on the machine that ran stor.
//!
//! Imports `model`. What a receipt holds is [`Outcome`]; here is only where it goes and that it is never half written.

use std::fs::{DirBuilder, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::outcome::Outcome;
use crate::model::ClusterName;

/// Says why a receipt was not written.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// A file or directory could not be written.
    #[error("cannot write a receipt below {}", directory.display())]
    Write {
        /// The directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The outcome could not be put into JSON.
    #[error("cannot write a receipt as JSON")]
    Json(#[source] serde_json::Error),
}

#[derive(Serialize)]
struct Receipt<'a> {
    version: u32,
    cluster: &'a ClusterName,
    exit_code: u8,
    migration: &'a Outcome,
}

/// The directory of a cluster's receipts: `$XDG_STATE_HOME/stor/CLUSTER/receipts` (XDG Base Directory Specification);
/// a state directory that is unset or relative means `~/.local/state`, and without a home `/var/lib/stor/state`.
#[must_use]
pub fn directory(state_home: Option<PathBuf>, home: Option<PathBuf>, cluster: &ClusterName) -> PathBuf {
    let state = state_home.filter(|path| path.is_absolute());
    let state =
        state.or_else(|| home.filter(|path| path.is_absolute()).map(|home| home.join(".local/state")));
    let base = state.map_or_else(|| PathBuf::from("/var/lib/stor/state"), |state| state.join("stor"));
    base.join(cluster.as_str()).join("receipts")
}

/// Writes a receipt, mode 0600, under a name that says when and what; never over another one.
///
/// # Errors
/// [`ReceiptError`]; no half file stays behind.
pub fn write(
    directory: &Path,
    cluster: &ClusterName,
    started: SystemTime,
    outcome: &Outcome,
) -> Result<PathBuf, ReceiptError> {
    let receipt = Receipt { version: 1, cluster, exit_code: outcome.exit_code(), migration: outcome };
    let mut text = serde_json::to_string_pretty(&receipt).map_err(ReceiptError::Json)?;
    text.push('\n');
    let from = outcome.from.as_ref().map_or("nowhere", |host| host.as_str());
    let stem = format!("{}-{}-{from}-{}", stamp(started), outcome.guest, outcome.to);
    store(directory, &stem, &text)
        .map_err(|source| ReceiptError::Write { directory: directory.to_owned(), source })
}

/// UTC time with milliseconds, without the colons that some file systems refuse.
fn stamp(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string().replace(':', "-")
}

fn store(directory: &Path, stem: &str, text: &str) -> std::io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.as_file().set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    let path = directory.join(format!("{stem}.json"));
    file.persist_noclobber(&path).map_err(|error| error.error)?;
    std::fs::File::open(directory)?.sync_all()?;
    Ok(path)
}
