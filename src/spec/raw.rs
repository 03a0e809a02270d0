//! The cluster file as it is written: one struct per mapping, one field per key.
//!
//! These shapes are the only description of the file's keys: serde reads with them, the JSON Schema, `shape` and
//! `docs/cluster-yaml.md` are made from them (the doc comments are what users read). Words stay words here; `resolve` gives
//! them their meaning. Imports `input`, `scalar`, `model` and the backends' `spec.rs`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::input::{At, Entries, Text};
use super::scalar::{Address, Bandwidth, Interface, KernelLine, LocalFile, Login, Mac, Span};
use crate::model::{AbsPath, ByteSize, ClusterName, GuestId, HostId, ImageId, StorageId};
use crate::storage::spec::RawStorage;

/// One cluster: its hosts, the storage they share, the images on it, the guests, and how guests may migrate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "stor cluster file", rename = "Cluster")]
pub struct RawCluster {
    /// Version of the file format: `1`.
    #[schemars(extend("const" = 1))]
    pub version: At<u32>,
    /// Name of the cluster. Everything that stor owns on the hosts carries it.
    pub name: Text<ClusterName>,
    /// How stor logs in, on every host that does not say otherwise.
    pub ssh: Option<RawSsh>,
    /// The hosts, by name.
    #[schemars(extend("minProperties" = 1))]
    pub hosts: At<Entries<HostId, RawHost>>,
    /// The shared storage, by name. Each entry has one key, its backend.
    pub storage: Option<Entries<StorageId, RawStorage>>,
    /// The images on the storage, by name. The file is called `NAME.img` (raw) or `NAME.qcow2`.
    pub images: Option<Entries<ImageId, RawImage>>,
    /// The guests, by name; also the name of the libvirt domain.
    pub guests: Option<Entries<GuestId, RawGuest>>,
    /// How guests may migrate.
    pub migration: Option<RawMigration>,
}

/// How stor logs in to hosts.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Ssh")]
pub struct RawSsh {
    /// Login name.
    #[schemars(extend("x-default" = "what your own ssh configuration says"))]
    pub user: Option<Text<Login>>,
    /// TCP port of sshd.
    #[schemars(extend("x-default" = "what your own ssh configuration says"))]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<At<u16>>,
    /// Private key file on the machine that runs stor. `~` is your home directory; a relative path starts at the cluster file.
    #[schemars(extend("x-default" = "what your own ssh configuration says"))]
    pub identity_file: Option<Text<LocalFile>>,
    /// How commands become root: `none` when the login user is root, `sudo` for `sudo -n`, which must not ask for a password.
    #[serde(rename = "become")]
    #[schemars(extend("default" = "none"))]
    pub elevation: Option<RawElevation>,
}

/// How commands become root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum RawElevation {
    /// The login user is root.
    None,
    /// `sudo -n`.
    Sudo,
}

/// What runs a host's guests, if it runs any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawHypervisor {
    /// QEMU with KVM.
    True,
    /// Nothing.
    False,
    /// The same as `true`.
    Kvm,
    /// Xen.
    Xen,
}

impl JsonSchema for RawHypervisor {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Hypervisor".into()
    }
    /// To an editor the first two are booleans.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [{ "const": true }, { "const": false }, { "const": "kvm" }, { "const": "xen" }] })
    }
}

/// One host.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Host")]
pub struct RawHost {
    /// IPv4 address or DNS name by which stor and the other hosts reach it.
    pub address: Text<Address>,
    /// Whether it runs guests, and by what: `true` (or `kvm`) is QEMU with KVM, `xen` is Xen. Every hypervisor gets access to
    /// all storage.
    #[schemars(extend("default" = false))]
    pub hypervisor: Option<RawHypervisor>,
    /// How stor logs in to this host; each key overrides the one of the same name at the top.
    pub ssh: Option<RawSsh>,
}

/// One image.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Image")]
pub struct RawImage {
    /// The storage that holds it.
    pub storage: Text<StorageId>,
    /// Virtual size, with a unit: `512MiB`, `20GiB`.
    pub size: Text<ByteSize>,
    /// Format of the image.
    #[schemars(extend("default" = "raw"))]
    pub format: Option<At<RawFormat>>,
    /// File on the machine that runs stor, of the same format, copied in once when the image is created. A relative path
    /// starts at the cluster file.
    #[schemars(extend("x-default" = "the image is created empty"))]
    pub source: Option<Text<LocalFile>>,
}

