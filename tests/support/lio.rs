//! The kernel's target on any host: what stor's programs for rtslib do with it, in the form of saveconfig.json.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use stor::host::fake::{Files, answer, failure};
use stor::model::{Answer, Command, HostId, Secret, Stamp, Stdin};

use super::path;
use super::tools::size;

/// The targets of one host.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Kernel {
    pub targets: BTreeMap<String, Value>,
    pub objects: BTreeMap<String, Value>,
    pub saved: Value,
    pub enabled: bool,
    /// Initiators that are logged in, by target.
    pub sessions: BTreeMap<String, BTreeSet<String>>,
}

impl Kernel {
    fn config(&self) -> Value {
        json!({
            "storage_objects": self.objects.values().collect::<Vec<_>>(),
            "targets": self.targets.values().collect::<Vec<_>>(),
        })
    }

    /// Forgets what only the running kernel knows.
    pub fn boot(&mut self) {
        self.sessions.clear();
        let saved = self.saved.clone();
        let named = |key: &str, name: &str| -> BTreeMap<String, Value> {
            let all = saved[key].as_array().into_iter().flatten();
            all.map(|item| (item[name].as_str().unwrap().to_owned(), item.clone())).collect()
        };
        (self.targets, self.objects) = (named("targets", "wwn"), named("storage_objects", "name"));
    }
}

/// Runs what concerns the kernel's target; `None` for what does not.
pub fn run(
    kernels: &mut BTreeMap<HostId, Kernel>,
    host: &HostId,
    packages: &BTreeSet<String>,
    command: &Command,
    files: &mut Files,
) -> Option<Answer> {
    let args: Vec<&str> = command.args.iter().map(String::as_str).collect();
    let installed = packages.contains("targetcli-fb");
    Some(match (command.program, args.as_slice()) {
        ("python3", ["-c", _]) if !installed => answer(0, "{}\n"),
        ("python3", ["-c", _]) => answer(0, shown(kernels.entry(host.clone()).or_default(), files)),
        ("python3", ["-c", _, "offer", wanted]) => {
            let secret = match &command.stdin {
                Stdin::Secret(secret) => Some(secret.reveal().trim_end().to_owned()),
                _ => None,
            };
            let wanted: Value = serde_json::from_str(wanted).unwrap();
            offer(kernels.entry(host.clone()).or_default(), &wanted, secret, files)
        }
        ("python3", ["-c", _, "forget", iqn, names @ ..]) => {
            let kernel = kernels.entry(host.clone()).or_default();
            kernel.targets.remove(*iqn);
            names.iter().for_each(|name| _ = kernel.objects.remove(*name));
            kernel.saved = kernel.config();
            answer(0, "")
        }
        ("ss", _) if kernels.get(host).is_some_and(|kernel| !kernel.targets.is_empty()) => {
            answer(0, "LISTEN 0 256 10.77.0.11:3260 0.0.0.0:*\n")
        }
        ("systemctl", ["show", _, "--", "rtslib-fb-targetctl.service" | "target.service"]) => {
            let enabled = kernels.get(host).is_some_and(|kernel| kernel.enabled);
            let load = if installed { "loaded" } else { "not-found" };
            answer(
                0,
                format!(
                    "What=\nLoadState={load}\nActiveState=inactive\nFragmentPath=\nUnitFileState={}\nNeedDaemonReload=no\n",
                    if enabled { "enabled" } else { "disabled" }
                ),
            )
        }
        ("systemctl", ["enable", "--quiet", "--", "rtslib-fb-targetctl.service"]) => {
            kernels.entry(host.clone()).or_default().enabled = true;
            answer(0, "")
        }
        _ => return None,
    })
}

