//! The ssh configuration that stor generates, and where it and the control sockets live.
//!
//! One file with a block per host, stricter than any user's, followed by the user's own configuration: ssh takes the
//! first value that it finds, so jump hosts, ciphers and agents of the user still hold. Imports `spec` and `model`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{HostError, quote};
use crate::model::HostId;
use crate::model::{ClusterName, Elevation, HostSpec};

/// The longest directory for control sockets: `sun_path` has 108 bytes with a NUL; ssh needs 10 for the context, 40
/// for `%C` and 17 for its temporary name (`muxserver_listen` in OpenSSH's mux.c), and a slash.
const SOCKET_DIR_MAX: usize = 108 - 1 - 10 - 40 - 17 - 1;
/// How long a master stays after its last session, in seconds.
const PERSIST: u32 = 60;
/// How long connecting may take, in seconds.
pub(super) const CONNECT_TIMEOUT: u32 = 10;

/// How this run of stor logs in, beyond what the cluster file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAccess {
    /// Directory for the generated configuration and the control sockets; made with mode 0700.
    pub runtime_dir: PathBuf,
    /// Host keys; absent = the user's own.
    pub known_hosts: Option<PathBuf>,
    /// Private key in place of the cluster file's.
    pub identity: Option<PathBuf>,
    /// Login name in place of the cluster file's; as `root` nothing is elevated.
    pub user: Option<String>,
}

impl SshAccess {
    /// The access of a user to real hosts; runtime files in `$XDG_RUNTIME_DIR/stor` or `~/.cache/stor/run`.
    ///
    /// # Errors
    /// [`HostError::Local`] when neither directory is known.
    pub fn of_user() -> Result<Self, HostError> {
        let directory =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let runtime_dir = directory("XDG_RUNTIME_DIR")
            .map(|path| path.join("stor"))
            .or_else(|| directory("HOME").map(|path| path.join(".cache/stor/run")))
            .ok_or_else(|| {
                local(
                    "choose a runtime directory",
                    io::Error::other("neither XDG_RUNTIME_DIR nor HOME is set"),
                )
            })?;
        Ok(Self { runtime_dir, known_hosts: None, identity: None, user: None })
    }
}

/// The generated configuration, for everything that starts ssh: stor's hosts and libvirt.
#[derive(Debug, Clone)]
pub struct SshConfig {
    config: PathBuf,
    wrappers: BTreeMap<HostId, PathBuf>,
}

impl SshConfig {
    /// The file for `ssh -F`, in which each host is known by its name.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The programs of all hosts for `?command=`.
    #[must_use]
    pub fn wrappers(&self) -> &BTreeMap<HostId, PathBuf> {
        &self.wrappers
    }

    /// The program for `?command=` of a `qemu+ssh` URI: ssh with this configuration, as root on the host.
    #[must_use]
    pub fn wrapper(&self, host: &HostId) -> Option<&Path> {
        self.wrappers.get(host).map(PathBuf::as_path)
    }

    /// Ends all masters of this configuration; hosts without one are passed over.
    ///
    /// # Errors
    /// [`HostError::Local`] when ssh cannot be started.
    pub fn close_masters(&self) -> Result<(), HostError> {
        for host in self.wrappers.keys() {
            super::process::control(&self.config, host, "exit")?;
        }
        Ok(())
    }
}

/// Writes the configuration of a cluster, with one wrapper for libvirt per way to become root.
pub(super) fn write(
    cluster: &ClusterName,
    hosts: &BTreeMap<HostId, HostSpec>,
    access: &SshAccess,
) -> Result<SshConfig, HostError> {
    make_private(&access.runtime_dir)?;
    let sockets = socket_dir(&access.runtime_dir)?;
    let context = context(access)?;
    let text = render(cluster, hosts, access, &sockets, &context)?;
    let name = |suffix: &str| access.runtime_dir.join(format!("{}-{context}{suffix}", cluster));
    let config = name(".conf");
    put(&config, &text, 0o600)?;
    let mut wrappers = BTreeMap::new();
    for host in hosts.values() {
        let (path, prefix) = match elevation(host, access) {
            Elevation::Root => (name("-root.sh"), ""),
            Elevation::Sudo => (name("-sudo.sh"), "sudo -n "),
        };
        put(&path, &wrapper(&config, prefix)?, 0o700)?;
        wrappers.insert(host.id.clone(), path);
    }
    Ok(SshConfig { config, wrappers })
}

