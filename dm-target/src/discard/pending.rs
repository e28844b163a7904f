//! Extents that the guest has discarded and not written since: a set of sectors of bounded size.
//!
//! Always holds: the extents are sorted, disjoint and do not touch; there are never more than the limit.
//! Where that takes forgetting something, the smallest is forgotten and counted: a forgotten discard
//! only means space that is not given back. Nothing is ever in the set that was not added.

use crate::units::{Extent, Sectors};

/// A bounded set of sectors.
#[derive(Debug)]
pub struct Pending {
    extents: Vec<Extent>,
    limit: usize,
    forgotten: u64,
}

impl Pending {
    /// An empty set of at most `limit` extents, with the memory for all of them: taking sectors out never
    /// allocates.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { extents: Vec::with_capacity(limit), limit, forgotten: 0 }
    }

    /// The extents, in order.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// How many extents could be added one by one before anything is forgotten.
    #[must_use]
    pub fn room(&self) -> usize {
        self.limit - self.extents.len()
    }

    /// All their sectors.
    #[must_use]
    pub fn sectors(&self) -> Sectors {
        Sectors(self.extents.iter().map(|extent| extent.len().0).sum())
    }

    /// Sectors forgotten so far for want of room.
    #[must_use]
    pub fn forgotten(&self) -> Sectors {
        Sectors(self.forgotten)
    }

    /// Forgets everything, which does not count as forgotten for want of room.
    pub fn clear(&mut self) {
        self.extents.clear();
    }

    /// Takes the sectors of `gone` out. Does not allocate.
    pub fn remove(&mut self, gone: Extent) {
        let from = self.extents.partition_point(|extent| extent.end() <= gone.start());
        let Some(first) = self.extents.get(from).copied().filter(|first| first.start() < gone.end()) else {
            return;
        };
        let to = from + self.extents[from..].partition_point(|extent| extent.start() < gone.end());
        let last = self.extents[to - 1];
        let head = Extent::between(first.start(), gone.start());
        let tail = Extent::between(gone.end(), last.end());
        // Only a hole within one extent makes more of them.
        let (head, tail) = match (head, tail) {
            (Some(head), Some(tail)) if to - from == 1 && self.room() == 0 => {
                self.forgotten += head.len().min(tail.len()).0;
                if head.len() >= tail.len() { (Some(head), None) } else { (None, Some(tail)) }
            }
            both => both,
        };
        self.extents.splice(from..to, [head, tail].into_iter().flatten());
    }

    /// Adds extents in any order. Allocates; not for a pause.
    pub fn add_all(&mut self, added: impl IntoIterator<Item = Extent>) {
        let mut all = std::mem::take(&mut self.extents);
        all.extend(added);
        all.sort_unstable();
        for extent in all {
            match self.extents.last_mut() {
                Some(last) if extent.start() <= last.end() => {
                    let end = last.end().max(extent.end());
                    *last = Extent::between(last.start(), end).unwrap_or(*last);
                }
                _ => self.extents.push(extent),
            }
        }
        self.trim();
    }

    /// Adds one extent that may join one before it. While there is [`room`](Self::room) it does not allocate.
    pub fn add(&mut self, added: Extent) {
        let from = self.extents.partition_point(|extent| extent.end() < added.start());
        let to = from + self.extents[from..].partition_point(|extent| extent.start() <= added.end());
        let start = self.extents.get(from).filter(|_| to > from).map_or(added.start(), |e| e.start());
        let end = if to > from { self.extents[to - 1].end() } else { added.end() };
        let joined = Extent::between(start.min(added.start()), end.max(added.end()));
        self.extents.splice(from..to, joined);
        self.trim();
    }

    /// Gives the extents to `to` and is empty then, forgetting nothing.
    pub fn drain_into(&mut self, to: &mut Vec<Extent>) {
        to.append(&mut self.extents);
    }

    /// Forgets the smallest extents until the limit is kept.
    fn trim(&mut self) {
        let excess = self.extents.len().saturating_sub(self.limit);
        if excess > 0 {
            let mut sizes: Vec<u64> = self.extents.iter().map(|extent| extent.len().0).collect();
            let (_, largest_gone, _) = sizes.select_nth_unstable(excess - 1);
            let largest_gone = *largest_gone;
            let mut left = excess;
            // Everything smaller goes; of those as large as the largest that goes, as many as it takes.
            let smaller = self.extents.iter().filter(|extent| extent.len().0 < largest_gone).count();
            let mut equal = left - smaller;
            let forgotten = &mut self.forgotten;
            self.extents.retain(|extent| {
                let len = extent.len().0;
                let goes = len < largest_gone || (len == largest_gone && equal > 0);
                if goes {
                    equal -= usize::from(len == largest_gone);
                    left -= 1;
                    *forgotten += len;
                }
                !goes
            });
            debug_assert_eq!(left, 0);
        }
        // What grew for a moment does not stay so, and the room for holes is there.
        self.extents.shrink_to(self.limit);
        self.extents.reserve_exact(self.limit - self.extents.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Sector;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const VOLUME: u64 = 80;

    #[derive(Clone, Debug)]
    enum Step {
        Add(Vec<(u64, u64)>),
        AddOne(u64, u64),
        Remove(u64, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let run = || (0..VOLUME, 1..12u64);
        prop_oneof![
            proptest::collection::vec(run(), 0..5).prop_map(Step::Add),
            run().prop_map(|(start, len)| Step::AddOne(start, len)),
            run().prop_map(|(start, len)| Step::Remove(start, len)),
        ]
    }

    fn extent((start, len): (u64, u64)) -> Extent {
        Extent::new(Sector(start), Sectors(len)).unwrap()
    }

    fn sectors(pending: &Pending) -> BTreeSet<u64> {
        pending.extents().iter().flat_map(|e| e.start().0..e.end().0).collect()
    }

    proptest! {
        #[test]
        fn it_is_the_set_of_what_was_added_and_not_taken_out(
            steps in proptest::collection::vec(step(), 0..40), limit in prop_oneof![Just(64usize), 1..6usize],
        ) {
            let mut pending = Pending::new(limit);
            let mut model = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Add(runs) => {
                        model.extend(runs.iter().flat_map(|(start, len)| *start..start + len));
                        pending.add_all(runs.into_iter().map(extent));
                    }
                    Step::AddOne(start, len) => {
                        model.extend(start..start + len);
                        pending.add(extent((start, len)));
                    }
                    Step::Remove(start, len) => {
                        model.retain(|s| !(start..start + len).contains(s));
                        let capacity = pending.extents.capacity();
                        pending.remove(extent((start, len)));
                        prop_assert_eq!(pending.extents.capacity(), capacity, "it allocated");
                    }
                }
                let found = sectors(&pending);
                prop_assert!(pending.extents().len() <= limit);
                prop_assert!(pending.extents().windows(2).all(|e| e[0].end() < e[1].start()));
                prop_assert!(found.is_subset(&model));
                if pending.forgotten() == Sectors(0) {
                    prop_assert_eq!(&found, &model);
                }
                prop_assert!(limit < 64 || pending.forgotten() == Sectors(0));
                // What was forgotten is not pending, and stays so until it is added again.
                model = found;
            }
        }
    }

    #[test]
    fn the_smallest_are_forgotten_and_counted() {
        let mut pending = Pending::new(2);
        pending.add_all([(0, 5), (10, 1), (20, 3), (30, 3)].map(extent));
        assert_eq!(pending.extents(), [extent((0, 5)), extent((30, 3))]);
        assert_eq!(pending.forgotten(), Sectors(4));
        pending.remove(extent((3, 1)));
        assert_eq!(pending.extents(), [extent((0, 3)), extent((30, 3))]);
        assert_eq!(pending.forgotten(), Sectors(5));
    }
}
