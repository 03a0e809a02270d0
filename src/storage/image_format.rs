//! What format an image has, by its first bytes: a query and a pure reader, without a parser that the image's owner could attack.

use std::fmt;

use crate::model::{Answer, Command, ImageFormat, Query};

/// Prints the first bytes of an image and, where a format is given, what lies below it, as the image's owner where root may read nothing
/// (`root_squash`): `sh -c SHOW stor-image FORMAT PATH`.
pub const SHOW: &str = include_str!("image_format.sh");

/// What images begin with that are not raw (`block/*.c` in QEMU, `fileTypeInfo` in libvirt): offset, bytes, format. LUKS is not among
/// them: a guest that encrypts its whole disk writes that there.
const SIGNATURES: [(usize, &[u8], &str); 12] = [
    (0, b"QFI\xfb\0\0\0\x01", "qcow"),
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"conectix", "vpc"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (64, b"\xbe\xda\x10\x7f", "vdi"),
];

/// What the first bytes of an image are a sign of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature(Option<&'static str>);

impl Signature {
    /// Reads the first 72 bytes, or as many as there are.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let begins =
            |(at, sign, _): &&(usize, &[u8], _)| bytes.get(*at..).is_some_and(|b| b.starts_with(sign));
        Self(SIGNATURES.iter().find(begins).map(|(_, _, format)| *format))
    }

    /// Reads bytes as od(1) prints them (`od -A n -t x1 -v`).
    ///
    /// # Errors
    /// When the text is something else.
    pub fn read(text: &str) -> Result<Self, String> {
        let byte = |word: &str| u8::from_str_radix(word, 16).map_err(|_| format!("`od` printed {word:?}"));
        let bytes: Result<Vec<u8>, String> = text.split_whitespace().map(byte).collect();
        bytes.map(|bytes| Self::of(&bytes))
    }

    /// Whether an image of this format (as libvirt and QEMU name it) may begin so; of formats without a known sign any beginning may.
    #[must_use]
    pub fn is_of(self, format: &str) -> bool {
        match self.0 {
            Some(seen) => seen == format,
            // A VHD of fixed size has its mark at its end only.
            None => format == "vpc" || !SIGNATURES.iter().any(|(_, _, known)| *known == format),
        }
    }

    /// Whether an image of the cluster file may begin so.
    #[must_use]
    pub fn fits(self, format: ImageFormat) -> bool {
        self.is_of(&format.to_string())
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.unwrap_or("raw"))
    }
}

/// Asks for the first bytes of a file.
#[must_use]
pub fn first_bytes(path: &str) -> Query {
    Query::new(Command::new("od").args(["-A", "n", "-t", "x1", "-v", "-N", "72", "--", path]))
}

/// Reads the answer to [`first_bytes`].
///
/// # Errors
/// Why the file could not be read.
pub fn signature(answer: &Answer) -> Result<Signature, String> {
    if answer.ok() { Signature::read(&answer.stdout) } else { Err(answer.stderr.trim().to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_formats_and_a_guests_own_luks_is_its_data() {
        let vdi = [&[b' '; 64][..], b"\x7f\x10\xda\xbe"].concat();
        let table: [(&[u8], &str); 8] = [
            (b"QFI\xfb\0\0\0\x03", "qcow2"),
            (b"QFI\xfb\0\0\0\x01", "qcow"),
            (b"QED\0", "qed"),
            (b"KDMV", "vmdk"),
            (&vdi, "vdi"),
            (b"LUKS\xba\xbe\0\x02", "raw"),
            (b"\xeb\x63\x90", "raw"),
            (b"", "raw"),
        ];
        for (bytes, format) in table {
            assert_eq!(Signature::of(bytes).to_string(), format, "{bytes:?}");
            assert!(Signature::of(bytes).is_of(format));
        }
        assert_eq!(Signature::read(" 51 46 49 fb\n 00 00\n").unwrap().to_string(), "qcow2");
        assert!(Signature::read("51 zz").is_err());
        let (raw, qcow2) = (Signature::of(b""), Signature::of(b"QFI\xfb"));
        assert!(!raw.fits(ImageFormat::Qcow2) && !qcow2.fits(ImageFormat::Raw) && raw.is_of("dmg"));
        assert!(raw.is_of("vpc"));
    }
}
