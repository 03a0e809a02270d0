//! tgt on any host: targets, accounts, the configuration files that it reads when it starts.

use std::collections::{BTreeMap, BTreeSet};

use stor::host::fake::{Files, answer, failure};
use stor::model::{AbsPath, Answer, Command, HostId, Stdin};

use super::tools::size;
use super::{block, initiator, lio, path};

/// All daemons of a fleet.
#[derive(Debug, Default)]
pub struct Servers {
    /// Targets of hosts' kernels.
    pub kernels: BTreeMap<HostId, lio::Kernel>,
    pub daemons: BTreeMap<HostId, Daemon>,
    /// Another program that has iSCSI's port, on every host.
    pub listener: Option<String>,
    /// Whether the hosts' kernels have a target of their own.
    pub kernels_have_lio: bool,
    /// Block devices, by each of their paths.
    pub devices: BTreeMap<(HostId, String), block::Device>,
    /// LVM, where it is installed.
    pub lvm: BTreeMap<HostId, block::Lvm>,
    /// open-iscsi on hypervisors.
    pub initiators: BTreeMap<HostId, initiator::Initiator>,
}

/// One daemon that runs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Daemon {
    pub targets: BTreeMap<String, Target>,
    /// CHAP users with their secrets.
    pub accounts: BTreeMap<String, String>,
}

/// One target.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Target {
    /// By number: path, identifier, serial number, size when it was opened.
    pub luns: BTreeMap<u32, (String, String, String, u64)>,
    pub accounts: BTreeSet<String>,
    pub addresses: BTreeSet<String>,
    /// Addresses that are logged in.
    pub connected: BTreeSet<String>,
}

impl Servers {
    /// Runs what concerns tgt; `None` for what does not.
    pub fn run(
        &mut self,
        host: &HostId,
        packages: &BTreeSet<String>,
        command: &Command,
        files: &mut Files,
    ) -> Option<Answer> {
        if let Some(done) = lio::run(&mut self.kernels, host, packages, command, files) {
            return Some(done);
        }
        let (clients, kernels) = (&mut self.initiators, &mut self.kernels);
        if let Some(done) = initiator::run(clients, kernels, host, packages, command, files) {
            return Some(done);
        }
        let args: Vec<&str> = command.args.iter().map(String::as_str).collect();
        let installed = packages.contains("tgt");
        Some(match (command.program, args.as_slice()) {
            ("tgtadm", _) if !installed => failure(127, "sh: 1: tgtadm: not found\n"),
            ("tgtadm", ["--lld", "iscsi", "--op", "show", "--mode", mode]) => match self.daemons.get(host) {
                Some(daemon) if *mode == "target" => answer(0, show(daemon)),
                Some(daemon) => {
                    let names = daemon.accounts.keys().map(|name| format!("    {name}\n"));
                    answer(0, format!("Account list:\n{}", names.collect::<String>()))
                }
                None => failure(107, "tgtadm: failed to send request hdr to tgt daemon\n"),
            },
            ("ss", _) => {
                let tgtd = self.daemons.contains_key(host).then_some("tgtd");
                let line = |name: &str| {
                    format!("LISTEN 0 4096 0.0.0.0:3260 0.0.0.0:* users:((\"{name}\",pid=286,fd=6))\n")
                };
                answer(0, self.listener.as_deref().or(tgtd).map_or_else(String::new, line))
            }
            ("sh", ["-c", _, "stor-tgt-conf", file]) => conf(files, &path(file)),
            ("sh", ["-c", text]) if text.starts_with("find /etc/tgt") => configured(files),
            ("sh", ["-c", _, "stor-place", file, partial]) => {
                match self.devices.get(&(host.clone(), (*file).to_owned())) {
                    Some(device) => {
                        // The kernel's target has its devices for itself.
                        let kernel =
                            self.kernels.get(host).into_iter().flat_map(|kernel| kernel.objects.values());
                        let offered = kernel.into_iter().any(|object| object["dev"] == **file);
                        let device = block::Device { claimed: device.claimed || offered, ..device.clone() };
                        answer(0, device.show())
                    }
                    None => backing(files, &path(file), &path(partial)),
                }
            }
            ("sh", ["-c", _, "stor-behind"]) => self.behind(host, files),
            ("sh", ["-c", text]) if text.contains("iscsi_target_mod") => {
                answer(i32::from(!self.kernels_have_lio), "")
            }
            ("sh", ["-c", _, "stor-check-device", device, identity]) => self.check(host, device, identity),
            ("vgs" | "lvs" | "lvmconfig" | "lvcreate" | "lvextend" | "lvchange", _)
            | ("sh", ["-c", _, "stor-remove-volume", ..]) => self.lvm(host, command.program, &args),
            ("truncate", [wanted, "--", file]) => {
                let wanted: u64 = wanted.strip_prefix("--size=>").unwrap().parse().unwrap();
                grow(files, &path(file), wanted)
            }
            ("fallocate", ["--length", wanted, "--", file]) => {
                grow(files, &path(file), wanted.parse().unwrap())
            }
            ("perl", ["-e", _, user]) => {
                let Stdin::Secret(secret) = &command.stdin else { panic!("the secret comes on stdin") };
                let Some(daemon) = self.daemons.get_mut(host) else {
                    return Some(failure(2, "tgtd does not answer at /run/tgtd/socket.0\n"));
                };
                daemon.targets.values_mut().for_each(|target| _ = target.accounts.remove(*user));
                daemon.accounts.insert((*user).to_owned(), secret.reveal().to_owned());
                answer(0, "")
            }
            ("sh", ["-c", _, "stor-tgt", verb, iqn, words @ ..]) => {
                self.target(host, (verb, iqn), words, files)
            }
            ("systemctl", ["show", _, "--", unit @ ("tgt.service" | "tgtd.service")]) => {
                let here = installed && *unit == "tgt.service";
                let (load, enabled) = if here { ("loaded", "enabled") } else { ("not-found", "") };
                let active = if here && self.daemons.contains_key(host) { "active" } else { "inactive" };
                answer(
                    0,
                    format!(
                        "What=\nLoadState={load}\nActiveState={active}\nFragmentPath=\nUnitFileState={enabled}\nNeedDaemonReload=no\n"
                    ),
                )
            }
            ("systemctl", ["enable", "--quiet", "--now", "--", "tgt.service"]) => {
                self.start(host, files);
                answer(0, "")
            }
            // Debian starts what it installs.
            ("env", [_, "apt-get", rest @ ..]) if rest.contains(&"tgt") => {
                self.start(host, files);
                return None;
            }
            _ => return None,
        })
    }

