//! Files on a host over ssh: whole files, marked blocks, and commands that are fed a file of this machine.
//!
//! Each is one small shell program whose data comes on standard input, so that no content shows in an argument list.
//! Imports `model`.

use std::path::Path;
use std::time::Duration;

use super::batch::{Ended, Job};
use super::ssh::SshHost;
use super::{HostError, block, quote};
use crate::model::command::COMMAND_DEADLINE;
use crate::model::{AbsPath, BlockSpec, Command, FileContent, FileSpec};

/// Writes `$1` with mode `$2` from standard input. The temporary file is private until it is complete; its name is
/// fixed, so that a later call removes what a killed one left, and `set -C` makes it new (O_EXCL).
/// coreutils' `sync FILE` is fsync(2). A symbolic link at `$1` is replaced, not followed: stor owns the file whole.
const WRITE: &str = r#"set -e
d=${1%/*}; t="${d}/.${1##*/}.stor-new"
mkdir -p -- "$d/"
rm -f -- "$t"
trap 'rm -f -- "$t"' EXIT; trap 'exit 1' HUP INT TERM
( umask 077; set -C; cat >"$t" )
chmod "$2" -- "$t"; chown 0:0 -- "$t"
sync -- "$t"
mv -fT -- "$t" "$1"
sync -- "$d/"
"#;

/// Exit status of [`READ`] for a file that does not exist.
const ABSENT: i32 = 44;
/// Exit status of [`REPLACE`] for a file that changed since it was read.
const CHANGED: i32 = 45;

/// Reads `$1`.
const READ: &str = r#"[ -e "$1" ] || exit 44; exec cat -- "$1""#;

