//! Reads what the probe scripts print: one fact per line, first a word that says what it is. Pure.

use std::collections::BTreeMap;

use crate::model::Answer;
use crate::storage::probe::{Identity, MountedDirectory};

/// Why a probe gave no facts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoFacts {
    /// It was killed at its deadline.
    #[error("no answer within {}", humantime::format_duration(super::PROBE_DEADLINE))]
    TimedOut,
    /// The host could not be asked.
    #[error("{0}")]
    Unreachable(String),
    /// It was not asked, because of something that was seen before.
    #[error("not tried: {0}")]
    NotAsked(String),
    /// The directory is not the right mount, so nothing was written or read.
    #[error("not entered: {0}")]
    Refused(String),
    /// The script printed something else, or failed.
    #[error("unexpected answer: {0}")]
    Malformed(String),
}

/// What writing the nonce came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Whether the nonce was written and fsynced; the error text if not.
    pub nonce: Result<(), String>,
    /// Whose the file is that root of this host made: another user's where the storage takes root's rights away.
    pub made_by: Option<String>,
    /// The process that holds the lock, and with which kind of lock; the error text if there is none.
    pub lock: Result<Hold, String>,
}

/// A lock that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The process.
    pub pid: u32,
    /// `fcntl` (F_OFD_SETLK, as QEMU) or `flock`.
    pub kind: String,
}

/// What one host saw of one storage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// Images by file name.
    pub images: BTreeMap<String, ImageSeen>,
    /// Other hosts' probe files: what the first block holds, or the error text.
    pub nonces: BTreeMap<String, String>,
    /// Locks that were tried.
    pub locks: BTreeMap<String, LockTried>,
    /// The host's own probe file as QEMU's user reaches it.
    pub own: Option<OwnSeen>,
}

/// What one host saw of one image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageSeen {
    /// What identifies it; the error text if it could not be looked at.
    pub identity: Option<Result<Identity, String>>,
    /// Owner, group and mode, for people.
    pub owner: String,
    /// What the file system says about a split-brain.
    pub split_brain: Option<String>,
    /// Whether QEMU's user can open and read it.
    pub read: Option<Result<(), String>>,
    /// Whether QEMU's user can open it for writing.
    pub write: Option<Result<(), String>>,
}

/// What became of a lock that another host holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockTried {
    /// `qemu-io` or `flock`.
    pub tool: String,
    /// Its exit status.
    pub status: i32,
    /// What it said.
    pub said: String,
}

/// The answer to a lock request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockAnswer {
    /// Somebody else holds it.
    Refused,
    /// Nobody does.
    Granted,
    /// The tool failed for another reason.
    Unclear,
}

impl LockTried {
    /// What the tool's status and message mean.
    ///
    /// qemu-io says `Failed to lock byte 100` or `Failed to get "write" lock` (QEMU block/file-posix.c); flock exits
    /// with the 75 that the script asked for.
    #[must_use]
    pub fn answer(&self) -> LockAnswer {
        match (self.tool.as_str(), self.status) {
            (_, 0) => LockAnswer::Granted,
            ("flock", 75) => LockAnswer::Refused,
            ("qemu-io", _) if self.said.contains("lock byte") || self.said.contains("\" lock") => {
                LockAnswer::Refused
            }
            _ => LockAnswer::Unclear,
        }
    }
}

/// The host's own probe file as QEMU's user reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnSeen {
    /// Whether root could give the file to QEMU's user.
    pub chown: Result<(), String>,
    /// Whether QEMU's user could write to it.
    pub write: Result<(), String>,
}

/// Splits a line into its first word and the rest.
fn fact(line: &str) -> (&str, &str) {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    (word, rest.trim_end())
}

/// The facts after `entered`.
fn facts(answer: &Answer) -> Result<Vec<(&str, &str)>, NoFacts> {
    let mut lines = answer.stdout.lines().map(fact);
    match (answer.status, lines.next()) {
        (None, _) => Err(NoFacts::TimedOut),
        (_, Some(("refused", why))) => Err(NoFacts::Refused(why.to_owned())),
        (Some(0), Some(("entered", _))) => Ok(lines.collect()),
        (Some(status), _) => Err(NoFacts::Malformed(format!("status {status}: {}", answer.stderr.trim()))),
    }
}

fn yes_or(rest: &str) -> Result<(), String> {
    match fact(rest) {
        ("yes", _) => Ok(()),
        (_, why) => Err(why.to_owned()),
    }
}