fn shown(kernel: &Kernel, files: &Files) -> String {
    let (mut now, mut saved) = (kernel.config(), kernel.saved.clone());
    let noted: Vec<(String, Stamp)> = files
        .iter()
        .filter(|(path, _)| path.as_str().ends_with(".target-stamp"))
        .filter_map(|(path, file)| {
            Some((path.to_string(), Stamp::parse(&String::from_utf8_lossy(&file.content))?))
        })
        .collect();
    for acl in acls(&mut saved).into_iter().chain(acls(&mut now)) {
        let secret = acl.as_object_mut().unwrap().remove("chap_password");
        let secret = Secret::new(secret.as_ref().and_then(Value::as_str).unwrap_or_default());
        let fitting = noted.iter().filter(|(_, stamp)| stamp.fits(&secret)).map(|(path, _)| path);
        acl["stamps"] = fitting.cloned().collect::<Vec<_>>().into();
    }
    let all: BTreeSet<&String> = kernel.sessions.values().flatten().collect();
    for acl in acls(&mut now) {
        acl["session"] = all.contains(&acl["node_wwn"].as_str().unwrap().to_owned()).into();
    }
    json!({ "now": now, "saved": if saved.is_null() { json!({}) } else { saved } }).to_string()
}

/// The initiators of all targets.
fn acls(config: &mut Value) -> Vec<&mut Value> {
    let targets = config.get_mut("targets").and_then(Value::as_array_mut);
    let groups = targets.into_iter().flatten().filter_map(|target| target.pointer_mut("/tpgs/0/node_acls"));
    groups.filter_map(Value::as_array_mut).flatten().collect()
}

fn offer(kernel: &mut Kernel, wanted: &Value, secret: Option<String>, files: &Files) -> Answer {
    let iqn = wanted["iqn"].as_str().unwrap();
    if wanted["new"] == json!(true) && kernel.targets.contains_key(iqn) {
        return failure(1, "there is a target already\n");
    }
    let luns = wanted["luns"].as_array().unwrap();
    for lun in luns {
        let (file, plugin) = (path(lun["path"].as_str().unwrap()), lun["plugin"].as_str().unwrap());
        let mut object = json!({
            "name": lun["object"], "plugin": plugin, "dev": lun["path"], "wwn": lun["serial"], "write_back": false,
        });
        if plugin == "fileio" {
            if files.text(&file).is_none_or(|text| size(text.as_bytes()) != lun["size"].as_u64().unwrap()) {
                return failure(1, format!("{file} is no file of this size\n"));
            }
            object["size"] = lun["size"].clone();
        }
        kernel.objects.insert(lun["object"].as_str().unwrap().to_owned(), object);
    }
    for gone in wanted["removed"].as_array().unwrap() {
        kernel.objects.remove(gone.as_str().unwrap());
    }
    let before = kernel.targets.get(iqn).map(|target| target["tpgs"][0]["node_acls"].clone());
    let expelled = wanted["expelled"].as_array().unwrap();
    let named = wanted["initiators"].as_array().unwrap();
    let mapped: Vec<Value> = luns
        .iter()
        .map(|lun| json!({ "index": lun["number"], "tpg_lun": lun["number"], "write_protect": false }))
        .collect();
    let mut acls: Vec<Value> = named
        .iter()
        .map(|name| {
            json!({
                "node_wwn": name, "chap_userid": wanted["user"], "chap_password": secret, "mapped_luns": mapped,
            })
        })
        .collect();
    let others = before.iter().filter_map(Value::as_array).flatten();
    acls.extend(
        others
            .filter(|acl| !named.contains(&acl["node_wwn"]) && !expelled.contains(&acl["node_wwn"]))
            .cloned(),
    );
    let portals = wanted["portals"].as_array().unwrap().iter();
    let group = json!({
        "tag": 1,
        "enable": true,
        "attributes": { "authentication": u8::from(secret.is_some()), "generate_node_acls": 0,
            "cache_dynamic_acls": 0, "demo_mode_discovery": 0 },
        "luns": luns.iter().map(|lun| json!({
            "index": lun["number"],
            "storage_object": format!("/backstores/{}/{}", lun["plugin"].as_str().unwrap(), lun["object"].as_str().unwrap()),
        })).collect::<Vec<_>>(),
        "node_acls": acls,
        "portals": portals.map(|portal| json!({ "ip_address": portal["address"], "port": portal["port"] })).collect::<Vec<_>>(),
    });
    kernel.targets.insert(iqn.to_owned(), json!({ "fabric": "iscsi", "wwn": iqn, "tpgs": [group] }));
    kernel.saved = kernel.config();
    answer(0, "")
}
