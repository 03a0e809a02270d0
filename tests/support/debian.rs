//! One Debian host: packages, systemd, mounts, and the small tools that stor runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use stor::host::fake::{File, Files, Machine, answer, coreutils, failure};
use stor::libvirt::fake::FakeConnector;
use stor::model::{AbsPath, Answer, Command, HostId};

use super::gluster::{GROUP, Pool};
use super::tools::{block, cksum, first_entry, identity, leftovers, marked, remove_tree, replace, stat};
use super::{nfs, path, tgt, virsh};

/// A host's state besides its files.
pub struct Debian {
    id: HostId,
    libvirt: Option<FakeConnector>,
    pool: Arc<Mutex<Pool>>,
    nfs: Arc<Mutex<nfs::Servers>>,
    tgt: Arc<Mutex<tgt::Servers>>,
    pub packages: BTreeSet<String>,
    /// Units that systemd has read: name to the text of the file.
    pub loaded: BTreeMap<String, String>,
    /// What is mounted: directory to source.
    pub mounts: BTreeMap<AbsPath, String>,
    pub enabled: BTreeSet<String>,
    pub addresses: BTreeSet<String>,
}

impl std::fmt::Debug for Debian {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Debian")
            .field("packages", &self.packages)
            .field("loaded", &self.loaded)
            .field("mounts", &self.mounts)
            .field("enabled", &self.enabled)
            .finish()
    }
}

/// What lies on a host that was just installed.
pub fn furnish(id: &HostId, files: &mut Files) {
    files.put(&path("/etc/os-release"), "ID=debian\nVERSION_ID=\"13\"\n", 0o644);
    let key = format!("ssh-ed25519 AAAAHOSTKEY{} root@{id}\n", spelled(id));
    files.put(&path("/etc/ssh/ssh_host_ed25519_key.pub"), key, 0o644);
    files.put(&path("/etc/libvirt/qemu.conf"), "user = \"root\"\ngroup = \"root\"\n", 0o600);
    for directory in ["multi-user", "remote-fs"] {
        files.make_directory(&path(&format!("/etc/systemd/system/{directory}.target.wants")));
    }
    for directory in ["/data", "/root", "/var/lib/libvirt/images"] {
        files.make_directory(&path(directory));
    }
}

fn spelled(id: &HostId) -> String {
    id.as_str().replace('-', "0")
}

/// A machine that the test can look into.
pub struct Shared(pub Arc<Mutex<Debian>>);

impl Machine for Shared {
    fn run(&mut self, command: &Command, files: &mut Files) -> Answer {
        self.0.lock().unwrap().run(command, files)
    }
}

impl Debian {
    pub fn new(
        id: HostId,
        libvirt: Option<FakeConnector>,
        pool: Arc<Mutex<Pool>>,
        nfs: Arc<Mutex<nfs::Servers>>,
        tgt: Arc<Mutex<tgt::Servers>>,
    ) -> Self {
        Self {
            id,
            libvirt,
            pool,
            nfs,
            tgt,
            packages: BTreeSet::new(),
            loaded: BTreeMap::new(),
            mounts: BTreeMap::new(),
            enabled: BTreeSet::new(),
            addresses: BTreeSet::new(),
        }
    }

    fn run(&mut self, command: &Command, files: &mut Files) -> Answer {
        self.mirror(files);
        let done = self.dispatch(command, files);
        self.take_back(files);
        done
    }

    /// Shows the volumes' files where they are mounted, and on the bricks.
    pub fn mirror(&self, files: &mut Files) {
        let pool = self.pool.lock().unwrap();
        for (brick, content) in pool.bricks_on(&self.id) {
            replace(files, &brick, &content);
            files.put(&path(&format!("{brick}/.glusterfs/indices")), "", 0o600);
        }
        let nfs = self.nfs.lock().unwrap();
        for ((_, directory), content) in nfs.content.iter().filter(|((host, _), _)| *host == self.id) {
            replace(files, directory, content);
        }
        for (directory, source) in &self.mounts {
            if let Some(key) = nfs.exported(source) {
                replace(files, directory, &nfs.content[&key]);
                continue;
            }
            let name = source.rsplit('/').next().unwrap();
            let content = pool.volumes.get(name).map(|volume| volume.files.clone()).unwrap_or_default();
            replace(files, directory, &content);
        }
    }

