//! The control messages of a connection, each in a frame of its own.
//!
//! Always holds: a decoded message is whole and within its bounds, and each of its texts is one line
//! without control characters; what a newer peer adds is skipped or
//! refused as its tag says. Epochs and base data are not messages: see [`crate::epoch`] and
//! [`crate::record`].

mod cause;

use crate::frame::{Frame, FrameError, FrameKind, HEADER_LEN, Stamp};
use crate::generations::LineageEntry;
use crate::generations::{decode_lineage, encode_lineage};
use crate::group::GroupDescription;
use crate::growth::{decode_sizes, encode_sizes};
use crate::ids::{Digest, Epoch, Incarnation};
use crate::lineage::Standing;
use crate::state::{Content, Role};
use crate::tlv::{OPTIONAL, Reader, TlvError, Value, Writer};
use crate::verify::{DigestLength, Digests, HashRequest, MAX_DIGESTS, ShortDigest};
use ftdm_units::Sectors;

pub use cause::{ByeCause, RefuseCode};

/// Longest text in a message, in bytes; longer ones are cut when sent and refused when received.
pub const MAX_TEXT: usize = 1024;

/// The primary introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest protocol version that it speaks.
    pub protocol_min: u16,
    /// Highest protocol version that it speaks.
    pub protocol_max: u16,
    /// Features that the backup may ignore.
    pub features_optional: u64,
    /// Features that the backup must understand.
    pub features_mandatory: u64,
    /// Its group.
    pub group: GroupDescription,
    /// Its generations, the present one last.
    pub lineage: Vec<LineageEntry>,
    /// The last epoch that it knows to be committed.
    pub last_epoch: Epoch,
    /// That epoch's digest.
    pub last_digest: Digest,
    /// Since which epoch it went on without a backup.
    pub alone: Option<Epoch>,
    /// The highest fencing token that it has seen; 0: none.
    pub token: u64,
    /// It never gave a higher number to an epoch, where it can tell.
    pub numbered: Option<Epoch>,
    /// Its generation began with less than what was acknowledged.
    pub with_loss: bool,
}

/// The backup accepts and says where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version chosen from the primary's range.
    pub protocol: u16,
    /// Features in force: of those that the primary offered.
    pub features: u64,
    /// Its generations.
    pub lineage: Vec<LineageEntry>,
    /// The highest epoch number it ever saw.
    pub highest_epoch_seen: Epoch,
    /// The last epoch that it committed.
    pub committed: Epoch,
    /// Digest of the last epoch that is wholly in its journal: what the next one must chain to.
    pub chain_digest: Digest,
    /// What its volumes hold.
    pub content: Content,
    /// What it is by its own durable state.
    pub role: Role,
    /// Bytes that its journal holds, where it says so: what is staged and not committed must fit.
    pub journal_size: Option<u64>,
    /// The epoch of `chain_digest`, where it says so: the last one that is wholly in its journal or on its volumes.
    pub held: Option<Epoch>,
    /// How large the volumes are in what it holds, or differs from in known blocks; `None`: as the primary's, or nothing
    /// is held.
    pub sizes: Option<Vec<Sectors>>,
}

