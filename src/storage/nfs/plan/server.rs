//! What both servers have in common: which of them it is, the directory, and what stands in the way.

use super::{Subject, directory, ganesha, kernel, siblings};
use crate::libvirt::qemu_conf;
use crate::model::{
    AbsPath, Blocked, Command, Difference, Effect, OwnedKind, Proposal, Record, ResourceId, ResourceKind,
    Risk, Step, Wave,
};
use crate::storage::facts::FactsError;
use crate::storage::mount_client::{self, Anew};
use crate::storage::nfs::commands;
use crate::storage::nfs::facts::{self, ServerFacts};
use crate::storage::nfs::spec::{Provider, Squash};
use crate::storage::packages::{self, Need};
use crate::storage::planning::Service;

/// The server, as far as it is known, while planning for it.
pub(super) struct Server<'a> {
    pub subject: &'a Subject<'a>,
    pub facts: ServerFacts,
    pub record: Record,
}

impl Server<'_> {
    pub fn step(&self, wave: Wave, what: ResourceId, title: String, effect: Effect) -> Step {
        Step::new(wave, &self.subject.spec.server, what, title, effect).serving(self.subject.id)
    }

    /// Adds the installation of what is missing.
    pub fn install(&self, server: Need, out: &mut Proposal) -> Result<(), FactsError> {
        let Subject { id, spec, seen, cluster, .. } = *self.subject;
        // Where nothing is mounted, the server creates the images.
        let images = spec.mount.is_none() && cluster.images_on(id).next().is_some();
        let wanted = if images { vec![server, commands::IMAGES] } else { vec![server] };
        let (family, missing) = facts::missing(seen, spec, &wanted)?;
        out.steps.extend(packages::step(Wave::Prerequisites, &spec.server, id, family, &missing));
        Ok(())
    }
}

/// Plans for the server, and tells whether hypervisors may count on the export, and whether another server takes it over.
pub(super) fn plan(subject: &Subject<'_>, out: &mut Proposal) -> (Service, Anew) {
    let facts = match facts::server(subject.seen, subject.cluster, subject.id, subject.spec) {
        Ok(facts) => facts,
        Err(error) => {
            out.blocked.push(unreadable(subject, &error));
            return (Service::Unknown, Anew::No);
        }
    };
    let server = Server { subject, facts, record: subject.record(&subject.spec.server) };
    let before = out.blocked.len();
    let provider = provider(&server, out);
    obstacles(&server, provider, out);
    nameless(&server, out);
    place(&server, out);
    owners(&server, out);
    let planned = match provider {
        Provider::Ganesha => ganesha::plan(&server, out),
        Provider::Auto | Provider::Kernel => kernel::plan(&server, out),
    };
    if let Err(error) = planned {
        out.blocked.push(unreadable(subject, &error));
    }
    (Service::after(&out.blocked[before..]), takes_over(&server, provider))
}

fn unreadable(subject: &Subject<'_>, error: &FactsError) -> Blocked {
    let blocked = Blocked::new(Wave::Prerequisites, subject.export(), error)
        .on(&subject.spec.server)
        .serving(subject.id);
    Blocked { unknown: error.is_unknown(), ..blocked }
}

/// Whether another server had the export until now: its file handles mean nothing to this one.
fn takes_over(server: &Server<'_>, provider: Provider) -> Anew {
    let Subject { cluster, id, .. } = *server.subject;
    let (kind, file) = match provider {
        Provider::Ganesha => (OwnedKind::KernelExport, commands::kernel::exports_path(cluster, id)),
        _ => (OwnedKind::GaneshaExport, commands::ganesha::export_path(cluster, id)),
    };
    if server.record.owns(kind, file.as_str()) { Anew::Yes } else { Anew::No }
}

