//! What a host must remember about its group, durably: role, lineage, how far it got.
//!
//! Always holds: a decoded [`DurableState`] is whole and of a known version; its encoding always fits a
//! slot. It is double-written in slots (see [`crate::slot`]); the configuration only gives the first one.

use crate::generations::{LineageEntry, decode_lineage, encode_lineage};
use crate::group::{GroupDescription, MAX_VOLUMES};
use crate::growth::SizeHistory;
use crate::ids::{Epoch, Generation, GroupName, Incarnation, VolumeUuid};
use crate::rolls::RollHistory;
use crate::slot::{Chosen, ReadSlot, SlotError, SlotKind, choose};
use crate::tlv::{OPTIONAL, Reader, TlvError, Value, Writer};
use ftdm_units::Sectors;

/// What this host is for its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs the VM and ships.
    Primary,
    /// Holds the last committed epoch.
    Backup,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
        })
    }
}

impl Role {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Primary => 1,
            Self::Backup => 2,
        }
    }

    pub(crate) fn decode(mut value: Value<'_>) -> Result<Self, TlvError> {
        let role = match value.u8()? {
            1 => Self::Primary,
            2 => Self::Backup,
            other => return Err(value.invalid(format_args!("the unknown role {other}"))),
        };
        value.end()?;
        Ok(role)
    }
}

/// What this host's volumes hold, as far as promoting them goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing of the group yet.
    Blank,
    /// A sync in place is under way or broke off: not promotable.
    Inconsistent {
        /// Which sync.
        base_id: [u8; 16],
        /// The epoch from which the volumes differ only in blocks that the primary's changes since that epoch name.
        /// `None`: nothing is known of them.
        base: Option<Epoch>,
    },
    /// Exactly one committed epoch.
    Consistent,
    /// What a primary had when it was demoted: the epoch at which the other side was promoted, overwritten by what
    /// this side wrote behind it. Not promotable.
    Outdated {
        /// That epoch, where it is known what was written since; else only a whole copy helps.
        fork: Option<Epoch>,
    },
}

impl Content {
    /// The encoding: u8 {0 blank, 1 inconsistent, 2 consistent, 3 outdated}, then if inconsistent the sync's id, and its
    /// base if there is one; the fork if outdated and known.
    pub(crate) fn encode(self) -> Vec<u8> {
        match self {
            Self::Blank => vec![0],
            Self::Inconsistent { base_id, base: None } => [&[1][..], &base_id].concat(),
            Self::Inconsistent { base_id, base: Some(base) } => {
                [&[1][..], &base_id, &base.0.to_le_bytes()].concat()
            }
            Self::Consistent => vec![2],
            Self::Outdated { fork: None } => vec![3],
            Self::Outdated { fork: Some(fork) } => [&[3][..], &fork.0.to_le_bytes()].concat(),
        }
    }

    pub(crate) fn decode(mut value: Value<'_>) -> Result<Self, TlvError> {
        let content = match value.u8()? {
            0 => Self::Blank,
            1 => {
                let base_id = value.array()?;
                let base = if value.left() > 0 { Some(Epoch(value.u64()?)) } else { None };
                Self::Inconsistent { base_id, base }
            }
            2 => Self::Consistent,
            3 if value.left() == 0 => Self::Outdated { fork: None },
            3 => Self::Outdated { fork: Some(Epoch(value.u64()?)) },
            other => return Err(value.invalid(format_args!("the unknown content state {other}"))),
        };
        value.end()?;
        Ok(content)
    }
}

/// Tells whether a host's volumes were written to between two looks at them: two marks are the same only if they were not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteMark(pub [u8; 16]);

/// A promote that was decided before another one that this side knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the fencing token {token} is not above {seen}, which was seen before: a later decision stands")]
pub struct StaleToken {
    /// As given.
    pub token: u64,
    /// The highest that was seen.
    pub seen: u64,
}

