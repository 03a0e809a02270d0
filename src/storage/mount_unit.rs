//! systemd mount units: their name, their text, their state on a host, how they are put into place and removed.
//!
//! Every backend that is mounted uses them. Pure; imports `model` and `mount_probe`'s reader of the mount table. What is
//! mounted where is decided by each backend. Sources: systemd.mount(5), systemd-escape(1), systemctl(1).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::model::{AbsPath, ClusterName, Command, FileContent, FileMode, FileSpec, Query};

/// Deadline for mounting and unmounting; longer than the unit's own [`MOUNT_TIMEOUT_SECONDS`].
const MOUNT_DEADLINE: Duration = Duration::from_secs(120);
/// Time after which systemd gives a mount up, in seconds.
const MOUNT_TIMEOUT_SECONDS: u32 = 90;
/// What must not run before the mount is there: libvirt would start its pools, and then its guests, over an empty directory.
const BEFORE: &str = "libvirtd.service virtqemud.service virtstoraged.service libvirt-guests.service";

/// A mount that stor makes persistent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountUnit {
    /// The cluster, named in the header.
    pub cluster: ClusterName,
    /// What it is, in one line.
    pub description: String,
    /// Source (`What=`).
    pub source: String,
    /// Mount point (`Where=`).
    pub path: AbsPath,
    /// File system type.
    pub fs_type: &'static str,
    /// Mount options, in order.
    pub options: Vec<String>,
    /// Units besides `network-online.target` that have to be up first, where they exist.
    pub after: Vec<&'static str>,
}

/// The first line of every unit that stor writes for `cluster`.
#[must_use]
pub fn header(cluster: &ClusterName) -> String {
    format!("# Written by stor for cluster {cluster}. stor apply overwrites changes made here.")
}

impl MountUnit {
    /// The unit's name.
    #[must_use]
    pub fn name(&self) -> String {
        unit_name(&self.path)
    }

    /// The unit file.
    #[must_use]
    pub fn file(&self) -> FileSpec {
        let content = FileContent::Text(self.text().into());
        FileSpec { path: unit_file(&self.name()), mode: FileMode(0o644), content }
    }

    /// The unit file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut after = vec!["network-online.target"];
        after.extend(&self.after);
        let mut out = header(&self.cluster) + "\n\n";
        let mut section = |name: &str, lines: &[(&str, String)]| {
            // Writing to a String cannot fail.
            writeln!(out, "[{name}]").unwrap_or_default();
            lines.iter().for_each(|(key, value)| writeln!(out, "{key}={value}").unwrap_or_default());
        };
        section(
            "Unit",
            &[
                ("Description", self.description.clone()),
                ("Wants", "network-online.target".to_owned()),
                ("After", after.join(" ")),
                ("Before", format!("{BEFORE}\n")),
            ],
        );
        section(
            "Mount",
            &[
                ("What", self.source.clone()),
                ("Where", self.path.to_string()),
                ("Type", self.fs_type.to_owned()),
                ("Options", self.options.join(",")),
                ("TimeoutSec", format!("{MOUNT_TIMEOUT_SECONDS}\n")),
            ],
        );
        section("Install", &[("WantedBy", "multi-user.target remote-fs.target".to_owned())]);
        out
    }
}

/// The name of the unit that mounts at `path`: `systemd-escape --path --suffix=mount`.
#[must_use]
pub fn unit_name(path: &AbsPath) -> String {
    let path = path.as_str().trim_matches('/');
    let mut name = String::new();
    for (index, byte) in path.bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if index == 0 => name.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => name.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => write!(name, "\\x{byte:02x}").unwrap_or_default(),
        }
    }
    if name.is_empty() {
        name.push('-');
    }
    name + ".mount"
}

/// Where the unit of this name lies.
#[must_use]
pub fn unit_file(name: &str) -> AbsPath {
    #[expect(clippy::expect_used, reason = "names come from unit_name, which escapes every other character")]
    AbsPath::unit_file(name).expect("escaped names are valid names of units")
}

