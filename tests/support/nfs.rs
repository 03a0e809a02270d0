//! NFS: the kernel's server and nfs-ganesha on any host, and the directories that they export.

use std::collections::{BTreeMap, BTreeSet};

use stor::host::fake::{File, Files, answer, failure};
use stor::model::{AbsPath, Answer, HostId};
use stor::spec::Cluster;

use super::path;

const ETAB: &str = "/var/lib/nfs/etab";

/// All servers of a fleet.
#[derive(Debug, Default)]
pub struct Servers {
    addresses: BTreeMap<HostId, String>,
    /// Hosts whose kernel has nfsd.
    pub nfsd: BTreeSet<HostId>,
    /// Hosts whose kernel server runs.
    pub kernel: BTreeSet<HostId>,
    /// What nfs-ganesha exports where it runs: number, path, clients.
    pub ganesha: BTreeMap<HostId, Vec<(String, String, Vec<String>)>>,
    /// What lies in directories that are or were exported.
    pub content: BTreeMap<(HostId, AbsPath), BTreeMap<String, File>>,
}

impl Servers {
    pub fn new(cluster: &Cluster) -> Self {
        let addresses: BTreeMap<HostId, String> =
            cluster.hosts.values().map(|host| (host.id.clone(), host.address.clone())).collect();
        let nfsd = addresses.keys().cloned().collect();
        Self { addresses, nfsd, ..Self::default() }
    }

    /// The exported directory behind `ADDRESS:/PATH`, if a server has it now.
    pub fn exported(&self, source: &str) -> Option<(HostId, AbsPath)> {
        let (address, directory) = source.split_once(':')?;
        let (host, _) = self.addresses.iter().find(|(_, other)| *other == address)?;
        let key = (host.clone(), AbsPath::new(directory).ok()?);
        self.content.contains_key(&key).then_some(key)
    }

    /// Runs what concerns NFS; `None` for what does not.
    pub fn run(
        &mut self,
        host: &HostId,
        packages: &BTreeSet<String>,
        program: &str,
        args: &[&str],
        files: &mut Files,
    ) -> Option<Answer> {
        let kernel = packages.contains("nfs-kernel-server");
        Some(match (program, args) {
            ("cat", ["/proc/filesystems"]) => answer(0, "nodev\tsysfs\n\text4\n"),
            ("modprobe", _) => answer(i32::from(!self.nfsd.contains(host)), ""),
            ("cat", ["/proc/fs/nfsd/versions"]) if self.kernel.contains(host) => {
                answer(0, "+3 +4 +4.1 +4.2\n")
            }
            ("realpath", ["-m", "--", place]) => answer(0, format!("{place}\n")),
            ("busctl", [.., "DisplayExport", "q", number]) => self.shown(host, number),
            ("sh", ["-c", _, "stor-exportfs", directory, clients @ ..]) => {
                if !kernel {
                    return Some(failure(1, "sh: 1: exportfs: not found\n"));
                }
                self.reexport(host, files);
                let etab = files.text(&path(ETAB)).unwrap_or_default();
                let missing =
                    clients.iter().find(|client| !etab.contains(&format!("{directory}\t{client}(")));
                match missing {
                    Some(client) => failure(1, format!("{directory} is not exported to {client}: \n")),
                    None => answer(0, ""),
                }
            }
            ("sh", ["-c", text]) if text.contains("exportfs -ra") => {
                if kernel {
                    self.reexport(host, files);
                }
                answer(0, "")
            }
            ("sh", ["-c", text]) if text.contains("reload nfs-ganesha") => {
                if self.ganesha.contains_key(host) {
                    self.read_ganesha(host, files);
                }
                answer(0, "")
            }
            ("sh", ["-c", _, "stor-nfsd"]) => answer(0, ""),
            ("sh", ["-c", _, "stor-ganesha", number, _]) => self.shown(host, number),
            ("systemctl", ["enable", "--quiet", "--now", "--", "nfs-server.service"]) => {
                if !kernel || !self.nfsd.contains(host) {
                    return Some(failure(
                        1,
                        "Failed to enable unit: Unit nfs-server.service does not exist\n",
                    ));
                }
                self.kernel.insert(host.clone());
                self.reexport(host, files);
                return None;
            }
            ("systemctl", ["disable", "--quiet", "--now", "--", "nfs-server.service"]) => {
                self.kernel.remove(host);
                files.remove(&path(ETAB));
                return None;
            }
            ("systemctl", ["disable", "--quiet", "--now", "--", "nfs-ganesha.service"]) => {
                self.ganesha.remove(host);
                return None;
            }
            ("systemctl", ["restart" | "reload", "--", "nfs-ganesha.service"]) => {
                if !packages.contains("nfs-ganesha") {
                    return Some(failure(5, "Unit nfs-ganesha.service not found.\n"));
                }
                self.read_ganesha(host, files);
                answer(0, "")
            }
            ("systemctl", ["try-restart", ..]) => answer(0, ""),
            _ => return None,
        })
    }

