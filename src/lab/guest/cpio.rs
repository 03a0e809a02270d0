//! Writes an initramfs: a cpio archive in the "newc" form, in memory.
//!
//! Pure. Only what the heartbeat guest needs: directories, regular files and one character device.
//! Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.

/// An archive that is being written; [`Archive::finish`] gives its bytes.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

impl Archive {
    /// Starts an empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory, mode 0755; its parents must have been added before.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, &[], (0, 0));
    }

    /// Adds a regular file, mode 0755.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, REGULAR | 0o755, content, (0, 0));
    }

    /// Adds a character device, mode 0600, with its major and minor number.
    pub fn character_device(&mut self, path: &str, number: (u32, u32)) {
        self.entry(path, CHARACTER_DEVICE | 0o600, &[], number);
    }

    /// Ends the archive and gives its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) {
        self.entries += 1;
        let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (inode, links, time, owner) = (self.entries, 1, 0, 0);
        let fields = [
            inode,
            mode,
            owner,
            owner,
            links,
            time,
            length(content.len()),
            0,
            0,
            device.0,
            device.1,
            length(path.len() + 1),
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path, mode, content, device number.
    type Entry = (String, u32, Vec<u8>, (u32, u32));

    /// Reads an archive back.
    fn read(mut bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[6 + n * 8..14 + n * 8]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, device, name_size) =
                (field(1), field(6) as usize, (field(9), field(10)), field(11) as usize);
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            assert_eq!(bytes[110 + name_size - 1], 0, "the name ends with a zero byte");
            let start = (110 + name_size).next_multiple_of(4);
            let content = bytes[start..start + size].to_vec();
            bytes = &bytes[(start + size).next_multiple_of(4)..];
            if name == "TRAILER!!!" {
                assert!(bytes.is_empty(), "nothing follows the trailer");
                return entries;
            }
            entries.push((name, mode, content, device));
        }
    }

    #[test]
    fn archive_reads_back_as_written() {
        let mut archive = Archive::new();
        archive.directory("dev");
        archive.character_device("dev/console", (5, 1));
        archive.file("init", b"12345");
        archive.file("modules", b"");
        assert_eq!(
            read(&archive.finish()),
            [
                ("dev".into(), 0o040_755, vec![], (0, 0)),
                ("dev/console".into(), 0o020_600, vec![], (5, 1)),
                ("init".into(), 0o100_755, b"12345".to_vec(), (0, 0)),
                ("modules".into(), 0o100_755, vec![], (0, 0)),
            ]
        );
    }

    #[test]
    fn every_entry_starts_at_a_multiple_of_four() {
        for length in 0..9 {
            let mut archive = Archive::new();
            archive.file(&"n".repeat(length + 1), &vec![7; length]);
            assert_eq!(archive.finish().len() % 4, 0);
        }
    }
}
