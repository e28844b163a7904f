//! What a journal holds after a stop of any kind: the epochs that were sealed, and why the scan ended.
//!
//! The scan starts at the superblock's tail and follows whole epochs, each of which must verify and continue
//! the digest chain. It ends at the first thing that does not. In the `auto` policy a wholly staged epoch is
//! committed, so the last sealed commit point is what the backup promotes to; in the `external` policy the
//! superblock names the last one that is.
//!
//! What lies where the next frame should be decides. "Floor" is the highest epoch sealed or dropped so
//! far; "known" is an incarnation that the superblock or an epoch of the chain names.
//!
//! | # | what lies there | between epochs | inside an epoch |
//! |---|---|---|---|
//! | 1 | the tail again | end: [`RingEnd`](EndReason::RingEnd) | same |
//! | 2 | zeros | end: [`Blank`](EndReason::Blank) | same |
//! | 3 | no sound header | end: [`NotAFrame`](EndReason::NotAFrame) | same |
//! | 4 | sound header of another version, or of an unknown kind | end: as 3 (a journal with newer frames has a superblock that says so) | same |
//! | 5 | a frame of an epoch up to the floor | end: [`Stale`](EndReason::Stale), remains of an earlier lap | same |
//! | 6 | a frame that would straddle the ring's end or reach the tail | end: [`Misplaced`](EndReason::Misplaced) | same |
//! | 7 | drop marker with this journal's id, not below the floor | raises the floor, goes on behind it | end: Misplaced |
//! | 8 | drop marker with another id | end: Misplaced | same |
//! | 9 | pad marker of the next frame | goes on at the ring's start | same |
//! | 10 | pad marker of another frame | end: Misplaced | same |
//! | 11 | a kind that is never journalled | end: Misplaced | same |
//! | 12 | frame with a payload that does not match its checksum | end: [`Payload`](EndReason::Payload) | same |
//! | 13 | first frame of an epoch that continues the chain | opens the epoch | end: [`NotNext`](EndReason::NotNext) |
//! | 14 | first frame of an epoch of another chain | end: [`OtherChain`](EndReason::OtherChain) | end: NotNext |
//! | 15 | first frame of an epoch of another group | end: [`OtherGroup`](EndReason::OtherGroup) | end: NotNext |
//! | 16 | first frame that needs an unknown protocol or feature | end: [`Newer`](EndReason::Newer) | end: NotNext |
//! | 17 | another frame of an epoch, not the next one | end: NotNext | same |
//! | 18 | data frame that is the next one | end: NotNext | goes on behind it |
//! | 19 | last frame, counts or digest wrong | end: NotNext | end: [`WrongDigest`](EndReason::WrongDigest) |
//! | 20 | last frame, counts and digest right | end: NotNext | seals the epoch |
//! | 21 | anything, where the superblock says that epochs were dropped | raises the floor, then as above | as above |
//! | 22 | a place that cannot be read | end: [`Unreadable`](EndReason::Unreadable) | same |
//!
//! Every end is [`Ordinary`](EndClass::Ordinary) by itself: a crash leaves any of them behind, because what was not
//! synced may be lost or torn anywhere. But:
//!
//! | evidence | class |
//! |---|---|
//! | row 16 with a known incarnation | [`Refused`](EndClass::Refused): upgrade, nothing may be changed |
//! | the superblock says that an epoch above the floor was durable | [`Damaged`](EndClass::Damaged) |
//! | within [`LOOK_AHEAD`] behind the end lies a first frame of a known incarnation and an epoch above the floor, whose primary had been told that an epoch above the floor was durable | Damaged |
//! | row 22, and behind it a frame of an epoch above the floor, or the place could hold a whole epoch | Damaged |
//!
//! A read error is damage of the place that it hits, and of nothing else: a place behind the end is not even noticed.

use std::collections::BTreeSet;

use crate::digest::EpochVerifier;
use crate::epoch::{EpochError, EpochSummary};
use crate::frame::{FrameError, FrameHeader, FrameKind};
use crate::ids::{Digest, Epoch, Generation, GroupName, Incarnation};

use super::damage::{Evidence, evidence, hidden};
use super::layout::{BLOCK_LEN, Superblock, padded_len};
use super::read::{Block, ReadAt, RingReader};

#[cfg(doc)]
use super::damage::LOOK_AHEAD;

/// An epoch that is wholly in the journal and verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedEpoch {
    /// The epoch.
    pub epoch: Epoch,
    /// The first epoch that it covers.
    pub first_epoch: Epoch,
    /// The primary that made it.
    pub incarnation: Incarnation,
    /// The generation in which it was made.
    pub generation: Generation,
    /// Its digest.
    pub digest: Digest,
    /// Position where it starts; its first frame or the pad marker before that.
    pub start: u64,
    /// Position behind its last frame.
    pub end: u64,
    /// Whether the volumes are one exact state once it is applied.
    pub commit_point: bool,
}

