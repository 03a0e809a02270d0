//! What a playbook says. Strict: unknown and duplicate keys are errors that show the line.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::{GuestId, HostId};
use crate::spec::Cluster;

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
    /// A step names what the cluster file does not have.
    #[error("step {number} ({title}): the cluster file has no {kind} {name}")]
    Unknown {
        /// The step, from 1.
        number: usize,
        /// The step in words.
        title: String,
        /// `guest` or `hypervisor`.
        kind: &'static str,
        /// What it names.
        name: String,
        /// What the file has.
        known: Vec<String>,
    },
}

impl PlaybookError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { kind, known, .. } => Some(format!("its {kind}s are {}", known.join(", "))),
            Self::Invalid { .. } => Some("`stor schema playbook` prints what a playbook may say".to_owned()),
            Self::Read { .. } => None,
        }
    }
}

/// A playbook.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// A step about one guest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// The guest.
    #[schemars(with = "String")]
    pub guest: GuestId,
}

/// What `migrate` takes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Migrate {
    /// The guest.
    #[schemars(with = "String")]
    pub guest: GuestId,
    /// Where to.
    #[schemars(with = "String")]
    pub to: HostId,
    /// An address of the guest to ping meanwhile; not with `cold`.
    #[serde(default)]
    pub ping: Option<IpAddr>,
    /// Moves the guest shut off; one that runs is shut down first and runs again at the destination. Its power is never cut.
    #[serde(default)]
    pub cold: bool,
}

/// What can be expected.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunsOn {
    /// The guest.
    #[schemars(with = "String")]
    pub guest: GuestId,
    /// The host.
    #[schemars(with = "String")]
    pub host: HostId,
}

/// What `heartbeat` takes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Beats {
    /// The guest.
    #[schemars(with = "String")]
    pub guest: GuestId,
    /// Beats that must be there at least.
    pub beats: u64,
    /// How long to wait for them, in seconds.
    pub within: u64,
}

impl Playbook {
    /// Checks that the cluster file has what the steps name, before the first of them runs.
    ///
    /// # Errors
    /// [`PlaybookError::Unknown`]
    pub fn check(&self, cluster: &Cluster) -> Result<(), PlaybookError> {
        let guests: Vec<&str> = cluster.guests.keys().map(GuestId::as_str).collect();
        let hypervisors: Vec<&str> = cluster.hypervisors().map(|host| host.id.as_str()).collect();
        for (index, action) in self.steps.iter().enumerate() {
            let (guest, host) = action.names();
            let named = [
                ("guest", guest.map(GuestId::as_str), &guests),
                ("hypervisor", host.map(HostId::as_str), &hypervisors),
            ];
            for (kind, name, known) in named {
                let Some(name) = name.filter(|name| !known.contains(name)) else { continue };
                return Err(PlaybookError::Unknown {
                    number: index + 1,
                    title: action.title(),
                    kind,
                    name: name.to_owned(),
                    known: known.iter().map(|&name| name.to_owned()).collect(),
                });
            }
        }
        Ok(())
    }
}

impl Action {
    /// The guest and the host that the step is about.
    fn names(&self) -> (Option<&GuestId>, Option<&HostId>) {
        match self {
            Self::Apply(_) | Self::Verify(_) | Self::Expect(Expect::PlanEmpty(_)) => (None, None),
            Self::Start(start) => (Some(&start.guest), None),
            Self::Migrate(migrate) => (Some(&migrate.guest), Some(&migrate.to)),
            Self::Expect(Expect::RunsOn(at)) => (Some(&at.guest), Some(&at.host)),
            Self::Expect(Expect::Heartbeat(beats)) => (Some(&beats.guest), None),
        }
    }

    /// The step in words.
    #[must_use]
    pub fn title(&self) -> String {
        match self {
            Self::Apply(_) => "apply the cluster file".to_owned(),
            Self::Verify(_) => "verify that every hypervisor reaches the same images".to_owned(),
            Self::Start(start) => format!("start guest {}", start.guest),
            Self::Migrate(migrate) if migrate.cold => {
                format!("migrate guest {} to {}, shut off", migrate.guest, migrate.to)
            }
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

/// The JSON Schema of a playbook (draft 2020-12).
#[must_use]
pub fn schema() -> serde_json::Value {
    crate::spec::schema_of::<Playbook>()
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
    let pinged = |step: &Action| matches!(step, Action::Migrate(Migrate { cold: true, ping: Some(_), .. }));
    if let Some(at) = playbook.steps.iter().position(pinged) {
        let number = at + 1;
        return Err(invalid(format!("step {number}: a guest that is moved shut off answers no ping")));
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
    fn steps_about_what_the_cluster_lacks_are_found_before_any_runs() {
        let cluster = crate::spec::parse(crate::spec::TEMPLATE, Path::new("/"), "cluster.yaml").unwrap();
        let (guest, host) =
            (cluster.guests.keys().next().unwrap(), &cluster.hypervisors().next().unwrap().id);
        let text = |guest: &str, host: &str| {
            format!(
                "version: 1\ntitle: t\ncluster: c.yaml\nsteps:\n  - migrate: {{ guest: {guest}, to: {host} }}\n"
            )
        };
        let check = |text: &str| load_text(text).unwrap().check(&cluster).map_err(|error| error.to_string());
        assert_eq!(check(&text(guest.as_str(), host.as_str())), Ok(()));
        let said = check(&text("nobody", host.as_str())).unwrap_err();
        assert!(
            said.starts_with("step 1 (migrate guest nobody") && said.ends_with("no guest nobody"),
            "{said}"
        );
        assert!(check(&text(guest.as_str(), "nowhere")).unwrap_err().ends_with("no hypervisor nowhere"));
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
