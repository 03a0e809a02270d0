//! Names: parsed once at the edge, so that no identifier ever needs quoting or checking again.
//!
//! A name is ASCII `[a-z0-9][a-z0-9-]*`, at most 63 bytes (one DNS label, RFC 1123 section 2.1, lower case only).

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes: one DNS label (RFC 1035 section 2.3.4).
pub const NAME_MAX: usize = 63;

/// Says why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text has no character.
    #[error("a name cannot be empty")]
    Empty,
    /// The text is longer than [`NAME_MAX`] bytes.
    #[error("name is {len} bytes long, at most {NAME_MAX} are allowed")]
    TooLong {
        /// Length found, in bytes.
        len: usize,
    },
    /// The text holds a character outside `[a-z0-9-]`, or starts with `-`.
    #[error(
        "name {name:?} has {character:?} at position {position}: only a-z, 0-9 and - are allowed, and the first is not -"
    )]
    Character {
        /// The text as given.
        name: String,
        /// The first offending character.
        character: char,
        /// Its position, counted from 1.
        position: usize,
    },
}

/// Identifies one resource of kind `K` by its name in the cluster file.
///
/// The kind only keeps a host's name from being used where a guest's is meant.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id<K>(String, PhantomData<fn() -> K>);

/// Kind of [`HostId`].
#[derive(Debug)]
pub enum HostKind {}
/// Kind of [`StorageId`].
#[derive(Debug)]
pub enum StorageKind {}
/// Kind of [`ImageId`].
#[derive(Debug)]
pub enum ImageKind {}
/// Kind of [`GuestId`].
#[derive(Debug)]
pub enum GuestKind {}
/// Kind of [`ClusterName`].
#[derive(Debug)]
pub enum ClusterKind {}

/// Names a host of the cluster file.
pub type HostId = Id<HostKind>;
/// Names an entry of `storage:`.
pub type StorageId = Id<StorageKind>;
/// Names an entry of `images:`.
pub type ImageId = Id<ImageKind>;
/// Names an entry of `guests:`; it is also the libvirt domain's name.
pub type GuestId = Id<GuestKind>;
/// Names the cluster; everything that stor owns on a host carries it.
pub type ClusterName = Id<ClusterKind>;

impl<K> Id<K> {
    /// Parses a name.
    ///
    /// # Errors
    /// [`NameError`] when the text is empty, too long, or holds a character outside `[a-z0-9-]`.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        check(&text)?;
        Ok(Self(text, PhantomData))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_MAX {
        return Err(NameError::TooLong { len: text.len() });
    }
    let allowed =
        |(index, c): (usize, char)| c.is_ascii_lowercase() || c.is_ascii_digit() || (c == '-' && index > 0);
    match text.chars().enumerate().find(|&at| !allowed(at)) {
        None => Ok(()),
        Some((index, character)) => {
            Err(NameError::Character { name: text.to_owned(), character, position: index + 1 })
        }
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<K> std::hash::Hash for Id<K> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<K> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
impl<K> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
impl<K> AsRef<str> for Id<K> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
impl<K> FromStr for Id<K> {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}
impl<K> TryFrom<String> for Id<K> {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}
impl<K> From<Id<K>> for String {
    fn from(id: Id<K>) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_ascii_digits_and_inner_hyphens_are_names() {
        for good in ["a", "kvm1", "store-1", "0x", "a-"] {
            assert!(HostId::new(good).is_ok(), "{good}");
        }
        for bad in
            ["", "-a", "A", "a b", "a'b", "a;b", "$(x)", "a\nb", "ä", "a_b", "a.b", "а", "\u{202e}a", "a\0"]
        {
            assert!(HostId::new(bad).is_err(), "{bad:?}");
        }
        assert!(HostId::new("a".repeat(64)).is_err());
    }

    #[test]
    fn the_error_points_at_the_first_bad_character() {
        let error = HostId::new("kvm 1").unwrap_err();
        assert_eq!(error, NameError::Character { name: "kvm 1".into(), character: ' ', position: 4 });
    }
}
