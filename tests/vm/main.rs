//! The full-kernel tier: the `stor` command against virtual machines whose kernels have nfsd and NFS mounts of their own.
//!
//! `make test-vm` boots the machines (vagrant/vm) and runs these tests, which plain `cargo test` leaves out. Each begins
//! from a snapshot of bare machines.
#![expect(clippy::disallowed_methods, reason = "the tests start stor")]

mod harness;
mod nfs;
