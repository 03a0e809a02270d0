//! One batch of commands as one shell script on `sh -s`, and its reply. Pure: text out, bytes in.
//!
//! This is the only shell program that stor sends. What stands in it and why:
//! - The whole script is one `{ }` group: a connection that breaks while it is sent leaves a syntax error, which runs
//!   nothing, instead of half of it.
//! - All commands run at once (at most [`AT_ONCE`]), each under `timeout`, into a private directory; then statuses
//!   and lengths are sent first and the bytes after, so that any byte may occur in an output.
//! - A command in uninterruptible sleep outlives SIGKILL and with it `timeout`: a watchdog interrupts the wait, and the
//!   command counts as killed.
//! - No command holds the connection or the lock: their outputs are files, and the lock's descriptors are closed for them.
//! - Standard input is written by the shell's own `printf`, so a secret is in no argument list and in no file.

use std::fmt::Write as _;
use std::io::{BufRead, Read};
use std::time::Duration;

use super::{quote, virsh};
use crate::model::Driver;

/// Commands of one batch that run at once.
const AT_ONCE: usize = 16;
/// Time between SIGTERM and SIGKILL at a deadline.
const KILL_AFTER: Duration = Duration::from_secs(1);
/// The longest output that a reply may announce, in bytes.
pub(super) const OUTPUT_MAX: u64 = 64 << 20;
/// What a login shell may print before a reply, in bytes.
const NOISE_MAX: usize = 1 << 20;
/// Introduces a reply; what a login shell printed before is noise.
pub(super) const BEGIN: &str = "%stor-begin 1";

/// One command of a batch.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Standard input without NUL bytes; `None` is `/dev/null`.
    pub stdin: Option<Vec<u8>>,
    /// Time after which it is killed.
    pub deadline: Duration,
    /// How errors call it.
    pub words: String,
}

/// How one command of a batch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    /// Exit status; `None` when it was killed.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// What the script runs besides its commands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Frame<'a> {
    /// Queries: outputs are limited.
    Queries,
    /// Queries under a lock that is held until standard input ends.
    Locked(&'a Lock),
    /// One command that changes something, under the lock if one is held.
    Effect(Option<&'a Lock>),
}

/// A lock on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lock {
    /// Its file, which holds `holder` while the lock is held.
    pub file: String,
    /// What a second comer is told, in one line; differs between any two runs of stor.
    pub holder: String,
    /// For a lock that others may hold as well, the file beside it that this stor alone holds, with `holder` in it.
    pub note: Option<String>,
}

/// What the script answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// All commands ended or were killed; in the order of the batch.
    Ended(Vec<Ended>),
    /// The lock is held by somebody else, who says this.
    Busy(String),
    /// The lock that this stor held is gone.
    Lost,
    /// The shell does not run as root.
    NotRoot,
    /// The script could not do its own part: no room for its files, no `flock`.
    Failed(String),
}

/// Says why a reply cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplyError {
    /// The reply ended early: the connection broke.
    #[error("the answer ended early")]
    Short(#[source] std::io::Error),
    /// The script began and said nothing more: the connection broke, or the shell gave up.
    #[error("the script ended without an answer")]
    Silent,
    /// The reply is not one.
    #[error("{0}")]
    Malformed(String),
}

/// The longest time that the script itself allows the batch.
pub(super) fn time_limit(jobs: &[Job]) -> Duration {
    let longest = jobs.iter().map(|job| job.deadline).max().unwrap_or_default();
    let rounds = u32::try_from(jobs.len().div_ceil(AT_ONCE)).unwrap_or(u32::MAX);
    (longest + KILL_AFTER).saturating_mul(rounds) + KILL_AFTER
}

