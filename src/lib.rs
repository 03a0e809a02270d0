//! One `cluster.yaml` for the shared storage of libvirt/KVM hosts, applied, proved, and used to move guests.
//!
//! ```text
//! load -> resolve -> observe -> plan -> execute -> verify
//! ```
//!
//! | verb | in | out | I/O |
//! |---|---|---|---|
//! | load, resolve ([`spec`]) | path, text | [`spec::Cluster`] or findings with line and column | reads one file |
//! | observe ([`observe`]) | cluster, hosts | [`observe::Observations`] | read-only, one round trip per host |
//! | plan ([`plan`]) | cluster, observations | [`plan::Plan`]: waves of steps | none: pure, deterministic |
//! | execute ([`execute`]) | plan, hosts | [`execute::Journal`] | runs a wave on all hosts at once |
//! | verify ([`verify`]) | cluster, hosts | evidence matrix | observes again and probes |
//!
//! Modules import downwards only, in the order in which they are listed here; `tests/layering.rs` holds the arrows.

// Here and not in Cargo.toml: a test that cannot go on has failed, and may say so with `unwrap`.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::let_underscore_must_use)]

pub mod cli;
pub mod playbook;
pub mod lab;
pub mod migrate;
pub mod apply;
pub mod verify;
pub mod status;
pub mod execute;
pub mod plan;
pub mod observe;
pub mod writers;
pub mod storage;
pub mod guard;
pub mod spec;
pub mod libvirt;
pub mod host;
pub mod error;
pub mod model;
