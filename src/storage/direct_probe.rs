//! Probes of files that QEMU reaches by URL (`access: direct`): qemu-io on each hypervisor, as QEMU's user.
//!
//! Commands and pure readers. Imports `model` and `storage`. The probe files are made and removed at the server (through
//! libgfapi, or by the server itself), since QEMU's tools can do neither.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::{Answer, Command, Query};
use crate::storage::mount_probe::seen::NoFacts;
use crate::storage::mount_probe::{Actor, PROBE_DEADLINE};
use crate::storage::probe::DirectDirectory;

const SCRIPT: &str = include_str!("direct_probe.sh");
/// What one file may cost on a server that answers, beyond [`PROBE_DEADLINE`].
const PER_FILE: Duration = Duration::from_millis(250);
/// The ports that QEMU's clients connect to first: glusterd; rpcbind, which leads libnfs to nfsd and mountd.
const PORTS: [(&str, &[u16]); 2] = [("gluster", &[24007]), ("nfs", &[111, 2049, 20048])];

/// What one hypervisor saw of one volume, by file name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectSeen {
    /// Its own nonce, if it was to write one.
    pub written: Option<Result<(), String>>,
    /// Sizes of images, in qemu-io's words; the error text where one could not be opened for reading and writing.
    pub sizes: BTreeMap<String, Result<String, String>>,
    /// The start of probe files, or the error text.
    pub nonces: BTreeMap<String, Result<String, String>>,
    /// The server's ports, as `HOST:PORT`; asked only when something could not be opened.
    pub ports: BTreeMap<String, Knock>,
}

/// What became of a connection to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knock {
    /// It was taken.
    Open,
    /// It was refused, by the host or by a firewall.
    Refused,
    /// Nothing came back within a second.
    Silent,
}

impl DirectSeen {
    /// Says which of the server's ports cannot be reached from this host; `None` when all can.
    #[must_use]
    pub fn closed_ports(&self) -> Option<String> {
        let with = |knock: Knock| {
            let ports = self.ports.iter().filter(move |(_, seen)| **seen == knock);
            ports.map(|(port, _)| port.as_str()).collect::<Vec<_>>().join(", ")
        };
        let said = [(with(Knock::Silent), "no answer from"), (with(Knock::Refused), "connection refused by")];
        let said: Vec<String> = said
            .iter()
            .filter(|(ports, _)| !ports.is_empty())
            .map(|(ports, what)| format!("{what} {ports}"))
            .collect();
        (!said.is_empty()).then(|| said.join("; "))
    }

    /// What was said of every file, when no file at all could be opened.
    #[must_use]
    pub fn all_failed(&self) -> Option<Vec<&str>> {
        let sizes = self.sizes.values().map(|size| size.as_ref().err());
        let written = self.written.iter().map(|written| written.as_ref().err());
        let said: Option<Vec<&str>> = sizes.chain(written).map(|said| said.map(String::as_str)).collect();
        said.filter(|said| !said.is_empty())
    }
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
    let own = own.map(|(file, nonce)| (directory.url(file), nonce));
    query(actor, own, 's', images.iter().map(|file| directory.url(file)))
}

/// Opens one file read-only by its URL and reads its start; as root, since the user is part of the URL where it matters.
#[must_use]
pub fn open(url: &str) -> Query {
    query(None, None, 'r', [url.to_owned()])
}

/// Whether the file of [`open`] could be read.
///
/// # Errors
/// Why it could not.
pub fn opened(answer: &Answer) -> Result<(), String> {
    let mut seen = seen(answer).map_err(|why| why.to_string())?;
    let (_, result) = seen.nonces.pop_first().ok_or("no answer")?;
    result.map(drop).map_err(|said| match seen.closed_ports() {
        Some(ports) => format!("{ports} ({said})"),
        None => said,
    })
}

/// Reads the start of probe files.
#[must_use]
pub fn read(directory: &DirectDirectory, actor: Option<&Actor>, files: &[String]) -> Query {
    query(actor, None, 'r', files.iter().map(|file| directory.url(file)))
}

fn query(
    actor: Option<&Actor>,
    own: Option<(String, &str)>,
    mark: char,
    urls: impl IntoIterator<Item = String>,
) -> Query {
    let (user, group) = actor.map_or(("", ""), |actor| (actor.user.as_str(), actor.group.as_str()));
    let (target, nonce) = own.unwrap_or_default();
    let urls: Vec<String> = urls.into_iter().collect();
    let knocks: BTreeSet<String> =
        urls.iter().chain([&target]).flat_map(|url| ports(url)).map(|port| format!("k:{port}")).collect();
    let files = u32::try_from(urls.len()).unwrap_or(u32::MAX);
    let command = Command::new("sh")
        .args(["-c", SCRIPT, "stor-probe-direct", user, group])
        .arg(&target)
        .arg(nonce)
        .args(urls.iter().map(|url| format!("{mark}:{url}")))
        .args(knocks)
        .deadline(PROBE_DEADLINE.saturating_add(PER_FILE.saturating_mul(files)));
    Query::probe(command)
}

/// The ports of a URL's server, as `HOST:PORT`.
fn ports(url: &str) -> Vec<String> {
    let known = url.split_once("://").and_then(|(scheme, rest)| {
        let (_, ports) = PORTS.iter().find(|(known, _)| *known == scheme)?;
        Some((rest.split(['/', ':']).next()?, *ports))
    });
    known.map_or_else(Vec::new, |(host, ports)| ports.iter().map(|port| format!("{host}:{port}")).collect())
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
    let mut silent = false;
    let mut lines = answer.stdout.lines().peekable();
    while let Some(line) = lines.next() {
        let malformed = || NoFacts::Malformed(line.to_owned());
        let mut words = line.split(' ');
        let (what, place) = (words.next().ok_or_else(malformed)?, words.next().ok_or_else(malformed)?);
        match what {
            "missing" => return Err(NoFacts::NotAsked(format!("{place} is not installed"))),
            "k" => {
                let knock = knock(words.next().unwrap_or_default()).ok_or_else(malformed)?;
                seen.ports.insert(place.to_owned(), knock);
                continue;
            }
            _ => {}
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
            (false, true) if silent => Err("not tried: the server had given no answer before".to_owned()),
            (false, true) => {
                silent = true;
                Err("no answer within 3s".to_owned())
            }
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

fn knock(word: &str) -> Option<Knock> {
    match word {
        "open" => Some(Knock::Open),
        "refused" => Some(Knock::Refused),
        "silent" => Some(Knock::Silent),
        _ => None,
    }
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
        assert_eq!(seen.sizes["nope.img"].clone().unwrap_err(), "no answer within 3s");
        assert_eq!(seen.nonces["n"].as_deref(), Ok("0123abcd/gfs/kvm1"));
    }
}