/// A control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The primary introduces itself.
    Hello(Hello),
    /// The backup accepts.
    Welcome(Welcome),
    /// Either side declines.
    Refuse {
        /// Why, for programs.
        code: RefuseCode,
        /// Why and what to do, for people; at most [`MAX_TEXT`] bytes.
        text: String,
        /// Where the declining side stands, where that is the matter.
        standing: Option<Box<Standing>>,
    },
    /// The primary starts to overwrite the backup's volumes.
    SyncBegin {
        /// Another one for each time.
        base_id: [u8; 16],
        /// What is left out has not changed since this epoch; `None`: nothing is left out.
        base: Option<Epoch>,
    },
    /// The backup has durably noted that it is being rewritten.
    SyncReady,
    /// Everything that was to be copied is.
    BaseEnd {
        /// Data frames sent.
        frames: u64,
        /// Decompressed bytes in them.
        bytes: u64,
    },
    /// The backup holds the epoch durably.
    Staged {
        /// The epoch.
        epoch: Epoch,
        /// Its digest.
        digest: Digest,
    },
    /// The coordinator committed the epoch and all before it.
    Commit {
        /// The epoch.
        epoch: Epoch,
    },
    /// The primary has durably stepped down, and everything that it had is committed: the backup is to be promoted.
    TakeOver {
        /// Random id of the generation to be made.
        generation: [u8; 16],
    },
    /// The backup's progress.
    Report {
        /// Last epoch committed.
        committed: Epoch,
        /// Last epoch applied to the volumes.
        applied: Epoch,
        /// Last epoch that is durable, committed or not, where it says so.
        durable: Option<Epoch>,
        /// Bytes of the journal in use.
        journal_used: u64,
        /// Bytes of the journal.
        journal_size: u64,
        /// The size that each volume could have on this host, where it says so.
        room: Option<Vec<Sectors>>,
    },
    /// Asks for a [`Message::Pong`] of the same token.
    Ping {
        /// Comes back.
        token: u64,
    },
    /// Answers a [`Message::Ping`].
    Pong {
        /// Of the ping.
        token: u64,
    },
    /// The primary asks what places hold.
    Hash(HashRequest),
    /// Answers a [`Message::Hash`].
    Digests {
        /// Of the request.
        token: u64,
        /// One for each unit of each place, in their order; or why not, for people.
        result: Result<Digests, String>,
    },
    /// Either side leaves on purpose.
    Bye {
        /// Why, for people; at most [`MAX_TEXT`] bytes.
        text: String,
        /// Why, for the other side.
        cause: ByeCause,
    },
}

/// A frame that is not a sound message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A frame that carries no message.
    #[error("a {0:?} frame is not a control message")]
    Kind(FrameKind),
    /// A payload that is not what its header says.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Fields that are not sound.
    #[error("{kind:?} message: {source}")]
    Fields {
        /// Kind of the frame.
        kind: FrameKind,
        /// What is wrong.
        source: TlvError,
    },
    /// The message names another epoch than the frame that brings it.
    #[error("{0:?} message contradicts the frame that brings it")]
    Contradiction(FrameKind),
}