/// What systemd says about a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `loaded`, `not-found`, `masked` ...
    pub load: String,
    /// `active`, `inactive`, `failed` ...
    pub active: String,
    /// `enabled`, `disabled`, `generated` ...; empty when there is no unit file.
    pub enabled: String,
    /// The unit file that systemd read; empty for a mount that somebody made by hand.
    pub fragment: String,
    /// Source of a mount.
    pub what: String,
    /// Whether the file changed since systemd read it.
    pub needs_reload: bool,
}

impl UnitState {
    /// Tells whether it is running (a mount: mounted).
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active == "active"
    }

    /// Tells whether it starts with the host.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled == "enabled"
    }

    /// Tells whether there is such a unit.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.load == "loaded"
    }

    /// The state in a few words, for people.
    #[must_use]
    pub fn summary(&self) -> String {
        match (self.exists(), self.enabled.as_str()) {
            (false, _) => self.load.clone(),
            (true, "") => format!("without a unit file, {}", self.active),
            (true, enabled) => format!("{enabled}, {}", self.active),
        }
    }
}

/// Asks for the state of a unit; answers for one that does not exist, too.
#[must_use]
pub fn state(unit: &str) -> Query {
    Query::new(
        Command::new("systemctl")
            .args([
                "show",
                "--property=LoadState,ActiveState,UnitFileState,FragmentPath,What,NeedDaemonReload",
            ])
            .args(["--", unit]),
    )
}

/// Reads the answer of [`state`]; `None` when systemd did not say whether the unit is loaded.
#[must_use]
pub fn parse_state(text: &str) -> Option<UnitState> {
    let fields: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let field = |name: &str| fields.get(name).map_or_else(String::new, |value| (*value).to_owned());
    fields.get("LoadState")?;
    Some(UnitState {
        load: field("LoadState"),
        active: field("ActiveState"),
        enabled: field("UnitFileState"),
        fragment: field("FragmentPath"),
        what: field("What"),
        needs_reload: field("NeedDaemonReload") == "yes",
    })
}

/// Asks for the unit file that stor would write.
#[must_use]
pub fn text_on_host(unit: &str) -> Query {
    Query::new(Command::new("cat").arg(unit_file(unit).as_str()))
}

