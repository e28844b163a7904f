//! How the histories of two sides stand to each other, and what follows from it.
//!
//! Pure: two [`Standing`]s in, a [`Relation`] out. Every side asks this at every meeting, whichever of them
//! connected, and gets the same answer seen from its own place.
//!
//! Always holds: only a generation that both lineages name, with the same beginning, is common ground; whoever
//! has epochs or writes of its own behind the fork is never overwritten on the strength of a comparison alone.
//!
//! ```text
//!   mine            theirs                                       what I find
//!   ──────────────  ───────────────────────────────────────────  ─────────────────────────────
//!   any             a newer generation than mine, of my history  Outdated: they were promoted
//!     ran alone       the same                                   SplitBrain
//!   a newer one     an older one of my history                   Overtakes: I was promoted
//!     any             they ran alone                             SplitBrain
//!   a generation    another one, from a common one               SplitBrain: both were promoted
//!   a primary       a primary of the same generation             SplitBrain: a copied state
//!   a primary       a backup of the same generation, with an
//!                   epoch that this primary never numbered       SplitBrain: disks that were put back
//!   a newer one,    an older primary of my history, whatever
//!     with loss       it wrote                                   SplitBrain: it may have what was lost
//!   any             a backup that stepped down, of my history     Overtakes: I am its primary
//!   a generation    none (formatted anew, a replaced disk)       Fresh
//!   a generation    nothing in common                            Unrelated
//! ```

use std::fmt;

use crate::generations::{LineageEntry, decode_lineage, encode_lineage};
use crate::ids::{Epoch, Generation};
use crate::mutant::{self, Mutant};
use crate::state::{Content, DurableState, Role};
use crate::tlv::{OPTIONAL, Reader, TlvError, Value, Writer};

/// Where one side stands in the history of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What it is.
    pub role: Role,
    /// What its volumes hold.
    pub content: Content,
    /// Its generations, oldest first; empty where nothing of the group was ever received.
    pub lineage: Vec<LineageEntry>,
    /// The last epoch that it knows to be committed.
    pub last_epoch: Epoch,
    /// A primary that went on without its backup: since this epoch.
    pub alone: Option<Epoch>,
    /// A primary, where it can tell: it never gave a higher number to an epoch.
    pub numbered: Option<Epoch>,
    /// A primary whose generation began with less than what was acknowledged.
    pub with_loss: bool,
}

/// How the other side's history stands to mine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// One history, the same generation.
    Same,
    /// One side has no history: it may be given the other's.
    Fresh,
    /// The other side was promoted over mine at this epoch: what I have behind it counts no more.
    Outdated {
        /// The last epoch that both have.
        fork: Epoch,
    },
    /// My side was promoted over the other's at this epoch.
    Overtakes {
        /// The last epoch that both have.
        fork: Epoch,
    },
    /// Both sides went on alone behind this epoch: somebody must decide which history counts.
    SplitBrain {
        /// The last epoch that both have.
        fork: Epoch,
    },
    /// Nothing in common: another group's or another time's.
    Unrelated,
}

/// Two lineages, before anybody's writes are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ancestry {
    Empty,
    Same,
    /// Mine is theirs up to here.
    Ancestor(Epoch),
    /// Theirs is mine up to here.
    Descendant(Epoch),
    /// Both went on from here.
    Forked(Epoch),
    Unrelated,
}

/// Whether two entries tell of the same beginning.
fn is_same(mine: &LineageEntry, theirs: &LineageEntry) -> bool {
    mine.generation.id == theirs.generation.id
        && mine.first_epoch == theirs.first_epoch
        && mine.digest == theirs.digest
}

fn ancestry(mine: &[LineageEntry], theirs: &[LineageEntry]) -> Ancestry {
    if mine.is_empty() || theirs.is_empty() {
        return Ancestry::Empty;
    }
    // Old generations may have been dropped from either.
    let common = mine.iter().enumerate().rev().find_map(|(at, entry)| {
        let there = theirs.iter().position(|other| is_same(entry, other))?;
        Some((at, there))
    });
    let Some((here, there)) = common else { return Ancestry::Unrelated };
    let fork = |next: &LineageEntry| Epoch(next.first_epoch.0.saturating_sub(1));
    match (mine.get(here + 1), theirs.get(there + 1)) {
        (None, None) => Ancestry::Same,
        (None, Some(next)) => Ancestry::Ancestor(fork(next)),
        (Some(next), None) => Ancestry::Descendant(fork(next)),
        (Some(my_next), Some(next)) => Ancestry::Forked(fork(my_next).min(fork(next))),
    }
}

/// Whether the newer of these two generations began with less than what was acknowledged: then the older side may have the
/// rest, whether it wrote since or not.
fn has_loss(mine: &Standing, theirs: &Standing) -> bool {
    let number = |side: &Standing| side.generation().map_or(0, |generation| generation.number);
    let newer = if number(mine) > number(theirs) { mine } else { theirs };
    newer.with_loss
}

