//! The daemon that keeps a backup's volumes at the primary's last committed epoch, and what its
//! commands need.
//!
//! `config` is the one schema, `daemon` decides the role from the durable state and runs the reactor,
//! `primary` and `backup` carry out what the state machines of `ftship-proto` decide, `watchdog` is
//! the process that undoes what a stopped daemon left, `control` is how commands talk to a daemon. Nothing here decides about epochs: that is `ftship-proto`'s.

pub mod backup;
mod command;
pub mod config;
pub mod control;
pub mod daemon;
pub mod door;
pub mod format;
pub mod hooks;
pub mod init;
pub mod journal_report;
pub mod journal_view;
pub mod logging;
pub mod metrics;
pub mod offline;
pub mod peer;
pub mod primary;
pub mod reactor;
pub mod report;
pub mod setup;
mod small_file;
pub mod snapshots;
pub mod state_file;
pub mod storage;
pub mod supervisor;
pub mod tls;
mod vacating;
pub mod watchdog;
mod worker;
