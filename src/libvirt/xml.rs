//! A small XML tree: what stor writes for libvirt is built from it, what libvirt answers is read into it.
//!
//! Reading is for facts only. A document that somebody else wrote is never written back from this tree: comments,
//! processing instructions and the order of mixed content are lost. Imports only `quick-xml`.

use std::fmt::Write as _;

use quick_xml::Reader;
use quick_xml::escape::escape;
use quick_xml::events::{BytesStart, Event};

use super::LibvirtError;

/// The deepest nesting that is read; libvirt's documents stay below 20.
const DEPTH_MAX: usize = 64;

/// One element with its attributes, its text and its children.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// Tag name, with its prefix if it has one.
    pub name: String,
    /// Attributes in document order, unescaped.
    pub attributes: Vec<(String, String)>,
    /// Text directly below this element, unescaped and trimmed.
    pub text: String,
    /// Elements below this one, in document order.
    pub children: Vec<Element>,
}

impl Element {
    /// Makes an element without attributes, text or children.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.attributes.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the text.
    #[must_use]
    pub fn containing(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// Appends a child.
    #[must_use]
    pub fn child(mut self, child: Self) -> Self {
        self.children.push(child);
        self
    }

    /// Appends several children.
    #[must_use]
    pub fn extended(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.children.extend(children);
        self
    }

    /// The value of an attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first child of this name.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// All children of this name, in document order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The first element along a path of child names, `a/b/c`.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&Self> {
        path.split('/').try_fold(self, |element, name| element.first(name))
    }

    /// The text at a path; `None` when there is no such element or it is empty.
    #[must_use]
    pub fn text_at(&self, path: &str) -> Option<&str> {
        self.at(path).map(|element| element.text.as_str()).filter(|text| !text.is_empty())
    }

    /// Renders the element with two blanks per level, every value escaped.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        self.render_into(&mut out, 0);
        out
    }

    fn render_into(&self, out: &mut String, depth: usize) {
        let pad = "  ".repeat(depth);
        out.push_str(&pad);
        out.push('<');
        out.push_str(&self.name);
        for (name, value) in &self.attributes {
            // Writing to a String cannot fail.
            write!(out, " {name}='{}'", escape(value.as_str())).unwrap_or_default();
        }
        if self.children.is_empty() && self.text.is_empty() {
            out.push_str("/>\n");
            return;
        }
        out.push('>');
        out.push_str(&escape(self.text.as_str()));
        if !self.children.is_empty() {
            out.push('\n');
            for child in &self.children {
                child.render_into(out, depth + 1);
            }
            out.push_str(&pad);
        }
        out.push_str("</");
        out.push_str(&self.name);
        out.push_str(">\n");
    }
}

/// Reads a document into its root element.
///
/// Entities other than the five of XML itself are refused, so a document cannot grow while it is read.
///
/// # Errors
/// [`LibvirtError::Xml`] with `what` when the text is not one well-formed document.
pub fn parse(text: &str, what: &str) -> Result<Element, LibvirtError> {
    let fail = |reason: String| LibvirtError::Xml { what: what.to_owned(), reason };
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = Vec::new();
    loop {
        let event = reader.read_event().map_err(|error| fail(error.to_string()))?;
        let closed = match event {
            Event::Start(tag) => {
                if open.len() >= DEPTH_MAX {
                    return Err(fail(format!("elements are nested deeper than {DEPTH_MAX}")));
                }
                open.push(begin(&tag).map_err(fail)?);
                None
            }
            Event::Empty(tag) => Some(begin(&tag).map_err(fail)?),
            Event::End(_) => open.pop(),
            Event::Text(text) => {
                add_text(&mut open, &text.decode().map_err(|error| fail(error.to_string()))?);
                None
            }
            Event::CData(text) => {
                add_text(&mut open, &text.decode().map_err(|error| fail(error.to_string()))?);
                None
            }
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(|error| fail(error.to_string()))?;
                let text = quick_xml::escape::unescape(&format!("&{name};"))
                    .map(std::borrow::Cow::into_owned)
                    .map_err(|error| fail(error.to_string()))?;
                add_text(&mut open, &text);
                None
            }
            Event::Eof => return Err(fail("the document ends before its root element does".to_owned())),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => None,
        };
        if let Some(mut element) = closed {
            element.text = element.text.trim().to_owned();
            match open.last_mut() {
                Some(parent) => parent.children.push(element),
                None => return Ok(element),
            }
        }
    }
}

