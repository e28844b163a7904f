//! The backup's journal: epochs as received, in a ring on a device or file, until they are applied.
//!
//! Nothing here does I/O: [`JournalWriter`] says where bytes go, [`recover`] reads through [`ReadAt`] and says
//! what the bytes mean. Always holds: what lies between the durable tail and the head is never
//! overwritten; whatever bytes the ring holds, recovery yields only epochs that verify, in an unbroken chain
//! from the tail, and says why it stopped; nothing of an epoch is used before a [`Proof`] of it.

mod append;
mod damage;
mod layout;
mod proof;
mod read;
mod recovery;

pub use append::{JournalWriter, Placement, ReserveError};
pub use damage::{Evidence, LOOK_AHEAD};
pub use layout::{
    BLOCK_LEN, Dropped, JournalError, MIN_JOURNAL_LEN, Marker, RING_START, Ring, Superblock, encode_padded,
    padded_len,
};
pub use proof::{PIECE_LEN, Place, Proof, ProofError, RedoError};
pub use read::{EpochFrames, ReadAt, ReadError};
pub use recovery::{EndClass, EndReason, Ended, Recovery, SealedEpoch, recover};

#[cfg(test)]
mod tests;
