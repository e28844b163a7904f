//! What need not be sent: units of which the backup has what was just read.
//!
//! A round asks the backup for digests of the places that it reads. What they are of depends on how the sync reaches the
//! backup:
//!
//! - In place: what its volumes hold behind everything that was sent before the question. No round covers a sector twice,
//!   and a round begins when all of the one before was sent: so it is what the backup has without this unit.
//! - Staged: what its volumes hold with the sync's base and nothing after it. What the sync itself has sent lies in the
//!   journal and counts instead: of that the digests are remembered.
//!
//! A part of the log is sent without being compared, and counts as sent. In the round that it comes in that does not matter:
//! what is read after its cut and differs from it was written since, so a later part has it.
//!
//! Always holds: a unit is left out only if sending it would change nothing: once everything before it is applied, the
//! backup has exactly the bytes that were read here. So whatever holds of a copy holds of one with units left out. What
//! is remembered is bounded by [`MOST_REMEMBERED`]; beyond, more is sent.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use ftdm_units::{Extent, Sectors};

use super::Batch;
use crate::ids::VolumeIndex;
use crate::mutant::{self, Mutant};
use crate::verify::{Place, ShortDigest};

/// Most units of a staged sync that are remembered, at some 50 bytes each: 2 GiB in units of 4 KiB.
const MOST_REMEMBERED: usize = 1 << 19;

/// A part of a batch that has to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it belongs.
    pub place: Place,
    /// Where it starts in the batch's content.
    pub at: Sectors,
}

/// Compares what was read with what the backup has.
#[derive(Debug)]
pub struct Comparison {
    /// What this sync has sent, where the backup's digests do not cover that.
    sent: Option<Sent>,
    /// The round and the unit of what was compared last.
    last: Option<(u32, Sectors)>,
    /// Something was sent before: it is not known in which units that counts.
    is_blind: bool,
}

impl Comparison {
    /// Of a sync in place.
    #[must_use]
    pub fn in_place() -> Self {
        Self { sent: None, last: None, is_blind: false }
    }

    /// Of a staged sync that begins.
    #[must_use]
    pub fn staged() -> Self {
        Self { sent: Some(Sent::new(MOST_REMEMBERED)), last: None, is_blind: false }
    }

    /// This was sent, and what the backup has of it is not what its digests say any more.
    pub fn sent(&mut self, place: Place) {
        match (&mut self.sent, self.last) {
            (None, _) => {}
            (Some(_), None) => self.is_blind = true,
            (Some(sent), Some((round, unit))) => sent.note(round, place, unit, None),
        }
    }

    /// What of a batch has to be sent. `mine`: the digests of its units as read, all of them; none if it is not compared.
    pub fn differing(
        &mut self,
        batch: &Batch,
        mine: &[ShortDigest],
        theirs: Option<&[ShortDigest]>,
    ) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut at = Sectors(0);
        self.last = batch.unit.map(|unit| (batch.round, unit)).or(self.last);
        let mut digests =
            mine.iter().copied().zip((0..).map(|n| theirs.and_then(|theirs| theirs.get(n).copied())));
        for place in &batch.places {
            match batch.unit {
                None => push(&mut runs, Run { place: *place, at }),
                Some(unit) => {
                    let mut from = at;
                    for part in place.units(unit) {
                        let (mine, theirs) = digests.next().unzip();
                        if !self.is_there(batch.round, part, unit, mine, theirs.flatten()) {
                            push(&mut runs, Run { place: part, at: from });
                        }
                        from.0 += part.extent.len().0;
                    }
                }
            }
            at.0 += place.extent.len().0;
        }
        runs
    }

    /// Whether the backup has this unit; notes it as sent if it has not.
    fn is_there(
        &mut self,
        round: u32,
        part: Place,
        unit: Sectors,
        mine: Option<ShortDigest>,
        theirs: Option<ShortDigest>,
    ) -> bool {
        let is_held = mine.is_some() && mine == theirs && !self.is_blind;
        let Some(sent) = &mut self.sent else { return is_held };
        let is_there = match sent.of(round, part, unit) {
            SoFar::Nothing => is_held,
            _ if mutant::is(Mutant::SkipAlthoughSent) => is_held,
            SoFar::Exactly(last) => Some(last) == mine,
            SoFar::Something => false,
        };
        if !is_there {
            sent.note(round, part, unit, mine);
        }
        is_there
    }
}

/// What of a unit was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SoFar {
    Nothing,
    /// All of it, last with this content.
    Exactly(ShortDigest),
    Something,
}

/// What a staged sync has sent, by units counted from their volume's start.
#[derive(Debug)]
struct Sent {
    /// The sectors from the unit's start on that were sent last, and their digest; `None`: something of it.
    units: HashMap<(VolumeIndex, u64), Option<(Sectors, ShortDigest)>>,
    most: usize,
    /// The first round in which something was not noted, there being no room.
    full_since: Option<u32>,
}

