//! The daemon that keeps a backup's volumes at the primary's last committed epoch, and what its
//! commands need.
//!
//! | folder | responsible for |
//! |---|---|
//! | `config` | the one schema of a group's configuration |
//! | `control` | how commands talk to a daemon, and how its status reads |
//! | `daemon` | which role this host has, from the durable state |
//! | `primary`, `backup` | carrying out what the state machines of `ftship-proto` decide |
//! | `link` | the listener, the peer's connection, its protection |
//! | `store` | what is durable: state, journal, recovery points, lists of digests |
//! | `standby` | processes of their own: the watchdog, the hooks |
//! | `provision` | what exists before the first start: configuration, volumes, stacks |
//! | `runtime` | the event loop, worker threads, logs, the supervisor |
//!
//! Always holds: nothing here decides about epochs. That is `ftship-proto`'s.

pub mod backup;
pub mod config;
pub mod control;
pub mod daemon;
pub mod link;
pub mod primary;
pub mod provision;
pub mod runtime;
pub mod standby;
pub mod store;
