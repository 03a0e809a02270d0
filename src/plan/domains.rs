//! What every hypervisor's libvirt says of its domains, and which storage they use: one query, and one look at definitions.
//!
//! Pure: queries and a parser. Imports `libvirt::domain_xml` (a disk's source) and `model`. Deciding what a domain means belongs in `guests` and `release`.

use std::collections::BTreeSet;

use crate::libvirt::domain_xml::{DiskSource, StateKind};
use crate::model::{Command, Driver, HostId, Observations, Query, Unknown};

/// What libvirt shows in one round trip: UUIDs and names, names of those that start with the host, states and disks
/// (virsh(1), `list` and `domstats`). `--nowait` leaves out what a busy QEMU would have to be asked for.
const ASKED: &str =
    "list --all --uuid --name; list --all --autostart --name; domstats --state --block --nowait";

/// The same of Xen, whose driver has no statistics: UUIDs and names, those that start with the host, those that are active.
const ASKED_XEN: &str = "list --all --uuid --name; list --all --autostart --name; list --name";

/// The query that lists a hypervisor's domains.
pub(super) fn query(driver: Driver) -> Query {
    let asked = match driver {
        Driver::Qemu => ASKED,
        Driver::Xen => ASKED_XEN,
    };
    Query::new(Command::new("virsh").args(["-r", asked]))
}

/// The query that shows what disks are on where [`query`] does not: `domstats` names no network disks of a domain that is
/// shut off, and of Xen's domains nothing else names any.
pub(super) fn sources_query(driver: Driver) -> Query {
    let grep = Command::new("grep").args([
        "-rs",
        "--include=*.xml",
        "-e",
        "<source pool='",
        "-e",
        "<source protocol='",
    ]);
    Query::new(match driver {
        Driver::Qemu => grep
            .args(["-e", "<nvram", "-e", "<backend type='emulator'"])
            .args(["/etc/libvirt/qemu", "/run/libvirt/qemu"]),
        Driver::Xen => grep
            .args(["-e", "<source file='", "-e", "<source dev='"])
            .args(["/etc/libvirt/libxl", "/run/libvirt/libxl"]),
    })
}

/// One domain on one hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Domain {
    /// Name.
    pub name: String,
    /// UUID, lower case with hyphens.
    pub uuid: String,
    /// Whether it starts with the host.
    pub autostart: bool,
    /// Whether it runs, is paused, or is in any state but shut off or crashed.
    pub active: bool,
    /// Whether it stands still because a migration or its start holds it, as an incoming one does.
    pub transit: bool,
    /// What its disks are on.
    pub disks: Vec<DiskUse>,
    /// What the host keeps of it in files beside them.
    pub state: BTreeSet<StateKind>,
}

/// What a disk is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DiskUse {
    /// A local path.
    Path(String),
    /// A volume of a pool.
    Pool {
        /// Pool.
        pool: String,
        /// Volume.
        volume: String,
    },
    /// Reached by QEMU itself: protocol, and name within it.
    Network {
        /// `gluster`, `nfs`, `iscsi` ...
        protocol: String,
        /// Name within the protocol.
        name: String,
    },
}

impl DiskUse {
    /// The same as the source of a disk.
    pub fn source(&self) -> DiskSource {
        match self.clone() {
            Self::Path(path) => DiskSource::File(path),
            Self::Pool { pool, volume } => DiskSource::Volume { pool, volume },
            Self::Network { protocol, name } => DiskSource::Network { protocol, name, hosts: Vec::new() },
        }
    }
}

/// Says why a hypervisor's domains are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DomainsError {
    /// The host or its answer is unknown.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// There is no virsh.
    #[error("host {0}: virsh was not found: libvirt is not installed")]
    NoLibvirt(HostId),
    /// The daemon did not answer.
    #[error("host {host}: libvirt does not answer: {reason}")]
    Daemon {
        /// The host.
        host: HostId,
        /// virsh's own message.
        reason: String,
    },
    /// The answer could not be read.
    #[error("host {host}: virsh printed what stor cannot read: {reason}")]
    Answer {
        /// The host.
        host: HostId,
        /// What was wrong.
        reason: String,
    },
}

