//! References to secrets: the cluster file says where a value is, never the value itself.
//!
//! Imports `model`, `host::secrets` (who may read a file), `input`, `scalar`, `files`, `problem`. Reading the value belongs in
//! `host::secrets`, when a plan needs it.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Deserialize;

use super::files;
use super::input::{Place, Scalar, Text};
use super::problem::Problem;
use super::resolve::Declared;
use super::scalar::{LocalFile, ScalarError};
use crate::host::secrets;
use crate::model::{SecretRef, chain};

/// The most words of a command.
const MOST_WORDS: usize = 64;

/// Where the value of a secret is: one of three keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Secret")]
pub struct RawSecret {
    /// A file on the machine that runs stor, which only its owner may read (mode 0600). A relative path starts at the cluster
    /// file. A line end at its end is no part of the value.
    pub file: Option<Text<LocalFile>>,
    /// A variable in stor's environment.
    pub env: Option<Text<EnvName>>,
    /// A program with its arguments, run without a shell on the machine that runs stor: what it prints is the value, but for
    /// a line end at its end.
    pub command: Option<Vec<Text<Word>>>,
}

impl RawSecret {
    /// Checks that it names one source.
    pub fn resolve(
        &self,
        place: Place,
        subject: impl fmt::Display,
        declared: &mut Declared<'_>,
    ) -> Option<SecretRef> {
        let given = [self.file.is_some(), self.env.is_some(), self.command.is_some()];
        let count = given.iter().filter(|given| **given).count();
        if count != 1 {
            declared.problems.add(|| {
                let message =
                    format!("{subject}: it has {count} of the keys file, env and command, it must have one");
                Problem::new(place, message).hint("write secret: { file: secrets/chap }")
            });
            return None;
        }
        if let Some(word) = &self.file {
            let at = word.parse_at(format_args!("{subject}: file"), declared.problems)?;
            let path = files::locate(&at, declared.base, &subject, declared.problems)?;
            // Only the file's owner and mode are looked at; its value is read by the commands that need it.
            if let Err(error) = secrets::check_file(&path) {
                let message = format!("{subject}: {}", chain(&error));
                declared.problems.add(|| match error.hint() {
                    Some(hint) => Problem::new(at.place, message).hint(hint),
                    None => Problem::new(at.place, message),
                });
            }
            return Some(SecretRef::File(path));
        }
        if let Some(word) = &self.env {
            let EnvName(name) = word.parse(format_args!("{subject}: env"), declared.problems)?;
            return Some(SecretRef::Env(name));
        }
        let words = self.command.as_ref()?;
        if !(1..=MOST_WORDS).contains(&words.len()) {
            declared.problems.add(|| {
                Problem::new(place, format!("{subject}: command has {} words", words.len()))
                    .hint(format!("write a program and its arguments, at most {MOST_WORDS} words"))
            });
            return None;
        }
        let subject = format!("{subject}: command");
        let words: Vec<Option<Word>> =
            words.iter().map(|word| word.parse(&subject, declared.problems)).collect();
        let words: Option<Vec<String>> = words.into_iter().map(|word| Some(word?.0)).collect();
        let words = words?;
        if words.first().is_some_and(|program| program.contains('=') || program.starts_with('-')) {
            // It is started by env(1), which would take it for a variable or an option.
            declared.problems.add(|| {
                Problem::new(place, format!("{subject}: its first word is no program"))
                    .hint("write [program, argument, ...]; a shell's line is [sh, -c, '...']")
            });
        }
        Some(SecretRef::Command(words))
    }
}

/// The name of an environment variable (POSIX, "Environment Variable Definition").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvName(pub String);

impl Scalar for EnvName {
    const KIND: &'static str = "name of an environment variable";
    const PATTERN: &'static str = "^[A-Za-z_][A-Za-z0-9_]{0,127}$";
}
impl FromStr for EnvName {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let digit = text.bytes().next().is_none_or(|b| b.is_ascii_digit());
        if digit || text.len() > 128 || !text.bytes().all(inner) {
            let expected = "the name of an environment variable like STOR_CHAP";
            return Err(ScalarError::Form { text: text.to_owned(), expected });
        }
        Ok(Self(text.to_owned()))
    }
}

/// One word of a command: printable text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word(pub String);

impl Scalar for Word {
    const KIND: &'static str = "word";
    const PATTERN: &'static str = "^[ -~]{1,1024}$";
}
impl FromStr for Word {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        if text.is_empty() || text.len() > 1024 || text.bytes().any(|b| !(b' '..=b'~').contains(&b)) {
            let expected = "one word of a command: printable ASCII, at most 1024 characters";
            return Err(ScalarError::Form { text: text.to_owned(), expected });
        }
        Ok(Self(text.to_owned()))
    }
}
