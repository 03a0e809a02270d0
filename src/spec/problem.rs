//! What is wrong with a cluster file, where, and what the user can do: [`Problem`], collected in [`Problems`].
//!
//! Imports only `input` (places). How a problem is shown is `error`'s part.

use std::fmt;

use miette::{Diagnostic, LabeledSpan};
use serde::Serialize;

use super::input::Place;

/// The most problems that are kept; the rest is counted.
pub const MOST: usize = 100;

/// The most characters of a message.
const LONGEST: usize = 400;

/// The most bytes that a label underlines.
const LABEL_MAX: usize = 80;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
    /// What is wrong: subject first, lower case, no full stop.
    pub message: String,
    /// What the user can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(skip)]
    place: Place,
    #[serde(skip)]
    related: Option<(Place, String)>,
}

impl Problem {
    /// Says what is wrong at a place.
    #[must_use]
    pub fn new(place: Place, message: impl Into<String>) -> Self {
        Self {
            line: place.line,
            column: place.column,
            message: shorten(message.into()),
            hint: None,
            place,
            related: None,
        }
    }

    /// Says what the user can do.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.hint = Some(text.into());
        self
    }

    /// Adds a hint when there is one.
    #[must_use]
    pub fn maybe_hint(mut self, text: Option<String>) -> Self {
        self.hint = text.or(self.hint);
        self
    }

    /// Points at a second place that belongs to it, with a word on what stands there.
    #[must_use]
    pub fn and(mut self, place: Place, what: impl Into<String>) -> Self {
        self.related = Some((place, what.into()));
        self
    }
}

/// Cuts a message that quotes an endless word.
fn shorten(mut message: String) -> String {
    if let Some((at, _)) = message.char_indices().nth(LONGEST) {
        message.truncate(at);
        message.push_str(" ...");
    }
    message
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.hint.as_ref().map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        if self.place.line == 0 {
            return None;
        }
        let span = |place: &Place| (place.offset, place.len.min(LABEL_MAX));
        let first = LabeledSpan::new_primary_with_span(None, span(&self.place));
        let second = self
            .related
            .as_ref()
            .map(|(place, what)| LabeledSpan::new_with_span(Some(what.clone()), span(place)));
        Some(Box::new(std::iter::once(first).chain(second)))
    }
}

/// Collects problems, up to [`MOST`], so that a hostile file costs little.
#[derive(Debug, Default)]
pub struct Problems {
    list: Vec<Problem>,
    hidden: usize,
}

impl Problems {
    /// Adds a problem; it is built only if there is room.
    pub fn add(&mut self, build: impl FnOnce() -> Problem) {
        if self.list.len() < MOST {
            self.list.push(build());
        } else {
            self.hidden += 1;
        }
    }

    /// Tells whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The problems sorted by place, and how many more there are.
    #[must_use]
    pub fn into_sorted(mut self) -> (Vec<Problem>, usize) {
        self.list.sort_by(|a, b| (a.place, &a.message).cmp(&(b.place, &b.message)));
        (self.list, self.hidden)
    }
}

/// The known word that a misspelt one probably means.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))
        .map(|(_, candidate)| candidate)
}

/// The question that a misspelt word calls for.
#[must_use]
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|meant| format!("did you mean {meant:?}?"))
}
