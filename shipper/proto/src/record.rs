//! What the raw payload of a data frame holds: descriptors, then the data they describe.
//!
//! Always holds: a record that comes out of a [`RecordIter`] names an extent that lies on its volume,
//! is made of whole logical blocks and has exactly its data; within a frame records are sorted and
//! do not overlap. What goes into a [`RecordBuilder`] is checked the same way.
//!
//! ```text
//! descriptor, little endian, 24 bytes:
//!      0     1  kind: 1 base, 2 data, 3 zero, 4 unknown; 5, once kept for a resize, is refused
//!      1     1  zero
//!      2     2  volume index
//!      4     4  length in sectors
//!      8     8  first sector
//!     16     8  zero
//! payload: the frame's record count of descriptors, then the data of all base and data records in
//! the order of their descriptors. Order: volume, then first sector.
//! ```

use ftdm_units::{Extent, SECTOR_SIZE, Sector, Sectors};

use crate::frame::{FrameKind, MAX_RAW_PAYLOAD, MIN_RECORD_LEN};
use crate::group::GroupDescription;
use crate::ids::VolumeIndex;

/// Bytes of a descriptor.
pub const DESCRIPTOR_LEN: usize = MIN_RECORD_LEN;

/// What a record does. The numbers are frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// Content read by a base copy; what an epoch says about the sector overrides it.
    Base = 1,
    /// Content written in the epoch.
    Data = 2,
    /// Zeros, without data.
    Zero = 3,
    /// The primary discarded it: any content will do.
    Unknown = 4,
}

/// The frozen number of a resize. Sizes travel with the group of an epoch instead, so no version sends one.
const RESIZE: u8 = 5;

impl RecordKind {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Base, Self::Data, Self::Zero, Self::Unknown].into_iter().find(|kind| *kind as u8 == number)
    }

    /// Whether the record brings data.
    #[must_use]
    pub fn has_data(self) -> bool {
        matches!(self, Self::Base | Self::Data)
    }

    /// Whether a frame of `frame` may hold such records.
    #[must_use]
    fn belongs_in(self, frame: FrameKind) -> bool {
        match frame {
            FrameKind::BaseData => matches!(self, Self::Base | Self::Zero),
            FrameKind::EpochData => self != Self::Base,
            FrameKind::Differs => self == Self::Unknown,
            _ => false,
        }
    }
}

/// What an extent holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// These bytes: as many as the extent has.
    Data(&'a [u8]),
    /// Zeros.
    Zero,
    /// Discarded: any content will do.
    Unknown,
}

/// One record, checked: the extent of the volume has this content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Which volume.
    pub volume: VolumeIndex,
    /// Where.
    pub extent: Extent,
    /// What.
    pub content: Content<'a>,
}

/// A record that is not sound. `index` counts within the frame, or is what is being built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The descriptors do not fit the payload.
    #[error("{count} records do not fit a payload of {len} bytes")]
    Count {
        /// Records that the header promises.
        count: u32,
        /// Bytes that there are.
        len: usize,
    },
    /// A kind that is unknown or does not belong in such a frame.
    #[error("record {index} is of kind {kind}, which a {frame:?} frame cannot hold")]
    Kind {
        /// Which record.
        index: usize,
        /// Its kind.
        kind: u8,
        /// Kind of the frame.
        frame: FrameKind,
    },
    /// Bytes that must be zero in this version.
    #[error("record {index} has bytes set that this version keeps zero")]
    Reserved {
        /// Which record.
        index: usize,
    },
    /// No such volume.
    #[error("record {index} is for {volume}, which the group does not have")]
    Volume {
        /// Which record.
        index: usize,
        /// The volume.
        volume: VolumeIndex,
    },
    /// An extent that is empty, beyond the volume's end or not made of whole logical blocks.
    #[error("record {index}: {len} at {start} is not whole blocks within {volume}")]
    Extent {
        /// Which record.
        index: usize,
        /// The volume.
        volume: VolumeIndex,
        /// First sector.
        start: Sector,
        /// Length.
        len: Sectors,
    },
    /// A new size of a volume.
    #[error("record {index} is a resize of a volume, which this version cannot follow")]
    Resize {
        /// Which record.
        index: usize,
    },
    /// A record that is not after the one before.
    #[error("record {index} is not after the one before it")]
    Order {
        /// Which record.
        index: usize,
    },
    /// Data that is not as long as the extents.
    #[error("the records need {needed} bytes of data, there are {found}")]
    DataLength {
        /// As the extents say.
        needed: u64,
        /// What is there.
        found: usize,
    },
    /// No room left in the frame.
    #[error("a record of {needed} bytes does not fit the {room} that a frame has left")]
    Full {
        /// Descriptor and data.
        needed: usize,
        /// What is left.
        room: usize,
    },
}

