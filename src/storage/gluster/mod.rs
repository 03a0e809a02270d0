//! GlusterFS: replicated volumes, FUSE mounts or libgfapi.

pub mod direct_probe;
pub mod gfapi;
pub mod probe;
pub mod spec;