    /// Takes what a command changed below a mount into the volume.
    fn take_back(&self, files: &Files) {
        let mut pool = self.pool.lock().unwrap();
        let mut nfs = self.nfs.lock().unwrap();
        let within = |directory: &AbsPath| -> BTreeMap<String, File> {
            let below = files.iter().filter(|(path, _)| *path != directory && path.is_within(directory));
            below.map(|(path, file)| (path.file_name().to_owned(), file.clone())).collect()
        };
        for ((host, directory), content) in &mut nfs.content {
            if *host == self.id {
                *content = within(directory);
            }
        }
        for (directory, source) in &self.mounts {
            if let Some(key) = nfs.exported(source) {
                nfs.content.insert(key, within(directory));
                continue;
            }
            let Some(volume) = pool.volumes.get_mut(source.rsplit('/').next().unwrap()) else { continue };
            let below = files.iter().filter(|(path, _)| path.is_within(directory));
            volume.files = below.map(|(path, file)| (path.file_name().to_owned(), file.clone())).collect();
        }
    }

    fn dispatch(&mut self, command: &Command, files: &mut Files) -> Answer {
        let args: Vec<&str> = command.args.iter().map(String::as_str).collect();
        if let Some(done) =
            self.nfs.lock().unwrap().run(&self.id, &self.packages, command.program, &args, files)
        {
            return done;
        }
        if let Some(done) = self.tgt.lock().unwrap().run(&self.id, &self.packages, command, files) {
            return done;
        }
        match (command.program, args.as_slice()) {
            ("grep", ["-s", "-H", "", named @ ..]) => {
                let texts = named.iter().filter_map(|file| Some((file, files.text(&path(file))?)));
                let lines = texts.flat_map(|(file, text)| {
                    text.lines().map(|line| format!("{file}:{line}\n")).collect::<Vec<_>>()
                });
                answer(0, lines.collect::<String>())
            }
            ("chown", [_, "--", _]) => answer(0, ""),
            ("env", [_, "apt-get", rest @ ..]) => self.apt(rest, files),
            ("dpkg-query", ["-W", _, names @ ..]) => self.dpkg(names),
            ("rpm", _) => failure(127, "sh: 1: rpm: not found\n"),
            ("getent", ["ahosts", "admin"]) => answer(0, "10.77.0.1       STREAM admin\n"),
            ("getent", _) => answer(2, ""),
            ("systemctl", args) => self.systemctl(args, files),
            ("gluster", _) if !self.packages.contains("glusterfs-server") => {
                failure(127, "sh: 1: gluster: not found\n")
            }
            // Nothing guards these hosts.
            ("sh", ["-c", _, "guard", ..]) => answer(0, ""),
            ("sh", ["-c", _, "stor-writers", file]) => answer(0, identity(file, files)),
            ("sh", ["-c", _, "stor-image", _, file]) => match files.text(&path(file)) {
                Some(_) => {
                    answer(0, format!(" 51 46 49 fb 00 00 00 03\n==\n[{{\"filename\": \"{file}\"}}]\n"))
                }
                None => failure(1, format!("head: cannot open '{file}': No such file or directory\n")),
            },
            ("sh", ["-c", _, "stor-marks", cluster]) => answer(0, self.marks(cluster, files)),
            ("sh", ["-c", _, "meet", number]) => {
                self.pool.lock().unwrap().meet(&self.id, number.parse().unwrap())
            }
            ("gluster", args) => self.pool.lock().unwrap().run(&self.id, args),
            ("virsh", args) => match &self.libvirt {
                Some(libvirt) => virsh::run(libvirt, &self.id, args),
                None => failure(127, "sh: 1: virsh: not found\n"),
            },
            ("grep", args) => virsh::grep_sources(self.libvirt.as_ref(), &self.id, args),
            ("cat", ["/proc/self/mountinfo"]) => answer(0, self.mountinfo()),
            ("ls", _) if self.packages.contains("glusterfs-server") => {
                answer(0, self.pool.lock().unwrap().kept(&self.id))
            }
            ("ls", _) => {
                failure(2, "ls: cannot access '/var/lib/glusterd/peers': No such file or directory\n")
            }
            ("test", ["-w", "/dev/kvm"]) => answer(1, ""),
            ("stat", [format, "--", paths @ ..]) => stat(format, paths, files),
            ("cksum", paths) => cksum(paths, files),
            ("find", args) => self.find(args, files),
            ("findmnt", args) => {
                let here = args.last().is_some_and(|at| self.mounts.contains_key(&path(at)));
                answer(i32::from(!here), "")
            }
            ("sed", ["-n", "-e", script, file]) => block(script, file, files),
            ("ssh-keygen", args) => self.keygen(args, files),
            ("chmod", [mode, "--", file]) => {
                let content = files.get(&path(file)).unwrap().content.clone();
                files.put(&path(file), content, u32::from_str_radix(mode, 8).unwrap());
                answer(0, "")
            }
            ("rm", ["-rf", "--one-file-system", "--", directory]) => {
                replace(files, &path(directory), &BTreeMap::new());
                remove_tree(files, &path(directory));
                answer(0, "")
            }
            ("rmdir", ["--ignore-fail-on-non-empty", "--", directory]) => {
                files.remove_directory(&path(directory));
                answer(0, "")
            }
            ("qemu-img", ["create", "-q", "-f", format, file, size]) => {
                files.put(&path(file), format!("{format} {size}"), 0o644);
                answer(0, "")
            }
            ("od", [.., file]) => match files.text(&path(file)) {
                Some(text) if text.starts_with("qcow2 ") => answer(0, " 51 46 49 fb 00 00 00 03\n"),
                Some(_) => answer(0, " 00 00 00 00\n"),
                None => failure(1, format!("od: {file}: No such file or directory\n")),
            },
            ("sh", ["-c", _, "stor-mounted", place, ..]) => match self.mounts.contains_key(&path(place)) {
                true => answer(0, ""),
                false => failure(10, "refused not a mount point\n"),
            },
            ("qemu-img", ["info", .., file]) => match files.text(&path(file)) {
                Some(text) => {
                    let size = text.split(' ').nth(1).unwrap().to_owned();
                    answer(0, format!("{{ \"virtual-size\": {size} }}"))
                }
                None => failure(1, format!("qemu-img: Could not open '{file}': No such file or directory\n")),
            },
            ("mkdir", ["-p", "-m", _, "--", directory]) => {
                files.make_directory(&path(directory));
                answer(0, "")
            }
            _ => coreutils(command, files).unwrap_or_else(|| panic!("{command} is not emulated")),
        }
    }

