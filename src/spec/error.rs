//! What loading a cluster file can end in, and how it is shown: every problem with line, column and the lines around it.
//!
//! Imports `problem`. [`SpecError`] is a [`miette::Diagnostic`]; whoever renders it chooses width and colour.

use std::fmt;
use std::io;
use std::path::PathBuf;

use miette::{Diagnostic, MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

use super::problem::Problem;

/// Most bytes of a line that are shown.
const LINE_SHOWN: usize = 160;

/// Says why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The file cannot be read.
    #[error("cluster file {}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is larger than any cluster file.
    #[error("cluster file {}: larger than {max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes that are read at most.
        max: u64,
    },
    /// The file is not UTF-8.
    #[error("cluster file {}: not UTF-8 text at line {line}, byte {byte}", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Byte in the line, counted from 1.
        byte: usize,
    },
    /// What the file says is not a cluster.
    #[error(transparent)]
    Invalid(Box<Invalid>),
}

impl SpecError {
    /// What is wrong in the file, sorted by place; empty when it could not be read at all.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid(invalid) => &invalid.problems,
            Self::Read { .. } | Self::TooLarge { .. } | Self::NotText { .. } => &[],
        }
    }
}

impl Diagnostic for SpecError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let hint = match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "stor init writes a commented one; -f FILE or STOR_FILE names another"
            }
            Self::Read { .. } => return None,
            Self::TooLarge { .. } => "a cluster file describes one cluster; split larger ones",
            Self::NotText { .. } => "save the file as UTF-8",
            Self::Invalid(invalid) => return invalid.help(),
        };
        Some(Box::new(hint))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        match self {
            Self::Invalid(invalid) => Some(&invalid.source),
            Self::Read { .. } | Self::TooLarge { .. } | Self::NotText { .. } => None,
        }
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems().iter().map(|problem| problem as &dyn Diagnostic)))
    }
}

/// A file and what is wrong with it.
#[derive(Debug)]
pub struct Invalid {
    source: Source,
    problems: Vec<Problem>,
    hidden: usize,
}

impl Invalid {
    /// Joins a file's text and its problems.
    #[must_use]
    pub fn new(origin: &str, text: &str, problems: Vec<Problem>, hidden: usize) -> Self {
        Self { source: Source::new(origin, text), problems, hidden }
    }

    fn help<'a>(&self) -> Option<Box<dyn fmt::Display + 'a>> {
        (self.hidden > 0)
            .then(|| Box::new(format!("{} more are not shown", self.hidden)) as Box<dyn fmt::Display>)
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len() + self.hidden;
        write!(f, "cluster file {}: {count} problem{}", self.source.name, if count == 1 { "" } else { "s" })
    }
}
impl std::error::Error for Invalid {}

/// The file's text as it may be printed: no control characters, long lines cut around the place that is shown.
struct Source {
    name: String,
    /// As long as the file, byte for byte, so that places stay true.
    text: String,
    /// Offsets at which lines start.
    lines: Vec<usize>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.name, self.text.len())
    }
}

impl Source {
    fn new(name: &str, text: &str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let name = name.escape_debug().to_string();
        Self { name, text: text.chars().map(printable).collect(), lines }
    }

    /// The line that holds an offset, counted from 0.
    fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// Start and end of some lines, the last one without its line end.
    fn bounds(&self, first: usize, last: usize) -> (usize, usize) {
        let end = self.lines.get(last + 1).map_or(self.text.len(), |next| next - 1);
        (self.lines[first], end)
    }

    /// The part of one long line around an offset.
    fn window(&self, line: usize, offset: usize) -> (usize, usize) {
        let (start, end) = self.bounds(line, line);
        let from = self.boundary(offset.saturating_sub(LINE_SHOWN / 2).max(start));
        (from, self.boundary((from + LINE_SHOWN).min(end)))
    }

    /// The nearest start of a character at or before an offset.
    fn boundary(&self, offset: usize) -> usize {
        (0..=offset).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0)
    }
}

/// Replaces what a terminal would obey by something of the same length in UTF-8.
fn printable(c: char) -> char {
    match c {
        '\n' | '\t' => c,
        '\r' => ' ',
        '\u{80}'..='\u{9f}' => '¿',
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
            '\u{fffd}'
        }
        c if c.is_control() => '?',
        c => c,
    }
}

impl SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let end = span.offset().checked_add(span.len()).ok_or(MietteError::OutOfBounds)?;
        if end > self.text.len() {
            return Err(MietteError::OutOfBounds);
        }
        let (first, last) = (self.line(span.offset()), self.line(end));
        let shown = (first.saturating_sub(before), (last + after).min(self.lines.len() - 1));
        let fits = (shown.0..=shown.1).all(|line| {
            let (start, end) = self.bounds(line, line);
            end - start <= LINE_SHOWN
        });
        // miette asks whether two places can be shown together; far apart on long lines they cannot.
        if !fits && before + after > 0 && (first != last || span.len() > LINE_SHOWN) {
            return Err(MietteError::OutOfBounds);
        }
        // Without context it only wants to know line and column of the span itself.
        let (line, (from, to)) = match (before + after, fits) {
            (0, _) => (first, (span.offset(), end)),
            (_, true) => (shown.0, self.bounds(shown.0, shown.1)),
            (_, false) => (first, self.window(first, span.offset())),
        };
        let column = self.text[self.lines[line]..from].chars().count();
        let lines = self.line(to) - line + 1;
        let data = &self.text.as_bytes()[from..to];
        let span = (from, to - from).into();
        Ok(Box::new(MietteSpanContents::new_named(self.name.clone(), data, span, line, column, lines)))
    }
}