/// How commands become root on a host.
pub(super) fn elevation(host: &HostSpec, access: &SshAccess) -> Elevation {
    match access.user.as_deref() {
        Some("root") => Elevation::Root,
        _ => host.ssh.elevation,
    }
}

fn render(
    cluster: &ClusterName,
    hosts: &BTreeMap<HostId, HostSpec>,
    access: &SshAccess,
    sockets: &Path,
    context: &str,
) -> Result<String, HostError> {
    let mut out = format!("# Written by stor for cluster {}; changes are lost.\n", cluster);
    let mut push = |line: String| {
        out.push_str(&line);
        out.push('\n');
    };
    for host in hosts.values() {
        let address = checked(&host.address)?;
        if hosts.keys().any(|other| *other != host.id && other.as_str() == address) {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it is the name of another host");
            return Err(local(format!("use address {address} of host {}", host.id), error));
        }
        push(format!("Host {}\n  HostName {address}", host.id));
        if let Some(user) = access.user.as_ref().or(host.ssh.user.as_ref()) {
            push(format!("  User {}", checked(user)?));
        }
        if let Some(port) = host.ssh.port {
            push(format!("  Port {port}"));
        }
        if let Some(file) = access.identity.as_ref().or(host.ssh.identity_file.as_ref()) {
            push(format!("  IdentityFile {}\n  IdentitiesOnly yes", path_word(file)?));
        }
    }
    push("Match all".to_owned());
    if let Some(file) = &access.known_hosts {
        push(format!("  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null", path_word(file)?));
    }
    push(format!(
        "  ControlPath {}",
        path_word(&sockets.join(context))?.replace(context, &format!("{context}-%C"))
    ));
    push(format!("  ControlPersist {PERSIST}\n  ConnectTimeout {CONNECT_TIMEOUT}"));
    push(FIXED.trim_end().to_owned());
    Ok(out)
}

/// What no user's configuration may change: no questions, no unknown host keys, nothing forwarded, no own command.
/// A silent link is given up after 45 s. `Match final` makes ssh read everything once more with the host's address in place
/// of its name, so that a user's `Host ADDRESS` block counts too.
const FIXED: &str = "  ControlMaster auto
  BatchMode yes
  StrictHostKeyChecking yes
  UpdateHostKeys no
  NumberOfPasswordPrompts 0
  ServerAliveInterval 15
  ServerAliveCountMax 3
  LogLevel ERROR
  RequestTTY no
  RemoteCommand none
  PermitLocalCommand no
  ClearAllForwardings yes
  ForwardAgent no
  ForwardX11 no
  VisualHostKey no
Match all
Include ~/.ssh/config
Match all
Include /etc/ssh/ssh_config
Match final all
";

/// libvirt calls `COMMAND [-p PORT] [-l USER] [-T -e none] -- HOST 'sh -c ...'` (`virNetSocketNewConnectSSH`): the last
/// argument is what runs on the host. Only an existing master is used: a new one would outlive libvirt's pipes.
fn wrapper(config: &Path, prefix: &str) -> Result<String, HostError> {
    let config = config.to_str().ok_or_else(|| odd(config))?;
    Ok(format!(
        "#!/bin/sh\n# Written by stor: ssh for libvirt's ?command=.\nn=$#\nwhile [ \"$n\" -gt 1 ]; do\n  word=$1; shift\n  \
         set -- \"$@\" \"$word\"\n  n=$((n - 1))\ndone\nlast=$1; shift\n\
         exec ssh -F {} -o ControlMaster=no \"$@\" \"{prefix}$last\"\n",
        quote::word(config)
    ))
}

/// Tells ways to reach the same address apart: another key, other host keys, another network namespace (the lab's).
fn context(access: &SshAccess) -> Result<String, HostError> {
    let mut hasher = DefaultHasher::new();
    access.hash_into(&mut hasher);
    let namespace =
        fs::metadata("/proc/self/ns/net").map_err(|error| local("read /proc/self/ns/net", error))?;
    namespace.ino().hash(&mut hasher);
    Ok(format!("{:08x}", hasher.finish() as u32))
}

impl SshAccess {
    fn hash_into(&self, hasher: &mut impl Hasher) {
        (&self.runtime_dir, &self.known_hosts, &self.identity, &self.user).hash(hasher);
    }
}