/// Replaces what `$1` holds, if it still holds the first `$3` bytes of standard input, with the rest of it.
/// A symbolic link is followed and stays: `authorized_keys` may be kept elsewhere. `cp -a` keeps owner, mode, ACL and
/// label. `$2` is the mode of a file that did not exist (then `$3` is `-`).
const REPLACE: &str = r#"set -e
p=$(readlink -m -- "$1"); d=${p%/*}; t="${d}/.${p##*/}.stor-new"; o="${d}/.${p##*/}.stor-old"
mkdir -p -- "$d/"
rm -f -- "$t" "$o"
trap 'rm -f -- "$t" "$o"' EXIT; trap 'exit 1' HUP INT TERM
umask 077
if [ "$3" = - ]; then
[ ! -e "$p" ] || exit 45
( set -C; cat >"$t" )
chmod "$2" -- "$t"
else
( set -C; head -c "$3" >"$o" )
cmp -s -- "$o" "$p" || exit 45
cp -a -- "$p" "$t"
cat >"$t"
fi
sync -- "$t"
mv -fT -- "$t" "$p"
sync -- "$d/"
"#;

/// Tries before an edit gives up on a file that keeps changing.
const EDIT_TRIES: u32 = 3;
/// The slowest rate at which copying an image in is worth waiting for, in bytes per second.
const COPY_RATE: u64 = 1 << 20;

fn job(words: String, script: &str, args: &[&str], stdin: Option<Vec<u8>>) -> Job {
    let argv = ["sh", "-c", script, "stor"].iter().chain(args).map(|word| (*word).to_owned()).collect();
    Job { argv, stdin, deadline: COMMAND_DEADLINE, words }
}

/// Writes a file whole.
pub(super) fn write(host: &SshHost, file: &FileSpec) -> Result<(), HostError> {
    let content = match &file.content {
        FileContent::Text(text) => text,
        FileContent::Secret(secret) => secret.reveal(),
    };
    let content = carried(host, file.path.as_str(), content.as_bytes().to_vec())?;
    let mode = format!("{:o}", file.mode.0);
    let words = format!("write {}", file.path);
    host.effect(job(words, WRITE, &[file.path.as_str(), &mode], Some(content))).map(drop)
}

/// Sets or removes a marked block: reads the file, changes it here, and replaces it if it is still the same.
pub(super) fn edit_block(host: &SshHost, spec: &BlockSpec, keys: &[String]) -> Result<(), HostError> {
    let lines = block::lines(spec, keys).map_err(|error| host.protocol(error.to_string()))?;
    for _ in 0..EDIT_TRIES {
        let old = read(host, &spec.path)?;
        let new = block::splice(old.as_deref().unwrap_or_default(), spec, lines.as_deref())
            .map_err(|error| host.protocol(error.to_string()))?;
        let unchanged = old.as_ref().map_or(lines.is_none(), |old| *old == new);
        if unchanged || replace(host, spec, old, &new)? {
            return Ok(());
        }
    }
    Err(host.protocol(format!("{} changed each time it was edited", spec.path)))
}

fn read(host: &SshHost, path: &AbsPath) -> Result<Option<Vec<u8>>, HostError> {
    let job = job(format!("read {path}"), READ, &[path.as_str()], None);
    let ended = host.one(&job)?;
    match ended.status {
        Some(0) => Ok(Some(ended.stdout)),
        Some(ABSENT) => Ok(None),
        _ => Err(host.failed(&job, &ended)),
    }
}

/// Tells whether the file was replaced; `false` when somebody else changed it in between.
fn replace(host: &SshHost, spec: &BlockSpec, old: Option<Vec<u8>>, new: &[u8]) -> Result<bool, HostError> {
    let length = old.as_ref().map_or_else(|| "-".to_owned(), |old| old.len().to_string());
    let mut stdin = old.unwrap_or_default();
    stdin.extend_from_slice(new);
    let stdin = carried(host, spec.path.as_str(), stdin)?;
    let mode = format!("{:o}", spec.mode.0);
    let words = format!("edit {}", spec.path);
    let job = job(words, REPLACE, &[spec.path.as_str(), &mode, &length], Some(stdin));
    let ended = host.one(&job)?;
    match ended.status {
        Some(0) => Ok(true),
        Some(CHANGED) => Ok(false),
        _ => Err(host.failed(&job, &ended)),
    }
}

/// Refuses what the shell's `printf` cannot write.
fn carried(host: &SshHost, path: &str, content: Vec<u8>) -> Result<Vec<u8>, HostError> {
    if content.contains(&0) {
        return Err(host.protocol(format!("{path} holds a NUL byte: it is no text file")));
    }
    Ok(content)
}

/// Runs a command with a file of this machine as its standard input, and the file's length as one more argument.
pub(super) fn feed(host: &SshHost, command: &Command, source: &Path) -> Result<Ended, HostError> {
    let local = |error| HostError::Local { action: format!("read {}", source.display()), source: error };
    let file = std::fs::File::open(source).map_err(local)?;
    let length = file.metadata().map_err(local)?.len();
    let limit = command.deadline + Duration::from_secs(length / COPY_RATE);
    let job = host.job(&command.clone().arg(length.to_string()).deadline(limit))?;
    let words: Vec<String> = job.argv.iter().map(|word| quote::word(word)).collect();
    let script = FEED
        .replace("BEGIN", super::batch::BEGIN)
        .replace("LIMIT", &limit.as_secs().max(1).to_string())
        .replace("GUARD\n", &host.lock_held().map(|lock| super::batch::guard(&lock)).unwrap_or_default())
        .replace("COMMAND", &words.join(" "));
    let mut ended = host.stream(&script, file, &job)?;
    ended.pop().ok_or_else(|| host.protocol("no answer"))
}

/// The reply has the form of a batch of one.
const FEED: &str = r#"printf "\n%s\n" "BEGIN"
[ -O /proc ] || { printf "not-root\n"; exit 0; }
export LC_ALL=C PATH="${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
umask 022
cd /
GUARD
e=$( {
exec 8>&-
timeout -k 1 LIMIT COMMAND
} 2>&1 >/dev/null ); s=$?
printf "ok 1\n%s\n0 -\n%s -\n%s total\n%s" "$s" "${#e}" "${#e}" "$e"
"#;
