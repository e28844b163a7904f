//! The lab: two hosts with real kernels, disks that lose what was not flushed, and a link between
//! them, all driven by shell scenarios.
//!
//! [`scenario`] runs scripts; [`machines`] holds a scenario's two hosts, and [`control`] does what
//! the scripts ask of them through [`client`]. [`host`] starts kernels, [`disk`] serves their disks,
//! [`link`] joins them, [`agent`] runs commands in them; [`folder`] is where a run keeps its files.
//! What must hold: whatever a scenario does and however it ends, nothing is left running or
//! mounted, and the hosts write to nothing but their disks and the share.

pub mod agent;
pub mod client;
pub mod control;
pub mod disk;
pub mod folder;
pub mod host;
pub mod link;
pub mod machines;
pub mod scenario;
