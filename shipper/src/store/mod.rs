//! What is durable on a host beside the volumes: the state, the journal, recovery points, lists of digests.
//!
//! Always holds: a write counts as done only after a flush that succeeded.

pub mod digest_list;
pub mod journal_device;
pub mod journal_view;
mod read_ahead;
pub(crate) mod slots;
pub(crate) mod small_file;
pub mod snapshots;
pub mod state_file;
pub mod storage;
