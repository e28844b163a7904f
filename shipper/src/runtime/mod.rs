//! What a daemon runs on: the event loop, worker threads, other programs, logs, the supervisor.
//!
//! Always holds: nothing here knows what an epoch or a role is.

pub(crate) mod command;
pub mod logging;
pub mod metrics;
pub mod reactor;
pub mod supervisor;
pub mod tokens;
pub mod wake;
pub(crate) mod worker;