impl Sent {
    fn new(most: usize) -> Self {
        Self { units: HashMap::new(), most, full_since: None }
    }

    fn of(&self, round: u32, part: Place, unit: Sectors) -> SoFar {
        // Within one round nothing is sent twice.
        let is_known = self.full_since.is_none_or(|since| since >= round);
        let mut sent = keys(part, unit).filter_map(|key| self.units.get(&key));
        match (sent.next(), sent.next()) {
            (None, _) if is_known => SoFar::Nothing,
            (Some(Some((len, digest))), None) if *len == part.extent.len() && is_aligned(part, unit) => {
                SoFar::Exactly(*digest)
            }
            _ => SoFar::Something,
        }
    }

    fn note(&mut self, round: u32, part: Place, unit: Sectors, mine: Option<ShortDigest>) {
        let len = part.extent.len();
        let exact = mine.filter(|_| is_aligned(part, unit)).map(|mine| (len, mine));
        for key in keys(part, unit) {
            let is_full = self.units.len() >= self.most;
            match self.units.entry(key) {
                Entry::Occupied(mut before) => {
                    let is_covered = before.get().map_or(unit, |(len, _)| len) <= len;
                    before.insert(exact.filter(|_| is_covered));
                }
                Entry::Vacant(_) if is_full => {
                    self.full_since.get_or_insert(round);
                }
                Entry::Vacant(free) => {
                    free.insert(exact);
                }
            }
        }
    }
}

fn is_aligned(part: Place, unit: Sectors) -> bool {
    part.extent.start().0.is_multiple_of(unit.0)
}

/// The units, counted from the volume's start, of which a part has something.
fn keys(part: Place, unit: Sectors) -> impl Iterator<Item = (VolumeIndex, u64)> {
    let (start, end) = (part.extent.start().0, part.extent.end().0);
    (start / unit.0..end.div_ceil(unit.0)).map(move |index| (part.volume, index))
}

/// Adds a run behind those there, joined with its neighbour.
fn push(runs: &mut Vec<Run>, new: Run) {
    if let Some(last) = runs.last_mut()
        && last.place.volume == new.place.volume
        && last.place.extent.end() == new.place.extent.start()
        && let Some(extent) = Extent::between(last.place.extent.start(), new.place.extent.end())
    {
        last.place.extent = extent;
        return;
    }
    runs.push(new);
}

#[cfg(test)]
mod tests {
    use ftdm_units::Sector;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::extent;
    use crate::verify::digests_of;

    const UNIT: Sectors = Sectors(2);
    const VOLUME: usize = 40;

    /// Sectors of one byte each, in this test's volumes.
    type Volume = [u8; VOLUME];

    fn sectors(extent: Extent) -> std::ops::Range<usize> {
        let index = |sector: Sector| usize::try_from(sector.0).unwrap();
        index(extent.start())..index(extent.end())
    }

    fn content(volume: &Volume, place: Place) -> Vec<u8> {
        volume[sectors(place.extent)].iter().flat_map(|byte| [*byte; 512]).collect()
    }

    fn digests(volume: &Volume, places: &[Place]) -> Vec<ShortDigest> {
        places.iter().flat_map(|place| digests_of(&content(volume, *place), UNIT)).collect()
    }

    fn batch(round: u32, extents: &[(u64, u64)]) -> Batch {
        let place =
            |(start, len): &(u64, u64)| Place { volume: VolumeIndex(0), extent: extent(*start, *len) };
        Batch { number: 1, chain: 1, round, unit: Some(UNIT), places: extents.iter().map(place).collect() }
    }

    /// Sends what of `mine` differs; returns how many sectors that were.
    fn send(
        comparison: &mut Comparison,
        batch: &Batch,
        mine: &Volume,
        held: &Volume,
        stream: &mut Volume,
    ) -> u64 {
        let theirs = digests(held, &batch.places);
        let runs = comparison.differing(batch, &digests(mine, &batch.places), Some(&theirs));
        let whole: Vec<u8> = batch.places.iter().flat_map(|place| content(mine, *place)).collect();
        for Run { place, at } in &runs {
            let from = usize::try_from(at.0).unwrap() * 512;
            assert!(whole[from..].starts_with(&content(mine, *place)), "{place:?} does not start at {at}");
            let sectors = sectors(place.extent);
            stream[sectors.clone()].copy_from_slice(&mine[sectors]);
        }
        runs.iter().map(|run| run.place.extent.len().0).sum()
    }

