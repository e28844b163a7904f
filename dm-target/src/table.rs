//! The table of an `ft` target, as `ftdm create --table` takes it.
//!
//! Always holds: an [`FtTable`] has legal numbers; whether the devices exist and fit is checked
//! where the stack is built.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::units::Sectors;

/// What every table error ends with.
const SYNTAX: &str = "0 SECTORS ft METADATA ORIGIN BLOCK_SECTORS";
/// dm-era's smallest block, which is also what its block size must be a multiple of.
const BLOCK_GRANULE: u32 = 8;
/// The largest block ftdm accepts: 1 GiB. The kernel takes more, where tracking says nothing.
const MAX_BLOCK: u32 = 1 << 21;
/// dm-era tracks fewer than 2^31 blocks.
pub const MAX_BLOCKS: u64 = (1 << 31) - 1;

/// dm-era's tracking granule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSectors(u32);

impl BlockSectors {
    /// `None` unless dm-era takes it: a multiple of 8 sectors, at most 1 GiB.
    #[must_use]
    pub fn new(sectors: u32) -> Option<Self> {
        let legal = sectors.is_multiple_of(BLOCK_GRANULE) && (BLOCK_GRANULE..=MAX_BLOCK).contains(&sectors);
        legal.then_some(Self(sectors))
    }

    /// In sectors.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// The blocks that cover `volume`, the last one possibly in part.
    #[must_use]
    pub fn count(self, volume: Sectors) -> u64 {
        volume.0.div_ceil(u64::from(self.0))
    }
}

impl FromStr for BlockSectors {
    type Err = TableError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().ok().and_then(Self::new).ok_or_else(|| TableError::Word {
            name: "BLOCK_SECTORS",
            found: text.to_owned(),
            expected: "a multiple of 8 from 8 to 2097152",
        })
    }
}

/// A parsed table: which volume is tracked, where the metadata is, in which granule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FtTable {
    /// Size of the visible device; no more than the origin's.
    pub sectors: Sectors,
    /// The device that keeps dm-era's state: a path or `MAJOR:MINOR`.
    pub metadata: PathBuf,
    /// The protected logical volume: a path or `MAJOR:MINOR`.
    pub origin: PathBuf,
    /// dm-era's granule.
    pub block: BlockSectors,
}

/// What is wrong with a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// More or fewer words than there are.
    #[error("the table has {0} words: expected `{SYNTAX}`")]
    Words(usize),
    /// One word is not what belongs there.
    #[error("{name} is `{found}`: expected {expected} (`{SYNTAX}`)")]
    Word {
        /// Which word.
        name: &'static str,
        /// What stands there.
        found: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// Several lines, where an `ft` table has one.
    #[error("the table has several lines: expected one, `{SYNTAX}`")]
    Lines,
    /// More blocks than dm-era counts.
    #[error(
        "{sectors} sectors in blocks of {block} are {blocks} blocks: dm-era tracks at most {MAX_BLOCKS}, \
         so take larger blocks"
    )]
    Blocks {
        /// Size asked for.
        sectors: u64,
        /// Block size asked for.
        block: u32,
        /// The blocks that makes.
        blocks: u64,
    },
}

fn word(name: &'static str, found: &str, expected: &'static str) -> TableError {
    TableError::Word { name, found: found.to_owned(), expected }
}

impl FromStr for FtTable {
    type Err = TableError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.contains('\n') {
            return Err(TableError::Lines);
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let [start, sectors, target, metadata, origin, block] = words[..] else {
            return Err(TableError::Words(words.len()));
        };
        if start != "0" {
            return Err(word("the start sector", start, "0"));
        }
        let sectors = match sectors.parse() {
            Ok(n) if n > 0 && Sectors(n).bytes().is_some() => Sectors(n),
            _ => return Err(word("SECTORS", sectors, "a number of 512-byte sectors above 0")),
        };
        if target != "ft" {
            return Err(word("the target", target, "`ft`"));
        }
        let block: BlockSectors = block.parse()?;
        let blocks = block.count(sectors);
        if blocks > MAX_BLOCKS {
            return Err(TableError::Blocks { sectors: sectors.0, block: block.get(), blocks });
        }
        Ok(Self { sectors, metadata: metadata.into(), origin: origin.into(), block })
    }
}

impl fmt::Display for FtTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (metadata, origin) = (self.metadata.display(), self.origin.display());
        write!(f, "0 {} ft {metadata} {origin} {}", self.sectors.0, self.block.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_survives_being_shown() {
        let text = "0 2097152 ft /dev/vg/vm1_meta /dev/vg/vm1 128";
        assert_eq!(text.parse::<FtTable>().unwrap().to_string(), text);
    }

    #[test]
    fn the_wrong_word_is_named() {
        let named = |text: &str, expected: &str| match text.parse::<FtTable>() {
            Err(TableError::Word { name, .. }) => assert_eq!(name, expected, "{text}"),
            other => panic!("{text}: {other:?}"),
        };
        named("1 8 ft m o 8", "the start sector");
        named("0 0 ft m o 8", "SECTORS");
        named("0 -8 ft m o 8", "SECTORS");
        named("0 36028797018963968 ft m o 8", "SECTORS");
        named("0 8 era m o 8", "the target");
        for block in ["0", "4", "12", "2097160", "x", "4294967296"] {
            named(&format!("0 8 ft m o {block}"), "BLOCK_SECTORS");
        }
        assert_eq!("0 8 ft m o".parse::<FtTable>(), Err(TableError::Words(5)));
        assert_eq!("0 8 ft m o 8\n8 8 ft m o 8".parse::<FtTable>(), Err(TableError::Lines));
    }

    #[test]
    fn blocks_need_not_be_a_power_of_two_but_must_be_countable() {
        assert_eq!("0 100 ft m o 24".parse::<FtTable>().unwrap().block.count(Sectors(100)), 5);
        let most = MAX_BLOCKS * 8;
        assert!(format!("0 {most} ft m o 8").parse::<FtTable>().is_ok());
        let more = most + 1;
        assert!(matches!(format!("0 {more} ft m o 8").parse::<FtTable>(), Err(TableError::Blocks { .. })));
    }
}
