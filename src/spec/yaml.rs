//! YAML text in, raw shapes out: the limits on what is read, and serde-saphyr's errors in stor's words.
//!
//! Imports `raw`, `input`, `problem` and `shape` (which finds all misspelt keys when the strict reading stops at the first).

use serde::de::DeserializeOwned;
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Location, MessageFormatter, Options, UserMessageFormatter};

use super::input::Place;
use super::problem::{Problem, Problems};
use super::raw::RawCluster;
use super::shape;

/// Most values in a file; 1,000 hosts with 5,000 guests have about 100,000.
const NODES_MAX: usize = 150_000;
/// Most events that aliases may repeat; a merge key in each of 10,000 entries repeats about 80,000.
const REPLAY_MAX: usize = 100_000;
/// Deepest nesting; the file itself needs 6.
const DEPTH_MAX: usize = 32;

/// Limits that a real file never meets, and that keep a hostile one cheap.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            // The scanner looks this many characters ahead; the limit that counts is max_depth.
            flow_nesting_limit: 1_100,
            max_nodes: NODES_MAX,
            max_events: 2 * NODES_MAX,
            max_documents: 1,
            max_aliases: 10_000,
            max_anchors: 1_000,
            max_merge_keys: 10_000,
            max_recorded_anchor_events: REPLAY_MAX,
            max_recorded_anchor_bytes: 8 << 20,
            max_total_scalar_bytes: 8 << 20,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: REPLAY_MAX,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

/// Parses a text into a shape.
fn read<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_saphyr::from_str_with_options(text, options())
}

/// Parses a cluster file; `None` means that `problems` says why.
pub fn parse(text: &str, problems: &mut Problems) -> Option<RawCluster> {
    let error = match read::<RawCluster>(text) {
        Ok(raw) => return Some(raw),
        Err(error) => error,
    };
    // The strict reading stops at the first key that does not fit. A second, lenient one finds them all.
    if about_shape(&error) {
        match read(text) {
            Ok(tree) => shape::check(&tree, problems),
            Err(other) => problems.add(|| explain(&other, text)),
        }
    }
    if problems.is_empty() {
        problems.add(|| explain(&error, text));
    }
    None
}

/// The error itself, without serde-saphyr's wrappers.
fn innermost(mut error: &Error) -> &Error {
    while let Error::AliasError { error: inner, .. } | Error::WithSnippet { error: inner, .. } = error {
        error = inner;
    }
    error
}

/// Tells whether the text was proper YAML, within the limits, but not of the file's shape.
fn about_shape(error: &Error) -> bool {
    !matches!(
        innermost(error),
        Error::Budget { .. }
            | Error::AliasReplayLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. }
            | Error::AliasReplayCounterOverflow { .. }
            | Error::AliasExpansionLimitExceeded { .. }
            | Error::ExternalMessage { .. }
            | Error::DuplicateMappingKey { .. }
            | Error::UnknownAnchor { .. }
            | Error::MultipleDocuments { .. }
            | Error::UnsupportedTag { .. }
    )
}

/// Says in stor's words what serde-saphyr found.
fn explain(error: &Error, text: &str) -> Problem {
    const SPLIT: &str = "a cluster file describes one cluster; split larger ones";
    let place = error.location().map_or_else(Place::default, |location| place(location, text));
    let (message, hint) = match innermost(error) {
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().map_or_else(|| "a key".to_owned(), |key| format!("key {key:?}"));
            (format!("{key} is given twice in one mapping"), Some("keep one of them"))
        }
        Error::MultipleDocuments { .. } | Error::Budget { breach: BudgetBreach::Documents { .. }, .. } => (
            "the file holds more than one YAML document".to_owned(),
            Some("remove what follows the line ---"),
        ),
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            (format!("the file is nested deeper than {DEPTH_MAX} levels"), None)
        }
        Error::Budget { breach: BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. }, .. } => {
            (format!("the file has more than {NODES_MAX} values"), Some(SPLIT))
        }
        Error::Budget { breach: BudgetBreach::ScalarBytes { .. }, .. } => {
            ("the file has too much text".to_owned(), Some(SPLIT))
        }
        // The other budgets are about anchors, aliases and merge keys.
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. } => {
            ("the file's anchors and aliases expand to too much".to_owned(), Some("write the values out"))
        }
        Error::UnknownAnchor { .. } => ("an alias names no anchor before it".to_owned(), None),
        Error::UnsupportedTag { tag, .. } => (format!("tag {tag:?} is unknown"), Some("remove the tag")),
        other => {
            let message = UserMessageFormatter.format_message(other);
            let message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            (format!("not valid YAML: {}", message.trim_end_matches('.')), None)
        }
    };
    Problem::new(place, message).maybe_hint(hint.map(str::to_owned))
}

/// Where an error is; syntax errors count in characters only.
fn place(location: Location, text: &str) -> Place {
    let mut place = Place::from(location);
    if location.span().byte_offset().is_none() {
        let characters = usize::try_from(location.span().offset()).unwrap_or(usize::MAX);
        place.offset = text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at);
    }
    place
}
