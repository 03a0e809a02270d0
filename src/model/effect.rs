//! What a step does: the closed list of effects, with the shapes of files, blocks and images.
//!
//! How an effect is carried out belongs in `execute`.

use std::sync::Arc;

use serde::Serialize;

use super::{AbsPath, Command, HostId, ImageFormat, ImageLocation, Secret, SecretId};

/// File permission bits, e.g. `0o644`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct FileMode(pub u32);

/// A file that stor owns whole. Written as: temporary file in the same directory, fsync, rename, fsync of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileSpec {
    /// Where it goes; missing parent directories are made with mode 0755.
    pub path: AbsPath,
    /// Permission bits; the owner is root.
    pub mode: FileMode,
    /// What it holds.
    pub content: FileContent,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileContent {
    /// Text that a plan may show; shared, because a file may be the same on a thousand hosts.
    Text(Arc<str>),
    /// A value that it may not.
    Secret(Secret),
}

/// A marked block that stor owns inside somebody else's file, between `# BEGIN stor NAME` and `# END stor NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockSpec {
    /// The file; created with `mode` when it is missing, otherwise owner and mode are kept.
    pub path: AbsPath,
    /// Permission bits for a new file.
    pub mode: FileMode,
    /// The word after `stor` in both marks, usually the cluster's name.
    pub marker: String,
    /// Lines between the marks; `None` removes block and marks. Shared, because they may be the same on a thousand hosts.
    pub lines: Option<Arc<[BlockLine]>>,
}

/// One line of a marked block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockLine {
    /// The line itself.
    Text(String),
    /// A line of `authorized_keys(5)`: options, then a public key that another host holds.
    Key(PeerKey),
}

/// A public key of another host, read from there when the step runs if it did not exist when planning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerKey {
    /// The host that holds the key pair.
    pub of: HostId,
    /// The public key's file there.
    pub path: AbsPath,
    /// What to write before the key (`restrict,from="...",command="..."`).
    pub options: String,
    /// The key (type and base64) if it was observed.
    pub known: Option<String>,
}

/// An image to create; never overwrites one that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageSpec {
    /// Where it goes.
    pub location: ImageLocation,
    /// Format.
    pub format: ImageFormat,
    /// Virtual size in bytes.
    pub size: super::ByteSize,
    /// A file on the machine that runs stor, copied in once.
    pub source: Option<std::path::PathBuf>,
    /// What must end well before anything is written: it says that the storage is mounted where the image goes, which may have
    /// changed since the plan was made.
    pub mounted: Option<Command>,
}

/// What a step does on its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Runs commands in order; stops at the first that fails.
    Run(Vec<Command>),
    /// Writes a file that stor owns whole.
    WriteFile(FileSpec),
    /// Removes files that stor owns whole.
    RemoveFiles(Vec<AbsPath>),
    /// Sets or removes a marked block.
    EditBlock(BlockSpec),
    /// Defines, builds, starts and autostarts a libvirt pool; updates it when it differs, never destroys it.
    EnsurePool {
        /// Pool name.
        name: String,
        /// Pool XML (<https://libvirt.org/formatstorage.html>).
        xml: String,
    },
    /// Stops and undefines a libvirt pool; its contents stay.
    RemovePool {
        /// Pool name.
        name: String,
    },
    /// Defines a libvirt secret and gives it its value; then leaves a stamp of the value, so that a run that dies in between
    /// gives the value once more.
    EnsureSecret {
        /// UUID.
        id: SecretId,
        /// Secret XML (<https://libvirt.org/formatsecret.html>); it holds no value.
        xml: String,
        /// The value.
        value: Secret,
        /// The file with the stamp ([`super::Stamp`]).
        stamp: FileSpec,
    },
    /// Undefines a libvirt secret and forgets its stamp.
    RemoveSecret {
        /// UUID.
        id: SecretId,
        /// The file with the stamp.
        stamp: AbsPath,
    },
    /// Creates an image.
    CreateImage(ImageSpec),
    /// Defines a libvirt domain that no hypervisor has yet, neither by name nor by UUID.
    DefineGuest {
        /// Domain name.
        name: String,
        /// Its UUID, which the XML holds.
        uuid: String,
        /// Who is asked for it once more, right before.
        hypervisors: Vec<HostId>,
        /// Domain XML (<https://libvirt.org/formatdomain.html>).
        xml: String,
    },
    /// Undefines a libvirt domain that is shut off.
    UndefineGuest {
        /// Domain name.
        name: String,
        /// Its UUID, which alone tells it from another of the same name.
        uuid: String,
    },
}
