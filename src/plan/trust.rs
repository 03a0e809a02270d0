//! Trust between hypervisors, so that one's libvirt reaches another's during a peer-to-peer migration.
//!
//! Each hypervisor has a key pair that was made there and never leaves it, and accepts the others' keys for libvirt's
//! proxy alone. Every hypervisor gets the same files, its own key included, so that one text serves all of them
//! (`docs/adr/0061`). Pure; imports `spec`, `model` and the scene.

mod files;
mod seen;

use std::collections::BTreeSet;
use std::sync::Arc;

use self::files::Paths;
use self::seen::{Lines, Seen, Style, Text};
use super::scene::Scene;
use crate::model::{
    AbsPath, BlockLine, BlockSpec, Blocked, Command, Difference, Effect, FileContent, FileMode, FileSpec,
    Owned, OwnedKind, PeerKey, Proposal, Query, ResourceId, ResourceKind, Step, Unknown, Wave,
};
use crate::spec::{Cluster, HostSpec};

/// Tells whether `host` takes part: a hypervisor that has another one to send running guests to.
fn takes_part(cluster: &Cluster, host: &HostSpec) -> bool {
    cluster.peers().any(|peer| peer.id == host.id) && cluster.peers().nth(1).is_some()
}

/// What has to be asked on `host`.
pub(super) fn queries(cluster: &Cluster, host: &HostSpec) -> Vec<Query> {
    if !takes_part(cluster, host) {
        return Vec::new();
    }
    seen::queries(cluster, &Paths::new(&cluster.name))
}

/// What stor would own on `host`.
pub(super) fn claims(cluster: &Cluster, host: &HostSpec) -> Vec<Owned> {
    if !takes_part(cluster, host) {
        return Vec::new();
    }
    let paths = Paths::new(&cluster.name);
    let own = |kind, path: &AbsPath| Owned::new(kind, path.as_str());
    vec![
        own(OwnedKind::Directory, &paths.directory),
        own(OwnedKind::Directory, &paths.ssh_directory),
        own(OwnedKind::File, &paths.key),
        own(OwnedKind::File, &paths.wrapper),
        own(OwnedKind::File, &paths.config),
        own(OwnedKind::File, &paths.known_hosts),
        own(OwnedKind::Block, &paths.authorized),
    ]
}

/// What is the same on every hypervisor.
struct Common {
    known_hosts: Text,
    lines: Lines,
}

fn known_line(host: &HostSpec, seen: &Result<Seen<'_>, Unknown>) -> Option<String> {
    let key = seen.as_ref().ok()?.key.as_ref()?;
    Some(format!("{} {key}", files::options(host)))
}

/// Everything that one hypervisor should have, and what it showed.
struct Planner<'a> {
    cluster: &'a Cluster,
    paths: Paths,
    style: Style,
    peers: Vec<(&'a HostSpec, Result<Seen<'a>, Unknown>)>,
    wrapper: Text,
    config: Text,
}

/// Plans keys, files and blocks of all hypervisors.
pub(super) fn plan(scene: &Scene<'_>) -> Proposal {
    let mut proposal = Proposal::default();
    let Some(planner) = Planner::new(scene) else { return proposal };
    // One text serves all hosts, unless lines of a host that was not observed have to be kept.
    let common = planner.all_seen().then(|| planner.common(&[], &[]));
    for (host, seen) in &planner.peers {
        match seen {
            Ok(seen) => {
                planner.own_files(host, seen, &mut proposal);
                match &common {
                    Some(common) => planner.common_files(host, seen, common, &mut proposal),
                    None if planner.style == Style::Whole => {
                        let known = seen.known_hosts_lines();
                        let kept = planner.common(&known, &seen.block_lines());
                        planner.common_files(host, seen, &kept, &mut proposal);
                    }
                    None => {}
                }
            }
            Err(unknown) => proposal.blocked.push(
                Blocked::unknown(Wave::ClientPrerequisites, subject(host), unknown)
                    .on(&host.id)
                    .hint("migration to and from this host waits until it answers"),
            ),
        }
    }
    proposal
}

fn subject(host: &HostSpec) -> ResourceId {
    ResourceId::new(ResourceKind::Trust, &host.id)
}

