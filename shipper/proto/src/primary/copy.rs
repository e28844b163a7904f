//! The copying's bookkeeping: which piece is read next, which waits for the backup's digests, and when all of a round is
//! out.
//!
//! Always holds: at most so many pieces are under way as there are buffers, those of rounds that were given up
//! included; a round is complete once each of its pieces was encoded; no round covers a sector twice. A part of the log
//! goes out after each piece that was ordered before its cut was done, and nothing is ordered before it is out: what was
//! read before a write never comes after that write.

use std::collections::{HashMap, HashSet};

use ftdm_units::{Extent, Sector, Sectors};

use crate::ids::VolumeIndex;
use crate::mutant::{self, Mutant};
use crate::scope::Scope;
use crate::verify::{MAX_PLACES, Place, ShortDigest};

/// What is read, compared and encoded at a time: its places' content follows one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Another one for each batch: names the question about it.
    pub number: u64,
    /// The chain of epochs that it belongs to.
    pub chain: u64,
    /// The sync's round, counted from 1.
    pub round: u32,
    /// What is compared at a time; `None`: nothing is compared.
    pub unit: Option<Sectors>,
    /// At most [`MAX_PLACES`], of one volume.
    pub places: Vec<Place>,
}

impl Batch {
    /// Sectors of all its places.
    #[must_use]
    pub fn sectors(&self) -> Sectors {
        Sectors(self.places.iter().map(|place| place.extent.len().0).sum())
    }

    /// Digests that are expected of it.
    fn digests(&self) -> usize {
        self.unit.map_or(0, |unit| self.places.iter().map(|place| place.unit_count(unit)).sum())
    }
}

/// What the backup says of a batch; `None`: nothing, so everything is sent.
pub type Told = Option<Vec<ShortDigest>>;

/// One half of what it takes to encode a batch.
#[derive(Clone, Debug)]
enum Half<P> {
    Read(P),
    Told(Told),
}

/// Progress of a round, and of the pieces that an earlier one left behind. `P` is a batch that was read.
#[derive(Clone, Debug)]
pub struct CopyPlan<P> {
    piece: Sectors,
    ahead: usize,
    scope: Scope,
    /// The extent that is being cut into pieces, and where its next one starts.
    next: (usize, Option<Sector>),
    under_way: usize,
    running: Option<u64>,
    round: u32,
    unit: Option<Sectors>,
    /// Of the last batch.
    number: u64,
    /// By number: batches that were read and not told of, or the other way round.
    halves: HashMap<u64, (usize, Option<Half<P>>)>,
    /// Batches that were ordered and cannot be encoded yet.
    unread: HashSet<u64>,
    /// Parts of the log that are cut and not out.
    parts: usize,
    frames: u64,
    left: u64,
}

impl<P> CopyPlan<P> {
    /// A plan in pieces of up to `piece` sectors, of which at most `ahead` are under way.
    #[must_use]
    pub fn new(piece: Sectors, ahead: usize) -> Self {
        Self {
            piece,
            ahead,
            scope: Scope::new(),
            next: (0, None),
            under_way: 0,
            running: None,
            round: 0,
            unit: None,
            number: 0,
            halves: HashMap::new(),
            unread: HashSet::new(),
            parts: 0,
            frames: 0,
            left: 0,
        }
    }

    /// Begins a round of this chain, which is compared in this unit. Returns whether it is complete already, there being
    /// nothing to copy.
    pub fn begin(&mut self, chain: u64, scope: Scope, unit: Option<Sectors>) -> bool {
        self.left = scope.iter().map(|(_, extent)| extent.len().0).sum();
        self.scope = scope;
        self.unit = unit;
        self.next = (0, None);
        self.frames = 0;
        self.round += 1;
        self.running = (self.left > 0).then_some(chain);
        self.left == 0
    }

    /// Gives up. Returns what was read and is not encoded.
    pub fn end(&mut self) -> Vec<P> {
        self.running = None;
        self.scope = Scope::new();
        self.unread.clear();
        self.parts = 0;
        let halves = std::mem::take(&mut self.halves).into_values();
        let read = halves
            .filter_map(|(_, half)| if let Some(Half::Read(piece)) = half { Some(piece) } else { None });
        let read: Vec<P> = read.collect();
        self.under_way -= read.len();
        read
    }

    /// The next batch to read, at once. `None`: enough are under way, or there is nothing left to read.
    /// Ask again whenever a piece has ended, whichever round it was of.
    pub fn order(&mut self) -> Option<Batch> {
        let chain = self.running?;
        if self.under_way >= self.ahead || self.parts > 0 {
            return None;
        }
        let mut places: Vec<Place> = Vec::new();
        let mut room = self.piece.0;
        while places.len() < MAX_PLACES
            && let Some(place) = self.next_place(room, places.first().map(|first| first.volume))
        {
            room -= place.extent.len().0;
            places.push(place);
        }
        if places.is_empty() {
            return None;
        }
        self.number += 1;
        self.under_way += 1;
        self.unread.insert(self.number);
        let batch = Batch { number: self.number, chain, round: self.round, unit: self.unit, places };
        if self.unit.is_some() {
            self.halves.insert(self.number, (batch.digests(), None));
        }
        Some(batch)
    }

