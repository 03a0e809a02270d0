//! Sizes in bytes and rates in bytes per second, always written with a unit.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Binary units, largest first (IEC 80000-13).
const BINARY: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
/// Decimal units (SI).
const DECIMAL: [(&str, u64); 4] =
    [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
/// Bits per second as network links are sold.
const BITS: [(&str, u64); 3] = [("Gbit", 125_000_000), ("Mbit", 125_000), ("kbit", 125)];

/// Says why a text is no size or rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// A number without a unit.
    #[error("{text:?} has no unit: write {text}MiB or {text}GiB")]
    NoUnit {
        /// The text as given.
        text: String,
    },
    /// Not a whole number followed by a known unit.
    #[error("{text:?} is not {expected}")]
    Malformed {
        /// The text as given.
        text: String,
        /// What was expected, with an example.
        expected: &'static str,
    },
    /// Zero, or more than 2^63 bytes.
    #[error("{text:?} is out of range")]
    Range {
        /// The text as given.
        text: String,
    },
}

/// A size in bytes, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(u64);

/// A rate in bytes per second, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(u64);

impl ByteSize {
    /// Makes a size from a number of bytes that a tool reported.
    #[must_use]
    pub fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }
    /// The size in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
    /// The size in KiB, rounded up: libvirt's unit for guest memory.
    #[must_use]
    pub fn kib(self) -> u64 {
        self.0.div_ceil(1024)
    }
}

impl Rate {
    /// Makes a rate from a number of bytes per second that was measured.
    #[must_use]
    pub fn from_bytes_per_second(bytes: u64) -> Self {
        Self(bytes)
    }
    /// The rate in bytes per second.
    #[must_use]
    pub fn bytes_per_second(self) -> u64 {
        self.0
    }
    /// The rate in MiB/s, rounded up to at least 1: libvirt's unit for migration bandwidth.
    #[must_use]
    pub fn mib_per_second(self) -> u64 {
        self.0.div_ceil(1 << 20).max(1)
    }
}

fn parse(text: &str, units: &[(&str, u64)], expected: &'static str) -> Result<u64, SizeError> {
    let malformed = || SizeError::Malformed { text: text.to_owned(), expected };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim_start_matches(' '));
    if number.is_empty() {
        return Err(malformed());
    }
    if unit.is_empty() {
        return Err(SizeError::NoUnit { text: text.to_owned() });
    }
    let factor =
        units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor).ok_or_else(malformed)?;
    let range = || SizeError::Range { text: text.to_owned() };
    let value = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(range)?;
    if value == 0 || value > i64::MAX as u64 { Err(range()) } else { Ok(value) }
}

fn show(value: u64, f: &mut fmt::Formatter<'_>, suffix: &str) -> fmt::Result {
    match BINARY.iter().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor)) {
        Some((unit, factor)) => f.pad(&format!("{}{unit}{suffix}", value / factor)),
        None => f.pad(&format!("{value}B{suffix}")),
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let units: Vec<_> = BINARY.iter().chain(&DECIMAL).copied().chain([("B", 1)]).collect();
        parse(text, &units, "a size like 512MiB or 20GiB").map(Self)
    }
}
impl FromStr for Rate {
    type Err = SizeError;
    fn from_str(text: &str) -> Result<Self, SizeError> {
        const EXPECTED: &str = "a rate like 100MiB/s or 1Gbit/s";
        let Some(amount) = text.strip_suffix("/s") else {
            return Err(SizeError::Malformed { text: text.to_owned(), expected: EXPECTED });
        };
        let units: Vec<_> = BINARY.iter().chain(&DECIMAL).chain(&BITS).copied().chain([("B", 1)]).collect();
        parse(amount, &units, EXPECTED).map(Self)
    }
}
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0, f, "")
    }
}
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0, f, "/s")
    }
}
impl TryFrom<String> for ByteSize {
    type Error = SizeError;
    fn try_from(text: String) -> Result<Self, SizeError> {
        text.parse()
    }
}
impl TryFrom<String> for Rate {
    type Error = SizeError;
    fn try_from(text: String) -> Result<Self, SizeError> {
        text.parse()
    }
}
impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}
impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_unit_and_keep_their_value() {
        for (text, bytes) in [("1GiB", 1 << 30), ("192MiB", 192 << 20), ("10GB", 10_000_000_000), ("7B", 7)] {
            assert_eq!(text.parse::<ByteSize>().unwrap().bytes(), bytes);
        }
        assert!(matches!("20".parse::<ByteSize>(), Err(SizeError::NoUnit { .. })));
        for bad in ["", "GiB", "1.5GiB", "-1GiB", "0MiB", "1gib", "99999999TiB", "1GiB/s", "1 Gi B"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_print_in_the_largest_exact_unit() {
        for text in ["1GiB", "192MiB", "1025KiB", "7B"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn rates_end_in_per_second_and_may_be_in_bits() {
        assert_eq!("1Gbit/s".parse::<Rate>().unwrap().bytes_per_second(), 125_000_000);
        assert_eq!("1MiB/s".parse::<Rate>().unwrap().mib_per_second(), 1);
        assert!("1GiB".parse::<Rate>().is_err());
    }
}
