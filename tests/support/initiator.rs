//! open-iscsi on any hypervisor: what stor's scripts do with its records and sessions, against the kernel targets of the fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;
use stor::host::fake::{Files, answer, failure};
use stor::model::{Answer, Command, HostId, Stdin};
use stor::storage::iscsi::commands::lio::wwid;
use stor::storage::iscsi::facts::initiator::{self, FILE};

use super::lio::Kernel;
use super::path;

/// The initiator of one host.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Initiator {
    pub enabled: bool,
    /// Whether the kernel lacks iscsi_tcp.
    pub no_transport: bool,
    /// Targets that it knows.
    pub targets: BTreeMap<String, Known>,
}

/// A target that an initiator knows.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Known {
    /// By portal.
    pub records: BTreeMap<String, Node>,
    /// Portals with a session; their state.
    pub sessions: BTreeMap<String, String>,
    /// What the last look at the LUNs showed: size and serial number.
    pub luns: BTreeMap<u32, (u64, String)>,
    /// The multipath maps over LUNs.
    pub maps: BTreeMap<u32, String>,
}

/// A record.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Node {
    pub startup: String,
    pub timeout: String,
    pub user: String,
    pub secret: Option<String>,
}

/// Runs what concerns open-iscsi; `None` for what does not.
pub fn run(
    hosts: &mut BTreeMap<HostId, Initiator>,
    kernels: &mut BTreeMap<HostId, Kernel>,
    host: &HostId,
    packages: &BTreeSet<String>,
    command: &Command,
    files: &Files,
) -> Option<Answer> {
    let args: Vec<&str> = command.args.iter().map(String::as_str).collect();
    let installed = packages.contains("open-iscsi");
    let here = hosts.entry(host.clone()).or_default();
    Some(match (command.program, args.as_slice()) {
        ("sh", ["-c", _, "stor-sessions", iqn, paths @ ..]) => answer(0, shown(here, iqn, paths)),
        ("iscsiadm", _) if !installed => failure(127, "sh: 1: iscsiadm: not found\n"),
        ("iscsiadm", ["--mode", "node", "--targetname", iqn, "--op", "show"]) => records(here, iqn),
        ("sh", ["-c", _, "stor-node", iqn, timeout, user, portals @ ..]) => {
            let secret = match &command.stdin {
                Stdin::Secret(secret) => Some(secret.reveal().trim_end().to_owned()),
                _ => None,
            };
            let known = here.targets.entry((*iqn).to_owned()).or_default();
            for portal in portals {
                let node = Node {
                    startup: "automatic".to_owned(),
                    timeout: (*timeout).to_owned(),
                    user: (*user).to_owned(),
                    secret: secret.clone(),
                };
                known.records.insert((*portal).to_owned(), node);
            }
            answer(0, "")
        }
        ("sh", ["-c", _, "stor-attach", iqn, portals, paths @ ..]) => {
            let name = files.text(&path(FILE)).and_then(|text| initiator::read(&text).map(str::to_owned));
            attach(here, kernels, (iqn, &name.unwrap_or_default()), portals, paths)
        }
        ("sh", ["-c", _, "stor-leave", iqn, _, portals @ ..]) => {
            let name = files.text(&path(FILE)).and_then(|text| initiator::read(&text).map(str::to_owned));
            let known = here.targets.entry((*iqn).to_owned()).or_default();
            for portal in portals {
                known.sessions.remove(*portal);
                known.records.remove(*portal);
            }
            if known.sessions.is_empty() {
                here.targets.remove(*iqn);
                let all = kernels.values_mut().filter_map(|kernel| kernel.sessions.get_mut(*iqn));
                all.for_each(|names| _ = names.remove(name.as_deref().unwrap_or_default()));
            }
            answer(0, "")
        }
        ("systemctl", ["show", _, "--", "open-iscsi.service" | "iscsi.service"]) => {
            let load = if installed { "loaded" } else { "not-found" };
            let enabled = if here.enabled { "enabled" } else { "disabled" };
            answer(
                0,
                format!(
                    "What=\nLoadState={load}\nActiveState=active\nFragmentPath=\nUnitFileState={enabled}\nNeedDaemonReload=no\n"
                ),
            )
        }
        ("systemctl", ["enable", "--quiet", "--", "open-iscsi.service"]) => {
            here.enabled = true;
            answer(0, "")
        }
        ("systemctl", ["try-restart", "--", "[l]ibvirtd.service", ..]) => answer(0, ""),
        ("virsh", [.., "pool-capabilities"]) => {
            let pools = ["iscsi", "iscsi-direct"].map(|kind| {
                let there = packages.contains(format!("libvirt-daemon-driver-storage-{kind}").as_str());
                let supported = if there { "yes" } else { "no" };
                format!("  <pool type='{kind}' supported='{supported}'>\n  </pool>\n")
            });
            answer(0, format!("<storagepoolCapabilities>\n{}</storagepoolCapabilities>\n", pools.concat()))
        }
        _ => return None,
    })
}

