//! Domain XML: what stor writes for guests that the file describes, and what it reads from any guest.
//!
//! Pure. Imports `spec` (the guest's shape) and `model`. XML that somebody else wrote is read and never written back.
//! Source: <https://libvirt.org/formatdomain.html>.

use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use super::LibvirtError;
use super::xml::{self, Element};
use crate::model::{ByteSize, ClusterName, GuestId, ImageFormat, ImageLocation};
use crate::model::{GuestShape, KernelBoot};

mod layers;
mod read;
mod state;
pub use layers::{ChainEnd, Layer, LayerRole, stands_alone};
mod uses;
pub use read::{
    CpuSummary, DiskAccess, DiskSource, DiskSummary, DomainSummary, InterfaceSummary, LocalDevice,
    LocalEffect, read,
};
pub use state::{StateFile, StateKind};
pub use uses::{DiskUse, uses};

/// What runs a guest (`<domain type=..>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DomainType {
    /// The processor, through KVM.
    Kvm,
    /// QEMU's own emulation (TCG).
    Qemu,
    /// Xen; stor writes its guests paravirtualised (PV).
    Xen,
}

impl fmt::Display for DomainType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
            Self::Xen => "xen",
        })
    }
}

/// The name space of all UUIDs that stor derives (UUID version 5, RFC 9562 section 5.5); chosen once at random.
pub(super) const NAMESPACE: Uuid = Uuid::from_u128(0x6d1f_07a4_0c7d_4b0e_9a5c_57c1_37f0_2b8e);

/// The UUID of a guest that stor defines; the same for the same cluster and guest names, on every host.
#[must_use]
pub fn guest_uuid(cluster: &ClusterName, guest: &GuestId) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("guest/{cluster}/{guest}").as_bytes())
}

/// The MAC address of a guest's interface, derived like its UUID, within QEMU's own prefix 52:54:00.
#[must_use]
pub fn guest_mac(cluster: &ClusterName, guest: &GuestId) -> String {
    let digest = Uuid::new_v5(&NAMESPACE, format!("mac/{cluster}/{guest}").as_bytes());
    let [a, b, c, ..] = *digest.as_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}

/// The image of a guest, as the hypervisors reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestDisk<'a> {
    /// Where it is.
    pub location: &'a ImageLocation,
    /// Its format.
    pub format: ImageFormat,
}

/// Writes the XML of a guest that the cluster file describes.
///
/// Nothing in it depends on the host: the same guest yields the same bytes everywhere.
#[must_use]
pub fn generate(
    cluster: &ClusterName,
    guest: &GuestId,
    shape: &GuestShape,
    disk: GuestDisk<'_>,
    kind: DomainType,
) -> String {
    let text = |name: &str, value: String| Element::new(name).containing(value);
    Element::new("domain")
        .with("type", kind.to_string())
        .child(text("name", guest.to_string()))
        .child(text("uuid", guest_uuid(cluster, guest).to_string()))
        .child(text("memory", shape.memory.kib().to_string()).with("unit", "KiB"))
        .child(text("vcpu", shape.vcpus.to_string()))
        .child(os(shape.boot.as_ref(), kind))
        .extended(
            (kind != DomainType::Xen)
                .then(|| Element::new("features").child(Element::new("acpi")).child(Element::new("apic"))),
        )
        .extended(cpu(kind))
        .child(Element::new("clock").with("offset", "utc"))
        .child(devices(cluster, guest, shape, disk, kind))
        .render()
}

/// `q35` is an alias: libvirt turns it into a versioned machine type when it defines the guest, and preflight checks
/// that the destination knows that version.
fn os(boot: Option<&KernelBoot>, kind: DomainType) -> Element {
    let element = Element::new("type").with("arch", "x86_64");
    let os = Element::new("os").child(match kind {
        DomainType::Xen => element.with("machine", "xenpv").containing("linux"),
        DomainType::Kvm | DomainType::Qemu => element.with("machine", "q35").containing("hvm"),
    });
    match boot {
        None => os.child(Element::new("boot").with("dev", "hd")),
        Some(boot) => os
            .child(Element::new("kernel").containing(boot.kernel.as_str()))
            .extended(boot.initrd.iter().map(|path| Element::new("initrd").containing(path.as_str())))
            .child(Element::new("cmdline").containing(boot.cmdline.as_str())),
    }
}

/// With KVM the host's model, which libvirt writes out in full when the guest starts, so that the destination can be
/// checked against it. Emulation offers the same model on every host. Xen takes no model for a PV guest.
fn cpu(kind: DomainType) -> Option<Element> {
    match kind {
        DomainType::Kvm => Some(Element::new("cpu").with("mode", "host-model")),
        DomainType::Qemu => Some(
            Element::new("cpu")
                .with("mode", "custom")
                .with("match", "exact")
                .child(Element::new("model").containing("qemu64")),
        ),
        DomainType::Xen => None,
    }
}

