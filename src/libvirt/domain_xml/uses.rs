//! Everything that a domain reads or writes as a disk, as far as its XML tells: each disk's image, the images below it, where it is
//! being copied to, and LUNs that are passed through.

use serde::Serialize;

use super::read::source_of;
use super::{DiskAccess, DiskSource, LibvirtError, xml};
use crate::libvirt::xml::Element;

/// One image, device or LUN that a domain uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskUse {
    /// The disk's name in the guest: `vda`.
    pub target: String,
    /// Where the data is.
    pub source: DiskSource,
    /// How it is used.
    pub access: DiskAccess,
}

/// Reads what a domain uses.
///
/// # Errors
/// [`LibvirtError::Xml`] when the text is no XML.
pub fn uses(text: &str) -> Result<Vec<DiskUse>, LibvirtError> {
    let root = xml::parse(text, "a domain")?;
    let devices = root.first("devices").map(|devices| devices.children.as_slice()).unwrap_or_default();
    let mut found = Vec::new();
    for device in devices {
        match device.name.as_str() {
            "disk" => disk(device, &mut found),
            "hostdev" => found.extend(passed_lun(device)),
            _ => {}
        }
    }
    found.retain(|used| used.source != DiskSource::Empty);
    Ok(found)
}

fn disk(element: &Element, found: &mut Vec<DiskUse>) {
    let target = element.first("target").and_then(|target| target.attribute("dev")).unwrap_or("?");
    let has = |name: &str| element.first(name).is_some();
    // A CD-ROM drive never writes, whether or not the XML says so.
    let reads = has("readonly") || element.attribute("device") == Some("cdrom");
    let access = match (reads, has("shareable")) {
        (true, _) => DiskAccess::ReadOnly,
        (false, true) => DiskAccess::Shareable,
        (false, false) => DiskAccess::Exclusive,
    };
    let mut add = |element: &Element, access| {
        found.push(DiskUse { target: target.to_owned(), source: source_of(element), access });
        if let Some(store) = element.first("source").and_then(|source| source.first("dataStore")) {
            found.push(DiskUse { target: target.to_owned(), source: source_of(store), access });
        }
    };
    add(element, access);
    if let Some(mirror) = element.first("mirror") {
        add(mirror, DiskAccess::Exclusive);
    }
    let mut at = element;
    while let Some(below) = at.first("backingStore") {
        add(below, DiskAccess::ReadOnly);
        at = below;
    }
}

/// A LUN that the guest talks SCSI to: `<hostdev mode='subsystem' type='scsi'><source protocol='iscsi' name='IQN/LUN'>`.
fn passed_lun(device: &Element) -> Option<DiskUse> {
    let source = device.first("source")?;
    let protocol = source.attribute("protocol")?.to_owned();
    let name = source.attribute("name")?.to_owned();
    let hosts = source.all("host").filter_map(|host| host.attribute("name")).map(str::to_owned).collect();
    let access = match (device.first("readonly"), device.first("shareable")) {
        (Some(_), _) => DiskAccess::ReadOnly,
        (None, Some(_)) => DiskAccess::Shareable,
        (None, None) => DiskAccess::Exclusive,
    };
    Some(DiskUse {
        target: "hostdev".to_owned(),
        source: DiskSource::Network { protocol, name, hosts },
        access,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_copy_and_passed_lun_counts() {
        let text = "<domain type='kvm'><name>a</name><devices>
            <disk type='file' device='disk'><source file='/a/top.qcow2'><dataStore type='file'><source file='/a/data.raw'/></dataStore></source>
              <backingStore type='file'><source file='/a/mid.qcow2'/><backingStore type='network'>
                <source protocol='gluster' name='v/base.img'><host name='h'/></source></backingStore></backingStore>
              <mirror type='block' job='copy'><source dev='/dev/sdb'/></mirror><target dev='vda'/></disk>
            <disk type='file' device='cdrom'><target dev='sda'/></disk>
            <disk type='file' device='cdrom'><source file='/a/i.iso'/><target dev='sdb'/></disk>
            <disk type='volume' device='disk'><source pool='p' volume='v'/><target dev='vdb'/><shareable/></disk>
            <hostdev mode='subsystem' type='scsi'><source protocol='iscsi' name='iqn.x:y/1'><host name='h'/></source></hostdev>
            </devices></domain>";
        let shown: Vec<String> = uses(text)
            .unwrap()
            .iter()
            .map(|u| format!("{} {:?} {:?}", u.target, u.access, u.source))
            .collect();
        assert_eq!(
            shown,
            [
                "vda Exclusive File(\"/a/top.qcow2\")",
                "vda Exclusive File(\"/a/data.raw\")",
                "vda Exclusive Block(\"/dev/sdb\")",
                "vda ReadOnly File(\"/a/mid.qcow2\")",
                "vda ReadOnly Network { protocol: \"gluster\", name: \"v/base.img\", hosts: [\"h\"] }",
                "sdb ReadOnly File(\"/a/i.iso\")",
                "vdb Shareable Volume { pool: \"p\", volume: \"v\" }",
                "hostdev Exclusive Network { protocol: \"iscsi\", name: \"iqn.x:y/1\", hosts: [\"h\"] }",
            ]
        );
    }
}
