//! Probes of files that QEMU reaches by URL (`access: direct`): qemu-io on each hypervisor, as QEMU's user.
//!
//! Commands and pure readers. Imports `model` and `storage`. The probe files are made and removed at the server (through
//! libgfapi, or by the server itself), since QEMU's tools can do neither.

use std::collections::BTreeMap;

use crate::model::{Answer, Command, Query};
use crate::storage::mount_probe::seen::NoFacts;
use crate::storage::mount_probe::{Actor, PROBE_DEADLINE};
use crate::storage::probe::DirectDirectory;

const SCRIPT: &str = include_str!("direct_probe.sh");

/// What one hypervisor saw of one volume, by file name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectSeen {
    /// Its own nonce, if it was to write one.
    pub written: Option<Result<(), String>>,
    /// Sizes of images, in qemu-io's words; the error text where one could not be opened for reading and writing.
    pub sizes: BTreeMap<String, Result<String, String>>,
    /// The start of probe files, or the error text.
    pub nonces: BTreeMap<String, Result<String, String>>,
}

impl DirectDirectory {
    /// QEMU's URL of a file (qemu-block-drivers(7)).
    fn url(&self, file: &str) -> String {
        format!("{}{file}{}", self.before, self.after)
    }
}

/// Opens images, and writes a nonce into the host's own probe file if `own` names both.
#[must_use]
pub fn write(
    directory: &DirectDirectory,
    actor: Option<&Actor>,
    own: Option<(&str, &str)>,
    images: &[String],
) -> Query {
    let (target, nonce) = own.map_or((String::new(), ""), |(file, nonce)| (directory.url(file), nonce));
    query(actor, target, nonce)
        .map(|command| command.args(images.iter().map(|file| format!("s:{}", directory.url(file)))))
}

/// Opens one file read-only by its URL and reads its start; as root, since the user is part of the URL where it matters.
#[must_use]
pub fn open(url: &str) -> Query {
    query(None, String::new(), "").map(|command| command.arg(format!("r:{url}")))
}

/// Whether the file of [`open`] could be read.
///
/// # Errors
/// Why it could not.
pub fn opened(answer: &Answer) -> Result<(), String> {
    let seen = seen(answer).map_err(|why| why.to_string())?;
    let (_, result) = seen.nonces.into_iter().next().ok_or("no answer")?;
    result.map(drop)
}

/// Reads the start of probe files.
#[must_use]
pub fn read(directory: &DirectDirectory, actor: Option<&Actor>, files: &[String]) -> Query {
    query(actor, String::new(), "")
        .map(|command| command.args(files.iter().map(|file| format!("r:{}", directory.url(file)))))
}

/// A command still to be completed.
struct Script(Command);

impl Script {
    fn map(self, complete: impl FnOnce(Command) -> Command) -> Query {
        Query::probe(complete(self.0))
    }
}

fn query(actor: Option<&Actor>, target: String, nonce: &str) -> Script {
    let (user, group) = actor.map_or(("", ""), |actor| (actor.user.as_str(), actor.group.as_str()));
    Script(
        Command::new("sh")
            .args(["-c", SCRIPT, "stor-probe-direct", user, group])
            .arg(target)
            .arg(nonce)
            .deadline(PROBE_DEADLINE),
    )
}

/// Reads what the script printed.
///
/// # Errors
/// [`NoFacts`]
pub fn seen(answer: &Answer) -> Result<DirectSeen, NoFacts> {
    if answer.status.is_none() {
        return Err(NoFacts::TimedOut);
    }
    let mut seen = DirectSeen::default();
    let mut lines = answer.stdout.lines().peekable();
    while let Some(line) = lines.next() {
        let malformed = || NoFacts::Malformed(line.to_owned());
        let mut words = line.split(' ');
        let (what, place) = (words.next().ok_or_else(malformed)?, words.next().ok_or_else(malformed)?);
        if what == "missing" {
            return Err(NoFacts::NotAsked(format!("{place} is not installed")));
        }
        let mut said = Vec::new();
        while let Some(text) = lines.next_if(|line| line.starts_with("| ")) {
            said.push(&text[2..]);
        }
        let shown = |text: &str| said.iter().any(|line| line.contains(text));
        let ok = match what {
            "write" => shown("wrote 4096/4096"),
            "r" => shown("read 192/192"),
            _ => !said.is_empty() && !shown("can't open"),
        };
        let result = match (ok, said.is_empty()) {
            (true, _) => Ok(()),
            (false, true) => Err("QEMU's client could not open it within 3s".to_owned()),
            (false, false) => Err(said.join(" ")),
        };
        let file =
            place.split('?').next().and_then(|path| path.rsplit('/').next()).unwrap_or(place).to_owned();
        match what {
            "write" => seen.written = Some(result),
            "s" => {
                seen.sizes.insert(file, result.map(|()| said.join(" ")));
            }
            "r" => {
                seen.nonces.insert(file, result.map(|()| dumped(&said)));
            }
            _ => return Err(malformed()),
        }
    }
    Ok(seen)
}

/// The text behind a hex dump of qemu-io: `00000010:  61 62 ..  ab`.
fn dumped(lines: &[&str]) -> String {
    let bytes = lines.iter().filter_map(|line| line.split_once(":  ")).flat_map(|(_, rest)| {
        rest.split(' ').map_while(|word| (word.len() == 2).then(|| u8::from_str_radix(word, 16).ok())?)
    });
    String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).trim_end_matches([' ', '\n', '\0']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_nonces_and_failures_are_read() {
        let text = include_str!("../../fixtures/outputs/probe-direct/debian13-qemu10.0-glusterfs11.1.txt");
        let answer = Answer { status: Some(0), stdout: text.to_owned(), stderr: String::new() };
        let seen = seen(&answer).unwrap();
        assert_eq!(seen.written, Some(Ok(())));
        assert_eq!(seen.sizes["web1.img"].as_deref(), Ok("1 GiB"));
        assert!(seen.sizes["nope.img"].clone().unwrap_err().contains("could not open"));
        assert_eq!(seen.nonces["n"].as_deref(), Ok("0123abcd/gfs/kvm1"));
    }
}
