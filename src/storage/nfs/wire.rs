//! The look at an NFS server with a client of NFSv3 on this machine: MOUNT, EXPORT list, LOOKUP, GETATTR, READ.
//!
//! nfs3_client has no time limits and is asynchronous: every call is limited here, and a private runtime on the calling
//! thread hides behind one blocking function. Imports `model` and `storage::probe`. Sources: RFC 1813 and its appendix I.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use nfs3_client::nfs3_types::mount::mountstat3;
use nfs3_client::nfs3_types::nfs3::{
    GETATTR3args, LOOKUP3args, Nfs3Result, READ3args, diropargs3, filename3, nfs_fh3, nfsstat3,
};
use nfs3_client::nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_client::nfs3_types::xdr_codec::Opaque;
use nfs3_client::tokio::{TokioConnector, TokioIo};
use nfs3_client::{ConnectError, MountError, Nfs3Connection, Nfs3ConnectionBuilder};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::commands::NFS_PORT;
use crate::storage::probe::{ClientAnswer, ClientRequest, Identity, NfsExport, NoClient, names, own_address};

/// Time for one call.
const CALL_DEADLINE: Duration = Duration::from_secs(3);
/// Time for everything, however many files are looked at.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);
/// What to do about clients that the file does not name.
const STRANGERS: &str =
    "find out who exports it (`exportfs -v`, or /etc/ganesha, on the server), then `stor apply`";
/// Bytes of a probe file that are read.
const READ_BYTES: u32 = 192;

type Connection = Nfs3Connection<TokioIo<TcpStream>>;

/// Why the server was not looked at.
#[derive(Debug, thiserror::Error)]
enum WireError {
    /// The server did not answer.
    #[error("{server} does not answer {what} within {}", humantime::format_duration(CALL_DEADLINE))]
    Deadline {
        /// The server.
        server: String,
        /// The call.
        what: &'static str,
    },
    /// The server could not be reached, or said something that is no answer.
    #[error("{server}: {what}: {reason}")]
    Call {
        /// The server.
        server: String,
        /// The call.
        what: &'static str,
        /// Its message.
        reason: String,
    },
    /// The server refused the mount.
    #[error("{server} refuses this machine: {status:?}")]
    Denied {
        /// The server.
        server: String,
        /// Its status.
        status: mountstat3,
    },
    /// A name without an IPv4 address.
    #[error("{server} has no IPv4 address")]
    Address {
        /// The name.
        server: String,
    },
}

/// Looks at an export; identifies files and reads the start of probe files. Never writes.
///
/// # Errors
/// [`NoClient`]: the export is not for NFSv3 or not for this machine; it lets this machine in although the file does not;
/// or the server did not answer in time.
pub fn look(
    export: &NfsExport,
    allowed: &[String],
    v3: bool,
    request: &ClientRequest,
) -> Result<ClientAnswer, NoClient> {
    if !v3 {
        return Err(NoClient::NotApplicable {
            reason: "it is exported with NFSv4 only, and the look over the wire speaks NFSv3".to_owned(),
            remedy: "write protocols: [3, 4] if it is wanted".to_owned(),
        });
    }
    let here = own_address(std::slice::from_ref(&export.server), NFS_PORT);
    let listed = here.is_some_and(|here| allowed.iter().any(|entry| names(entry, here)));
    let shown = here.map_or("this machine".to_owned(), |here| format!("this machine ({here})"));
    let remedy = format!(
        "add {} to `allow:` of the storage and run `stor apply`",
        here.map_or("its address".to_owned(), |here| here.to_string())
    );
    match (look_within(export, request), listed) {
        (Ok((_, Some(stranger))), _) => Err(NoClient::LetIn {
            reason: format!("{} is exported to {stranger}", export.path),
            remedy: STRANGERS.to_owned(),
        }),
        (Ok((answer, None)), true) => Ok(answer),
        // One of them may be this machine: the server knows that name.
        (Ok((answer, None)), false) if allowed.iter().any(|entry| is_strange(entry)) => Ok(answer),
        (Ok(_), false) => Err(NoClient::LetIn {
            reason: format!("{} lets {shown} in, which the file does not name", export.path),
            remedy: STRANGERS.to_owned(),
        }),
        (Err(WireError::Denied { .. }), false) => Err(NoClient::NotApplicable {
            reason: format!("the server refuses {shown}, as the file says"),
            remedy,
        }),
        (Err(error), false) => Err(NoClient::NotApplicable {
            reason: format!("{shown} is none of the export's clients, and {error}"),
            remedy,
        }),
        (Err(error), true) => Err(NoClient::Failed { reason: error.to_string() }),
    }
}

