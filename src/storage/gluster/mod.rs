//! GlusterFS: replicated volumes, FUSE mounts or libgfapi.

pub mod spec;