/// Which server exports the directory: the one that the file names; the one that has it; the one that other storage of the
/// file has on this host, since only one can have the port; the kernel's where there is one.
fn provider(server: &Server<'_>, out: &mut Proposal) -> Provider {
    let Subject { cluster, id, spec, .. } = *server.subject;
    let other = siblings(server.subject).find(|(_, provider)| *provider != Provider::Auto);
    if let (Some((name, other)), true) = (other, spec.provider != Provider::Auto)
        && other != spec.provider
    {
        let reason = format!("storage {name} is to be exported by another server than storage {id}");
        let hint = "both want port 2049: give all storage of one host the same provider:";
        out.blocked.push(server.subject.refused(Wave::Prerequisites, reason, hint));
    }
    if spec.provider != Provider::Auto {
        return spec.provider;
    }
    let owns = |kind, path: AbsPath| server.record.owns(kind, path.as_str());
    if owns(OwnedKind::KernelExport, commands::kernel::exports_path(cluster, id)) {
        Provider::Kernel
    } else if owns(OwnedKind::GaneshaExport, commands::ganesha::export_path(cluster, id)) {
        Provider::Ganesha
    } else if let Some((_, provider)) = other {
        provider
    } else if server.facts.kernel_has_nfsd {
        Provider::Kernel
    } else {
        Provider::Ganesha
    }
}

/// Refuses what is somebody else's: the other server with exports of its own, and exports that overlap with this one.
fn obstacles(server: &Server<'_>, provider: Provider, out: &mut Proposal) {
    let facts = &server.facts;
    let (other, unit, word) = match provider {
        Provider::Ganesha => (&facts.kernel, commands::kernel::SERVICE, "kernel"),
        _ => (&facts.ganesha, commands::ganesha::SERVICE, "ganesha"),
    };
    if other.is_active() && !server.record.owns(OwnedKind::Service, unit) {
        let reason = format!("{unit} runs, which stor did not start, and only one server can have port 2049");
        let hint =
            format!("write provider: {word}, or stop and disable it: `systemctl disable --now {unit}`");
        out.blocked.push(server.subject.refused(Wave::Prerequisites, reason, hint));
    }
    for (file, path) in foreign_exports(server, provider) {
        let own = &server.subject.spec.path;
        let Ok(other) = AbsPath::new(path) else { continue };
        let how = if other == *own {
            format!("{file} exports {path} already, and stor did not write that")
        } else if own.is_within(&other) {
            format!("{file} exports {path}, which holds {own}: whoever may use it reaches the images")
        } else if other.is_within(own) {
            format!("{file} exports {path}, which lies in {own}")
        } else {
            continue;
        };
        let hint = "remove that export, or give the storage a directory of its own with path:";
        out.blocked.push(server.subject.refused(Wave::Prerequisites, how, hint));
    }
}

