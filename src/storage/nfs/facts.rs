//! What is asked of an NFS server, and how its answers are read. Pure.
//!
//! Imports `model` and the shared queries of `storage`. What follows from the facts is decided in `plan`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::commands::kernel::PortsIn;
use super::commands::{self, ganesha, kernel};
use super::spec::{NfsSpec, Provider};
use crate::model::{AbsPath, Answer, Command, Observations, Query, StorageId};
use crate::spec::Cluster;
use crate::storage::facts::FactsError;
use crate::storage::mount_unit::{self, UnitState};
use crate::storage::packages::{self, Need};

/// One server, as far as one export is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// Whether its kernel has an NFS server, built in or as a module.
    pub kernel_has_nfsd: bool,
    /// The kernel server's unit.
    pub kernel: UnitState,
    /// nfs-ganesha's unit.
    pub ganesha: UnitState,
    /// What lies where the export is.
    pub place: Place,
    /// Every line of exports(5) on the host, whoever wrote it.
    pub exports: Vec<ExportsLine>,
    /// What the kernel's server exports now (`/var/lib/nfs/etab`).
    pub etab: Vec<Exported>,
    /// Versions of the protocol that the running kernel server has switched on or off (`/proc/fs/nfsd/versions`).
    pub versions: BTreeMap<String, bool>,
    /// Files below `/etc/ganesha`, by path.
    pub ganesha_files: BTreeMap<String, String>,
    /// What a running nfs-ganesha shows of this export; `None` when it does not have it, or does not run.
    pub shown: Option<Shown>,
    /// Where the fixed ports are written on this host, and what is there.
    pub ports: (PortsIn, Option<String>),
    /// What the clients' names lead to on this host; nothing when it cannot resolve one.
    pub names: BTreeMap<String, BTreeSet<String>>,
    /// Numbers of the images' owners and groups, where clients have a user of their own.
    pub owners: BTreeMap<String, (u32, u32)>,
}

/// What lies where an export is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What the path itself is; `None` when there is nothing.
    pub kind: Option<String>,
    /// Numbers of its owner and group.
    pub owner: Option<(u32, u32)>,
    /// The path without symbolic links; differs when one of its parts is one.
    pub real: Option<String>,
}

/// One line of exports(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportsLine {
    /// The file that it stands in.
    pub file: String,
    /// The directory.
    pub path: String,
    /// Clients and options.
    pub clients: String,
}

/// One client of one export of the kernel's server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The directory.
    pub path: String,
    /// The client, as the server resolved it.
    pub client: String,
    /// Its options.
    pub options: BTreeSet<String>,
}

/// What a running nfs-ganesha shows of one export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The directory.
    pub path: String,
    /// Its clients.
    pub clients: BTreeSet<String>,
}

/// What the server may take to find a name; resolvers give up after 5 s for each of their servers (resolv.conf(5)).
const RESOLVE_DEADLINE: Duration = Duration::from_secs(6);

/// All packages that a server may need, whichever server it is.
fn needs(provider: Provider) -> &'static [Need] {
    const BOTH: &[Need] = &[kernel::SERVER, ganesha::SERVER, commands::IMAGES];
    const KERNEL: &[Need] = &[kernel::SERVER, commands::IMAGES];
    const GANESHA: &[Need] = &[ganesha::SERVER, commands::IMAGES];
    match provider {
        Provider::Auto => BOTH,
        Provider::Kernel => KERNEL,
        Provider::Ganesha => GANESHA,
    }
}

fn filesystems() -> Query {
    Query::new(Command::new("cat").arg("/proc/filesystems"))
}

fn module() -> Query {
    Query::new(Command::new("modprobe").args(["--dry-run", "--quiet", "nfsd"]))
}

fn place(path: &AbsPath) -> Query {
    Query::new(Command::new("stat").args(["--format=%u %g %F", "--", path.as_str()]))
}

fn real(path: &AbsPath) -> Query {
    Query::new(Command::new("realpath").args(["-m", "--", path.as_str()]))
}

fn lines_of(directories: &[&str], depth: &str, pattern: &str) -> Query {
    let find = Command::new("find").args(directories.iter().copied());
    let named = ["-maxdepth", depth, "-type", "f", "-name", pattern, "-exec", "grep", "-H", "", "{}", "+"];
    Query::new(find.args(named))
}

fn exports() -> Query {
    lines_of(&["/etc/exports", "/etc/exports.d"], "1", "*exports")
}

fn ganesha_files() -> Query {
    lines_of(&["/etc/ganesha"], "2", "*.conf")
}

fn etab() -> Query {
    Query::new(Command::new("cat").arg("/var/lib/nfs/etab"))
}

fn versions() -> Query {
    Query::new(Command::new("cat").arg("/proc/fs/nfsd/versions"))
}

