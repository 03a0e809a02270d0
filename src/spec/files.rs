//! Files that the cluster file names on the machine that runs stor: image sources and domain XML.
//!
//! Imports `model`, `input` and `problem`. Besides the cluster file itself this is all that loading reads.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use super::input::At;
use super::problem::{Problem, Problems};
use super::scalar::LocalFile;
use crate::model::{ByteSize, ImageFormat};

/// Largest domain XML that is read, in bytes.
const DOMAIN_MAX: u64 = 1 << 20;

/// Finds where a file is: `~` is the home directory, a relative path starts at the cluster file.
pub fn locate(
    at: &At<LocalFile>,
    base: &Path,
    subject: impl fmt::Display,
    problems: &mut Problems,
) -> Option<PathBuf> {
    let text = at.value.0.as_str();
    let Some(rest) = text.strip_prefix('~') else { return Some(base.join(tidy(Path::new(text)))) };
    if !(rest.is_empty() || rest.starts_with('/')) {
        problems.add(|| {
            Problem::new(at.place, format!("{subject}: {text:?} is another user's home directory"))
                .hint("write ~/ for your own, or an absolute path")
        });
        return None;
    }
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    if home.is_none() {
        problems
            .add(|| Problem::new(at.place, format!("{subject}: {text:?}: the home directory is unknown")));
    }
    Some(home?.join(rest.trim_start_matches('/')))
}

/// Drops `.` from a path, so that `./a` and `a` print alike.
fn tidy(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// Reads the XML of a guest.
pub fn read_domain(
    path: &Path,
    at: &At<LocalFile>,
    subject: impl fmt::Display,
    problems: &mut Problems,
) -> Option<String> {
    let mut text = String::new();
    let read = open(path).and_then(|file| file.take(DOMAIN_MAX + 1).read_to_string(&mut text));
    let why = match read {
        Err(error) => reason(&error),
        Ok(len) if len as u64 > DOMAIN_MAX => format!("it is longer than {DOMAIN_MAX} bytes"),
        Ok(_) => return Some(text),
    };
    problems.add(|| {
        Problem::new(at.place, format!("{subject}: cannot read {}: {why}", at.value.0))
            .hint("a relative path starts at the directory of the cluster file")
    });
    None
}

/// Checks that a source is there, has the image's format, and fits.
pub fn check_source(
    path: &Path,
    at: &At<LocalFile>,
    format: ImageFormat,
    size: Option<ByteSize>,
    subject: impl fmt::Display,
    problems: &mut Problems,
) {
    let found = match open(path).and_then(|mut file| header(&mut file)) {
        Ok(found) => found,
        Err(error) => {
            problems.add(|| {
                Problem::new(at.place, format!("{subject}: cannot read {}: {}", at.value.0, reason(&error)))
                    .hint("a relative path starts at the directory of the cluster file")
            });
            return;
        }
    };
    let Some((why, hint)) = unfit(&found, format, size) else { return };
    problems.add(|| Problem::new(at.place, format!("{subject}: {} {why}", at.value.0)).hint(hint));
}

/// Opens a regular file; a directory or a pipe is refused before it can block.
fn open(path: &Path) -> io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    File::open(path)
}

/// The system's words for an error, in stor's form.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::InvalidData => "not UTF-8 text".to_owned(),
        _ => error.to_string(),
    }
}

/// What the first bytes of a source say.
#[derive(Debug, PartialEq, Eq)]
enum Header {
    /// No format that stor knows: raw.
    Raw { len: u64 },
    /// QEMU copy-on-write: virtual size, and whether it needs another file below it.
    Qcow2 { size: u64, backed: bool },
}

/// Reads the header of an image (QEMU's `docs/interop/qcow2.txt`: magic, backing file offset at 8, size at 24).
fn header(file: &mut File) -> io::Result<Header> {
    let len = file.metadata()?.len();
    let mut start = Vec::new();
    file.take(32).read_to_end(&mut start)?;
    let number = |at: usize| {
        start
            .get(at..at + 8)
            .map_or(0, |bytes| bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
    };
    if start.len() == 32 && start.starts_with(b"QFI\xfb") {
        return Ok(Header::Qcow2 { size: number(24), backed: number(8) != 0 });
    }
    Ok(Header::Raw { len })
}

/// Says why a source cannot become the image, and what to do.
fn unfit(found: &Header, format: ImageFormat, size: Option<ByteSize>) -> Option<(String, &'static str)> {
    let (needed, holds) = match (found, format) {
        (Header::Raw { .. }, ImageFormat::Qcow2) => {
            return Some((
                "is not a qcow2 image".to_owned(),
                "write format: raw, or convert the file with qemu-img convert",
            ));
        }
        (Header::Qcow2 { .. }, ImageFormat::Raw) => {
            return Some((
                "is a qcow2 image".to_owned(),
                "write format: qcow2, or convert the file with qemu-img convert -O raw",
            ));
        }
        (Header::Qcow2 { backed: true, .. }, _) => {
            return Some((
                "needs a backing file, which the hosts would not have".to_owned(),
                "flatten it: qemu-img convert -O qcow2",
            ));
        }
        (Header::Raw { len }, _) => (*len, "holds"),
        (Header::Qcow2 { size, .. }, _) => (*size, "has a virtual size of"),
    };
    let size = size?.bytes();
    (needed > size)
        .then(|| (format!("{holds} {needed} bytes, the image only {size}"), "raise the image's size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(found: Header, format: ImageFormat, size: u64) -> bool {
        unfit(&found, format, Some(ByteSize::from_bytes(size))).is_none()
    }

    #[test]
    fn a_source_fits_when_format_and_size_do() {
        use ImageFormat::{Qcow2, Raw};
        assert!(fits(Header::Raw { len: 10 }, Raw, 10));
        assert!(!fits(Header::Raw { len: 11 }, Raw, 10));
        assert!(!fits(Header::Raw { len: 1 }, Qcow2, 10));
        assert!(fits(Header::Qcow2 { size: 10, backed: false }, Qcow2, 10));
        assert!(!fits(Header::Qcow2 { size: 11, backed: false }, Qcow2, 10));
        assert!(!fits(Header::Qcow2 { size: 10, backed: true }, Qcow2, 10));
        assert!(!fits(Header::Qcow2 { size: 10, backed: false }, Raw, 10));
    }
}
