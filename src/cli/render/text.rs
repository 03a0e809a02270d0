//! Results as text for people: compact, aligned, sorted as the stages sorted them.

use super::Screen;
use crate::lab::LabStatus;
use crate::migrate::outcome::{Outcome, Outside, Verdict as Ended};
use crate::model::{Blocked, Finding, HostId, ResourceKind, Risk, Severity};
use crate::plan::Plan;
use crate::status::Status;
use crate::storage::health::HealthState;
use crate::verify::{Cell, Matrix, Verdict};

/// A plan, wave by wave.
pub fn plan(plan: &Plan, screen: &Screen) -> String {
    let mut out = String::new();
    for (wave, steps) in &plan.waves {
        out.push_str(&format!("{}\n", screen.bold(&wave.to_string())));
        for step in steps {
            let risk = match step.risk {
                Risk::Safe => String::new(),
                Risk::Disruptive => screen.yellow(" [disruptive]"),
                Risk::DataLoss => screen.red(" [DATA LOSS]"),
            };
            out.push_str(&format!("  {}: {}{risk}\n", step.host, step.title));
            for why in &step.why {
                out.push_str(&format!(
                    "      {}: {} -> {}\n",
                    why.field,
                    short(&why.observed),
                    short(&why.desired)
                ));
            }
        }
    }
    out.push_str(&blocked(&plan.blocked, screen));
    out.push_str(&findings(plan.findings.iter(), screen));
    let steps = plan.steps().count();
    out.push_str(&match (steps, plan.blocked.len()) {
        (0, 0) if plan.has_errors() => "no steps: what is wrong here is yours to decide\n".to_owned(),
        (0, 0) => "nothing to do: every host is as it should be\n".to_owned(),
        (steps, 0) => format!("{steps} steps\n"),
        (steps, blocked) => format!("{steps} steps, {blocked} blocked\n"),
    });
    out
}

/// What cannot be planned. Why a host is unknown stands once, with the host; what waits for it says only that.
fn blocked(blocked: &[Blocked], screen: &Screen) -> String {
    let is_host = |blocked: &&Blocked| blocked.unknown && blocked.subject.kind == ResourceKind::Host;
    let mut out = String::new();
    for host in blocked.iter().filter(is_host) {
        out.push_str(&format!("{} {}\n", screen.red("unknown"), host.reason));
    }
    for other in blocked.iter().filter(|blocked| !is_host(blocked)) {
        let mut reason = other.reason.clone();
        for host in blocked.iter().filter(is_host) {
            reason = reason.replace(&host.reason, &format!("{} is unknown", host.subject));
        }
        let (host, reason) = (on(other.host.as_ref()), once(other.host.as_ref(), &reason));
        out.push_str(&format!("{} {host}{}: {reason}\n", screen.red("blocked"), other.subject));
        if let Some(hint) = &other.hint {
            out.push_str(&format!("      hint: {hint}\n"));
        }
    }
    out
}

/// `host kvm1: `, or nothing.
fn on(host: Option<&HostId>) -> String {
    host.map_or_else(String::new, |host| format!("host {host}: "))
}

/// A message without the host in front of it: the line names it already.
fn once<'a>(host: Option<&HostId>, message: &'a str) -> &'a str {
    message.strip_prefix(&on(host)).filter(|_| host.is_some()).unwrap_or(message)
}

/// The first line of a value, cut where it gets long.
fn short(value: &str) -> String {
    let line = value.lines().next().unwrap_or("");
    let cut: String = line.chars().take(72).collect();
    if cut.len() < value.trim_end().len() { format!("{cut}...") } else { cut }
}

