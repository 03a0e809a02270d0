//! The main job end to end, through the `stor` command only, on lab hosts with real sshd, libvirtd, QEMU and glusterd.
//!
//! Each test brings up a lab of its own and takes it down again; they run one after another, because a lab uses the whole
//! machine. They need root and the packages of `scripts/install-deps`, and fail when something is missing.

#![expect(clippy::disallowed_methods, reason = "the tests start stor")]

mod direct;
mod faults;
mod guard;
mod hangs;
mod harness;
mod identity;
mod iscsi;
mod kept_state;
mod locks;
mod leaving;
mod migration;
mod migration_cold;
mod nfs;
mod nfs_faults;
mod refusals;

mod runbook;
mod secrets;
mod story;
