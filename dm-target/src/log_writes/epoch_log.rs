//! What was captured of one epoch: its entries, their data, and the truth about its suspects.
//!
//! Always holds: every entry is a write, and its data lies within the arena once nothing of it is awaited, which is before
//! the epoch is handed over; the suspects are sorted and disjoint,
//! and once the cut was taken each of them has its content in `truth`.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::block_io::AlignedBuffer;
use crate::units::{Extent, SECTOR_SIZE};

/// Bytes of one piece of an arena. A multiple of every logical block, so that direct reads fill whole ones.
pub const PIECE: usize = 1 << 20;

/// Memory made ready for the content of suspects: more than a pause can read.
const TRUTH_RESERVE: usize = 4 << 20;

/// Pieces that nothing is in. All epochs of a capture take theirs from one pool and give them back to it, so that memory
/// follows the bytes that are under way and not the number of epochs.
#[derive(Clone, Debug, Default)]
pub(crate) struct PiecePool(Arc<Mutex<Vec<AlignedBuffer>>>);

impl PiecePool {
    fn with<R>(&self, act: impl FnOnce(&mut Vec<AlignedBuffer>) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self) -> AlignedBuffer {
        self.with(Vec::pop).unwrap_or_else(|| AlignedBuffer::new(PIECE))
    }

    /// Bytes that it holds.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.with(|pieces| pieces.len() * PIECE)
    }

    /// Makes pieces ready until it holds `bytes`.
    pub(crate) fn fill(&self, bytes: usize) {
        self.with(|pieces| {
            while pieces.len() * PIECE < bytes {
                pieces.push(AlignedBuffer::new(PIECE));
            }
        });
    }

    /// Gives whole pieces beyond `bytes` back to the system.
    pub(crate) fn shrink(&self, bytes: usize) {
        self.with(|pieces| pieces.truncate(bytes / PIECE));
    }
}

/// Memory that grows by pieces: positions in it never move.
#[derive(Debug, Default)]
pub struct Arena {
    pool: PiecePool,
    pieces: Vec<AlignedBuffer>,
    len: usize,
}

impl Arena {
    /// Bytes in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes room for `bytes` more: without it [`append`](Self::append) allocates as it goes.
    pub fn reserve(&mut self, bytes: usize) {
        while self.pieces.len() * PIECE < self.len + bytes {
            self.pieces.push(self.pool.take());
        }
    }

    /// Gives the pieces that nothing is in to the pool.
    fn trim(&mut self) {
        let free = self.pieces.split_off(self.len.div_ceil(PIECE).min(self.pieces.len()));
        self.pool.with(|kept| kept.extend(free));
    }

    /// Nothing in use, and all pieces in the pool.
    fn clear(&mut self) {
        self.len = 0;
        self.pool.with(|kept| kept.append(&mut self.pieces));
    }

    /// Appends `len` bytes that `fill` writes, piece by piece, told where each part begins.
    ///
    /// # Errors
    /// `fill`'s; then the arena is as it was.
    pub fn append(
        &mut self,
        len: usize,
        mut fill: impl FnMut(usize, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.reserve(len);
        let mut done = 0;
        while done < len {
            let at = self.len + done;
            let (piece, offset) = (at / PIECE, at % PIECE);
            let part = (PIECE - offset).min(len - done);
            fill(done, &mut self.pieces[piece].bytes_mut()[offset..offset + part])?;
            done += part;
        }
        self.len += len;
        Ok(())
    }

    /// Forgets everything from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The longest contiguous part of `at..at + len`, from its beginning. Empty beyond the end.
    #[must_use]
    pub fn contiguous(&self, at: usize, len: usize) -> &[u8] {
        let end = at.saturating_add(len).min(self.len);
        if at >= end {
            return &[];
        }
        let offset = at % PIECE;
        let part = (PIECE - offset).min(end - at);
        &self.pieces[at / PIECE].bytes()[offset..offset + part]
    }
}

/// One logged write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it covers.
    pub extent: Extent,
    /// Where its data begins in the arena.
    pub data: usize,
}

/// A run of sectors whose content the log does not prove, and where its content is in `truth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// What it covers.
    pub extent: Extent,
    /// Where its content begins in the arena of truths.
    pub truth: usize,
}

/// The capture of one epoch.
#[derive(Debug, Default)]
pub struct EpochLog {
    pub(crate) arena: Arena,
    /// Bytes that the arena is still to get: of entries that were read, and their data was not.
    pub(crate) awaited: usize,
    pub(crate) entries: Vec<Entry>,
    /// What was discarded. It did not reach the device, so it proves and disproves nothing.
    pub(crate) discards: Vec<Extent>,
    /// What the cut gave to the volume as discards, sorted, disjoint, and written by no entry: its content is
    /// anything.
    pub(crate) unknown: Vec<Extent>,
    /// Numbers of entries, sorted by where they begin.
    pub(crate) order: Vec<u32>,
    /// Those whose content is known: see [`crate::fold::truth`]. All of them once the cut was taken.
    pub(crate) suspects: Vec<Suspect>,
    /// Entries that were looked at for that: what later ones touch is not known.
    pub(crate) looked_at: usize,
    pub(crate) truth: Arena,
}

