//! The copying's bookkeeping: which piece is read next, and when all of a round is out.
//!
//! Always holds: at most so many pieces are under way as there are buffers, those of rounds that were given up
//! included; a round is complete once each of its pieces was encoded.

use ftdm_units::{Extent, Sector, Sectors};

use crate::ids::VolumeIndex;

/// What a round copies: extents of the group's volumes, in the order in which they are read.
pub type Scope = Vec<(VolumeIndex, Extent)>;

/// What either of two names.
#[must_use]
pub fn union(one: Scope, other: Scope) -> Scope {
    let mut all = [one, other].concat();
    all.sort_unstable_by_key(|(volume, extent)| (*volume, extent.start()));
    let mut merged = Scope::with_capacity(all.len());
    for (volume, extent) in all {
        match merged.last_mut() {
            Some((before, last)) if *before == volume && extent.start() <= last.end() => {
                let end = last.end().max(extent.end());
                *last = Extent::between(last.start(), end).unwrap_or(*last);
            }
            _ => merged.push((volume, extent)),
        }
    }
    merged
}

/// Progress of a round, and of the pieces that an earlier one left behind.
#[derive(Clone, Debug)]
pub struct CopyPlan {
    piece: Sectors,
    ahead: usize,
    scope: Scope,
    /// The extent that is being cut into pieces, and where its next one starts.
    next: (usize, Option<Sector>),
    under_way: usize,
    running: Option<u64>,
    frames: u64,
    left: u64,
}

impl CopyPlan {
    /// A plan in pieces of `piece` sectors, of which at most `ahead` are under way.
    #[must_use]
    pub fn new(piece: Sectors, ahead: usize) -> Self {
        let (scope, next) = (Scope::new(), (0, None));
        Self { piece, ahead, scope, next, under_way: 0, running: None, frames: 0, left: 0 }
    }

    /// Begins a round of this chain. Returns whether it is complete already, there being nothing to copy.
    pub fn begin(&mut self, chain: u64, scope: Scope) -> bool {
        self.left = scope.iter().map(|(_, extent)| extent.len().0).sum();
        self.scope = scope;
        self.next = (0, None);
        self.frames = 0;
        self.running = (self.left > 0).then_some(chain);
        self.left == 0
    }

    /// Gives up.
    pub fn end(&mut self) {
        self.running = None;
        self.scope = Scope::new();
    }

    /// The next piece to read, at once. `None`: enough are under way, or there is nothing left to read.
    /// Ask again whenever a piece has ended, whichever round it was of.
    pub fn order(&mut self) -> Option<(VolumeIndex, Extent)> {
        if self.running.is_none() || self.under_way >= self.ahead {
            return None;
        }
        let (at, from) = self.next;
        let (volume, whole) = *self.scope.get(at)?;
        let start = from.unwrap_or(whole.start());
        let end = Sector(start.0.saturating_add(self.piece.0)).min(whole.end());
        self.next = if end < whole.end() { (at, Some(end)) } else { (at + 1, None) };
        self.under_way += 1;
        Some((volume, Extent::between(start, end)?))
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

    /// Notes that a piece of `chain` is encoded, in so many frames; returns whether the round is complete with it.
    pub fn encoded(&mut self, extent: Extent, chain: u64, frames: u64) -> bool {
        self.under_way -= 1;
        if !self.is_running(chain) {
            return false;
        }
        self.frames += frames;
        self.left -= extent.len().0;
        if self.left == 0 {
            self.end();
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

    fn scope(extents: &[(u16, u64, u64)]) -> Scope {
        let one = |(volume, start, len): &(u16, u64, u64)| {
            (VolumeIndex(*volume), Extent::new(Sector(*start), Sectors(*len)).unwrap())
        };
        extents.iter().map(one).collect()
    }

    #[test]
    fn a_round_copies_its_extents_and_pieces_do_not_span_two() {
        let mut plan = CopyPlan::new(Sectors(8), 9);
        assert!(!plan.begin(1, scope(&[(0, 4, 20), (1, 0, 8), (1, 16, 3)])));
        let pieces: Vec<_> = std::iter::from_fn(|| plan.order()).collect();
        let seen: Vec<_> = pieces.iter().map(|(v, e)| (v.0, e.start().0, e.len().0)).collect();
        assert_eq!(seen, [(0, 4, 8), (0, 12, 8), (0, 20, 4), (1, 0, 8), (1, 16, 3)]);
        let done: Vec<bool> = pieces.iter().map(|(_, extent)| plan.encoded(*extent, 1, 1)).collect();
        assert_eq!(done, [false, false, false, false, true]);
        assert_eq!((plan.frames(), plan.left(), plan.order()), (5, Sectors(0), None));
    }

    #[test]
    fn a_union_has_what_either_has_once() {
        let one = scope(&[(0, 0, 8), (0, 16, 8), (1, 0, 4)]);
        let other = scope(&[(0, 4, 4), (0, 20, 12), (0, 40, 1), (1, 4, 4), (2, 0, 1)]);
        let both = scope(&[(0, 0, 8), (0, 16, 16), (0, 40, 1), (1, 0, 8), (2, 0, 1)]);
        assert_eq!(union(one.clone(), other.clone()), both);
        assert_eq!(union(other, one), both);
    }

    #[test]
    fn nothing_to_copy_is_copied_at_once() {
        let mut plan = CopyPlan::new(Sectors(8), 1);
        assert!(plan.begin(1, Scope::new()));
        assert_eq!(plan.order(), None);
    }

    #[test]
    fn pieces_of_a_round_that_was_given_up_do_not_stop_the_next_one() {
        let mut plan = CopyPlan::new(Sectors(8), 2);
        plan.begin(1, scope(&[(0, 0, 64)]));
        let (read, queued) = (plan.order().unwrap(), plan.order().unwrap());
        plan.end();
        plan.begin(2, scope(&[(0, 0, 64)]));
        assert_eq!(plan.order(), None, "the pieces left behind still hold their buffers");
        assert!(!plan.is_running(1) && plan.is_running(2));
        plan.failed();
        assert_eq!(plan.order(), Some(read));
        assert!(!plan.encoded(queued.1, 1, 1));
        assert_eq!(plan.order(), Some(queued));
        assert_eq!(plan.left(), Sectors(64));
    }
}
