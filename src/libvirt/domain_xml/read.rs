//! Reads what migration and starting need to know from any domain's XML, live or persistent.

use serde::Serialize;

use super::layers::{self, ChainEnd, Layer};
use super::state::{self, StateFile};
use super::{LibvirtError, size, xml};
use crate::libvirt::xml::Element;
use crate::model::ByteSize;

/// What a domain's XML says, as far as moving or starting the guest cares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DomainSummary {
    /// Name.
    pub name: String,
    /// UUID, lower case; absent in XML that was never defined.
    pub uuid: Option<String>,
    /// `kvm`, `qemu`, `xen` ...
    pub kind: String,
    /// Memory that the guest may grow to.
    pub memory: Option<ByteSize>,
    /// Virtual CPUs.
    pub vcpus: Option<u32>,
    /// Architecture.
    pub arch: Option<String>,
    /// Machine type, versioned once the guest is defined.
    pub machine: Option<String>,
    /// The guest's CPU.
    pub cpu: CpuSummary,
    /// Files read when QEMU starts: kernel, initial RAM disk, device tree, firmware.
    pub boot_files: Vec<String>,
    /// Disks, CD-ROM and floppy drives, in document order.
    pub disks: Vec<DiskSummary>,
    /// Network interfaces.
    pub interfaces: Vec<InterfaceSummary>,
    /// What ties the guest to its host.
    pub local_devices: Vec<LocalDevice>,
    /// What its host keeps of it in files beside the disks.
    pub state: Vec<StateFile>,
}

impl DomainSummary {
    /// Whether Xen runs it.
    #[must_use]
    pub fn is_xen(&self) -> bool {
        self.kind == "xen"
    }
}

/// A guest's CPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpuSummary {
    /// `custom`, `host-model`, `host-passthrough`, `maximum`; absent when the XML leaves the choice to QEMU.
    pub mode: Option<String>,
    /// The model's name.
    pub model: Option<String>,
}

/// Where a disk's data is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskSource {
    /// A file on a mounted file system.
    File(String),
    /// A block device.
    Block(String),
    /// Reached by QEMU itself over the network.
    Network {
        /// `gluster`, `nfs`, `iscsi`, `rbd` ...
        protocol: String,
        /// Name within the protocol.
        name: String,
        /// Servers.
        hosts: Vec<String>,
    },
    /// A volume of a pool of the host.
    Volume {
        /// Pool.
        pool: String,
        /// Volume.
        volume: String,
    },
    /// An empty drive.
    Empty,
    /// A kind that stor does not know.
    Other(String),
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskSummary {
    /// `disk`, `cdrom`, `floppy`, `lun`.
    pub device: String,
    /// Name in the guest: `vda`.
    pub target: String,
    /// Where its data is.
    pub source: DiskSource,
    /// Image format.
    pub format: Option<String>,
    /// Cache mode; absent = QEMU's default.
    pub cache: Option<String>,
    /// Whether the guest may only read it.
    pub access: DiskAccess,
    /// What the disk needs besides its own image, as far as the XML tells: from top to bottom.
    pub layers: Vec<Layer>,
    /// Whether these are all.
    pub chain: ChainEnd,
    /// Whether its data is being copied to another place now (`<mirror>`).
    pub mirrored: bool,
}

/// How a guest may use a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskAccess {
    /// It alone reads and writes.
    Exclusive,
    /// It only reads.
    ReadOnly,
    /// Several guests write, and know of each other.
    Shareable,
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InterfaceSummary {
    /// `bridge`, `network`, `direct` ...
    pub kind: String,
    /// The bridge, network or device on the host.
    pub source: Option<String>,
    /// MAC address.
    pub mac: Option<String>,
}

/// Something of the host that a guest holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LocalDevice {
    /// What it is: `PCI device`, `file system /srv`, `serial log`.
    pub what: String,
    /// Whether libvirt can move a guest that holds it.
    pub effect: LocalEffect,
}

/// What a device of the host means for a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LocalEffect {
    /// The guest cannot move while it holds it.
    Blocks,
    /// The guest can move; what was written on the old host stays there.
    StaysBehind,
}

/// Reads a domain's XML.
///
/// # Errors
/// [`LibvirtError::Xml`] when the text is no XML of a domain.
pub fn read(text: &str) -> Result<DomainSummary, LibvirtError> {
    let root = xml::parse(text, "a domain")?;
    let fail = |reason: String| LibvirtError::Xml { what: "a domain".to_owned(), reason };
    if root.name != "domain" {
        return Err(fail(format!("the root element is <{}>, not <domain>", root.name)));
    }
    let empty = Element::default();
    let devices = root.first("devices").unwrap_or(&empty);
    let os_type = root.at("os/type");
    Ok(DomainSummary {
        name: root.text_at("name").ok_or_else(|| fail("it has no name".to_owned()))?.to_owned(),
        uuid: root.text_at("uuid").map(canonical),
        kind: root.attribute("type").unwrap_or_default().to_owned(),
        memory: root.first("memory").and_then(size),
        vcpus: root.text_at("vcpu").and_then(|text| text.parse().ok()),
        arch: os_type.and_then(|element| element.attribute("arch")).map(str::to_owned),
        machine: os_type.and_then(|element| element.attribute("machine")).map(str::to_owned),
        cpu: CpuSummary {
            mode: root.first("cpu").and_then(|cpu| cpu.attribute("mode")).map(str::to_owned),
            model: root.text_at("cpu/model").map(str::to_owned),
        },
        boot_files: ["kernel", "initrd", "dtb", "loader"]
            .iter()
            .filter_map(|name| root.text_at(&format!("os/{name}")).map(str::to_owned))
            .collect(),
        disks: devices.all("disk").map(disk).collect(),
        interfaces: devices.all("interface").map(interface).collect(),
        local_devices: local_devices(devices),
        state: state::read(&root, devices),
    })
}

