//! What the cluster file says about one LUN: its YAML shape and its own rules.
//!
//! Imports only `model` and the building blocks of `spec`. Rules between the LUNs of a target are above.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{LAST_NUMBER, problem};
use crate::model::{AbsPath, ByteSize, HostId, ImageId, StorageId};
use crate::spec::input::{At, Text};
use crate::spec::{Declared, number};

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
    /// The file on the server that holds its data, which stor makes when it is missing.
    pub backing: AbsPath,
    /// Whether the file's blocks are taken at once.
    pub allocation: Allocation,
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
    /// Its size, with a unit. It may grow later; it never shrinks.
    pub size: Text<ByteSize>,
    /// The file on the server that holds its data. stor makes it when it is missing, and never overwrites one.
    pub backing: Text<AbsPath>,
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
        let allocation = self.allocation.map_or(Allocation::Sparse, |at| at.value);
        Some(LunSpec { name: name?, number, size: size?, backing: backing?, allocation })
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

    fn resolve_backing(
        &self,
        subject: &str,
        server: Option<&HostId>,
        declared: &mut Declared<'_>,
    ) -> Option<AbsPath> {
        let path = self.backing.parse(format_args!("{subject}: backing"), declared.problems)?;
        if let Some(server) = server {
            let (place, owner) = (self.backing.place, subject.to_owned());
            declared.space.serve((server, &path), place, owner, "backing file", declared.problems);
        }
        Some(path)
    }
}
