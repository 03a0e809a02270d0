//! What a hypervisor shows of its trust files, and how it differs from what it should be. Pure; imports `spec`, `model`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::files::{self, Paths};
use crate::model::{AbsPath, Answer, BlockLine, Command, FileMode, Observations, Query, Unknown};
use crate::spec::{Cluster, HostSpec};

/// Above this many hypervisors only digests are asked for: N files of N lines would be more than one round may bring.
const WHOLE_UP_TO: usize = 64;
/// Characters of each key that a short line shows: 72 bits.
const TAIL: usize = 12;

/// How much of the files is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Everything; lines of hosts that were not observed can be kept.
    Whole,
    /// A checksum of the host keys, and the end of each key: changes wait until all hypervisors answer.
    Short,
}

impl Style {
    pub fn of(cluster: &Cluster) -> Self {
        match cluster.peers().nth(WHOLE_UP_TO) {
            None => Self::Whole,
            Some(_) => Self::Short,
        }
    }
}

/// What one hypervisor showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen<'a> {
    /// Its public key, if the pair is complete.
    pub key: Option<String>,
    /// Its host key, type and base64.
    pub host_key: Option<String>,
    modes: BTreeMap<String, u32>,
    checksums: &'a str,
    known_hosts: Option<&'a str>,
    block: &'a Answer,
}

fn cat(path: &AbsPath) -> Query {
    Query::new(Command::new("cat").arg(path.as_str()))
}

fn checksums(paths: &Paths, style: Style) -> Query {
    let known_hosts = (style == Style::Short).then_some(&paths.known_hosts);
    let all = [&paths.wrapper, &paths.config].into_iter().chain(known_hosts);
    Query::new(Command::new("cksum").args(all.map(AbsPath::as_str)))
}

/// The host's own keys, and the one that stor has made there; the latter is told by its comment.
fn public_keys(paths: &Paths) -> Query {
    let keys = ["ed25519", "ecdsa", "rsa"].map(|kind| format!("/etc/ssh/ssh_host_{kind}_key.pub"));
    Query::new(Command::new("cat").args(keys).arg(paths.public.as_str()))
}

fn modes(paths: &Paths) -> Query {
    let all = [&paths.directory, &paths.key, &paths.wrapper, &paths.config, &paths.known_hosts];
    let all = all.into_iter().chain([&paths.ssh_directory]).map(|path| path.to_string());
    Query::new(Command::new("stat").args(["--format=%a %n", "--"]).args(all))
}

/// Prints the marked block; in short form only the end of each key whose options are the expected ones.
fn block(cluster: &Cluster, paths: &Paths, style: Style) -> Query {
    let mark = |word: &str| format!("/^# {word} stor {}$/", cluster.name);
    let range = format!("{},{}", mark("BEGIN"), mark("END"));
    let sed = Command::new("sed").args(["-n", "-e"]);
    let sed = match style {
        Style::Whole => sed.arg(format!("{range}p")),
        Style::Short => {
            let command = files::COMMAND.replace('/', r"\/");
            let line = format!(
                r#"s/^restrict,\(from="[^"]*",\)\{{0,1\}}command="{command}" {} [^ ]*\([^ ]\{{{TAIL}\}}\)$/\2/"#,
                files::KEY_TYPE
            );
            sed.arg(format!("{range}{{{line};p}}"))
        }
    };
    Query::new(sed.arg(paths.authorized.as_str()))
}

/// Everything that [`read`] wants answered.
pub(super) fn queries(cluster: &Cluster, paths: &Paths) -> Vec<Query> {
    let style = Style::of(cluster);
    let mut queries =
        vec![public_keys(paths), modes(paths), checksums(paths, style), block(cluster, paths, style)];
    queries.extend((style == Style::Whole).then(|| cat(&paths.known_hosts)));
    queries
}

/// Reads what `host` answered.
pub(super) fn read<'a>(
    seen: &'a Observations,
    cluster: &Cluster,
    host: &HostSpec,
    paths: &Paths,
    style: Style,
) -> Result<Seen<'a>, Unknown> {
    let answer = |query: &Query| seen.answer(&host.id, query);
    let modes: BTreeMap<String, u32> = answer(&modes(paths))?
        .stdout
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(mode, path)| Some((path.to_owned(), u32::from_str_radix(mode, 8).ok()?)))
        .collect();
    let keys = &answer(&public_keys(paths))?.stdout;
    let public = files::public_key(keys, &files::comment(&cluster.name, &host.id));
    let known_hosts = match style {
        Style::Whole => Some(answer(&cat(&paths.known_hosts))?.stdout.as_str()),
        Style::Short => None,
    };
    Ok(Seen {
        key: public.filter(|_| modes.contains_key(paths.key.as_str())),
        host_key: files::host_key(keys),
        modes,
        checksums: &answer(&checksums(paths, style))?.stdout,
        known_hosts,
        block: answer(&block(cluster, paths, style))?,
    })
}