/// What others have the servers export, where those servers run or are meant to.
fn foreign_exports<'s>(server: &'s Server<'_>, provider: Provider) -> Vec<(&'s str, &'s str)> {
    let Subject { cluster, id, .. } = *server.subject;
    let facts = &server.facts;
    let mut found = Vec::new();
    if provider != Provider::Ganesha || facts.kernel.is_enabled() || facts.kernel.is_active() {
        let own = commands::kernel::exports_path(cluster, id);
        let others = facts.exports.iter().filter(|line| line.file != own.as_str());
        found.extend(others.map(|line| (line.file.as_str(), line.path.as_str())));
    }
    if provider == Provider::Ganesha || facts.ganesha.is_enabled() || facts.ganesha.is_active() {
        let own = commands::ganesha::export_path(cluster, id);
        found.extend(
            facts
                .ganesha_files
                .iter()
                .filter(|(file, _)| *file != own.as_str())
                .flat_map(|(file, text)| facts::ganesha_paths(text).map(|path| (file.as_str(), path))),
        );
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Plans the directory, or says why it cannot be exported.
fn place(server: &Server<'_>, out: &mut Proposal) {
    let Subject { cluster, id, spec, seen } = *server.subject;
    let (path, place) = (&spec.path, &server.facts.place);
    let refuse = |reason: String, hint: &str| server.subject.refused(Wave::Prerequisites, reason, hint);
    if let Some(real) = place.real.as_deref().filter(|real| *real != path.as_str()) {
        let reason = format!("{path} leads to {real} through a symbolic link");
        let hint = "name the directory itself with path:, so that nobody can redirect the export";
        out.blocked.push(refuse(reason, hint));
        return;
    }
    let what = ResourceId::new(ResourceKind::Directory, path);
    let anonymous = spec.squash.anonymous();
    match &place.kind {
        None => {
            let owner = match anonymous {
                Some(user) => Some(format!("{}:{}", user.uid, user.gid)),
                None => mount_client::qemu_owner(cluster, seen).map(|uid| uid.to_string()),
            };
            let mut run = vec![commands::make_directory(path)];
            run.extend(owner.map(|owner| commands::give_directory(path, &owner)));
            let title = format!("make the directory {path}");
            let step = server.step(Wave::Prerequisites, what, title, Effect::Run(run));
            let why = Difference::new(format!("directory.{path}"), "directory", "absent");
            out.steps.push(step.because(why).owning(directory(id, spec)));
        }
        Some(kind) if kind != "directory" => {
            out.blocked
                .push(refuse(format!("{path} is a {kind}, not a directory"), "name a directory with path:"));
        }
        Some(_) => {
            let Some(user) = anonymous.filter(|user| place.owner != Some((user.uid, user.gid))) else {
                return;
            };
            let owner = format!("{}:{}", user.uid, user.gid);
            let shown = place.owner.map_or("unknown".to_owned(), |(uid, gid)| format!("{uid}:{gid}"));
            if server.record.owns(OwnedKind::DataDirectory, path.as_str()) {
                let run = vec![commands::give_directory(path, &owner)];
                let title = format!("give the directory {path} to {owner}");
                let step = server.step(Wave::Prerequisites, what, title, Effect::Run(run));
                out.steps.push(step.because(Difference::new(
                    format!("directory.{path}.owner"),
                    owner,
                    shown,
                )));
            } else {
                let reason =
                    format!("{path} belongs to {shown}, so that squashed clients cannot write to it");
                let hint = format!("`chown {owner} {path}` there, or write squash: none");
                out.blocked.push(server.subject.refused(Wave::Prerequisites, reason, hint));
            }
        }
    }
}

/// Refuses clients that the server cannot find: it would leave them out and say so in its log only.
fn nameless(server: &Server<'_>, out: &mut Proposal) {
    let lost = server.facts.names.iter().filter(|(_, addresses)| addresses.is_empty());
    for (name, _) in lost {
        let reason =
            format!("{name} is to be a client of {}, and leads to no address here", server.subject.id);
        let hint = format!(
            "mend {name} in /etc/hosts or DNS of this host, or write its address into the cluster file"
        );
        out.blocked.push(server.subject.refused(Wave::Prerequisites, reason, hint));
    }
}

/// Gives images to the user that clients are to have, before they have it: whoever runs goes on. Where hypervisors mount and keep all
/// users but root, QEMU may have a user of its own; nobody could reach root's images any more.
fn owners(server: &Server<'_>, out: &mut Proposal) {
    let Subject { spec, .. } = *server.subject;
    let Some(user) = spec.squash.anonymous() else { return };
    let one_user = matches!(spec.squash, Squash::All(_)) || spec.mount.is_none();
    let is_wrong = |owner: u32| owner != user.uid && (one_user || owner == 0);
    let wrong: Vec<_> = server.facts.owners.iter().filter(|(_, owner)| is_wrong(owner.0)).collect();
    let Some((_, first)) = wrong.first() else { return };
    if !server.record.owns(OwnedKind::DataDirectory, spec.path.as_str()) {
        return;
    }
    let owner = format!("{}:{}", user.uid, user.gid);
    let run = wrong.iter().map(|(path, _)| Command::new("chown").args([&owner, "--", path.as_str()]));
    let title = format!(
        "give {} to {owner}",
        wrong.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>().join(", ")
    );
    let what = ResourceId::new(ResourceKind::Directory, &spec.path);
    let why = Difference::new(
        format!("directory.{}.images", spec.path),
        owner.clone(),
        format!("{}:{}", first.0, first.1),
    );
    let mut step = server.step(Wave::Prerequisites, what, title, Effect::Run(run.collect())).because(why);
    // Root's rights come before the change, wherever they are not taken away yet; another user's may be in use.
    if wrong.iter().any(|(_, owner)| owner.0 != 0) {
        step = step.risking(Risk::Disruptive);
    }
    out.steps.push(step);
}

/// What has to be asked on hypervisors to know QEMU's user.
pub(super) fn owner_queries() -> [crate::model::Query; 2] {
    [qemu_conf::configuration(), qemu_conf::users()]
}
