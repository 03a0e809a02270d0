//! iSCSI: a target of one host, whose LUNs are the images.
//!
//! So far only what the cluster file says; see `spec`.

pub mod spec;
