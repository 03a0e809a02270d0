//! Packages of the distribution: what a storage needs is called, whether it is there, how it is installed.
//!
//! Pure. Imports `model`. Which host needs what is decided by each backend.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::{
    Command, Difference, Effect, HostId, Observations, Query, ResourceId, ResourceKind, Step, StorageId,
    Unknown, Wave,
};

/// Deadline for refreshing the lists of what can be installed.
const REFRESH_DEADLINE: Duration = Duration::from_secs(300);
/// Deadline for downloading and installing.
const INSTALL_DEADLINE: Duration = Duration::from_secs(900);

/// Distributions that name and install packages alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Debian, Ubuntu and others with apt.
    Debian,
    /// Fedora, Red Hat Enterprise Linux, CentOS Stream, Rocky, Alma and others with dnf.
    RedHat,
    /// openSUSE and SUSE Linux Enterprise, with zypper.
    Suse,
}

/// What one need is called in each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// With apt.
    pub debian: &'static [&'static str],
    /// With dnf.
    pub red_hat: &'static [&'static str],
    /// With zypper.
    pub suse: &'static [&'static str],
}

impl Need {
    fn names(&self, family: Family) -> &'static [&'static str] {
        match family {
            Family::Debian => self.debian,
            Family::RedHat => self.red_hat,
            Family::Suse => self.suse,
        }
    }
}

/// Says why it is not known what has to be installed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackagesError {
    /// The answer is missing.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// `/etc/os-release` names no distribution that stor installs packages on.
    #[error("host {host}: distribution {found} is neither of the Debian, Red Hat nor SUSE family")]
    Family {
        /// The host.
        host: HostId,
        /// What its `/etc/os-release` says.
        found: String,
    },
    /// The package database could not be read.
    #[error("host {host}: cannot tell which packages are installed: {reason}")]
    Database {
        /// The host.
        host: HostId,
        /// The tool's own message.
        reason: String,
    },
}

/// Asks which distribution a host runs (os-release(5)).
#[must_use]
pub fn distribution() -> Query {
    Query::new(Command::new("cat").arg("/etc/os-release"))
}

fn in_dpkg(needs: &[Need]) -> Query {
    let names: BTreeSet<&str> = needs.iter().flat_map(|need| need.debian).copied().collect();
    Query::new(Command::new("dpkg-query").args(["-W", "-f=${Package} ${db:Status-Status}\\n"]).args(names))
}

fn in_rpm(needs: &[Need]) -> Query {
    let names: BTreeSet<&str> =
        needs.iter().flat_map(|need| need.red_hat.iter().chain(need.suse)).copied().collect();
    Query::new(Command::new("rpm").args(["-q", "--queryformat", "%{NAME} installed\\n"]).args(names))
}

/// Everything that [`missing`] wants answered. The host's distribution is not known yet, so both databases are asked;
/// a host that lacks one of the tools answers at once.
#[must_use]
pub fn queries(needs: &[Need]) -> Vec<Query> {
    vec![distribution(), in_dpkg(needs), in_rpm(needs)]
}

/// Tells the family from `/etc/os-release`: `ID`, then each word of `ID_LIKE`.
#[must_use]
pub fn family(os_release: &str) -> Option<Family> {
    let fields: BTreeMap<&str, &str> = os_release
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim(), value.trim().trim_matches(['"', '\''])))
        .collect();
    let like = fields.get("ID_LIKE").copied().unwrap_or_default();
    fields.get("ID").copied().into_iter().chain(like.split_whitespace()).find_map(|word| match word {
        "debian" | "ubuntu" => Some(Family::Debian),
        "fedora" | "rhel" | "centos" => Some(Family::RedHat),
        "suse" | "opensuse" | "sles" => Some(Family::Suse),
        _ => None,
    })
}

/// The packages that `host` lacks, and its family.
///
/// # Errors
/// [`PackagesError`] when the host was not observed, is of no known family, or its database cannot be read.
pub fn missing(
    seen: &Observations,
    host: &HostId,
    needs: &[Need],
) -> Result<(Family, Vec<&'static str>), PackagesError> {
    missing_among(seen, host, needs, needs)
}

/// Like [`missing`] for `wanted`, which are some of the needs that were `asked` for: which of them count is known only
/// when other answers have been read.
///
/// # Errors
/// As [`missing`].
pub fn missing_among(
    seen: &Observations,
    host: &HostId,
    asked: &[Need],
    wanted: &[Need],
) -> Result<(Family, Vec<&'static str>), PackagesError> {
    let release = &seen.answer(host, &distribution())?.stdout;
    let family = family(release).ok_or_else(|| PackagesError::Family {
        host: host.clone(),
        found: release
            .lines()
            .find_map(|line| line.strip_prefix("ID="))
            .unwrap_or("of an unknown name")
            .to_owned(),
    })?;
    let query = match family {
        Family::Debian => in_dpkg(asked),
        Family::RedHat | Family::Suse => in_rpm(asked),
    };
    let answer = seen.answer(host, &query)?;
    // Both tools end with a low status when one of the names is not installed; more means that they did not look.
    if answer.not_found() || (family == Family::Debian && !matches!(answer.status, Some(0 | 1))) {
        let reason = answer.stderr.trim().to_owned();
        return Err(PackagesError::Database { host: host.clone(), reason });
    }
    let installed: BTreeSet<&str> =
        answer.stdout.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    let wanted: BTreeSet<&'static str> = wanted.iter().flat_map(|need| need.names(family)).copied().collect();
    Ok((family, wanted.into_iter().filter(|name| !installed.contains(name)).collect()))
}