impl<'a> Planner<'a> {
    fn new(scene: &Scene<'a>) -> Option<Self> {
        let cluster = scene.cluster;
        cluster.peers().nth(1)?;
        let paths = Paths::new(&cluster.name);
        let style = Style::of(cluster);
        let peers: Vec<_> = cluster
            .peers()
            .map(|host| (host, seen::read(scene.seen, cluster, host, &paths, style)))
            .collect();
        let wrapper = Text::new(&paths.wrapper, files::wrapper(&cluster.name, &paths));
        let config = Text::new(&paths.config, files::config(cluster, &paths));
        Some(Self { cluster, paths, style, peers, wrapper, config })
    }

    fn all_seen(&self) -> bool {
        self.peers.iter().all(|(_, seen)| seen.is_ok())
    }

    fn common(&self, kept_hosts: &[String], kept_lines: &[String]) -> Common {
        let known_hosts = self.known_hosts_keeping(kept_hosts);
        Common {
            known_hosts: Text::new(&self.paths.known_hosts, known_hosts),
            lines: Lines::new(self.lines_keeping(kept_lines), self.style),
        }
    }

    /// One line per peer, in the order of their names. A peer that was not observed keeps the line that `kept` has for it:
    /// the first that it could have written and that no other peer has.
    fn lines_keeping(&self, kept: &[String]) -> Vec<BlockLine> {
        let known: BTreeSet<String> = match kept {
            [] => BTreeSet::new(),
            _ => self.peers.iter().filter_map(|(host, seen)| known_line(host, seen)).collect(),
        };
        let mut kept: Vec<&String> = kept.iter().filter(|line| !known.contains(*line)).collect();
        let line = |(host, seen): &(&HostSpec, Result<Seen<'_>, Unknown>)| match seen {
            Ok(seen) => Some(BlockLine::Key(PeerKey {
                of: host.id.clone(),
                path: self.paths.public.clone(),
                options: files::options(host),
                known: seen.key.clone(),
            })),
            Err(_) => {
                let prefix = files::options(host) + " ";
                let at = kept.iter().position(|line| line.starts_with(&prefix))?;
                Some(BlockLine::Text(kept.remove(at).clone()))
            }
        };
        self.peers.iter().filter_map(line).collect()
    }

    fn known_hosts_keeping(&self, kept: &[String]) -> String {
        let mut out = files::known_hosts_header(&self.cluster.name);
        for (host, seen) in &self.peers {
            let name = files::known_name(host);
            let line = match seen {
                Ok(seen) => seen.host_key.as_ref().map(|key| format!("{name} {key}")),
                Err(_) => kept.iter().find(|line| line.starts_with(&format!("{name} "))).cloned(),
            };
            if let Some(line) = line {
                out.push_str(&line);
                out.push('\n');
            }
        }
        out
    }

    fn own_files(&self, host: &HostSpec, seen: &Seen<'_>, proposal: &mut Proposal) {
        self.key_pair(host, seen, proposal);
        self.file(host, seen, (&self.paths.wrapper, &self.wrapper, FileMode(0o755)), proposal);
        self.file(host, seen, (&self.paths.config, &self.config, FileMode(0o644)), proposal);
        if seen.host_key.is_none() {
            let reason = format!("host {}: no public host key was found in /etc/ssh", host.id);
            let blocked = Blocked::new(Wave::Guest, subject(host), reason).on(&host.id);
            proposal.blocked.push(blocked.hint("run ssh-keygen -A on the host"));
        }
    }

    fn common_files(&self, host: &HostSpec, seen: &Seen<'_>, common: &Common, proposal: &mut Proposal) {
        let (path, mode) = (&self.paths.known_hosts, FileMode(0o644));
        let observed = seen.known_hosts_difference(path, &common.known_hosts, mode);
        self.write(host, observed, (path, &common.known_hosts, mode), proposal);
        self.block(host, seen, &common.lines, proposal);
    }

    fn step(&self, wave: Wave, host: &HostSpec, title: String, effect: Effect, why: Difference) -> Step {
        Step::new(wave, &host.id, subject(host), title, effect).because(why)
    }

