//! The name with which a hypervisor's own initiator (open-iscsi) logs in. Pure.
//!
//! A name that is there is kept: other targets may know the host by it. Where there is none, stor gives one before the
//! package is installed, so that the target can let the host in within the same apply.

use crate::model::{Command, HostId, Observations, Query, Unknown};
use crate::spec::Cluster;
use crate::storage::iscsi::commands;
use crate::storage::iscsi::spec::IscsiAccess;
use crate::storage::spec::StorageSpec;

/// Where open-iscsi keeps it.
pub const FILE: &str = "/etc/iscsi/initiatorname.iscsi";

/// An initiator's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// The host has it.
    Present(String),
    /// The host gets it.
    Given(String),
}

impl Name {
    /// The name itself.
    #[must_use]
    pub fn into_name(self) -> String {
        match self {
            Self::Present(name) | Self::Given(name) => name,
        }
    }
}

/// Asks for it.
#[must_use]
pub fn query() -> Query {
    Query::new(Command::new("cat").arg(FILE))
}

/// Reads the file: the last line that gives one counts, as for iscsid.
#[must_use]
pub fn read(text: &str) -> Option<&str> {
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("InitiatorName="));
    names.map(str::trim).rfind(|name| !name.is_empty())
}

/// The name of a hypervisor.
///
/// # Errors
/// [`Unknown`] when the host was not observed, or the file cannot be read.
pub fn name(seen: &Observations, cluster: &Cluster, host: &HostId) -> Result<Name, Unknown> {
    let answer = seen.answer(host, &query())?;
    // strerror(ENOENT) in the C locale, which every command runs in.
    if !answer.ok() && !answer.stderr.trim_end().ends_with("No such file or directory") {
        return Err(Unknown::Host { host: host.clone(), reason: answer.stderr.trim().to_owned() });
    }
    Ok(match read(&answer.stdout) {
        Some(name) => Name::Present(name.to_owned()),
        None => Name::Given(given(cluster, host)),
    })
}

/// The name that stor gives, the same for all targets: it is made from the first target that hypervisors log in to.
fn given(cluster: &Cluster, host: &HostId) -> String {
    let mut specs = cluster.storage.values().filter_map(|spec| match spec {
        StorageSpec::Iscsi(spec) if spec.access == IscsiAccess::Session => Some(spec),
        _ => None,
    });
    specs.next().map_or_else(String::new, |spec| commands::host_initiator(&cluster.name, spec, Some(host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packaged_file_gives_the_name_behind_its_comments() {
        macro_rules! packaged {
            ($of:literal) => {
                include_str!(concat!("../../../../fixtures/outputs/initiatorname/", $of, "-packaged.txt"))
            };
        }
        let newer = packaged!("debian13-open-iscsi2.1.11");
        assert_eq!(read(newer), Some("iqn.1993-08.org.debian:01:43465b67751"));
        let older = packaged!("debian12-open-iscsi2.1.8");
        assert_eq!(read(older), Some("iqn.1993-08.org.debian:01:df326d1a802b"));
        assert_eq!(read("GenerateName=yes\n"), None);
        assert_eq!(read(""), None);
    }
}