    /// Which files carry a cluster's marks, and the host's addresses.
    fn marks(&self, cluster: &str, files: &Files) -> String {
        let mut out = marked(cluster, files);
        let pool = self.pool.lock().unwrap();
        for (name, volume) in pool.volumes.iter().filter(|(name, _)| pool.keeps_volume(&self.id, name)) {
            if volume.options.get("user.stor.cluster").is_some_and(|of| of == cluster) {
                out.push_str(&format!("volume {name}\n"));
            }
        }
        let keys = files.text(&path("/root/.ssh/authorized_keys")).unwrap_or_default();
        let peers = keys.lines().filter_map(|line| line.split_once("from=\"")?.1.split_once('"'));
        peers.for_each(|(address, _)| out.push_str(&format!("peer {address}\n")));
        self.addresses.iter().for_each(|address| out.push_str(&format!("address {address}\n")));
        out
    }

    fn apt(&mut self, args: &[&str], files: &mut Files) -> Answer {
        let Some(at) = args.iter().position(|arg| *arg == "--") else { return answer(0, "") };
        for name in &args[at + 1..] {
            self.packages.insert((*name).to_owned());
            if *name == "glusterfs-server" {
                files.put(&path("/var/lib/glusterd/groups/virt"), GROUP, 0o644);
            }
        }
        answer(0, "")
    }

    fn dpkg(&self, names: &[&str]) -> Answer {
        let installed = names.iter().filter(|name| self.packages.contains(**name));
        let out: String = installed.map(|name| format!("{name} installed\n")).collect();
        let all = out.lines().count() == names.len();
        answer(i32::from(!all), out)
    }

