//! GlusterFS: replicated volumes, FUSE mounts or libgfapi.

pub mod direct_probe;
pub mod gfapi;
pub mod health;
pub mod probe;
pub mod spec;
