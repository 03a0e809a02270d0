//! Migration against fake hosts and daemons: every finding, every placement, every fault that a lab run cannot time.

mod cold;
mod faults;
mod hangs;
mod judge;
mod locks;
mod outside;
mod preflight;
mod start;
mod world;