/// Installs packages without asking anything.
///
/// apt's lists may be older than what the mirror still has, so they are refreshed first; `apt-get update` itself ends
/// with 0 when a mirror cannot be reached, so an unreachable one shows when the package cannot be fetched.
#[must_use]
pub fn install(family: Family, packages: &[&'static str]) -> Vec<Command> {
    match family {
        Family::Debian => {
            let apt = || {
                Command::new("env").args([
                    "DEBIAN_FRONTEND=noninteractive",
                    "apt-get",
                    "-q",
                    "-o",
                    "DPkg::Lock::Timeout=120",
                ])
            };
            vec![
                apt().arg("update").deadline(REFRESH_DEADLINE),
                apt()
                    .args(["install", "--yes", "--no-install-recommends", "--"])
                    .args(packages.iter().copied())
                    .deadline(INSTALL_DEADLINE),
            ]
        }
        Family::RedHat => vec![
            Command::new("dnf")
                .args(["install", "--assumeyes", "--quiet"])
                .args(packages.iter().copied())
                .deadline(INSTALL_DEADLINE),
        ],
        Family::Suse => vec![
            Command::new("zypper")
                .args(["--non-interactive", "--quiet", "install", "--no-recommends", "--"])
                .args(packages.iter().copied())
                .deadline(INSTALL_DEADLINE),
        ],
    }
}

/// The step that installs what a host lacks for a storage; `None` when it lacks nothing.
#[must_use]
pub fn step(
    wave: Wave,
    host: &HostId,
    storage: &StorageId,
    family: Family,
    missing: &[&'static str],
) -> Option<Step> {
    if missing.is_empty() {
        return None;
    }
    let what = ResourceId::new(ResourceKind::Package, host);
    let title = format!("install {}", missing.join(" "));
    let step = Step::new(wave, host, what, title, Effect::Run(install(family, missing))).serving(storage);
    let why = |name: &&str| Difference::new(format!("package.{name}"), "installed", "absent");
    Some(missing.iter().map(why).fold(step, Step::because))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Answer, HostSeen};

    const NEED: Need = Need { debian: &["attr", "glusterfs-client"], red_hat: &["attr"], suse: &["attr"] };

    fn host() -> HostId {
        "kvm1".parse().unwrap()
    }

    fn seen(release: &str, dpkg: (i32, &str), rpm: (i32, &str)) -> Observations {
        let answer = |(status, stdout): (i32, &str)| Answer {
            status: Some(status),
            stdout: stdout.to_owned(),
            stderr: String::new(),
        };
        let answers = queries(&[NEED]).into_iter().zip([answer((0, release)), answer(dpkg), answer(rpm)]);
        let mut seen = Observations::default();
        seen.insert(host(), HostSeen::Answered(answers.collect()));
        seen
    }

    #[test]
    fn a_distribution_counts_by_its_name_or_by_what_it_is_like() {
        for (release, expected) in [
            ("ID=debian\n", Some(Family::Debian)),
            ("ID=ubuntu\nID_LIKE=debian\n", Some(Family::Debian)),
            ("NAME=x\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Some(Family::Debian)),
            ("ID=fedora\n", Some(Family::RedHat)),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Some(Family::RedHat)),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", Some(Family::Suse)),
            ("ID=arch\n", None),
            ("", None),
        ] {
            assert_eq!(family(release), expected, "{release:?}");
        }
    }

    #[test]
    fn only_packages_that_are_wholly_installed_are_there() {
        let removed = "attr installed\nglusterfs-client config-files\n";
        let seen = seen("ID=debian\n", (0, removed), (127, ""));
        assert_eq!(missing(&seen, &host(), &[NEED]), Ok((Family::Debian, vec!["glusterfs-client"])));
    }

    #[test]
    fn a_name_that_the_database_does_not_know_is_missing() {
        let dpkg = seen("ID=debian\n", (1, "attr installed\n"), (127, ""));
        assert_eq!(missing(&dpkg, &host(), &[NEED]), Ok((Family::Debian, vec!["glusterfs-client"])));
        let rpm = seen("ID=fedora\n", (127, ""), (1, "package attr is not installed\n"));
        assert_eq!(missing(&rpm, &host(), &[NEED]), Ok((Family::RedHat, vec!["attr"])));
    }

    #[test]
    fn a_database_that_cannot_be_read_is_not_an_empty_one() {
        for seen in [seen("ID=debian\n", (2, ""), (127, "")), seen("ID=fedora\n", (0, ""), (127, ""))] {
            assert!(matches!(missing(&seen, &host(), &[NEED]), Err(PackagesError::Database { .. })));
        }
        let unknown = seen("ID=arch\n", (127, ""), (127, ""));
        assert!(matches!(missing(&unknown, &host(), &[NEED]), Err(PackagesError::Family { .. })));
    }

    #[test]
    fn no_installer_asks_anything() {
        let words = |family| install(family, &["attr"]).last().unwrap().to_string();
        assert_eq!(
            words(Family::Debian),
            "env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 install --yes \
             --no-install-recommends -- attr"
        );
        assert_eq!(words(Family::RedHat), "dnf install --assumeyes --quiet attr");
        assert_eq!(words(Family::Suse), "zypper --non-interactive --quiet install --no-recommends -- attr");
    }
}
