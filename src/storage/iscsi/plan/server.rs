//! What stands in the way of a target on its server, and who plans the rest.

use std::collections::BTreeMap;

use super::software::{self, Held};
use super::{Subject, backing, boot, lio, sessions, tgt};
use crate::model::{Blocked, Effect, Proposal, Record, ResourceId, Step, Wave};
use crate::storage::facts::FactsError;
use crate::storage::iscsi::commands;
use crate::storage::iscsi::facts::{self, ServerFacts, Software, Target};
use crate::storage::iscsi::spec::{IscsiAccess, PORT};
use crate::storage::packages;
use crate::storage::planning::Service;

/// The server, as far as it is known, while planning for it.
pub(super) struct Server<'a> {
    pub subject: &'a Subject<'a>,
    pub facts: ServerFacts,
    pub record: Record,
    /// Which program is to offer the target.
    pub software: Software,
    /// What that program offers now, by name.
    pub targets: BTreeMap<String, Target>,
}

impl<'a> Server<'a> {
    fn new(subject: &'a Subject<'a>) -> Result<Self, FactsError> {
        let facts = facts::server(subject.seen, subject.cluster, subject.id, subject.spec)?;
        let record = subject.record(&subject.spec.server);
        let software = software::choose(subject, &record, &facts);
        let targets = match software {
            Software::Lio => facts.lio.now.plain_targets(),
            Software::Tgt => facts.targets.clone(),
        };
        Ok(Self { subject, facts, record, software, targets })
    }

    pub fn step(&self, wave: Wave, what: ResourceId, title: String, effect: Effect) -> Step {
        Step::new(wave, &self.subject.spec.server, what, title, effect).serving(self.subject.id)
    }

    /// The target as it is offered now.
    pub fn shown(&self) -> Option<&Target> {
        self.targets.get(self.subject.spec.iqn.as_str())
    }

    /// Whether stor made the target with this program, or was about to.
    pub fn owns(&self, software: Software) -> bool {
        software::owns(self.subject, &self.record, software)
    }

    /// Whether stor made the target, or was about to.
    pub fn is_own(&self) -> bool {
        self.owns(self.software)
    }
}

/// Plans for the server, and tells whether hypervisors may count on the target.
pub(super) fn plan(subject: &Subject<'_>, out: &mut Proposal) -> Service {
    let server = match Server::new(subject) {
        Ok(server) => server,
        Err(error) => {
            out.blocked.push(unreadable(subject, &error));
            software::keep_former(subject, &subject.record(&subject.spec.server), (Service::Unknown, out));
            return Service::Unknown;
        }
    };
    let before = out.blocked.len();
    software::obstacles(&server, out);
    match server.software {
        Software::Lio => lio::obstacles(&server, out),
        Software::Tgt => obstacles(&server, out),
    }
    if subject.spec.access == IscsiAccess::Session {
        out.blocked.extend(sessions::outdated(subject));
    }
    let grown = backing::plan(&server, out);
    let planned = install(&server, out).map(|()| match server.software {
        Software::Lio => lio::plan(&server, out),
        Software::Tgt => tgt::plan(&server, grown, out),
    });
    if let Err(error) = planned {
        out.blocked.push(unreadable(subject, &error));
    }
    boot::plan(&server, out);
    let service = Service::after(&out.blocked[before..]);
    software::keep_former(subject, &server.record, (service, out));
    service
}

fn unreadable(subject: &Subject<'_>, error: &FactsError) -> Blocked {
    let blocked = Blocked::new(Wave::Prerequisites, subject.target(), error)
        .on(&subject.spec.server)
        .serving(subject.id);
    Blocked { unknown: error.is_unknown(), ..blocked }
}

fn install(server: &Server<'_>, out: &mut Proposal) -> Result<(), FactsError> {
    let Subject { id, spec, seen, .. } = *server.subject;
    let wanted = match server.software {
        Software::Lio => commands::lio::SERVER,
        Software::Tgt => commands::tgt::SERVER,
    };
    let (family, missing) = packages::missing_among(seen, &spec.server, facts::NEEDS, &[wanted])?;
    out.steps.extend(packages::step(Wave::Prerequisites, &spec.server, id, family, &missing));
    Ok(())
}

/// Refuses what is somebody else's on a server with tgt: the port, the target's name, the CHAP user.
fn obstacles(server: &Server<'_>, out: &mut Proposal) {
    let Subject { cluster, id, spec, .. } = *server.subject;
    let facts = &server.facts;
    let refuse = |reason: String, hint: &str| server.subject.refused(Wave::Prerequisites, reason, hint);
    let held = facts.port_holder.as_ref().filter(|_| !facts.tgt_unit.is_active());
    if let Some(holder) = held.filter(|_| software::held(server) == Held::ByOthers) {
        let reason = format!("port {PORT} is in use by {holder}, so tgt cannot listen there");
        out.blocked.push(refuse(reason, "stop what listens there: `ss -ltnp sport = :3260` on the host"));
    }
    let own = commands::tgt::conf_path(cluster, id);
    let elsewhere =
        facts.configured.iter().find(|(file, name)| file != own.as_str() && *name == spec.iqn.as_str());
    if let Some((file, _)) = elsewhere {
        let reason = format!("{file} has target {} already, and stor did not write that", spec.iqn);
        out.blocked.push(refuse(reason, "give the storage an iqn: of its own, or remove the target there"));
    } else if server.shown().is_some() && !server.is_own() {
        let reason = format!("tgt offers target {} already, and stor did not make it", spec.iqn);
        let hint = "give the storage an iqn: of its own, or remove the target: `tgt-admin --delete IQN`";
        out.blocked.push(refuse(reason, hint));
    }
    if let Some(chap) = &spec.chap
        && facts.accounts.contains(&chap.user.to_string())
        && !server.is_own()
    {
        let reason = format!("tgt has a CHAP user {} already, and keeps one secret for each", chap.user);
        out.blocked.push(refuse(reason, "give the storage a chap user: of its own"));
    }
    let named = commands::clients(cluster, spec);
    for name in named.iter().filter(|name| name.parse::<std::net::Ipv4Addr>().is_err()) {
        let reason = format!("tgt lets initiators in by their address, and {name} is a name");
        out.blocked.push(refuse(reason, "write the IPv4 address of that host"));
    }
}
