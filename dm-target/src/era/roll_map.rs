//! Which era begins where in the history of epochs: what a resynchronisation starts from.
//!
//! Always holds: eras rise strictly and epochs never fall from entry to entry; a missing entry, be it
//! dropped for room or never made durable, only leads to an older era, so to more that is copied.
//! An entry is made durable after each roll has returned.
//!
//! ```text
//! offset  field                      (little endian)
//!      0  magic [u8; 8]              "FTDMROLL"
//!      8  version u32                1
//!     12  entries u32                at most 1024
//!     16  per entry: era u32, flags u32 (1: rolled in the pause of the cut), epoch u64
//!    end  checksum u32               crc32c of everything before
//! ```

use crate::units::Era;

/// Most entries that are kept.
pub const MAX_ENTRIES: usize = 1024;
/// Bytes of the longest encoding.
pub const MAX_BYTES: usize = HEADER + MAX_ENTRIES * ENTRY + 4;

const MAGIC: &[u8; 8] = b"FTDMROLL";
const VERSION: u32 = 1;
const HEADER: usize = 16;
const ENTRY: usize = 16;
const AT_CUT: u32 = 1;

/// One roll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roll {
    /// The era that began.
    pub era: Era,
    /// The last epoch that was cut before; 0 before the first.
    pub epoch: u64,
    /// The roll was made in the pause of that epoch's cut: nothing was written between.
    pub at_cut: bool,
}

/// The rolls that are remembered, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RollMap {
    rolls: Vec<Roll>,
}

/// A roll that does not follow the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "era {next} after epoch {next_epoch} does not follow era {last} after epoch {last_epoch}: \
     the metadata's history was reset, so tracking is lost",
    next = .next.era, next_epoch = .next.epoch, last = .last.era, last_epoch = .last.epoch
)]
pub struct RollOrderError {
    /// The last roll that is known.
    pub last: Roll,
    /// The one that was to be added.
    pub next: Roll,
}

/// Why bytes are not a roll map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Cut off, or with something behind it.
    #[error("the roll map has {found} bytes: expected {expected}")]
    Length {
        /// Bytes given.
        found: usize,
        /// Bytes that belong there.
        expected: usize,
    },
    /// Something else.
    #[error("this is no roll map: it begins with other bytes")]
    Magic,
    /// From another version of ftdm.
    #[error("the roll map has version {0}: only version {VERSION} is known; use the ftdm that wrote it")]
    Version(u32),
    /// More than is ever written.
    #[error("the roll map has {0} entries: at most {MAX_ENTRIES} are written")]
    TooMany(u32),
    /// Damaged.
    #[error("the roll map's checksum is {found:#010x}, its content gives {computed:#010x}: it is damaged")]
    Checksum {
        /// As stored.
        found: u32,
        /// As computed.
        computed: u32,
    },
    /// A flag that means nothing.
    #[error("entry {index} of the roll map has the flags {flags:#x}: expected 0 or 1")]
    Flags {
        /// Which entry.
        index: usize,
        /// Its flags.
        flags: u32,
    },
    /// Entries that do not follow each other.
    #[error("entries of the roll map: {0}")]
    Order(#[from] RollOrderError),
}

impl RollMap {
    /// Adds a roll that has returned. When there is no room, every second one of the older half but
    /// the oldest is dropped.
    ///
    /// # Errors
    /// When it does not follow the last one; the map is then as it was.
    pub fn push(&mut self, next: Roll) -> Result<(), RollOrderError> {
        if let Some(last) = self.rolls.last().copied()
            && (next.era <= last.era || next.epoch < last.epoch)
        {
            return Err(RollOrderError { last, next });
        }
        if self.rolls.len() >= MAX_ENTRIES {
            let mut index = 0;
            self.rolls.retain(|_| {
                index += 1;
                index > MAX_ENTRIES / 2 || index % 2 == 1
            });
        }
        self.rolls.push(next);
        Ok(())
    }

    /// The era from which on the metadata has everything that was written after epoch `base` ended.
    /// `None` when the map does not reach back so far: then everything counts as written.
    #[must_use]
    pub fn start(&self, base: u64) -> Option<Era> {
        let at_cut = self.rolls.iter().find(|roll| roll.epoch == base && roll.at_cut);
        let before = || self.rolls.iter().rev().find(|roll| roll.epoch < base);
        at_cut.or_else(before).map(|roll| roll.era)
    }