    fn behind(&self, host: &HostId, files: &Files) -> Answer {
        let identity = |at: &str| match self.devices.get(&(host.clone(), at.to_owned())) {
            Some(device) => format!("b:{}", device.number),
            None if files.exists(&path(at)) => inode(at),
            None => "-".to_owned(),
        };
        let kernel = self.kernels.get(host).into_iter().flat_map(|kernel| kernel.objects.values());
        let objects = kernel.filter_map(|object| Some((object["name"].as_str()?, object["dev"].as_str()?)));
        let mut out: String =
            objects.map(|(name, at)| format!("lio {name} {} {at}\n", identity(at))).collect();
        let targets = self.daemons.get(host).into_iter().flat_map(|daemon| &daemon.targets);
        for (name, target) in targets {
            for (at, ..) in target.luns.values() {
                out.push_str(&format!("tgt {name} {} {at}\n", identity(at)));
            }
        }
        answer(0, out)
    }

    /// Starts the daemon: it reads its configuration.
    pub fn start(&mut self, host: &HostId, files: &Files) {
        self.daemons.insert(host.clone(), Daemon::default());
        for name in targets(files).into_keys() {
            self.offer(host, &name, files);
        }
    }

    fn offer(&mut self, host: &HostId, iqn: &str, files: &Files) {
        let configured = targets(files);
        let (Some(daemon), Some((target, accounts))) = (self.daemons.get_mut(host), configured.get(iqn))
        else {
            return;
        };
        for (user, secret) in accounts {
            // An account that exists is left alone.
            daemon.accounts.entry(user.clone()).or_insert_with(|| secret.clone());
        }
        let mut target = target.clone();
        for (at, _, _, opened) in target.luns.values_mut() {
            if let Some(device) = self.devices.get(&(host.clone(), at.clone())) {
                *opened = device.size;
            }
        }
        daemon.targets.insert(iqn.to_owned(), target);
    }

    fn target(
        &mut self,
        host: &HostId,
        (verb, iqn): (&str, &str),
        words: &[&str],
        files: &mut Files,
    ) -> Answer {
        if verb == "forget" {
            files.remove(&path(words[1]));
            if let Some(daemon) = self.daemons.get_mut(host) {
                if daemon.targets.get(iqn).is_some_and(|target| !target.connected.is_empty()) {
                    return failure(1, "tgtadm: this target is still active\n");
                }
                daemon.targets.remove(iqn);
                daemon.accounts.remove(words[0]);
            }
            return answer(0, "");
        }
        if verb == "offer" {
            if !self.daemons.contains_key(host) {
                return failure(1, "tgt-admin: cannot reach tgtd\n");
            }
            self.offer(host, iqn, files);
            return answer(0, "");
        }
        let target = self.daemons.get_mut(host).and_then(|daemon| daemon.targets.get_mut(iqn));
        let Some(target) = target else {
            let fine = verb == "bind-account";
            return if fine { answer(0, "") } else { failure(1, format!("tgtd has no target {iqn}\n")) };
        };
        let word = words[0].to_owned();
        match verb {
            "bind-account" => _ = target.accounts.insert(word),
            "unbind-account" => _ = target.accounts.remove(&word),
            "bind-address" => _ = target.addresses.insert(word),
            "unbind-address" => _ = target.addresses.remove(&word),
            "add-lun" => {
                let opened = files.get(&path(words[1])).map(|file| size(&file.content)).unwrap();
                let lun = (words[1].to_owned(), words[2].to_owned(), words[3].to_owned(), opened);
                target.luns.insert(word.parse().unwrap(), lun);
            }
            other => panic!("{other} is not emulated"),
        }
        answer(0, "")
    }
}

