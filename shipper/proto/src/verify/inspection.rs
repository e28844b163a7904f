//! The exact content of some places at a cut, without a word of it being read in the pause.
//!
//! The places are read while the volume is written to, at no particular moment. Every epoch that is shipped from then
//! on is laid over what was read. A sector that no epoch up to the one of cut N has written since has held the same
//! all the time from the reading to the cut; one that was written has what the last of those epochs says. So once N
//! is laid over, and if the reading had ended before the volume was paused for N, the content is that at N.
//!
//! Always holds: the epochs are laid over in their order, from before the reading began; what an epoch said is never
//! replaced by what was read.

use ftdm_units::{Extent, SECTOR_SIZE, Sector, Sectors};

use super::{Place, digests_of};
use crate::ids::{Digest, VolumeIndex};
use crate::mutant::{self, Mutant};
use crate::record::Content;

/// What is known of a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Nothing yet.
    Nothing,
    /// What was read.
    Read,
    /// What an epoch said.
    Said,
    /// An epoch said that any content will do.
    Anything,
}

#[derive(Debug)]
struct Inspected {
    place: Place,
    content: Vec<u8>,
    known: Vec<Known>,
}

/// Some places on the volumes, and what is known of their content. Takes as much memory as they do.
#[derive(Debug)]
pub struct Inspection {
    unit: Sectors,
    places: Vec<Inspected>,
}

impl Inspection {
    /// An inspection of `places` in units of `unit`; they are sorted by volume and sector and do not overlap.
    #[must_use]
    pub fn new(places: &[Place], unit: Sectors) -> Self {
        let empty = |place: &Place| {
            let sectors = usize::try_from(place.extent.len().0).unwrap_or(0);
            let content = vec![0; sectors * SECTOR_SIZE];
            Inspected { place: *place, content, known: vec![Known::Nothing; sectors] }
        };
        Self { unit, places: places.iter().map(empty).collect() }
    }

    /// Puts in what was read of the places, in their order.
    pub fn fill(&mut self, read: &[Vec<u8>]) {
        for (inspected, data) in self.places.iter_mut().zip(read) {
            let sectors = inspected.content.chunks_mut(SECTOR_SIZE).zip(data.chunks(SECTOR_SIZE));
            for ((content, data), known) in sectors.zip(&mut inspected.known) {
                if *known == Known::Nothing && content.len() == data.len() {
                    content.copy_from_slice(data);
                    *known = Known::Read;
                }
            }
        }
    }

    /// Lays a piece of an epoch over them.
    pub fn put(&mut self, volume: VolumeIndex, extent: Extent, content: Content<'_>) {
        if mutant::is(Mutant::InspectWithoutEpochs) {
            return;
        }
        let before = |inspected: &Inspected| {
            let Place { volume: at, extent: of } = inspected.place;
            at < volume || at == volume && of.end() <= extent.start()
        };
        let first = self.places.partition_point(before);
        for inspected in &mut self.places[first..] {
            let place = inspected.place;
            if place.volume != volume || place.extent.start() >= extent.end() {
                return;
            }
            let Some(both) = place.extent.intersect(extent) else { return };
            let sectors = range(both, place.extent.start());
            let bytes = sectors.start * SECTOR_SIZE..sectors.end * SECTOR_SIZE;
            let known = match content {
                Content::Data(data) => {
                    let from = range(both, extent.start());
                    let from = &data[from.start * SECTOR_SIZE..from.end * SECTOR_SIZE];
                    inspected.content[bytes].copy_from_slice(from);
                    Known::Said
                }
                Content::Zero => {
                    inspected.content[bytes].fill(0);
                    Known::Said
                }
                Content::Unknown => Known::Anything,
            };
            inspected.known[sectors].fill(known);
        }
    }

    /// The digest of each unit, place by place; `None` where any content will do, or nothing is known.
    #[must_use]
    pub fn digests(&self) -> Vec<Option<Digest>> {
        let of = |inspected: &Inspected| {
            let unit = usize::try_from(self.unit.0).unwrap_or(usize::MAX).max(1);
            let digests = digests_of(&inspected.content, self.unit);
            let is_known = |part: &[Known]| part.iter().all(|one| matches!(one, Known::Read | Known::Said));
            let known: Vec<bool> = inspected.known.chunks(unit).map(is_known).collect();
            digests.into_iter().zip(known).map(|(digest, known)| known.then_some(digest)).collect::<Vec<_>>()
        };
        self.places.iter().flat_map(of).collect()
    }

    /// The content of one volume's places, as far as it is known: sorted runs.
    pub fn content(&self, volume: VolumeIndex) -> impl Iterator<Item = (Extent, &[u8])> {
        let of_volume = self.places.iter().filter(move |inspected| inspected.place.volume == volume);
        of_volume.flat_map(Inspected::runs)
    }
}