/// Reads the domains of `host`, sorted by name.
pub(super) fn read(seen: &Observations, host: &HostId, driver: Driver) -> Result<Vec<Domain>, DomainsError> {
    let answer = seen.answer(host, &query(driver))?;
    if answer.not_found() {
        return Err(DomainsError::NoLibvirt(host.clone()));
    }
    if !answer.ok() {
        let reason = answer.stderr.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        return Err(DomainsError::Daemon { host: host.clone(), reason });
    }
    let mut domains = parse(driver, &answer.stdout)
        .map_err(|reason| DomainsError::Answer { host: host.clone(), reason: reason.to_owned() })?;
    let sources = seen.answer(host, &sources_query(driver))?;
    add_sources(&sources.stdout, &mut domains);
    Ok(domains)
}

fn parse(driver: Driver, text: &str) -> Result<Vec<Domain>, &'static str> {
    let mut lines = text.lines();
    let mut domains = Vec::new();
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        let (uuid, name) = line.split_once(' ').ok_or("a domain without a name")?;
        let (name, uuid) = (name.trim_end().to_owned(), uuid.to_ascii_lowercase());
        domains.push(Domain {
            name,
            uuid,
            autostart: false,
            active: true,
            transit: false,
            disks: Vec::new(),
            state: BTreeSet::new(),
        });
    }
    domains.sort_by(|a, b| a.name.cmp(&b.name));
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        if let Some(domain) = domains.iter_mut().find(|domain| domain.name == line.trim_end()) {
            domain.autostart = true;
        }
    }
    match driver {
        Driver::Qemu => statistics(lines, &mut domains),
        Driver::Xen => {
            let active: Vec<&str> = lines.take_while(|line| !line.is_empty()).map(str::trim_end).collect();
            domains.iter_mut().for_each(|domain| domain.active = active.contains(&domain.name.as_str()));
        }
    }
    Ok(domains)
}

fn statistics<'a>(lines: impl Iterator<Item = &'a str>, domains: &mut [Domain]) {
    let mut current: Option<usize> = None;
    for line in lines {
        if let Some(name) = line.strip_prefix("Domain: '").and_then(|rest| rest.strip_suffix('\'')) {
            current = domains.iter().position(|domain| domain.name == name);
        } else if let (Some(index), Some((key, value))) = (current, line.trim().split_once('=')) {
            statistic(&mut domains[index], key, value);
        }
    }
}

/// `virDomainState`: 3 is paused, 5 shut off, 6 crashed; a domain that no statistic names counts as active. `virDomainPausedReason`: 2 is a
/// migration, 11 a start, 12 and 13 post-copy.
fn statistic(domain: &mut Domain, key: &str, value: &str) {
    if key == "state.state" {
        domain.active = !matches!(value, "5" | "6");
        domain.transit = value == "3";
    } else if key == "state.reason" {
        domain.transit &= matches!(value, "2" | "11" | "12" | "13");
    } else if key.starts_with("block.") && key.ends_with(".path") {
        domain.disks.push(DiskUse::Path(value.to_owned()));
    }
}