    #[test]
    fn what_a_staged_sync_sent_counts_and_not_what_the_backup_holds() {
        let (held, mut comparison) = ([0; VOLUME], Comparison::staged());
        let mut stream = held;
        let mut mine = held;
        mine[8..12].fill(1);
        assert_eq!(send(&mut comparison, &batch(1, &[(8, 8)]), &mine, &held, &mut stream), 4);
        assert_eq!(send(&mut comparison, &batch(2, &[(8, 8)]), &mine, &held, &mut stream), 0, "sent before");
        // Written back to what the backup holds: that would stay as it was sent.
        mine[8..12].fill(0);
        assert_eq!(send(&mut comparison, &batch(3, &[(8, 8)]), &mine, &held, &mut stream), 4);
        assert_eq!(stream, mine);
    }

    #[test]
    fn without_digests_everything_is_sent_and_remembered() {
        let (mut comparison, one) = (Comparison::staged(), batch(1, &[(0, 4)]));
        let mine = digests(&[0; VOLUME], &one.places);
        let runs = comparison.differing(&one, &mine, None);
        assert_eq!(runs, [Run { place: one.places[0], at: Sectors(0) }]);
        assert_eq!(comparison.differing(&batch(2, &[(0, 4)]), &mine, None), [], "sent with this content");
        let plain = Batch { unit: None, ..batch(1, &[(3, 4), (9, 1)]) };
        let whole = |n: usize, at| Run { place: plain.places[n], at: Sectors(at) };
        assert_eq!(Comparison::in_place().differing(&plain, &[], None), [whole(0, 0), whole(1, 4)]);
    }

    #[test]
    fn what_there_was_no_room_to_remember_is_sent_again() {
        let (held, mine) = ([0; VOLUME], [1; VOLUME]);
        let mut comparison = Comparison { sent: Some(Sent::new(2)), ..Comparison::in_place() };
        let mut stream = held;
        assert_eq!(send(&mut comparison, &batch(1, &[(0, 8)]), &mine, &held, &mut stream), 8);
        // Nothing was sent of this in the same round; of the rest of the next one it is not known.
        assert_eq!(send(&mut comparison, &batch(1, &[(8, 8)]), &held, &held, &mut stream), 0);
        assert_eq!(send(&mut comparison, &batch(2, &[(0, 16)]), &mine, &held, &mut stream), 12);
    }

    #[test]
    fn what_a_part_of_the_log_has_sent_is_not_what_the_backup_says() {
        let place = Place { volume: VolumeIndex(0), extent: extent(4, 1) };
        let (base, now) = ([1; VOLUME], [1; VOLUME]);
        let mut comparison = Comparison::staged();
        let first = batch(1, &[(0, 2)]);
        assert_eq!(send(&mut comparison, &first, &now, &base, &mut { base }), 0, "the backup has it");
        comparison.sent(place);
        let next = batch(2, &[(0, 8)]);
        assert_eq!(
            send(&mut comparison, &next, &now, &base, &mut { base }),
            2,
            "the unit that the part has something of"
        );
        let mut comparison = Comparison::staged();
        comparison.sent(place);
        assert_eq!(
            send(&mut comparison, &next, &now, &base, &mut { base }),
            8,
            "in which units that counts is not known"
        );
        let mut comparison = Comparison::in_place();
        comparison.sent(place);
        assert_eq!(
            send(&mut comparison, &next, &now, &base, &mut { base }),
            0,
            "the backup speaks of what it has"
        );
    }

    proptest! {
        /// Rounds of a sync over a volume that is being written to, whatever the extents: the stream ends as the last
        /// reading of each sector.
        #[test]
        fn what_is_left_out_would_have_changed_nothing(
            is_staged in any::<bool>(),
            most in prop_oneof![Just(3usize), Just(1000)],
            held in prop::array::uniform32(0u8..3),
            rounds in prop::collection::vec((prop::array::uniform32(0u8..3), prop::collection::vec((1u64..9, 0u64..5), 1..5)), 1..6),
        ) {
            let volume = |part: [u8; 32]| -> Volume { std::array::from_fn(|n| part[n % 32]) };
            let held = volume(held);
            let mut comparison = Comparison { sent: is_staged.then(|| Sent::new(most)), ..Comparison::in_place() };
            let (mut stream, mut expected) = (held, held);
            for (round, (written, extents)) in (1..).zip(rounds) {
                let (mine, mut at, mut scope) = (volume(written), 0, Vec::new());
                for (len, gap) in extents {
                    at += gap;
                    if at + len <= VOLUME as u64 {
                        scope.push((at, len));
                    }
                    at += len;
                }
                for part in &scope {
                    let before = if is_staged { held } else { stream };
                    send(&mut comparison, &batch(round, &[*part]), &mine, &before, &mut stream);
                    let sectors = sectors(extent(part.0, part.1));
                    expected[sectors.clone()].copy_from_slice(&mine[sectors]);
                }
                prop_assert_eq!(stream, expected);
            }
        }
    }
}