impl Inspected {
    /// Maximal runs of known sectors.
    fn runs(&self) -> impl Iterator<Item = (Extent, &[u8])> {
        let is_known = |known: &Known| matches!(known, Known::Read | Known::Said);
        let (mut at, start) = (0, self.place.extent.start().0);
        std::iter::from_fn(move || {
            at += self.known[at..].iter().position(is_known)?;
            let len = self.known[at..].iter().take_while(|known| is_known(known)).count();
            let (from, to) = (at, at + len);
            at = to;
            let extent = Extent::between(Sector(start + from as u64), Sector(start + to as u64))?;
            Some((extent, &self.content[from * SECTOR_SIZE..to * SECTOR_SIZE]))
        })
    }
}

/// The sectors of `extent` counted from `origin`, which is not behind them.
fn range(extent: Extent, origin: Sector) -> std::ops::Range<usize> {
    let count = |sector: Sector| usize::try_from(sector.0 - origin.0).unwrap_or(usize::MAX);
    count(extent.start())..count(extent.end())
}

/// Puts `patches` in the place of what a sorted stream of pieces says of their sectors, and adds them where it says
/// nothing. Returns a function that takes the pieces, and at last `None`.
pub fn patch<'a, E>(
    patches: impl Iterator<Item = (Extent, &'a [u8])>,
    mut emit: impl FnMut(Extent, Content<'_>) -> Result<(), E>,
) -> impl FnMut(Option<(Extent, Content<'_>)>) -> Result<(), E> {
    let mut patches = patches.peekable();
    // Up to where the last patch reaches.
    let mut patched = Sector(0);
    move |piece| {
        let Some((extent, content)) = piece else {
            return patches.try_for_each(|(extent, data)| emit(extent, Content::Data(data)));
        };
        let mut rest = Some(extent);
        while let Some(left) = rest {
            if let Some((patch, data)) = patches.next_if(|(patch, _)| patch.start() <= left.start()) {
                emit(patch, Content::Data(data))?;
                patched = patch.end();
                continue;
            }
            let next = patches.peek().map_or(left.end(), |(patch, _)| patch.start().min(left.end()));
            let from = left.start().max(patched);
            if let Some(part) = Extent::between(from, next) {
                emit(part, part_of(extent, content, part))?;
            }
            // Where a patch begins within, it comes next.
            rest = Extent::between(next, left.end());
        }
        Ok(())
    }
}

/// The content of `part`, which lies in `extent`.
fn part_of<'a>(extent: Extent, content: Content<'a>, part: Extent) -> Content<'a> {
    match content {
        Content::Data(data) => {
            let sectors = range(part, extent.start());
            Content::Data(&data[sectors.start * SECTOR_SIZE..sectors.end * SECTOR_SIZE])
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::extent;
    use proptest::prelude::*;

    const VOLUME: VolumeIndex = VolumeIndex(1);

    fn place(start: u64, len: u64) -> Place {
        Place { volume: VOLUME, extent: extent(start, len) }
    }

    fn filled(sectors: &[u8]) -> Vec<u8> {
        sectors.iter().flat_map(|byte| [*byte; SECTOR_SIZE]).collect()
    }

    /// The first byte of each sector that `pieces` say, by sector.
    fn told(pieces: &[(Extent, Vec<u8>)]) -> Vec<(u64, u8)> {
        let sectors = |(extent, data): &(Extent, Vec<u8>)| {
            (extent.start().0..extent.end().0).zip(data.chunks(SECTOR_SIZE).map(|sector| sector[0])).collect()
        };
        pieces.iter().flat_map(sectors as fn(&(Extent, Vec<u8>)) -> Vec<(u64, u8)>).collect()
    }

    #[test]
    fn what_an_epoch_said_is_never_replaced_by_what_was_read() {
        let mut inspection = Inspection::new(&[place(4, 4), place(16, 2)], Sectors(2));
        inspection.put(VOLUME, extent(0, 6), Content::Data(&filled(&[9, 9, 9, 9, 7, 7])));
        inspection.put(VolumeIndex(0), extent(4, 4), Content::Zero);
        inspection.put(VOLUME, extent(17, 9), Content::Zero);
        inspection.fill(&[filled(&[1, 2, 3, 4]), filled(&[5, 6])]);
        let runs: Vec<_> = inspection.content(VOLUME).map(|(at, data)| (at, data.to_vec())).collect();
        assert_eq!(told(&runs), [(4, 7), (5, 7), (6, 3), (7, 4), (16, 5), (17, 0)]);
        let expected = [filled(&[7, 7]), filled(&[3, 4]), filled(&[5, 0])];
        let digests: Vec<_> = expected.iter().map(|part| Some(digests_of(part, Sectors(2))[0])).collect();
        assert_eq!(inspection.digests(), digests);
    }

    #[test]
    fn where_any_content_will_do_there_is_no_digest() {
        let mut inspection = Inspection::new(&[place(0, 6)], Sectors(2));
        assert_eq!(inspection.digests(), [None; 3], "nothing was read");
        inspection.fill(&[filled(&[1; 6])]);
        inspection.put(VOLUME, extent(2, 1), Content::Unknown);
        assert!(matches!(inspection.digests()[..], [Some(_), None, Some(_)]));
        let runs: Vec<_> = inspection.content(VOLUME).map(|(extent, _)| extent).collect();
        assert_eq!(runs, [extent(0, 2), extent(3, 3)]);
        inspection.put(VOLUME, extent(2, 1), Content::Zero);
        assert!(inspection.digests().iter().all(Option::is_some));
    }

    proptest! {
        /// A volume of 32 sectors is written, read at some moment, cut: what comes out is what it held at the cut.
        #[test]
        fn the_content_is_that_at_the_cut(
            history in prop::collection::vec((0u64..32, 1u64..8, any::<u8>(), 0u8..4), 1..60),
            read_at in any::<prop::sample::Index>(),
        ) {
            let places = [place(3, 7), place(12, 4), place(20, 9)];
            let mut volume = [0u8; 32];
            let mut inspection = Inspection::new(&places, Sectors(1));
            let read_at = read_at.index(history.len());
            // Sectors written since the last cut.
            let mut dirty = std::collections::BTreeSet::new();
            for (step, (start, len, value, kind)) in history.iter().enumerate() {
                if step == read_at {
                    let read = places.map(|place| {
                        filled(&volume[range(place.extent, Sector(0))])
                    });
                    inspection.fill(&read);
                }
                for sector in *start..(start + len).min(32) {
                    volume[usize::try_from(sector).unwrap()] = *value;
                    dirty.insert(sector);
                }
                if *kind == 0 || step + 1 == history.len() {
                    for sector in std::mem::take(&mut dirty) {
                        let data = filled(&volume[usize::try_from(sector).unwrap()..][..1]);
                        inspection.put(VOLUME, extent(sector, 1), Content::Data(&data));
                    }
                }
            }
            let runs: Vec<_> = inspection.content(VOLUME).map(|(at, data)| (at, data.to_vec())).collect();
            for (sector, byte) in told(&runs) {
                prop_assert_eq!(byte, volume[usize::try_from(sector).unwrap()], "sector {}", sector);
            }
            prop_assert!(inspection.digests().iter().all(Option::is_some));
        }

        #[test]
        fn patches_replace_what_the_pieces_say_and_the_rest_stays(
            pieces in prop::collection::vec((0u64..4, 1u64..6, 0u8..3), 0..12),
            patches in prop::collection::vec((0u64..6, 1u64..5), 0..8),
        ) {
            let mut expected = std::collections::BTreeMap::new();
            let (mut at, mut stream) = (0, Vec::new());
            for (gap, len, kind) in pieces {
                at += gap;
                let here = extent(at, len);
                for sector in at..at + len {
                    expected.insert(sector, if kind == 0 { 0 } else { 10 + u8::try_from(sector).unwrap() });
                }
                let bytes: Vec<u8> = (at..at + len).map(|sector| 10 + u8::try_from(sector).unwrap()).collect();
                stream.push((here, if kind == 0 { None } else { Some(filled(&bytes)) }));
                at += len;
            }
            let (mut at, mut over) = (0, Vec::new());
            for (gap, len) in patches {
                // Runs of known sectors are never neighbours within a place, but two places may be.
                at += gap;
                over.push((extent(at, len), filled(&vec![200; usize::try_from(len).unwrap()])));
                for sector in at..at + len {
                    expected.insert(sector, 200);
                }
                at += len;
            }
            let mut out: Vec<(Extent, Vec<u8>)> = Vec::new();
            {
                let emit = |extent: Extent, content: Content<'_>| {
                    let data = match content {
                        Content::Data(data) => data.to_vec(),
                        _ => filled(&vec![0; usize::try_from(extent.len().0).unwrap()]),
                    };
                    out.push((extent, data));
                    Ok::<(), ()>(())
                };
                let mut take = patch(over.iter().map(|(at, data)| (*at, data.as_slice())), emit);
                for (extent, data) in &stream {
                    let content = data.as_ref().map_or(Content::Zero, |data| Content::Data(data));
                    take(Some((*extent, content))).unwrap();
                }
                take(None).unwrap();
            }
            prop_assert!(out.windows(2).all(|two| two[0].0.end() <= two[1].0.start()), "{:?}", out);
            for (extent, data) in &out {
                prop_assert_eq!(extent.len().bytes(), Some(data.len() as u64));
            }
            prop_assert_eq!(told(&out), expected.into_iter().collect::<Vec<_>>());
        }
    }
}
