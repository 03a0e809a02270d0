//! What the cluster file says about one LUN: its YAML shape and its own rules.
//!
//! Imports only `model` and the building blocks of `spec`. Rules between the LUNs of a target are above.

use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::{LAST_NUMBER, VolumeName, problem};
use crate::model::{AbsPath, ByteSize, ClusterName, HostId, ImageId, StorageId};
use crate::spec::input::{At, Text};
use crate::spec::{Declared, number};

/// The name space of the identifiers that stor gives to LUNs (UUID version 5, RFC 9562 section 5.5); chosen once at random.
const NAMESPACE: Uuid = Uuid::from_u128(0x8a3e_51d6_7f0b_4c29_b5e1_0d94_c6f2_3a17);
/// The smallest LUN, in bytes: what `verify` reads of its ends.
const SMALLEST: u64 = 1 << 20;
/// A LUN's size is a multiple of this, in bytes: one sector.
const SECTOR: u64 = 512;

/// One LUN: the image of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LunSpec {
    /// The image.
    pub name: ImageId,
    /// Its number behind the target.
    pub number: u8,
    /// Its size.
    pub size: ByteSize,
    /// Where its data lies on the server: a file, or a block device.
    pub backing: AbsPath,
    /// What that is.
    pub kind: Backing,
}

/// What is behind a LUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// A file, which stor makes when it is missing.
    File(Allocation),
    /// A block device, which is offered as it is.
    Device {
        /// Whether it may carry something that stor did not put there.
        adopted: bool,
    },
    /// A logical volume, which stor makes when it is missing.
    Volume(VolumeName),
}

/// What initiators show as the WWN of a LUN of the kernel's target with this serial number: NAA 6, the kernel's company identifier, and
/// the digits (`target_core_spc.c`, `spc_gen_naa_6h_vendor_specific`).
#[must_use]
pub fn wwid(serial: &str) -> String {
    let digits: String = serial.chars().filter(char::is_ascii_hexdigit).take(25).collect();
    format!("6001405{digits}")
}

impl LunSpec {
    /// Its serial number, from which initiators make its WWID: the same after a restart, on whatever file its data lies.
    #[must_use]
    pub fn serial(&self, cluster: &ClusterName, id: &StorageId) -> String {
        let name = format!("{cluster}/{id}/{}", self.name);
        Uuid::new_v5(&NAMESPACE, name.as_bytes()).simple().to_string()
    }

    /// Whether initiators reach a block device.
    #[must_use]
    pub fn is_block(&self) -> bool {
        !matches!(self.kind, Backing::File(_))
    }
}

/// When the blocks of a backing file are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Allocation {
    /// When they are written.
    Sparse,
    /// When the file is made.
    Full,
}

/// One LUN.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Lun")]
pub struct RawLun {
    /// Its name: that of the image that it is.
    pub name: Text<ImageId>,
    /// Its size, with a unit. It may grow later; it never shrinks. That of a `device` is the size that the device has.
    pub size: Text<ByteSize>,
    /// The file on the server that holds its data. stor makes it when it is missing, and never overwrites one.
    #[schemars(extend("x-default" = "this, `device` or `volume` has to be there"))]
    pub backing: Option<Text<AbsPath>>,
    /// The block device on the server that holds its data, by a name that stays: `/dev/disk/by-id/..`, `/dev/vg0/web1`. It is offered
    /// as it is; stor never writes to it, and refuses one that is in use or carries data of others.
    #[schemars(extend("x-default" = "none"))]
    pub device: Option<Text<AbsPath>>,
    /// The same device once more: it may carry a file system, a partition table or the like, which guests see and may overwrite.
    #[schemars(extend("x-default" = "such a device is refused"))]
    pub adopt: Option<Text<AbsPath>>,
    /// The logical volume on the server that holds its data, `GROUP/NAME`. stor makes it in a volume group that is there.
    #[schemars(extend("x-default" = "none"))]
    pub volume: Option<Text<VolumeName>>,
    /// When the blocks of a backing file are taken: `sparse`, as they are written, or `full`, at once.
    #[schemars(extend("default" = "sparse"))]
    pub allocation: Option<At<Allocation>>,
    /// Its number behind the target. Write it when you reorder the LUNs: guests know their LUN by it.
    #[schemars(range(min = 1, max = 255), extend("x-default" = "its place in the list, from 1"))]
    pub number: Option<At<u8>>,
}