/// Writes the script. On a hypervisor every virsh is given the URI of its driver's daemon: a host's own default
/// (`VIRSH_DEFAULT_CONNECT_URI`, `uri_default` in libvirt.conf) may lead to another one, which knows none of the guests.
pub(super) fn script(jobs: &[Job], frame: Frame<'_>, driver: Option<Driver>) -> Vec<u8> {
    let mut out = Vec::from(PREPARE.replace("BEGIN", BEGIN));
    match frame {
        Frame::Locked(lock) => out.extend(take(lock).bytes()),
        Frame::Effect(Some(lock)) => out.extend(guard(lock).bytes()),
        Frame::Queries | Frame::Effect(None) => {}
    }
    if jobs.is_empty() {
        out.extend(b"printf 'ok 0\\n'\n");
    } else {
        if !matches!(frame, Frame::Effect(_)) {
            out.extend(b"ulimit -f 32768\n");
        }
        out.extend(COLLECT.replace("LIMIT", &time_limit(jobs).as_secs().to_string()).bytes());
        for (index, job) in jobs.iter().enumerate() {
            if let Some(ready) = index.checked_sub(AT_ONCE) {
                out.extend(format!("collect {ready} \"$p{ready}\"\n").bytes());
            }
            start(&mut out, index, job, driver);
        }
        for index in jobs.len().saturating_sub(AT_ONCE)..jobs.len() {
            out.extend(format!("collect {index} \"$p{index}\"\n").bytes());
        }
        out.extend(ANSWER.replace("COUNT", &jobs.len().to_string()).bytes());
    }
    if let Frame::Locked(lock) = frame {
        let forget = if lock.note.is_some() { "rm -f -- NOTE\n" } else { "" };
        out.extend(with_lock(&HOLD.replace("FORGET", forget), lock).bytes());
    }
    out.extend(b"}\n");
    out
}

/// `[ -O /proc ]` asks without a process whether the effective user is root. The `printf` must be the first output.
const PREPARE: &str = r#"{
printf '\n%s\n' 'BEGIN'
[ -O /proc ] || { printf 'not-root\n'; exit 0; }
export LC_ALL=C PATH="${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
unset VIRSH_DEFAULT_CONNECT_URI VIRSH_DEBUG VIRSH_LOG_FILE LIBVIRT_DEBUG LIBVIRT_LOG_FILTERS LIBVIRT_LOG_OUTPUTS
umask 022
cd /
"#;

/// The lines by which an effect makes sure that the lock is still held by its own stor, which may have slept too long,
/// and keeps the next stor waiting until it has ended, should its own be killed meanwhile.
pub(super) fn guard(lock: &Lock) -> String {
    with_lock(if lock.note.is_some() { GUARD_SHARED } else { GUARD }, lock)
}

fn take(lock: &Lock) -> String {
    with_lock(&format!("{OPEN}{}{SETTLE}", if lock.note.is_some() { SHARE } else { LOCK }), lock)
}

fn with_lock(text: &str, lock: &Lock) -> String {
    let text = match &lock.note {
        Some(note) => text.replace("NOTE", &quote::word(note)),
        None => text.to_owned(),
    };
    text.replace("FILE", &quote::word(&lock.file)).replace("HOLDER", &quote::word(&lock.holder))
}

/// Who may open the lock's file may hold the lock, so only root may: flock(2) needs no right to write.
///
/// `refused` tells the second comer who holds it: those that share it, each by a note that it holds for itself, else the one that wrote
/// `FILE`. flock(1) exits 1 when the lock is held; any other status means that it could not try.
const OPEN: &str = r#"umask 077
mkdir -p /run/stor && chmod 0700 /run/stor && exec 9>>FILE && chmod 0600 FILE || exit 0
refused() {
[ "$1" -eq 1 ] || { printf 'failed\nflock exited %s\n' "$1"; exit 0; }
b=
for n in FILE.shared.*; do
[ -f "$n" ] && ! flock -s -n "$n" true || continue
t=; read -r t 2>/dev/null <"$n"
case "; $b; " in *"; $t; "*) ;; *) b="${b:+$b; }$t" ;; esac
done
printf 'busy\n'
if [ -n "$b" ]; then printf '%s\n' "$b"; else head -c 400 FILE; fi
exit 0
}
"#;

/// Nobody shares the lock now, so notes are left from those that were killed.
const LOCK: &str = r#"flock -n 9 || refused $?
printf '%s\n' HOLDER >FILE
rm -f -- FILE.shared.*
"#;