    fn systemctl(&mut self, args: &[&str], files: &mut Files) -> Answer {
        match args {
            ["enable", "--quiet", "--now", "--", unit @ "nfs-server.service"]
            | ["enable", "--quiet", "--", unit @ "nfs-ganesha.service"] => {
                self.enabled.insert((*unit).to_owned());
                answer(0, "")
            }
            ["disable", "--quiet", "--now", "--", unit] if unit.starts_with("nfs-") => {
                self.enabled.remove(*unit);
                answer(0, "")
            }
            ["show", _, "--", unit] => answer(0, self.show(unit, files)),
            ["daemon-reload"] => {
                let units = files.iter().filter(|(path, _)| path.parent().as_str() == "/etc/systemd/system");
                self.loaded = units
                    .map(|(path, file)| {
                        (path.file_name().to_owned(), String::from_utf8(file.content.clone()).unwrap())
                    })
                    .collect();
                answer(0, "")
            }
            ["enable", "--quiet", "--now", "--", unit] => {
                if !self.packages.contains("glusterfs-server") {
                    return failure(1, format!("Failed to enable unit: Unit {unit} does not exist\n"));
                }
                self.enabled.insert((*unit).to_owned());
                self.pool.lock().unwrap().running.insert(self.id.clone());
                answer(0, "")
            }
            ["disable", "--quiet", "--now", "--", unit] => {
                self.enabled.remove(*unit);
                self.pool.lock().unwrap().running.remove(&self.id);
                answer(0, "")
            }
            ["enable", "--quiet", "--", unit] => {
                if !files.exists(&unit_file(unit)) {
                    return failure(1, format!("Failed to enable unit: Unit {unit} does not exist\n"));
                }
                for target in ["multi-user", "remote-fs"] {
                    files.put(&wants(target, unit), "-> ../", 0o777);
                }
                answer(0, "")
            }
            ["start", "--", unit] => self.start(unit, files),
            ["stop", "--", pattern] => {
                let unit = pattern.replace(['[', ']'], "");
                let directory = self.loaded.get(&unit).map(|text| path(field(text, "Where")));
                if let Some(directory) = directory.filter(|directory| self.mounts.contains_key(directory)) {
                    self.take_back(files);
                    self.mounts.remove(&directory);
                    replace(files, &directory, &BTreeMap::new());
                }
                answer(0, "")
            }
            other => panic!("systemctl {other:?} is not emulated"),
        }
    }

    fn show(&self, unit: &str, files: &Files) -> String {
        let (mut load, mut active, mut what, mut fragment, mut enabled) =
            ("not-found", "inactive", String::new(), String::new(), "");
        if unit == "glusterd.service" {
            if self.packages.contains("glusterfs-server") {
                load = "loaded";
                enabled = if self.enabled.contains(unit) { "enabled" } else { "disabled" };
                "/usr/lib/systemd/system/glusterd.service".clone_into(&mut fragment);
            }
            if self.pool.lock().unwrap().running.contains(&self.id) {
                active = "active";
            }
        } else if let "nfs-server.service" | "nfs-ganesha.service" = unit {
            let package = if unit == "nfs-server.service" { "nfs-kernel-server" } else { "nfs-ganesha" };
            if self.packages.contains(package) {
                load = "loaded";
                enabled = if self.enabled.contains(unit) { "enabled" } else { "disabled" };
                fragment = format!("/usr/lib/systemd/system/{unit}");
            }
            if self.nfs.lock().unwrap().is_active(&self.id, unit) {
                active = "active";
            }
        } else if let Some(text) = self.loaded.get(unit) {
            load = "loaded";
            fragment = unit_file(unit).to_string();
            field(text, "What").clone_into(&mut what);
            enabled = if files.exists(&wants("multi-user", unit)) { "enabled" } else { "disabled" };
            if self.mounts.contains_key(&path(field(text, "Where"))) {
                active = "active";
            }
        }
        let changed =
            self.loaded.get(unit).is_some_and(|text| files.text(&unit_file(unit)).as_ref() != Some(text));
        let reload = if changed { "yes" } else { "no" };
        format!(
            "What={what}\nLoadState={load}\nActiveState={active}\nFragmentPath={fragment}\nUnitFileState={enabled}\nNeedDaemonReload={reload}\n"
        )
    }

    fn start(&mut self, unit: &str, files: &mut Files) -> Answer {
        let Some(text) = self.loaded.get(unit) else {
            return failure(5, format!("Failed to start {unit}: Unit {unit} not found.\n"));
        };
        let (directory, source) = (path(field(text, "Where")), field(text, "What").to_owned());
        let there = match field(text, "Type") {
            "nfs" => {
                self.packages.contains("nfs-common") && self.nfs.lock().unwrap().exported(&source).is_some()
            }
            _ => {
                self.packages.contains("glusterfs-client")
                    && self.pool.lock().unwrap().mountable(&source).is_some()
            }
        };
        if !there {
            return failure(1, format!("Job for {unit} failed.\n"));
        }
        files.make_directory(&directory);
        self.mounts.insert(directory, source);
        self.mirror(files);
        answer(0, "")
    }