impl Seen<'_> {
    /// Tells whether a path that [`modes`] asks for exists.
    pub fn exists(&self, path: &AbsPath) -> bool {
        self.modes.contains_key(path.as_str())
    }

    /// Permission bits of such a path.
    pub fn mode(&self, path: &AbsPath) -> Option<u32> {
        self.modes.get(path.as_str()).copied()
    }

    /// The same for people.
    pub fn shown_mode(&self, path: &AbsPath) -> String {
        self.mode(path).map_or_else(|| "absent".to_owned(), |mode| format!("mode {mode:o}"))
    }

    /// Says how a file differs from `text` and `mode`; `None` when it does not.
    pub fn difference(&self, path: &AbsPath, text: &Text, mode: FileMode) -> Option<String> {
        if !self.exists(path) {
            return Some("absent".to_owned());
        }
        let same = self.checksums.lines().any(|line| line == text.checksum);
        match (same, self.mode(path) == Some(mode.0)) {
            (true, true) => None,
            (true, false) => Some(self.shown_mode(path)),
            (false, _) => Some("different".to_owned()),
        }
    }

    /// The same for the host keys, which are read whole where they are few.
    pub fn known_hosts_difference(&self, path: &AbsPath, text: &Text, mode: FileMode) -> Option<String> {
        match self.known_hosts {
            Some(observed) if self.exists(path) && *observed != *text.content => Some("different".to_owned()),
            Some(_) if self.mode(path) == Some(mode.0) => None,
            Some(_) => Some(self.shown_mode(path)),
            None => self.difference(path, text, mode),
        }
    }

    /// The lines of the host keys, if they were read.
    pub fn known_hosts_lines(&self) -> Vec<String> {
        self.known_hosts.into_iter().flat_map(str::lines).map(str::to_owned).collect()
    }

    /// Tells whether root has an `authorized_keys` file.
    pub fn has_authorized_keys(&self) -> bool {
        self.block.ok() || !self.block.stderr.trim_end().ends_with("No such file or directory")
    }

    /// The lines between the marks.
    pub fn block_lines(&self) -> Vec<String> {
        let marked = |line: &&str| is_begin(line) || is_end(line);
        self.block.stdout.lines().filter(|line| !marked(line)).map(str::to_owned).collect()
    }

    /// Says how the block differs from `lines`; `None` when it does not.
    ///
    /// # Errors
    /// Says why the block cannot be edited safely.
    pub fn block_difference(&self, lines: &Lines) -> Result<Option<String>, String> {
        if !self.has_authorized_keys() {
            return Ok(Some("absent".to_owned()));
        }
        if !self.block.ok() {
            return Err(self.block.stderr.trim().to_owned());
        }
        let observed: Vec<&str> = self.block.stdout.lines().collect();
        let [begin, inner @ .., end] = observed.as_slice() else { return Ok(Some("absent".to_owned())) };
        if !is_begin(begin) || !is_end(end) || inner.iter().any(|line| is_begin(line) || is_end(line)) {
            return Err("the marks of stor's block do not form one pair".to_owned());
        }
        let same = inner.len() == lines.shown.len()
            && lines.shown.iter().zip(inner).all(|(shown, observed)| shown.as_deref() == Some(*observed));
        Ok((!same).then(|| format!("{} keys, not these", inner.len())))
    }
}

fn is_begin(line: &str) -> bool {
    line.starts_with("# BEGIN stor ")
}

fn is_end(line: &str) -> bool {
    line.starts_with("# END stor ")
}

/// A file's text, and what `cksum` prints of it.
pub(super) struct Text {
    pub content: Arc<str>,
    checksum: String,
}

impl Text {
    /// The text of the file at `path`.
    pub fn new(path: &AbsPath, content: String) -> Self {
        Self { checksum: checksum(path, &content), content: content.into() }
    }
}

/// The block's lines, and what its query prints for each; `None` for a key that is not known yet.
pub(super) struct Lines {
    pub content: Arc<[BlockLine]>,
    shown: Vec<Option<String>>,
}

impl Lines {
    /// Lines that are read in this style.
    pub fn new(lines: Vec<BlockLine>, style: Style) -> Self {
        Self { shown: lines.iter().map(|line| shown(line, style)).collect(), content: lines.into() }
    }
}

fn shown(line: &BlockLine, style: Style) -> Option<String> {
    match (line, style) {
        (BlockLine::Text(text), _) => Some(text.clone()),
        (BlockLine::Key(key), Style::Whole) => Some(format!("{} {}", key.options, key.known.as_ref()?)),
        (BlockLine::Key(key), Style::Short) => {
            let base64 = key.known.as_ref()?.split(' ').nth(1)?;
            base64.get(base64.len().checked_sub(TAIL)?..).map(str::to_owned)
        }
    }
}

/// The line that `cksum` prints for a file of this content (POSIX.1-2024, XCU cksum).
fn checksum(path: &AbsPath, text: &str) -> String {
    let mut crc = 0u32;
    let mut feed = |byte: u8| {
        crc ^= u32::from(byte) << 24;
        for _ in 0..8 {
            crc = (crc << 1) ^ if crc & 0x8000_0000 == 0 { 0 } else { 0x04c1_1db7 };
        }
    };
    text.bytes().for_each(&mut feed);
    let mut length = text.len();
    while length > 0 {
        feed(u8::try_from(length & 0xff).unwrap_or(0));
        length >>= 8;
    }
    format!("{} {} {path}", !crc, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_cksum() {
        // GNU coreutils 9.1: printf 'hello\n' > /tmp/ck; cksum /tmp/ck
        let path = AbsPath::new("/tmp/ck").unwrap();
        assert_eq!(checksum(&path, "hello\n"), "3015617425 6 /tmp/ck");
    }
}