fn shown(here: &Initiator, iqn: &str, paths: &[&str]) -> String {
    let mut out = if here.no_transport { String::new() } else { "transport\n".to_owned() };
    let Some(known) = here.targets.get(iqn) else { return out };
    for (index, (portal, state)) in known.sessions.iter().enumerate() {
        let (address, port) = portal.split_once(':').unwrap();
        writeln!(out, "session {address} {port} {state}").unwrap();
        for (number, (size, serial)) in &known.luns {
            writeln!(out, "lun {number} sd{index}{number} {} {serial}", size / 512).unwrap();
            if let Some(map) = known.maps.get(number) {
                writeln!(out, "holder {map} mpath {}", size / 512).unwrap();
            }
        }
    }
    for (number, (_, serial)) in &known.luns {
        for path in paths.iter().filter(|path| path.ends_with(&wwid(serial))) {
            writeln!(out, "path sd0{number} {path}").unwrap();
        }
    }
    out
}

fn records(here: &Initiator, iqn: &str) -> Answer {
    let Some(known) = here.targets.get(iqn).filter(|known| !known.records.is_empty()) else {
        return failure(21, "iscsiadm: No records found\n");
    };
    let mut out = String::new();
    for (portal, node) in &known.records {
        let (address, port) = portal.split_once(':').unwrap();
        let method = if node.user.is_empty() { "None" } else { "CHAP" };
        let user = if node.user.is_empty() { "<empty>" } else { &node.user };
        writeln!(
            out,
            "# BEGIN RECORD 2.1.11\nnode.startup = {}\nnode.session.auth.authmethod = {method}\n\
             node.session.auth.username = {user}\nnode.session.timeo.replacement_timeout = {}\n\
             node.conn[0].address = {address}\nnode.conn[0].port = {port}\n# END RECORD",
            node.startup, node.timeout
        )
        .unwrap();
    }
    answer(0, out)
}

/// Logs in where the target lets the host in with the secret of its record.
fn attach(
    here: &mut Initiator,
    kernels: &mut BTreeMap<HostId, Kernel>,
    (iqn, name): (&str, &str),
    portals: &str,
    paths: &[&str],
) -> Answer {
    let known = here.targets.entry(iqn.to_owned()).or_default();
    let Some(kernel) = kernels.values_mut().find(|kernel| kernel.targets.contains_key(iqn)) else {
        return failure(1, "iscsiadm: Could not login\n");
    };
    let group = &kernel.targets[iqn]["tpgs"][0];
    let acl = group["node_acls"].as_array().unwrap().iter().find(|acl| acl["node_wwn"] == name);
    for portal in portals.split(' ') {
        let node = known.records.get(portal).cloned().unwrap_or_default();
        let fits = acl.is_some_and(|acl| {
            let text = |key: &str| acl[key].as_str().map(str::to_owned);
            text("chap_password") == node.secret && text("chap_userid").unwrap_or_default() == node.user
        });
        if known.sessions.contains_key(portal) {
            continue;
        }
        if !fits {
            return failure(1, "iscsiadm: initiator reported error (24 - iSCSI login failed)\n");
        }
        known.sessions.insert(portal.to_owned(), "LOGGED_IN".to_owned());
    }
    let object = |lun: &Value| {
        let name = lun["storage_object"].as_str().unwrap().rsplit('/').next().unwrap();
        let object = &kernel.objects[name];
        (object["size"].as_u64().unwrap(), object["wwn"].as_str().unwrap().to_owned())
    };
    let luns = group["luns"].as_array().unwrap().iter();
    known.luns =
        luns.map(|lun| (u32::try_from(lun["index"].as_u64().unwrap()).unwrap(), object(lun))).collect();
    kernel.sessions.entry(iqn.to_owned()).or_default().insert(name.to_owned());
    let shows = |path: &&&str| known.luns.values().any(|(_, serial)| path.ends_with(&wwid(serial)));
    match paths.iter().find(|path| !shows(path)) {
        Some(path) => failure(1, format!("logged in, but {path} did not come\n")),
        None => answer(0, ""),
    }
}