/// A descriptor, checked against the group and the frame's kind.
#[derive(Clone, Copy, Debug)]
struct Descriptor {
    kind: RecordKind,
    volume: VolumeIndex,
    start: Sector,
    len: Sectors,
}

/// Up to where a frame's records reach: the next one must begin there or later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Reach {
    volume: u16,
    sector: u64,
}

impl Descriptor {
    /// The descriptor of an extent's content in a `frame`, and its data.
    fn of(frame: FrameKind, volume: VolumeIndex, extent: Extent, content: Content<'_>) -> (Self, &[u8]) {
        let (kind, data): (_, &[u8]) = match content {
            Content::Data(data) if frame == FrameKind::BaseData => (RecordKind::Base, data),
            Content::Data(data) => (RecordKind::Data, data),
            Content::Zero => (RecordKind::Zero, &[]),
            Content::Unknown => (RecordKind::Unknown, &[]),
        };
        (Self { kind, volume, start: extent.start(), len: extent.len() }, data)
    }

    /// Checks everything of a record that is to be built but its place among the others.
    fn check_alone(
        &self,
        index: usize,
        frame: FrameKind,
        group: &GroupDescription,
        data: &[u8],
    ) -> Result<(), RecordError> {
        if !self.kind.belongs_in(frame) {
            return Err(RecordError::Kind { index, kind: self.kind as u8, frame });
        }
        self.check(index, group)?;
        if self.data_len() != data.len() as u64 {
            return Err(RecordError::DataLength { needed: self.data_len(), found: data.len() });
        }
        Ok(())
    }

    /// The extent. `None` when it is none.
    fn extent(&self) -> Option<Extent> {
        Extent::new(self.start, self.len)
    }

    fn data_len(&self) -> u64 {
        if self.kind.has_data() { self.len.0 * SECTOR_SIZE as u64 } else { 0 }
    }

    /// Checks the record by itself.
    fn check(&self, index: usize, group: &GroupDescription) -> Result<(), RecordError> {
        let Self { volume, start, len, .. } = *self;
        let described = group.volume(volume).ok_or(RecordError::Volume { index, volume })?;
        if self.extent().is_some_and(|extent| described.holds(extent)) {
            Ok(())
        } else {
            Err(RecordError::Extent { index, volume, start, len })
        }
    }

    /// Checks that the record comes after `reach`, and gives the reach with it.
    fn extend(&self, reach: Reach, index: usize) -> Result<Reach, RecordError> {
        let at = |sector: Sector| Reach { volume: self.volume.0, sector: sector.0 };
        match self.extent() {
            Some(extent) if at(extent.start()) >= reach => Ok(at(extent.end())),
            _ => Err(RecordError::Order { index }),
        }
    }

    fn encode(&self) -> [u8; DESCRIPTOR_LEN] {
        let mut bytes = [0; DESCRIPTOR_LEN];
        bytes[0] = self.kind as u8;
        bytes[2..4].copy_from_slice(&self.volume.0.to_le_bytes());
        bytes[4..8].copy_from_slice(&u32::try_from(self.len.0).unwrap_or(u32::MAX).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.start.0.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; DESCRIPTOR_LEN], index: usize, frame: FrameKind) -> Result<Self, RecordError> {
        let [number, reserved, v0, v1, l0, l1, l2, l3, s0, s1, s2, s3, s4, s5, s6, s7, tail @ ..] = *bytes;
        if number == RESIZE {
            return Err(RecordError::Resize { index });
        }
        let kind = RecordKind::from_number(number)
            .filter(|kind| kind.belongs_in(frame))
            .ok_or(RecordError::Kind { index, kind: number, frame })?;
        if reserved != 0 || tail != [0; 8] {
            return Err(RecordError::Reserved { index });
        }
        Ok(Self {
            kind,
            volume: VolumeIndex(u16::from_le_bytes([v0, v1])),
            start: Sector(u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7])),
            len: Sectors(u64::from(u32::from_le_bytes([l0, l1, l2, l3]))),
        })
    }
}

/// Checks content that is to be pushed in pieces. Returns the volume's logical block.
pub(crate) fn check_content(
    frame: FrameKind,
    group: &GroupDescription,
    volume: VolumeIndex,
    extent: Extent,
    content: Content<'_>,
) -> Result<Sectors, RecordError> {
    let (descriptor, data) = Descriptor::of(frame, volume, extent, content);
    descriptor.check_alone(0, frame, group, data)?;
    Ok(group.volume(volume).ok_or(RecordError::Volume { index: 0, volume })?.block())
}

/// Gathers the records of one data frame.
#[derive(Debug)]
pub struct RecordBuilder {
    frame: FrameKind,
    descriptors: Vec<u8>,
    data: Vec<u8>,
    reach: Reach,
}

impl RecordBuilder {
    /// An empty builder for frames of `frame`: [`FrameKind::BaseData`] or [`FrameKind::EpochData`].
    #[must_use]
    pub fn new(frame: FrameKind) -> Self {
        Self::reusing(frame, Vec::new())
    }

