//! The JSON Schema of the cluster file, made from the raw shapes.
//!
//! Imports `raw`. Editors use it (`stor schema`), `shape` explains misfits by it, `reference` prints it for people.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::raw::RawCluster;

/// The JSON Schema of the cluster file (draft 2020-12).
#[must_use]
pub fn schema() -> Value {
    schema_of::<RawCluster>()
}

/// The JSON Schema of any of stor's files (draft 2020-12).
#[must_use]
pub fn schema_of<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    tidy(&mut schema);
    schema
}

/// Leaves out that every optional key may also be `null`, and the line breaks of the source.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(keys) => {
            if let Some(Value::String(text)) = keys.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            without_null(keys);
            keys.values_mut().for_each(tidy);
        }
        _ => {}
    }
}

fn without_null(keys: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = keys.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            keys.insert("type".to_owned(), one);
        }
    }
    let is_null = |branch: &Value| branch.get("type").is_some_and(|kind| kind == "null");
    if let Some(Value::Array(branches)) = keys.get("anyOf")
        && let [Value::Object(inner), null] = branches.as_slice()
        && is_null(null)
    {
        let inner = inner.clone();
        keys.remove("anyOf");
        for (key, value) in inner {
            keys.entry(key).or_insert(value);
        }
    }
}

/// Follows a reference to the schema's definitions.
pub fn follow<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
    target.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

/// One word of an enumeration, as the file has it.
fn word(value: &Value) -> Option<&str> {
    match value {
        Value::Bool(true) => Some("true"),
        Value::Bool(false) => Some("false"),
        other => other.as_str(),
    }
}

/// The words that an enumeration allows; empty for anything else.
pub fn words(schema: &Value) -> Vec<&str> {
    let branches = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    branches.filter_map(|branch| word(branch.get("const")?)).collect()
}

/// The branches of a mapping that has exactly one of several keys: key and the schema of its value.
pub fn variants(schema: &Value) -> Vec<(&str, &Value)> {
    if schema.get("properties").is_some() {
        return Vec::new();
    }
    let branches = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    branches
        .filter_map(|branch| branch.get("properties")?.as_object()?.iter().next())
        .map(|(key, value)| (key.as_str(), value))
        .collect()
}