impl EpochLog {
    /// The entries, in the order of the log. That is not the order of the writes.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What was logged for one entry, in contiguous parts. For tools that look
    /// into a log: the content that an epoch ends with comes from [`crate::fold::fold`] alone.
    pub fn logged(&self, entry: &Entry) -> impl Iterator<Item = &[u8]> {
        let len = usize::try_from(entry.extent.len().0).unwrap_or(usize::MAX).saturating_mul(SECTOR_SIZE);
        let mut at = entry.data;
        let end = at.saturating_add(len);
        std::iter::from_fn(move || {
            let part = self.arena.contiguous(at, end - at);
            at += part.len();
            (!part.is_empty()).then_some(part)
        })
    }

    /// The runs whose content was read from the device, sorted.
    #[must_use]
    pub fn suspects(&self) -> &[Suspect] {
        &self.suspects
    }

    /// Bytes of memory that its content takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.arena.len() + self.awaited + self.truth.len()
    }

    /// What the guest discarded in this epoch, in the order of the log.
    #[must_use]
    pub fn discards(&self) -> &[Extent] {
        &self.discards
    }

    /// What this epoch's cut discarded on the volume: its content is anything.
    #[must_use]
    pub fn unknown(&self) -> &[Extent] {
        &self.unknown
    }

    /// Nothing of the volume changed in this epoch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.unknown.is_empty()
    }

    /// An epoch that has its content in pieces of this pool.
    pub(crate) fn new(pool: &PiecePool) -> Self {
        let arena = || Arena { pool: pool.clone(), ..Arena::default() };
        Self { arena: arena(), truth: arena(), ..Self::default() }
    }

    /// Sorts the entries that were read so far: [`crate::fold::fold`] goes by that order.
    pub fn index(&mut self) {
        self.number();
        let Self { entries, order, .. } = self;
        order.sort_by_key(|i| entries[*i as usize].extent.start());
    }

    /// Gives the new entries a place after the sorted ones. Returns how many those are.
    pub(crate) fn number(&mut self) -> usize {
        let known = self.order.len();
        // The reader refuses more entries than a u32 numbers.
        self.order.extend((known..self.entries.len()).filter_map(|i| u32::try_from(i).ok()));
        known
    }

    /// Nothing more will be captured of it: it keeps the pieces that hold something.
    pub(crate) fn trim(&mut self) {
        self.arena.trim();
        self.truth.trim();
    }

    /// Bytes of memory that it has, used or not.
    pub(crate) fn memory(&self) -> usize {
        let Self { arena, entries, discards, unknown, order, suspects, truth, .. } = self;
        let pieces = (arena.pieces.len() + truth.pieces.len()) * PIECE;
        pieces + room(entries) + room(discards) + room(unknown) + room(order) + room(suspects)
    }

    /// Forgets the content, gives the pieces to `pool`, and keeps up to `keep` bytes of each list for the next epoch.
    pub(crate) fn clear(&mut self, pool: &PiecePool, keep: usize) {
        self.entries.clear();
        self.discards.clear();
        self.unknown.clear();
        self.order.clear();
        self.forget_suspects();
        self.awaited = 0;
        for arena in [&mut self.arena, &mut self.truth] {
            // An epoch that a capture before this one filled knows that one's pool.
            arena.pool = pool.clone();
            arena.clear();
        }
        self.entries.shrink_to(keep / size_of::<Entry>());
        self.discards.shrink_to(keep / size_of::<Extent>());
        self.unknown.shrink_to(keep / size_of::<Extent>());
        self.order.shrink_to(keep / size_of::<u32>());
        self.suspects.shrink_to(keep / size_of::<Suspect>());
    }

    fn forget_suspects(&mut self) {
        self.suspects.clear();
        self.looked_at = 0;
        self.truth.truncate(0);
    }

    /// Whether one more entry is read without asking for memory.
    pub(crate) fn has_room(&self) -> bool {
        self.entries.len() < self.entries.capacity() && self.discards.len() < self.discards.capacity()
    }

    /// Makes room, outside a pause, for what may come within one.
    pub(crate) fn reserve(&mut self, entries: usize) {
        self.truth.reserve(TRUTH_RESERVE);
        self.entries.reserve(entries);
        self.discards.reserve(entries);
        self.order.reserve(entries);
        self.suspects.reserve((2 * self.entries.len() + entries).saturating_sub(self.suspects.len()));
    }
}

fn room<T>(vector: &Vec<T>) -> usize {
    vector.capacity() * size_of::<T>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_gives_back_what_was_put_in_across_pieces() {
        let mut arena = Arena::default();
        let len = PIECE + 1536;
        arena
            .append(512, |_, part| {
                part.fill(9);
                Ok(())
            })
            .unwrap();
        arena
            .append(len, |from, part| {
                for (i, byte) in part.iter_mut().enumerate() {
                    *byte = u8::try_from((from + i) % 251).unwrap();
                }
                Ok(())
            })
            .unwrap();
        let mut at = 512;
        while at < arena.len() {
            let part = arena.contiguous(at, len);
            for (i, byte) in part.iter().enumerate() {
                assert_eq!(usize::from(*byte), (at - 512 + i) % 251);
            }
            at += part.len();
        }
        assert_eq!(at, 512 + len);
        assert!(arena.contiguous(at, 1).is_empty());
        let failed = arena.append(PIECE, |_, _| Err(io::ErrorKind::Other.into()));
        assert!(failed.is_err() && arena.len() == at);
    }
}
