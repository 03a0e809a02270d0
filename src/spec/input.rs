//! The building blocks of the raw shapes: values that remember their place in the file.
//!
//! Shared by `spec::raw` and the backends' `spec.rs`. Imports nothing of stor but `problem`. What a text means is said by
//! `scalar`; what a whole entry means by `resolve`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::problem::{Problem, Problems};

/// The most bytes of a word: what the kernel takes as a path (PATH_MAX).
const WORD_MAX: usize = 4095;

/// A place in the cluster file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, counted from 1; 0 = unknown.
    pub line: u32,
    /// Column in characters, counted from 1; 0 = unknown.
    pub column: u32,
    /// Offset in bytes.
    pub offset: usize,
    /// Length in bytes.
    pub len: usize,
}

impl From<Location> for Place {
    fn from(at: Location) -> Self {
        let span = at.span();
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let bytes = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        Self {
            line: number(at.line()),
            column: number(at.column()),
            offset: bytes(span.byte_offset()),
            len: bytes(span.byte_len()),
        }
    }
}

/// A value and the place where the file says it (for an alias: where it is used).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<T>::deserialize(deserializer)?;
        Ok(Self { value: spanned.value, place: spanned.referenced.into() })
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A type that one word of the file stands for.
pub trait Scalar: FromStr<Err: fmt::Display> {
    /// What such a word is called.
    const KIND: &'static str;
    /// ECMA 262 regular expression of the words that are allowed, for the JSON Schema. [`FromStr`] decides.
    const PATTERN: &'static str;
    /// JSON types in which an editor may meet the word.
    const JSON_TYPES: &'static [&'static str] = &["string"];
}

/// One word of the file, not yet parsed, so that all bad words of a file are reported at once.
#[derive(Debug, Clone)]
pub struct Text<T> {
    /// The word as given.
    pub text: String,
    /// Where it stands.
    pub place: Place,
    kind: PhantomData<fn() -> T>,
}

impl<T: Scalar> Text<T> {
    /// Parses the word; what is wrong with it becomes a problem of `subject`.
    pub fn parse(&self, subject: impl fmt::Display, problems: &mut Problems) -> Option<T> {
        let len = self.text.len();
        if len > WORD_MAX {
            problems.add(|| {
                Problem::new(
                    self.place,
                    format!("{subject}: {len} bytes are too long, at most {WORD_MAX} are allowed"),
                )
            });
            return None;
        }
        match self.text.parse() {
            Ok(value) => Some(value),
            Err(why) => {
                problems.add(|| Problem::new(self.place, format!("{subject}: {why}")));
                None
            }
        }
    }

    /// Parses the word and keeps its place.
    pub fn parse_at(&self, subject: impl fmt::Display, problems: &mut Problems) -> Option<At<T>> {
        let place = self.place;
        self.parse(subject, problems).map(|value| At { value, place })
    }
}

impl<'de, T> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let at = At::<String>::deserialize(deserializer)?;
        Ok(Self { text: at.value, place: at.place, kind: PhantomData })
    }
}

impl<T: Scalar> JsonSchema for Text<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        T::PATTERN.into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        match T::JSON_TYPES {
            [one] => json_schema!({ "title": T::KIND, "type": one, "pattern": T::PATTERN }),
            several => json_schema!({ "title": T::KIND, "type": several, "pattern": T::PATTERN }),
        }
    }
}

/// The entries of a mapping whose keys are chosen by the user, in the order of the file.
#[derive(Debug, Clone)]
pub struct Entries<K, V> {
    /// Key and value of each.
    pub entries: Vec<(Text<K>, V)>,
}

impl<K, V> Default for Entries<K, V> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<'de, K, V: Deserialize<'de>> Deserialize<'de> for Entries<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<K, V>(PhantomData<fn() -> (K, V)>);
        impl<'de, K, V: Deserialize<'de>> Visitor<'de> for Reader<K, V> {
            type Value = Entries<K, V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries { entries })
            }
        }
        deserializer.deserialize_map(Reader(PhantomData))
    }
}

impl<K: Scalar, V: JsonSchema> JsonSchema for Entries<K, V> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Entries_of_{}", V::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "pattern": K::PATTERN },
            "additionalProperties": generator.subschema_for::<V>(),
        })
    }
}
