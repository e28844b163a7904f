//! The base copy's bookkeeping: which piece is read next, and whether one that was read still counts.
//!
//! Always holds (THE BASE RULE): a piece counts only if no epoch was queued for encoding between the start
//! of its reading and its own queueing; otherwise it is read again. So content that is older than an epoch
//! never goes on the wire behind that epoch.

use ftdm_units::{Extent, Sector, Sectors};

use crate::ids::VolumeIndex;
use crate::mutant::{self, Mutant};

/// Names the moment at which a read was ordered: the chain, and the epochs queued on it so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Number of the chain.
    pub chain: u64,
    /// Epochs queued for encoding.
    pub epochs: u64,
}

/// What becomes of a piece that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the encoder, now.
    Queue,
    /// It may be older than an epoch that is queued already.
    ReadAgain,
    /// It belongs to a copy that was given up.
    Forget,
}

/// Progress of a base copy, and of the pieces that an earlier one left behind.
#[derive(Clone, Debug)]
pub struct BasePlan {
    /// Of each volume, in the group's order.
    sizes: Vec<Sectors>,
    piece: Sectors,
    ahead: usize,
    next: (VolumeIndex, Sector),
    under_way: usize,
    running: Option<u64>,
    frames: u64,
    copied: Sectors,
}

impl BasePlan {
    /// A plan for volumes of `sizes`, in the group's order, in pieces of `piece` sectors of which at most `ahead`
    /// are under way.
    #[must_use]
    pub fn new(sizes: &[Sectors], piece: Sectors, ahead: usize) -> Self {
        let (next, copied, sizes) = ((VolumeIndex(0), Sector(0)), Sectors(0), sizes.to_vec());
        Self { sizes, piece, ahead, next, under_way: 0, running: None, frames: 0, copied }
    }

    /// Begins at the first sector of the first volume, for this chain.
    pub fn begin(&mut self, chain: u64) {
        self.running = Some(chain);
        self.next = (VolumeIndex(0), Sector(0));
        self.frames = 0;
        self.copied = Sectors(0);
    }

    /// Gives up.
    pub fn end(&mut self) {
        self.running = None;
    }

    /// The next piece to read, at once. `None`: enough are under way, or there is nothing left to read.
    /// Ask again whenever a piece has ended, whichever copy it was of.
    pub fn order(&mut self) -> Option<(VolumeIndex, Extent)> {
        if self.running.is_none() || self.under_way >= self.ahead {
            return None;
        }
        let (mut volume, mut start) = self.next;
        let mut size = *self.sizes.get(usize::from(volume.0))?;
        if start.0 >= size.0 {
            (volume, start) = (VolumeIndex(volume.0 + 1), Sector(0));
            size = *self.sizes.get(usize::from(volume.0))?;
        }
        let end = Sector((start.0 + self.piece.0).min(size.0));
        let extent = Extent::between(start, end)?;
        self.next = (volume, end);
        self.under_way += 1;
        Some((volume, extent))
    }

    /// Judges a piece whose reading was ordered at one moment, at the moment it could be queued.
    pub fn judge(&mut self, ordered: Moment, now: Moment) -> Verdict {
        if self.running != Some(ordered.chain) {
            self.under_way -= 1;
            return Verdict::Forget;
        }
        if ordered == now || mutant::is(Mutant::SkipBaseRule) { Verdict::Queue } else { Verdict::ReadAgain }
    }

    /// Notes that a piece will not come.
    pub fn failed(&mut self) {
        self.under_way -= 1;
    }

    /// Notes that a queued piece of `chain` is encoded, in so many frames; returns whether the copy is
    /// complete with it.
    pub fn encoded(&mut self, extent: Extent, chain: u64, frames: u64) -> bool {
        self.under_way -= 1;
        if self.running != Some(chain) {
            return false;
        }
        self.frames += frames;
        self.copied.0 += extent.len().0;
        let is_complete = self.copied.0 == self.whole();
        if is_complete {
            self.running = None;
        }
        is_complete
    }

    /// Sectors to be copied in all.
    fn whole(&self) -> u64 {
        let last = usize::from(mutant::is(Mutant::LastVolumeUncopied) && self.sizes.len() > 1);
        self.sizes[..self.sizes.len() - last].iter().map(|size| size.0).sum()
    }

    /// Frames made.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Sectors copied.
    #[must_use]
    pub fn copied(&self) -> Sectors {
        self.copied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(chain: u64, epochs: u64) -> Moment {
        Moment { chain, epochs }
    }

    #[test]
    fn a_piece_counts_only_if_no_epoch_came_between() {
        let mut plan = BasePlan::new(&[Sectors(20)], Sectors(8), 2);
        plan.begin(1);
        let mut order = || plan.order().unwrap().1;
        let (first, second) = (order(), order());
        assert_eq!(plan.order(), None, "two are under way");
        assert_eq!(plan.judge(moment(1, 0), moment(1, 1)), Verdict::ReadAgain);
        assert_eq!(plan.judge(moment(1, 1), moment(1, 1)), Verdict::Queue);
        assert!(!plan.encoded(first, 1, 1));
        let (_, last) = plan.order().unwrap();
        assert_eq!(last.len(), Sectors(4));
        assert!(!plan.encoded(second, 1, 1));
        assert!(plan.encoded(last, 1, 1));
        assert_eq!((plan.frames(), plan.copied(), plan.order()), (3, Sectors(20), None));
    }

    #[test]
    fn a_copy_goes_through_every_volume_and_pieces_do_not_span_two() {
        let mut plan = BasePlan::new(&[Sectors(8), Sectors(12), Sectors(4)], Sectors(8), 9);
        plan.begin(1);
        let pieces: Vec<_> = std::iter::from_fn(|| plan.order()).collect();
        let lengths: Vec<_> =
            pieces.iter().map(|(volume, extent)| (volume.0, extent.start().0, extent.len().0)).collect();
        assert_eq!(lengths, [(0, 0, 8), (1, 0, 8), (1, 8, 4), (2, 0, 4)]);
        let done: Vec<bool> = pieces.iter().map(|(_, extent)| plan.encoded(*extent, 1, 1)).collect();
        assert_eq!(done, [false, false, false, true]);
    }

    #[test]
    fn pieces_of_a_copy_that_was_given_up_do_not_stop_the_next_one() {
        let mut plan = BasePlan::new(&[Sectors(64)], Sectors(8), 2);
        plan.begin(1);
        let read = plan.order().unwrap();
        let queued = plan.order().unwrap();
        plan.end();
        plan.begin(2);
        assert_eq!(plan.order(), None, "the pieces left behind still hold their buffers");
        assert_eq!(plan.judge(moment(1, 0), moment(2, 0)), Verdict::Forget);
        assert_eq!(plan.order(), Some(read));
        assert!(!plan.encoded(queued.1, 1, 1));
        assert_eq!(plan.order(), Some(queued));
        assert_eq!(plan.copied(), Sectors(0));
    }
}
