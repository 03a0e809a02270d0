//! Finds every key and value of a file that does not fit the file's shape, by walking the text's tree along the JSON Schema.
//!
//! Imports `schema`, `input` and `problem`. Only used after the strict reading failed: that one stops at the first.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::input::{At, Place};
use super::problem::{Problem, Problems, did_you_mean, nearest};
use super::resolve::{some_of, unknown_version};
use super::schema::{follow, schema, variants, words};

/// Any YAML value, with its places.
#[derive(Debug)]
pub enum Tree {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<At<Self>>),
    /// A mapping, in the order of the file.
    Map(Vec<(At<String>, At<Self>)>),
}

impl fmt::Display for Tree {
    /// Says what a value is, for "here it is ...".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("empty"),
            Self::Bool(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(text) => write!(f, "{:?}", text.chars().take(60).collect::<String>()),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a mapping"),
        }
    }
}

/// Reports what does not fit.
pub fn check(tree: &At<Tree>, problems: &mut Problems) {
    // A file of another version is judged by no rule of this one.
    if let Tree::Map(entries) = &tree.value
        && let Some((_, version)) = entries.iter().find(|(key, _)| key.value == "version")
        && let Tree::Integer(found) = version.value
        && found != 1
    {
        problems.add(|| unknown_version(version.place, &found.to_string()));
        return;
    }
    if matches!(tree.value, Tree::Null) {
        problems.add(|| {
            Problem::new(tree.place, "cluster file: it is empty").hint("stor init writes a commented one")
        });
        return;
    }
    let root = schema();
    Walk { root: &root, path: Vec::new(), problems }.value(tree, &root, tree.place);
}

/// The way down the tree.
struct Walk<'a> {
    root: &'a Value,
    path: Vec<String>,
    problems: &'a mut Problems,
}

