//! Evidence that what ended a scan was durable once.
//!
//! Always holds: no evidence is found after a mere crash, whatever was lost of what had not been synced,
//! and none can be forged by a guest that does not know an incarnation: a backup must not cry wolf.
//!
//! Why it is sound: an epoch's first frame names the highest epoch that its primary knew to be staged, and
//! the backup says STAGED only after the sync. That frame and all its predecessors in the ring are of the
//! journal since it was formatted with zeros, and epochs that were dropped on purpose are below the floor.

use std::collections::BTreeSet;

use crate::epoch::EpochHeader;
use crate::frame::{FrameHeader, FrameKind};
use crate::ids::{Epoch, Incarnation};

use super::layout::{Superblock, padded_len};
use super::read::{ReadAt, RingReader};

/// How it is known that an epoch was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The superblock says so.
    Superblock,
    /// A later epoch's first frame says so.
    LaterEpoch {
        /// That epoch.
        epoch: Epoch,
        /// Position of the frame.
        position: u64,
    },
}

/// How far behind the end evidence is looked for, in bytes: what an ordinary start may cost.
pub const LOOK_AHEAD: u64 = 64 << 20;

/// The highest epoch above `floor` that is known to have been durable, and how that is known.
pub(super) fn evidence<D: ReadAt>(
    reader: &mut RingReader<'_, D>,
    superblock: &Superblock,
    end: u64,
    floor: Epoch,
    known: &BTreeSet<Incarnation>,
) -> Result<Option<(Epoch, Evidence)>, D::Error> {
    let mut best = (superblock.synced > floor).then_some((superblock.synced, Evidence::Superblock));
    let limit = (superblock.tail + superblock.ring.capacity()).min(end.saturating_add(LOOK_AHEAD));
    let mut reached = end;
    while reached < limit {
        let chunk = reader.chunk(reached, limit);
        for (position, header) in reader.headers(reached, chunk)? {
            let staged = testimony(reader, position, header, floor, known)?;
            if staged > best.map_or(floor, |(most, _)| most) {
                best = Some((staged, Evidence::LaterEpoch { epoch: header.epoch, position }));
            }
        }
        reached += chunk as u64;
    }
    Ok(best)
}

/// The epoch that was staged when the epoch of this first frame was made; none if it is no witness.
fn testimony<D: ReadAt>(
    reader: &mut RingReader<'_, D>,
    position: u64,
    header: FrameHeader,
    floor: Epoch,
    known: &BTreeSet<Incarnation>,
) -> Result<Epoch, D::Error> {
    let is_witness = header.kind == FrameKind::EpochBegin
        && header.epoch > floor
        && known.contains(&header.incarnation)
        && padded_len(&header) <= reader.ring.rest(position);
    if !is_witness {
        return Ok(Epoch::NONE);
    }
    let begun = reader.frame(position, header)?.ok().and_then(|frame| EpochHeader::decode(&frame).ok());
    Ok(begun.map_or(Epoch::NONE, |begun| begun.staged))
}
