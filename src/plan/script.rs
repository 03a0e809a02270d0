//! A plan as a runbook: plain POSIX shell that a person reads, reviews, and runs as root, host by host and wave by wave.
//!
//! Rendered from the same steps and the same expansion that `execute` runs, never written beside them. Pure. Imports
//! `host::quote` (the one place that quotes), `spec` and `model`. What libvirt is told becomes `virsh` here.

use std::fmt::Write as _;

use super::Plan;
use super::expand::{Action, NO_SUCH_FILE, expand};
use crate::host::block::{begin_mark, end_mark};
use crate::host::quote::{line, word};
use crate::host::virsh::with_uri;
use crate::model::{
    BlockLine, BlockSpec, Command, Driver, FileContent, FileSpec, HostId, PeerKey, Stdin, Step, Wave,
};
use crate::spec::Cluster;

/// How a secret comes in: never from the script.
const FROM_TERMINAL: &str = "/dev/tty";

/// Renders a plan; each section is run with `sh RUNBOOK HOST WAVE` on its host, in the order of the file.
#[must_use]
pub fn render(plan: &Plan, cluster: &Cluster) -> String {
    let mut out = Script::default();
    out.header(plan, cluster);
    for (wave, steps) in &plan.waves {
        for host in steps.chunk_by(|a, b| a.host == b.host) {
            out.section(*wave, host, cluster);
        }
    }
    out.line("*)");
    out.line("    echo \"$0: there is nothing to do for $*\" >&2");
    out.line("    exit 2");
    out.line("    ;;");
    out.line("esac");
    out.text
}

