//! Where generations began, and how that is written.
//!
//! Always holds: an encoding holds [`MAX_LINEAGE`] generations at most, the newest.

use crate::ids::{Digest, Epoch, Generation};
use crate::tlv::{TlvError, Value};

/// Most entries of a lineage. When one more is added the oldest is dropped: a peer that is more than
/// 64 promotes behind cannot prove its ancestry and needs a full sync.
pub const MAX_LINEAGE: usize = 64;

/// Bytes of an encoded lineage entry.
const LINEAGE_ENTRY_LEN: usize = 64;

/// Where a generation began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineageEntry {
    /// The generation.
    pub generation: Generation,
    /// First epoch that it made.
    pub first_epoch: Epoch,
    /// Digest of the epoch before that: the fork.
    pub digest: Digest,
}

/// The encoding of a lineage, oldest first: {generation 24 bytes, first epoch u64, digest 32 bytes} each.
/// Only the newest [`MAX_LINEAGE`] entries are written.
pub(crate) fn encode_lineage(lineage: &[LineageEntry]) -> Vec<u8> {
    let newest = &lineage[lineage.len().saturating_sub(MAX_LINEAGE)..];
    let mut bytes = Vec::with_capacity(newest.len() * LINEAGE_ENTRY_LEN);
    for entry in newest {
        bytes.extend_from_slice(&entry.generation.encode());
        bytes.extend_from_slice(&entry.first_epoch.0.to_le_bytes());
        bytes.extend_from_slice(&entry.digest.0);
    }
    bytes
}

/// Reads what [`encode_lineage`] wrote; the value must end with it.
pub(crate) fn decode_lineage(mut value: Value<'_>) -> Result<Vec<LineageEntry>, TlvError> {
    let count = value.left() / LINEAGE_ENTRY_LEN;
    if count > MAX_LINEAGE {
        return Err(value.invalid(format_args!("{count} generations, more than {MAX_LINEAGE}")));
    }
    let mut lineage = Vec::with_capacity(count);
    for _ in 0..count {
        let generation = Generation::decode(value.array()?);
        let first_epoch = Epoch(value.u64()?);
        lineage.push(LineageEntry { generation, first_epoch, digest: Digest(value.array()?) });
    }
    value.end()?;
    Ok(lineage)
}