impl Message {
    /// The kind of its frame.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::Hello(_) => FrameKind::Hello,
            Self::Welcome(_) => FrameKind::Welcome,
            Self::Refuse { .. } => FrameKind::Refuse,
            Self::SyncBegin { .. } => FrameKind::SyncBegin,
            Self::SyncReady => FrameKind::SyncReady,
            Self::BaseEnd { .. } => FrameKind::BaseEnd,
            Self::Staged { .. } => FrameKind::Staged,
            Self::Commit { .. } => FrameKind::Commit,
            Self::TakeOver { .. } => FrameKind::TakeOver,
            Self::Report { .. } => FrameKind::Report,
            Self::Ping { .. } => FrameKind::Ping,
            Self::Pong { .. } => FrameKind::Pong,
            Self::Hash(_) => FrameKind::Hash,
            Self::Digests { .. } => FrameKind::Digests,
            Self::Bye { .. } => FrameKind::Bye,
        }
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "Hello",
            Self::Welcome(_) => "Welcome",
            Self::Refuse { .. } => "Refuse",
            Self::SyncBegin { .. } => "SyncBegin",
            Self::SyncReady => "SyncReady",
            Self::BaseEnd { .. } => "BaseEnd",
            Self::Staged { .. } => "Staged",
            Self::Commit { .. } => "Commit",
            Self::TakeOver { .. } => "TakeOver",
            Self::Report { .. } => "Report",
            Self::Ping { .. } => "Ping",
            Self::Pong { .. } => "Pong",
            Self::Hash(_) => "Hash",
            Self::Digests { .. } => "Digests",
            Self::Bye { .. } => "Bye",
        }
    }

    /// The frame that carries it, stamped with the generation and the primary's incarnation.
    #[must_use]
    pub fn encode(&self, generation: u64, incarnation: Incarnation) -> Frame {
        let stamp = Stamp { epoch: self.epoch(), generation, incarnation };
        Frame::plain(self.kind(), stamp, 0, self.payload())
    }

    /// Bytes that its frame takes.
    #[must_use]
    pub fn wire_len(&self) -> u64 {
        (HEADER_LEN + self.payload().len()) as u64
    }

    /// Reads the message out of a frame, whose payload it verifies.
    pub fn decode(frame: &Frame) -> Result<Self, MessageError> {
        frame.verify()?;
        let kind = frame.header.kind;
        let fields = |source| MessageError::Fields { kind, source };
        let mut reader = Reader::new(&frame.payload).map_err(fields)?;
        let message = Self::from_fields(kind, &mut reader).map_err(fields)?;
        let message = message.ok_or(MessageError::Kind(kind))?;
        reader.finish().map_err(fields)?;
        if message.epoch() == frame.header.epoch {
            Ok(message)
        } else {
            Err(MessageError::Contradiction(kind))
        }
    }

    /// The epoch that it is about, which is also in the frame's header.
    fn epoch(&self) -> Epoch {
        match self {
            Self::Staged { epoch, .. } | Self::Commit { epoch } => *epoch,
            _ => Epoch::NONE,
        }
    }

    /// The payload. The numbers are the fields' tags, frozen.
    fn payload(&self) -> Vec<u8> {
        let mut fields = Writer::new();
        match self {
            Self::Hello(hello) => hello.encode(&mut fields),
            Self::Welcome(welcome) => welcome.encode(&mut fields),
            Self::Refuse { code, text, standing } => {
                fields.u16(1, code.number());
                fields.field(2, cut(text).as_bytes());
                if let Some(standing) = standing {
                    fields.field(OPTIONAL | 1, &standing.encode());
                }
            }
            Self::SyncBegin { base_id, base } => {
                fields.field(1, base_id);
                if let Some(base) = base {
                    fields.u64(OPTIONAL | 1, base.0);
                }
            }
            Self::SyncReady => {}
            Self::BaseEnd { frames, bytes } => {
                fields.u64(1, *frames);
                fields.u64(2, *bytes);
            }
            Self::Staged { epoch, digest } => {
                fields.u64(1, epoch.0);
                fields.field(2, &digest.0);
            }
            Self::Commit { epoch } => fields.u64(1, epoch.0),
            Self::TakeOver { generation } => fields.field(1, generation),
            Self::Report { committed, applied, durable, journal_used, journal_size, room } => {
                fields.u64(1, committed.0);
                fields.u64(2, applied.0);
                fields.u64(3, *journal_used);
                fields.u64(4, *journal_size);
                if let Some(durable) = durable {
                    fields.u64(OPTIONAL | 1, durable.0);
                }
                if let Some(room) = room {
                    fields.field(OPTIONAL | 2, &encode_sizes(room));
                }
            }
            Self::Ping { token } | Self::Pong { token } => fields.u64(1, *token),
            Self::Hash(request) => encode_hash(request, &mut fields),
            Self::Digests { token, result } => {
                fields.u64(1, *token);
                match result {
                    Ok(Digests::Whole(digests)) => {
                        let digests: Vec<_> = digests.iter().map(|digest| digest.0).collect();
                        fields.field(2, digests.as_flattened());
                    }
                    Err(text) => fields.field(3, cut(text).as_bytes()),
                    Ok(Digests::Short(digests)) => {
                        let digests: Vec<_> = digests.iter().map(|digest| digest.0).collect();
                        fields.field(4, digests.as_flattened());
                    }
                }
            }
            Self::Bye { text, cause } => {
                fields.field(1, cut(text).as_bytes());
                if let Some(number) = cause.number() {
                    fields.field(OPTIONAL | 1, &[number]);
                }
            }
        }
        fields.finish()
    }

    fn from_fields(kind: FrameKind, fields: &mut Reader<'_>) -> Result<Option<Self>, TlvError> {
        Ok(Some(match kind {
            FrameKind::Hello => Self::Hello(Hello::decode(fields)?),
            FrameKind::Welcome => Self::Welcome(Welcome::decode(fields)?),
            FrameKind::Refuse => {
                let code = RefuseCode::from_number(fields.u16(1)?);
                let text = fields.required(2)?.text(MAX_TEXT)?;
                let standing = fields.optional(OPTIONAL | 1).map(Standing::decode).transpose()?;
                Self::Refuse { code, text, standing: standing.map(Box::new) }
            }
            FrameKind::SyncBegin => Self::SyncBegin {
                base_id: fields.array(1)?,
                base: fields.optional_array(OPTIONAL | 1)?.map(u64::from_le_bytes).map(Epoch),
            },
            FrameKind::SyncReady => Self::SyncReady,
            FrameKind::BaseEnd => Self::BaseEnd { frames: fields.u64(1)?, bytes: fields.u64(2)? },
            FrameKind::Staged => {
                Self::Staged { epoch: Epoch(fields.u64(1)?), digest: Digest(fields.array(2)?) }
            }
            FrameKind::Commit => Self::Commit { epoch: Epoch(fields.u64(1)?) },
            FrameKind::TakeOver => Self::TakeOver { generation: fields.array(1)? },
            FrameKind::Report => Self::Report {
                committed: Epoch(fields.u64(1)?),
                applied: Epoch(fields.u64(2)?),
                durable: fields.optional_array(OPTIONAL | 1)?.map(u64::from_le_bytes).map(Epoch),
                journal_used: fields.u64(3)?,
                journal_size: fields.u64(4)?,
                room: fields.optional(OPTIONAL | 2).map(decode_sizes).transpose()?,
            },
            FrameKind::Ping => Self::Ping { token: fields.u64(1)? },
            FrameKind::Pong => Self::Pong { token: fields.u64(1)? },
            FrameKind::Hash => {
                let (token, epoch, unit) = (fields.u64(1)?, Epoch(fields.u64(2)?), Sectors(fields.u64(3)?));
                let places = fields.required(4)?;
                let length = fields.optional(5).map(decode_length).transpose()?.unwrap_or_default();
                Self::Hash(HashRequest::decode(token, epoch, unit, length, places)?)
            }
            FrameKind::Digests => Self::Digests { token: fields.u64(1)?, result: decode_digests(fields)? },
            FrameKind::Bye => Self::Bye {
                text: fields.required(1)?.text(MAX_TEXT)?,
                cause: fields.optional(OPTIONAL | 1).map(ByeCause::decode).transpose()?.unwrap_or_default(),
            },
            _ => return Ok(None),
        }))
    }
}

