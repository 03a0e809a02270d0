//! What most commands begin with: the cluster file, and the two ways to its hosts, real or in the lab.

use std::path::Path;
use std::sync::Arc;

use nix::unistd::{User, geteuid, getpid};

use super::args::Cli;
use super::render::render_diagnostic;
use crate::error::{Exit, Failure};
use crate::host::secrets::{self, SecretError};
use crate::host::ssh::{self, SshAccess};
use crate::host::{Fleet, Holder, LockKind};
use crate::lab::{self, LabAccess, LabError, LabSpec};
use crate::libvirt::Connector;
use crate::libvirt::bounded::{Bounded, Patience};
use crate::libvirt::conn::SshConnector;
use crate::migrate::Site;
use crate::model::Cancel;
use crate::spec::{self, Cluster, SpecError};

/// A loaded cluster file with its hosts.
pub struct Session {
    pub cluster: Cluster,
    pub fleet: Fleet,
    pub connector: Bounded,
    daemons: Arc<SshConnector>,
}

impl Session {
    /// Loads the cluster file and prepares its hosts; contacts none.
    pub fn open(cli: &Cli) -> Result<Self, Failure> {
        Self::of(load(&cli.file())?, cli.global.lab, cli.global.parallel.get())
    }

    /// Prepares the hosts of a cluster; in the lab, moves the process into the lab's network.
    pub fn of(cluster: Cluster, in_lab: bool, parallel: usize) -> Result<Self, Failure> {
        let access = if in_lab {
            lab_access(&cluster)?
        } else {
            SshAccess::of_user().map_err(|error| Failure::new(Exit::Unexpected, &error))?
        };
        let (fleet, config) = ssh::connect(&cluster.name, &cluster.hosts, &access, parallel)
            .map_err(|error| Failure::new(Exit::Unexpected, &error))?;
        let daemons = Arc::new(SshConnector::new(&cluster.hosts, &config));
        let connector = bounded(&daemons, &Cancel::default());
        Ok(Self { cluster, fleet, connector, daemons })
    }

    /// Lets the user's wish to wait no longer end every call of libvirt.
    pub fn heeding(mut self, cancel: &Cancel) -> Self {
        self.connector = bounded(&self.daemons, cancel);
        self
    }

    /// Reads the secrets that the cluster file refers to; for the commands that need their values.
    pub fn with_secrets(mut self) -> Result<Self, Failure> {
        self.cluster.secrets = secrets::read_all(&self.cluster.secret_refs()).map_err(|errors| {
            let text = |error: &SecretError| Failure::new(Exit::InvalidFile, error).message;
            let hint = errors.first().and_then(SecretError::hint);
            Failure::say(Exit::InvalidFile, errors.iter().map(text).collect::<Vec<_>>().join("\n")).hint(hint)
        })?;
        Ok(self)
    }

    pub fn site(&self) -> Site<'_> {
        Site { cluster: &self.cluster, fleet: &self.fleet, connector: &self.connector }
    }

    /// Who asks for the hosts' locks, in words for whoever comes second.
    pub fn holder(&self, doing: &str) -> Holder {
        let user =
            User::from_uid(geteuid()).ok().flatten().map_or_else(|| geteuid().to_string(), |user| user.name);
        let here = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
        let since = humantime::format_rfc3339_seconds(std::time::SystemTime::now());
        let text = format!(
            "stor {doing} by {user}@{}, process {}, since {since}",
            here.unwrap_or_else(|_| "unknown".to_owned()),
            getpid()
        );
        Holder { cluster: self.cluster.name.clone(), kind: LockKind::Exclusive, text }
    }
}

fn bounded(daemons: &Arc<SshConnector>, cancel: &Cancel) -> Bounded {
    Bounded::new(Arc::clone(daemons) as Arc<dyn Connector>, Patience::default(), cancel.clone())
}

/// Loads a cluster file; every problem is shown at its place.
pub fn load(path: &Path) -> Result<Cluster, Failure> {
    let loaded = spec::load(path).map_err(|error| {
        let hint = match &error {
            SpecError::Read { .. } => Some("`stor init` writes one to start from".to_owned()),
            _ => None,
        };
        match &error {
            SpecError::Invalid(_) => Failure::say(Exit::InvalidFile, render_diagnostic(&error)),
            other => Failure::new(Exit::InvalidFile, other).hint(hint),
        }
    })?;
    secrets::hide(loaded.secret_refs());
    Ok(loaded)
}

/// A failure of the lab with its hint.
pub fn lab_failure(error: &LabError) -> Failure {
    Failure::new(Exit::Unexpected, error).hint(error.hint())
}

fn lab_access(cluster: &Cluster) -> Result<SshAccess, Failure> {
    let settings = lab::Settings::from_env().map_err(|error| lab_failure(&error))?;
    let lab = lab::open(&cluster.name, &settings).map_err(|error| lab_failure(&error))?;
    let wanted = LabSpec::of(cluster).map_err(|error| lab_failure(&error))?;
    if let Some(missing) = wanted.hosts.iter().find(|host| !lab.hosts().iter().any(|has| has.id == host.id)) {
        return Err(Failure::say(
            Exit::Unexpected,
            format!("lab {}: has no host {}", lab.name(), missing.id),
        )
        .hint(Some("`stor lab up` adds the hosts that the file names".to_owned())));
    }
    let LabAccess { user, identity_file, known_hosts, control_directory } =
        lab.enter().map_err(|error| lab_failure(&error))?;
    Ok(SshAccess {
        runtime_dir: control_directory,
        known_hosts: Some(known_hosts),
        identity: Some(identity_file),
        user: Some(user.to_owned()),
    })
}