/// What a scan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Sealed epochs, oldest first, in an unbroken chain from the tail.
    pub sealed: Vec<SealedEpoch>,
    /// Position behind the last of them and any drop marker: where the next epoch goes.
    pub end: u64,
    /// The highest epoch applied, sealed or dropped: new ones are above it.
    pub floor: Epoch,
    /// Digest that the next epoch must continue.
    pub digest: Digest,
    /// Where, why and how badly it ended.
    pub ended: Ended,
}

/// How a scan ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Position of what ended it.
    pub position: u64,
    /// The epoch that had begun and was not sealed; it is dropped.
    pub unsealed: Option<Epoch>,
    /// What lies there.
    pub reason: EndReason,
    /// What that means.
    pub class: EndClass,
}

/// What ended a scan; see the table at the head of this module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndReason {
    /// The whole ring is in use.
    #[error("the ring is full")]
    RingEnd,
    /// Zeros.
    #[error("nothing was written here")]
    Blank,
    /// No sound header.
    #[error("{0}")]
    NotAFrame(FrameError),
    /// A frame of an epoch that is long past.
    #[error("a {kind:?} frame of epoch {epoch}, left from an earlier lap")]
    Stale {
        /// Its kind.
        kind: FrameKind,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A frame that cannot lie here.
    #[error("a {kind:?} frame of epoch {epoch} that does not belong here")]
    Misplaced {
        /// Its kind.
        kind: FrameKind,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A torn payload.
    #[error("{0}")]
    Payload(FrameError),
    /// A frame of an epoch, but not the one that must come next.
    #[error("{0}")]
    NotNext(EpochError),
    /// An epoch that does not continue the chain.
    #[error("{0}")]
    OtherChain(EpochError),
    /// An epoch of another group.
    #[error("an epoch of group {0}")]
    OtherGroup(GroupName),
    /// An epoch that only a newer version understands.
    #[error("{0}")]
    Newer(EpochError),
    /// An epoch that is whole by its frames, but not by its digest or counts.
    #[error("{0}")]
    WrongDigest(EpochError),
    /// The device does not read it. What it says.
    #[error("this place cannot be read: {0}")]
    Unreadable(String),
}

/// What an end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndClass {
    /// What a stop or crash leaves: nothing that was acknowledged is missing as far as can be known.
    Ordinary,
    /// A newer version wrote on: nothing may be changed here before an upgrade.
    Refused,
    /// Epochs that were durable are gone: the journal's device lost or changed data. The backup is at an
    /// earlier epoch than it acknowledged. Whoever accepts that puts a drop marker at the end.
    Damaged {
        /// The highest epoch known to have been durable.
        lost_through: Epoch,
        /// How that is known.
        by: Evidence,
    },
}

/// Scans the journal from its tail. It changes nothing and gives the same again.
pub fn recover<D: ReadAt>(superblock: &Superblock, device: &mut D) -> Recovery {
    let mut scan = Scan {
        reader: RingReader::new(superblock.ring, device),
        superblock,
        position: superblock.tail,
        floor: superblock.tail_epoch,
        digest: superblock.tail_digest,
        sealed: Vec::new(),
    };
    let end = loop {
        if let Some(end) = scan.step() {
            break end;
        }
    };
    let class = scan.classify(&end);
    let unsealed = end.open.map(|header| header.epoch);
    let ended = Ended { position: end.position, unsealed, reason: end.reason, class };
    let Scan { sealed, position, floor, digest, .. } = scan;
    Recovery { sealed, end: position, floor, digest, ended }
}

struct Scan<'a, D> {
    reader: RingReader<'a, D>,
    superblock: &'a Superblock,
    /// Behind what was accepted.
    position: u64,
    floor: Epoch,
    digest: Digest,
    sealed: Vec<SealedEpoch>,
}

struct End {
    position: u64,
    reason: EndReason,
    /// Header of the first frame of the epoch that had begun.
    open: Option<FrameHeader>,
    /// Header of the frame that ended the scan.
    last: Option<FrameHeader>,
}

