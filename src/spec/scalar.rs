//! What single words of the cluster file mean: names, sizes, addresses, durations.
//!
//! Imports `model`. Each type parses itself (`FromStr`) and carries the pattern that the JSON Schema shows.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use super::input::Scalar;
use crate::model::{AbsPath, ByteSize, Rate, id};

impl<K> Scalar for id::Id<K> {
    const KIND: &'static str = "name";
    const PATTERN: &'static str = "^[a-z0-9][a-z0-9-]{0,62}$";
}
impl Scalar for ByteSize {
    const KIND: &'static str = "size";
    const PATTERN: &'static str = "^[0-9]{1,18} *(TiB|GiB|MiB|KiB|TB|GB|MB|kB|B)$";
}
impl Scalar for AbsPath {
    const KIND: &'static str = "absolute path";
    const PATTERN: &'static str = "^/[A-Za-z0-9/._+@=-]*$";
}

/// Says why a word is not what its key needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScalarError {
    /// The word has the wrong form.
    #[error("{text:?} is not {expected}")]
    Form {
        /// The word as given.
        text: String,
        /// What was expected, with an example.
        expected: &'static str,
    },
    /// The word is an IPv6 address.
    #[error("{text:?} is an IPv6 address: give a DNS name that resolves to it")]
    Ipv6 {
        /// The word as given.
        text: String,
    },
    /// The address belongs to no single host.
    #[error("{text:?} is no address of a host")]
    NoHost {
        /// The word as given.
        text: String,
    },
    /// The option is not the user's to set.
    #[error("option {text:?} is managed by stor")]
    Reserved {
        /// The word as given.
        text: String,
    },
    /// The path is one that [`AbsPath`] refuses.
    #[error(transparent)]
    Path(#[from] crate::model::path::PathError),
    /// The name is one that [`id::Id`] refuses.
    #[error(transparent)]
    Name(#[from] id::NameError),
    /// The rate is one that [`Rate`] refuses.
    #[error(transparent)]
    Rate(#[from] crate::model::size::SizeError),
}

fn form(text: &str, expected: &'static str) -> ScalarError {
    ScalarError::Form { text: text.to_owned(), expected }
}

/// An IPv4 address or a DNS name (RFC 1123 section 2.1), kept in lower case.
///
/// IPv6 addresses are refused: gluster, mount options and migration URIs each write them differently. A DNS name serves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(String);

impl Scalar for Address {
    const KIND: &'static str = "address";
    const PATTERN: &'static str =
        r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$";
}
impl FromStr for Address {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        const EXPECTED: &str = "an IPv4 address or a DNS name like 10.0.0.5 or kvm1.example.org";
        if text.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok() {
            return Err(ScalarError::Ipv6 { text: text.to_owned() });
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            let nobody = ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast();
            return if nobody {
                Err(ScalarError::NoHost { text: text.to_owned() })
            } else {
                Ok(Self(ip.to_string()))
            };
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let last_is_number =
            text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if text.len() > 253 || last_is_number || !text.split('.').all(label) {
            return Err(form(text, EXPECTED));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A login name: what `useradd(8)` allows, and the `.` and `@` of directory services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login(pub String);

impl Scalar for Login {
    const KIND: &'static str = "login name";
    const PATTERN: &'static str = "^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,255}$";
}
impl FromStr for Login {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"_.@-".contains(&b);
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !first || text.len() > 256 || !text.bytes().all(inner) {
            return Err(form(text, "a login name like root or admin"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A file on the machine that runs stor: `~` is the home directory, a relative path starts at the cluster file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFile(pub String);

impl Scalar for LocalFile {
    const KIND: &'static str = "file";
    const PATTERN: &'static str = r#"^[^\u0000-\u001f\u007f"%$]+$"#;
}
impl FromStr for LocalFile {
    type Err = ScalarError;
    /// Refuses what `ssh_config(5)` would expand or end a word at.
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        if text.is_empty() || text.len() > 4095 || text.chars().any(|c| c.is_control() || "\"%$".contains(c))
        {
            return Err(form(text, "a file name without quotes, '%', '$' and control characters"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The name of a network interface, as in `IFNAMSIZ` (at most 15 bytes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface(pub String);

impl Scalar for Interface {
    const KIND: &'static str = "interface name";
    const PATTERN: &'static str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$";
}
impl FromStr for Interface {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !first
            || text.len() > 15
            || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        {
            return Err(form(text, "an interface name like br0, at most 15 characters"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A unicast MAC address, kept in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub String);

impl Scalar for Mac {
    const KIND: &'static str = "MAC address";
    const PATTERN: &'static str = "^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$";
}
impl FromStr for Mac {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let bytes: Option<Vec<u8>> = text
            .split(':')
            .map(|part| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten())
            .collect();
        match bytes.as_deref() {
            Some([first, _, _, _, _, _]) if first & 1 == 0 && !text.contains('+') => {
                Ok(Self(text.to_ascii_lowercase()))
            }
            _ => Err(form(text, "a unicast MAC address like 52:54:00:12:34:56")),
        }
    }
}

/// A kernel command line: one line of printable text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelLine(pub String);

impl Scalar for KernelLine {
    const KIND: &'static str = "text";
    const PATTERN: &'static str = "^[ -~]{0,2047}$";
}
impl FromStr for KernelLine {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        if text.len() > 2047 || text.bytes().any(|b| !(b' '..=b'~').contains(&b)) {
            return Err(form(text, "one line of printable ASCII, at most 2047 characters"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A rate, or `none` for as fast as the link allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth(pub Option<Rate>);

impl Scalar for Bandwidth {
    const KIND: &'static str = "rate";
    const PATTERN: &'static str = "^(none|[0-9]{1,18} *(TiB|GiB|MiB|KiB|TB|GB|MB|kB|B|Gbit|Mbit|kbit)/s)$";
}
impl FromStr for Bandwidth {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        if text == "none" { Ok(Self(None)) } else { Ok(Self(Some(text.parse()?))) }
    }
}

/// A length of time with a unit, in the words of the `humantime` crate: `300ms`, `90s`, `10m`, `1h 30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Scalar for Span {
    const KIND: &'static str = "duration";
    const PATTERN: &'static str = "^[0-9]{1,9} *(ms|s|m|h|d)( *[0-9]{1,9} *(ms|s|m|h|d))*$";
}
impl FromStr for Span {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        // 0 needs no unit in humantime; here every length of time has one.
        let unit = text.bytes().any(|b| b.is_ascii_alphabetic());
        humantime::parse_duration(text)
            .ok()
            .filter(|_| unit)
            .map(Self)
            .ok_or_else(|| form(text, "a length of time like 300ms, 90s or 10m"))
    }
}