fn findings<'a>(findings: impl Iterator<Item = &'a Finding>, screen: &Screen) -> String {
    let mut out = String::new();
    for finding in findings {
        let severity = match finding.severity {
            Severity::Advice => "advice".to_owned(),
            Severity::Warning => screen.yellow("warning"),
            Severity::Error => screen.red("error"),
        };
        let host = finding.host.as_ref();
        let (on, message) = (on(host), once(host, &finding.message));
        out.push_str(&format!("{severity} {}: {on}{}: {message}\n", finding.code, finding.subject));
        for fact in &finding.evidence {
            out.push_str(&format!("      {fact}\n"));
        }
        if let Some(remedy) = &finding.remedy {
            out.push_str(&format!("      hint: {remedy}\n"));
        }
    }
    out
}

/// The evidence: one line per image and hypervisor, then what each check saw, then what is wrong.
pub fn matrix(matrix: &Matrix, screen: &Screen) -> String {
    let mut out = String::new();
    let name = |cell: &Cell| cell.image.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    for cell in &matrix.cells {
        out.push_str(&format!("{:12} {:12} {:12}", cell.storage.as_str(), name(cell), cell.host.as_str()));
        for check in &cell.checks {
            out.push_str(&format!("  {} {}", check.kind, verdict(check.verdict, screen)));
        }
        out.push('\n');
        for check in &cell.checks {
            out.push_str(&format!("      {}: {}\n", check.kind, check.seen));
        }
    }
    for (storage, note) in &matrix.clients {
        out.push_str(&format!(
            "{storage} through {}: {} ({})\n",
            note.client,
            verdict(note.verdict, screen),
            note.seen
        ));
        if let Some(remedy) = &note.remedy {
            out.push_str(&format!("      hint: {remedy}\n"));
        }
    }
    out.push_str(&findings(matrix.findings().into_iter(), screen));
    out.push_str(match matrix.verdict() {
        Verdict::Pass => "verified: every hypervisor reaches the same images\n",
        Verdict::NotApplicable => "nothing to verify: the file has no hypervisor that reaches storage\n",
        Verdict::Unknown => "not verified: something could not be seen\n",
        Verdict::Fail => "not verified: the evidence speaks against it\n",
    });
    out
}

fn verdict(verdict: Verdict, screen: &Screen) -> String {
    match verdict {
        Verdict::NotApplicable => "n/a".to_owned(),
        Verdict::Pass => screen.green("pass"),
        Verdict::Unknown => screen.yellow("unknown"),
        Verdict::Fail => screen.red("FAIL"),
    }
}

/// Hosts, storage, images and guests.
pub fn status(status: &Status, screen: &Screen) -> String {
    let mut out = format!("cluster {}\n", status.cluster);
    for host in &status.hosts {
        let role = if host.hypervisor { "hypervisor" } else { "server" };
        let state = match &host.unreachable {
            None => screen.green("reachable"),
            Some(reason) => screen.red(&format!("unreachable: {reason}")),
        };
        out.push_str(&format!("host    {:12} {role:10} {state}\n", host.host.as_str()));
    }
    for storage in &status.storage {
        let health = &storage.health;
        let state = match health.state {
            HealthState::Healthy => screen.green("healthy"),
            HealthState::Degraded => screen.yellow("degraded"),
            HealthState::Down => screen.red("down"),
            HealthState::Unknown => screen.yellow("unknown"),
        };
        out.push_str(&format!("storage {:12} {state}: {}\n", storage.storage.as_str(), health.summary));
        for seat in &storage.seats {
            let mount = match (&seat.mounted, &seat.mount) {
                (Some(true), Some(mount)) => mount.clone(),
                (Some(false), mount) => screen.red(mount.as_deref().unwrap_or("not mounted")),
                _ => "-".to_owned(),
            };
            let pool = seat.pool.as_ref().map_or_else(String::new, |pool| format!(", pool {pool}"));
            let unknown =
                seat.unknown.as_ref().map_or_else(String::new, |reason| format!(" (unknown: {reason})"));
            out.push_str(&format!("        {:12} {mount}{pool}{unknown}\n", seat.host.as_str()));
        }
    }
    for image in &status.images {
        let size = match (&image.size, &image.unknown) {
            (Some(size), _) => format!("{}, {} allocated", size.length, size.allocated),
            (None, Some(reason)) => format!("unknown: {reason}"),
            (None, None) => screen.red("missing"),
        };
        out.push_str(&format!("image   {:12} on {}: {size}\n", image.image.as_str(), image.storage));
    }
    for guest in &status.guests {
        let places: Vec<String> =
            guest.places.iter().map(|(host, state)| format!("{} on {host}", state_word(*state))).collect();
        let places = if places.is_empty() { "not defined".to_owned() } else { places.join(", ") };
        out.push_str(&format!("guest   {:12} {places}\n", guest.guest.as_str()));
        for (host, reason) in &guest.unknown {
            out.push_str(&format!("        unknown on {host}: {reason}\n"));
        }
    }
    out.push_str(&findings(status.findings.iter(), screen));
    out
}

