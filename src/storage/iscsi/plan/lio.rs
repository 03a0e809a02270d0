//! The kernel's target (LIO): one step has it offer everything as the file says and saves that, whatever was missing.
//!
//! The stamp of the secret comes after that step: a file with it says that the target has the secret.

use std::collections::BTreeSet;

use super::server::Server;
use super::software::{self, Held};
use super::{Subject, initiators, lio_target};
use crate::model::{
    Blocked, Command, Difference, Effect, Proposal, ResourceId, ResourceKind, Risk, Secret, Step, Wave,
};
use crate::storage::iscsi::commands::lio::{self, Made, Offer};
use crate::storage::iscsi::commands::{self};
use crate::storage::iscsi::facts::lio::{Config, Initiator, LioTarget, Object};
use crate::storage::iscsi::spec::{IscsiAccess, LunSpec};
use crate::storage::stamp_file::{self, GivenTo};

/// Refuses what is somebody else's: the port, the target's name, the files.
pub(super) fn obstacles(server: &Server<'_>, out: &mut Proposal) {
    let spec = server.subject.spec;
    let mut refuse = |reason: String, hint: &str| {
        out.blocked.push(server.subject.refused(Wave::Prerequisites, reason, hint));
    };
    let kernel = crate::storage::iscsi::facts::KERNEL;
    let held = server.facts.port_holder.as_ref().filter(|holder| *holder != kernel);
    if let Some(holder) = held.filter(|_| software::held(server) == Held::ByOthers) {
        let reason = format!("iSCSI's port is in use by {holder}, so the kernel cannot listen there");
        refuse(reason, "stop what listens there: `ss -ltnp sport = :3260` on the host");
    }
    for portal in lio::portals(server.subject.cluster, spec) {
        if portal.address.parse::<std::net::IpAddr>().is_err() {
            let reason =
                format!("the kernel's target listens at an address, and {} is a name", portal.address);
            refuse(reason, "write the server's address with portals:");
        }
    }
    let now = &server.facts.lio.now;
    let others = now.targets.iter().filter(|(name, _)| name.as_str() != spec.iqn.as_str());
    for (name, other) in others {
        if other.portals.iter().any(|portal| matches!(portal.address.as_str(), "0.0.0.0" | "::" | "::0")) {
            let reason =
                format!("target {name} listens at every address, which leaves none for another target");
            refuse(reason, "give that target a portal of its own address: see `targetcli ls`");
        }
    }
    let known =
        [now, &server.facts.lio.saved].into_iter().find_map(|config| config.targets.get(spec.iqn.as_str()));
    match known {
        Some(_) if !server.is_own() => {
            let reason = format!("the kernel offers target {} already, and stor did not make it", spec.iqn);
            refuse(
                reason,
                "give the storage an iqn: of its own, or remove the target: `targetcli /iscsi delete IQN`",
            );
        }
        Some(target) if target.groups > 1 => {
            let reason = format!("target {} has {} portal groups, stor made one", spec.iqn, target.groups);
            refuse(reason, "remove the others: `targetcli /iscsi/IQN delete 2`");
        }
        _ => {}
    }
    for lun in &spec.luns {
        if let Some((reason, hint)) = foreign_object(server, lun) {
            refuse(reason, hint);
        }
    }
}

/// What else has the name of a LUN's backing object, or is to have what is behind it after the next boot.
fn foreign_object(server: &Server<'_>, lun: &LunSpec) -> Option<(String, &'static str)> {
    let Subject { cluster, id, .. } = *server.subject;
    let own = lio::object(cluster, id, lun);
    let lio = &server.facts.lio;
    if !server.is_own() && [&lio.now, &lio.saved].into_iter().any(|config| config.objects.contains_key(&own))
    {
        let reason = format!("there is a backing object {own} already, and stor did not make it");
        return Some((reason, "remove it: `targetcli /backstores/fileio delete NAME`"));
    }
    let path = lun.backing.as_str();
    let (name, _) = lio.saved.objects.iter().find(|(name, object)| **name != own && object.path == path)?;
    let reason =
        format!("{path} is saved as behind backing object {name}, and two LUNs over one destroy its data");
    Some((reason, "give each LUN a file, device or volume of its own"))
}