    /// Whether a daemon runs.
    pub fn is_active(&self, host: &HostId, unit: &str) -> bool {
        match unit {
            "nfs-server.service" => self.kernel.contains(host),
            _ => self.ganesha.contains_key(host),
        }
    }

    fn reexport(&mut self, host: &HostId, files: &mut Files) {
        let mut etab = String::new();
        for (_, file) in files.iter().filter(|(path, _)| path.as_str().ends_with(".exports")) {
            for line in String::from_utf8_lossy(&file.content).lines().filter(|line| !line.starts_with('#')) {
                let (directory, client) = line.split_once(' ').unwrap();
                if self.kernel.contains(host) && files.is_directory(&path(directory)) {
                    etab.push_str(&format!("{directory}\t{client}\n"));
                    self.content.entry((host.clone(), path(directory))).or_default();
                }
            }
        }
        files.put(&path(ETAB), etab, 0o644);
    }

    /// Reads the files that the main one includes.
    fn read_ganesha(&mut self, host: &HostId, files: &Files) {
        let main = files.text(&path("/etc/ganesha/ganesha.conf")).unwrap_or_default();
        let mut exports = Vec::new();
        for file in main.lines().filter_map(|line| line.strip_prefix("%include \"")?.strip_suffix('"')) {
            let text = files.text(&path(file)).unwrap();
            let setting = |name: &str| {
                let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(" = "));
                line.unwrap().trim_end_matches(';').to_owned()
            };
            let clients = setting("Clients").split(", ").map(str::to_owned).collect();
            self.content.entry((host.clone(), path(&setting("Path")))).or_default();
            exports.push((setting("Export_Id"), setting("Path"), clients));
        }
        self.ganesha.insert(host.clone(), exports);
    }

    fn shown(&self, host: &HostId, number: &str) -> Answer {
        let exports = self.ganesha.get(host).into_iter().flatten();
        let Some((_, path, clients)) = exports.into_iter().find(|(id, ..)| id == number) else {
            return failure(1, "Call failed: lookup_export failed with Export id not found\n");
        };
        let clients: Vec<_> =
            clients.iter().map(|client| serde_json::json!([format!("{client}/32"), 0])).collect();
        let number: u16 = number.parse().unwrap();
        answer(0, serde_json::json!({"type": "x", "data": [number, path, path, "", clients]}).to_string())
    }
}

/// `find DIRECTORIES ... -name PATTERN -exec grep -H "" {} +`
pub fn lines_of(args: &[&str], files: &Files) -> Answer {
    let suffix = args[args.iter().position(|arg| *arg == "-name").unwrap() + 1].trim_start_matches('*');
    let directories: Vec<AbsPath> =
        args.iter().take_while(|arg| arg.starts_with('/')).map(|arg| path(arg)).collect();
    let mut out = String::new();
    for (place, file) in files.iter() {
        let inside = directories.iter().any(|directory| place.is_within(directory));
        if inside && place.as_str().ends_with(suffix) {
            let text = String::from_utf8_lossy(&file.content).into_owned();
            text.lines().for_each(|line| out.push_str(&format!("{place}:{line}\n")));
        }
    }
    answer(0, out)
}