    /// The same, which gathers data in the memory of `data`, an empty buffer.
    pub(crate) fn reusing(frame: FrameKind, data: Vec<u8>) -> Self {
        Self { frame, descriptors: Vec::new(), data, reach: Reach::default() }
    }

    /// Gives the memory for data back. What was gathered is lost.
    pub(crate) fn give_up(&mut self) -> Vec<u8> {
        self.descriptors.clear();
        std::mem::take(&mut self.data)
    }

    /// Adds an extent's content; `Data` becomes a base record in a base frame.
    ///
    /// # Errors
    /// Nothing is added when the record is not sound, not after the one before, or does not fit.
    pub fn push(
        &mut self,
        group: &GroupDescription,
        volume: VolumeIndex,
        extent: Extent,
        content: Content<'_>,
    ) -> Result<(), RecordError> {
        let (descriptor, data) = Descriptor::of(self.frame, volume, extent, content);
        self.add(group, descriptor, data)
    }

    fn add(&mut self, group: &GroupDescription, new: Descriptor, data: &[u8]) -> Result<(), RecordError> {
        let index = self.count() as usize;
        new.check_alone(index, self.frame, group, data)?;
        let (needed, room) = (DESCRIPTOR_LEN + data.len(), MAX_RAW_PAYLOAD - self.raw_len());
        if needed > room || u32::try_from(new.len.0).is_err() {
            return Err(RecordError::Full { needed, room });
        }
        self.reach = new.extend(self.reach, index)?;
        self.descriptors.extend_from_slice(&new.encode());
        self.data.extend_from_slice(data);
        Ok(())
    }

    /// Records gathered.
    #[must_use]
    pub fn count(&self) -> u32 {
        // At most MAX_RAW_PAYLOAD / DESCRIPTOR_LEN.
        u32::try_from(self.descriptors.len() / DESCRIPTOR_LEN).unwrap_or(u32::MAX)
    }

    /// Whether nothing was gathered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.descriptors.is_empty()
    }

    /// Bytes that the raw payload has by now.
    #[must_use]
    pub fn raw_len(&self) -> usize {
        self.descriptors.len() + self.data.len()
    }

    /// Replaces `out` by the raw payload and starts over. Returns the record count.
    pub fn take(&mut self, out: &mut Vec<u8>) -> u32 {
        let count = self.count();
        out.clear();
        out.reserve(self.raw_len());
        out.extend_from_slice(&self.descriptors);
        out.extend_from_slice(&self.data);
        self.descriptors.clear();
        self.data.clear();
        self.reach = Reach::default();
        count
    }
}

/// The records of one data frame. The whole payload is checked before the first record comes out.
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    descriptors: &'a [[u8; DESCRIPTOR_LEN]],
    data: &'a [u8],
    frame: FrameKind,
}

impl<'a> RecordIter<'a> {
    /// Checks the raw payload of a `frame` that promises `record_count` records.
    ///
    /// # Errors
    /// The first thing that is not sound; then no record of the frame is to be used.
    pub fn new(
        raw: &'a [u8],
        frame: FrameKind,
        record_count: u32,
        group: &GroupDescription,
    ) -> Result<Self, RecordError> {
        let wrong_count = RecordError::Count { count: record_count, len: raw.len() };
        let descriptors_len = (record_count as usize).checked_mul(DESCRIPTOR_LEN);
        let (descriptors, data) =
            descriptors_len.and_then(|len| raw.split_at_checked(len)).ok_or(wrong_count)?;
        let (descriptors, _) = descriptors.as_chunks::<DESCRIPTOR_LEN>();
        let (mut needed, mut reach) = (0u64, Reach::default());
        for (index, bytes) in descriptors.iter().enumerate() {
            let descriptor = Descriptor::decode(bytes, index, frame)?;
            descriptor.check(index, group)?;
            reach = descriptor.extend(reach, index)?;
            needed = needed.saturating_add(descriptor.data_len());
        }
        if needed != data.len() as u64 {
            return Err(RecordError::DataLength { needed, found: data.len() });
        }
        Ok(Self { descriptors, data, frame })
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (bytes, rest) = self.descriptors.split_first()?;
        self.descriptors = rest;
        // Every step below was proven by `new`.
        let descriptor = Descriptor::decode(bytes, 0, self.frame).ok()?;
        let (volume, extent) = (descriptor.volume, descriptor.extent()?);
        let (data, rest) = self.data.split_at_checked(usize::try_from(descriptor.data_len()).ok()?)?;
        self.data = rest;
        let content = match descriptor.kind {
            RecordKind::Zero => Content::Zero,
            RecordKind::Unknown => Content::Unknown,
            RecordKind::Base | RecordKind::Data => Content::Data(data),
        };
        Some(Record { volume, extent, content })
    }
}

#[cfg(test)]
mod tests;
