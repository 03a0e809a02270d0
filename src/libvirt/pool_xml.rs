//! Storage pool XML: builders, a reader, and a comparison that knows what libvirt adds by itself.
//!
//! Pure. Imports `model` only. Which pools a storage needs is decided in `storage`; talking to libvirt is `conn`.
//! Source: <https://libvirt.org/formatstorage.html>.

use super::LibvirtError;
use super::xml::{self, Element};
use crate::model::{AbsPath, Difference, StorageId};

/// What a pool's definition says, as far as stor sets it; what libvirt fills in by itself is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolDefinition {
    /// `dir`, `netfs`, `iscsi`, `iscsi-direct` ...
    pub kind: String,
    /// Name.
    pub name: String,
    /// UUID, when the XML has one: libvirt gives one to a pool that came without.
    pub uuid: Option<String>,
    /// Target path without a trailing slash.
    pub target: Option<String>,
    /// Hosts of the source, in order, as `NAME` or `NAME:PORT`.
    pub source_hosts: Vec<String>,
    /// Directory of the source without a trailing slash.
    pub source_dir: Option<String>,
    /// Device of the source.
    pub source_device: Option<String>,
    /// Format of the source.
    pub source_format: Option<String>,
    /// The name with which libvirt's own initiator logs in to the source.
    pub source_initiator: Option<String>,
    /// How the source is logged in to: type, user, and what its secret is for.
    pub source_auth: Option<String>,
    /// Mount options (`fs:mount_opts`), sorted.
    pub mount_options: Vec<String>,
}

/// Writes the XML of a directory pool, named like its storage.
#[must_use]
pub fn dir_pool(name: &StorageId, path: &AbsPath) -> String {
    Element::new("pool")
        .with("type", "dir")
        .child(Element::new("name").containing(name.as_str()))
        .child(Element::new("target").child(Element::new("path").containing(path.as_str())))
        .render()
}

/// Writes the XML of a pool that mounts an NFS export itself, with these mount options (nfs(5)), and lies on the mount.
#[must_use]
pub fn netfs_pool(
    name: &StorageId,
    server: &str,
    directory: &AbsPath,
    target: &AbsPath,
    options: &[String],
) -> String {
    let source = Element::new("source")
        .child(Element::new("host").with("name", server))
        .child(Element::new("dir").with("path", directory.as_str()))
        .child(Element::new("format").with("type", "nfs"));
    let options = options.iter().map(|option| Element::new("fs:option").with("name", option));
    Element::new("pool")
        .with("type", "netfs")
        .with("xmlns:fs", "http://libvirt.org/schemas/storagepool/fs/1.0")
        .child(Element::new("name").containing(name.as_str()))
        .child(source)
        .child(Element::new("target").child(Element::new("path").containing(target.as_str())))
        .child(Element::new("fs:mount_opts").extended(options))
        .render()
}

/// Where a pool of LUNs has its volumes: links that are the same on every host.
pub const ISCSI_PATH: &str = "/dev/disk/by-path";

/// How a pool logs in to its target.
#[derive(Debug, Clone, Copy)]
pub struct ChapLogin<'a> {
    /// The CHAP user.
    pub user: &'a str,
    /// What the libvirt secret with the value is for (its `usage`).
    pub usage: &'a str,
}

/// Bytes of a block of a LUN, as targets have it.
pub const ISCSI_BLOCK: u64 = 512;

/// Where a pool finds its LUNs. libvirt takes one portal.
#[derive(Debug, Clone, Copy)]
pub struct IscsiSource<'a> {
    /// The portal's address.
    pub address: &'a str,
    /// The portal's TCP port.
    pub port: u16,
    /// The target's name.
    pub target: &'a str,
    /// The login, where the target wants one.
    pub login: Option<ChapLogin<'a>>,
}