/// The directory for control sockets: `runtime_dir`, or a private one under /tmp where that path is too long.
fn socket_dir(runtime_dir: &Path) -> Result<PathBuf, HostError> {
    if runtime_dir.as_os_str().len() <= SOCKET_DIR_MAX {
        return Ok(runtime_dir.to_owned());
    }
    let short = PathBuf::from(format!("/tmp/stor-{}", nix::unistd::geteuid()));
    make_private(&short)?;
    Ok(short)
}

/// Makes a directory that only this user can enter, or refuses one that somebody else made.
fn make_private(path: &Path) -> Result<(), HostError> {
    let action = || format!("use the runtime directory {}", path.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| local(action(), error))?;
    let found = fs::symlink_metadata(path).map_err(|error| local(action(), error))?;
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
        let error = io::Error::new(io::ErrorKind::PermissionDenied, "it is not a directory of this user");
        return Err(local(action(), error));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|error| local(action(), error))?;
    }
    Ok(())
}

/// Writes a file by renaming, unless it holds the text already: another stor may be reading it.
fn put(path: &Path, text: &str, mode: u32) -> Result<(), HostError> {
    let action = || format!("write {}", path.display());
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(|error| local(action(), error))?;
    io::Write::write_all(&mut file, text.as_bytes()).map_err(|error| local(action(), error))?;
    fs::set_permissions(file.path(), fs::Permissions::from_mode(mode))
        .map_err(|error| local(action(), error))?;
    file.persist(path).map_err(|error| local(action(), error.error))?;
    Ok(())
}

/// A word of the configuration that needs no quoting.
fn checked(word: &str) -> Result<&str, HostError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:@-".contains(c);
    if !word.is_empty() && !word.starts_with('-') && word.chars().all(plain) {
        return Ok(word);
    }
    let error =
        io::Error::new(io::ErrorKind::InvalidInput, "it has a character that ssh_config gives a meaning");
    Err(local(format!("write {word:?} into the ssh configuration"), error))
}

/// A path in the configuration: in double quotes, with `%` doubled (`ssh_config(5)`, TOKENS).
fn path_word(path: &Path) -> Result<String, HostError> {
    let text = path.to_str().filter(|text| !text.contains(['"', '\n', '\\'])).ok_or_else(|| odd(path))?;
    let mut word = String::new();
    #[expect(clippy::expect_used, reason = "writing to a String cannot fail")]
    write!(word, "\"{}\"", text.replace('%', "%%")).expect("a String takes any text");
    Ok(word)
}

fn odd(path: &Path) -> HostError {
    let error = io::Error::new(io::ErrorKind::InvalidInput, "the path has a quote, a backslash or no UTF-8");
    local(format!("write {} into the ssh configuration", path.display()), error)
}

fn local(action: impl Into<String>, source: io::Error) -> HostError {
    HostError::Local { action: action.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_argument_of_the_wrapper_is_elevated() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("ssh");
        fs::write(&bin, "#!/bin/sh\nfor a; do printf '[%s]' \"$a\"; done\n").unwrap();
        fs::set_permissions(&bin, fs::Permissions::from_mode(0o755)).unwrap();
        let script = dir.path().join("wrapper");
        put(&script, &wrapper(Path::new("/run/a b/x.conf"), "sudo -n ").unwrap(), 0o700).unwrap();
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        let shown = duct::cmd(&script, ["-T", "-e", "none", "--", "10.0.0.1", "sh -c 'if x; then y; fi'"])
            .env("PATH", path)
            .read()
            .unwrap();
        assert_eq!(
            shown,
            "[-F][/run/a b/x.conf][-o][ControlMaster=no][-T][-e][none][--][10.0.0.1][sudo -n sh -c 'if x; then y; fi']"
        );
    }

    #[test]
    fn words_with_a_meaning_for_ssh_are_refused() {
        for bad in ["", "-oProxyCommand=x", "a b", "a\"b", "!a", "a*", "a\nb", "a,b", "a%h"] {
            assert!(checked(bad).is_err(), "{bad:?}");
        }
        assert_eq!(path_word(Path::new("/a b/%h")).unwrap(), "\"/a b/%%h\"");
        assert!(path_word(Path::new("/a\"b")).is_err());
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert!(matches!(make_private(&link), Err(HostError::Local { .. })));
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        make_private(&open).unwrap();
        assert_eq!(fs::metadata(&open).unwrap().mode() & 0o777, 0o700);
    }
}
