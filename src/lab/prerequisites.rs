//! What the lab needs of this machine, each tried for real before anything is changed.

use std::{
    ffi::CString,
    fs::{self, OpenOptions},
    io::ErrorKind,
    path::Path,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::statvfs::statvfs,
    unistd::geteuid,
};

use super::{LabError, boot, group::Groups, process, settings::Settings, state};
use crate::model::ByteSize;

/// What a lab of a few hosts, or a root, takes at most while it is made.
const SPACE: u64 = 3 << 30;

/// The programs that a lab uses, each with its Debian package.
const TOOLS: [(&str, &str); 7] = [
    ("systemd-nspawn", "systemd-container"),
    ("ip", "iproute2"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("env", "coreutils"),
    ("setsid", "util-linux"),
    ("chroot", "coreutils"),
];

/// The programs that building a root uses besides.
const BUILD_TOOLS: [(&str, &str); 7] = [
    ("mmdebstrap", "mmdebstrap"),
    ("gcc", "gcc libc6-dev"),
    ("apt-get", "apt"),
    ("apt-cache", "apt"),
    ("dpkg-deb", "dpkg"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
];

/// Makes sure that hosts can be started here.
///
/// # Errors
/// The first thing that is missing.
pub(super) fn check(settings: &Settings) -> Result<Groups, LabError> {
    if !cfg!(target_arch = "x86_64") {
        return Err(LabError::Architecture);
    }
    check_root()?;
    settings.check()?;
    check_tools(&TOOLS)?;
    check_device(
        "/dev/fuse",
        "FUSE (/dev/fuse)",
        "modprobe fuse; in a container, pass the device /dev/fuse in",
    )?;
    check_device(
        "/dev/net/tun",
        "TUN/TAP (/dev/net/tun)",
        "modprobe tun; in a container, pass the device /dev/net/tun in",
    )?;
    let groups = Groups::find()?;
    try_aside(try_network)?;
    fs::create_dir_all(&settings.labs)
        .map_err(LabError::system(format!("make directory {}", settings.labs.display())))?;
    let usable = check_space(&settings.labs).and_then(|()| try_aside(|| try_overlay(&settings.labs)));
    if usable.is_err() {
        state::remove_if_empty(&settings.labs)?;
    }
    usable.map(|()| groups)
}

/// Makes sure that a root can be built here.
///
/// # Errors
/// The first thing that is missing.
pub(super) fn check_build(settings: &Settings) -> Result<(), LabError> {
    check_tools(&BUILD_TOOLS)?;
    check_space(&settings.cache)
}

/// Makes sure that the caller may touch namespaces and containers.
///
/// # Errors
/// [`LabError::NotRoot`].
pub(super) fn check_root() -> Result<(), LabError> {
    if geteuid().is_root() { Ok(()) } else { Err(LabError::NotRoot) }
}

fn check_tools(tools: &[(&'static str, &'static str)]) -> Result<(), LabError> {
    match tools.iter().find(|(tool, _)| !process::is_installed(tool)) {
        Some(&(tool, package)) => Err(LabError::MissingTool { tool, package }),
        None => Ok(()),
    }
}

/// Opening the device also loads the module that it needs, as for everybody who opens it.
fn check_device(path: &str, what: &'static str, hint: &'static str) -> Result<(), LabError> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Ok(()),
        Err(source) => Err(LabError::Unsupported { what, hint, source }),
    }
}

fn check_space(path: &Path) -> Result<(), LabError> {
    let found = statvfs(path).map_err(LabError::errno(format!("measure {}", path.display())))?;
    let free = found.blocks_available().saturating_mul(found.fragment_size());
    if free >= SPACE {
        return Ok(());
    }
    // Whole MiB read better than bytes.
    let [free, needed] = [free >> 20 << 20, SPACE].map(ByteSize::from_bytes);
    Err(LabError::Space { path: path.into(), free, needed })
}

/// Runs a trial in a thread of its own: what it changes about its namespaces ends with it.
fn try_aside(trial: impl FnOnce() -> Result<(), LabError> + Send) -> Result<(), LabError> {
    std::thread::scope(|scope| {
        scope.spawn(trial).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn try_network() -> Result<(), LabError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| LabError::Unsupported {
        what: "network namespaces",
        hint: "run stor where CAP_SYS_ADMIN is granted; in a container: a privileged one",
        source: errno.into(),
    })
}

fn try_overlay(labs: &Path) -> Result<(), LabError> {
    let place = tempfile::Builder::new()
        .prefix(".trial-")
        .tempdir_in(labs)
        .map_err(LabError::system(format!("write in {}", labs.display())))?;
    let mut layers = Vec::new();
    for name in ["lower", "upper", "work", "merged"] {
        let layer = place.path().join(name);
        fs::create_dir(&layer).map_err(LabError::system(format!("write in {}", labs.display())))?;
        layers.push(layer);
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={},volatile",
        layers[0].display(),
        layers[1].display(),
        layers[2].display()
    );
    let unsupported = |source: std::io::Error| LabError::Unsupported {
        what: "overlay mounts over the directory of the labs",
        hint: "the directory must be on a disk file system such as ext4, not on an overlay: set STOR_LAB_DIR",
        source,
    };
    boot::leave_mounts()?;
    let options = CString::new(options).map_err(|_| unsupported(ErrorKind::InvalidInput.into()))?;
    mount(Some("overlay"), &layers[3], Some("overlay"), MsFlags::empty(), Some(options.as_c_str()))
        .map_err(|errno| unsupported(errno.into()))?;
    // The mount would otherwise last until the thread has ended, and keep the directory.
    nix::mount::umount(&layers[3]).map_err(LabError::errno("unmount a trial overlay"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_tool_is_named_with_its_package() {
        let error = check_tools(&[("sh", "dash"), ("no-such-program", "no-such-package")]).unwrap_err();
        assert!(matches!(
            error,
            LabError::MissingTool { tool: "no-such-program", package: "no-such-package" }
        ));
        assert_eq!(error.hint().unwrap(), "apt-get install no-such-package");
    }

    #[test]
    fn missing_device_is_unsupported() {
        let error = check_device("/dev/no-such-device", "a device", "get one").unwrap_err();
        assert_eq!(error.to_string(), "the lab needs a device, which this machine does not offer");
    }
}