/// Another stor that looks for holders may have the note locked for a moment.
const SHARE: &str = r#"exec 7>>NOTE && flock -w 5 7 || exit 0
printf '%s\n' HOLDER >NOTE
flock -s -n 9 || { s=$?; rm -f -- NOTE; exec 7>&-; refused $s; }
[ -f NOTE ] || { printf 'failed\nthe note of the lock was removed\n'; exit 0; }
"#;

/// What an earlier stor left running holds `FILE.busy` shared.
const SETTLE: &str = r#"flock -w 10 FILE.busy true || { printf 'busy\na command that an earlier stor left running\n'; exit 0; }
umask 022
"#;

/// Asks for a shared lock: it is given unless one stor alone holds the lock, so also when others share it by now, who leave `FILE` as it was;
/// and two that ask at once do not take each other for the holder.
const GUARD: &str = r#"exec 8>>FILE.busy && flock -s 8 || exit 0
h=; read -r h 2>/dev/null <FILE
if [ "$h" != HOLDER ] || flock -s -n FILE true; then printf 'lost\n'; exit 0; fi
"#;

const GUARD_SHARED: &str = r#"exec 8>>FILE.busy && flock -s 8 || exit 0
if [ ! -f NOTE ] || flock -s -n NOTE true; then printf 'lost\n'; exit 0; fi
"#;

/// `collect` waits for one command. After the watchdog's signal `wait` returns at once with a status above 128; the
/// `timeout` is then killed itself, and its files, which may still grow, are left out.
const COLLECT: &str = r#"umask 077
d=$(mktemp -d /run/stor-XXXXXXXXXX 2>/dev/null || mktemp -d /tmp/stor-XXXXXXXXXX) || { printf 'failed\nno temporary directory\n'; exit 0; }
umask 022
trap 'rm -rf "$d"' EXIT
trap 'exit 1' HUP INT TERM PIPE
late= s= f=
trap 'late=1' USR1
collect() {
[ -z "$late" ] || kill -9 "$2" 2>/dev/null
wait "$2"; r=$?
if [ -n "$late" ] && [ "$r" -gt 128 ]; then
kill -9 "$2" 2>/dev/null; wait "$2" 2>/dev/null
s="$s 137" f="$f /dev/null /dev/null"
else
s="$s $r" f="$f $d/$1o $d/$1e"
fi
}
( trap 'kill "$k"; exit' TERM; sleep LIMIT & k=$!; wait "$k"; kill -USR1 "$$" ) </dev/null >/dev/null 2>&1 7>&- 8>&- 9>&- &
w=$!
"#;

const ANSWER: &str = r#"kill "$w" 2>/dev/null
printf 'ok %s\n%s\n' COUNT "$s"
wc -c $f
cat $f
rm -rf "$d"
"#;

/// Ends with the connection, with stor, or when stor's sign of life, one byte every [`SIGN_OF_LIFE`], stays away: a link
/// that went silent must not keep the lock until TCP gives up (2 hours, tcp(7)). `exit`, because a shell that comes to the end of the
/// group waits for more on a standard input that a stopped stor keeps open, and the lock with it.
const HOLD: &str = "exec >/dev/null 2>&1\nwhile [ -n \"$(timeout 90 head -c 1 7>&- 8>&- 9>&-)\" ]; do :; done\nFORGETexit 0\n";

/// Time between two signs of life of a held lock.
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

fn start(out: &mut Vec<u8>, index: usize, job: &Job, driver: Option<Driver>) {
    let input = match &job.stdin {
        None => "",
        Some(bytes) => {
            out.extend(b"printf '%s' ");
            out.extend(quote::bytes(bytes));
            " |"
        }
    };
    let seconds = job.deadline.as_secs() + u64::from(job.deadline.subsec_nanos() > 0);
    let mut line = format!("{input} timeout -k {} {}", KILL_AFTER.as_secs(), seconds.max(1));
    let argv: Vec<&str> = job.argv.iter().map(String::as_str).collect();
    for word in virsh::with_uri(&argv, driver) {
        line.push(' ');
        line.push_str(&quote::word(word));
    }
    if job.stdin.is_none() {
        line.push_str(" </dev/null");
    }
    #[expect(clippy::expect_used, reason = "writing to a String cannot fail")]
    writeln!(line, " >\"$d/{index}o\" 2>\"$d/{index}e\" 7>&- 8>&- 9>&- & p{index}=$!")
        .expect("a String takes any text");
    out.extend(line.trim_start().bytes());
}

