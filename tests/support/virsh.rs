//! `virsh`, answered from the fake daemons.

use std::fmt::Write as _;

use stor::host::fake::{answer, failure};
use stor::libvirt::DomainState;
use stor::libvirt::domain_xml::{self, DiskSource};
use stor::libvirt::fake::{FakeConnector, FakeDaemon};
use stor::model::{Answer, HostId};

/// Runs `virsh` on a host.
pub fn run(libvirt: &FakeConnector, host: &HostId, args: &[&str]) -> Answer {
    let Some(out) = libvirt.daemon(host, |daemon| on(daemon, args)) else {
        return failure(127, "sh: 1: virsh: not found\n");
    };
    out
}

fn on(daemon: &mut FakeDaemon, args: &[&str]) -> Answer {
    if !daemon.reachable {
        return failure(1, "error: failed to connect to the hypervisor\n");
    }
    match args {
        ["-r", text] if text.starts_with("list --all --uuid --name;") => {
            answer(0, domains(daemon, text.contains("domstats")))
        }
        ["-r", text] if text.starts_with("secret-list;") => secrets(daemon, text),
        ["-r", text] => pools(daemon, text),
        ["autostart", "--", uuid] => match daemon.domains.values_mut().find(|domain| domain.uuid == *uuid) {
            Some(domain) => {
                domain.autostart = true;
                answer(0, format!("Domain '{uuid}' marked as autostarted\n"))
            }
            None => failure(1, format!("error: failed to get domain '{uuid}'\n")),
        },
        other => panic!("virsh {other:?} is not emulated"),
    }
}

/// `virDomainState`.
fn number(state: DomainState) -> u32 {
    match state {
        DomainState::Running => 1,
        DomainState::Paused(_) => 3,
        DomainState::ShuttingDown => 4,
        DomainState::ShutOff => 5,
        DomainState::Crashed => 6,
        DomainState::Suspended => 7,
        DomainState::Unknown => 0,
    }
}

/// The Xen driver has no statistics; there the names of domains that are active are asked for.
fn domains(daemon: &FakeDaemon, statistics: bool) -> String {
    let mut out = String::new();
    for domain in daemon.domains.values() {
        writeln!(out, "{} {}", domain.uuid, domain.name).unwrap();
    }
    out.push('\n');
    for domain in daemon.domains.values().filter(|domain| domain.autostart) {
        writeln!(out, "{}", domain.name).unwrap();
    }
    out.push('\n');
    if !statistics {
        let active = daemon.domains.values().filter(|domain| domain.state != DomainState::ShutOff);
        active.for_each(|domain| writeln!(out, "{}", domain.name).unwrap());
        out.push('\n');
        return out;
    }
    for domain in daemon.domains.values() {
        let disks = domain_xml::read(&domain.xml).unwrap().disks;
        writeln!(out, "Domain: '{}'\n  state.state={}", domain.name, number(domain.state)).unwrap();
        writeln!(out, "  state.reason=0\n  block.count={}", disks.len()).unwrap();
        for (index, disk) in disks.iter().enumerate() {
            if let DiskSource::File(path) | DiskSource::Block(path) = &disk.source {
                writeln!(out, "  block.{index}.path={path}").unwrap();
            }
        }
        out.push('\n');
    }
    out
}

fn pools(daemon: &FakeDaemon, text: &str) -> Answer {
    let mut out = answer(0, " Name   State      Autostart\n------------------------------\n");
    for (name, pool) in &daemon.pools {
        let state = if pool.active { "active" } else { "inactive" };
        let autostart = if pool.autostart { "yes" } else { "no" };
        writeln!(out.stdout, " {name}   {state}   {autostart}").unwrap();
    }
    out.stdout.push('\n');
    for name in text.split("pool-dumpxml ").skip(1).map(|rest| rest.trim_end_matches("; ")) {
        match daemon.pools.get(name) {
            Some(pool) => out.stdout.push_str(&format!("{}\n\n", pool.xml)),
            None => {
                out.status = Some(1);
                writeln!(out.stderr, "error: failed to get pool '{name}'").unwrap();
            }
        }
    }
    out
}

fn secrets(daemon: &FakeDaemon, text: &str) -> Answer {
    let mut out = answer(0, " UUID   Usage\n---------------\n");
    for (id, secret) in &daemon.secrets {
        let usage = secret.xml.split("<target>").nth(1).and_then(|rest| rest.split('<').next()).unwrap();
        writeln!(out.stdout, " {id}   iscsi {usage}").unwrap();
    }
    out.stdout.push('\n');
    let wanted = text.rsplit(' ').next().unwrap();
    match daemon.secrets.iter().find(|(id, _)| id.to_string() == wanted) {
        Some((_, secret)) => out.stdout.push_str(&format!("{}\n", secret.xml)),
        None => {
            out.status = Some(1);
            writeln!(out.stderr, "error: failed to get secret '{wanted}'").unwrap();
        }
    }
    out
}

/// Lines of the domains' definitions that have one of the tags that grep(1) is asked for.
pub fn grep_sources(libvirt: Option<&FakeConnector>, host: &HostId, args: &[&str]) -> Answer {
    let tags: Vec<&str> = args.iter().filter_map(|arg| arg.strip_prefix('<')).collect();
    let directory = args.iter().find(|arg| arg.starts_with("/etc/libvirt/")).unwrap();
    let Some(libvirt) = libvirt else { return answer(2, "") };
    let mut out = String::new();
    libvirt.daemon(host, |daemon| {
        for domain in daemon.domains.values() {
            let asked = |tag: &&str| tags.iter().any(|asked| tag.starts_with(asked));
            domain.xml.split('<').filter(asked).for_each(|tag| {
                out.push_str(&format!("{directory}/{}.xml: <{}\n", domain.name, tag.trim_end()));
            });
        }
    });
    answer(i32::from(out.is_empty()), out)
}