/// Asks for the name of one entry of a directory that is not in `except`; prints nothing when there is none.
///
/// `find` stops at the first, however large the directory is.
#[must_use]
pub fn first_entry(directory: &AbsPath, except: &[&'static str]) -> Query {
    let mut find = Command::new("find").args([directory.as_str(), "-mindepth", "1", "-maxdepth", "1"]);
    for name in except {
        find = find.args(["!", "-name", name]);
    }
    Query::new(find.args(["-printf", "%f\\n", "-quit"]).deadline(Duration::from_secs(5)))
}

/// Makes a mount point; systemd would too, but then nobody would own it.
#[must_use]
pub fn make_mount_point(path: &AbsPath) -> Command {
    Command::new("mkdir").args(["-p", "--", path.as_str()])
}

/// Reads the unit file again, and has it start with the host.
#[must_use]
pub fn enable(unit: &str) -> Vec<Command> {
    vec![
        Command::new("systemctl").arg("daemon-reload"),
        Command::new("systemctl").args(["enable", "--quiet", "--", unit]),
    ]
}

/// Mounts now, and checks that the right kind of file system is there.
#[must_use]
pub fn start(unit: &str, path: &AbsPath, fs_type: &str) -> Vec<Command> {
    vec![
        Command::new("systemctl").args(["start", "--", unit]).deadline(MOUNT_DEADLINE),
        Command::new("findmnt").args(["--noheadings", "--types", fs_type, "--mountpoint", path.as_str()]),
    ]
}

/// Unmounts, as far as it is mounted; fails while a file there is open.
#[must_use]
pub fn stop(unit: &str) -> Vec<Command> {
    let (first, rest) = unit.split_at(unit.len().min(1));
    let pattern = format!("[{first}]{rest}");
    vec![Command::new("systemctl").args(["stop", "--", &pattern]).deadline(MOUNT_DEADLINE)]
}

/// Unmounts, removes the unit file and has systemd forget it; may run again after having been interrupted.
///
/// `stop` fails for a unit that does not exist, but not for a pattern that matches none; systemd takes backslashes in a
/// pattern as they are (FNM_NOESCAPE), so a pattern with its first character in brackets stands for just this unit.
#[must_use]
pub fn remove(unit: &str) -> Vec<Command> {
    let (first, rest) = unit.split_at(unit.len().min(1));
    let wants =
        ["multi-user", "remote-fs"].map(|target| format!("/etc/systemd/system/{target}.target.wants/{unit}"));
    vec![
        Command::new("systemctl").args(["stop", "--", &format!("[{first}]{rest}")]).deadline(MOUNT_DEADLINE),
        Command::new("rm").args(["-f", "--", unit_file(unit).as_str()]).args(wants),
        Command::new("systemctl").arg("daemon-reload"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_systemd_does() {
        let table = include_str!("../../fixtures/outputs/systemd-escape/debian13-systemd257-mount-paths.txt");
        let lines: Vec<_> = table.lines().collect();
        assert!(lines.len() >= 8, "{lines:?}");
        for line in lines {
            let (path, name) = line.split_once(' ').unwrap();
            assert_eq!(unit_name(&AbsPath::new(path).unwrap()), name, "{path}");
        }
    }

    #[test]
    fn a_unit_orders_libvirt_behind_the_mount_and_names_its_cluster() {
        let unit = MountUnit {
            cluster: "homelab".parse().unwrap(),
            description: "volume gfs".into(),
            source: "10.77.0.11:/gfs".into(),
            path: AbsPath::new("/var/lib/libvirt/images/gfs").unwrap(),
            fs_type: "glusterfs",
            options: vec!["_netdev".into(), "backup-volfile-servers=10.77.0.12:10.77.0.13".into()],
            after: vec!["glusterd.service"],
        };
        insta::assert_snapshot!(unit.text());
        assert_eq!(unit.file().path.as_str(), "/etc/systemd/system/var-lib-libvirt-images-gfs.mount");
    }

    #[test]
    fn a_removal_stops_just_this_unit_even_if_its_name_has_backslashes() {
        let words: Vec<_> = remove("srv-vm\\x2dstore.mount").iter().map(ToString::to_string).collect();
        assert_eq!(words[0], "systemctl stop -- [s]rv-vm\\x2dstore.mount");
        assert_eq!(words.len(), 3);
    }

    #[test]
    fn states_are_read_for_units_that_exist_and_units_that_do_not() {
        let file = |name: &str| {
            let path = format!("{}/fixtures/outputs/systemctl-show/{name}.txt", env!("CARGO_MANIFEST_DIR"));
            parse_state(&std::fs::read_to_string(path).unwrap()).unwrap()
        };
        let active = file("debian13-systemd257-mount-active");
        assert!(active.is_active() && active.is_enabled() && active.exists() && !active.needs_reload);
        assert_eq!(active.what, "10.77.0.11:/gfs");
        for release in ["debian13-systemd257", "debian12-systemd252"] {
            let mounted = file(&format!("{release}-nfs-mounted"));
            assert!(mounted.is_active() && mounted.is_enabled(), "{release}");
            assert_eq!(mounted.what, "10.78.0.11:/srv/vmstore");
            let manual = file(&format!("{release}-nfs-by-hand"));
            assert!(manual.is_active() && !manual.is_enabled() && manual.fragment.is_empty(), "{release}");
        }
        let manual = file("debian13-systemd257-mount-by-hand");
        assert!(manual.is_active() && !manual.is_enabled());
        assert_eq!((manual.fragment.as_str(), manual.what.as_str()), ("", "10.77.0.12:gfs"));
        let fstab = file("debian13-systemd257-mount-fstab");
        assert_eq!((fstab.enabled.as_str(), fstab.active.as_str()), ("generated", "inactive"));
        assert!(!file("debian13-systemd257-absent").exists());
        assert!(file("debian13-systemd257-mount-edited").needs_reload);
        assert_eq!(parse_state("Failed to connect to bus"), None);
    }
}