/// Whether an entry is a name that leads nowhere from this machine, or only to whoever asks, as a Debian host's own does.
fn is_strange(entry: &str) -> bool {
    let is_address = entry.parse::<Ipv4Addr>().is_ok();
    let addresses = (entry, 0).to_socket_addrs();
    !is_address && addresses.map_or(true, |mut all| all.all(|found| found.ip().is_loopback()))
}

fn look_within(
    export: &NfsExport,
    request: &ClientRequest,
) -> Result<(ClientAnswer, Option<String>), WireError> {
    let server = || export.server.clone();
    let call =
        |what, error: std::io::Error| WireError::Call { server: server(), what, reason: error.to_string() };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| call("start a runtime", error))?;
    let look = async {
        let session = Session::open(export).await?;
        timeout(LOOK_DEADLINE, session.answer(request))
            .await
            .map_err(|_| WireError::Deadline { server: server(), what: "all files" })?
    };
    runtime.block_on(look)
}

/// One mounted export.
struct Session<'a> {
    export: &'a NfsExport,
    connection: Connection,
}

impl<'a> Session<'a> {
    async fn open(export: &'a NfsExport) -> Result<Self, WireError> {
        let address = (export.server.as_str(), NFS_PORT).to_socket_addrs().ok().and_then(|mut all| {
            all.find_map(|address| match address {
                SocketAddr::V4(address) => Some(*address.ip()),
                SocketAddr::V6(_) => None,
            })
        });
        let address: Ipv4Addr =
            address.ok_or_else(|| WireError::Address { server: export.server.clone() })?;
        let connection = match mount(export, address, Port::Privileged).await {
            // Only root may use a port below 1024; some servers take others.
            Err(ConnectError::Io(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                mount(export, address, Port::Any).await
            }
            result => result,
        };
        let server = || export.server.clone();
        let connection = connection.map_err(|error| match error {
            ConnectError::Mount(MountError::Denied(status)) => WireError::Denied { server: server(), status },
            ConnectError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                WireError::Deadline { server: server(), what: "MOUNT" }
            }
            other => WireError::Call { server: server(), what: "MOUNT", reason: other.to_string() },
        })?;
        Ok(Self { export, connection })
    }

    fn failed(&self, what: &'static str, reason: impl std::fmt::Display) -> WireError {
        WireError::Call { server: self.export.server.clone(), what, reason: reason.to_string() }
    }

    async fn within<T, E: std::fmt::Display>(
        export: &NfsExport,
        what: &'static str,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, WireError> {
        let server = || export.server.clone();
        match timeout(CALL_DEADLINE, call).await {
            Err(_) => Err(WireError::Deadline { server: server(), what }),
            Ok(Err(error)) => Err(WireError::Call { server: server(), what, reason: error.to_string() }),
            Ok(Ok(value)) => Ok(value),
        }
    }

    /// Looks at everything, and names a client of the export list that nobody should be: a network or a pattern.
    async fn answer(mut self, request: &ClientRequest) -> Result<(ClientAnswer, Option<String>), WireError> {
        let stranger = self.stranger().await?;
        let mut answer = ClientAnswer::default();
        for file in &request.identify {
            let seen = self.identify(file).await?;
            answer.identified.insert(file.clone(), seen);
        }
        for file in &request.read {
            let seen = self.read(file).await?;
            answer.read.insert(file.clone(), seen);
        }
        Self::within(self.export, "UMNT", self.connection.unmount()).await?;
        Ok((answer, stranger))
    }

