//! What a generated guest is made of.
//!
//! Here and not in `spec` because libvirt's XML is written from it. The XML itself belongs in `libvirt`.

use super::{AbsPath, ByteSize, ImageId};

/// A guest as the cluster file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestShape {
    /// Its disk, `vda` on virtio, cache none.
    pub image: ImageId,
    /// Memory.
    pub memory: ByteSize,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// The bridge of its one network interface; none = no interface.
    pub bridge: Option<String>,
    /// MAC address; derived from cluster and guest name when absent, so that it never changes.
    pub mac: Option<String>,
    /// Direct kernel boot; absent = boot from the image.
    pub boot: Option<KernelBoot>,
    /// Hardware virtualisation or emulation.
    pub accel: Accel,
    /// Whether libvirt starts it with the host.
    pub autostart: Autostart,
}

/// Direct kernel boot; the files must exist on every hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelBoot {
    /// Kernel image.
    pub kernel: AbsPath,
    /// Initial RAM disk.
    pub initrd: Option<AbsPath>,
    /// Kernel command line.
    pub cmdline: String,
}

/// Hardware virtualisation or emulation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Accel {
    /// KVM where every hypervisor offers it, else emulation.
    #[default]
    Auto,
    /// KVM.
    Kvm,
    /// QEMU's own emulation (TCG).
    Qemu,
}

/// Whether libvirt starts a guest with its host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Autostart {
    /// It does not.
    #[default]
    Off,
    /// It does, on whichever host the guest was moved to last.
    On,
}
