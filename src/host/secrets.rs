//! Reads the secrets that the cluster file refers to, on the machine that runs stor, once and late.
//!
//! Imports `model` and `local`. Errors name the reference and never show what was read: not the value, not a part of it,
//! not what a program printed. Which commands need secrets is decided in `cli`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::{HostError, local};
use crate::model::{Command, Secret, SecretRef, Secrets};

/// Deadline of a program that prints a secret.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(10);
/// The shortest CHAP secret: 96 bits (RFC 7143 section 9.2.1).
const SHORTEST: usize = 12;
/// The longest value that iSCSI's text keys carry (RFC 7143 section 6.1).
const LONGEST: usize = 255;
/// Characters besides letters and digits that pass unharmed through every tool's configuration file.
const SIGNS: &str = "-._~+/=:,@%";

/// Says why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be opened or read.
    #[error("secret: {reference} cannot be read")]
    Read {
        /// The reference.
        reference: SecretRef,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Somebody else may read or change it, or it holds no usable value.
    #[error("secret: {reference} {flaw}")]
    Flaw {
        /// The reference.
        reference: SecretRef,
        /// What is wrong.
        flaw: Flaw,
    },
    /// The program cannot be started.
    #[error("secret: {reference} cannot be run")]
    Run {
        /// The reference.
        reference: SecretRef,
        /// Why.
        #[source]
        source: Box<HostError>,
    },
}

/// What is wrong with a secret or with where it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// A directory, a pipe, a device.
    #[error("is no regular file")]
    NotAFile,
    /// Its owner is neither the user who runs stor nor root.
    #[error("belongs to user {uid}, not to the user who runs stor")]
    Owner {
        /// The owner.
        uid: u32,
    },
    /// Others than its owner may read or write it.
    #[error("may be read or written by others than its owner (mode {mode:04o})")]
    Mode {
        /// The permission bits.
        mode: u32,
    },
    /// The variable is not set.
    #[error("is not set")]
    Unset,
    /// The program ended with a status other than 0.
    #[error("exited {status}")]
    Status {
        /// The status.
        status: i32,
    },
    /// The program did not end in time, or was killed.
    #[error("did not finish within {}", humantime::format_duration(PROGRAM_DEADLINE))]
    Deadline,
    /// Nothing but a line end.
    #[error("holds no value")]
    Empty,
    /// Too few bytes.
    #[error("holds {len} bytes, a CHAP secret has at least {SHORTEST}")]
    Short {
        /// The length.
        len: usize,
    },
    /// Too many bytes.
    #[error("holds more than {LONGEST} bytes")]
    Long,
    /// A control character, a blank, a quote, or what is no ASCII.
    #[error("holds a character that is not allowed, at byte {position}")]
    Character {
        /// Its place, counted from 1.
        position: usize,
    },
}

impl SecretError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let (reference, flaw) = match self {
            Self::Read { .. } => return None,
            Self::Run { .. } => {
                return Some("the program and its arguments are run without a shell".to_owned());
            }
            Self::Flaw { reference, flaw } => (reference, flaw),
        };
        match (flaw, reference) {
            (Flaw::Mode { .. }, SecretRef::File(path)) => Some(format!("chmod 0600 {}", path.display())),
            (Flaw::Owner { .. }, SecretRef::File(path)) => {
                Some(format!("chown it, then chmod 0600 {}", path.display()))
            }
            (Flaw::Empty | Flaw::Short { .. } | Flaw::Long | Flaw::Character { .. }, _) => Some(format!(
                "a CHAP secret has {SHORTEST} to {LONGEST} letters, digits and {SIGNS}: openssl rand -base64 24 makes one"
            )),
            (Flaw::Status { .. } | Flaw::Deadline, _) => {
                Some("run it by hand to see what it says".to_owned())
            }
            _ => None,
        }
    }
}

