//! Reducing an epoch's log to its final content: each sector once, in order.
//!
//! Always holds: the order of the log is never used to decide between two writes. A sector that
//! exactly one write covers has that write's data; every other covered sector is a suspect, whose
//! content was read from the device while it stood still. A discard in the log changes nothing: log-writes
//! completes it without the device below; what a cut itself discarded is told apart, as unknown. Nothing here copies data or allocates,
//! but for the vectors that it is given.

use crate::log_writes::epoch_log::{Arena, Entry, EpochLog, Suspect};
use crate::units::{Extent, SECTOR_SIZE, Sector, Sectors};

/// The granule in which zeroes are found, in sectors.
const ZERO_GRANULE: u64 = 8;

/// Content of a folded piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// These bytes, as many as the extent has.
    Data(&'a [u8]),
    /// Nothing but zeroes.
    Zero,
    /// Anything: the cut discarded it.
    Unknown,
}

/// Sorts the numbers of entries by where they begin.
pub(crate) fn sort(entries: &[Entry], order: &mut [u32]) {
    order.sort_unstable_by_key(|i| entries[*i as usize].extent.start());
}

/// The numbers of all entries by where they begin: of `head` and `tail`, each sorted by [`sort`].
fn merged<'a>(entries: &'a [Entry], head: &'a [u32], tail: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
    let start_of = |i: &u32| entries[*i as usize].extent.start();
    let (mut head, mut tail) = (head.iter().copied().peekable(), tail.iter().copied().peekable());
    std::iter::from_fn(move || match (head.peek(), tail.peek()) {
        (Some(h), Some(t)) if start_of(h) > start_of(t) => tail.next(),
        (Some(_), _) => head.next(),
        (None, _) => tail.next(),
    })
}

/// Finds the sectors that two or more writes cover, as sorted, disjoint,
/// maximal runs. `head` and `tail` are the numbers of all entries, each sorted by [`sort`].
pub(crate) fn find_suspects(entries: &[Entry], head: &[u32], tail: &[u32], found: &mut Vec<Suspect>) {
    found.clear();
    let mut covered = Sector(0);
    for extent in merged(entries, head, tail).map(|i| entries[i as usize].extent) {
        if let Some(doubtful) = Extent::between(extent.start(), extent.end().min(covered)) {
            add(found, doubtful);
        }
        covered = covered.max(extent.end());
    }
}

/// Adds a run that begins no earlier than the ones there.
fn add(found: &mut Vec<Suspect>, run: Extent) {
    if let Some(last) = found.last_mut()
        && run.start() <= last.extent.end()
    {
        let end = last.extent.end().max(run.end());
        if let Some(joined) = Extent::between(last.extent.start(), end) {
            last.extent = joined;
        }
        return;
    }
    found.push(Suspect { extent: run, truth: 0 });
}

/// Plans how to read the suspects: runs at most `gap` apart are read in one. Sets where each
/// suspect's content will be when the planned reads are appended to `truth` in order.
pub(crate) fn plan_reads(suspects: &mut [Suspect], gap: Sectors, truth: usize, reads: &mut Vec<Extent>) {
    reads.clear();
    let mut base = truth;
    for suspect in suspects {
        let joined = reads.last().and_then(|last| {
            let near = suspect.extent.start().0 <= last.end().0.saturating_add(gap.0);
            if near { Extent::between(last.start(), suspect.extent.end()) } else { None }
        });
        match (joined, reads.last_mut()) {
            (Some(joined), Some(last)) => *last = joined,
            _ => {
                base += reads.last().map_or(0, |last| bytes(last.len()));
                reads.push(suspect.extent);
            }
        }
        let read_from = reads.last().map_or(suspect.extent.start(), |last| last.start());
        suspect.truth = base + bytes(Sectors(suspect.extent.start().0 - read_from.0));
    }
}

/// Gives every piece of the epoch's final content to `visit`: sorted, each covered sector exactly
/// once, and what the cut discarded as unknown. Pieces are not joined: neighbours may come as several.
///
/// # Errors
/// The first error of `visit`.
pub fn fold<'a, E>(
    log: &'a EpochLog,
    mut visit: impl FnMut(Extent, Content<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut unknown = log.unknown.iter().copied().peekable();
    fold_written(log, |extent, content| {
        while let Some(before) = unknown.next_if(|unknown| unknown.start() < extent.start()) {
            visit(before, Content::Unknown)?;
        }
        visit(extent, content)
    })?;
    unknown.try_for_each(|rest| visit(rest, Content::Unknown))
}