/// What one host remembers about its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurableState {
    /// The group's name.
    pub group_name: GroupName,
    /// Drawn at random when the state was formatted: tells it from any other host's or time's.
    pub formatted_id: [u8; 16],
    /// What this host is now.
    pub role: Role,
    /// Generations that led to the present content, oldest first, the present one last.
    pub lineage: Vec<LineageEntry>,
    /// Highest epoch number ever seen: new epochs are numbered above it.
    pub highest_epoch_seen: Epoch,
    /// What the volumes hold.
    pub content: Content,
    /// The volumes; a backup learns them at its first full sync.
    pub group: Option<GroupDescription>,
    /// The primary last run or heard.
    pub last_incarnation: Option<Incarnation>,
    /// Which eras began when. Empty: nothing tells what changed since any epoch.
    pub rolls: RollHistory,
    /// A primary: the epoch since which it went on without a backup; none while it is in sync.
    pub alone: Option<Epoch>,
    /// A primary: the other side was promoted over it.
    pub fenced: Option<Fence>,
    /// A backup: identities of this host's logical volumes, in the group's order, since the last copy onto them
    /// began. Empty: not known.
    pub devices: Vec<VolumeUuid>,
    /// The highest fencing token that this side has seen, of its own promotes and the other's; 0: none.
    pub token: u64,
    /// A backup: its journal has lost epochs that count, up to this one. Of no meaning any more once it holds that one or
    /// a later one.
    pub lost: Option<Epoch>,
    /// A primary: it may have given numbers up to this one to epochs, and no higher one. None: a version that did not say so.
    pub numbered: Option<Epoch>,
    /// A primary: its generation began with less than what was acknowledged, or with a mixture, because a person took that.
    pub with_loss: bool,
    /// A primary: its daemon ended while everything was committed and its volumes were closed, and this was their mark.
    pub ended_at: Option<WriteMark>,
    /// The sizes that the volumes of the group had before those in `group`.
    pub sizes: SizeHistory,
}

/// Identities, 16 bytes each.
fn decode_devices(mut value: Value<'_>) -> Result<Vec<VolumeUuid>, TlvError> {
    let count = value.left() / 16;
    if count > MAX_VOLUMES {
        return Err(value.invalid(format_args!("{count} volumes, more than {MAX_VOLUMES}")));
    }
    let devices = (0..count).map(|_| value.array().map(VolumeUuid)).collect::<Result<_, _>>()?;
    value.end()?;
    Ok(devices)
}

/// What a primary has learnt of the side that was promoted over it, or beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The generation that the other side has made.
    pub generation: Generation,
    /// The last epoch that both have.
    pub fork: Epoch,
    /// Whether this side went on behind it too: then somebody must decide.
    pub split: bool,
}

impl Fence {
    /// The encoding: generation 24 bytes, fork u64, split u8.
    fn encode(self) -> Vec<u8> {
        [&self.generation.encode()[..], &self.fork.0.to_le_bytes(), &[self.split.into()]].concat()
    }

    fn decode(mut value: Value<'_>) -> Result<Self, TlvError> {
        let generation = Generation::decode(value.array()?);
        let fork = Epoch(value.u64()?);
        let split = match value.u8()? {
            0 => false,
            1 => true,
            other => return Err(value.invalid(format_args!("{other} where 0 or 1 belongs"))),
        };
        value.end()?;
        Ok(Self { generation, fork, split })
    }
}

mod tag {
    //! Fields of the state.
    pub(super) const GROUP_NAME: u16 = 1;
    pub(super) const FORMATTED_ID: u16 = 2;
    pub(super) const ROLE: u16 = 3;
    pub(super) const LINEAGE: u16 = 4;
    pub(super) const HIGHEST_EPOCH_SEEN: u16 = 5;
    pub(super) const CONTENT: u16 = 6;
    pub(super) const GROUP: u16 = 7;
    pub(super) const LAST_INCARNATION: u16 = 8;
    pub(super) const ROLLS: u16 = super::OPTIONAL | 1;
    pub(super) const DEVICES: u16 = super::OPTIONAL | 2;
    pub(super) const ALONE: u16 = 9;
    pub(super) const FENCED: u16 = 10;
    pub(super) const TOKEN: u16 = 11;
    /// Mandatory: a version that does not know it would promote to less than was acknowledged, without a word.
    pub(super) const LOST: u16 = 12;
    pub(super) const NUMBERED: u16 = super::OPTIONAL | 3;
    pub(super) const ENDED_AT: u16 = super::OPTIONAL | 4;
    /// Mandatory: a version that does not know it would overwrite what is better than its own.
    pub(super) const WITH_LOSS: u16 = 13;
    /// Mandatory: a version that does not know it would leave out what a volume grew by.
    pub(super) const SIZES: u16 = 14;
}

