//! Secrets: values that travel on stdin only and never show in a log, an error, a plan or an argument list.
//!
//! Also where the cluster file says that a value is kept, and how stor tells later whether it is still the same.
//! Reading a value belongs in `host::secrets`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use uuid::Uuid;

/// A value that must not be seen; its `Debug`, `Display` and JSON forms say `<redacted>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that feeds it to a process's stdin or a libvirt call.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}
impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("<redacted>")
    }
}

/// Where a secret is kept on the machine that runs stor; the cluster file holds this and never the value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretRef {
    /// A file that only its owner may read.
    File(PathBuf),
    /// A variable of stor's environment.
    Env(String),
    /// A program with its arguments that prints it.
    Command(Vec<String>),
}

impl fmt::Display for SecretRef {
    /// Names the reference; of a command only the program, because arguments may say too much.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Command(words) => write!(f, "command {}", words.first().map_or("", String::as_str)),
        }
    }
}

/// Names a secret in libvirt: a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretId(pub Uuid);

impl fmt::Display for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl Serialize for SecretId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The values of the references that were read; empty for a command that needs none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    values: BTreeMap<SecretRef, Secret>,
    salt: Uuid,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Secrets {
    /// Takes the values that were read, and a random salt for stamps that are made from now on.
    #[must_use]
    pub fn new(values: BTreeMap<SecretRef, Secret>, salt: Uuid) -> Self {
        Self { values, salt }
    }

    /// The value behind a reference; `None` when it was not read.
    #[must_use]
    pub fn get(&self, reference: &SecretRef) -> Option<&Secret> {
        self.values.get(reference)
    }

    /// A new stamp of a value.
    #[must_use]
    pub fn stamp(&self, value: &Secret) -> Stamp {
        Stamp { salt: self.salt, digest: digest(self.salt, value) }
    }
}

/// What stor keeps beside a secret that it gave away, to tell later whether the value is still the same.
///
/// A salt and a digest, each a UUID (version 5 is SHA-1, RFC 9562 section 5.5). It is kept as carefully as the value: a
/// short value could be guessed from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    salt: Uuid,
    digest: Uuid,
}

impl Stamp {
    /// Reads what [`Stamp::render`] wrote; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (salt, digest, None) = (words.next()?, words.next()?, words.next()) else { return None };
        Some(Self { salt: salt.parse().ok()?, digest: digest.parse().ok()? })
    }

    /// Tells whether it was made from this value.
    #[must_use]
    pub fn fits(&self, value: &Secret) -> bool {
        self.digest == digest(self.salt, value)
    }

    /// The text of its file.
    #[must_use]
    pub fn render(&self) -> Secret {
        Secret::new(format!("{} {}\n", self.salt, self.digest))
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

fn digest(salt: Uuid, value: &Secret) -> Uuid {
    Uuid::new_v5(&salt, value.reveal().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_fits_its_value_alone_and_shows_neither() {
        let (value, other) = (Secret::new("canary-canary"), Secret::new("canary-canarz"));
        let secrets = Secrets::new(BTreeMap::new(), Uuid::from_u128(7));
        let stamp = secrets.stamp(&value);
        let read = Stamp::parse(stamp.render().reveal()).unwrap();
        assert!(read.fits(&value) && !read.fits(&other));
        assert!(!stamp.render().reveal().contains("canary"));
        assert_eq!(format!("{stamp:?} {:?}", stamp.render()), "<redacted> <redacted>");
        assert_eq!(Stamp::parse("torn"), None);
    }

    #[test]
    fn a_command_is_named_without_its_arguments() {
        let words = ["pass", "show", "san/web"].map(str::to_owned).to_vec();
        assert_eq!(SecretRef::Command(words).to_string(), "command pass");
    }

    #[test]
    fn no_form_of_a_secret_shows_it() {
        let secret = Secret::new("canary");
        let json = serde_json::to_string(&secret).unwrap();
        assert!(
            ![format!("{secret}"), format!("{secret:?}"), json].iter().any(|text| text.contains("canary"))
        );
    }
}
