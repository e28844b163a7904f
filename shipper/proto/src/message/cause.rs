//! Why a side declines or leaves.
//!
//! Always holds: the numbers are frozen, and one that this version does not know is no error.

use crate::tlv::{TlvError, Value};

/// Why a side declines. The numbers are frozen; unknown ones are kept as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseCode {
    /// No common protocol version.
    Version,
    /// Another group's name.
    Group,
    /// The volumes differ.
    VolumeMismatch,
    /// This host has been promoted.
    Promoted,
    /// This host's state or journal is not formatted.
    NotFormatted,
    /// Another connection is being served, or another role change is under way.
    Busy,
    /// This host cannot go on: its disk failed, or its journal is damaged.
    Failed,
    /// The histories do not meet: only a full sync helps.
    NeedsFullSync,
    /// The peer broke the protocol.
    ProtocolError,
    /// Both sides ran alone: somebody must decide.
    SplitBrain,
    /// The two configurations name different commit policies.
    CommitPolicy,
    /// A mandatory feature that this side does not know.
    Feature,
    /// A code that this version does not know.
    Other(u16),
}

pub(super) const REFUSE_CODES: [(RefuseCode, u16); 12] = [
    (RefuseCode::Version, 1),
    (RefuseCode::Group, 2),
    (RefuseCode::VolumeMismatch, 3),
    (RefuseCode::Promoted, 4),
    (RefuseCode::NotFormatted, 5),
    (RefuseCode::Busy, 6),
    (RefuseCode::Failed, 7),
    (RefuseCode::NeedsFullSync, 8),
    (RefuseCode::ProtocolError, 9),
    (RefuseCode::SplitBrain, 10),
    (RefuseCode::CommitPolicy, 11),
    (RefuseCode::Feature, 12),
];

impl RefuseCode {
    /// All that this version knows.
    pub fn known() -> impl Iterator<Item = Self> {
        REFUSE_CODES.iter().map(|(code, _)| *code)
    }

    /// The frozen number.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::Other(number) => number,
            known => REFUSE_CODES.iter().find(|(code, _)| *code == known).map_or(0, |(_, number)| *number),
        }
    }

    pub(super) fn from_number(number: u16) -> Self {
        REFUSE_CODES.iter().find(|(_, n)| *n == number).map_or(Self::Other(number), |(code, _)| *code)
    }
}

/// Why a side leaves, as far as the other one draws a conclusion from it. The numbers are frozen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ByeCause {
    /// Not said: of an earlier version.
    #[default]
    Unsaid,
    /// The journal does not take what is being staged.
    Journal,
    /// Another reason: the same may be tried again.
    Other,
    /// A cause that this version does not know: as [`Self::Other`].
    Unknown(u8),
}

impl ByeCause {
    /// The frozen number; none where nothing is said.
    pub(super) fn number(self) -> Option<u8> {
        match self {
            Self::Unsaid => None,
            Self::Journal => Some(1),
            Self::Other => Some(2),
            Self::Unknown(number) => Some(number),
        }
    }

    pub(super) fn decode(mut value: Value<'_>) -> Result<Self, TlvError> {
        let cause = match value.u8()? {
            1 => Self::Journal,
            2 => Self::Other,
            number => Self::Unknown(number),
        };
        value.end()?;
        Ok(cause)
    }
}
