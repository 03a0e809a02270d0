//! Builds one root in a workshop directory: mmdebstrap, then packages to offer, the guest, and what makes it a lab's.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{packages, recipe};
use crate::{
    lab::{LabError, LabEvent, guest, process, process::word, state},
    model::{Cancel, Command},
};

/// How long mmdebstrap may take, most of which is the mirror's.
const BOOTSTRAP: Duration = Duration::from_secs(30 * 60);

/// Builds a root below `workshop` and gives its path.
///
/// # Errors
/// [`LabError::Command`] when a tool fails, [`LabError::System`], [`LabError::Cancelled`].
pub(super) fn root(
    workshop: &Path,
    mirror: &str,
    cancel: &Cancel,
    progress: &mut dyn FnMut(LabEvent),
) -> Result<PathBuf, LabError> {
    let root = workshop.join("root");
    let mut stage = |stage: RootStage| {
        progress(LabEvent::RootBuilding { stage });
        if cancel.is_cancelled() { Err(LabError::Cancelled) } else { Ok(()) }
    };
    stage(RootStage::Bootstrap)?;
    process::run(&bootstrap(&root, workshop, mirror))?;
    stage(RootStage::Packages)?;
    let apt = packages::Apt::outside(workshop, &root)?;
    apt.offer(&root)?;
    stage(RootStage::Guest)?;
    let kernel = apt.kernel(workshop)?;
    guest::build(&kernel, workshop, &root, &root.join(recipe::GUEST))?;
    stage(RootStage::Customise)?;
    customise(&root)?;
    Ok(root)
}

/// What a build is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootStage {
    /// Installing Debian.
    Bootstrap,
    /// Downloading the packages that hosts can install.
    Packages,
    /// Making the heartbeat guest.
    Guest,
    /// Making it a lab's.
    Customise,
}

impl std::fmt::Display for RootStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bootstrap => "installing Debian (a minute or two)",
            Self::Packages => "downloading the storage packages that hosts can install",
            Self::Guest => "making the heartbeat guest",
            Self::Customise => "finishing the root",
        })
    }
}

/// Words that run others in a process namespace of their own, so that everything they start ends with stor, even when
/// stor is killed: mmdebstrap does not pass signals on to what it started.
pub(super) fn contained() -> Command {
    Command::new("setpriv").args([
        "--pdeathsig",
        "KILL",
        "unshare",
        "--fork",
        "--pid",
        "--mount-proc",
        "--kill-child=KILL",
        "--",
    ])
}

/// The words that make a Debian root. What mmdebstrap keeps for a while (apt's keyring) stands in the workshop too, which is
/// removed as a whole even after a build that was killed.
fn bootstrap(root: &Path, workshop: &Path, mirror: &str) -> Command {
    let option = |kind: &'static str| move |text: &&str| format!("--{kind}={text}");
    contained()
        .args([
            "env",
            &format!("TMPDIR={}", word(workshop)),
            "mmdebstrap",
            "--quiet",
            "--mode=root",
            "--variant=minbase",
        ])
        .arg("--skip=cleanup/apt/lists")
        .args(recipe::APT_OPTIONS.iter().map(option("aptopt")))
        .args(recipe::DPKG_OPTIONS.iter().map(option("dpkgopt")))
        .arg(format!("--include={}", recipe::INSTALLED.join(",")))
        .args([recipe::SUITE, &word(root), &format!("deb {mirror} {} main", recipe::SUITE)])
        .deadline(BOOTSTRAP)
}

fn customise(root: &Path) -> Result<(), LabError> {
    for path in recipe::REMOVED {
        state::remove(&root.join(path))?;
    }
    for unit in recipe::MASKED {
        let link = root.join("etc/systemd/system").join(unit);
        state::remove(&link)?;
        symlink("/dev/null", &link).map_err(LabError::system(format!("mask {unit}")))?;
    }
    // The mirror's lists go; the offered packages' come.
    state::remove(&root.join("var/lib/apt/lists"))?;
    state::make_directory(&root.join("var/lib/apt/lists/partial"), 0o755)?;
    for (path, lines) in recipe::APPENDED {
        append(&root.join(path), lines)?;
    }
    process::run(&Command::new("chroot").args([&word(root), "apt-get", "update"])).map(drop)
}

fn append(path: &Path, lines: &str) -> Result<(), LabError> {
    let write = || OpenOptions::new().create(true).append(true).open(path)?.write_all(lines.as_bytes());
    write().map_err(LabError::system(format!("write {}", path.display())))
}

/// The files of a directory whose names end so, sorted.
pub(super) fn files_with_suffix(directory: &Path, suffix: &str) -> Result<Vec<PathBuf>, LabError> {
    let names = state::directory_names(directory)?;
    Ok(names.iter().filter(|name| name.ends_with(suffix)).map(|name| directory.join(name)).collect())
}

/// Moves files into a directory on the same file system.
pub(super) fn move_into(directory: &Path, files: &[PathBuf]) -> Result<(), LabError> {
    state::make_directory(directory, 0o755)?;
    for file in files {
        let name = file.file_name().unwrap_or_default();
        fs::rename(file, directory.join(name))
            .map_err(LabError::system(format!("move {}", file.display())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootstrap_installs_the_list_from_the_mirror() {
        let command = bootstrap(Path::new("/c/root"), Path::new("/c"), "http://mirror/debian");
        let words = command.args;
        assert!(words.contains(&"--aptopt=APT::Install-Recommends \"false\"".to_owned()), "{words:?}");
        assert_eq!(words[words.len() - 3..], ["trixie", "/c/root", "deb http://mirror/debian trixie main"]);
    }
}