/// A durable state that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The slots.
    #[error("durable state: {0}")]
    Slot(#[from] SlotError),
    /// The contents of a sound slot.
    #[error("durable state: {0}")]
    Fields(#[from] TlvError),
}

impl DurableState {
    /// What formatting leaves on a backup: it learns the group's history from its first full sync.
    #[must_use]
    pub fn new_backup(group_name: GroupName, formatted_id: [u8; 16]) -> Self {
        Self {
            group_name,
            formatted_id,
            role: Role::Backup,
            lineage: Vec::new(),
            highest_epoch_seen: Epoch::NONE,
            content: Content::Blank,
            group: None,
            last_incarnation: None,
            alone: None,
            fenced: None,
            rolls: RollHistory::default(),
            devices: Vec::new(),
            token: 0,
            lost: None,
            numbered: None,
            with_loss: false,
            ended_at: None,
            sizes: SizeHistory::default(),
        }
    }

    /// The volumes as they were at this epoch.
    #[must_use]
    pub fn group_at(&self, epoch: Epoch) -> Option<GroupDescription> {
        let group = self.group.as_ref()?;
        let earlier = self.sizes.at(epoch).and_then(|sizes| group.with_sizes(sizes).ok());
        Some(earlier.unwrap_or_else(|| group.clone()))
    }

    /// Epochs from `first` on are of volumes with these sizes.
    pub fn resize(&mut self, first: Epoch, to: GroupDescription) {
        if let Some(group) = self.group.replace(to.clone())
            && group.sizes() != to.sizes()
        {
            self.sizes.note(first, group.sizes());
        }
    }

    /// What is held from now on is this epoch, in the sizes that the volumes had then.
    pub fn end_sizes_at(&mut self, epoch: Epoch) {
        self.group = self.group_at(epoch);
        self.sizes.end_at(epoch);
    }

    /// The sizes of what the volumes hold as far as it is an epoch: of the last one at `committed`, or of the one from
    /// which they differ in known blocks. None where there is none.
    #[must_use]
    pub fn content_sizes(&self, committed: Epoch) -> Option<Vec<Sectors>> {
        let epoch = match self.content {
            Content::Consistent => Some(committed),
            Content::Inconsistent { base, .. } => base,
            Content::Outdated { fork } => fork,
            Content::Blank => None,
        };
        Some(self.group_at(epoch?)?.sizes())
    }

    /// The generation that the present content belongs to.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        self.lineage.last().map(|entry| entry.generation)
    }

    /// Its number; 0 where there is none.
    #[must_use]
    pub fn generation_number(&self) -> u64 {
        self.generation().map_or(0, |generation| generation.number)
    }

    /// The body of the slot. Only the newest [`MAX_LINEAGE`] generations are written.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = Writer::new();
        fields.field(tag::GROUP_NAME, self.group_name.as_str().as_bytes());
        fields.field(tag::FORMATTED_ID, &self.formatted_id);
        fields.field(tag::ROLE, &[self.role.number()]);
        fields.field(tag::LINEAGE, &encode_lineage(&self.lineage));
        fields.u64(tag::HIGHEST_EPOCH_SEEN, self.highest_epoch_seen.0);
        fields.field(tag::CONTENT, &self.content.encode());
        if let Some(group) = &self.group {
            let mut bytes = Vec::new();
            group.encode_into(&mut bytes);
            fields.field(tag::GROUP, &bytes);
        }
        if let Some(incarnation) = self.last_incarnation {
            fields.field(tag::LAST_INCARNATION, &incarnation.0);
        }
        if let Some(alone) = self.alone {
            fields.u64(tag::ALONE, alone.0);
        }
        if let Some(fence) = self.fenced {
            fields.field(tag::FENCED, &fence.encode());
        }
        if self.token > 0 {
            fields.u64(tag::TOKEN, self.token);
        }
        if let Some(lost) = self.lost {
            fields.u64(tag::LOST, lost.0);
        }
        if self.with_loss {
            fields.field(tag::WITH_LOSS, &[]);
        }
        if !self.sizes.is_empty() {
            fields.field(tag::SIZES, &self.sizes.encode());
        }
        if self.rolls.last().is_some() {
            fields.field(tag::ROLLS, &self.rolls.encode());
        }
        if !self.devices.is_empty() {
            let ids: Vec<_> = self.devices.iter().map(|device| device.0).collect();
            fields.field(tag::DEVICES, ids.as_flattened());
        }
        if let Some(numbered) = self.numbered {
            fields.u64(tag::NUMBERED, numbered.0);
        }
        if let Some(mark) = self.ended_at {
            fields.field(tag::ENDED_AT, &mark.0);
        }
        fields.finish()
    }

    /// Reads the body of a slot.
    pub fn decode(body: &[u8]) -> Result<Self, TlvError> {
        let mut fields = Reader::new(body)?;
        let mut name = fields.required(tag::GROUP_NAME)?;
        let group_name = name.text(GroupName::MAX_LEN)?.parse().map_err(|e| name.invalid(e))?;
        let formatted_id = fields.array(tag::FORMATTED_ID)?;
        let role = Role::decode(fields.required(tag::ROLE)?)?;
        let lineage = decode_lineage(fields.required(tag::LINEAGE)?)?;
        let highest_epoch_seen = Epoch(fields.u64(tag::HIGHEST_EPOCH_SEEN)?);
        let content = Content::decode(fields.required(tag::CONTENT)?)?;
        let group = fields.optional(tag::GROUP).map(GroupDescription::decode).transpose()?;
        let last_incarnation = fields.optional_array(tag::LAST_INCARNATION)?.map(Incarnation);
        let alone = fields.optional_array(tag::ALONE)?.map(u64::from_le_bytes).map(Epoch);
        let fenced = fields.optional(tag::FENCED).map(Fence::decode).transpose()?;
        let token = fields.optional_array(tag::TOKEN)?.map_or(0, u64::from_le_bytes);
        let lost = fields.optional_array(tag::LOST)?.map(u64::from_le_bytes).map(Epoch);
        let with_loss = fields.flag(tag::WITH_LOSS)?;
        let numbered = fields.optional_array(tag::NUMBERED)?.map(u64::from_le_bytes).map(Epoch);
        let ended_at = fields.optional_array(tag::ENDED_AT)?.map(WriteMark);
        let sizes = fields.optional(tag::SIZES).map(SizeHistory::decode).transpose()?.unwrap_or_default();
        let rolls = fields.optional(tag::ROLLS).map(RollHistory::decode).transpose()?.unwrap_or_default();
        let devices = fields.optional(tag::DEVICES).map(decode_devices).transpose()?.unwrap_or_default();
        fields.finish()?;
        Ok(Self {
            devices,
            group_name,
            formatted_id,
            role,
            lineage,
            highest_epoch_seen,
            content,
            group,
            last_incarnation,
            rolls,
            alone,
            fenced,
            token,
            lost,
            numbered,
            with_loss,
            ended_at,
            sizes,
        })
    }

    /// The newest state of the two slots and where it was found. `None` when both are blank: not formatted.
    pub fn load(a: ReadSlot<'_>, b: ReadSlot<'_>) -> Result<Option<(Self, Chosen)>, StateError> {
        let Some(chosen) = choose(SlotKind::State, a, b)? else { return Ok(None) };
        Ok(Some((Self::decode(&chosen.body)?, chosen)))
    }
}

#[cfg(test)]
mod tests;