    fn mountinfo(&self) -> String {
        let mut out = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
                       30 22 8:16 / /data rw,relatime shared:2 - ext4 /dev/vdb rw\n"
            .to_owned();
        for (directory, source) in &self.mounts {
            let kind =
                if self.nfs.lock().unwrap().exported(source).is_some() { "nfs4" } else { "fuse.glusterfs" };
            out.push_str(&format!(
                "450 22 0:91 / {directory} rw,relatime shared:3 - {kind} {source} rw,user_id=0\n"
            ));
        }
        out
    }

    fn keygen(&self, args: &[&str], files: &mut Files) -> Answer {
        let after = |flag: &str| args[args.iter().position(|arg| *arg == flag).unwrap() + 1];
        let (file, comment) = (after("-f"), after("-C"));
        if files.exists(&path(file)) {
            return failure(1, format!("{file} already exists.\nOverwrite (y/n)? "));
        }
        files.put(&path(file), format!("PRIVATE {}", self.id), 0o600);
        let public = format!("ssh-ed25519 AAAAMIGRATION{} {comment}\n", spelled(&self.id));
        files.put(&path(&format!("{file}.pub")), public, 0o644);
        answer(0, "")
    }

    fn find(&mut self, args: &[&str], files: &mut Files) -> Answer {
        match args {
            [.., "-name", ".*.stor-*.partial", "-print"] => leftovers(args, files),
            [directory, "-depth", "-path", file, "-delete", "-o", ..] => {
                files.remove(&path(file));
                files.remove_directory(&path(directory));
                answer(0, "")
            }
            [directory, "-maxdepth", "1", "-path", file, "-type", "f", "-empty", "-delete"] => {
                if !files.is_directory(&path(directory)) {
                    return failure(1, format!("find: '{directory}': No such file or directory\n"));
                }
                if files.get(&path(file)).is_some_and(|file| file.content.is_empty()) {
                    files.remove(&path(file));
                }
                answer(0, "")
            }
            [_, "-mindepth", "1", "-maxdepth", "1", "-type", "f", "-exec", "grep", ..] => {
                let address = args.iter().find_map(|arg| arg.strip_prefix("hostname1=")).unwrap();
                let keeps = self.pool.lock().unwrap().keeps_peer(&self.id, address);
                self.unless_gone(keeps, &["peer", "detach", address])
            }
            // Nobody but the hypervisors mounts anything here.
            [_, "-mindepth", "1", "-maxdepth", "1", "-name", _, "!", "-exec", "sh", "-c", _, "idle", ..] => {
                answer(0, "")
            }
            [_, "-mindepth", "1", "-maxdepth", "1", "-name", name, "!", "-exec", "gluster", command @ ..] => {
                let keeps = self.pool.lock().unwrap().keeps_volume(&self.id, name);
                let end = command.iter().position(|word| *word == ";").unwrap();
                self.unless_gone(keeps, &command[..end])
            }
            [.., "-exec", "grep", "-H", "", "{}", "+"] => nfs::lines_of(args, files),
            [directory, "-mindepth", "1", "-maxdepth", "1", rest @ ..] if rest.contains(&"-quit") => {
                first_entry(&path(directory), rest, files)
            }
            other => panic!("find {other:?} is not emulated"),
        }
    }

    /// `find ... -exec gluster ... -exec false {} +`: nothing where nothing is kept, 1 where the command fails.
    fn unless_gone(&self, keeps: bool, command: &[&str]) -> Answer {
        if !keeps {
            return answer(0, "");
        }
        let done = self.pool.lock().unwrap().run(&self.id, command);
        if done.ok() { done } else { failure(1, done.stderr) }
    }
}

fn unit_file(unit: &str) -> AbsPath {
    path(&format!("/etc/systemd/system/{unit}"))
}

fn wants(target: &str, unit: &str) -> AbsPath {
    path(&format!("/etc/systemd/system/{target}.target.wants/{unit}"))
}

fn field<'a>(text: &'a str, key: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or("")
}