    /// The next place of up to `room` sectors behind others of this volume. Only an extent that is longer than a piece is
    /// cut, at whole pieces: so what is aligned stays aligned.
    fn next_place(&mut self, room: u64, behind: Option<VolumeIndex>) -> Option<Place> {
        let (at, from) = self.next;
        let (volume, whole) = *self.scope.get(at)?;
        let start = from.unwrap_or(whole.start());
        if behind.is_some_and(|before| before != volume || whole.end().0 - start.0 > room) {
            return None;
        }
        let end = Sector(start.0.saturating_add(self.piece.0)).min(whole.end());
        self.next = if end < whole.end() { (at, Some(end)) } else { (at + 1, None) };
        Some(Place { volume, extent: Extent::between(start, end)? })
    }

    /// Whether a piece that was ordered for this chain still counts.
    #[must_use]
    pub fn is_running(&self, chain: u64) -> bool {
        self.running == Some(chain)
    }

    /// Notes that a piece will not come.
    pub fn failed(&mut self) {
        self.under_way -= 1;
    }

    /// A batch of the present round was read. Returns it once it can be encoded.
    pub fn read(&mut self, number: u64, piece: P) -> Option<(P, Told)> {
        let ready = match self.halves.remove(&number) {
            // Not compared.
            None => Some((piece, None)),
            Some((_, Some(Half::Told(told)))) => Some((piece, told)),
            Some((digests, _)) => {
                self.halves.insert(number, (digests, Some(Half::Read(piece))));
                None
            }
        };
        if ready.is_some() {
            self.unread.remove(&number);
        }
        ready
    }

    /// A part of the log was cut off: nothing more is ordered until it is out.
    pub fn part_cut(&mut self) {
        self.parts += 1;
    }

    /// Whether the parts that were cut may be encoded, after everything that may be encoded before.
    #[must_use]
    pub fn lets_parts_out(&self) -> bool {
        self.unread.is_empty() || mutant::is(Mutant::PartBeforeCopies)
    }

    /// A part is encoded.
    pub fn part_encoded(&mut self) {
        self.parts = self.parts.saturating_sub(1);
    }

    /// The backup has told of a batch. Returns it once it can be encoded.
    pub fn told(&mut self, number: u64, told: Told) -> Option<(P, Told)> {
        let (digests, half) = self.halves.remove(&number)?;
        let told = told.filter(|told| told.len() == digests);
        match half {
            Some(Half::Read(piece)) => {
                self.unread.remove(&number);
                Some((piece, told))
            }
            _ => {
                self.halves.insert(number, (digests, Some(Half::Told(told))));
                None
            }
        }
    }

    /// Notes that a batch is encoded, in so many frames; returns whether the round is complete with it.
    pub fn encoded(&mut self, batch: &Batch, frames: u64) -> bool {
        self.under_way -= 1;
        if !self.is_running(batch.chain) {
            return false;
        }
        self.frames += frames;
        self.left -= batch.sectors().0;
        if self.left == 0 {
            self.running = None;
        }
        self.left == 0
    }