/// Plans the target.
pub(super) fn plan(server: &Server<'_>, out: &mut Proposal) {
    let Subject { cluster, id, spec, .. } = *server.subject;
    let secret = match &spec.chap {
        None => None,
        Some(chap) => match cluster.secrets.get(&chap.secret) {
            Some(value) => Some(value),
            None => {
                let reason = format!("the CHAP secret was not read ({})", chap.secret);
                let hint = "this command plans without secrets; run `stor plan` or `stor apply`";
                out.blocked.push(server.subject.refused(Wave::Export, reason, hint));
                return;
            }
        },
    };
    let change = Change::new(server, secret);
    let refused = change.refused(server);
    if !refused.is_empty() {
        out.blocked.extend(refused);
        return;
    }
    restored(server, out);
    if change.why.is_empty() {
        return;
    }
    let offer = Offer {
        initiators: &change.initiators,
        expelled: &change.expelled,
        removed: &change.removed,
        made: if server.is_own() { Made::Before } else { Made::Never },
    };
    let run = Effect::Run(vec![lio::offer(cluster, id, spec, secret, &offer)]);
    let names: Vec<&str> = spec.luns.iter().map(|lun| lun.name.as_str()).collect();
    let title = format!("have the kernel offer target {} with {}", spec.iqn, names.join(", "));
    let step = server.step(Wave::Export, server.subject.target(), title, run);
    let step = step.owning(lio_target(cluster, id, spec));
    let step = change.why.into_iter().fold(step, Step::because);
    let step = if change.expelled.is_empty() { step } else { step.risking(Risk::Disruptive) };
    let clients = change.expelled.iter().filter_map(|name| initiators::client(server.subject, name));
    out.steps.push(step.taking(clients));
    if let Some(value) = secret.filter(|value| !server.facts.stamp.is_some_and(|stamp| stamp.fits(value))) {
        let file = stamp_file::file(&cluster.name, id, GivenTo::Target, cluster.secrets.stamp(value));
        let why = Difference::new(server.subject.field("chap.stamp"), "of this secret", "of none or another");
        let title = format!("note that target {} has the secret", spec.iqn);
        let step = server.step(Wave::Export, server.subject.target(), title, Effect::WriteFile(file));
        out.steps.push(step.because(why).owning(lio_target(cluster, id, spec)));
    }
}

/// Has targets restored at boot. The service is not started: that would replace what the kernel offers now by what was saved.
/// It stays enabled when the target goes, because stopping it would withdraw everybody's targets.
fn restored(server: &Server<'_>, out: &mut Proposal) {
    let facts = &server.facts;
    if facts.lio_unit.is_enabled() {
        return;
    }
    let unit = lio::service(facts.family);
    let run = Command::new("systemctl").args(["enable", "--quiet", "--", unit]);
    let why = Difference::new(format!("service.{unit}"), "enabled", facts.lio_unit.summary());
    let title = "have the kernel's targets restored at boot".to_owned();
    let what = ResourceId::new(ResourceKind::Service, unit);
    out.steps.push(server.step(Wave::Export, what, title, Effect::Run(vec![run])).because(why));
}

/// What differs, and who and what is affected.
struct Change {
    why: Vec<Difference>,
    initiators: BTreeSet<String>,
    expelled: BTreeSet<String>,
    removed: BTreeSet<String>,
    /// Differences that cannot be ended while somebody is logged in.
    offline: Vec<Difference>,
}