/// Clients that the file names and the server has to resolve: addresses need no asking.
fn names(cluster: &Cluster, spec: &NfsSpec) -> impl Iterator<Item = String> {
    commands::clients(cluster, spec).into_iter().filter(|client| client.parse::<Ipv4Addr>().is_err())
}

fn addresses(name: &str) -> Query {
    Query::new(Command::new("getent").args(["ahosts", name]).deadline(RESOLVE_DEADLINE))
}

/// Images whose owner counts: where clients get a user of their own.
fn owned_images(cluster: &Cluster, id: &StorageId, spec: &NfsSpec) -> Vec<String> {
    let images = cluster.images_on(id).filter(|_| spec.squash.anonymous().is_some());
    images.map(|image| format!("{}/{}", spec.path, image.file_name())).collect()
}

fn owners(images: &[String]) -> Query {
    Query::new(Command::new("stat").args(["--format=%u %g %n", "--"]).args(images))
}

fn ports() -> Query {
    let files = [PortsIn::NfsConf, PortsIn::DebianDefault, PortsIn::Sysconfig].map(PortsIn::path);
    Query::new(Command::new("grep").args(["-s", "-H", ""]).args(files.iter().map(AbsPath::as_str)))
}

/// Everything that [`server`] wants answered.
#[must_use]
pub fn queries(cluster: &Cluster, id: &StorageId, spec: &NfsSpec) -> Vec<Query> {
    let mut queries = packages::queries(needs(spec.provider));
    queries.extend([mount_unit::state(kernel::SERVICE), mount_unit::state(ganesha::SERVICE)]);
    queries.extend([filesystems(), module(), place(&spec.path), real(&spec.path)]);
    queries.push(exports());
    if spec.provider != Provider::Ganesha {
        queries.extend([etab(), versions(), ports()]);
    }
    queries.push(ganesha_files());
    if spec.provider != Provider::Kernel {
        queries.push(ganesha::shown(cluster, id, spec));
    }
    queries.extend(names(cluster, spec).map(|name| addresses(&name)));
    let images = owned_images(cluster, id, spec);
    queries.extend((!images.is_empty()).then(|| owners(&images)));
    queries
}

/// The packages that a server lacks of those that `wanted` names.
///
/// # Errors
/// [`FactsError`]
pub fn missing(
    seen: &Observations,
    spec: &NfsSpec,
    wanted: &[Need],
) -> Result<(packages::Family, Vec<&'static str>), FactsError> {
    Ok(packages::missing_among(seen, &spec.server, needs(spec.provider), wanted)?)
}

/// Reads what a server answered.
///
/// # Errors
/// [`FactsError`] when the host was not observed or an answer cannot be read.
pub fn server(
    seen: &Observations,
    cluster: &Cluster,
    id: &StorageId,
    spec: &NfsSpec,
) -> Result<ServerFacts, FactsError> {
    let host = &spec.server;
    let unit = |name: &str| {
        let query = mount_unit::state(name);
        let answer = seen.answer(host, &query)?;
        mount_unit::parse_state(&answer.stdout).ok_or_else(|| FactsError::Unreadable {
            host: host.clone(),
            query: query.to_string(),
            reason: answer.stderr.trim().to_owned(),
        })
    };
    let answer = |query: Query| seen.answer(host, &query).map(|answer| answer.stdout.as_str());
    let asked = |provider: Provider| spec.provider == Provider::Auto || spec.provider == provider;
    let by_kernel = asked(Provider::Kernel);
    let of_kernel = |query: Query| if by_kernel { answer(query) } else { Ok("") };
    let release = &seen.answer(host, &packages::distribution())?.stdout;
    let ports_in = ports_in(release);
    let shown = match asked(Provider::Ganesha) {
        true => read_shown(seen.answer(host, &ganesha::shown(cluster, id, spec))?),
        false => None,
    };
    let mut leads = BTreeMap::new();
    for name in names(cluster, spec) {
        let addresses = read_addresses(answer(addresses(&name))?);
        leads.insert(name, addresses);
    }
    let images = owned_images(cluster, id, spec);
    let owned = if images.is_empty() { "" } else { answer(owners(&images))? };
    Ok(ServerFacts {
        names: leads,
        owners: read_owners(owned),
        kernel_has_nfsd: answer(filesystems())?.lines().any(|line| line.trim_end().ends_with("\tnfsd"))
            || seen.answer(host, &module())?.ok(),
        kernel: unit(kernel::SERVICE)?,
        ganesha: unit(ganesha::SERVICE)?,
        place: read_place(seen.answer(host, &place(&spec.path))?, answer(real(&spec.path))?),
        exports: read_exports(answer(exports())?),
        etab: read_etab(of_kernel(etab())?),
        versions: read_versions(of_kernel(versions())?),
        ganesha_files: files(answer(ganesha_files())?),
        shown,
        ports: (ports_in, files(of_kernel(ports())?).remove(ports_in.path().as_str())),
    })
}

