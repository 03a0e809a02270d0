//! Absolute paths on a host, safe in every place where stor writes one (shell, unit file, mount option, volume file).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Says why a text is no [`AbsPath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path does not start with `/`.
    #[error("path {path:?} is relative: an absolute path is needed")]
    Relative {
        /// The text as given.
        path: String,
    },
    /// The path holds `..`.
    #[error("path {path:?} contains '..'")]
    Parent {
        /// The text as given.
        path: String,
    },
    /// The path holds a character that stor does not allow in paths.
    #[error("path {path:?} has {character:?}: only A-Z a-z 0-9 / . _ + @ = - are allowed")]
    Character {
        /// The text as given.
        path: String,
        /// The first offending character.
        character: char,
    },
    /// The path is longer than the kernel takes (PATH_MAX, 4096 bytes with the NUL).
    #[error("path is {len} bytes long, at most 4095 are allowed")]
    TooLong {
        /// Length found, in bytes.
        len: usize,
    },
}

/// An absolute path without `..`, `.`, doubled or trailing slashes (`/` alone stays).
///
/// Normalised on construction, so that `/a/` and `/a` are equal and cause no phantom difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AbsPath(String);

impl AbsPath {
    /// Parses and normalises a path.
    ///
    /// # Errors
    /// [`PathError`] when it is relative, holds `..`, an unusual character, or is too long.
    pub fn new(text: impl Into<String>) -> Result<Self, PathError> {
        let path = text.into();
        if path.len() > 4095 {
            return Err(PathError::TooLong { len: path.len() });
        }
        if let Some(character) = path.chars().find(|c| !c.is_ascii_alphanumeric() && !"/._+@=-".contains(*c))
        {
            return Err(PathError::Character { path, character });
        }
        if !path.starts_with('/') {
            return Err(PathError::Relative { path });
        }
        if path.split('/').any(|part| part == "..") {
            return Err(PathError::Parent { path });
        }
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        Ok(Self(format!("/{}", parts.join("/"))))
    }

    /// The file of one of the administrator's systemd units, `/etc/systemd/system/NAME`.
    ///
    /// A unit's name may hold backslashes and colons (systemd-escape(1)), which no other path may; whoever writes this path
    /// into a shell quotes it, as all words.
    ///
    /// # Errors
    /// [`PathError`] when `name` holds a character that the name of a unit may not have.
    pub fn unit_file(name: &str) -> Result<Self, PathError> {
        let path = format!("/etc/systemd/system/{name}");
        match name.chars().find(|c| !c.is_ascii_alphanumeric() && !":_.\\-@".contains(*c)) {
            Some(character) => Err(PathError::Character { path, character }),
            None => Ok(Self(path)),
        }
    }

    /// A link of udev's to a block device, `/dev/disk/KIND/NAME`.
    ///
    /// Such a name may hold colons (`ip-10.0.0.11:3260-iscsi-..`), which no other path may; whoever writes this path into a
    /// shell quotes it, as all words. What else it may not hold is left out of it, so that it leads nowhere.
    #[must_use]
    pub fn device_link(kind: &str, name: &str) -> Self {
        let known = |c: &char| c.is_ascii_alphanumeric() || ":_.-+@=".contains(*c);
        let name: String = name.chars().filter(known).collect();
        Self(format!("/dev/disk/{kind}/{name}"))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Appends one file name.
    ///
    /// # Errors
    /// [`PathError`] when `name` holds a character that paths may not have, or is `..`.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        Self::new(format!("{}/{name}", self.0))
    }

    /// The directory that holds this path; `/` for `/` itself.
    #[must_use]
    pub fn parent(&self) -> Self {
        match self.0.rfind('/') {
            Some(0) | None => Self("/".to_owned()),
            Some(at) => Self(self.0[..at].to_owned()),
        }
    }

    /// The last component; empty for `/`.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or("")
    }

    /// Tells whether `self` is `other` or lies below it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self == other || other.0 == "/" || self.0.starts_with(&format!("{}/", other.0))
    }
}

impl fmt::Display for AbsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
impl FromStr for AbsPath {
    type Err = PathError;
    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::new(text)
    }
}
impl TryFrom<String> for AbsPath {
    type Error = PathError;
    fn try_from(text: String) -> Result<Self, PathError> {
        Self::new(text)
    }
}
impl From<AbsPath> for String {
    fn from(path: AbsPath) -> Self {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_places_are_equal_paths() {
        for text in ["/a/b", "/a/b/", "//a//b", "/a/./b"] {
            assert_eq!(AbsPath::new(text).unwrap().as_str(), "/a/b");
        }
        assert_eq!(AbsPath::new("/").unwrap().as_str(), "/");
    }

    #[test]
    fn relative_parent_and_unusual_paths_are_refused() {
        for text in [
            "", "a", "./a", "/a/../b", "/a b", "/a'b", "/a\"b", "/a;b", "/$(a)", "/a\nb", "/ä", "/a:b",
            "/a,b", "/a%b",
        ] {
            assert!(AbsPath::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_name_of_a_unit_may_hold_what_systemd_escapes_with() {
        let path = AbsPath::unit_file("srv-vm\\x2dstore.mount").unwrap();
        assert_eq!(path.as_str(), "/etc/systemd/system/srv-vm\\x2dstore.mount");
        for bad in ["a/b.mount", "a b.mount", "a;b.mount", "a'b.mount"] {
            assert!(AbsPath::unit_file(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn within_means_below_and_not_just_the_same_beginning() {
        let path = |text| AbsPath::new(text).unwrap();
        assert!(path("/a/b").is_within(&path("/a")) && path("/a").is_within(&path("/a")));
        assert!(!path("/ab").is_within(&path("/a")));
    }
}
