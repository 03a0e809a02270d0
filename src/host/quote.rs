//! Quoting for a POSIX shell: the only place where it happens.
//!
//! Pure. Used for the scripts that `host` sends and for those that `stor plan --script` prints for people.

use super::virsh;
use crate::model::{Command, Driver};

/// Quotes one word so that any POSIX shell reads back exactly these bytes (POSIX.1-2024, XCU 2.2.2).
///
/// Words of plain characters stay as they are, so that people can read what is printed. A NUL byte cannot be part of
/// a word in any shell; whoever sends words refuses it first.
#[must_use]
pub fn word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._+@=:,-".contains(&byte);
    // A word with `=` before any slash could be read as an assignment, one with a leading `-` is fine for the shell.
    if !text.is_empty() && text.bytes().all(plain) && !text.contains('=') {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Quotes bytes that need not be UTF-8, always in quotes.
#[must_use]
pub(super) fn bytes(text: &[u8]) -> Vec<u8> {
    let mut out = vec![b'\''];
    for byte in text {
        match byte {
            b'\'' => out.extend(br"'\''"),
            other => out.push(*other),
        }
    }
    out.push(b'\'');
    out
}

/// Quotes a command's program and arguments, separated by blanks, for a host that has this driver.
#[must_use]
pub fn line(command: &Command, driver: Option<Driver>) -> String {
    let words: Vec<&str> =
        [command.program].into_iter().chain(command.args.iter().map(String::as_str)).collect();
    virsh::with_uri(&words, driver).into_iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_stay_readable_and_all_others_are_quoted() {
        for plain in ["a", "-f", "10.0.0.1:/gfs", "/a/b_c.d"] {
            assert_eq!(word(plain), plain);
        }
        for (text, quoted) in [("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("A=1", "'A=1'")] {
            assert_eq!(word(text), quoted);
        }
        assert_eq!(line(&Command::new("echo").args(["$(id)", "a;b", "~"]), None), "echo '$(id)' 'a;b' '~'");
    }
}
