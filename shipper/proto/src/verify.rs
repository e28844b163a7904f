//! What a verify compares: places on the volumes, and the digests of what they hold.
//!
//! Always holds: a [`HashRequest`] that was decoded asks for a bounded number of digests over a bounded number of
//! bytes, so an answer fits one control frame; whether its places lie on the volumes is checked against the group by
//! [`HashRequest::check`] before anything is read.

mod inspection;

use ftdm_units::{Extent, SECTOR_SIZE, Sector, Sectors};
use sha2::{Digest as _, Sha256};

use crate::group::GroupDescription;
use crate::ids::{Digest, Epoch, VolumeIndex};
use crate::tlv::{TlvError, Value};

pub use inspection::{Inspection, patch};

/// Most places in a request.
pub const MAX_PLACES: usize = 64;
/// Most digests in an answer.
pub const MAX_DIGESTS: usize = 1024;
/// Most sectors for one digest: 1 MiB.
pub const MAX_UNIT: Sectors = Sectors(2048);
/// Most sectors that a request covers: 32 MiB.
pub const MAX_HASHED: Sectors = Sectors(65_536);

const PLACE_LEN: usize = 18;

/// A run of sectors of one volume of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which volume.
    pub volume: VolumeIndex,
    /// Where on it.
    pub extent: Extent,
}

impl Place {
    /// Its parts of `unit` sectors, counted from its beginning; the last may be shorter.
    pub fn units(self, unit: Sectors) -> impl Iterator<Item = Self> {
        let (start, end) = (self.extent.start().0, self.extent.end());
        (0..self.extent.len().0.div_ceil(unit.0.max(1))).filter_map(move |n| {
            let from = Sector(start + n * unit.0);
            let extent = Extent::between(from, Sector(from.0 + unit.0).min(end))?;
            Some(Self { volume: self.volume, extent })
        })
    }

    /// How many those are.
    #[must_use]
    pub fn unit_count(self, unit: Sectors) -> usize {
        usize::try_from(self.extent.len().0.div_ceil(unit.0.max(1))).unwrap_or(usize::MAX)
    }
}

/// The first half of a [`Digest`]. Two contents that meet in it by chance are as unlikely as 2^-128; to make two takes
/// 2^64 trials, and gains whoever may write to the volume a wrong block in the copy of his own volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShortDigest(pub [u8; 16]);

impl From<Digest> for ShortDigest {
    fn from(whole: Digest) -> Self {
        let (half, _) = whole.0.split_first_chunk().unwrap_or((&[0; 16], &[]));
        Self(*half)
    }
}

/// The digests of what a place holds, one of each `unit`.
#[must_use]
pub fn digests_of<D: From<Digest>>(data: &[u8], unit: Sectors) -> Vec<D> {
    let len = usize::try_from(unit.0).unwrap_or(usize::MAX).saturating_mul(SECTOR_SIZE);
    data.chunks(len.max(1)).map(|part| D::from(Digest(Sha256::digest(part).into()))).collect()
}

/// How long the digests of an answer are to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DigestLength {
    /// [`Digest`]: a verify.
    #[default]
    Whole,
    /// [`ShortDigest`]: a sync, to find what need not be sent.
    Short,
}

/// Digests of places, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Digests {
    /// As a verify wants them.
    Whole(Vec<Digest>),
    /// As a sync wants them.
    Short(Vec<ShortDigest>),
}

impl Digests {
    /// None yet, of this length.
    #[must_use]
    pub fn none(length: DigestLength) -> Self {
        match length {
            DigestLength::Whole => Self::Whole(Vec::new()),
            DigestLength::Short => Self::Short(Vec::new()),
        }
    }

    /// Adds those of each `unit` of `data`.
    pub fn add(&mut self, data: &[u8], unit: Sectors) {
        match self {
            Self::Whole(digests) => digests.extend(digests_of::<Digest>(data, unit)),
            Self::Short(digests) => digests.extend(digests_of::<ShortDigest>(data, unit)),
        }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Whole(digests) => digests.len(),
            Self::Short(digests) => digests.len(),
        }
    }
}

/// What the primary asks the backup to hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashRequest {
    /// Comes back with the answer.
    pub token: u64,
    /// When: once exactly this epoch is on the volumes; [`Epoch::NONE`]: at once, whatever they hold.
    pub epoch: Epoch,
    /// One digest for each so many sectors of a place.
    pub unit: Sectors,
    /// How long they are to be.
    pub length: DigestLength,
    /// What, in the order of the answer.
    pub places: Vec<Place>,
}