/// Reads the answer of [`super::write`].
///
/// # Errors
/// [`NoFacts`]
pub fn written(answer: &Answer) -> Result<Written, NoFacts> {
    let mut written = Written {
        nonce: Err("not tried".to_owned()),
        made_by: None,
        lock: Err("no probe file to lock".to_owned()),
    };
    for (word, rest) in facts(answer)? {
        match word {
            "written" => written.nonce = Ok(()),
            "made-by" => written.made_by = Some(rest.to_owned()),
            "write-failed" => written.nonce = Err(rest.to_owned()),
            "lock-failed" => written.lock = Err(rest.to_owned()),
            "locked" => {
                let (pid, kind) = fact(rest);
                let pid = pid.parse().map_err(|_| NoFacts::Malformed(format!("locked {rest}")))?;
                let kind = if kind.is_empty() { "flock" } else { kind };
                written.lock = Ok(Hold { pid, kind: kind.to_owned() });
            }
            _ => return Err(NoFacts::Malformed(word.to_owned())),
        }
    }
    Ok(written)
}

/// What the following lines are about.
enum About {
    Nothing,
    Image(String),
    Probe(String),
    Own,
}

/// Reads the answer of [`super::read`].
///
/// # Errors
/// [`NoFacts`]
pub fn looked(directory: &MountedDirectory, answer: &Answer) -> Result<Looked, NoFacts> {
    let mut looked = Looked::default();
    let mut about = About::Nothing;
    for (word, rest) in facts(answer)? {
        match (word, &about) {
            ("image", _) => {
                looked.images.insert(rest.to_owned(), ImageSeen::default());
                about = About::Image(rest.to_owned());
            }
            ("probe", _) => about = About::Probe(rest.to_owned()),
            ("own", _) => {
                let untold = || Err("not tried".to_owned());
                looked.own = Some(OwnSeen { chown: untold(), write: untold() });
                about = About::Own;
            }
            ("lock", _) => {
                let (name, tried) = tried(rest)?;
                looked.locks.insert(name, tried);
            }
            ("nonce", About::Probe(name)) => {
                looked.nonces.insert(name.clone(), rest.to_owned());
            }
            (_, About::Image(name)) => {
                image_fact(looked.images.entry(name.clone()).or_default(), directory, word, rest)?;
            }
            ("chown" | "write", About::Own) => {
                if let Some(own) = &mut looked.own {
                    *(if word == "chown" { &mut own.chown } else { &mut own.write }) = yes_or(rest);
                }
            }
            _ => return Err(NoFacts::Malformed(format!("{word} {rest}"))),
        }
    }
    Ok(looked)
}

fn image_fact(
    image: &mut ImageSeen,
    directory: &MountedDirectory,
    word: &str,
    rest: &str,
) -> Result<(), NoFacts> {
    match word {
        "stat" => {
            let malformed = || NoFacts::Malformed(format!("stat {rest}"));
            let mut words = rest.splitn(3, ' ');
            let mut number = || words.next().and_then(|word| word.parse().ok()).ok_or_else(malformed);
            let (inode, size) = (number()?, number()?);
            image.identity = Some(Ok(Identity { inode, id: None, size }));
            image.owner = words.next().unwrap_or_default().to_owned();
        }
        "stat-failed" => image.identity = Some(Err(rest.to_owned())),
        "xattr" => {
            let (name, value) = fact(rest);
            if directory.identity == Some(name)
                && let Some(Ok(identity)) = &mut image.identity
            {
                identity.id = Some(value.to_owned());
            }
            if directory.split_brain == Some(name) {
                image.split_brain = Some(value.to_owned());
            }
        }
        "read" => image.read = Some(yes_or(rest)),
        "write" => image.write = Some(yes_or(rest)),
        _ => return Err(NoFacts::Malformed(format!("{word} {rest}"))),
    }
    Ok(())
}

fn tried(rest: &str) -> Result<(String, LockTried), NoFacts> {
    let malformed = || NoFacts::Malformed(format!("lock {rest}"));
    let mut words = rest.splitn(4, ' ');
    let (name, tool) = (words.next().ok_or_else(malformed)?, words.next().ok_or_else(malformed)?);
    let status = words.next().and_then(|word| word.parse().ok()).ok_or_else(malformed)?;
    let said = words.next().unwrap_or_default().to_owned();
    Ok((name.to_owned(), LockTried { tool: tool.to_owned(), status, said }))
}

/// Reads the answer of [`super::release`]: the locks of other hosts once these let go.
///
/// # Errors
/// [`NoFacts`]
pub fn released(answer: &Answer) -> Result<BTreeMap<String, LockTried>, NoFacts> {
    facts(answer)?
        .into_iter()
        .map(|(word, rest)| match word {
            "lock" => tried(rest),
            _ => Err(NoFacts::Malformed(format!("{word} {rest}"))),
        })
        .collect()
}

/// Reads the answer of [`super::remove`].
///
/// # Errors
/// [`NoFacts`], also when the file could not be removed.
pub fn removed(answer: &Answer) -> Result<(), NoFacts> {
    match facts(answer)?.as_slice() {
        [("removed", _)] => Ok(()),
        other => Err(NoFacts::Malformed(format!("{other:?}"))),
    }
}

#[cfg(test)]
mod tests;
