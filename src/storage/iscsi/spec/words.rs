//! Single words of an iSCSI entry: names of targets, CHAP users, portals, logical volumes.
//!
//! Imports only the building blocks of `spec`.

use std::fmt;
use std::str::FromStr;

use crate::model::AbsPath;
use crate::spec::input::Scalar;
use crate::spec::scalar::{Address, ScalarError};

/// The port of iSCSI (RFC 7143 section 4.2.4).
pub const PORT: u16 = 3260;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Portal {
    /// Address.
    pub address: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Portal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.address, self.port)
    }
}

/// An iSCSI qualified name (RFC 7143 section 4.2.7.5), in lower case: `iqn.2001-04.com.example:kvm`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Iqn(String);

impl Iqn {
    /// The name as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Another name of the same naming authority; `tail` is `[a-z0-9.:-]`.
    #[must_use]
    pub fn sibling(&self, tail: &str) -> String {
        let authority = self.0.split(':').next().unwrap_or_default();
        format!("{authority}:{tail}")
    }
}

impl fmt::Display for Iqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Scalar for Iqn {
    const KIND: &'static str = "IQN";
    const PATTERN: &'static str =
        r"^[iI][qQ][nN]\.[0-9]{4}-(0[1-9]|1[0-2])\.[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:[A-Za-z0-9.:-]+)?$";
}
impl FromStr for Iqn {
    type Err = ScalarError;
    /// The authority has a dot: targetcli takes no other. Upper case is folded, as RFC 3722 has it.
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let lower = text.to_ascii_lowercase();
        let authority = lower.strip_prefix("iqn.").and_then(|rest| {
            let (name, tail) = rest.split_once(':').map_or((rest, None), |(name, tail)| (name, Some(tail)));
            let character = |b: u8| b.is_ascii_alphanumeric() || b".:-".contains(&b);
            let tail_is_fine = tail.is_none_or(|tail| !tail.is_empty() && tail.bytes().all(character));
            name.split_once('.').filter(|_| tail_is_fine && text.len() <= 223)
        });
        let fine = authority.is_some_and(|(date, domain)| {
            let (year, month) = date.split_once('-').unwrap_or_default();
            let digits = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
            let label = |label: &str| {
                let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
            };
            digits(year, 4)
                && digits(month, 2)
                && (1..=12).contains(&month.parse::<u8>().unwrap_or(0))
                && domain.contains('.')
                && domain.split('.').all(label)
        });
        if fine {
            return Ok(Self(lower));
        }
        let expected = "an iSCSI name like iqn.2001-04.com.example:kvm: the year and month in which you had the domain, the \
                        domain backwards, a colon and a name of yours";
        Err(ScalarError::Form { text: text.to_owned(), expected })
    }
}

/// The name that initiators give with CHAP: safe in tgt's configuration, whose words end at blanks and quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChapUser(String);

impl fmt::Display for ChapUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
impl Scalar for ChapUser {
    const KIND: &'static str = "CHAP user";
    const PATTERN: &'static str = "^[A-Za-z0-9][A-Za-z0-9._:@-]{0,62}$";
}
impl FromStr for ChapUser {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"._:@-".contains(&b);
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !first || text.len() > 63 || !text.bytes().all(inner) {
            let expected = "a CHAP user: letters, digits and . _ : @ -, at most 63 characters";
            return Err(ScalarError::Form { text: text.to_owned(), expected });
        }
        Ok(Self(text.to_owned()))
    }
}

impl Scalar for Portal {
    const KIND: &'static str = "portal";
    const PATTERN: &'static str = "^[A-Za-z0-9.-]+(:[0-9]{1,5})?$";
}
impl FromStr for Portal {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let (address, port) = match text.split_once(':') {
            Some((address, port)) => (address, port.parse().ok().filter(|port| *port > 0)),
            None => (text, Some(PORT)),
        };
        let expected = "a portal like 10.0.0.11 or 10.0.0.11:3260";
        let port = port.ok_or_else(|| ScalarError::Form { text: text.to_owned(), expected })?;
        Ok(Self { address: address.parse::<Address>()?.to_string(), port })
    }
}