impl HashRequest {
    /// Digests in the answer.
    #[must_use]
    pub fn digest_count(&self) -> usize {
        self.places.iter().map(|place| place.unit_count(self.unit)).fold(0, usize::saturating_add)
    }

    /// Sectors covered.
    #[must_use]
    pub fn sectors(&self) -> Sectors {
        Sectors(self.places.iter().map(|place| place.extent.len().0).fold(0, u64::saturating_add))
    }

    /// Whether every place is whole logical blocks of a volume of `group`.
    ///
    /// # Errors
    /// The first one that is not, for people.
    pub fn check(&self, group: &GroupDescription) -> Result<(), String> {
        let holds =
            |place: &&Place| group.volume(place.volume).is_some_and(|volume| volume.holds(place.extent));
        match self.places.iter().find(|place| !holds(place)) {
            Some(place) => Err(format!("{} are not whole blocks within {}", place.extent, place.volume)),
            None => Ok(()),
        }
    }

    /// The places as {volume u16, first sector u64, sectors u64} each.
    pub(crate) fn encode_places(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.places.len() * PLACE_LEN);
        for place in &self.places {
            bytes.extend_from_slice(&place.volume.0.to_le_bytes());
            bytes.extend_from_slice(&place.extent.start().0.to_le_bytes());
            bytes.extend_from_slice(&place.extent.len().0.to_le_bytes());
        }
        bytes
    }

    /// Reads what was encoded; checks every bound that needs no group.
    pub(crate) fn decode(
        token: u64,
        epoch: Epoch,
        unit: Sectors,
        length: DigestLength,
        mut places: Value<'_>,
    ) -> Result<Self, TlvError> {
        let count = places.left() / PLACE_LEN;
        if !(1..=MAX_PLACES).contains(&count) {
            return Err(places.invalid(format!("{count} places, of 1 to {MAX_PLACES}")));
        }
        if !(1..=MAX_UNIT.0).contains(&unit.0) {
            return Err(places.invalid(format!("places in units of {unit}, of 1 to {}", MAX_UNIT.0)));
        }
        let mut request = Self { token, epoch, unit, length, places: Vec::with_capacity(count) };
        for _ in 0..count {
            let volume = VolumeIndex(places.u16()?);
            let (start, len) = (Sector(places.u64()?), Sectors(places.u64()?));
            let extent = Extent::new(start, len).ok_or_else(|| places.invalid("a place of no sectors"))?;
            request.places.push(Place { volume, extent });
        }
        if request.digest_count() > MAX_DIGESTS || request.sectors() > MAX_HASHED {
            return Err(places.invalid("more than one request may ask for"));
        }
        places.end()?;
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{extent, group};

    fn place(volume: u16, start: u64, len: u64) -> Place {
        Place { volume: VolumeIndex(volume), extent: extent(start, len) }
    }

    #[test]
    fn units_cover_a_place_once_and_the_last_may_be_short() {
        let parts: Vec<_> = place(1, 10, 20).units(Sectors(8)).collect();
        assert_eq!(parts, [place(1, 10, 8), place(1, 18, 8), place(1, 26, 4)]);
        assert_eq!(place(1, 10, 20).unit_count(Sectors(8)), 3);
        let of = |len: usize| digests_of::<Digest>(&vec![0; len], Sectors(8));
        assert_eq!(of(20 * 512).len(), 3);
        assert_ne!(of(512), of(1024));
        assert_eq!(digests_of::<ShortDigest>(&[0; 512], Sectors(8))[0].0, of(512)[0].0[..16]);
    }

    #[test]
    fn places_off_the_volumes_are_refused_before_anything_is_read() {
        let request = |places: Vec<Place>| HashRequest {
            token: 1,
            epoch: Epoch::NONE,
            unit: Sectors(8),
            length: DigestLength::Whole,
            places,
        };
        assert_eq!(request(vec![place(0, 1, 1), place(1, 8, 16)]).check(&group()), Ok(()));
        for bad in [place(2, 0, 8), place(1, 1, 8), place(0, (1 << 20) - 4, 8)] {
            assert!(request(vec![place(0, 0, 8), bad]).check(&group()).is_err(), "{bad:?}");
        }
    }
}