impl IscsiSource<'_> {
    fn element(&self, initiator: Option<&str>) -> Element {
        let auth = self.login.map(|login| {
            let secret = Element::new("secret").with("usage", login.usage);
            Element::new("auth").with("type", "chap").with("username", login.user).child(secret)
        });
        let initiator =
            initiator.map(|name| Element::new("initiator").child(Element::new("iqn").with("name", name)));
        Element::new("source")
            .child(Element::new("host").with("name", self.address).with("port", self.port.to_string()))
            .child(Element::new("device").with("path", self.target))
            .extended(initiator)
            .extended(auth)
    }
}

/// Writes the XML of a pool whose volumes are the LUNs to which the host's kernel is logged in.
#[must_use]
pub fn iscsi_pool(name: &StorageId, source: IscsiSource<'_>) -> String {
    let target = Element::new("target").child(Element::new("path").containing(ISCSI_PATH));
    Element::new("pool")
        .with("type", "iscsi")
        .child(Element::new("name").containing(name.as_str()))
        .child(source.element(None))
        .child(target)
        .render()
}

/// Writes the XML of a pool whose volumes are the LUNs as libvirt's own initiator sees them, which logs in to look and out again.
#[must_use]
pub fn iscsi_direct_pool(name: &StorageId, source: IscsiSource<'_>, initiator: &str) -> String {
    Element::new("pool")
        .with("type", "iscsi-direct")
        .child(Element::new("name").containing(name.as_str()))
        .child(source.element(Some(initiator)))
        .render()
}

/// Reads a pool's XML: one of the builders' or what `virsh pool-dumpxml` printed.
///
/// # Errors
/// [`LibvirtError::Xml`] when the text is no XML of a pool.
pub fn parse(text: &str) -> Result<PoolDefinition, LibvirtError> {
    let root = xml::parse(text, "a storage pool")?;
    let fail =
        |reason: &str| LibvirtError::Xml { what: "a storage pool".to_owned(), reason: reason.to_owned() };
    if root.name != "pool" {
        return Err(fail(&format!("the root element is <{}>, not <pool>", root.name)));
    }
    let source = root.first("source").cloned().unwrap_or_default();
    Ok(PoolDefinition {
        kind: root.attribute("type").ok_or_else(|| fail("it has no type"))?.to_owned(),
        name: root.text_at("name").ok_or_else(|| fail("it has no name"))?.to_owned(),
        uuid: root.text_at("uuid").map(str::to_ascii_lowercase),
        target: root.text_at("target/path").map(place),
        source_hosts: source.all("host").map(host).collect(),
        source_dir: source.first("dir").and_then(|dir| dir.attribute("path")).map(place),
        source_device: source.first("device").and_then(|device| device.attribute("path")).map(str::to_owned),
        source_format: source
            .first("format")
            .and_then(|format| format.attribute("type"))
            .filter(|format| *format != "auto")
            .map(str::to_owned),
        source_initiator: source
            .first("initiator")
            .and_then(|initiator| initiator.first("iqn")?.attribute("name"))
            .map(str::to_owned),
        source_auth: source.first("auth").map(auth),
        mount_options: mount_options(&root),
    })
}

fn auth(element: &Element) -> String {
    let secret = element.first("secret");
    let named = secret.and_then(|secret| secret.attribute("usage").or_else(|| secret.attribute("uuid")));
    let part = |name: &str| element.attribute(name).unwrap_or_default().to_owned();
    format!("{} {} {}", part("type"), part("username"), named.unwrap_or_default())
}

fn mount_options(root: &Element) -> Vec<String> {
    let all = root.first("fs:mount_opts").into_iter().flat_map(|options| options.all("fs:option"));
    let mut names: Vec<String> =
        all.filter_map(|option| option.attribute("name")).map(str::to_owned).collect();
    names.sort();
    names
}

/// Gives a pool's XML the UUID of the pool that it is to replace, so that libvirt updates it instead of refusing.
///
/// # Errors
/// [`LibvirtError::Xml`] when the text is no XML of a pool.
pub fn with_uuid(text: &str, uuid: &str) -> Result<String, LibvirtError> {
    let mut root = xml::parse(text, "a storage pool")?;
    root.children.retain(|child| child.name != "uuid");
    root.children.push(Element::new("uuid").containing(uuid));
    Ok(root.render())
}

