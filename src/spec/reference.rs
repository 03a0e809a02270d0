//! `docs/cluster-yaml.md`, made from the JSON Schema, so that it cannot say anything else than the code does.
//!
//! Imports `schema`. The words around the tables are here; what a key means is said at its field in the raw shapes.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::schema::{follow, schema, variants, words};

/// What comes before the tables.
const PREFACE: &str = include_str!("reference.md");
/// Order of the sections; what is not named here follows, sorted.
const ORDER: [&str; 8] = ["version", "name", "ssh", "hosts", "storage", "images", "guests", "migration"];

/// Describes every key of the cluster file: its type, default and meaning, as Markdown.
#[must_use]
pub fn reference() -> String {
    let root = schema();
    let mut page = Page { root: &root, text: PREFACE.to_owned() };
    page.section("cluster.yaml", "", &root);
    page.text
}

struct Page<'a> {
    root: &'a Value,
    text: String,
}

impl Page<'_> {
    /// Writes one mapping's table, then those of the mappings inside it.
    fn section(&mut self, title: &str, path: &str, schema: &Value) {
        let empty = Map::new();
        let keys = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut rows: Vec<(&str, &Value)> = keys.iter().map(|(key, value)| (key.as_str(), value)).collect();
        rows.sort_by_key(|(key, _)| {
            let place = ORDER.iter().position(|name| name == key).filter(|_| path.is_empty());
            (place.unwrap_or(ORDER.len()), !required.contains(key), key.to_owned())
        });
        let about = schema.get("description").and_then(Value::as_str).unwrap_or_default();
        self.push(&format!(
            "\n## `{title}`\n\n{about}\n\n| key | type | default | meaning |\n|---|---|---|---|\n"
        ));
        for (key, value) in &rows {
            let kind = self.kind(value);
            let default = if required.contains(key) { "**required**".to_owned() } else { default(value) };
            let meaning = value.get("description").and_then(Value::as_str).unwrap_or_default();
            self.push(&format!("| `{key}` | {kind} | {default} | {meaning} |\n"));
        }
        for (key, value) in rows {
            self.inside(&join(path, key), value);
        }
    }

    /// Goes on with the mappings that a key leads to.
    fn inside(&mut self, path: &str, value: &Value) {
        let value = follow(self.root, value);
        if value.get("properties").is_some() {
            self.section(path, path, value);
        } else if !variants(value).is_empty() {
            for (key, inner) in variants(value) {
                self.inside(&join(path, key), inner);
            }
        } else if let Some(entry) = value.get("additionalProperties").filter(|entry| entry.is_object()) {
            self.inside(&join(path, "NAME"), entry);
        } else if let Some(items) = value.get("items") {
            let items = follow(self.root, items);
            if items.get("properties").is_some() {
                self.section(path, path, items);
            }
        }
    }

    /// What a key's value is, in words.
    fn kind(&self, value: &Value) -> String {
        let value = follow(self.root, value);
        let allowed = words(value);
        if !allowed.is_empty() {
            return allowed.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        }
        if let Some(title) = value.get("title").and_then(Value::as_str) {
            return title.to_owned();
        }
        match value.get("type").and_then(Value::as_str) {
            Some("array") => format!("list: {}", self.kind(value.get("items").unwrap_or(&Value::Null))),
            Some("object") if value.get("properties").is_some() => "mapping".to_owned(),
            Some("object") => {
                let entry = value.get("additionalProperties").unwrap_or(&Value::Null);
                match self.kind(entry).as_str() {
                    "mapping" => "mappings by name".to_owned(),
                    kind => format!("{kind} by name"),
                }
            }
            Some("integer") => {
                let bound = |key: &str| value.get(key).and_then(Value::as_u64);
                match (bound("minimum"), bound("maximum")) {
                    (Some(low), Some(high)) => format!("{low} to {high}"),
                    _ => "whole number".to_owned(),
                }
            }
            Some("boolean") => "`true`, `false`".to_owned(),
            _ => "mapping".to_owned(),
        }
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// What a key stands at when it is not given.
fn default(value: &Value) -> String {
    let mut out = String::new();
    match (value.get("default"), value.get("x-default").and_then(Value::as_str)) {
        (Some(Value::String(text)), _) if text.is_empty() => out.push_str("nothing"),
        (Some(Value::String(text)), _) => drop(write!(out, "`{text}`")),
        (Some(other), _) => drop(write!(out, "`{other}`")),
        (None, Some(words)) => out.push_str(words),
        (None, None) => out.push('-'),
    }
    out
}