fn state_word(state: crate::libvirt::DomainState) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(serde_json::Value::Object(map)) => {
            map.into_iter().map(|(key, value)| format!("{key} ({})", value.as_str().unwrap_or(""))).collect()
        }
        _ => "unknown".to_owned(),
    }
}

/// A lab's hosts.
pub fn lab(status: &LabStatus) -> String {
    let mut out = format!("lab {}: {}, this machine is {}\n", status.lab, status.network, status.admin);
    for host in &status.hosts {
        let role = if host.hypervisor { "hypervisor" } else { "server" };
        out.push_str(&format!("  {:12} {:15} {role:10} {}\n", host.host.as_str(), host.address, host.state));
    }
    out
}

/// How one migration ended.
pub fn outcome(outcome: &Outcome, screen: &Screen) -> String {
    let (guest, to) = (&outcome.guest, &outcome.to);
    let from = outcome.from.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
    let mut out = findings(outcome.findings.iter(), screen);
    out.push_str(&match &outcome.verdict {
        Ended::AlreadyThere => format!("guest {guest}: is on {to} already; nothing to do\n"),
        Ended::Ready => format!("guest {guest}: nothing speaks against moving it from {from} to {to}\n"),
        Ended::Unreachable(reason) => screen.red(&format!("guest {guest}: not moved: {reason}")) + "\n",
        Ended::Refused => screen.red(&format!("guest {guest}: not moved: preflight refused")) + "\n",
        Ended::Moved => screen.green(&format!("guest {guest}: moved from {from} to {to}")) + "\n",
        Ended::Unfinished(reason) => {
            screen.red(&format!("guest {guest}: moved from {from} to {to}, but not all is done: {reason}"))
                + "\n"
        }
        Ended::Stayed(reason) => screen.red(&format!("guest {guest}: still on {from}: {reason}")) + "\n",
        Ended::Unplaced { placement, reason } => {
            screen.red(&format!("guest {guest}: a person must look: {placement:?}: {reason}")) + "\n"
        }
    });
    if let Some(figures) = &outcome.figures {
        let ms = |time: std::time::Duration| format!("{} ms", time.as_millis());
        out.push_str(&format!("      migration time        {}\n", ms(figures.total)));
        let downtime = figures.downtime.map_or_else(|| "not reported".to_owned(), ms);
        out.push_str(&format!("      downtime (QEMU)       {downtime}\n"));
        match &figures.ping {
            Some(Outside::Seen(ping)) => {
                out.push_str(&format!("      longest ping gap      {}\n", ms(ping.longest_gap)));
            }
            Some(Outside::Failed(reason)) => {
                out.push_str(&format!("      longest ping gap      unknown: {reason}\n"))
            }
            None => {}
        }
        let copied =
            figures.disk_copied.map_or_else(|| "not reported".to_owned(), |bytes| format!("{bytes} bytes"));
        out.push_str(&format!("      disk copied           {copied}\n"));
    }
    for note in &outcome.notes {
        out.push_str(&format!("      note: {note}\n"));
    }
    if let Some(receipt) = &outcome.receipt {
        out.push_str(&format!("      receipt               {}\n", receipt.display()));
    }
    out
}