    /// A pair of which a half is missing or torn is made anew; ssh-keygen writes the public half last.
    fn key_pair(&self, host: &HostSpec, seen: &Seen<'_>, proposal: &mut Proposal) {
        let Paths { directory, key, public, .. } = &self.paths;
        let own = |kind, path: &AbsPath| Owned::new(kind, path.as_str());
        if !seen.exists(directory) {
            let make = Command::new("mkdir").args(["-p", "-m", "0700", "--", directory.as_str()]);
            let why = Difference::new(format!("directory {directory}"), "present", "absent");
            let step = self.step(
                Wave::Prerequisites,
                host,
                format!("make {directory}"),
                Effect::Run(vec![make]),
                why,
            );
            proposal.steps.push(step.owning(own(OwnedKind::Directory, directory)));
        }
        if seen.key.is_none() {
            let comment = files::comment(&self.cluster.name, &host.id);
            let remove = Command::new("rm").args(["-f", "--", key.as_str(), public.as_str()]);
            let make = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", &comment]);
            let commands = vec![remove, make.args(["-f", key.as_str()])];
            let why = Difference::new("trust.key", "a key pair for migration", "absent");
            let title = format!("make a key pair for migration on {}", host.id);
            let step = self.step(Wave::Prerequisites, host, title, Effect::Run(commands), why);
            let owned = own(OwnedKind::File, key).with("companion", public.as_str());
            proposal.steps.push(step.owning(owned));
        } else if seen.mode(key) != Some(0o600) {
            let chmod = Command::new("chmod").args(["0600", "--", key.as_str()]);
            let why = Difference::new(format!("mode of {key}"), "600", seen.shown_mode(key));
            let title = format!("let only root read {key}");
            proposal.steps.push(self.step(Wave::Prerequisites, host, title, Effect::Run(vec![chmod]), why));
        }
    }

    fn file(
        &self,
        host: &HostSpec,
        seen: &Seen<'_>,
        (path, text, mode): (&AbsPath, &Text, FileMode),
        proposal: &mut Proposal,
    ) {
        self.write(host, seen.difference(path, text, mode), (path, text, mode), proposal);
    }

    fn write(
        &self,
        host: &HostSpec,
        observed: Option<String>,
        (path, text, mode): (&AbsPath, &Text, FileMode),
        proposal: &mut Proposal,
    ) {
        let Some(observed) = observed else { return };
        let spec =
            FileSpec { path: path.clone(), mode, content: FileContent::Text(Arc::clone(&text.content)) };
        let why = Difference::new(format!("file {path}"), "as stor writes it", observed);
        let title = format!("write {path}");
        let step = self.step(Wave::ClientPrerequisites, host, title, Effect::WriteFile(spec), why);
        proposal.steps.push(step.owning(Owned::new(OwnedKind::File, path.as_str())));
    }

    fn block(&self, host: &HostSpec, seen: &Seen<'_>, lines: &Lines, proposal: &mut Proposal) {
        let (path, directory) = (&self.paths.authorized, &self.paths.ssh_directory);
        let observed = match seen.block_difference(lines) {
            Ok(None) => return,
            Ok(Some(observed)) => observed,
            Err(reason) => {
                let blocked =
                    Blocked::new(Wave::Guest, subject(host), format!("host {}: {path}: {reason}", host.id));
                proposal.blocked.push(blocked.on(&host.id).hint("repair the file by hand"));
                return;
            }
        };
        if !seen.exists(directory) {
            let make = Command::new("mkdir").args(["-p", "-m", "0700", "--", directory.as_str()]);
            let why = Difference::new(format!("directory {directory}"), "present", "absent");
            let step = self.step(
                Wave::ClientPrerequisites,
                host,
                format!("make {directory}"),
                Effect::Run(vec![make]),
                why,
            );
            proposal.steps.push(step.owning(Owned::new(OwnedKind::Directory, directory.as_str())));
        }
        let mut owned =
            Owned::new(OwnedKind::Block, path.as_str()).with("marker", self.cluster.name.as_str());
        if !seen.has_authorized_keys() {
            owned = owned.with("created", "yes");
        }
        let why = Difference::new("trust.authorized", format!("{} keys", lines.content.len()), observed);
        let marker = self.cluster.name.to_string();
        let spec = BlockSpec {
            path: path.clone(),
            mode: FileMode(0o600),
            marker,
            lines: Some(Arc::clone(&lines.content)),
        };
        let title = format!("let the other hypervisors' libvirt in on {}", host.id);
        let step = self.step(Wave::ClientPrerequisites, host, title, Effect::EditBlock(spec), why);
        proposal.steps.push(step.owning(owned));
    }
}
