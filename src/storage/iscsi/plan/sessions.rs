//! Hypervisors whose own kernels log in: the initiator's name, packages, records, sessions, and the pool of the LUNs.
//!
//! stor logs in itself, before libvirt starts the pool: libvirt takes one portal only, and would hand the CHAP secret to iscsiadm
//! as an argument. libvirt finds the session and uses it (docs/adr/0116).

use std::collections::BTreeSet;

use super::clients::chap;
use super::{Subject, pool as pool_of_luns};
use crate::model::{
    AbsPath, Blocked, Command, Difference, Effect, Finding, FindingCode, HostId, Observations, Owned,
    OwnedKind, Proposal, Query, ResourceId, ResourceKind, Risk, Secret, Severity, Step, StorageId, Wave,
};
use crate::spec::Cluster;
use crate::storage::iscsi::commands::{self, open_iscsi};
use crate::storage::iscsi::facts::initiator::{self, Name};
use crate::storage::iscsi::facts::sessions::{self, Disk, Initiator};
use crate::storage::iscsi::spec::{IscsiSpec, LunSpec, Portal};
use crate::storage::mount_unit;
use crate::storage::packages::{self, Family, Need};
use crate::storage::planning::{self, Service, Stop, refuse};
use crate::storage::pool::Pool;
use crate::storage::stamp_file::{self, GivenTo};

const FAMILIES: [Option<Family>; 2] = [Some(Family::Debian), Some(Family::RedHat)];

/// All packages that may be needed.
const NEEDS: &[Need] = &[open_iscsi::CLIENT, open_iscsi::MULTIPATH, commands::SESSION_POOL];

/// Everything that planning for a hypervisor wants answered.
pub(super) fn queries(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec) -> Vec<Query> {
    let mut queries = packages::queries(NEEDS);
    queries.extend(FAMILIES.map(|family| mount_unit::state(open_iscsi::service(family))));
    queries.extend([
        initiator::query(),
        open_iscsi::sessions(cluster, id, spec),
        open_iscsi::records(spec),
        stamp_file::query(&cluster.name, id, GivenTo::Node),
    ]);
    queries.extend(pool_of_luns::queries(id, spec));
    queries
}

/// The target's sessions as the record of a hypervisor keeps them.
pub(super) fn claim(cluster: &Cluster, id: &StorageId, spec: &IscsiSpec) -> Owned {
    let portals: Vec<String> = commands::portals(cluster, spec).iter().map(Portal::to_string).collect();
    let devices: Vec<String> =
        spec.luns.iter().map(|lun| open_iscsi::device(cluster, id, spec, lun).to_string()).collect();
    Owned::new(OwnedKind::IscsiSession, spec.iqn.as_str())
        .of_storage(id)
        .with("portals", portals.join(" "))
        .with("devices", devices.join(" "))
        .with("stamp", stamp_file::path(&cluster.name, id, GivenTo::Node).as_str())
}

/// Why the target must keep its CHAP user and secret for now: a session logs in again with those that it began with, whatever the
/// record says since, so that another secret would take the disks from guests at the next lost connection.
pub(super) fn outdated(subject: &Subject<'_>) -> Vec<Blocked> {
    let Subject { cluster, id, spec, seen } = *subject;
    let user = spec.chap.as_ref().map(|chap| chap.user.to_string());
    let secret = spec.chap.as_ref().and_then(|chap| cluster.secrets.get(&chap.secret));
    let keeps = |host: &HostId| {
        let shown = sessions::observed(seen, cluster, id, spec, host).ok()?;
        let began_with = |portal: &Portal| {
            let record = shown.records.get(portal)?;
            Some(record.user.clone().filter(|_| record.authmethod == "CHAP"))
        };
        let other_user = shown.sessions.keys().filter_map(began_with).any(|began| began != user);
        let other_secret = secret.zip(shown.stamp).is_some_and(|(secret, stamp)| !stamp.fits(secret));
        (!shown.sessions.is_empty() && (other_user || other_secret)).then(|| host.clone())
    };
    let held = cluster.hypervisors().filter_map(|host| keeps(&host.id));
    let hint = format!(
        "shut the guests down that use this target, log out on each hypervisor (`iscsiadm -m node -T {} --logout`), then apply again",
        spec.iqn
    );
    held.map(|host| {
        let reason = format!(
            "host {host} is logged in with another CHAP user or secret, and could not log in again after a lost connection"
        );
        subject.refused(Wave::Export, reason, &hint)
    })
    .collect()
}