/// The word by which a section names its wave: `client-prerequisites`.
fn slug(wave: Wave) -> String {
    wave.to_string().split([' ', ',']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

#[derive(Default)]
struct Script {
    text: String,
    /// What runs the guests of the section's host.
    driver: Option<Driver>,
    /// What `virsh undefine` is told, so that it leaves what the section's host keeps of a guest beside its definition.
    keep: &'static str,
}

impl Script {
    fn line(&mut self, text: impl AsRef<str>) {
        self.text.push_str(text.as_ref());
        self.text.push('\n');
    }

    /// A comment; text from outside may have line breaks, which would end it.
    fn comment(&mut self, text: &str) {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.line(format!("# {text}"));
    }

    fn header(&mut self, plan: &Plan, cluster: &Cluster) {
        self.line("#!/bin/sh");
        self.comment(&format!("Runbook for cluster {}, written by `stor plan --script`.", cluster.name));
        self.comment("Run it as root on the host of each section, in this order:");
        for (wave, steps) in &plan.waves {
            for host in steps.chunk_by(|a, b| a.host == b.host) {
                let Some(first) = host.first() else { continue };
                self.comment(&format!("    sh RUNBOOK {} {}", first.host, slug(*wave)));
            }
        }
        for blocked in &plan.blocked {
            let host = blocked.host.as_ref().map_or_else(String::new, |host| format!(" on {host}"));
            self.comment(&format!("NOT PLANNED: {}{host}: {}", blocked.subject, blocked.reason));
        }
        self.line("set -eu");
        self.line("export LC_ALL=C");
        self.line("exec </dev/null");
        self.line("case \"$*\" in");
    }

    fn section(&mut self, wave: Wave, steps: &[Step], cluster: &Cluster) {
        let Some(first) = steps.first() else { return };
        let address = cluster.hosts.get(&first.host).map_or("", |host| host.address.as_str());
        self.line("");
        self.comment(&format!("==== {} ({address}): {wave} ====", first.host));
        self.line(format!("'{} {}')", first.host, slug(wave)));
        self.driver = cluster.driver_of(&first.host);
        // Xen's driver knows no such flags, and leaves a guest's files alone.
        self.keep = match self.driver {
            Some(Driver::Xen) => "",
            Some(Driver::Qemu) | None => " --keep-nvram --keep-tpm",
        };
        for step in steps {
            self.step(step);
        }
        self.line(";;");
    }

    fn step(&mut self, step: &Step) {
        self.line("");
        let risk = match step.risk {
            crate::model::Risk::Safe => "",
            crate::model::Risk::Disruptive => " (DISRUPTIVE)",
            crate::model::Risk::DataLoss => " (DESTROYS DATA)",
        };
        self.comment(&format!("{}{risk}", step.title));
        for why in &step.why {
            self.comment(&format!("    {}: {} instead of {}", why.field, why.desired, why.observed));
        }
        let expansion = match expand(&step.effect) {
            Ok(expansion) => expansion,
            Err(error) => {
                self.line(format!("echo {} >&2; exit 1", word(&error.to_string())));
                return;
            }
        };
        for action in &expansion.actions {
            self.action(action);
        }
    }

    fn action(&mut self, action: &Action<'_>) {
        let virsh = with_uri(&["virsh"], self.driver).join(" ");
        match action {
            Action::Run(command) => self.command(command),
            Action::MustBeAbsent { probe, subject } => self.must_be_absent(probe, subject),
            Action::WriteFile(file) => self.write_file(file),
            Action::EditBlock(block) => self.edit_block(block),
            Action::Feed { source, command } => {
                let name = source.file_name().unwrap_or_default().to_string_lossy();
                let (source, here) = (source.display().to_string(), format!("/root/{name}"));
                self.comment(&format!(
                    "First copy {source} of the machine that runs stor to {here} on this host."
                ));
                let here = word(&here);
                self.line(format!("{} \"$(wc -c <{here})\" <{here}", line(command, self.driver)));
            }
            Action::EnsurePool { name, xml } => {
                let name = word(name);
                self.here(&format!("{virsh} pool-define /dev/stdin"), xml);
                self.line(format!("{virsh} pool-build {name}"));
                self.line(format!(
                    "{virsh} pool-info {name} | grep -q '^State: *running' || {virsh} pool-start {name}"
                ));
                self.line(format!("{virsh} pool-autostart {name}"));
            }
            Action::RemovePool { name } => {
                let name = word(name);
                self.line(format!("if {virsh} pool-info {name} >/dev/null 2>&1; then"));
                self.line(format!("    if {virsh} pool-info {name} | grep -q '^State: *running'; then {virsh} pool-destroy {name}; fi"));
                self.line(format!("    {virsh} pool-undefine {name}"));
                self.line("fi");
            }
            Action::EnsureSecret { id, xml, .. } => {
                self.here(&format!("{virsh} secret-define /dev/stdin"), xml);
                self.comment("The value is secret and not shown here: virsh asks for it on the terminal.");
                self.line(format!("{virsh} secret-set-value {id} --interactive"));
            }
            Action::Stamp(file) => {
                let path = &file.path;
                self.comment(&format!("stor leaves a stamp of the value in {path}, this script does not:"));
                self.comment("the next `stor apply` gives libvirt the value once more.");
            }
            Action::RemoveSecret { id } => {
                self.line(format!("if {virsh} secret-dumpxml {id} >/dev/null 2>&1; then"));
                self.line(format!("    {virsh} secret-undefine {id}"));
                self.line("fi");
            }
            Action::DefineGuest { name, uuid, hypervisors, xml } => {
                let hosts = hypervisors.iter().map(HostId::as_str).collect::<Vec<_>>().join(", ");
                self.comment(&format!(
                    "First see on each of {hosts} that no domain is called {name} or has UUID {uuid}, and that none runs on its images."
                ));
                self.here(&format!("{virsh} define /dev/stdin"), xml);
            }
            Action::UndefineGuest { uuid, .. } => {
                let keep = self.keep;
                self.line(format!("{virsh} undefine {}{keep}", word(uuid)));
            }
        }
    }

    fn command(&mut self, command: &Command) {
        match &command.stdin {
            Stdin::Empty => self.line(line(command, self.driver)),
            Stdin::Text(text) => self.here(&line(command, self.driver), text),
            Stdin::Secret(_) => {
                self.comment("It reads a secret, which is not shown here: type it and end with Ctrl-D.");
                self.line(format!("{} <{FROM_TERMINAL}", line(command, self.driver)));
            }
        }
    }

    /// Gives `text` to a command in a here-document whose quoted delimiter keeps the shell from reading anything into it.
    fn here(&mut self, command: &str, text: &str) {
        let Some(text) = text.strip_suffix('\n') else {
            // A here-document always ends with a line break.
            self.line(format!("printf '%s' {} | {command}", word(text)));
            return;
        };
        let mut delimiter = "STOR_END".to_owned();
        while text.lines().any(|line| line == delimiter) {
            delimiter.push('_');
        }
        self.line(format!("{command} <<'{delimiter}'"));
        self.line(text);
        self.line(delimiter);
    }

    fn must_be_absent(&mut self, probe: &Command, subject: &str) {
        self.line(format!("if found=$({} 2>&1); then", line(probe, self.driver)));
        self.line(format!("    echo {} >&2; exit 1", word(&format!("{subject} exists already"))));
        self.line("fi");
        self.line(format!(
            "case $found in *{}*) ;; *) printf '%s\\n' \"$found\" >&2; exit 1 ;; esac",
            word(NO_SUCH_FILE)
        ));
    }

    fn write_file(&mut self, file: &FileSpec) {
        let (path, partial) = (word(file.path.as_str()), word(&format!("{}.stor-new", file.path)));
        self.line(format!("mkdir -p -- {}", word(file.path.parent().as_str())));
        self.line("umask 077");
        match &file.content {
            FileContent::Text(text) => self.here(&format!("cat >{partial}"), text),
            FileContent::Secret(_) => {
                self.comment("The content is secret and not shown here: type it and end with Ctrl-D.");
                self.line(format!("cat >{partial} <{FROM_TERMINAL}"));
            }
        }
        self.line("umask 022");
        self.line(format!("chmod {:o} {partial}", file.mode.0));
        self.line(format!("mv -f -- {partial} {path}"));
    }

    fn edit_block(&mut self, block: &BlockSpec) {
        let path = word(block.path.as_str());
        let marker = |mark: String| mark.replace('/', r"\/");
        let (begin, end) = (begin_mark(&block.marker), end_mark(&block.marker));
        let delete = format!("/^{}$/,/^{}$/d", marker(begin.clone()), marker(end.clone()));
        match &block.lines {
            None => self.line(format!("if [ -e {path} ]; then sed -i {} {path}; fi", word(&delete))),
            Some(lines) => {
                let keys = lines.iter().filter_map(|line| match line {
                    BlockLine::Key(key) if key.known.is_none() => Some(key),
                    _ => None,
                });
                for key in keys {
                    self.wanted_key(key);
                }
                self.line(format!("if [ -e {path} ]; then sed -i {} {path}", word(&delete)));
                self.line(format!("else : >{path}; chmod {:o} {path}; fi", block.mode.0));
                self.line("{");
                self.line(format!("    echo {}", word(&begin)));
                for line in lines.iter() {
                    self.block_line(line);
                }
                self.line(format!("    echo {}", word(&end)));
                self.line(format!("}} >>{path}"));
            }
        }
    }

    /// A key that does not exist yet is asked for by name when the section runs.
    fn wanted_key(&mut self, key: &PeerKey) {
        let variable = variable(key);
        let hint = format!("set {variable} to the first two words of {} on {}", key.path, key.of);
        self.line(format!(": \"${{{variable}:?{hint}}}\""));
    }

    fn block_line(&mut self, line: &BlockLine) {
        // Writing to a String cannot fail.
        match line {
            BlockLine::Text(text) => writeln!(self.text, "    printf '%s\\n' {}", word(text)),
            BlockLine::Key(PeerKey { options, known: Some(known), .. }) => {
                writeln!(self.text, "    printf '%s\\n' {}", word(&format!("{options} {known}")))
            }
            BlockLine::Key(key) => {
                writeln!(self.text, "    printf '%s %s\\n' {} \"${}\"", word(&key.options), variable(key))
            }
        }
        .unwrap_or_default();
    }
}

/// `KEY_kvm1`: names of hosts hold hyphens, variables do not.
fn variable(key: &PeerKey) -> String {
    format!("KEY_{}", key.of.as_str().replace('-', "_"))
}