/// Reads every reference once.
///
/// # Errors
/// All that cannot be used.
pub fn read_all(references: &BTreeSet<&SecretRef>) -> Result<Secrets, Vec<SecretError>> {
    let (mut values, mut errors) = (BTreeMap::new(), Vec::new());
    for reference in references {
        match read(reference) {
            Ok(value) => drop(values.insert((*reference).clone(), value)),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(Secrets::new(values, Uuid::new_v4())) } else { Err(errors) }
}

/// Reads one secret.
///
/// # Errors
/// [`SecretError`]
pub fn read(reference: &SecretRef) -> Result<Secret, SecretError> {
    let flawed = |flaw| SecretError::Flaw { reference: reference.clone(), flaw };
    let bytes = match reference {
        SecretRef::File(path) => {
            let mut bytes = Vec::new();
            let limit = LONGEST as u64 + 3;
            let file = open(path, reference)?;
            file.take(limit)
                .read_to_end(&mut bytes)
                .map_err(|source| SecretError::Read { reference: reference.clone(), source })?;
            bytes
        }
        SecretRef::Env(name) => {
            std::env::var_os(name).map(OsStringExt::into_vec).ok_or_else(|| flawed(Flaw::Unset))?
        }
        SecretRef::Command(words) => {
            // env(1) becomes the program: a command of stor's own knows its program when it is compiled.
            let command = Command::new("env").arg("--").args(words).deadline(PROGRAM_DEADLINE);
            let answer = local::ask(&command)
                .map_err(|source| SecretError::Run { reference: reference.clone(), source: source.into() })?;
            match answer.status {
                Some(0) => answer.stdout.into_bytes(),
                Some(status) => return Err(flawed(Flaw::Status { status })),
                None => return Err(flawed(Flaw::Deadline)),
            }
        }
    };
    accept(bytes).map_err(flawed)
}

/// Checks that a secret's file is there and that nobody but its owner may use it; reads nothing of it.
///
/// # Errors
/// [`SecretError`]
pub fn check_file(path: &Path) -> Result<(), SecretError> {
    let reference = SecretRef::File(path.to_owned());
    let file = open(path, &reference)?;
    let len =
        file.metadata().map_err(|source| SecretError::Read { reference: reference.clone(), source })?.len();
    if len == 0 { Err(SecretError::Flaw { reference, flaw: Flaw::Empty }) } else { Ok(()) }
}

/// Opens a file and judges what was opened, so that nobody can swap it in between. A pipe is not waited for.
fn open(path: &Path, reference: &SecretRef) -> Result<File, SecretError> {
    let failed = |source| SecretError::Read { reference: reference.clone(), source };
    let flawed = |flaw| Err(SecretError::Flaw { reference: reference.clone(), flaw });
    let mut options = File::options();
    let file =
        options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return flawed(Flaw::NotAFile);
    }
    if about.uid() != 0 && about.uid() != nix::unistd::geteuid().as_raw() {
        return flawed(Flaw::Owner { uid: about.uid() });
    }
    // An ACL that lets others in shows as group bits (acl(5), "correspondence between ACL entries and file permission bits").
    if about.mode() & 0o077 != 0 {
        return flawed(Flaw::Mode { mode: about.mode() & 0o7777 });
    }
    Ok(file)
}

/// Takes a value without the line end that editors and programs add.
fn accept(mut bytes: Vec<u8>) -> Result<Secret, Flaw> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || SIGNS.as_bytes().contains(&byte);
    match bytes.len() {
        0 => return Err(Flaw::Empty),
        len if len > LONGEST => return Err(Flaw::Long),
        _ => {}
    }
    if let Some(at) = bytes.iter().position(|byte| !allowed(*byte)) {
        return Err(Flaw::Character { position: at + 1 });
    }
    if bytes.len() < SHORTEST {
        return Err(Flaw::Short { len: bytes.len() });
    }
    Ok(Secret::new(String::from_utf8_lossy(&bytes)))
}

/// Environment variables that no process may inherit which stor starts.
static HIDDEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Keeps the variables that hold secrets from every process that stor starts from now on.
pub fn hide<'a>(references: impl IntoIterator<Item = &'a SecretRef>) {
    let names = references.into_iter().filter_map(|reference| match reference {
        SecretRef::Env(name) => Some(name.clone()),
        SecretRef::File(_) | SecretRef::Command(_) => None,
    });
    HIDDEN.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
}

/// A process to be started, without the variables that [`hide`] named.
pub(super) fn withheld(process: duct::Expression) -> duct::Expression {
    hidden().iter().fold(process, |process, name| process.env_remove(name))
}

/// The variables that [`hide`] named.
pub(super) fn hidden() -> Vec<String> {
    HIDDEN.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

#[cfg(test)]
mod tests;