fn show(daemon: &Daemon) -> String {
    let mut out = String::new();
    for (index, (name, target)) in daemon.targets.iter().enumerate() {
        out.push_str(&format!(
            "Target {}: {name}\n    System information:\n        Driver: iscsi\n        State: ready\n",
            index + 1
        ));
        out.push_str("    I_T nexus information:\n");
        for address in &target.connected {
            out.push_str(&format!(
                "        I_T nexus: 15\n            Connection: 0\n                IP Address: {address}\n"
            ));
        }
        out.push_str("    LUN information:\n        LUN: 0\n            Type: controller\n            SCSI SN: beaf10\n");
        for (number, (path, id, serial, size)) in &target.luns {
            let megabytes = (size + 500_000) / 1_000_000;
            out.push_str(&format!(
                "        LUN: {number}\n            Type: disk\n            SCSI ID: {id}\n            SCSI SN: {serial}\n            \
                 Size: {megabytes} MB, Block size: 512\n            Online: Yes\n            Backing store path: {path}\n"
            ));
        }
        out.push_str("    Account information:\n");
        target.accounts.iter().for_each(|name| out.push_str(&format!("        {name}\n")));
        out.push_str("    ACL information:\n");
        target.addresses.iter().for_each(|name| out.push_str(&format!("        {name}\n")));
    }
    out
}

/// Reads all configuration files: targets, and the accounts of each.
fn targets(files: &Files) -> BTreeMap<String, (Target, BTreeMap<String, String>)> {
    let mut found = BTreeMap::new();
    for (_, file) in files.iter().filter(|(path, _)| path.as_str().starts_with("/etc/tgt/conf.d/")) {
        let text = String::from_utf8_lossy(&file.content).into_owned();
        let (mut name, mut target, mut accounts) = (String::new(), Target::default(), BTreeMap::new());
        let mut lun = (0, String::new(), String::new(), String::new());
        for words in text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()) {
            match words.as_slice() {
                ["<target", iqn] => iqn.trim_end_matches('>').clone_into(&mut name),
                ["<backing-store", place] => place.trim_end_matches('>').clone_into(&mut lun.1),
                ["lun", number] => lun.0 = number.parse().unwrap(),
                ["scsi_id", id] => (*id).clone_into(&mut lun.2),
                ["scsi_sn", serial] => (*serial).clone_into(&mut lun.3),
                ["</backing-store>"] => {
                    // Devices have no content here; their size is filled in when they are opened.
                    let opened = files.get(&path(&lun.1)).map(|file| size(&file.content));
                    if let Some(opened) = opened.or(lun.1.starts_with("/dev/").then_some(0)) {
                        target.luns.insert(lun.0, (lun.1.clone(), lun.2.clone(), lun.3.clone(), opened));
                    }
                }
                ["incominguser", user, secret] => {
                    target.accounts.insert((*user).to_owned());
                    accounts.insert((*user).to_owned(), (*secret).to_owned());
                }
                ["initiator-address", address] => _ = target.addresses.insert((*address).to_owned()),
                _ => {}
            }
        }
        found.insert(name, (target, accounts));
    }
    found
}

fn conf(files: &Files, file: &AbsPath) -> Answer {
    let Some(found) = files.get(file) else { return answer(0, "absent\n") };
    let mut out = format!("mode {:o}\n", found.mode);
    for line in String::from_utf8_lossy(&found.content).lines() {
        match line.trim_start().strip_prefix("incominguser ") {
            Some(rest) => out.push_str(&format!("    incominguser {} -\n", rest.split(' ').next().unwrap())),
            None => out.push_str(&format!("{line}\n")),
        }
    }
    answer(0, out)
}

fn configured(files: &Files) -> Answer {
    let mut out = String::new();
    for (path, file) in files.iter().filter(|(path, _)| path.as_str().starts_with("/etc/tgt/")) {
        let text = String::from_utf8_lossy(&file.content).into_owned();
        text.lines()
            .filter(|line| line.starts_with("<target "))
            .for_each(|line| out.push_str(&format!("{path}:{line}\n")));
    }
    answer(0, out)
}

fn backing(files: &Files, file: &AbsPath, partial: &AbsPath) -> Answer {
    let left = if files.exists(partial) { "unfinished\n" } else { "" };
    if files.is_directory(file) {
        return answer(0, "file 4096 f:1:1 directory\n");
    }
    match files.get(file) {
        None => answer(0, format!("absent\n{left}")),
        Some(found) => {
            answer(0, format!("file {} {} regular file\n{left}", size(&found.content), inode(file.as_str())))
        }
    }
}

/// Which file a path means; `/link` leads to `/data`.
fn inode(path: &str) -> String {
    format!("f:1:{}", path.replacen("/link/", "/data/", 1))
}

fn grow(files: &mut Files, file: &AbsPath, wanted: u64) -> Answer {
    let now = files.get(file).map_or(0, |found| size(&found.content));
    let mode = files.get(file).map_or(0o644, |found| found.mode);
    files.put(file, format!("raw {}", wanted.max(now)), mode);
    answer(0, "")
}
