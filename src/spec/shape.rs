//! Finds every key and value of a file that does not fit the file's shape, by walking the text's tree along the JSON Schema.
//!
//! Imports `schema`, `input` and `problem`. Only used after the strict reading failed: that one stops at the first.

use super::input::At;
use super::problem::Problems;

/// Any YAML value, with its places.
#[derive(Debug, serde::Deserialize)]
pub struct Tree(#[expect(dead_code, reason = "read in the next step")] At<String>);

/// Reports what does not fit.
pub fn check(_tree: &Tree, _problems: &mut Problems) {}
