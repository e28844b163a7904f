//! Positions and lengths on block devices, and dm-era's counter, shared by every crate of the workspace.
//!
//! Always holds: a [`Sector`] is a position, a [`Sectors`] is a length, both count 512-byte
//! sectors whatever the device's logical block size is, and an [`Extent`] never ends beyond
//! `u64::MAX` sectors. An [`Era`] is never mixed with an epoch or a generation, and has no arithmetic.
//! Nothing here does I/O.

use std::fmt;

/// Bytes in one sector: the kernel's unit, independent of the device's logical block size.
pub const SECTOR_SIZE: usize = 512;

/// A position on a device, in 512-byte sectors from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sector(pub u64);

/// A length, in 512-byte sectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sectors(pub u64);

/// dm-era's counter: rises by one at each roll, the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Era(pub u32);

impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Sector {
    /// The position in bytes. `None` when it does not fit 64 bits.
    #[must_use]
    pub fn bytes(self) -> Option<u64> {
        self.0.checked_mul(SECTOR_SIZE as u64)
    }
}

impl Sectors {
    /// The length in bytes. `None` when it does not fit 64 bits.
    #[must_use]
    pub fn bytes(self) -> Option<u64> {
        self.0.checked_mul(SECTOR_SIZE as u64)
    }

    /// The sectors that `bytes` fill. `None` unless `bytes` is a whole number of sectors.
    #[must_use]
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        bytes.is_multiple_of(SECTOR_SIZE as u64).then_some(Self(bytes / SECTOR_SIZE as u64))
    }
}

impl fmt::Display for Sector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sector {}", self.0)
    }
}

impl fmt::Display for Sectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sectors", self.0)
    }
}

/// A contiguous, non-empty run of sectors: `[start, start + len)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    start: Sector,
    len: Sectors,
}

impl Extent {
    /// The extent of `len` sectors from `start`. `None` when it is empty or its end overflows.
    #[must_use]
    pub fn new(start: Sector, len: Sectors) -> Option<Self> {
        (len.0 > 0 && start.0.checked_add(len.0).is_some()).then_some(Self { start, len })
    }

    /// The extent from `start` up to, not including, `end`. `None` when that is empty.
    #[must_use]
    pub fn between(start: Sector, end: Sector) -> Option<Self> {
        let len = end.0.checked_sub(start.0)?;
        Self::new(start, Sectors(len))
    }

    /// First sector.
    #[must_use]
    pub fn start(self) -> Sector {
        self.start
    }

    /// One past the last sector.
    #[must_use]
    pub fn end(self) -> Sector {
        Sector(self.start.0 + self.len.0)
    }

    /// Length.
    #[must_use]
    pub fn len(self) -> Sectors {
        self.len
    }

    /// Never true: an extent holds at least one sector.
    #[must_use]
    pub fn is_empty(self) -> bool {
        false
    }

    /// Whether the whole extent lies on a device of `size` sectors.
    #[must_use]
    pub fn fits(self, size: Sectors) -> bool {
        self.end().0 <= size.0
    }

    /// The sectors in both. `None` when there are none.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        Self::between(self.start.max(other.start), self.end().min(other.end()))
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sectors {}..{}", self.start.0, self.end().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(start: u64, len: u64) -> Extent {
        Extent::new(Sector(start), Sectors(len)).unwrap()
    }

    #[test]
    fn empty_and_overflowing_extents_do_not_exist() {
        assert_eq!(Extent::new(Sector(5), Sectors(0)), None);
        assert_eq!(Extent::new(Sector(u64::MAX), Sectors(1)), None);
        assert_eq!(Extent::between(Sector(5), Sector(5)), None);
        assert_eq!(Extent::between(Sector(6), Sector(5)), None);
    }

    #[test]
    fn intersection_is_exact_at_both_edges() {
        assert_eq!(extent(0, 8).intersect(extent(8, 8)), None);
        assert_eq!(extent(0, 9).intersect(extent(8, 8)), Some(extent(8, 1)));
        assert_eq!(extent(4, 2).intersect(extent(0, 16)), Some(extent(4, 2)));
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        assert_eq!(Sectors(u64::MAX).bytes(), None);
        assert_eq!(Sectors::from_bytes(513), None);
        assert_eq!(Sectors::from_bytes(1024), Some(Sectors(2)));
    }
}