/// Where a distribution's nfs-utils read the ports: nfs.conf(5) has its drop-in directory since nfs-utils 2.5.
fn ports_in(os_release: &str) -> PortsIn {
    let field = |name: &str| {
        let value = os_release.lines().find_map(|line| line.strip_prefix(&format!("{name}=")))?;
        Some(value.trim().trim_matches('"').to_owned())
    };
    let version = field("VERSION_ID").unwrap_or_default();
    let major: Option<u32> = version.split('.').next().and_then(|major| major.parse().ok());
    match (packages::family(os_release), field("ID").as_deref(), major) {
        (Some(packages::Family::Debian), Some("debian"), Some(..12))
        | (Some(packages::Family::Debian), Some("ubuntu"), Some(..22)) => PortsIn::DebianDefault,
        (Some(packages::Family::RedHat), Some("rhel" | "centos" | "ol" | "scientific"), Some(..8)) => {
            PortsIn::Sysconfig
        }
        _ => PortsIn::NfsConf,
    }
}

fn read_place(stat: &Answer, real: &str) -> Place {
    let mut words = stat.stdout.trim_end().splitn(3, ' ');
    let mut number = || words.next().and_then(|word| word.parse().ok());
    let owner = number().zip(number());
    Place {
        owner,
        kind: words.next().filter(|_| stat.ok()).map(str::to_owned),
        real: real.lines().next().map(str::to_owned),
    }
}

/// Reads `getent ahosts`: one line per address and kind of socket.
fn read_addresses(getent: &str) -> BTreeSet<String> {
    getent.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn read_owners(stat: &str) -> BTreeMap<String, (u32, u32)> {
    let read = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let owner = words.next()?.parse().ok().zip(words.next()?.parse().ok())?;
        Some((words.next()?.to_owned(), owner))
    };
    stat.lines().filter_map(read).collect()
}

/// Reads `FILE:LINE` lines of grep(1) into the files' texts.
#[must_use]
pub fn files(grep: &str) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for (file, line) in grep.lines().filter_map(|line| line.split_once(':')) {
        let text = files.entry(file.to_owned()).or_default();
        text.push_str(line);
        text.push('\n');
    }
    files
}

/// Reads all files of exports(5): comments and empty lines are left out, continued lines joined.
#[must_use]
pub fn read_exports(grep: &str) -> Vec<ExportsLine> {
    let mut found = Vec::new();
    for (file, text) in files(grep) {
        let joined = text.replace("\\\n", " ");
        let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            let (path, clients) = match line.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
                Some((quoted, rest)) => (quoted, rest),
                None => line.split_once([' ', '\t']).unwrap_or((line, "")),
            };
            let path = unescape(path);
            found.push(ExportsLine { file: file.clone(), path, clients: clients.trim().to_owned() });
        }
    }
    found
}

/// exports(5) writes unusual characters as a backslash and three octal digits.
fn unescape(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    let path = if trimmed.is_empty() { "/" } else { trimmed };
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

/// Reads `/var/lib/nfs/etab`: `PATH<TAB>CLIENT(OPTIONS)`.
#[must_use]
pub fn read_etab(text: &str) -> Vec<Exported> {
    text.lines()
        .filter_map(|line| {
            let (path, rest) = line.split_once('\t')?;
            let (client, options) = rest.strip_suffix(')')?.split_once('(')?;
            let options = options.split(',').map(str::to_owned).collect();
            Some(Exported { path: unescape(path), client: client.to_owned(), options })
        })
        .collect()
}

/// Reads `+3 +4 +4.1 -4.2`.
#[must_use]
pub fn read_versions(text: &str) -> BTreeMap<String, bool> {
    text.split_whitespace()
        .filter_map(|word| {
            let on = word.strip_prefix('+').map(|version| (version, true));
            on.or_else(|| word.strip_prefix('-').map(|version| (version, false)))
        })
        .map(|(version, on)| (version.to_owned(), on))
        .collect()
}

/// Reads the answer of [`ganesha::shown`]: number, path, pseudo path, tag, then one list per client.
#[must_use]
pub fn read_shown(answer: &Answer) -> Option<Shown> {
    let json: serde_json::Value = serde_json::from_str(&answer.stdout).ok()?;
    let data = json.get("data")?;
    let clients = data.get(4)?.as_array()?.iter().filter_map(|client| client.get(0)?.as_str());
    Some(Shown {
        path: data.get(1)?.as_str()?.to_owned(),
        clients: clients
            .map(|client| client.trim_end_matches("/32").trim_end_matches("/128").to_owned())
            .collect(),
    })
}

/// The directories that a file of nfs-ganesha's exports.
pub fn ganesha_paths(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let settings = code.flat_map(|line| line.split([';', '{', '}']));
    settings.filter_map(|setting| {
        let (key, value) = setting.split_once('=')?;
        let path = value.trim().trim_matches('"');
        (key.trim().eq_ignore_ascii_case("path") && path.starts_with('/')).then_some(path)
    })
}
