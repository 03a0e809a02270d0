//! How far a run came, on disk, so that a killed run resumes. One small file per playbook, replaced atomically.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::run::StepReport;
use crate::model::ClusterName;

/// Says why a run cannot be remembered.
#[derive(Debug, thiserror::Error)]
#[error("playbook state {}: cannot be written", path.display())]
pub struct StateError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

/// What a run did so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// The steps that ended well, in order.
    pub done: Vec<StepReport>,
}

/// The directory of a cluster's playbook states, beside its receipts.
#[must_use]
pub fn directory(receipts: &Path) -> PathBuf {
    receipts.parent().unwrap_or(receipts).join("playbooks")
}

/// The file of one playbook; another text is another playbook.
pub(super) fn path(directory: &Path, cluster: &ClusterName, text: &str) -> PathBuf {
    directory.join(format!("{cluster}-{:08x}.json", crc32fast::hash(text.as_bytes())))
}

/// Reads what an earlier run did; a missing or torn file is an earlier run that did nothing.
pub(super) fn read(path: &Path) -> State {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Replaces the file.
pub(super) fn write(path: &Path, state: &State) -> Result<(), StateError> {
    let fail = |source| StateError { path: path.to_path_buf(), source };
    let directory = path.parent().unwrap_or(path);
    std::fs::create_dir_all(directory).map_err(fail)?;
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(fail)?;
    let text = serde_json::to_vec(state).map_err(|error| fail(error.into()))?;
    file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}

/// Forgets a run.
pub(super) fn forget(path: &Path) -> Result<(), StateError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(StateError { path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_remembered_until_it_is_forgotten_and_a_torn_file_is_no_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path(), &ClusterName::new("demo").unwrap(), "text");
        assert!(read(&path).done.is_empty());
        write(&path, &State { done: vec![StepReport::default()] }).unwrap();
        assert_eq!(read(&path).done.len(), 1);
        std::fs::write(&path, "{\"done\":[{").unwrap();
        assert!(read(&path).done.is_empty());
        forget(&path).unwrap();
        forget(&path).unwrap();
    }
}