impl Walk<'_> {
    /// Checks one value; `key` is where the key stands that it belongs to.
    fn value(&mut self, node: &At<Tree>, schema: &Value, key: Place) {
        let schema = follow(self.root, schema);
        let (allowed, backends) = (words(schema), variants(schema));
        if !allowed.is_empty() {
            return self.word(node, &allowed);
        }
        if !backends.is_empty() {
            return self.variant(node, &backends, key);
        }
        match (kinds(schema).as_slice(), &node.value) {
            (["object"], Tree::Map(entries)) => self.mapping(entries, schema, key),
            (["array"], Tree::List(items)) => {
                for item in items {
                    self.value(item, schema.get("items").unwrap_or(&Value::Null), item.place);
                }
            }
            (["integer"], Tree::Integer(number)) => self.integer(node, *number, schema),
            (["boolean"], Tree::Bool(_)) | ([], _) => {}
            (kinds, Tree::Bool(_) | Tree::Integer(_) | Tree::Float(_) | Tree::Text(_))
                if kinds.contains(&"string") => {}
            (kinds, _) => {
                let expected = kinds.iter().map(|kind| name(kind)).collect::<Vec<_>>().join(" or ");
                self.misfit(node, &expected);
            }
        }
    }

    fn mapping(&mut self, entries: &[(At<String>, At<Tree>)], schema: &Value, place: Place) {
        let empty = serde_json::Map::new();
        let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let others = schema.get("additionalProperties").filter(|schema| schema.is_object());
        let mut required: Vec<&str> = strings(schema.get("required")).collect();
        for (key, value) in entries {
            let Some(inner) = known.get(&key.value).or(others) else {
                // A misspelt key is not missing as well.
                let meant = self.unknown(key, "key", known.keys().map(String::as_str));
                required.retain(|wanted| meant.as_deref() != Some(*wanted));
                continue;
            };
            // An optional key with nothing behind it says nothing.
            if matches!(value.value, Tree::Null)
                && others.is_none()
                && !required.contains(&key.value.as_str())
            {
                continue;
            }
            self.path.push(key.value.clone());
            self.value(value, inner, key.place);
            self.path.pop();
        }
        for wanted in required {
            if !entries.iter().any(|(key, _)| key.value == wanted) {
                let subject = self.subject();
                self.problems.add(|| Problem::new(place, format!("{subject}: key {wanted:?} is missing")));
            }
        }
    }

    fn variant(&mut self, node: &At<Tree>, backends: &[(&str, &Value)], place: Place) {
        let Tree::Map(entries) = &node.value else {
            return self.misfit(node, "a mapping with its backend as key");
        };
        let names = || backends.iter().map(|(name, _)| *name);
        for (key, value) in entries {
            match backends.iter().find(|(name, _)| *name == key.value) {
                None => drop(self.unknown(key, "backend", names())),
                Some((_, inner)) => {
                    self.path.push(key.value.clone());
                    self.value(value, inner, key.place);
                    self.path.pop();
                }
            }
        }
        if entries.len() != 1 {
            let subject = self.subject();
            self.problems.add(|| {
                let message = format!("{subject}: it has {} backends, it must have one", entries.len());
                Problem::new(place, message)
                    .hint(format!("known backends: {}", some_of(names().collect::<Vec<_>>().iter())))
            });
        }
    }

    /// Reports an unknown key; returns the one that is probably meant.
    fn unknown<'n>(
        &mut self,
        key: &At<String>,
        kind: &str,
        known: impl Iterator<Item = &'n str>,
    ) -> Option<String> {
        let subject = self.subject();
        let known: Vec<&str> = known.collect();
        let meant = nearest(&key.value, known.iter().copied());
        self.problems.add(|| {
            let hint = match meant {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("known {kind}s: {}", known.join(", ")),
            };
            let word: String = key.value.chars().take(60).collect();
            Problem::new(key.place, format!("{subject}: {kind} {word:?} is unknown")).hint(hint)
        });
        meant.map(str::to_owned)
    }

    fn word(&mut self, node: &At<Tree>, allowed: &[&str]) {
        match &node.value {
            Tree::Text(text) if allowed.contains(&text.as_str()) => {}
            Tree::Bool(given) if allowed.contains(&given.to_string().as_str()) => {}
            found => {
                let hint = match found {
                    Tree::Text(text) => did_you_mean(text, allowed.iter().copied()),
                    _ => None,
                };
                let subject = self.subject();
                self.problems.add(|| {
                    let message = format!("{subject} must be {}, here it is {found}", allowed.join(" or "));
                    Problem::new(node.place, message).maybe_hint(hint)
                });
            }
        }
    }

    fn integer(&mut self, node: &At<Tree>, number: i128, schema: &Value) {
        let bound =
            |key: &str, default: i128| schema.get(key).and_then(Value::as_i64).map_or(default, i128::from);
        let (low, high) = (bound("minimum", 0), bound("maximum", i128::from(u32::MAX)));
        if !(low..=high).contains(&number) {
            let subject = self.subject();
            self.problems.add(|| {
                Problem::new(node.place, format!("{subject} is {number}, it must be {low} to {high}"))
            });
        }
    }

    fn misfit(&mut self, node: &At<Tree>, expected: &str) {
        let subject = self.subject();
        self.problems.add(|| {
            Problem::new(node.place, format!("{subject} must be {expected}, here it is {}", node.value))
        });
    }

    /// What the current path is called in messages: `guest web1: boot.kernel`.
    fn subject(&self) -> String {
        let parts: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let (first, rest) = match parts.as_slice() {
            [] => return "cluster file".to_owned(),
            ["hosts", id, rest @ ..] => (format!("host {id}"), rest),
            // The backend is clear from the entry.
            ["storage", id, _, rest @ ..] | ["storage", id, rest @ ..] => (format!("storage {id}"), rest),
            ["images", id, rest @ ..] => (format!("image {id}"), rest),
            ["guests", id, rest @ ..] => (format!("guest {id}"), rest),
            [section, rest @ ..] => ((*section).to_owned(), rest),
        };
        if rest.is_empty() { first } else { format!("{first}: {}", rest.join(".")) }
    }
}

fn strings(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// The JSON types that a schema allows.
fn kinds(schema: &Value) -> Vec<&str> {
    let one = schema.get("type").and_then(Value::as_str);
    one.into_iter().chain(strings(schema.get("type"))).collect()
}

/// A JSON type in words.
fn name(kind: &str) -> &str {
    match kind {
        "object" => "a mapping",
        "array" => "a list",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        _ => "text",
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }
    fn visit_none<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Integer(value.into()))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Integer(value.into()))
    }
    fn visit_i128<E: Error>(self, value: i128) -> Result<Tree, E> {
        Ok(Tree::Integer(value))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}