/// Compares my side with the other.
#[must_use]
pub fn compare(mine: &Standing, theirs: &Standing) -> Relation {
    let both_primary = mine.role == Role::Primary && theirs.role == Role::Primary;
    let ancestry = ancestry(&mine.lineage, &theirs.lineage);
    if let Ancestry::Ancestor(fork) | Ancestry::Descendant(fork) | Ancestry::Forked(fork) = ancestry {
        if theirs.has_put_away() && mine.role == Role::Primary {
            return Relation::Overtakes { fork };
        }
        if mine.has_put_away() && theirs.role == Role::Primary {
            return Relation::Outdated { fork };
        }
    }
    match ancestry {
        Ancestry::Empty => Relation::Fresh,
        Ancestry::Unrelated => Relation::Unrelated,
        Ancestry::Forked(fork) => Relation::SplitBrain { fork },
        // No two daemons ever make the same generation: somebody copied a state.
        Ancestry::Same if both_primary => {
            Relation::SplitBrain { fork: mine.last_epoch.min(theirs.last_epoch) }
        }
        Ancestry::Same if mine.was_put_back(theirs) || theirs.was_put_back(mine) => {
            Relation::SplitBrain { fork: mine.last_epoch.min(theirs.last_epoch) }
        }
        Ancestry::Same => Relation::Same,
        Ancestry::Ancestor(fork) | Ancestry::Descendant(fork) if both_primary && has_loss(mine, theirs) => {
            Relation::SplitBrain { fork }
        }
        Ancestry::Ancestor(fork) if mine.went_on(fork) => Relation::SplitBrain { fork },
        Ancestry::Ancestor(fork) => Relation::Outdated { fork },
        Ancestry::Descendant(fork) if theirs.went_on(fork) => Relation::SplitBrain { fork },
        Ancestry::Descendant(fork) => Relation::Overtakes { fork },
    }
}

impl DurableState {
    /// Where a side with this state stands, whose history goes to `last_epoch`.
    #[must_use]
    pub fn standing(&self, last_epoch: Epoch) -> Standing {
        let Self { role, content, ref lineage, alone, with_loss, .. } = *self;
        let with_loss = with_loss && role == Role::Primary;
        Standing { role, content, lineage: lineage.clone(), last_epoch, alone, numbered: None, with_loss }
    }
}

impl Standing {
    /// Whether it stepped down: whatever it has of its own counts no more.
    fn has_put_away(&self) -> bool {
        self.role == Role::Backup && matches!(self.content, Content::Outdated { .. })
    }

    /// Whether this side has anything behind the fork that somebody may rely on: a primary that ran alone, a
    /// backup that committed more. What a side has put away by a demote it has not.
    fn went_on(&self, fork: Epoch) -> bool {
        if mutant::is(Mutant::IgnoreAlone) {
            return false;
        }
        match (self.role, self.content) {
            (Role::Primary, _) => self.alone.is_some(),
            (Role::Backup, Content::Consistent) => self.last_epoch > fork,
            (Role::Backup, _) => false,
        }
    }

    /// Whether this is a primary that never made what `backup` holds of its generation: its disks are those of an earlier
    /// time.
    pub(crate) fn was_put_back(&self, backup: &Self) -> bool {
        let is_pair = (self.role, backup.role) == (Role::Primary, Role::Backup);
        let is_ahead = self.numbered.is_some_and(|numbered| backup.last_epoch > numbered);
        is_pair && is_ahead && backup.content == Content::Consistent && !mutant::is(Mutant::PutBackUnseen)
    }

    /// Its generation.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        self.lineage.last().map(|entry| entry.generation)
    }

    /// The encoding: fields, as in a message.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = Writer::new();
        fields.field(1, &[self.role.number()]);
        fields.field(2, &self.content.encode());
        fields.field(3, &encode_lineage(&self.lineage));
        fields.u64(4, self.last_epoch.0);
        if self.with_loss {
            fields.field(5, &[]);
        }
        if let Some(alone) = self.alone {
            fields.u64(OPTIONAL | 1, alone.0);
        }
        if let Some(numbered) = self.numbered {
            fields.u64(OPTIONAL | 2, numbered.0);
        }
        fields.finish()
    }

    /// Reads what [`Self::encode`] wrote; the value must end with it.
    pub(crate) fn decode(mut value: Value<'_>) -> Result<Self, TlvError> {
        let bytes = value.rest();
        let mut fields = Reader::new(bytes)?;
        let standing = Self {
            role: Role::decode(fields.required(1)?)?,
            content: Content::decode(fields.required(2)?)?,
            lineage: decode_lineage(fields.required(3)?)?,
            last_epoch: Epoch(fields.u64(4)?),
            alone: fields.optional_array(OPTIONAL | 1)?.map(u64::from_le_bytes).map(Epoch),
            numbered: fields.optional_array(OPTIONAL | 2)?.map(u64::from_le_bytes).map(Epoch),
            with_loss: fields.flag(5)?,
        };
        fields.finish()?;
        Ok(standing)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.generation().map_or(0, |generation| generation.number);
        write!(f, "{} of generation {number}, epoch {}", self.role, self.last_epoch)?;
        match self.alone {
            Some(alone) => write!(f, ", alone since epoch {alone}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
