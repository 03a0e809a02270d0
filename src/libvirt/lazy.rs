//! Loads libvirt when the first connection is opened, not when stor starts.
//!
//! The dynamic linker takes about 10 ms for libvirt and the 50 libraries behind it, twice what `stor --version` may
//! take in all (ADR 0041). So stor defines libvirt's functions itself, each as one jump through a slot, and [`load`]
//! fills the slots. The linker then finds nothing left for `-lvirt` to supply and drops it (`--as-needed`).
//! The second place of this part with `unsafe`. Nothing but loading belongs here.
#![expect(unsafe_code, reason = "jumps into a library that is loaded at run time")]

use std::ffi::c_void;
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

mod symbols;

/// Name of the library; its ABI has been the same since 2005.
const LIBRARY: &str = "libvirt.so.0";

/// One function of libvirt: its name, the slot that its calls go through, and the jump itself.
///
/// The jump is only named here so that every linker keeps it together with the table.
struct Entry {
    name: &'static str,
    slot: &'static AtomicPtr<c_void>,
    _jump: unsafe extern "C" fn(),
}

/// Defines one jump and one slot per function, and the table of all of them.
macro_rules! trampolines {
    ($($name:ident)*) => {
        $(
            #[expect(non_snake_case, reason = "named like the C function")]
            mod $name {
                use std::ffi::c_void;
                use std::sync::atomic::AtomicPtr;

                pub(super) static SLOT: AtomicPtr<c_void> =
                    AtomicPtr::new($crate::libvirt::lazy::unavailable as *mut c_void);

                /// Jumps to libvirt's function of this name: registers and stack are as the caller left them.
                #[unsafe(naked)]
                #[unsafe(no_mangle)]
                pub(super) unsafe extern "C" fn $name() {
                    $crate::libvirt::lazy::jump!(SLOT)
                }
            }
        )*

        pub(super) static TABLE: &[super::Entry] = &[
            $(super::Entry { name: stringify!($name), slot: &$name::SLOT, _jump: $name::$name }),*
        ];
    };
}

#[cfg(target_arch = "x86_64")]
macro_rules! jump {
    ($slot:ident) => {
        core::arch::naked_asm!("jmp qword ptr [rip + {slot}]", slot = sym $slot)
    };
}

// x16 may be changed between a call and the function that it reaches (AAPCS64, section 6.1.1).
#[cfg(target_arch = "aarch64")]
macro_rules! jump {
    ($slot:ident) => {
        core::arch::naked_asm!(
            "adrp x16, {slot}",
            "ldr x16, [x16, :lo12:{slot}]",
            "br x16",
            slot = sym $slot,
        )
    };
}

use {jump, trampolines};

/// Where every slot leads until libvirt is loaded, and afterwards those of functions that an old libvirt lacks.
extern "C" fn unavailable() {
    let message =
        b"stor: a function of libvirt was called that is not loaded; libvirt 6.0 or newer is needed\n";
    // The process ends here either way.
    drop(std::io::stderr().write_all(message));
    std::process::abort();
}

/// Loads libvirt and fills all slots; does nothing after the first time.
///
/// # Errors
/// The dynamic linker's message when the library is not installed or cannot be loaded.
pub(super) fn load() -> Result<(), String> {
    static LOADED: OnceLock<Result<libloading::Library, String>> = OnceLock::new();
    LOADED.get_or_init(open).as_ref().map(|_| ()).map_err(Clone::clone)
}

fn open() -> Result<libloading::Library, String> {
    // SAFETY: loading libvirt runs its constructors, which any program linked with it runs as well.
    let library = unsafe { libloading::Library::new(LIBRARY) }
        .map_err(|error| format!("libvirt's client library cannot be loaded (package libvirt0): {error}"))?;
    for entry in symbols::TABLE {
        // SAFETY: the symbol is only used as an address to jump to; callers use libvirt's own declarations of it, and
        // the library stays loaded for good because it is kept in a static.
        if let Ok(symbol) = unsafe { library.get::<*mut c_void>(entry.name.as_bytes()) } {
            entry.slot.store(*symbol, Ordering::Release);
        }
    }
    Ok(library)
}
