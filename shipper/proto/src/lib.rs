//! The sans-IO core of ftship: what is sent, what is stored, and in which order things may happen.
//!
//! Always holds: nothing here opens a socket or a file, reads a clock, starts a thread or draws a random
//! number. The daemon and the simulator execute the same decisions. All encodings are little endian,
//! versioned, checksummed and bounds-checked; no bytes, however hostile, make this crate panic.

pub mod backup;
pub mod digest;
pub mod epoch;
pub mod epoch_encoder;
pub mod frame;
pub mod generations;
pub mod group;
pub mod growth;
pub mod ids;
pub mod journal;
pub mod lineage;
pub mod message;
pub mod mutant;
pub mod primary;
pub mod protocol;
pub mod record;
pub mod rolls;
pub mod scope;
pub mod slot;
pub mod state;
pub mod text;
pub mod tlv;
pub mod verify;

#[cfg(test)]
mod testing;
