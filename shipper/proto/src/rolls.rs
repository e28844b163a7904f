//! Which era of each volume begins where in the history of epochs: what a resynchronisation starts from.
//!
//! Always holds: every volume's eras rise strictly and epochs never fall from entry to entry, and rise to a roll at a
//! cut; a missing entry, be it dropped for room or never made durable, only leads to an older era, so to more that is
//! copied. An entry is made durable after the roll of every volume has returned.
//!
//! ```text
//! offset  field                      (little endian)
//!      0  volumes u16                0 when there are no entries
//!      2  per entry: epoch u64, flags u8 (1: rolled in the pause of the cut), era u32 of each volume
//! ```

use ftdm_units::Era;

use crate::group::MAX_VOLUMES;
use crate::ids::Epoch;
use crate::mutant::{self, Mutant};
use crate::tlv::{TlvError, Value};

/// Most entries that are kept.
pub const MAX_ROLLS: usize = 32;

const AT_CUT: u8 = 1;

/// A roll of all volumes of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roll {
    /// The last epoch that was cut before; on a backup: applied. 0 before the first.
    pub epoch: Epoch,
    /// The roll was made in the pause of that epoch's cut: nothing was written between.
    pub at_cut: bool,
    /// The era of each volume that began, in the group's order.
    pub eras: Vec<Era>,
}

/// The rolls that are remembered, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RollHistory {
    rolls: Vec<Roll>,
}

/// A roll that does not follow the ones before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the roll {next:?} does not follow {last:?}: dm-era's history was reset, so tracking is lost")]
pub struct RollOrderError {
    /// The last roll that is known; `None`: the new one is of no possible group.
    pub last: Option<Roll>,
    /// The one that was to be added.
    pub next: Roll,
}

impl RollHistory {
    /// Adds a roll that has returned on every volume. When there is no room, every second one of the older half but
    /// the oldest is dropped.
    ///
    /// # Errors
    /// When it does not follow the last one; the history is then as it was.
    pub fn push(&mut self, next: Roll) -> Result<(), RollOrderError> {
        let follows = |last: &Roll| {
            last.eras.len() == next.eras.len()
                && (last.epoch < next.epoch || last.epoch == next.epoch && !next.at_cut)
                && last.eras.iter().zip(&next.eras).all(|(last, next)| last < next)
        };
        let is_possible = (1..=MAX_VOLUMES).contains(&next.eras.len());
        if !is_possible || !self.rolls.last().is_none_or(follows) {
            return Err(RollOrderError { last: self.rolls.last().cloned(), next });
        }
        // Of rolls between the same two cuts the last one serves every later base.
        self.rolls.pop_if(|last| last.epoch == next.epoch && !last.at_cut && !next.at_cut);
        if self.rolls.len() >= MAX_ROLLS {
            let mut index = 0;
            self.rolls.retain(|_| {
                index += 1;
                index > MAX_ROLLS / 2 || index % 2 == 1
            });
        }
        self.rolls.push(next);
        Ok(())
    }

    /// The eras, of each volume, from which on its metadata has everything that was written after epoch `base` was
    /// cut. `None` when the history does not reach back so far: then everything counts as written.
    #[must_use]
    pub fn start(&self, base: Epoch) -> Option<&[Era]> {
        let behind = mutant::is(Mutant::RollBehindCutCounts);
        let at_cut = self.rolls.iter().find(|roll| roll.epoch == base && (roll.at_cut || behind));
        let before = || self.rolls.iter().rev().find(|roll| roll.epoch < base);
        at_cut.or_else(before).map(|roll| &*roll.eras)
    }

    /// Forgets what no base from `base` on needs. Returns whether there was anything.
    pub fn forget_before(&mut self, base: Epoch) -> bool {
        let before = self.rolls.len();
        if let Some(start) = self.start(base).map(<[Era]>::to_vec) {
            self.rolls.retain(|roll| roll.eras >= start);
        }
        self.rolls.len() < before
    }

    /// Forgets what was rolled behind epoch `last`: it belongs to a history that was given up. What a later base then
    /// finds is older, so more.
    pub fn forget_after(&mut self, last: Epoch) {
        self.rolls.retain(|roll| roll.epoch <= last);
    }

    /// Forgets everything: nothing that was tracked is known any more.
    pub fn clear(&mut self) {
        self.rolls.clear();
    }

    /// The last roll.
    #[must_use]
    pub fn last(&self) -> Option<&Roll> {
        self.rolls.last()
    }

    /// All entries, oldest first.
    #[must_use]
    pub fn rolls(&self) -> &[Roll] {
        &self.rolls
    }

    /// Whether volumes whose current eras are these may go on with this history: none is older than what is known
    /// of it, and there are as many.
    #[must_use]
    pub fn is_continued_by(&self, eras: &[Era]) -> bool {
        self.rolls.last().is_none_or(|last| {
            last.eras.len() == eras.len() && last.eras.iter().zip(eras).all(|(last, now)| last <= now)
        })
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let volumes = self.rolls.first().map_or(0, |roll| roll.eras.len());
        let mut bytes = u16::try_from(volumes).unwrap_or(u16::MAX).to_le_bytes().to_vec();
        for roll in &self.rolls {
            bytes.extend_from_slice(&roll.epoch.0.to_le_bytes());
            bytes.push(if roll.at_cut { AT_CUT } else { 0 });
            roll.eras.iter().for_each(|era| bytes.extend_from_slice(&era.0.to_le_bytes()));
        }
        bytes
    }

    /// From what [`Self::encode`] made; the value must end with it.
    ///
    /// # Errors
    /// Entries that are none, too many, or do not follow each other.
    pub fn decode(mut value: Value<'_>) -> Result<Self, TlvError> {
        let volumes = usize::from(value.u16()?);
        let entries = value.left() / (9 + 4 * volumes);
        if volumes > MAX_VOLUMES || entries > MAX_ROLLS || (volumes == 0) != (value.left() == 0) {
            return Err(value.invalid(format_args!("{entries} rolls of {volumes} volumes")));
        }
        let mut history = Self::default();
        for _ in 0..entries {
            let epoch = Epoch(value.u64()?);
            let flags = value.u8()?;
            if flags > AT_CUT {
                return Err(value.invalid(format_args!("a roll with the flags {flags:#x}")));
            }
            let eras = (0..volumes).map(|_| value.u32().map(Era)).collect::<Result<_, _>>()?;
            let before = history.rolls.len();
            let pushed = history.push(Roll { epoch, at_cut: flags == AT_CUT, eras });
            pushed.map_err(|error| value.invalid(error))?;
            if history.rolls.len() == before {
                return Err(
                    value.invalid(format_args!("two rolls after epoch {epoch} that serve the same bases"))
                );
            }
        }
        value.end()?;
        Ok(history)
    }
}

#[cfg(test)]
mod tests;