    /// Forgets what no base epoch from `base` on needs.
    pub fn forget_before(&mut self, base: u64) {
        if let Some(start) = self.start(base) {
            self.rolls.retain(|roll| roll.era >= start);
        }
    }

    /// The last era that is known: at a load the metadata's must be above it, else tracking is lost.
    #[must_use]
    pub fn last_era(&self) -> Option<Era> {
        self.rolls.last().map(|roll| roll.era)
    }

    /// All entries, oldest first.
    #[must_use]
    pub fn rolls(&self) -> &[Roll] {
        &self.rolls
    }

    /// As bytes, at most [`MAX_BYTES`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.rolls.len() * ENTRY + 4);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.rolls.len()).unwrap_or(u32::MAX).to_le_bytes());
        for roll in &self.rolls {
            let flags = if roll.at_cut { AT_CUT } else { 0 };
            bytes.extend_from_slice(&roll.era.0.to_le_bytes());
            bytes.extend_from_slice(&flags.to_le_bytes());
            bytes.extend_from_slice(&roll.epoch.to_le_bytes());
        }
        let sum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// From exactly the bytes that [`encode`](Self::encode) made.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let length = |expected| DecodeError::Length { found: bytes.len(), expected };
        let u32_at = |at: usize| {
            let field = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
            field.map(u32::from_le_bytes).ok_or_else(|| length(HEADER + 4))
        };
        if bytes.get(..8).ok_or_else(|| length(HEADER + 4))? != MAGIC {
            return Err(DecodeError::Magic);
        }
        let version = u32_at(8)?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let count = u32_at(12)?;
        let entries = match usize::try_from(count) {
            Ok(n) if n <= MAX_ENTRIES => n,
            _ => return Err(DecodeError::TooMany(count)),
        };
        let end = HEADER + entries * ENTRY;
        if bytes.len() != end + 4 {
            return Err(length(end + 4));
        }
        let (found, computed) = (u32_at(end)?, crc32c::crc32c(&bytes[..end]));
        if found != computed {
            return Err(DecodeError::Checksum { found, computed });
        }
        let mut map = Self::default();
        for (index, entry) in bytes[HEADER..end].chunks_exact(ENTRY).enumerate() {
            let flags = super::block::u32_at(entry, 4);
            if flags > AT_CUT {
                return Err(DecodeError::Flags { index, flags });
            }
            let (era, epoch) = (Era(super::block::u32_at(entry, 0)), super::block::u64_at(entry, 8));
            map.push(Roll { era, epoch, at_cut: flags == AT_CUT })?;
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(rolls: &[(u32, u64, bool)]) -> RollMap {
        let mut map = RollMap::default();
        for (era, epoch, at_cut) in rolls {
            map.push(Roll { era: Era(*era), epoch: *epoch, at_cut: *at_cut }).unwrap();
        }
        map
    }

    #[test]
    fn a_base_starts_at_its_own_cut_or_at_the_last_roll_before_it() {
        let map = map(&[(3, 0, false), (5, 10, true), (6, 10, false), (9, 20, false), (11, 30, true)]);
        assert_eq!(map.start(10), Some(Era(5)), "rolled in the pause of the cut");
        assert_eq!(map.start(15), Some(Era(6)), "the highest before");
        assert_eq!(map.start(20), Some(Era(6)), "era 9 began after cut 20, and writes came between");
        assert_eq!(map.start(29), Some(Era(9)));
        assert_eq!(map.start(30), Some(Era(11)));
        assert_eq!(map.start(u64::MAX), Some(Era(11)));
        assert_eq!(map.start(0), None, "era 3 began after epoch 0 ended, nobody knows when it did");
        assert_eq!(map.last_era(), Some(Era(11)));
    }

    #[test]
    fn what_is_needed_is_not_forgotten() {
        let mut map = map(&[(3, 0, false), (5, 10, true), (6, 10, false), (9, 20, false)]);
        map.forget_before(12);
        assert_eq!(map.rolls().len(), 2);
        assert_eq!(map.start(12), Some(Era(6)));
        assert_eq!(map.start(10), None, "older bases are");
    }

    #[test]
    fn a_history_that_was_reset_is_refused() {
        let mut map = map(&[(57, 10, true)]);
        for (era, epoch) in [(57, 11), (2, 11), (58, 9)] {
            let before = map.clone();
            assert!(map.push(Roll { era: Era(era), epoch, at_cut: false }).is_err());
            assert_eq!(map, before);
        }
    }

    #[test]
    fn the_format_is_frozen() {
        let bytes = map(&[(2, 1, true), (7, 0x1122, false)]).encode();
        let expected = "4654444d524f4c4c0100000002000000020000000100000001000000000000000700000000000000\
                        2211000000000000";
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(&hex[..hex.len() - 8], expected);
    }

    #[test]
    fn each_contradiction_has_its_error() {
        let good = map(&[(2, 1, true), (7, 9, false)]).encode();
        let sealed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            let end = bytes.len() - 4;
            let sum = crc32c::crc32c(&bytes[..end]);
            bytes[end..].copy_from_slice(&sum.to_le_bytes());
            RollMap::decode(&bytes)
        };
        assert_eq!(sealed(0, 0), Err(DecodeError::Magic));
        assert_eq!(sealed(8, 2), Err(DecodeError::Version(2)));
        assert_eq!(sealed(14, 1), Err(DecodeError::TooMany(65_538)));
        assert!(matches!(sealed(12, 1), Err(DecodeError::Length { .. })));
        assert_eq!(sealed(20, 4), Err(DecodeError::Flags { index: 0, flags: 4 }));
        assert!(matches!(sealed(32, 1), Err(DecodeError::Order(_))));
    }

