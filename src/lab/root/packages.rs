//! Packages that a root offers without installing them, and the kernel for its guest, fetched by apt from outside.
//!
//! apt of this machine works on the root's lists and status, as mmdebstrap has it do; so the root needs no network.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{build, recipe};
use crate::{
    lab::{LabError, process, process::word, state},
    model::Command,
};

/// How long one download may take.
const DOWNLOAD: Duration = Duration::from_secs(15 * 60);

/// apt of this machine, turned to a root.
#[derive(Debug)]
pub(super) struct Apt {
    configuration: PathBuf,
    root: PathBuf,
}

impl Apt {
    /// Writes the configuration that turns apt to `root`.
    ///
    /// # Errors
    /// [`LabError::System`].
    pub fn outside(workshop: &Path, root: &Path) -> Result<Self, LabError> {
        let configuration = workshop.join("apt.conf");
        let text = format!(
            "Dir \"{root}\";\nDir::State::status \"{root}/var/lib/dpkg/status\";\n\
             APT::Architecture \"amd64\";\nAPT::Architectures \"amd64\";\nAPT::Sandbox::User \"root\";\n",
            root = root.display()
        );
        state::write(&configuration, text, 0o644)?;
        Ok(Self { configuration, root: root.into() })
    }

    /// Puts the packages that hosts can install, with what they depend on, into the root's own repository.
    ///
    /// # Errors
    /// [`LabError::Command`] when a package is not in the release, or the mirror fails.
    pub fn offer(&self, root: &Path) -> Result<(), LabError> {
        let install = ["apt-get", "--yes", "--quiet", "--download-only", "install"];
        process::run(&self.command(&install).args(recipe::OFFERED.iter().copied()).deadline(DOWNLOAD))?;
        let repository = root.join(recipe::REPOSITORY);
        let downloaded = build::files_with_suffix(&self.root.join("var/cache/apt/archives"), ".deb")?;
        build::move_into(&repository, &downloaded)?;
        let index = index(&build::files_with_suffix(&repository, ".deb")?)?;
        state::write(&repository.join("Packages"), index, 0o644)
    }

    /// Unpacks the newest kernel of the release below `workshop` and gives the directory.
    ///
    /// # Errors
    /// [`LabError::Command`], or [`LabError::Guest`] when the release has no such kernel.
    pub fn kernel(&self, workshop: &Path) -> Result<PathBuf, LabError> {
        let shown = process::run(&self.command(&["apt-cache", "depends", "--important", recipe::KERNEL]))?;
        let package = first_dependency(&shown.stdout)
            .ok_or_else(|| LabError::Guest { reason: format!("{} depends on no kernel", recipe::KERNEL) })?;
        let chdir = format!("--chdir={}", word(workshop));
        process::run(&self.with(&[&chdir], &["apt-get", "--quiet", "download", package]).deadline(DOWNLOAD))?;
        let unpacked = workshop.join("kernel");
        for archive in build::files_with_suffix(workshop, ".deb")? {
            process::run(&Command::new("dpkg-deb").args(["--extract", &word(&archive), &word(&unpacked)]))?;
        }
        Ok(unpacked)
    }

    fn command(&self, words: &[&str]) -> Command {
        self.with(&[], words)
    }

    fn with(&self, env_options: &[&str], words: &[&str]) -> Command {
        build::contained()
            .arg("env")
            .args(env_options.iter().copied())
            .arg(format!("APT_CONFIG={}", word(&self.configuration)))
            .args(words.iter().copied())
    }
}

/// The index by which apt finds the archives (deb822, Debian's repository format): each one's own description, its
/// name, size and digest.
fn index(archives: &[PathBuf]) -> Result<String, LabError> {
    let digests = process::run(&Command::new("sha256sum").args(archives.iter().map(|path| word(path))))?;
    let digests = digests_by_path(&digests.stdout);
    let mut index = String::new();
    for archive in archives {
        let name = archive.file_name().unwrap_or_default().to_string_lossy();
        let size = fs::metadata(archive).map_err(LabError::system(format!("measure {name}")))?.len();
        let digest = digests
            .get(word(archive).as_str())
            .ok_or_else(|| LabError::Guest { reason: format!("sha256sum gave no digest of {name}") })?;
        let described = process::run(&Command::new("dpkg-deb").args(["--field", &word(archive)]))?;
        let description = described.stdout.trim_end();
        index += &format!("{description}\nFilename: ./{name}\nSize: {size}\nSHA256: {digest}\n\n");
    }
    Ok(index)
}

/// Reads what sha256sum prints: digest, two blanks, path.
fn digests_by_path(printed: &str) -> BTreeMap<&str, &str> {
    printed.lines().filter_map(|line| line.split_once("  ")).map(|(digest, path)| (path, digest)).collect()
}

/// Reads the first dependency out of what `apt-cache depends` prints.
fn first_dependency(printed: &str) -> Option<&str> {
    printed.lines().find_map(|line| line.trim().strip_prefix("Depends: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_is_the_first_dependency() {
        let printed = "linux-image-cloud-amd64\n  Depends: linux-image-6.12.107+deb13-cloud-amd64\n";
        assert_eq!(first_dependency(printed), Some("linux-image-6.12.107+deb13-cloud-amd64"));
        assert_eq!(first_dependency("linux-image-cloud-amd64\n"), None);
    }

    #[test]
    fn digests_are_found_by_path() {
        let printed = "aa11  /r/a_1%3a2_amd64.deb\nbb22  /r/b_1_all.deb\n";
        assert_eq!(digests_by_path(printed)["/r/b_1_all.deb"], "bb22");
    }
}