/// Format of an image.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum RawFormat {
    /// The guest's sectors as they are.
    Raw,
    /// QEMU copy-on-write.
    Qcow2,
}

/// One guest: either described here (`image`, `memory` ...) or by your own domain XML (`domain`).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Guest", extend("oneOf" = [{ "required": ["image", "memory"] }, { "required": ["domain"] }]))]
pub struct RawGuest {
    /// The hypervisor on which it is first defined. Where it runs later is up to you: stor never moves it back.
    pub on: Text<HostId>,
    /// Its disk: an image that no other guest uses.
    #[schemars(extend("x-default" = "required without `domain`"))]
    pub image: Option<Text<ImageId>>,
    /// Memory, with a unit.
    #[schemars(extend("x-default" = "required without `domain`"))]
    pub memory: Option<Text<ByteSize>>,
    /// Virtual CPUs.
    #[schemars(range(min = 1, max = 4096), extend("default" = 1))]
    pub vcpus: Option<At<u32>>,
    /// Bridge of its network interface; it must exist on every hypervisor.
    #[schemars(extend("x-default" = "no network interface"))]
    pub bridge: Option<Text<Interface>>,
    /// MAC address of its network interface.
    #[schemars(extend("x-default" = "derived from the names of cluster and guest"))]
    pub mac: Option<Text<Mac>>,
    /// Direct kernel boot.
    #[schemars(extend("x-default" = "boot from the image"))]
    pub boot: Option<RawBoot>,
    /// Hardware virtualisation or emulation. `auto` is KVM where every hypervisor offers it.
    #[schemars(extend("default" = "auto"))]
    pub accel: Option<At<RawAccel>>,
    /// Whether libvirt starts the guest with its host. The setting moves along with the guest.
    #[schemars(extend("default" = false))]
    pub autostart: Option<At<bool>>,
    /// Your own domain XML, a file next to the cluster file, instead of all keys but `on`. Its name must be the guest's; where it
    /// has no `<uuid>`, stor writes one in.
    #[schemars(extend("x-default" = "stor writes the domain XML"))]
    pub domain: Option<Text<LocalFile>>,
}

/// Direct kernel boot. The files must exist on every hypervisor.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Boot")]
pub struct RawBoot {
    /// Kernel image, an absolute path.
    pub kernel: Text<AbsPath>,
    /// Initial RAM disk, an absolute path.
    #[schemars(extend("x-default" = "none"))]
    pub initrd: Option<Text<AbsPath>>,
    /// Kernel command line.
    #[schemars(extend("default" = ""))]
    pub cmdline: Option<Text<KernelLine>>,
}

/// Hardware virtualisation or emulation.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum RawAccel {
    /// KVM where every hypervisor offers it, else emulation.
    Auto,
    /// KVM.
    Kvm,
    /// QEMU's own emulation.
    Qemu,
}

/// How guests may migrate.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Migration")]
pub struct RawMigration {
    /// Upper bound for one migration: `1GiB/s`, `800Mbit/s`; `none` is as fast as the link allows.
    #[schemars(extend("default" = "none"))]
    pub bandwidth: Option<Text<Bandwidth>>,
    /// The pause at the end that a guest may suffer.
    #[schemars(extend("default" = "300ms"))]
    pub max_downtime: Option<Text<Span>>,
    /// Deadline of one migration.
    #[schemars(extend("default" = "10m"))]
    pub timeout: Option<Text<Span>>,
    /// What happens at the deadline: `abort` leaves the guest at the source, `pause` stops it so that the rest can be copied,
    /// `post-copy` lets it run at the destination and fetch the rest from there (a failing link then kills it).
    #[schemars(extend("default" = "abort"))]
    pub on_timeout: Option<RawOnTimeout>,
    /// How many migrations may run at once.
    pub concurrent: Option<RawConcurrent>,
}

/// What happens at the deadline of a migration.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum RawOnTimeout {
    /// The migration is cancelled.
    Abort,
    /// The guest is paused so that the rest can be copied.
    Pause,
    /// The guest switches to the destination.
    PostCopy,
}

/// How many migrations may run at once.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Concurrent")]
pub struct RawConcurrent {
    /// Per host, as source and as destination each.
    #[schemars(range(min = 1, max = 1000), extend("default" = 2))]
    pub per_host: Option<At<u32>>,
    /// In the whole cluster.
    #[schemars(range(min = 1, max = 1000), extend("default" = 5))]
    pub cluster: Option<At<u32>>,
}