impl RawLun {
    pub(super) fn resolve(
        &self,
        id: &StorageId,
        (server, position): (Option<&HostId>, u8),
        declared: &mut Declared<'_>,
    ) -> Option<LunSpec> {
        let name = self.name.parse(format_args!("storage {id}: LUN name"), declared.problems);
        let called = name.as_ref().map_or_else(|| format!("{position}"), ToString::to_string);
        let subject = format!("storage {id}: LUN {called}");
        let size = self.resolve_size(&subject, declared);
        let backing = self.resolve_backing(&subject, server, declared);
        let range = 1..=LAST_NUMBER;
        let number =
            number(self.number, position, range, format_args!("{subject}: number"), declared.problems);
        let (backing, kind) = backing?;
        Some(LunSpec { name: name?, number, size: size?, backing, kind })
    }

    fn resolve_size(&self, subject: &str, declared: &mut Declared<'_>) -> Option<ByteSize> {
        let size = self.size.parse(format_args!("{subject}: size"), declared.problems)?;
        if size.bytes() < SMALLEST || size.bytes() % SECTOR != 0 {
            let message = format!("{subject}: size {size} is no size of a LUN");
            let hint = "write at least 1MiB, in whole sectors of 512 bytes";
            problem(declared, self.size.place, message, hint);
            return None;
        }
        Some(size)
    }

    /// Exactly one of the three that can hold a LUN's data.
    fn resolve_backing(
        &self,
        subject: &str,
        server: Option<&HostId>,
        declared: &mut Declared<'_>,
    ) -> Option<(AbsPath, Backing)> {
        let owner = || subject.to_owned();
        let found = match (&self.backing, &self.device, &self.volume) {
            (Some(file), None, None) => {
                let path = file.parse(format_args!("{subject}: backing"), declared.problems)?;
                if let Some(server) = server {
                    let claim = (file.place, owner(), "backing file");
                    declared.space.serve((server, &path), claim.0, claim.1, claim.2, declared.problems);
                }
                (path, Backing::File(self.allocation.map_or(Allocation::Sparse, |at| at.value)))
            }
            (None, Some(device), None) => {
                let path = device.parse(format_args!("{subject}: device"), declared.problems)?;
                if !path.as_str().starts_with("/dev/") {
                    let message = format!("{subject}: device {path} is none: devices are below /dev");
                    problem(declared, device.place, message, "name a file with backing:");
                    return None;
                }
                if let Some(server) = server {
                    declared.space.device((server, &path), device.place, owner(), declared.problems);
                }
                let adopted = self.resolve_adopted(subject, &path, declared)?;
                (path, Backing::Device { adopted })
            }
            (None, None, Some(volume)) => {
                let name = volume.parse(format_args!("{subject}: volume"), declared.problems)?;
                let path = name.device().clone();
                if let Some(server) = server {
                    declared.space.device((server, &path), volume.place, owner(), declared.problems);
                }
                (path, Backing::Volume(name))
            }
            _ => {
                let message = format!("{subject}: exactly one of backing, device and volume has to be there");
                let hint = "backing: a file, device: a block device that is there, volume: a logical volume";
                problem(declared, self.name.place, message, hint);
                return None;
            }
        };
        self.refuse_misplaced(subject, &found.1, declared);
        Some(found)
    }

    fn resolve_adopted(&self, subject: &str, path: &AbsPath, declared: &mut Declared<'_>) -> Option<bool> {
        let Some(adopt) = &self.adopt else { return Some(false) };
        let named = adopt.parse(format_args!("{subject}: adopt"), declared.problems)?;
        if named != *path {
            let message = format!("{subject}: adopt names {named}, and its device is {path}");
            problem(declared, adopt.place, message, "name the same device, or remove the key");
            return None;
        }
        Some(true)
    }

    /// Refuses keys that mean nothing for what is behind the LUN.
    fn refuse_misplaced(&self, subject: &str, kind: &Backing, declared: &mut Declared<'_>) {
        if let (Some(adopt), false) = (&self.adopt, matches!(kind, Backing::Device { .. })) {
            let message = format!("{subject}: adopt is for a device");
            problem(declared, adopt.place, message, "remove the key");
        }
        if let (Some(allocation), false) = (&self.allocation, matches!(kind, Backing::File(_))) {
            let message = format!("{subject}: allocation is for a backing file");
            problem(declared, allocation.place, message, "remove the key");
        }
    }
}
