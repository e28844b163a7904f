//! dm-era: which granules of each volume were written in which era.
//!
//! Always holds: a write is noted durably before it is done, so a power cut takes back writes but not their notes; a
//! roll happens drained and flushed: what was written before it cannot revert any more, and belongs to an era before.

use ftdm_units::{Era, Extent, Sector, Sectors};
use ftship_proto::ids::VolumeIndex;
use ftship_proto::mutant::{self, Mutant};
use ftship_proto::scope::Scope;

use crate::content::Shape;
use crate::scenario::Scenario;

/// The metadata of all volumes.
#[derive(Clone, Debug)]
pub(crate) struct Eras {
    shape: Shape,
    /// So much of each volume is looked at.
    pub(crate) shown: Vec<usize>,
    granule: usize,
    current: Vec<u32>,
    /// The last era in which each granule of each volume was written; 0: never.
    written: Vec<Vec<u32>>,
    /// A write that was under way when an undrained roll was made is noted in the era before.
    is_overtaken: bool,
}

impl Eras {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let (shape, granule) = (scenario.shape.clone(), scenario.granule);
        let written = shape.0.iter().map(|blocks| vec![0; blocks.div_ceil(granule)]).collect();
        let current = (1..).take(shape.0.len()).collect();
        let shown = scenario.begins.clone();
        Self { shape, shown, granule, current, written, is_overtaken: false }
    }

    /// The same, in this era of each volume: everything was written before.
    pub(crate) fn in_era(scenario: &Scenario, era: Era) -> Self {
        let mut eras = Self::new(scenario);
        eras.current.fill(era.0);
        eras
    }

    /// The eras that writes go to.
    pub(crate) fn now(&self) -> Vec<Era> {
        self.current.iter().copied().map(Era).collect()
    }

    /// A block is about to be written.
    pub(crate) fn note(&mut self, place: usize) {
        let (volume, granule) = self.granule_of(place);
        let late = u32::from(std::mem::take(&mut self.is_overtaken));
        let note = &mut self.written[volume][granule];
        *note = (*note).max(self.current[volume] - late);
    }

    /// The volume and granule of a block.
    pub(crate) fn granule_of(&self, place: usize) -> (usize, usize) {
        let volume = self.shape.volume_of(place);
        (usize::from(volume.0), (place - self.shape.start(volume)) / self.granule)
    }

    /// The granules that an extent has something of.
    pub(crate) fn granules(
        &self,
        volume: VolumeIndex,
        extent: Extent,
    ) -> impl Iterator<Item = (usize, usize)> + use<> {
        let index = |sector: Sector| usize::try_from(sector.0).expect("a small volume");
        let granules = index(extent.start()) / self.granule..index(extent.end()).div_ceil(self.granule);
        granules.map(move |granule| (usize::from(volume.0), granule))
    }

    /// Ends the era of every volume. Returns those that begin.
    pub(crate) fn roll(&mut self) -> Vec<Era> {
        self.current.iter_mut().for_each(|era| *era += 1);
        self.is_overtaken = mutant::is(Mutant::RollUndrained);
        self.now()
    }

    /// What was written in these eras and later; `None`: everything.
    pub(crate) fn written_since(&self, since: Option<&[Era]>) -> Scope {
        let mut scope = Scope::new();
        let volumes = self.shape.0.len() - usize::from(mutant::is(Mutant::LastVolumeUncopied));
        for (index, blocks) in self.shown.iter().enumerate().take(volumes.max(1)) {
            let volume = VolumeIndex(u16::try_from(index).expect("few volumes"));
            let from = since.map_or(0, |eras| eras[index].0);
            for (granule, _) in self.written[index].iter().enumerate().filter(|(_, era)| **era >= from) {
                let start = granule * self.granule;
                let len = self.granule.min(blocks.saturating_sub(start));
                scope.extend(
                    Extent::new(Sector(start as u64), Sectors(len as u64)).map(|extent| (volume, extent)),
                );
            }
        }
        scope
    }
}