    /// The EXPORT list has to name the path; of its clients, patterns and networks are nobody that stor would name.
    async fn stranger(&mut self) -> Result<Option<String>, WireError> {
        let list = Self::within(self.export, "EXPORT", self.connection.mount_client.export()).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let path = self.export.path.as_str();
        let own: Vec<_> = list.0.iter().filter(|node| text(node.ex_dir.0.as_ref()) == path).collect();
        if own.is_empty() {
            return Err(self.failed("EXPORT", format!("{path} is not in the list of exports")));
        }
        let clients = own.iter().flat_map(|node| node.ex_groups.0.iter()).map(|name| text(name.0.as_ref()));
        let open = |client: &String| {
            let network = client.split_once('/').is_some_and(|(_, bits)| bits != "32");
            network || client.contains(['*', '?', '@', '(']) || client == "0.0.0.0"
        };
        Ok(clients.into_iter().find(open))
    }

    async fn find(&mut self, file: &str) -> Result<Result<nfs_fh3, String>, WireError> {
        let what = diropargs3 { dir: self.connection.root_nfs_fh3(), name: filename3::from(file.as_bytes()) };
        let found =
            Self::within(self.export, "LOOKUP", self.connection.lookup(&LOOKUP3args { what })).await?;
        Ok(match found {
            Nfs3Result::Ok(found) => Ok(found.object),
            Nfs3Result::Err((status, _)) => Err(said(status)),
        })
    }

    async fn identify(&mut self, file: &str) -> Result<Result<Identity, String>, WireError> {
        let object = match self.find(file).await? {
            Ok(object) => object,
            Err(why) => return Ok(Err(why)),
        };
        let seen =
            Self::within(self.export, "GETATTR", self.connection.getattr(&GETATTR3args { object })).await?;
        Ok(match seen {
            Nfs3Result::Ok(seen) => {
                Ok(Identity { inode: seen.obj_attributes.fileid, id: None, size: seen.obj_attributes.size })
            }
            Nfs3Result::Err((status, _)) => Err(said(status)),
        })
    }

    async fn read(&mut self, file: &str) -> Result<Result<String, String>, WireError> {
        let file = match self.find(file).await? {
            Ok(file) => file,
            Err(why) => return Ok(Err(why)),
        };
        let args = READ3args { file, offset: 0, count: READ_BYTES };
        let seen = Self::within(self.export, "READ", self.connection.read(&args)).await?;
        Ok(match seen {
            Nfs3Result::Ok(seen) => {
                let text = String::from_utf8_lossy(seen.data.as_ref()).into_owned();
                Ok(text.trim_end_matches([' ', '\n', '\0']).to_owned())
            }
            Nfs3Result::Err((status, _)) => Err(said(status)),
        })
    }
}

/// From which ports the server is talked to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Privileged,
    Any,
}

async fn mount(export: &NfsExport, address: Ipv4Addr, port: Port) -> Result<Connection, ConnectError> {
    // As root, like a kernel that mounts it.
    let root = auth_unix { machinename: Opaque::borrowed(b"stor"), ..auth_unix::default() };
    let builder =
        Nfs3ConnectionBuilder::new(TokioConnector, IpAddr::V4(address).to_string(), export.path.as_str())
            .credential(opaque_auth::auth_unix(&root))
            .connect_from_privileged_port(port == Port::Privileged);
    match timeout(CALL_DEADLINE, builder.mount()).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// A status in the words that the kernel has for it.
fn said(status: nfsstat3) -> String {
    match status {
        nfsstat3::NFS3ERR_NOENT => "No such file or directory".to_owned(),
        nfsstat3::NFS3ERR_ACCES => "Permission denied".to_owned(),
        nfsstat3::NFS3ERR_PERM => "Operation not permitted".to_owned(),
        nfsstat3::NFS3ERR_IO => "Input/output error".to_owned(),
        nfsstat3::NFS3ERR_STALE => "Stale file handle".to_owned(),
        other => format!("{other:?}"),
    }
}