/// A logical volume, `GROUP/NAME` (lvm(8), "VALID NAMES").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeName {
    /// Its volume group.
    pub group: String,
    /// Its name within the group.
    pub name: String,
    device: AbsPath,
}

impl VolumeName {
    /// The device that it is.
    #[must_use]
    pub fn device(&self) -> &AbsPath {
        &self.device
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.name)
    }
}
impl Scalar for VolumeName {
    const KIND: &'static str = "logical volume";
    const PATTERN: &'static str = "^[A-Za-z0-9_][A-Za-z0-9+_.-]{0,62}/[A-Za-z0-9_][A-Za-z0-9+_.-]{0,62}$";
}
impl FromStr for VolumeName {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let part = |part: &str| {
            let first = part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
            first
                && part.len() <= 63
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"+_.-".contains(&b))
        };
        let both = text.split_once('/').filter(|(group, name)| part(group) && part(name));
        let device = AbsPath::new(format!("/dev/{text}")).ok();
        match (both, device) {
            (Some((group, name)), Some(device)) => {
                Ok(Self { group: group.to_owned(), name: name.to_owned(), device })
            }
            _ => {
                let expected =
                    "a logical volume like vg0/web1: the volume group, a slash and the volume's name";
                Err(ScalarError::Form { text: text.to_owned(), expected })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_the_rfc_has_them() {
        for good in ["iqn.2001-04.com.example", "iqn.2001-04.com.example:kvm", "IQN.2026-01.org.Lb:a:b.c-d"] {
            assert_eq!(good.parse::<Iqn>().unwrap().as_str(), good.to_ascii_lowercase());
        }
        for bad in [
            "",
            "kvm",
            "iqn.2001-4.com.example:a",
            "iqn.2001-13.com.example:a",
            "iqn.2001-00.com.example",
            "eui.02004567a425678d",
            "iqn.2001-04.example:a",
            "iqn.2001-04.com.example:",
            "iqn.2001-04.com.example:a b",
            "iqn.2001-04.com..example:a",
            "iqn.2001-04.-com.example:a",
            "iqn.20o1-04.com.example:a",
            "iqn.2001-04.com.example:ä",
            "iqn.2001-04.com.example:a;b",
            "iqn.+001-04.com.example:a",
        ] {
            assert!(bad.parse::<Iqn>().is_err(), "{bad}");
        }
        assert!(format!("iqn.2001-04.com.example:{}", "a".repeat(200)).parse::<Iqn>().is_err());
        let iqn: Iqn = "iqn.2001-04.com.example:kvm".parse().unwrap();
        assert_eq!(iqn.sibling("stor-lab.web1"), "iqn.2001-04.com.example:stor-lab.web1");
    }

    #[test]
    fn a_portal_has_the_usual_port_unless_it_says_another() {
        assert_eq!("10.0.0.11".parse::<Portal>().unwrap().to_string(), "10.0.0.11:3260");
        assert_eq!("10.0.0.11:3261".parse::<Portal>().unwrap().port, 3261);
        for bad in ["10.0.0.11:", "10.0.0.11:0", "10.0.0.11:65536", "[::1]:3260", ":3260", "*:3260"] {
            assert!(bad.parse::<Portal>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_logical_volume_is_a_group_and_a_name() {
        assert_eq!("vg0/web-1".parse::<VolumeName>().unwrap().device().as_str(), "/dev/vg0/web-1");
        for bad in [
            "", "web1", "/web1", "vg0/", "vg0/a/b", "vg0/-a", "-v/a", "vg0/a b", "vg0/..", "../vda",
            "vg0/a@b",
        ] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad}");
        }
    }
}