impl Hello {
    /// Where the primary stands that says it.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            role: Role::Primary,
            content: Content::Consistent,
            lineage: self.lineage.clone(),
            last_epoch: self.last_epoch,
            alone: self.alone,
            numbered: self.numbered,
            with_loss: self.with_loss,
        }
    }

    fn encode(&self, fields: &mut Writer) {
        let range = [self.protocol_min.to_le_bytes(), self.protocol_max.to_le_bytes()].concat();
        let features = [self.features_optional.to_le_bytes(), self.features_mandatory.to_le_bytes()].concat();
        let mut group = Vec::new();
        self.group.encode_into(&mut group);
        fields.field(1, &range);
        fields.field(2, &features);
        fields.field(3, &group);
        fields.field(4, &encode_lineage(&self.lineage));
        fields.u64(5, self.last_epoch.0);
        fields.field(6, &self.last_digest.0);
        if self.with_loss {
            fields.field(7, &[]);
        }
        if let Some(alone) = self.alone {
            fields.u64(OPTIONAL | 1, alone.0);
        }
        if self.token > 0 {
            fields.u64(OPTIONAL | 2, self.token);
        }
        if let Some(numbered) = self.numbered {
            fields.u64(OPTIONAL | 3, numbered.0);
        }
    }

    fn decode(fields: &mut Reader<'_>) -> Result<Self, TlvError> {
        let mut range = fields.required(1)?;
        let (protocol_min, protocol_max) = (range.u16()?, range.u16()?);
        if protocol_min > protocol_max {
            return Err(range.invalid("a range of protocol versions that is upside down"));
        }
        range.end()?;
        let mut features = fields.required(2)?;
        let (features_optional, features_mandatory) = (features.u64()?, features.u64()?);
        features.end()?;
        Ok(Self {
            protocol_min,
            protocol_max,
            features_optional,
            features_mandatory,
            group: GroupDescription::decode(fields.required(3)?)?,
            lineage: decode_lineage(fields.required(4)?)?,
            last_epoch: Epoch(fields.u64(5)?),
            last_digest: Digest(fields.array(6)?),
            alone: fields.optional_array(OPTIONAL | 1)?.map(u64::from_le_bytes).map(Epoch),
            token: fields.optional_array(OPTIONAL | 2)?.map_or(0, u64::from_le_bytes),
            numbered: fields.optional_array(OPTIONAL | 3)?.map(u64::from_le_bytes).map(Epoch),
            with_loss: fields.flag(7)?,
        })
    }
}

