//! The marked block inside somebody else's file: text in, text out. Pure.
//!
//! Real hosts and the fake use the same two functions, so what the tests prove of a block holds everywhere.

use crate::model::{BlockLine, BlockSpec};

/// Says why a block cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A begin mark has no end mark, or the other way round, or there are two of them.
    #[error("{path} has a damaged block {marker:?}: its begin and end marks do not form one pair")]
    Damaged {
        /// The file.
        path: String,
        /// The word after `stor` in both marks.
        marker: String,
    },
    /// A line that names a key of another host came without that key.
    #[error("block {marker:?} names {wanted} keys of other hosts, {given} were given")]
    Keys {
        /// The word after `stor` in both marks.
        marker: String,
        /// Keys that the block names.
        wanted: usize,
        /// Keys that were given.
        given: usize,
    },
}

/// Renders the lines between the marks; `keys` are the public keys of the lines that name one, in order.
///
/// # Errors
/// [`BlockError::Keys`] when the number of keys differs from the lines that need one.
pub fn lines(block: &BlockSpec, keys: &[String]) -> Result<Option<Vec<String>>, BlockError> {
    let Some(lines) = &block.lines else { return Ok(None) };
    let wanted = lines.iter().filter(|line| matches!(line, BlockLine::Key(_))).count();
    if wanted != keys.len() {
        return Err(BlockError::Keys { marker: block.marker.clone(), wanted, given: keys.len() });
    }
    let mut keys = keys.iter();
    let rendered = lines.iter().map(|line| match line {
        BlockLine::Text(text) => text.clone(),
        BlockLine::Key(key) => {
            let value = keys.next().map_or("", String::as_str).trim_end();
            if key.options.is_empty() { value.to_owned() } else { format!("{} {value}", key.options) }
        }
    });
    Ok(Some(rendered.collect()))
}

/// The first line of the block named `marker`, without its newline.
#[must_use]
pub fn begin_mark(marker: &str) -> String {
    format!("# BEGIN stor {marker}")
}

/// The last line of the block named `marker`, without its newline.
#[must_use]
pub fn end_mark(marker: &str) -> String {
    format!("# END stor {marker}")
}

/// Puts the block into `old`, replaces it, or takes it out; every byte outside the marks stays.
///
/// A new block goes to the end; a newline is added before it when the last line has none.
///
/// # Errors
/// [`BlockError::Damaged`] when the marks in `old` do not form one pair: a guess could delete somebody's lines.
pub fn splice(old: &[u8], block: &BlockSpec, lines: Option<&[String]>) -> Result<Vec<u8>, BlockError> {
    let found = find(old, block)?;
    let mut new = Vec::with_capacity(old.len() + 256);
    new.extend_from_slice(found.map_or(old, |(start, _)| &old[..start]));
    if let Some(lines) = lines {
        if found.is_none() && !new.is_empty() && !new.ends_with(b"\n") {
            new.push(b'\n');
        }
        let (begin, end) = (begin_mark(&block.marker), end_mark(&block.marker));
        for line in [&begin].into_iter().chain(lines).chain([&end]) {
            new.extend_from_slice(line.as_bytes());
            new.push(b'\n');
        }
    }
    if let Some((_, end)) = found {
        new.extend_from_slice(&old[end..]);
    }
    Ok(new)
}

/// Finds the block: offset of its first byte and of the first byte after it.
fn find(old: &[u8], block: &BlockSpec) -> Result<Option<(usize, usize)>, BlockError> {
    let (begin, end) = (begin_mark(&block.marker), end_mark(&block.marker));
    let (mut begins, mut ends, mut at) = (Vec::new(), Vec::new(), 0);
    for line in old.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if text == begin.as_bytes() {
            begins.push(at);
        }
        at += line.len();
        if text == end.as_bytes() {
            ends.push(at);
        }
    }
    match (begins.as_slice(), ends.as_slice()) {
        ([], []) => Ok(None),
        ([begin], [end]) if begin < end => Ok(Some((*begin, *end))),
        _ => Err(BlockError::Damaged { path: block.path.to_string(), marker: block.marker.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AbsPath, FileMode, PeerKey};

    fn block(lines: Option<Vec<BlockLine>>) -> BlockSpec {
        let path = AbsPath::new("/root/.ssh/authorized_keys").unwrap();
        BlockSpec { path, mode: FileMode(0o600), marker: "homelab".into(), lines: lines.map(Into::into) }
    }

    fn put(old: &[u8], lines: &[&str]) -> Vec<u8> {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        splice(old, &block(None), Some(&lines)).unwrap()
    }

    #[test]
    fn a_block_goes_to_the_end_and_is_replaced_in_place() {
        let first = put(b"a\nb", &["one"]);
        assert_eq!(first, b"a\nb\n# BEGIN stor homelab\none\n# END stor homelab\n");
        let mut more = first.clone();
        more.extend_from_slice(b"c \xff\n");
        let second = put(&more, &["two", "three"]);
        assert_eq!(second, b"a\nb\n# BEGIN stor homelab\ntwo\nthree\n# END stor homelab\nc \xff\n");
        assert_eq!(put(&second, &["two", "three"]), second);
    }

    #[test]
    fn removing_a_block_leaves_every_other_byte() {
        for old in [&b""[..], b"a\n", b"\xff\x00\r\n\n"] {
            let with = put(old, &["x"]);
            assert_eq!(splice(&with, &block(None), None).unwrap(), old);
            assert_eq!(splice(old, &block(None), None).unwrap(), old);
        }
    }

    #[test]
    fn a_block_of_another_cluster_is_not_touched() {
        let other = b"# BEGIN stor homelab2\nx\n# END stor homelab2\n";
        let both = put(other, &["y"]);
        assert!(both.starts_with(other));
        assert_eq!(splice(&both, &block(None), None).unwrap(), other);
    }

    #[test]
    fn damaged_marks_are_refused() {
        for old in [
            "# BEGIN stor homelab\n",
            "# END stor homelab\n",
            "# END stor homelab\n# BEGIN stor homelab\n",
            "# BEGIN stor homelab\n# BEGIN stor homelab\n# END stor homelab\n",
        ] {
            let result = splice(old.as_bytes(), &block(None), None);
            assert!(matches!(result, Err(BlockError::Damaged { .. })), "{old:?}");
        }
    }

    #[test]
    fn keys_of_other_hosts_take_their_places_in_order() {
        let key = |of: &str| {
            let path = AbsPath::new("/key.pub").unwrap();
            let options = format!("from=\"{of}\"");
            BlockLine::Key(PeerKey { of: of.parse().unwrap(), path, options, known: None })
        };
        let spec = block(Some(vec![key("a"), BlockLine::Text("# x".into()), key("b")]));
        let keys = ["ssh-ed25519 A\n".to_owned(), "ssh-ed25519 B".to_owned()];
        assert_eq!(
            lines(&spec, &keys).unwrap().unwrap(),
            ["from=\"a\" ssh-ed25519 A", "# x", "from=\"b\" ssh-ed25519 B"]
        );
        assert!(matches!(lines(&spec, &keys[..1]), Err(BlockError::Keys { wanted: 2, given: 1, .. })));
    }
}