/// The same for what was written alone.
fn fold_written<'a, E>(
    log: &'a EpochLog,
    mut visit: impl FnMut(Extent, Content<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut order = log.order.iter().map(|i| log.entries[*i as usize]).peekable();
    let mut suspects = log.suspects.iter().copied().peekable();
    // The entry that reaches furthest: where only one entry covers, it is this one.
    let mut cover: Option<Entry> = None;
    let mut at = Sector(0);
    loop {
        while let Some(entry) = order.next_if(|entry| entry.extent.start() <= at) {
            if cover.is_none_or(|c| c.extent.end() < entry.extent.end()) {
                cover = Some(entry);
            }
        }
        if let Some(suspect) = suspects.next_if(|s| s.extent.start() <= at) {
            emit(&log.truth, suspect.truth, suspect.extent, &mut visit)?;
            at = suspect.extent.end();
            continue;
        }
        match cover {
            Some(Entry { extent, data }) if extent.end() > at => {
                let end = suspects.peek().map_or(extent.end(), |s| s.extent.start().min(extent.end()));
                if let Some(piece) = Extent::between(at, end) {
                    let skipped = bytes(Sectors(at.0 - extent.start().0));
                    emit(&log.arena, data + skipped, piece, &mut visit)?;
                }
                at = end;
            }
            _ => match order.peek() {
                Some(entry) => at = entry.extent.start(),
                None => return Ok(()),
            },
        }
    }
}

fn bytes(len: Sectors) -> usize {
    usize::try_from(len.0).unwrap_or(usize::MAX).saturating_mul(SECTOR_SIZE)
}

/// Gives one extent to `visit` in the contiguous parts that the arena has it in, zeroes apart.
fn emit<'a, E>(
    arena: &'a Arena,
    mut at: usize,
    extent: Extent,
    visit: &mut impl FnMut(Extent, Content<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut rest = Some(extent);
    while let Some(extent) = rest {
        let part = arena.contiguous(at, bytes(extent.len()));
        let Some(end) = Some(part.len() / SECTOR_SIZE).filter(|n| *n > 0) else {
            // The arena always holds what its entries name; a log that does not is a bug here.
            debug_assert!(false, "{extent} is not in the arena");
            return Ok(());
        };
        let end = Sector(extent.start().0 + end as u64);
        if let Some(piece) = Extent::between(extent.start(), end) {
            split_zeroes(piece, part, visit)?;
        }
        at += part.len();
        rest = Extent::between(end, extent.end());
    }
    Ok(())
}

/// Gives `data`, the content of `extent`, to `visit` in runs of zeroes and of other data.
///
/// # Errors
/// The first error of `visit`.
pub fn split_zeroes<'a, E>(
    extent: Extent,
    data: &'a [u8],
    visit: &mut impl FnMut(Extent, Content<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let place = |s: Sector| bytes(Sectors(s.0 - extent.start().0));
    let mut run = extent.start();
    let mut run_is_zero = false;
    let mut at = extent.start();
    while at < extent.end() {
        let granule_end = Sector((at.0 / ZERO_GRANULE + 1) * ZERO_GRANULE).min(extent.end());
        let whole = granule_end.0 - at.0 == ZERO_GRANULE;
        let zero = whole && is_zero(&data[place(at)..place(granule_end)]);
        if zero != run_is_zero {
            flush_run(run, at, run_is_zero, &data[place(run)..place(at)], visit)?;
            (run, run_is_zero) = (at, zero);
        }
        at = granule_end;
    }
    flush_run(run, at, run_is_zero, &data[place(run)..place(at)], visit)
}

fn flush_run<'a, E>(
    from: Sector,
    to: Sector,
    zero: bool,
    data: &'a [u8],
    visit: &mut impl FnMut(Extent, Content<'a>) -> Result<(), E>,
) -> Result<(), E> {
    match Extent::between(from, to) {
        Some(extent) if zero => visit(extent, Content::Zero),
        Some(extent) => visit(extent, Content::Data(data)),
        None => Ok(()),
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // Whole words at once; what is left over, byte by byte.
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().all(|w| u64::from_ne_bytes(*w) == 0) && rest.iter().all(|b| *b == 0)
}

pub(crate) mod truth;

#[cfg(test)]
mod kernel_model;
#[cfg(test)]
mod tests;