    /// Rolls at some moments of a history of epochs, and which eras each write fell into.
    fn history() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(0u8..4, 1..200)
    }

    proptest! {
        #[test]
        fn encoding_is_exact_and_every_change_is_noticed(
            steps in proptest::collection::vec((1u32..9, 0u64..9, any::<bool>()), 0..40),
            at in any::<proptest::sample::Index>(),
            flip in 1u8..,
        ) {
            let mut map = RollMap::default();
            let (mut era, mut epoch) = (0, 0);
            for (more, later, at_cut) in steps {
                (era, epoch) = (era + more, epoch + later);
                map.push(Roll { era: Era(era), epoch, at_cut }).unwrap();
            }
            let mut bytes = map.encode();
            prop_assert!(bytes.len() <= MAX_BYTES);
            prop_assert_eq!(RollMap::decode(&bytes), Ok(map));
            let at = at.index(bytes.len());
            prop_assert!(RollMap::decode(&bytes[..at]).is_err());
            bytes[at] ^= flip;
            prop_assert!(RollMap::decode(&bytes).is_err());
        }

        #[test]
        fn no_write_after_the_base_lies_before_the_start(events in history(), lost in any::<u64>()) {
            // 0 a write, 1 a cut, 2 a roll, 3 a cut and a roll in one pause; some entries are lost.
            let (mut era, mut epoch) = (1u32, 0u64);
            let mut map = RollMap::default();
            let mut writes = Vec::new();
            for (index, event) in events.iter().enumerate() {
                if *event == 0 {
                    writes.push((epoch, era));
                    continue;
                }
                epoch += u64::from(*event != 2);
                if *event != 1 {
                    era += 1;
                    if lost >> (index % 64) & 1 == 0 {
                        map.push(Roll { era: Era(era), epoch, at_cut: *event == 3 }).unwrap();
                    }
                }
            }
            for base in 0..=epoch {
                let start = map.start(base).unwrap_or(Era(0));
                // A write with `after` == base came after the cut of epoch `base`.
                for (after, era) in writes.iter().filter(|(after, _)| *after >= base) {
                    prop_assert!(Era(*era) >= start, "base {}: a write after {} in era {}", base, after, era);
                }
            }
        }

        #[test]
        fn a_full_map_stays_right_and_bounded(rolls in 1u32..5000, base in 0u64..6000) {
            let mut map = RollMap::default();
            for n in 1..=rolls {
                map.push(Roll { era: Era(n + 1), epoch: n.into(), at_cut: true }).unwrap();
            }
            prop_assert!(map.rolls().len() <= MAX_ENTRIES);
            if base > 0 {
                let exact = base.min(rolls.into()) + 1;
                prop_assert!(map.start(base).is_some_and(|era| u64::from(era.0) <= exact));
            }
        }
    }
}
