//! The verbs of `ftship`: arguments in, a line or JSON out, an exit code with a name.
//!
//! Always holds: nothing here decides; a verb asks the daemon, or a module of the library.

#[macro_use]
pub(crate) mod output;
pub(crate) mod args;
pub(crate) mod config;
pub(crate) mod failure;
pub(crate) mod init;
pub(crate) mod journal;
pub(crate) mod keys;
pub(crate) mod promote;
pub(crate) mod snapshots;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod verify;
