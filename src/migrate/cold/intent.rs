//! What a cold move is about to do, noted on the machine that runs stor before the first change and forgotten at the end.
//!
//! A later run learns from it what the hosts no longer show: that the guest ran before, that it had autostart, and that the
//! second definition is stor's own. Imports `model`. One small file per guest, replaced atomically.

use std::fs::{DirBuilder, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::{GuestId, HostId};

/// Says why a note could not be kept, read or forgotten.
#[derive(Debug, thiserror::Error)]
#[error("the note {} about a cold move cannot be {verb}", path.display())]
pub struct IntentError {
    /// The file.
    pub path: PathBuf,
    /// What was tried.
    pub verb: &'static str,
    /// Why it failed.
    #[source]
    pub source: std::io::Error,
}

/// A cold move that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// UUID of the guest.
    pub uuid: String,
    /// Where it was.
    pub from: HostId,
    /// Where it goes.
    pub to: HostId,
    /// Whether it ran, and is to run again.
    pub ran: bool,
    /// Whether it had autostart, and is to have it again.
    pub autostart: bool,
}

impl Intent {
    /// Whether it is about these two hosts, in either direction.
    #[must_use]
    pub fn is_between(&self, a: &HostId, b: &HostId) -> bool {
        (&self.from, &self.to) == (a, b) || (&self.from, &self.to) == (b, a)
    }
}

/// The directory of a cluster's notes, beside its receipts.
#[must_use]
pub fn directory(receipts: &Path) -> PathBuf {
    receipts.parent().unwrap_or(receipts).join("moves")
}

fn path(directory: &Path, guest: &GuestId) -> PathBuf {
    directory.join(format!("{guest}.json"))
}

/// The note about a guest; `None` when no move of it was begun, or it is about another guest of the same name.
///
/// # Errors
/// [`IntentError`] when there is one that cannot be read.
pub fn read(directory: &Path, guest: &GuestId, uuid: &str) -> Result<Option<Intent>, IntentError> {
    let path = path(directory, guest);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(IntentError { path, verb: "read", source }),
    };
    let intent: Intent = serde_json::from_slice(&text).map_err(|error| IntentError {
        path,
        verb: "read",
        source: error.into(),
    })?;
    Ok((intent.uuid == uuid).then_some(intent))
}

/// Keeps a note, mode 0600; it is on disk when this returns.
///
/// # Errors
/// [`IntentError`]; an older note is then intact.
pub fn write(directory: &Path, guest: &GuestId, intent: &Intent) -> Result<(), IntentError> {
    let path = path(directory, guest);
    let fail = |source| IntentError { path: path.clone(), verb: "written", source };
    let text = serde_json::to_vec(intent).map_err(|error| fail(error.into()))?;
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(fail)?;
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(fail)?;
    file.as_file().set_permissions(Permissions::from_mode(0o600)).map_err(fail)?;
    file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(fail)?;
    file.persist(&path).map_err(|error| fail(error.error))?;
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(fail)
}

/// Forgets a note; nothing to do when there is none.
///
/// # Errors
/// [`IntentError`]
pub fn forget(directory: &Path, guest: &GuestId) -> Result<(), IntentError> {
    let path = path(directory, guest);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(IntentError { path, verb: "forgotten", source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_kept_until_it_is_forgotten_and_a_torn_one_is_no_answer() {
        let directory = tempfile::tempdir().unwrap();
        let (dir, guest) = (directory.path().join("moves"), GuestId::new("web1").unwrap());
        let host = |name| HostId::new(name).unwrap();
        assert_eq!(read(&dir, &guest, "a").unwrap(), None);
        let (from, to) = (host("kvm1"), host("kvm2"));
        let intent = Intent { uuid: "a".to_owned(), from, to, ran: true, autostart: false };
        write(&dir, &guest, &intent).unwrap();
        assert_eq!(read(&dir, &guest, "a").unwrap(), Some(intent.clone()));
        assert_eq!(read(&dir, &guest, "b").unwrap(), None, "another guest of this name");
        assert!(
            intent.is_between(&host("kvm2"), &host("kvm1"))
                && !intent.is_between(&host("kvm1"), &host("kvm3"))
        );
        std::fs::write(path(&dir, &guest), "{\"uuid\":").unwrap();
        assert!(read(&dir, &guest, "a").is_err());
        forget(&dir, &guest).unwrap();
        forget(&dir, &guest).unwrap();
    }
}