/// One hypervisor, while planning for it.
struct Client<'a> {
    subject: &'a Subject<'a>,
    host: &'a HostId,
    portals: Vec<Portal>,
    shown: Initiator,
    own: bool,
}

/// Plans for one hypervisor.
pub(super) fn plan(subject: &Subject<'_>, host: &HostId, service: Service, out: &mut Proposal) {
    let Subject { cluster, id, spec, seen } = *subject;
    let what = ResourceId::new(ResourceKind::Session, &spec.iqn);
    let noted = (Wave::ClientPrerequisites, what.clone());
    let client = match Client::new(subject, host) {
        Ok(client) => client,
        Err(stop) => {
            out.blocked.push(stop.blocked(noted.0, noted.1).on(host).serving(id));
            return;
        }
    };
    let mut steps = Vec::new();
    if !planning::keep(client.prepare(&mut steps), noted.clone(), (id, host), out) {
        return;
    }
    if let Some(chap) = chap(cluster, id, spec) {
        let planned = chap.plan(host, seen).map(|step| steps.extend(step));
        if !planning::keep(planned, (Wave::ClientPrerequisites, chap.subject()), (id, host), out) {
            return;
        }
    }
    out.steps.append(&mut steps);
    if service != Service::Coming {
        return;
    }
    let planned = client.log_in(&mut out.steps).and_then(|()| client.pool(&mut out.steps));
    planning::keep(planned, (Wave::Mount, what), (id, host), out);
    out.findings.extend(client.covered());
}

impl<'a> Client<'a> {
    fn new(subject: &'a Subject<'a>, host: &'a HostId) -> Result<Self, Stop> {
        let Subject { cluster, id, spec, seen } = *subject;
        let shown = sessions::observed(seen, cluster, id, spec, host)?;
        let own = subject.record(host).owns(OwnedKind::IscsiSession, spec.iqn.as_str());
        Ok(Self { subject, host, portals: commands::portals(cluster, spec), shown, own })
    }