impl Change {
    fn new(server: &Server<'_>, secret: Option<&Secret>) -> Self {
        let Subject { spec, .. } = *server.subject;
        let admitted = initiators::admitted(server.subject);
        let wanted = wanted(server, &admitted.names);
        let lio = &server.facts.lio;
        let shown = lio.now.targets.get(spec.iqn.as_str());
        let field = |name: &str| server.subject.field(name);
        let present: BTreeSet<String> =
            shown.iter().flat_map(|target| target.initiators.keys().cloned()).collect();
        // Who is not known may be one of those that are let in.
        let expelled = if admitted.complete { &present - &admitted.names } else { BTreeSet::new() };
        let numbers = shown.into_iter().flat_map(|target| &target.luns);
        let removed = numbers
            .filter(|(number, object)| !wanted.luns.contains_key(number) && object.starts_with("stor-"))
            .map(|(_, object)| object.clone());
        let mut change = Self {
            why: Vec::new(),
            expelled,
            removed: removed.collect(),
            offline: Vec::new(),
            initiators: admitted.names,
        };
        match shown {
            None => change.why.push(Difference::new(field("offered"), "yes", "no")),
            Some(shown) => change.live(server, shown, &wanted),
        }
        if let Some(value) = secret
            && shown.is_some()
            && !server.facts.stamp.is_some_and(|stamp| stamp.fits(value))
        {
            change.why.push(Difference::new(field("chap"), "as its reference says", "another secret"));
        }
        if change.why.is_empty() && !is_saved(server, shown) {
            change.why.push(Difference::new(field("saved"), "as it is offered", "otherwise, or not at all"));
        }
        change
    }

    /// Differences between the file and a target that is offered.
    fn live(&mut self, server: &Server<'_>, shown: &LioTarget, wanted: &LioTarget) {
        let field = |name: &str| server.subject.field(name);
        for lun in &server.subject.spec.luns {
            let found = lun_differences(server, shown, lun);
            let present = shown.luns.contains_key(&u32::from(lun.number));
            if present {
                // The kernel takes a larger size while somebody is logged in; a smaller one is refused with the file.
                self.offline.extend(found.iter().filter(|one| !one.field.ends_with(SIZE)).cloned());
            }
            self.why.extend(found);
        }
        for (number, object) in shown.luns.iter().filter(|(number, _)| !wanted.luns.contains_key(number)) {
            let gone = Difference::new(field(&format!("luns.{number}")), "absent", object);
            self.offline.push(gone.clone());
            self.why.push(gone);
        }
        let text =
            |portals: &BTreeSet<_>| portals.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let yes = |value: bool| if value { "yes" } else { "no" }.to_owned();
        let plain = [
            ("enabled", yes(wanted.enabled), yes(shown.enabled)),
            ("authentication", yes(wanted.authentication), yes(shown.authentication)),
            ("open to strangers", yes(wanted.open), yes(shown.open)),
            ("portals", text(&wanted.portals), text(&shown.portals)),
        ];
        let differing = plain.into_iter().filter(|(_, wanted, seen)| wanted != seen);
        self.why.extend(differing.map(|(name, wanted, seen)| Difference::new(field(name), wanted, seen)));
        let Subject { cluster, id, spec, .. } = *server.subject;
        let stamp = stamp_file::path(&cluster.name, id, GivenTo::Target).to_string();
        // Without a stamp the secret is given anew in any case.
        let has_secret = |seen: &Initiator| {
            spec.chap.is_none() || server.facts.stamp.is_none() || seen.stamps.contains(&stamp)
        };
        for (name, wanted) in &wanted.initiators {
            let observed = match shown.initiators.get(name) {
                Some(seen) if !seen.is_let_in_like(wanted) => "let in otherwise",
                Some(seen) if !has_secret(seen) => "let in with another secret",
                Some(_) => continue,
                None => "kept out",
            };
            self.why.push(Difference::new(field(&format!("initiators.{name}")), "let in", observed));
        }
        for name in &self.expelled {
            self.why.push(Difference::new(field(&format!("initiators.{name}")), "kept out", "let in"));
        }
    }

    /// What cannot be done: while somebody is logged in, or ever.
    fn refused(&self, server: &Server<'_>) -> Vec<Blocked> {
        let Subject { cluster, id, spec, .. } = *server.subject;
        let Some(shown) = server.facts.lio.now.targets.get(spec.iqn.as_str()) else { return Vec::new() };
        let mut refused = Vec::new();
        for lun in &spec.luns {
            let object = lio::object(cluster, id, lun);
            let moved = shown
                .luns
                .iter()
                .find(|(number, other)| **other == object && **number != u32::from(lun.number));
            let Some((number, _)) = moved else { continue };
            let reason = format!("LUN {} has number {number}, and would get {}", lun.name, lun.number);
            let hint = format!("guests know it by its number: write number: {number} for it");
            refused.push(server.subject.refused(Wave::Export, reason, hint));
        }
        let Some(user) = shown.connected().next() else { return refused };
        let hint = match spec.access {
            IscsiAccess::Direct => "shut the guests down that use this target, then apply again".to_owned(),
            IscsiAccess::Session => format!(
                "shut the guests down that use this target, log out on each hypervisor (`iscsiadm -m node -T {} --logout`), then apply again",
                spec.iqn
            ),
        };
        refused.extend(self.offline.iter().map(|Difference { field, desired, observed }| {
            let reason = format!(
                "{user} uses the target, and {field} cannot change meanwhile: {desired}, not {observed}"
            );
            server.subject.refused(Wave::Export, reason, &hint)
        }));
        refused
    }
}

