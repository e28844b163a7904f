//! What exists before a daemon starts for the first time: a group's configuration, its volumes, stacks, state and journal.
//!
//! Always holds: nothing that holds data is overwritten unless the operator insists.

pub mod format;
pub mod init;
pub mod lvm;
pub mod stacks;