fn devices(
    cluster: &ClusterName,
    guest: &GuestId,
    shape: &GuestShape,
    image: GuestDisk<'_>,
    kind: DomainType,
) -> Element {
    let interface = shape.bridge.as_ref().map(|bridge| {
        let mac = shape.mac.clone().unwrap_or_else(|| guest_mac(cluster, guest));
        Element::new("interface")
            .with("type", "bridge")
            .child(Element::new("mac").with("address", mac))
            .child(Element::new("source").with("bridge", bridge))
            .extended((kind != DomainType::Xen).then(|| Element::new("model").with("type", "virtio")))
    });
    if kind == DomainType::Xen {
        let console = Element::new("console")
            .with("type", "pty")
            .child(Element::new("target").with("type", "xen").with("port", "0"));
        return Element::new("devices").child(disk(image, kind)).extended(interface).child(console);
    }
    let serial = Element::new("serial").with("type", "pty").child(Element::new("target").with("port", "0"));
    let console = Element::new("console")
        .with("type", "pty")
        .child(Element::new("target").with("type", "serial").with("port", "0"));
    Element::new("devices").child(disk(image, kind)).extended(interface).child(serial).child(console)
}

/// Cache `none` is safe to migrate with every version of libvirt and QEMU. `io='threads'` because native AIO needs
/// O_DIRECT that does not block, which neither FUSE nor a network client promises. Xen takes neither: the QEMU that serves its
/// disks opens them without cache by itself.
fn disk(image: GuestDisk<'_>, kind: DomainType) -> Element {
    let driver = Element::new("driver").with("name", "qemu").with("type", image.format.to_string());
    if let (DomainType::Xen, ImageLocation::File(path)) = (kind, image.location) {
        return Element::new("disk")
            .with("type", "file")
            .with("device", "disk")
            .child(driver)
            .child(Element::new("source").with("file", path.as_str()))
            .child(Element::new("target").with("dev", "xvda").with("bus", "xen"));
    }
    let driver = driver.with("cache", "none").with("discard", "unmap");
    let (kind, driver, source) = match image.location {
        ImageLocation::File(path) => {
            ("file", driver.with("io", "threads"), Element::new("source").with("file", path.as_str()))
        }
        // The kernel queues O_DIRECT on a block device without blocking QEMU.
        ImageLocation::Device(path) => {
            ("block", driver.with("io", "native"), Element::new("source").with("dev", path.as_str()))
        }
        ImageLocation::Gluster { servers, volume, path } => {
            let source = Element::new("source")
                .with("protocol", "gluster")
                .with("name", format!("{volume}/{path}"))
                .extended(
                    servers
                        .iter()
                        .map(|server| Element::new("host").with("name", server).with("port", "24007")),
                );
            ("network", driver, source)
        }
        ImageLocation::Iscsi { address, port, target, lun, initiator, auth } => {
            let host = Element::new("host").with("name", address).with("port", port.to_string());
            let iqn = Element::new("iqn").with("name", initiator);
            let auth = auth.as_ref().map(|auth| {
                let secret = Element::new("secret").with("type", "iscsi").with("usage", &auth.usage);
                Element::new("auth").with("username", &auth.user).child(secret)
            });
            let source = Element::new("source")
                .with("protocol", "iscsi")
                .with("name", format!("{target}/{lun}"))
                .child(host)
                .child(Element::new("initiator").child(iqn))
                .extended(auth);
            ("network", driver, source)
        }
        ImageLocation::Nfs { server, path, uid, gid } => {
            // A plus sign makes a number of what would otherwise be looked up as a name.
            let identity =
                Element::new("identity").with("user", format!("+{uid}")).with("group", format!("+{gid}"));
            let source = Element::new("source")
                .with("protocol", "nfs")
                .with("name", path.as_str())
                .child(Element::new("host").with("name", server))
                .child(identity);
            ("network", driver, source)
        }
    };
    Element::new("disk")
        .with("type", kind)
        .with("device", "disk")
        .child(driver)
        .child(source)
        .child(Element::new("target").with("dev", "vda").with("bus", "virtio"))
}

/// Gives XML of the user's own this UUID if it has none, so that the domain is known by it from its first moment on: else libvirt
/// would make one up. All else stays, byte for byte.
///
/// # Errors
/// [`LibvirtError::Xml`] when the text is no XML of a domain.
pub fn with_uuid(text: &str, uuid: &str) -> Result<String, LibvirtError> {
    if read(text)?.uuid.is_some() {
        return Ok(text.to_owned());
    }
    let added = xml::after_child(text, "name", &format!("<uuid>{uuid}</uuid>"), "a domain")?;
    added
        .ok_or_else(|| LibvirtError::Xml { what: "a domain".to_owned(), reason: "it has no name".to_owned() })
}

/// Checks that XML which the user wrote defines the guest that it is given for.
///
/// # Errors
/// [`LibvirtError::Xml`] when it cannot be read, is no domain, or names another guest.
pub fn check_written(guest: &GuestId, text: &str) -> Result<DomainSummary, LibvirtError> {
    let summary = read(text)?;
    if summary.name == guest.as_str() {
        return Ok(summary);
    }
    let reason = format!("it defines {:?}, not {guest}", summary.name);
    Err(LibvirtError::Xml { what: format!("guest {guest}"), reason })
}

/// Reads a size element (`<memory unit='KiB'>`); KiB is libvirt's default unit.
fn size(element: &Element) -> Option<ByteSize> {
    let amount: u64 = element.text.parse().ok()?;
    let factor: u64 = match element.attribute("unit").unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "KB" => 1_000,
        "k" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        _ => return None,
    };
    amount.checked_mul(factor).map(ByteSize::from_bytes)
}

#[cfg(test)]
mod tests;