/// Reads `FILE:<source ..>` lines; libvirt calls the file `NAME.xml`.
fn add_sources(text: &str, domains: &mut [Domain]) {
    for line in text.lines() {
        let Some((file, source)) = line.split_once(".xml:") else { continue };
        let name = file.rsplit('/').next().unwrap_or("");
        let state = match source.trim_start() {
            text if text.starts_with("<nvram") => Some(StateKind::FirmwareVariables),
            text if text.starts_with("<backend type='emulator'") => Some(StateKind::Tpm),
            _ => None,
        };
        if let Some(state) = state {
            domains.iter_mut().filter(|domain| domain.name == name).for_each(|d| d.state.extend([state]));
            continue;
        }
        let attribute = |key: &str| {
            let start = source.find(&format!(" {key}='"))? + key.len() + 3;
            source[start..].split('\'').next().map(str::to_owned)
        };
        let used = match (attribute("pool"), attribute("protocol"), attribute("name")) {
            (Some(pool), _, _) => DiskUse::Pool { pool, volume: attribute("volume").unwrap_or_default() },
            (None, None, _) => match attribute("file").or_else(|| attribute("dev")) {
                Some(path) => DiskUse::Path(path),
                None => continue,
            },
            (None, Some(protocol), Some(name)) => DiskUse::Network { protocol, name },
            _ => continue,
        };
        if let Some(domain) = domains.iter_mut().find(|domain| domain.name == name) {
            domain.disks.push(used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Answer, HostSeen};

    fn fixture(name: &str) -> String {
        let path = format!("{}/fixtures/outputs/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    }

    fn observed(status: i32, stdout: &str, stderr: &str) -> Result<Vec<Domain>, DomainsError> {
        let answer = |status, stdout: &str, stderr: &str| Answer {
            status: Some(status),
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        let host: HostId = "kvm1".parse().unwrap();
        let sources = fixture("grep/debian13-libvirt11.3-domain-sources.txt");
        let answers = [
            (query(Driver::Qemu), answer(status, stdout, stderr)),
            (sources_query(Driver::Qemu), answer(0, &sources, "")),
        ];
        let mut seen = Observations::default();
        seen.insert(host.clone(), HostSeen::Answered(answers.into()));
        read(&seen, &host, Driver::Qemu)
    }

    #[test]
    fn domains_show_state_autostart_and_what_their_disks_are_on() {
        let domains = observed(0, &fixture("virsh/debian13-libvirt11.3-domains.txt"), "").unwrap();
        let short: Vec<_> =
            domains.iter().map(|d| (d.name.as_str(), d.active, d.autostart, d.disks.clone())).collect();
        let path = DiskUse::Path("/srv/a/w.img".into());
        let network = DiskUse::Network { protocol: "gluster".into(), name: "gfs/web1.img".into() };
        let volume = DiskUse::Pool { pool: "gfs".into(), volume: "v.img".into() };
        assert_eq!(
            short,
            [
                ("bare", false, false, vec![]),
                ("fileguest", false, true, vec![path]),
                ("netguest", false, false, vec![network]),
                ("two words", false, false, vec![]),
                ("volguest", false, false, vec![volume]),
            ]
        );
        assert_eq!(domains[1].uuid, "531ff9fe-42ab-43ae-9a50-8098ef2e3962");
    }

    #[test]
    fn xens_domains_are_told_by_lists_and_their_disks_by_definitions() {
        let answer = |stdout| Answer { status: Some(0), stdout, stderr: String::new() };
        let host: HostId = "xen1".parse().unwrap();
        let answers = [
            (query(Driver::Xen), answer(fixture("virsh/debian13-libvirt11.3-xen-domains.txt"))),
            (sources_query(Driver::Xen), answer(fixture("grep/debian13-libvirt11.3-xen-domain-sources.txt"))),
        ];
        let mut seen = Observations::default();
        seen.insert(host.clone(), HostSeen::Answered(answers.into()));
        let domains = read(&seen, &host, Driver::Xen).unwrap();
        let short: Vec<_> = domains.iter().map(|d| (d.name.as_str(), d.active, d.autostart)).collect();
        assert_eq!(short, [("Domain-0", true, false), ("off", false, true), ("runs", true, false)]);
        let path = |name: &str| DiskUse::Path(format!("/var/lib/libvirt/images/{name}.img"));
        assert_eq!(domains[1].disks, [path("off")]);
        assert_eq!(domains[2].disks, [path("runs"), path("runs")]);
        assert_eq!(domains[2].uuid, "531ff9fe-42ab-43ae-9a50-8098ef2e3901");
    }

    #[test]
    fn firmware_variables_and_tpms_are_told_by_definitions() {
        let new = |name: &str| Domain {
            name: name.to_owned(),
            uuid: String::new(),
            autostart: false,
            active: false,
            transit: false,
            disks: Vec::new(),
            state: BTreeSet::new(),
        };
        let mut domains = [new("a"), new("win11")];
        let text = "/etc/libvirt/qemu/win11.xml:    <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>/var/lib/libvirt/qemu/nvram/win11_VARS.fd</nvram>\n\
                    /etc/libvirt/qemu/win11.xml:      <backend type='emulator' version='2.0'/>\n";
        add_sources(text, &mut domains);
        assert!(domains[0].state.is_empty() && domains.iter().all(|domain| domain.disks.is_empty()));
        assert_eq!(domains[1].state, BTreeSet::from([StateKind::FirmwareVariables, StateKind::Tpm]));
    }

    #[test]
    fn a_hypervisor_without_domains_has_none() {
        assert_eq!(observed(0, &fixture("virsh/debian13-libvirt11.3-domains-none.txt"), ""), Ok(vec![]));
    }

    #[test]
    fn no_libvirt_and_a_silent_daemon_are_told_apart() {
        assert!(matches!(observed(127, "", "sh: virsh: not found"), Err(DomainsError::NoLibvirt(_))));
        let silent = observed(1, "", "error: failed to connect to the hypervisor\n");
        assert!(matches!(silent, Err(DomainsError::Daemon { .. })));
    }
}