/// A path as libvirt and people write it in different ways: without doubled or trailing slashes.
fn place(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    format!("/{}", parts.join("/"))
}

fn host(element: &Element) -> String {
    let name = element.attribute("name").unwrap_or_default();
    match element.attribute("port") {
        // libvirt writes the port 0 for "the usual one".
        Some(port) if port != "0" => format!("{name}:{port}"),
        _ => name.to_owned(),
    }
}

impl PoolDefinition {
    /// What differs between this definition, which is desired, and one that a host shows; empty when they are equal.
    ///
    /// The UUID, sizes and permissions are libvirt's own and never differ.
    #[must_use]
    pub fn differences(&self, observed: &Self) -> Vec<Difference> {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".to_owned());
        let fields = [
            ("type", self.kind.clone(), observed.kind.clone()),
            ("target.path", shown(&self.target), shown(&observed.target)),
            ("source.hosts", self.source_hosts.join(" "), observed.source_hosts.join(" ")),
            ("source.dir", shown(&self.source_dir), shown(&observed.source_dir)),
            ("source.device", shown(&self.source_device), shown(&observed.source_device)),
            ("mount_options", self.mount_options.join(","), observed.mount_options.join(",")),
            ("source.initiator", shown(&self.source_initiator), shown(&observed.source_initiator)),
            ("source.auth", shown(&self.source_auth), shown(&observed.source_auth)),
            ("source.format", shown(&self.source_format), shown(&observed.source_format)),
        ];
        fields
            .into_iter()
            .filter(|(_, desired, seen)| desired != seen)
            .map(|(field, desired, seen)| {
                Difference::new(format!("pool.{}.{field}", self.name), desired, seen)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gfs(path: &str) -> String {
        dir_pool(&StorageId::new("gfs").unwrap(), &AbsPath::new(path).unwrap())
    }

    /// What libvirt makes of [`gfs`] on the usual path (`virsh pool-dumpxml`).
    const DUMPED: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/fixtures/outputs/virsh/debian13-libvirt11.3-pool-dir.xml"
    ));
    const PATH: &str = "/var/lib/libvirt/images/gfs";

    #[test]
    fn what_libvirt_adds_and_a_trailing_slash_make_no_difference() {
        let desired = parse(&gfs(PATH)).unwrap();
        let observed = parse(DUMPED).unwrap();
        assert_eq!(desired.differences(&observed), vec![]);
        assert_eq!(observed.uuid.as_deref(), Some("42465c9d-3f0b-4ee9-a992-7ebee9bbd921"));
        let otherwise_spelt = DUMPED.replace(PATH, "/var/lib//libvirt/images/gfs/");
        assert_eq!(desired.differences(&parse(&otherwise_spelt).unwrap()), vec![]);
    }

    #[test]
    fn another_path_is_named_with_both_values() {
        let differences = parse(&gfs("/mnt/gfs")).unwrap().differences(&parse(DUMPED).unwrap());
        assert_eq!(
            differences,
            vec![Difference::new("pool.gfs.target.path", "/mnt/gfs", "/var/lib/libvirt/images/gfs")]
        );
    }

    #[test]
    fn an_update_carries_the_uuid_of_the_pool_that_it_replaces() {
        let text = with_uuid(&gfs("/mnt/gfs"), "5a9c3c35-0d86-4a8e-8a35-5e3a6e0c7e11").unwrap();
        let parsed = parse(&text).unwrap();
        assert_eq!(parsed.uuid.as_deref(), Some("5a9c3c35-0d86-4a8e-8a35-5e3a6e0c7e11"));
        assert_eq!(parsed.target.as_deref(), Some("/mnt/gfs"));
    }

    #[test]
    fn xml_of_something_else_is_refused() {
        assert!(parse("<domain type='kvm'><name>a</name></domain>").is_err());
        assert!(parse("<pool type='dir'/>").is_err());
    }
}
