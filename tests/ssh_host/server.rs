//! A real sshd on loopback with keys and configuration of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stor::host::ssh::{self, SshAccess, SshConfig};
use stor::host::{Fleet, Host};
use stor::model::HostId;
use stor::spec::{Cluster, Driver, Elevation, HostSpec, MigrationPolicy, OnTimeout, Role, SshSpec};

pub struct Server {
    pub dir: tempfile::TempDir,
    pub port: u16,
    sshd: Child,
    configs: std::cell::RefCell<Vec<SshConfig>>,
}

impl Server {
    /// Starts sshd; `extra` are lines of `sshd_config`.
    pub fn start(extra: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests start an sshd and need root");
        assert!(
            Path::new("/usr/sbin/sshd").exists(),
            "these tests need sshd: apt-get install openssh-server"
        );
        fs::create_dir_all("/run/sshd").unwrap();
        let dir = tempfile::Builder::new().prefix("stor-sshd-").tempdir_in("/tmp").unwrap();
        // sshd reads authorized keys as the user who logs in.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for key in ["host", "other", "user", "stranger"] {
            keygen(&dir.path().join(key));
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::copy(path("user.pub"), path("authorized")).unwrap();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\n\
             PermitRootLogin yes\nMaxStartups 100\nLogLevel VERBOSE\n{extra}\n",
            path("host"),
            path("authorized")
        );
        fs::write(path("sshd_config"), config).unwrap();
        let log = fs::File::create(path("log")).unwrap();
        let sshd = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &path("sshd_config")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { dir, port, sshd, configs: Default::default() };
        server.trust("host");
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "sshd does not listen: {}", server.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// Writes a known_hosts that expects this key.
    pub fn trust(&self, key: &str) {
        let key = fs::read_to_string(self.path(&format!("{key}.pub"))).unwrap();
        fs::write(self.path("known_hosts"), format!("[127.0.0.1]:{} {key}", self.port)).unwrap();
    }

    pub fn access(&self) -> SshAccess {
        SshAccess {
            runtime_dir: self.path("run"),
            known_hosts: Some(self.path("known_hosts")),
            identity: Some(self.path("user")),
            user: None,
        }
    }

    pub fn cluster(&self, user: &str, elevation: Elevation) -> Cluster {
        cluster(self.port, user, elevation)
    }

    pub fn connect(&self, access: &SshAccess, user: &str, elevation: Elevation) -> (Fleet, SshConfig) {
        let cluster = self.cluster(user, elevation);
        let (fleet, config) = ssh::connect(&cluster.name, &cluster.hosts, access, 4).unwrap();
        self.configs.borrow_mut().push(config.clone());
        (fleet, config)
    }

    /// The host, logged in as root.
    pub fn host(&self) -> Arc<dyn Host> {
        let (fleet, _) = self.connect(&self.access(), "root", Elevation::Root);
        fleet.host(&HostId::new("kvm1").unwrap()).unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for config in self.configs.borrow().iter() {
            config.close_masters().unwrap();
        }
        self.sshd.kill().unwrap();
        self.sshd.wait().unwrap();
    }
}

fn keygen(path: &Path) {
    let status =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status().unwrap();
    assert!(status.success());
}

/// A cluster of one host on loopback.
pub fn cluster(port: u16, user: &str, elevation: Elevation) -> Cluster {
    let id = HostId::new("kvm1").unwrap();
    let ssh = SshSpec { user: Some(user.into()), port: Some(port), identity_file: None, elevation };
    let host =
        HostSpec { id: id.clone(), address: "127.0.0.1".into(), role: Role::Hypervisor(Driver::Qemu), ssh };
    Cluster {
        name: "testlab".parse().unwrap(),
        base: "/".into(),
        hosts: [(id, host)].into(),
        storage: Default::default(),
        images: Default::default(),
        guests: Default::default(),
        migration: MigrationPolicy {
            bandwidth: None,
            max_downtime: Duration::from_millis(300),
            timeout: Duration::from_secs(60),
            on_timeout: OnTimeout::Abort,
            per_host: 1,
            per_cluster: 1,
        },
        secrets: stor::model::Secrets::default(),
    }
}
