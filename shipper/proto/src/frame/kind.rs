//! The kinds of frames and their frozen numbers.

/// What a frame's payload holds. The numbers are frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// The primary introduces itself.
    Hello,
    /// The backup accepts and says where it stands.
    Welcome,
    /// Either side declines, with a typed reason.
    Refuse,
    /// Either side leaves.
    Bye,
    /// Asks for a [`FrameKind::Pong`].
    Ping,
    /// Answers a [`FrameKind::Ping`].
    Pong,
    /// The backup's progress.
    Report,
    /// The primary starts a base copy.
    SyncBegin,
    /// The backup has durably noted that a base copy rewrites it.
    SyncReady,
    /// Records of a base copy.
    BaseData,
    /// The base copy is whole.
    BaseEnd,
    /// Where the backup, once a primary, has content of its own: to be copied too.
    Differs,
    /// First frame of an epoch: its header.
    EpochBegin,
    /// Records of an epoch.
    EpochData,
    /// Last frame of an epoch: its counts and digest.
    EpochEnd,
    /// The backup holds the epoch durably.
    Staged,
    /// The coordinator committed the epoch and all before it.
    Commit,
    /// The primary asks for digests of what the volumes hold.
    Hash,
    /// Answers a [`FrameKind::Hash`].
    Digests,
    /// The primary has stepped down on purpose: the backup is to be the primary.
    TakeOver,
    /// Journal only: nothing up to the ring's end, the next frame is at its start.
    JournalPad,
    /// Journal only: whatever lay here up to this frame's epoch was dropped on purpose.
    JournalDrop,
    /// A kind that this version does not know and may skip.
    Skippable(u16),
}

/// Set in the number of a kind that an older reader may skip.
const OPTIONAL: u16 = 0x8000;

/// Numbers of the known kinds: 0x01.. sessions, 0x10.. base copies, 0x20.. epochs, 0x30.. comparing,
/// 0x40.. journal only.
const NUMBERS: [(FrameKind, u16); 22] = [
    (FrameKind::Hello, 0x01),
    (FrameKind::Welcome, 0x02),
    (FrameKind::Refuse, 0x03),
    (FrameKind::Bye, 0x04),
    (FrameKind::Ping, 0x05),
    (FrameKind::Pong, 0x06),
    (FrameKind::Report, 0x07),
    (FrameKind::SyncBegin, 0x10),
    (FrameKind::SyncReady, 0x11),
    (FrameKind::BaseData, 0x12),
    (FrameKind::BaseEnd, 0x13),
    (FrameKind::Differs, 0x14),
    (FrameKind::EpochBegin, 0x20),
    (FrameKind::EpochData, 0x21),
    (FrameKind::EpochEnd, 0x22),
    (FrameKind::Staged, 0x23),
    (FrameKind::Commit, 0x24),
    (FrameKind::TakeOver, 0x25),
    (FrameKind::Hash, 0x30),
    (FrameKind::Digests, 0x31),
    (FrameKind::JournalPad, 0x40),
    (FrameKind::JournalDrop, 0x41),
];

impl FrameKind {
    /// The frozen number.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::Skippable(number) => number | OPTIONAL,
            known => NUMBERS.iter().find(|(kind, _)| *kind == known).map_or(OPTIONAL, |(_, number)| *number),
        }
    }

    /// The kind of a number. `None` when it is unknown and must not be skipped.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        if number & OPTIONAL != 0 {
            return Some(Self::Skippable(number));
        }
        NUMBERS.iter().find(|(_, n)| *n == number).map(|(kind, _)| *kind)
    }

    /// Whether the payload is records, which may be large and compressed.
    #[must_use]
    pub fn carries_records(self) -> bool {
        matches!(self, Self::BaseData | Self::EpochData | Self::Differs)
    }

    /// Whether it is one of the three frames that make an epoch.
    #[must_use]
    pub fn is_of_epoch(self) -> bool {
        matches!(self, Self::EpochBegin | Self::EpochData | Self::EpochEnd)
    }

    /// Whether it lies in a journal only and never comes over a connection.
    #[must_use]
    pub fn is_journal_only(self) -> bool {
        matches!(self, Self::JournalPad | Self::JournalDrop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_kinds_are_one_to_one() {
        for (kind, number) in NUMBERS {
            assert_eq!(kind.number(), number);
            assert_eq!(FrameKind::from_number(number), Some(kind));
        }
        assert_eq!(FrameKind::from_number(0), None);
        assert_eq!(FrameKind::from_number(0x7fff), None);
        assert_eq!(FrameKind::from_number(0x8123), Some(FrameKind::Skippable(0x8123)));
        assert_eq!(FrameKind::Skippable(0x8123).number(), 0x8123);
    }
}
