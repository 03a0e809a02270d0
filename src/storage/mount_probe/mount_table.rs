//! Reads the kernel's mount table (`/proc/self/mountinfo`, proc_pid_mountinfo(5)). Pure.

use crate::model::AbsPath;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Mount point.
    pub point: String,
    /// Directory of the file system that is mounted; `/` unless it is a bind mount of a part.
    pub root: String,
    /// File system type.
    pub fs_type: String,
    /// Source.
    pub source: String,
    /// Options of the mount and of its super block.
    pub options: Vec<String>,
}

impl Mount {
    /// Tells whether it refuses writes.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.options.iter().any(|option| option == "ro")
    }
}

impl std::fmt::Display for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} from {}", self.fs_type, self.source)?;
        if self.root == "/" { Ok(()) } else { write!(f, ", its directory {}", self.root) }
    }
}

/// Reads the table; lines of another form are left out.
#[must_use]
pub fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(line).collect()
}

/// The mount that is seen at `path`: the last one there covers the others.
#[must_use]
pub fn at<'a>(table: &'a [Mount], path: &AbsPath) -> Option<&'a Mount> {
    table.iter().rev().find(|mount| mount.point == path.as_str())
}

fn line(line: &str) -> Option<Mount> {
    let mut words = line.split(' ').skip(3);
    let root = words.next()?;
    let point = words.next()?;
    let options = words.next()?;
    // Optional fields end with a hyphen.
    let mut words = words.skip_while(|word| *word != "-").skip(1);
    let fs_type = words.next()?;
    let source = words.next()?;
    let super_options = words.next().unwrap_or_default();
    Some(Mount {
        point: unescape(point),
        root: unescape(root),
        fs_type: fs_type.to_owned(),
        source: unescape(source),
        options: options.split(',').chain(super_options.split(',')).map(str::to_owned).collect(),
    })
}

/// The kernel writes blank, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = include_str!("../../../fixtures/outputs/mountinfo/debian13-glusterfs11.1-fuse.txt");

    #[test]
    fn a_fuse_mount_is_found_with_type_source_and_options() {
        let table = parse(TABLE);
        let mount = at(&table, &AbsPath::new("/var/lib/libvirt/images/gfs").unwrap()).unwrap();
        assert_eq!(mount.to_string(), "fuse.glusterfs from 10.79.0.11:/gfs");
        assert!(!mount.read_only());
        assert_eq!(table.len(), TABLE.lines().count());
    }

    #[test]
    fn a_plain_directory_is_no_mount_and_the_last_mount_covers_the_others() {
        let table = parse(TABLE);
        assert_eq!(at(&table, &AbsPath::new("/var/lib/libvirt/images").unwrap()), None);
        let text = "1 2 0:5 / /m rw - ext4 /dev/sda rw\n3 1 0:6 /sub /m ro,noatime shared:1 master:2 - xfs /dev/sdb rw";
        let mount = parse(text).pop().unwrap();
        assert_eq!(at(&parse(text), &AbsPath::new("/m").unwrap()), Some(&mount));
        assert!(mount.read_only());
        assert_eq!(mount.to_string(), "xfs from /dev/sdb, its directory /sub");
    }
}