fn wanted(server: &Server<'_>, initiators: &BTreeSet<String>) -> LioTarget {
    let Subject { cluster, id, spec, .. } = *server.subject;
    let luns = spec.luns.iter().map(|lun| u32::from(lun.number));
    let one = Initiator {
        user: spec.chap.as_ref().map(|chap| chap.user.to_string()),
        luns: luns.map(|number| (number, number)).collect(),
        ..Initiator::default()
    };
    let objects = spec.luns.iter().map(|lun| (u32::from(lun.number), lio::object(cluster, id, lun)));
    LioTarget {
        groups: 1,
        enabled: true,
        authentication: spec.chap.is_some(),
        open: false,
        portals: lio::portals(cluster, spec),
        luns: objects.collect(),
        initiators: initiators.iter().map(|name| (name.clone(), one.clone())).collect(),
    }
}

/// How the field ends that is the size of a file.
const SIZE: &str = ".size";

fn lun_differences(server: &Server<'_>, shown: &LioTarget, lun: &LunSpec) -> Vec<Difference> {
    let Subject { cluster, id, .. } = *server.subject;
    let field = |name: &str| server.subject.field(&format!("luns.{}{name}", lun.name));
    let object = lio::object(cluster, id, lun);
    match shown.luns.get(&u32::from(lun.number)) {
        None => return vec![Difference::new(field(""), "offered", "absent")],
        Some(other) if *other != object => return vec![Difference::new(field(""), object, other)],
        Some(_) => {}
    }
    let Some(seen) = server.facts.lio.now.objects.get(&object) else {
        return vec![Difference::new(field(""), "offered", "half made")];
    };
    let wanted = object_of(server, lun);
    let bytes = |object: &Object| object.size.map_or("unknown".to_owned(), |size| format!("{size} bytes"));
    let cache = |object: &Object| if object.write_back { "on" } else { "off" }.to_owned();
    [
        (".backing", wanted.path.clone(), seen.path.clone()),
        (".kind", wanted.plugin.clone(), seen.plugin.clone()),
        (SIZE, bytes(&wanted), bytes(seen)),
        (".serial", wanted.serial.clone(), seen.serial.clone()),
        (".write_cache", cache(&wanted), cache(seen)),
    ]
    .into_iter()
    .filter(|(_, wanted, seen)| wanted != seen)
    .map(|(name, wanted, seen)| Difference::new(field(name), wanted, seen))
    .collect()
}

fn object_of(server: &Server<'_>, lun: &LunSpec) -> Object {
    let Subject { cluster, id, .. } = *server.subject;
    Object {
        plugin: lio::plugin(lun).to_owned(),
        path: lun.backing.to_string(),
        // A device has the size that it has.
        size: (!lun.is_block()).then(|| lun.size.bytes()),
        serial: commands::serial(&cluster.name, id, lun),
        write_back: false,
    }
}

/// Whether the next boot brings back what is offered now.
fn is_saved(server: &Server<'_>, shown: Option<&LioTarget>) -> bool {
    let Subject { cluster, id, spec, .. } = *server.subject;
    let saved: &Config = &server.facts.lio.saved;
    let target = saved.targets.get(spec.iqn.as_str());
    target == shown.map(LioTarget::at_rest).as_ref()
        && spec
            .luns
            .iter()
            .all(|lun| saved.objects.get(&lio::object(cluster, id, lun)) == Some(&object_of(server, lun)))
}
