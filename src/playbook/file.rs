//! What a playbook says. Strict: unknown and duplicate keys are errors that show the line.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::model::{GuestId, HostId};

/// Says why there is no playbook.
#[derive(Debug, thiserror::Error)]
pub enum PlaybookError {
    /// The file cannot be read.
    #[error("playbook {}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What it says is no playbook.
    #[error("playbook {}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the lines around it.
        reason: String,
    },
}

/// A playbook.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Playbook {
    /// Format; 1.
    pub version: u32,
    /// What it is for, in one line.
    pub title: String,
    /// The cluster file, relative to the playbook.
    pub cluster: PathBuf,
    /// Steps, in order.
    pub steps: Vec<Action>,
    /// The text, which tells one version of a playbook from another.
    #[serde(skip)]
    pub text: String,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Makes every host match the file; safe steps only.
    Apply(Nothing),
    /// Proves that all hypervisors reach the same images.
    Verify(Nothing),
    /// Starts a guest where it is defined.
    Start(Guest),
    /// Moves a guest; nothing to do when it is there already.
    Migrate(Migrate),
    /// Looks whether something is as it should be.
    Expect(Expect),
}

/// A step without parameters: `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// A step about one guest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// The guest.
    pub guest: GuestId,
}

/// What `migrate` takes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Migrate {
    /// The guest.
    pub guest: GuestId,
    /// Where to.
    pub to: HostId,
    /// An address of the guest to ping meanwhile.
    #[serde(default)]
    pub ping: Option<IpAddr>,
}

/// What can be expected.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expect {
    /// Nothing is left to apply.
    PlanEmpty(Nothing),
    /// A guest runs on this host and on no other.
    RunsOn(RunsOn),
    /// The guest's heartbeat on its image is without gap, repeat or second writer.
    Heartbeat(Beats),
}

/// What `runs-on` takes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunsOn {
    /// The guest.
    pub guest: GuestId,
    /// The host.
    pub host: HostId,
}

/// What `heartbeat` takes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beats {
    /// The guest.
    pub guest: GuestId,
    /// Beats that must be there at least.
    pub beats: u64,
    /// How long to wait for them, in seconds.
    pub within: u64,
}

impl Action {
    /// The step in words.
    #[must_use]
    pub fn title(&self) -> String {
        match self {
            Self::Apply(_) => "apply the cluster file".to_owned(),
            Self::Verify(_) => "verify that every hypervisor reaches the same images".to_owned(),
            Self::Start(start) => format!("start guest {}", start.guest),
            Self::Migrate(migrate) => format!("migrate guest {} to {}", migrate.guest, migrate.to),
            Self::Expect(Expect::PlanEmpty(_)) => "expect that nothing is left to apply".to_owned(),
            Self::Expect(Expect::RunsOn(at)) => format!("expect guest {} on {} only", at.guest, at.host),
            Self::Expect(Expect::Heartbeat(beats)) => {
                format!(
                    "expect an unbroken heartbeat of guest {} ({} beats or more)",
                    beats.guest, beats.beats
                )
            }
        }
    }
}

/// Loads a playbook.
///
/// # Errors
/// [`PlaybookError`]
pub fn load(path: &Path) -> Result<Playbook, PlaybookError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| PlaybookError::Read { path: path.to_path_buf(), source })?;
    let invalid = |reason: String| PlaybookError::Invalid { path: path.to_path_buf(), reason };
    let mut playbook: Playbook = serde_saphyr::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    if playbook.version != 1 {
        return Err(invalid(format!("version {} is unknown: this stor reads version 1", playbook.version)));
    }
    playbook.text = text;
    Ok(playbook)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> Result<Playbook, PlaybookError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        load(file.path())
    }

    #[test]
    fn the_demo_is_a_playbook() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/playbooks/gluster-live-migration/playbook.yaml");
        let playbook = load(Path::new(path)).unwrap();
        assert_eq!(playbook.cluster, Path::new("cluster.yaml"));
        assert!(playbook.steps.iter().any(|step| matches!(step, Action::Migrate(_))));
    }

    #[test]
    fn unknown_keys_steps_and_versions_are_refused() {
        let head = "version: 1\ntitle: t\ncluster: c.yaml\nsteps:\n";
        for bad in [
            "  - aply: {}\n",
            "  - apply: { force: true }\n",
            "  - start: { guest: \"web;1\" }\n",
            "  - migrate: { guest: web1 }\n",
        ] {
            assert!(load_text(&format!("{head}{bad}")).is_err(), "{bad}");
        }
        assert!(load_text(&format!("{head}  - apply: {{}}\n").replace("version: 1", "version: 2")).is_err());
        assert!(load_text(&format!("{head}  - apply: {{}}\n")).is_ok());
    }
}