/// Reads a reply; `None` when the input ended before one began.
pub(super) fn read_reply(input: &mut impl BufRead) -> Result<Option<Reply>, ReplyError> {
    let mut noise = 0;
    loop {
        match read_line(input)? {
            None => return Ok(None),
            Some(line) if line == BEGIN => break,
            Some(line) => noise += line.len() + 1,
        }
        if noise > NOISE_MAX {
            return Err(ReplyError::Malformed("its login shell prints without end".to_owned()));
        }
    }
    let Some(head) = read_line(input)? else {
        return Err(ReplyError::Silent);
    };
    match head.split_once(' ').unwrap_or((&head, "")) {
        ("not-root", _) => Ok(Some(Reply::NotRoot)),
        ("lost", _) => Ok(Some(Reply::Lost)),
        ("busy", _) => Ok(Some(Reply::Busy(read_rest(input)?))),
        ("failed", _) => Ok(Some(Reply::Failed(read_rest(input)?))),
        ("ok", count) => read_ended(input, number(count)?).map(|ended| Some(Reply::Ended(ended))),
        _ => Err(ReplyError::Malformed(format!("{head:?}"))),
    }
}

/// Reads statuses, then one `wc -c` line per file with a total, then the files.
fn read_ended(input: &mut impl BufRead, count: u64) -> Result<Vec<Ended>, ReplyError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let statuses = need_line(input)?;
    let statuses: Vec<u64> = statuses.split_whitespace().map(number).collect::<Result<_, _>>()?;
    if statuses.len() as u64 != count {
        return Err(ReplyError::Malformed(format!("{} statuses for {count} commands", statuses.len())));
    }
    let mut lengths = Vec::with_capacity(2 * statuses.len());
    for _ in 0..2 * count {
        lengths.push(number(need_line(input)?.split_whitespace().next().unwrap_or(""))?);
    }
    let total = number(need_line(input)?.split_whitespace().next().unwrap_or(""))?;
    if total > OUTPUT_MAX || lengths.iter().sum::<u64>() != total {
        return Err(ReplyError::Malformed(format!("outputs of {total} bytes")));
    }
    let mut ended = Vec::with_capacity(statuses.len());
    for (status, pair) in statuses.into_iter().zip(lengths.chunks_exact(2)) {
        let stdout = read_bytes(input, pair[0])?;
        ended.push(Ended { status: exit_status(status), stdout, stderr: read_bytes(input, pair[1])? });
    }
    Ok(ended)
}

/// `timeout` exits 124 at the deadline and 137 when it had to kill; 128 + N is a shell's word for signal N.
fn exit_status(status: u64) -> Option<i32> {
    match status {
        124 | 129..=192 => None,
        other => i32::try_from(other).ok(),
    }
}

fn number(text: &str) -> Result<u64, ReplyError> {
    text.parse().map_err(|_| ReplyError::Malformed(format!("{text:?} where a number belongs")))
}

fn need_line(input: &mut impl BufRead) -> Result<String, ReplyError> {
    read_line(input)?.ok_or_else(|| ReplyError::Short(std::io::ErrorKind::UnexpectedEof.into()))
}

fn read_line(input: &mut impl BufRead) -> Result<Option<String>, ReplyError> {
    let mut line = Vec::new();
    input.take(OUTPUT_MAX).read_until(b'\n', &mut line).map_err(ReplyError::Short)?;
    if line.is_empty() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned();
    Ok(Some(text))
}

fn read_bytes(input: &mut impl Read, length: u64) -> Result<Vec<u8>, ReplyError> {
    let mut bytes = Vec::new();
    let read = input.take(length).read_to_end(&mut bytes).map_err(ReplyError::Short)?;
    if read as u64 == length {
        Ok(bytes)
    } else {
        Err(ReplyError::Short(std::io::ErrorKind::UnexpectedEof.into()))
    }
}

fn read_rest(input: &mut impl Read) -> Result<String, ReplyError> {
    let mut bytes = Vec::new();
    input.take(4096).read_to_end(&mut bytes).map_err(ReplyError::Short)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

#[cfg(test)]
mod tests;
