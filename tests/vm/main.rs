//! The full-kernel tier: the `stor` command against virtual machines whose kernels have nfsd, NFS mounts and LIO of their own.
//!
//! `scripts/test-vm` boots the machines (vagrant/vm) and runs these tests, which plain `cargo test` leaves out; `make
//! test-vm` runs all but those of `xen`, which need machines of their own (`make test-vm-xen`). Each begins from a
//! snapshot; with Xen, and by Vagrant (`STOR_VM_LAUNCHER=vagrant`), from a boot.
#![expect(clippy::disallowed_methods, reason = "the tests start stor")]

mod core;
mod gluster;
mod harness;
mod iscsi;
mod iscsi_backing;
mod iscsi_sessions;
mod mixed;
mod nfs;
mod xen;