    /// Frames made in this round.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Sectors of this round that are not out yet.
    #[must_use]
    pub fn left(&self) -> Sectors {
        Sectors(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::scope;

    fn places(batch: &Batch) -> Vec<(u16, u64, u64)> {
        batch.places.iter().map(|one| (one.volume.0, one.extent.start().0, one.extent.len().0)).collect()
    }

    #[test]
    fn a_round_copies_its_extents_and_only_long_ones_are_cut() {
        let mut plan = CopyPlan::<()>::new(Sectors(8), 9);
        assert!(!plan.begin(1, scope(&[(0, 4, 20), (1, 0, 4), (1, 16, 3), (1, 32, 2)]), None));
        let batches: Vec<_> = std::iter::from_fn(|| plan.order()).collect();
        let seen: Vec<_> = batches.iter().map(places).collect();
        let wanted: [&[_]; 5] =
            [&[(0, 4, 8)], &[(0, 12, 8)], &[(0, 20, 4)], &[(1, 0, 4), (1, 16, 3)], &[(1, 32, 2)]];
        assert_eq!(seen, wanted);
        let done: Vec<bool> = batches.iter().map(|batch| plan.encoded(batch, 1)).collect();
        assert_eq!(done, [false, false, false, false, true]);
        assert_eq!((plan.frames(), plan.left(), plan.order()), (5, Sectors(0), None));
    }

    #[test]
    fn a_batch_has_no_more_places_than_one_may_ask_about() {
        let many: Vec<_> = (0..100).map(|n| (0, 2 * n, 1)).collect();
        let mut plan = CopyPlan::<()>::new(Sectors(1000), 9);
        plan.begin(1, scope(&many), None);
        let counts: Vec<_> = std::iter::from_fn(|| plan.order()).map(|batch| batch.places.len()).collect();
        assert_eq!(counts, [MAX_PLACES, 100 - MAX_PLACES]);
    }

    #[test]
    fn what_is_compared_waits_for_both_halves_whichever_comes_first() {
        let digests = |count| Some(vec![ShortDigest([7; 16]); count]);
        let mut plan = CopyPlan::new(Sectors(8), 9);
        plan.begin(1, scope(&[(0, 0, 24)]), Some(Sectors(4)));
        let [a, b, c] = [(); 3].map(|()| plan.order().unwrap().number);
        assert_eq!(plan.read(a, 'a'), None);
        assert_eq!(plan.told(b, digests(2)), None);
        assert_eq!(plan.told(a, digests(2)), Some(('a', digests(2))));
        assert_eq!(plan.read(b, 'b'), Some(('b', digests(2))));
        assert_eq!(plan.told(b, digests(2)), None, "an answer too many");
        assert_eq!(plan.told(c, digests(3)), None);
        assert_eq!(plan.read(c, 'c'), Some(('c', None)), "another number of digests says nothing");
        plan.begin(1, scope(&[(0, 0, 4)]), Some(Sectors(4)));
        let d = plan.order().unwrap().number;
        assert_eq!((plan.read(d, 'd'), plan.told(d, None)), (None, Some(('d', None))));
    }

    #[test]
    fn what_waits_for_digests_is_given_back_with_the_round() {
        let mut plan = CopyPlan::new(Sectors(8), 2);
        plan.begin(1, scope(&[(0, 0, 64)]), Some(Sectors(8)));
        let (a, b) = (plan.order().unwrap(), plan.order().unwrap());
        assert_eq!(plan.read(a.number, 'a'), None);
        assert_eq!(plan.end(), ['a']);
        assert_eq!(plan.told(a.number, None), None);
        plan.begin(2, scope(&[(0, 0, 64)]), None);
        assert_eq!(plan.order().map(|batch| batch.number), Some(b.number + 1), "its buffer is free again");
        assert_eq!(plan.order(), None, "that of the other is not");
    }

    #[test]
    fn a_part_waits_for_what_was_ordered_before_it_and_later_pieces_wait_for_the_part() {
        let mut plan = CopyPlan::new(Sectors(8), 4);
        plan.begin(1, scope(&[(0, 0, 64)]), Some(Sectors(8)));
        let batches = [(); 2].map(|()| plan.order().unwrap());
        let [a, b] = [0, 1].map(|n: usize| batches[n].number);
        plan.part_cut();
        assert_eq!(plan.order(), None);
        assert_eq!((plan.read(a, 'a'), plan.lets_parts_out()), (None, false));
        assert!(plan.told(a, None).is_some() && !plan.lets_parts_out());
        assert!(plan.told(b, None).is_none() && plan.read(b, 'b').is_some());
        assert!(plan.lets_parts_out());
        batches.iter().for_each(|batch| assert!(!plan.encoded(batch, 1)));
        assert_eq!(plan.order(), None, "the part is not out");
        plan.part_encoded();
        assert!(plan.order().is_some() && !plan.lets_parts_out());
        plan.part_cut();
        plan.end();
        assert!(plan.lets_parts_out());
    }

    #[test]
    fn nothing_to_copy_is_copied_at_once() {
        let mut plan = CopyPlan::<()>::new(Sectors(8), 1);
        assert!(plan.begin(1, Scope::new(), None));
        assert_eq!(plan.order(), None);
    }

    #[test]
    fn pieces_of_a_round_that_was_given_up_do_not_stop_the_next_one() {
        let mut plan = CopyPlan::<()>::new(Sectors(8), 2);
        plan.begin(1, scope(&[(0, 0, 64)]), None);
        let (read, queued) = (plan.order().unwrap(), plan.order().unwrap());
        plan.end();
        plan.begin(2, scope(&[(0, 0, 64)]), None);
        assert_eq!(plan.order(), None, "the pieces left behind still hold their buffers");
        assert!(!plan.is_running(1) && plan.is_running(2));
        plan.failed();
        assert_eq!(plan.order().map(|batch| batch.places), Some(read.places));
        assert!(!plan.encoded(&queued, 1));
        assert_eq!(plan.order().map(|batch| batch.places), Some(queued.places));
        assert_eq!(plan.left(), Sectors(64));
    }
}