fn add_text(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

fn begin(tag: &BytesStart<'_>) -> Result<Element, String> {
    let name = String::from_utf8_lossy(tag.name().as_ref()).into_owned();
    let mut element = Element::new(&name);
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let key = String::from_utf8_lossy(attribute.key.as_ref()).into_owned();
        let value = attribute.unescape_value().map_err(|error| error.to_string())?;
        element.attributes.push((key, value.into_owned()));
    }
    Ok(element)
}

/// Cuts the first element of this name out of a document, byte for byte, for a daemon that wants just that part.
///
/// # Errors
/// [`LibvirtError::Xml`] with `what` when the text is not well-formed up to the end of that element.
pub fn cut<'a>(text: &'a str, name: &str, what: &str) -> Result<Option<&'a str>, LibvirtError> {
    let fail = |reason: String| LibvirtError::Xml { what: what.to_owned(), reason };
    let mut reader = Reader::from_str(text);
    loop {
        let start = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
        let event = reader.read_event().map_err(|error| fail(error.to_string()))?;
        match event {
            Event::Start(tag) if tag.name().as_ref() == name.as_bytes() => {
                reader.read_to_end(tag.name()).map_err(|error| fail(error.to_string()))?;
            }
            Event::Empty(tag) if tag.name().as_ref() == name.as_bytes() => {}
            Event::Eof => return Ok(None),
            _ => continue,
        }
        let end = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
        return Ok(text.get(start..end));
    }
}

/// Adds a line right after the first child of this name of the root element; all else stays, byte for byte. `None` when there is no
/// such child.
///
/// # Errors
/// [`LibvirtError::Xml`] with `what` when the text is not well-formed up to there.
pub fn after_child(text: &str, name: &str, added: &str, what: &str) -> Result<Option<String>, LibvirtError> {
    let fail = |reason: String| LibvirtError::Xml { what: what.to_owned(), reason };
    let mut reader = Reader::from_str(text);
    let mut depth = 0_usize;
    loop {
        match reader.read_event().map_err(|error| fail(error.to_string()))? {
            Event::Start(tag) if depth == 1 && tag.name().as_ref() == name.as_bytes() => {
                reader.read_to_end(tag.name()).map_err(|error| fail(error.to_string()))?;
            }
            Event::Empty(tag) if depth == 1 && tag.name().as_ref() == name.as_bytes() => {}
            Event::Start(_) => {
                depth += 1;
                continue;
            }
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                continue;
            }
            Event::Eof => return Ok(None),
            _ => continue,
        }
        let at = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
        let halves = text.get(..at).zip(text.get(at..));
        return Ok(halves.map(|(before, after)| format!("{before}\n  {added}{after}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_whatever_the_values_hold() {
        let nasty = "a<b>&'\"]]>\u{e4}";
        let written = Element::new("a").with("k", nasty).child(Element::new("b").containing(nasty)).render();
        let read = parse(&written, "a test").unwrap();
        assert_eq!(read.attribute("k"), Some(nasty));
        assert_eq!(read.text_at("b"), Some(nasty));
    }

    #[test]
    fn entities_of_a_document_type_are_refused() {
        let bomb = "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>";
        assert!(parse(bomb, "a test").is_err());
    }

    #[test]
    fn broken_documents_are_refused() {
        for text in ["", "<a>", "<a></b>", "plain"] {
            assert!(parse(text, "a test").is_err(), "{text:?}");
        }
        assert!(parse(&"<a>".repeat(100_000), "a test").is_err());
    }

    #[test]
    fn an_element_is_cut_out_byte_for_byte() {
        let text = "<d><x/><cpu mode='custom'>\n <model>q</model><!-- c --></cpu><cpu/></d>";
        let cpu = cut(text, "cpu", "a test").unwrap();
        assert_eq!(cpu, Some("<cpu mode='custom'>\n <model>q</model><!-- c --></cpu>"));
        assert_eq!(cut(text, "x", "a test").unwrap(), Some("<x/>"));
        assert_eq!(cut(text, "nothing", "a test").unwrap(), None);
    }
}