    fn seen(&self) -> &'a Observations {
        self.subject.seen
    }

    fn step(&self, wave: Wave, title: String, effect: Effect) -> Step {
        let what = ResourceId::new(ResourceKind::Session, &self.subject.spec.iqn);
        Step::new(wave, self.host, what, title, effect).serving(self.subject.id)
    }

    fn field(&self, name: &str) -> String {
        format!("session.{}.{name}", self.subject.id)
    }

    fn owning(&self, step: Step) -> Step {
        let Subject { cluster, id, spec, .. } = *self.subject;
        step.owning(claim(cluster, id, spec))
    }

    /// Plans name, packages and service; refuses what is somebody else's first.
    fn prepare(&self, steps: &mut Vec<Step>) -> Result<(), Stop> {
        self.obstacles()?;
        let (cluster, host) = (self.subject.cluster, self.host);
        if let Name::Given(name) = initiator::name(self.seen(), cluster, host)? {
            // Before the packages: theirs would make up another name, which the target does not know.
            let title = format!("give the host the initiator name {name}");
            let why = Difference::new(format!("file {}", initiator::FILE), name.as_str(), "no name");
            let effect = Effect::WriteFile(open_iscsi::initiator_file(initiator_path(), &name));
            steps.push(self.step(Wave::ClientPrerequisites, title, effect).because(why));
        }
        let mut wanted = vec![open_iscsi::CLIENT];
        wanted.extend((self.portals.len() > 1).then_some(open_iscsi::MULTIPATH));
        let kind = pool_of_luns::kind(self.subject.spec).filter(|kind| kind.is_missing(self.seen(), host));
        wanted.extend(kind.map(|kind| kind.package));
        let (family, missing) = packages::missing_among(self.seen(), host, NEEDS, &wanted)?;
        steps.extend(packages::step(Wave::ClientPrerequisites, host, self.subject.id, family, &missing));
        steps.extend(kind.map(|kind| {
            let (title, why, effect) = kind.load();
            self.step(Wave::ClientPrerequisites, title, effect).because(why)
        }));
        self.service(family, steps)
    }

    /// The service logs in when the host boots. It stays enabled when the target goes: others' targets may need it.
    fn service(&self, family: Family, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let unit = open_iscsi::service(Some(family));
        let answer = self.seen().answer(self.host, &mount_unit::state(unit))?;
        let Some(state) = mount_unit::parse_state(&answer.stdout) else {
            return refuse(
                format!("host {}: systemd does not answer: {}", self.host, answer.stderr.trim()),
                "targets are logged in to by a systemd unit when the host boots",
            );
        };
        if !state.is_enabled() {
            let title = "have targets logged in to when the host boots".to_owned();
            let why = Difference::new(format!("service.{unit}"), "enabled", state.summary());
            let run = Command::new("systemctl").args(["enable", "--quiet", "--", unit]);
            let step = self.step(Wave::ClientPrerequisites, title, Effect::Run(vec![run]));
            steps.push(step.because(why));
        }
        Ok(())
    }

    fn obstacles(&self) -> Result<(), Stop> {
        let (host, spec) = (self.host, self.subject.spec);
        if !self.shown.transport {
            return refuse(
                format!("host {host}: its kernel has no iSCSI initiator (iscsi_tcp)"),
                "write access: direct, with which QEMU reaches the LUNs itself, or boot a kernel with iscsi_tcp",
            );
        }
        let strange = !self.shown.records.is_empty() || !self.shown.sessions.is_empty();
        if strange && !self.own {
            let iqn = &spec.iqn;
            return refuse(
                format!("host {host}: its initiator knows target {iqn} already, and stor did not make that"),
                format!(
                    "if nothing uses it, log out and forget it: `iscsiadm -m node -T {iqn} --logout`, `iscsiadm -m node -T {iqn} -o delete`"
                ),
            );
        }
        for lun in &spec.luns {
            if let Some((disk, serial)) = self.swapped(lun) {
                return refuse(
                    format!(
                        "host {host}: LUN {} ({}, {}) has serial {serial}, not {}: it is another LUN",
                        lun.number,
                        lun.name,
                        disk.name,
                        self.serial(lun)
                    ),
                    "find out who changed the target; shut its guest down before anything else",
                );
            }
        }
        Ok(())
    }

    fn serial(&self, lun: &LunSpec) -> String {
        let Subject { cluster, id, .. } = *self.subject;
        commands::serial(&cluster.name, id, lun)
    }

    /// A disk of the LUN's number that shows another serial number.
    fn swapped(&self, lun: &LunSpec) -> Option<(&Disk, &String)> {
        let own = self.serial(lun);
        let disks = self.shown.disks().filter(|(number, _)| *number == u32::from(lun.number));
        disks.map(|(_, disk)| disk).find_map(|disk| {
            let serial = disk.serial.as_ref()?;
            (*serial != own).then_some((disk, serial))
        })
    }

    /// Plans records and sessions.
    fn log_in(&self, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let Subject { cluster, id, spec, .. } = *self.subject;
        let secret = match &spec.chap {
            None => None,
            Some(chap) => Some(cluster.secrets.get(&chap.secret).ok_or_else(|| {
                let reason = format!("the CHAP secret was not read ({})", chap.secret);
                let hint = "this command plans without secrets; run `stor plan` or `stor apply`";
                Stop::Refused(reason, Some(hint.to_owned()))
            })?),
        };
        steps.extend(self.elsewhere());
        self.records(secret, steps);
        let why = self.not_attached();
        if why.is_empty() {
            return Ok(());
        }
        let out = self.portals.iter().any(|portal| !self.shown.sessions.contains_key(portal));
        let title = match out {
            true => format!("log in to target {}", spec.iqn),
            false => format!("look at the LUNs of target {} anew", spec.iqn),
        };
        let effect = Effect::Run(vec![open_iscsi::attach(cluster, id, spec, &self.portals)]);
        let step = self.owning(self.step(Wave::Mount, title, effect));
        steps.push(why.into_iter().fold(step, Step::because));
        Ok(())
    }

    /// Leaves portals that the file no longer has.
    fn elsewhere(&self) -> Option<Step> {
        let spec = self.subject.spec;
        let known = self.shown.records.keys().chain(self.shown.sessions.keys());
        let gone: BTreeSet<String> =
            known.filter(|portal| !self.portals.contains(portal)).map(Portal::to_string).collect();
        if gone.is_empty() {
            return None;
        }
        let list = gone.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let title = format!("log out of target {} at {list}", spec.iqn);
        let run =
            Effect::Run(vec![open_iscsi::leave(spec.iqn.as_str(), [], gone.iter().map(String::as_str))]);
        let why = Difference::new(self.field("portals"), "absent", list);
        Some(self.step(Wave::Mount, title, run).because(why).risking(Risk::Disruptive))
    }

    fn records(&self, secret: Option<&Secret>, steps: &mut Vec<Step>) {
        let Subject { cluster, id, spec, .. } = *self.subject;
        let user = spec.chap.as_ref().map(|chap| chap.user.to_string());
        let timeout = open_iscsi::replacement_timeout(&self.portals).to_string();
        let mut why = Vec::new();
        for portal in &self.portals {
            let field = |name: &str| self.field(&format!("record.{portal}{name}"));
            let Some(record) = self.shown.records.get(portal) else {
                why.push(Difference::new(field(""), "present", "absent"));
                continue;
            };
            let method = if user.is_some() { "CHAP" } else { "None" };
            let shown = |user: &Option<String>| user.clone().unwrap_or_else(|| "none".to_owned());
            // A user without CHAP is a remainder that says nothing.
            let observed = if user.is_some() { shown(&record.user) } else { shown(&user) };
            let fields = [
                (".startup", "automatic".to_owned(), record.startup.clone()),
                (".authmethod", method.to_owned(), record.authmethod.clone()),
                (".username", shown(&user), observed),
                (".replacement_timeout", timeout.clone(), record.replacement_timeout.clone()),
            ];
            let differing = fields.into_iter().filter(|(_, desired, seen)| desired != seen);
            why.extend(differing.map(|(name, desired, seen)| Difference::new(field(name), desired, seen)));
        }
        let kept = secret.is_none_or(|secret| self.shown.stamp.is_some_and(|stamp| stamp.fits(secret)));
        if !kept {
            why.push(Difference::new(self.field("secret"), "as its reference says", "none or another one"));
        }
        if why.is_empty() {
            return;
        }
        let title = format!("have open-iscsi know target {}", spec.iqn);
        let effect = Effect::Run(vec![open_iscsi::record(spec, &self.portals, secret)]);
        let step = self.owning(self.step(Wave::Mount, title, effect));
        steps.push(why.into_iter().fold(step, Step::because));
        if let Some(secret) = secret.filter(|_| !kept) {
            let file = stamp_file::file(&cluster.name, id, GivenTo::Node, cluster.secrets.stamp(secret));
            let title = format!("note that the record of target {} has the secret", spec.iqn);
            let why = Difference::new(self.field("stamp"), "of this secret", "of none or another");
            let step = self.step(Wave::Mount, title, Effect::WriteFile(file)).because(why);
            steps.push(self.owning(step));
        }
    }

    /// Why the host has to log in, or to look anew. A session whose connection is lost comes back by itself.
    fn not_attached(&self) -> Vec<Difference> {
        let Subject { cluster, id, spec, .. } = *self.subject;
        let mut why: Vec<Difference> = self
            .portals
            .iter()
            .filter(|portal| !self.shown.sessions.contains_key(portal))
            .map(|portal| Difference::new(self.field(&portal.to_string()), "logged in", "no session"))
            .collect();
        if self.shown.sessions.values().any(|session| !session.is_logged_in()) {
            return why;
        }
        for lun in &spec.luns {
            let path = open_iscsi::device(cluster, id, spec, lun);
            let field = |name: &str| self.field(&format!("luns.{}{name}", lun.name));
            if !self.shown.paths.contains_key(path.as_str()) {
                why.push(Difference::new(field(""), path, "absent"));
            }
            for size in self.shown.sizes(lun.number).into_iter().filter(|size| *size != lun.size.bytes()) {
                let (desired, observed) = (format!("{} bytes", lun.size.bytes()), format!("{size} bytes"));
                why.push(Difference::new(field(".size"), desired, observed));
            }
        }
        why
    }

    /// Plans the pool. One that is active over another portal or secret is left alone: stopping it would log out under guests.
    fn pool(&self, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let Subject { cluster, id, seen, .. } = *self.subject;
        let xml = pool_of_luns::xml(self.subject, self.host);
        let pool = Pool { cluster, id, seen, host: self.host, xml: &xml };
        let shown = pool.shown()?;
        if let Some(shown) = shown.as_ref().filter(|shown| shown.active)
            && let Some(difference) = pool.differences(shown).first()
            && pool.is_own()?
        {
            let Difference { field, desired, observed } = difference;
            return refuse(
                format!(
                    "host {}: {field} cannot change while the pool is active: {desired}, not {observed}",
                    self.host
                ),
                format!(
                    "shut the guests down that use it, stop it (`virsh pool-destroy {id}`, which logs out), then apply again"
                ),
            );
        }
        let anew = !self.not_attached().is_empty() && shown.is_some_and(|shown| shown.active);
        let why =
            anew.then(|| Difference::new(pool.field("volumes"), "as the target has them", "read before"));
        steps.extend(pool.plan(why.into_iter().collect())?);
        Ok(())
    }

    /// Disks that multipath has taken although guests name the disk itself.
    fn covered(&self) -> Option<Finding> {
        let Subject { cluster, id, spec, .. } = *self.subject;
        let (lun, disk, map) = spec.luns.iter().find_map(|lun| {
            let path = open_iscsi::device(cluster, id, spec, lun);
            let kernel = self.shown.paths.get(path.as_str())?;
            let (_, disk) = self.shown.disks().find(|(_, disk)| disk.name == *kernel)?;
            let map = disk.holders.iter().find(|holder| holder.kind == "mpath")?;
            Some((lun, disk, map))
        })?;
        let message = format!(
            "host {}: multipath has {} (LUN {}) in its map {}, and guests use the disk beside it",
            self.host, disk.name, lun.name, map.name
        );
        let what = ResourceId::new(ResourceKind::Session, &spec.iqn);
        let finding =
            Finding::new(Severity::Advice, FindingCode::MultipathBypassed, what, message).on(self.host);
        Some(finding.remedy(
            "write provider: lio, whose LUNs have WWNs that lead to the map, or keep multipath off this target",
        ))
    }
}

fn initiator_path() -> AbsPath {
    #[expect(clippy::expect_used, reason = "a constant")]
    AbsPath::new(initiator::FILE).expect("a constant path")
}
