//! What runs the guests of a hypervisor, and what follows from that alone.
//!
//! What has to be asked otherwise of one driver stands where it is asked (a `match` on [`Driver`]); what stor does, or does
//! not do, for its hosts is said here.

use std::fmt;

/// Which of libvirt's drivers runs a hypervisor's guests (<https://libvirt.org/drivers.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Driver {
    /// QEMU, with KVM or by emulation.
    Qemu,
    /// Xen, through libxl.
    Xen,
}

impl Driver {
    /// The scheme of its URIs (<https://libvirt.org/uri.html>).
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Xen => "xen",
        }
    }

    /// The URI of the host's own daemon for this driver.
    #[must_use]
    pub fn uri(self) -> &'static str {
        match self {
            Self::Qemu => "qemu:///system",
            Self::Xen => "xen:///system",
        }
    }

    /// Tells whether running guests move between its hosts. These then trust each other and open ports for the stream; hosts
    /// whose guests move shut off need neither, because stor carries the definition.
    #[must_use]
    pub fn moves_running_guests(self) -> bool {
        match self {
            Self::Qemu => true,
            Self::Xen => false,
        }
    }

    /// Tells whether it runs domains of a type (`type` of libvirt's `<domain>`).
    #[must_use]
    pub fn runs(self, domain_type: &str) -> bool {
        (domain_type == "xen") == (self == Self::Xen)
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Qemu => "QEMU",
            Self::Xen => "Xen",
        })
    }
}