/// libvirt takes a UUID with or without hyphens, in either case, and shows it with hyphens in lower case (`virUUIDParse`).
fn canonical(uuid: &str) -> String {
    let digits: String = uuid.chars().filter(|c| *c != '-').collect();
    uuid::Uuid::try_parse(&digits).map_or_else(|_| uuid.to_ascii_lowercase(), |uuid| uuid.to_string())
}

fn disk(element: &Element) -> DiskSummary {
    let driver = element.first("driver");
    let access = if element.first("readonly").is_some() {
        DiskAccess::ReadOnly
    } else if element.first("shareable").is_some() {
        DiskAccess::Shareable
    } else {
        DiskAccess::Exclusive
    };
    // Xen's old word for raw (`virDomainDiskDefDriverParseXML`).
    let format = driver.and_then(|driver| driver.attribute("type"));
    let format = format.map(|format| if format == "aio" { "raw" } else { format });
    let (layers, chain) = layers::read(element, format);
    DiskSummary {
        device: element.attribute("device").unwrap_or("disk").to_owned(),
        target: element.first("target").and_then(|target| target.attribute("dev")).unwrap_or("?").to_owned(),
        source: source_of(element),
        format: format.map(str::to_owned),
        cache: driver.and_then(|driver| driver.attribute("cache")).map(str::to_owned),
        access,
        layers,
        chain,
        mirrored: element.first("mirror").is_some(),
    }
}

/// Reads `type=` and `<source>` of a disk, or of a layer of one.
pub(super) fn source_of(element: &Element) -> DiskSource {
    let Some(source) = element.first("source") else { return DiskSource::Empty };
    let value = |name: &str| source.attribute(name).map(str::to_owned);
    let found = match element.attribute("type") {
        Some("file") => value("file").map(DiskSource::File),
        Some("block") => value("dev").map(DiskSource::Block),
        Some("network") => Some(DiskSource::Network {
            protocol: value("protocol").unwrap_or_default(),
            name: value("name").unwrap_or_default(),
            hosts: source.all("host").filter_map(|host| host.attribute("name")).map(str::to_owned).collect(),
        }),
        Some("volume") => Some(DiskSource::Volume {
            pool: value("pool").unwrap_or_default(),
            volume: value("volume").unwrap_or_default(),
        }),
        other => Some(DiskSource::Other(other.unwrap_or_default().to_owned())),
    };
    found.unwrap_or(DiskSource::Empty)
}

fn interface(element: &Element) -> InterfaceSummary {
    let kind = element.attribute("type").unwrap_or_default();
    let source = element.first("source");
    let name = match kind {
        "bridge" => "bridge",
        "network" => "network",
        _ => "dev",
    };
    InterfaceSummary {
        kind: kind.to_owned(),
        source: source.and_then(|source| source.attribute(name)).map(str::to_owned),
        mac: element.first("mac").and_then(|mac| mac.attribute("address")).map(str::to_owned),
    }
}

/// Host devices and passed-through TPMs stop a migration; files that QEMU only writes to stay behind.
fn local_devices(devices: &Element) -> Vec<LocalDevice> {
    let blocks = |what: String| LocalDevice { what, effect: LocalEffect::Blocks };
    let stays = |what: String| LocalDevice { what, effect: LocalEffect::StaysBehind };
    let mut found = Vec::new();
    for device in &devices.children {
        let kind = device.attribute("type").unwrap_or_default();
        let source = device.first("source");
        let file = source.and_then(|source| source.attribute("path"));
        match (device.name.as_str(), kind) {
            ("hostdev", "mdev" | "pci" | "usb" | "scsi" | "scsi_host") => {
                found.push(blocks(format!("{kind} device of the host")));
            }
            ("hostdev", _) => {
                let bus = device.attribute("mode").unwrap_or("unknown");
                found.push(blocks(format!("{bus} device of the host")));
            }
            ("interface", "hostdev") => found.push(blocks("network device of the host".to_owned())),
            ("filesystem", _) => {
                let dir = source.and_then(|source| source.attribute("dir")).unwrap_or("?");
                found.push(blocks(format!("directory {dir} of the host as a file system")));
            }
            ("tpm", _) => match device.first("backend").and_then(|backend| backend.attribute("type")) {
                // Its state is a file beside the disks.
                Some("emulator") => {}
                Some("external") => found.push(blocks("TPM of another program on the host".to_owned())),
                _ => found.push(blocks("TPM of the host".to_owned())),
            },
            ("serial" | "parallel" | "channel" | "console", "file") => {
                found.push(stays(format!("{} log {}", device.name, file.unwrap_or("?"))));
            }
            ("serial" | "parallel" | "channel" | "console", "dev") => {
                found.push(blocks(format!("character device {}", file.unwrap_or("?"))));
            }
            _ => {}
        }
    }
    // libvirt shows the first serial port a second time as the console.
    found.dedup_by(|a, b| a.what.split_once(' ').map(|x| x.1) == b.what.split_once(' ').map(|x| x.1));
    found
}