impl Welcome {
    fn encode(&self, fields: &mut Writer) {
        fields.u16(1, self.protocol);
        fields.u64(2, self.features);
        fields.field(3, &encode_lineage(&self.lineage));
        fields.u64(4, self.highest_epoch_seen.0);
        fields.u64(5, self.committed.0);
        fields.field(6, &self.chain_digest.0);
        fields.field(7, &self.content.encode());
        fields.field(8, &[self.role.number()]);
        if let Some(size) = self.journal_size {
            fields.u64(OPTIONAL | 1, size);
        }
        if let Some(held) = self.held {
            fields.u64(OPTIONAL | 2, held.0);
        }
        if let Some(sizes) = &self.sizes {
            fields.field(OPTIONAL | 3, &encode_sizes(sizes));
        }
    }

    fn decode(fields: &mut Reader<'_>) -> Result<Self, TlvError> {
        Ok(Self {
            protocol: fields.u16(1)?,
            features: fields.u64(2)?,
            lineage: decode_lineage(fields.required(3)?)?,
            highest_epoch_seen: Epoch(fields.u64(4)?),
            committed: Epoch(fields.u64(5)?),
            chain_digest: Digest(fields.array(6)?),
            content: Content::decode(fields.required(7)?)?,
            role: Role::decode(fields.required(8)?)?,
            journal_size: fields.optional_array(OPTIONAL | 1)?.map(u64::from_le_bytes),
            held: fields.optional_array(OPTIONAL | 2)?.map(u64::from_le_bytes).map(Epoch),
            sizes: fields.optional(OPTIONAL | 3).map(decode_sizes).transpose()?,
        })
    }
}

/// Digests, or the text in their place.
fn decode_digests(fields: &mut Reader<'_>) -> Result<Result<Digests, String>, TlvError> {
    if let Some(value) = fields.optional(2) {
        return Ok(Ok(Digests::Whole(decode_all(value)?.into_iter().map(Digest).collect())));
    }
    if let Some(mut text) = fields.optional(3) {
        return Ok(Err(text.text(MAX_TEXT)?));
    }
    let short = decode_all(fields.required(4)?)?.into_iter().map(ShortDigest);
    Ok(Ok(Digests::Short(short.collect())))
}

fn decode_all<const N: usize>(mut value: Value<'_>) -> Result<Vec<[u8; N]>, TlvError> {
    let count = value.left() / N;
    if count > MAX_DIGESTS {
        return Err(value.invalid(format!("{count} digests, of {MAX_DIGESTS} at most")));
    }
    let digests = (0..count).map(|_| value.array()).collect::<Result<_, _>>()?;
    value.end()?;
    Ok(digests)
}

fn encode_hash(request: &HashRequest, fields: &mut Writer) {
    fields.u64(1, request.token);
    fields.u64(2, request.epoch.0);
    fields.u64(3, request.unit.0);
    fields.field(4, &request.encode_places());
    if request.length == DigestLength::Short {
        fields.field(5, &[SHORT]);
    }
}

/// Bytes of a short digest, as a question asks for them.
const SHORT: u8 = 16;

fn decode_length(mut value: Value<'_>) -> Result<DigestLength, TlvError> {
    match value.u8()? {
        SHORT => value.end().map(|()| DigestLength::Short),
        other => Err(value.invalid(format!("digests of {other} bytes, of {SHORT}"))),
    }
}

/// The text cut to [`MAX_TEXT`] bytes, at a character.
fn cut(text: &str) -> &str {
    let fits = |end: &usize| text.is_char_boundary(*end);
    &text[..(0..=text.len().min(MAX_TEXT)).rev().find(fits).unwrap_or(0)]
}

#[cfg(test)]
mod tests;
