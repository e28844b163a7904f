//! Evidence that what ended a scan was durable once.
//!
//! Always holds: no evidence is found after a mere crash, whatever was lost of what had not been synced,
//! and none can be forged by a guest that does not know an incarnation: a backup must not cry wolf.
//!
//! Why it is sound: an epoch's first frame names the highest epoch that its primary knew to be staged, and
//! the backup says STAGED only after the sync. That frame and all its predecessors in the ring are of the
//! journal since it was formatted with zeros, and epochs that were dropped on purpose are below the floor.
//!
//! A crash leaves no place that cannot be read. So where the scan ended at one, less is asked for: frames of a later
//! epoch behind it, or a hole that could hide a whole epoch, are enough ([`hidden`]). A hole of one block
//! between two epochs is not: the smallest epoch takes two, and of one that began in the hole the rest would lie behind it.

use std::collections::BTreeSet;

use crate::epoch::EpochHeader;
use crate::frame::{FrameHeader, FrameKind};
use crate::ids::{Epoch, Incarnation};

use super::layout::{BLOCK_LEN, Superblock, padded_len};
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
    /// It is not known, only possible: the place where the epoch would begin cannot be read.
    Unreadable,
}

/// How far behind the end evidence is looked for, in bytes: what an ordinary start may cost.
pub const LOOK_AHEAD: u64 = 64 << 20;

/// Fewest bytes that an epoch takes in the ring: its first frame and its last, a block each.
const SMALLEST_EPOCH: u64 = 2 * BLOCK_LEN as u64;

/// The highest epoch above `floor` that is known to have been durable, and how that is known.
pub(super) fn evidence<D: ReadAt>(
    reader: &mut RingReader<'_, D>,
    superblock: &Superblock,
    end: u64,
    floor: Epoch,
    known: &BTreeSet<Incarnation>,
) -> Option<(Epoch, Evidence)> {
    let mut best = (superblock.synced > floor).then_some((superblock.synced, Evidence::Superblock));
    ahead(reader, superblock, end, &mut |reader, position, header| {
        let staged = testimony(reader, position, header, floor, known);
        if staged > best.map_or(floor, |(most, _)| most) {
            best = Some((staged, Evidence::LaterEpoch { epoch: header.epoch, position }));
        }
    });
    best
}

/// The highest epoch above `floor` that may have been durable where the scan ended at a place that cannot be read.
/// `open`: the epoch that had begun before it.
pub(super) fn hidden<D: ReadAt>(
    reader: &mut RingReader<'_, D>,
    superblock: &Superblock,
    end: u64,
    (floor, open): (Epoch, Option<Epoch>),
    known: &BTreeSet<Incarnation>,
) -> Option<Epoch> {
    let (mut named, mut is_any) = (open, open.is_some());
    ahead(reader, superblock, end, &mut |_, _, header| {
        if header.kind.is_of_epoch() && header.epoch > floor {
            is_any = true;
            // A guest can forge a frame, but not an incarnation: no other frame's number is believed.
            named = named.max(Some(header.epoch).filter(|_| known.contains(&header.incarnation)));
        }
    });
    let room = reader.ring.rest(end).min(superblock.tail + superblock.ring.capacity() - end);
    let is_hidden = is_any || reader.hole(end, room.min(SMALLEST_EPOCH)) >= SMALLEST_EPOCH;
    named.or_else(|| is_hidden.then(|| floor.next()))
}

/// Shows the sound headers behind the end, as far as they are looked for, with their positions.
fn ahead<D: ReadAt>(
    reader: &mut RingReader<'_, D>,
    superblock: &Superblock,
    end: u64,
    show: &mut dyn FnMut(&mut RingReader<'_, D>, u64, FrameHeader),
) {
    let limit = (superblock.tail + superblock.ring.capacity()).min(end.saturating_add(LOOK_AHEAD));
    let mut reached = end;
    while reached < limit {
        let chunk = reader.chunk(reached, limit);
        for (position, header) in reader.headers(reached, chunk) {
            show(reader, position, header);
        }
        reached += chunk as u64;
    }
}

/// The epoch that was staged when the epoch of this first frame was made; none if it is no witness.
fn testimony<D: ReadAt>(
    reader: &mut RingReader<'_, D>,
    position: u64,
    header: FrameHeader,
    floor: Epoch,
    known: &BTreeSet<Incarnation>,
) -> Epoch {
    let is_witness = header.kind == FrameKind::EpochBegin
        && header.epoch > floor
        && known.contains(&header.incarnation)
        && padded_len(&header) <= reader.ring.rest(position);
    if !is_witness {
        return Epoch::NONE;
    }
    let frame = reader.frame(position, header).ok().and_then(Result::ok);
    let begun = frame.and_then(|frame| EpochHeader::decode(&frame).ok());
    begun.map_or(Epoch::NONE, |begun| begun.staged)
}
