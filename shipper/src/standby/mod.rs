//! Processes of their own beside the daemon: the watchdog, and the one that runs the hooks.
//!
//! Always holds: each undoes what a killed daemon left, and needs nothing from that daemon for it.

pub mod hooks;
pub mod watchdog;