impl<D: ReadAt> Scan<'_, D> {
    /// Passes one epoch or drop marker. `Some`: what lies there is neither.
    fn step(&mut self) -> Option<End> {
        if let Some(dropped) = self.superblock.dropped.filter(|dropped| dropped.position == self.position) {
            self.floor = self.floor.max(dropped.through);
        }
        let mut verifier = EpochVerifier::new(self.digest);
        let (mut position, mut open) = (self.position, None);
        loop {
            let end = |reason, last| Some(End { position, reason, open, last });
            let header = match self.look(position) {
                Ok(header) => header,
                Err(reason) => return end(reason, None),
            };
            let next_seq = verifier.next_seq();
            match header.kind {
                FrameKind::JournalDrop if open.is_none() && position == self.position => {
                    self.floor = header.epoch;
                    self.position += BLOCK_LEN as u64;
                    return None;
                }
                FrameKind::JournalPad if is_pad_of_next(&header, open.as_ref(), next_seq) => {
                    position += self.reader.ring.rest(position);
                    continue;
                }
                kind if kind.is_of_epoch() => {}
                kind => return end(EndReason::Misplaced { kind, epoch: header.epoch }, Some(header)),
            }
            let frame = match self.reader.frame(position, header) {
                Ok(Ok(frame)) => frame,
                Ok(Err(error)) => return end(EndReason::Payload(error), Some(header)),
                Err(error) => return end(EndReason::Unreadable(error.to_string()), Some(header)),
            };
            match verifier.push(&frame) {
                Err(error) => return end(reason_of(error), Some(header)),
                Ok(None) => {}
                Ok(Some(summary)) => {
                    self.seal(&verifier, summary, position + padded_len(&header));
                    return None;
                }
            }
            let group = verifier.header().map(|begun| begun.group.name());
            if let Some(name) = group.filter(|name| **name != self.superblock.group_name) {
                return end(EndReason::OtherGroup(name.clone()), Some(header));
            }
            open.get_or_insert(header);
            position += padded_len(&header);
        }
    }

    /// The header at `position`, if a frame can lie there: rows 1 to 8.
    fn look(&mut self, position: u64) -> Result<FrameHeader, EndReason> {
        let limit = self.superblock.tail + self.reader.ring.capacity();
        if position >= limit {
            return Err(EndReason::RingEnd);
        }
        let header = match self.reader.block(position) {
            Ok(Block::Header(header)) => header,
            Ok(Block::Blank) => return Err(EndReason::Blank),
            Ok(Block::Other(error)) => return Err(EndReason::NotAFrame(error)),
            Err(error) => return Err(EndReason::Unreadable(error.to_string())),
        };
        let (kind, epoch) = (header.kind, header.epoch);
        let is_drop = kind == FrameKind::JournalDrop;
        if epoch < self.floor || (epoch == self.floor && !is_drop) {
            return Err(EndReason::Stale { kind, epoch });
        }
        let room = self.reader.ring.rest(position).min(limit - position);
        let ours = !is_drop || header.incarnation.0 == self.superblock.journal_id;
        if padded_len(&header) > room || !ours {
            return Err(EndReason::Misplaced { kind, epoch });
        }
        Ok(header)
    }

    fn seal(&mut self, verifier: &EpochVerifier, summary: EpochSummary, end: u64) {
        let Some(header) = verifier.header() else { return };
        self.sealed.push(SealedEpoch {
            epoch: header.last_epoch,
            first_epoch: header.first_epoch,
            incarnation: header.incarnation,
            generation: header.generation,
            digest: summary.digest,
            start: self.position,
            end,
            commit_point: header.commit_point,
        });
        self.position = end;
        self.floor = header.last_epoch;
        self.digest = summary.digest;
    }

    /// Ordinary, unless there is evidence against it.
    fn classify(&mut self, end: &End) -> EndClass {
        let sealed = self.sealed.iter().map(|sealed| sealed.incarnation);
        let known: BTreeSet<Incarnation> =
            sealed.chain(self.superblock.incarnation).chain(end.open.map(|open| open.incarnation)).collect();
        let is_known = |header: FrameHeader| known.contains(&header.incarnation);
        if matches!(end.reason, EndReason::Newer(_)) && end.last.is_some_and(is_known) {
            return EndClass::Refused;
        }
        let (reader, superblock, floor) = (&mut self.reader, self.superblock, self.floor);
        let mut found = evidence(reader, superblock, end.position, floor, &known);
        if matches!(end.reason, EndReason::Unreadable(_)) {
            let open = end.open.map(|open| open.epoch);
            let hidden = hidden(reader, superblock, end.position, (floor, open), &known);
            let more = hidden.filter(|hidden| found.is_none_or(|(known, _)| known < *hidden));
            found = more.map(|hidden| (hidden, Evidence::Unreadable)).or(found);
        }
        found.map_or(EndClass::Ordinary, |(lost_through, by)| EndClass::Damaged { lost_through, by })
    }
}

/// Whether a pad marker stands for the frame that must come next.
fn is_pad_of_next(pad: &FrameHeader, open: Option<&FrameHeader>, next_seq: u64) -> bool {
    pad.seq == next_seq && open.is_none_or(|open| open.stamp() == pad.stamp())
}

/// Rows 13 to 20.
fn reason_of(error: EpochError) -> EndReason {
    match error {
        EpochError::Chain { .. } => EndReason::OtherChain(error),
        EpochError::Protocol { .. } | EpochError::Features { .. } => EndReason::Newer(error),
        EpochError::Counts { .. } | EpochError::Digest { .. } => EndReason::WrongDigest(error),
        EpochError::Unexpected { .. } | EpochError::Fields { .. } | EpochError::Contradiction { .. } => {
            EndReason::NotNext(error)
        }
    }
}
