//! What a sync starts from and how it reaches the backup.
//!
//! Always holds: blocks are left out only if the history of rolls has everything that was written since an epoch that
//! the backup holds, or differs from in those blocks alone; a sync is staged only behind the epoch that the backup
//! holds.
//!
//! | the backup is | it is known what changed since | carrier, base |
//! |---|---|---|
//! | consistent | the epoch that it holds, and that fits the journal | staged |
//! | consistent | its last committed epoch | in place, since that |
//! | consistent | nothing | in place, whole |
//! | inconsistent, with a base | the base | in place, since that: the same base |
//! | inconsistent, with a base | nothing | in place, whole |
//! | outdated since a fork | the fork | in place, since that, and what it says that it has of its own |
//! | inconsistent without a base, outdated without a fork, or blank | | in place, whole |

use std::time::Duration;

use ftdm_units::{Era, Sectors};

use crate::ids::Epoch;
use crate::message::Welcome;
use crate::mutant::{self, Mutant};
use crate::rolls::RollHistory;
use crate::state::Content;

/// How what is copied reaches the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// As one epoch, which stands for all since the one that the backup holds; until it is committed the backup keeps
    /// that one.
    Staged,
    /// Over the backup's volumes, which it says are inconsistent until the first commit point.
    InPlace,
}

/// What is known when a sync begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The epoch that the backup holds, or from which it differs only in what changed since. `None`: nothing known.
    pub(super) base: Option<Epoch>,
    /// The eras in which that is recorded; `None`: everything counts as written.
    pub(super) since: Option<Vec<Era>>,
    /// It may be staged, as far as the backup's content goes.
    pub(super) stages: bool,
}

impl Plan {
    /// For a backup that answered so. `whole`: whatever it holds; `in_place`: staging it was tried in vain.
    pub(super) fn new(welcome: &Welcome, rolls: &RollHistory, whole: bool, in_place: bool) -> Self {
        let nothing = Self { base: None, since: None, stages: false };
        let since = |epoch: Epoch, stages| {
            let start = if mutant::is(Mutant::OlderEraSkipped) {
                rolls.last().map(|roll| &*roll.eras)
            } else {
                rolls.start(epoch)
            };
            start.map(|eras| Self { base: Some(epoch), since: Some(eras.to_vec()), stages })
        };
        let known = match (welcome.content, welcome.held) {
            _ if whole => None,
            (Content::Consistent, Some(_)) if mutant::is(Mutant::StagedOfWrongBase) => {
                since(welcome.highest_epoch_seen.next(), true)
            }
            (Content::Consistent, Some(held)) if !in_place && !held.is_none() => since(held, true),
            (Content::Consistent, _) if !welcome.committed.is_none() => since(welcome.committed, false),
            (Content::Inconsistent { .. }, _) if mutant::is(Mutant::ResumeWithNewBase) => {
                since(welcome.highest_epoch_seen, false)
            }
            (Content::Inconsistent { base: Some(base), .. } | Content::Outdated { fork: Some(base) }, _) => {
                since(base, false)
            }
            _ => None,
        };
        known.unwrap_or(nothing)
    }
}

/// What has one digest in a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompareSizes {
    /// Where everything is compared: an equal volume costs so much less.
    pub whole: Sectors,
    /// Where it is known that something was written.
    pub changed: Sectors,
}

impl Default for CompareSizes {
    fn default() -> Self {
        Self { whole: Sectors(128), changed: Sectors(8) }
    }
}

/// Bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// That the guest writes.
    pub written: u64,
    /// That are copied or sent.
    pub copied: u64,
}

impl Rates {
    /// So many bytes each, in this time; `None` where that is too short to tell.
    pub(super) fn of(written: u64, copied: u64, time: Duration) -> Option<Self> {
        let millis = u64::try_from(time.as_millis()).ok().filter(|millis| *millis > 0)?;
        let rate = |bytes: u64| bytes.saturating_mul(1000) / millis;
        Some(Self { written: rate(written), copied: rate(copied) })
    }
}

/// A sync in figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncFigures {
    /// The epoch since which changes are copied.
    pub base: Option<Epoch>,
    /// How they reach the backup, once that is known.
    pub carrier: Option<Carrier>,
    /// Everything is copied.
    pub is_whole: bool,
    /// Rounds begun.
    pub rounds: u32,
    /// Bytes of the volumes that the present round covers.
    pub round_bytes: u64,
    /// Bytes of the volumes that all rounds so far cover.
    pub bytes: u64,
    /// Bytes sent for them.
    pub stored: u64,
    /// Bytes that were not sent, the backup having them.
    pub skipped: u64,
    /// Bytes of the questions and answers that found that, both ways.
    pub digests: u64,
    /// Time since it began; of one that has ended, how long it took.
    pub elapsed: Duration,
}

/// How far a sync has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempt {
    /// See [`Plan`].
    pub(super) base: Option<Epoch>,
    pub(super) stages: bool,
    pub(super) is_whole: bool,
    /// Known once the first round's size is.
    pub(super) carrier: Option<Carrier>,
    /// The eras that the last roll began: what was written since is the next round.
    pub(super) since: Vec<Era>,
    /// Rounds that were begun.
    pub(super) rounds: u32,
    /// Bytes of the volumes that the present round covers, and the one before did.
    pub(super) bytes: u64,
    pub(super) bytes_before: u64,
    /// Bytes of the volumes that all rounds so far cover.
    pub(super) total: u64,
    /// Most of the first round is what the backup's volumes lack, because they were smaller.
    pub(super) is_new: bool,
    /// Frames of a base copy, and the bytes of all frames.
    pub(super) frames: u64,
    pub(super) stored: u64,
    /// All of the present round is out.
    pub(super) is_copied: bool,
    /// Its capture ended before its epoch was acknowledged.
    pub(super) is_cut_short: bool,
    /// Parts of the log that are cut and not encoded.
    pub(super) parts: usize,
    /// When the present round began.
    pub(super) round_begun: Duration,
    /// When the capture began; bytes of its log that parts took; bytes sent before it.
    pub(super) captured_at: Duration,
    pub(super) logged: u64,
    pub(super) stored_before: u64,
    /// The last round was not smaller than the one before.
    pub(super) outgrown: Option<Rates>,
    /// The log of a last round was full.
    pub(super) overrun: Option<Rates>,
    /// See [`SyncFigures`].
    pub(super) skipped: u64,
    pub(super) digests: u64,
    /// The epoch of which the backup's digests are to be; 0: what it has, in place. `None`: nothing is compared.
    pub(super) compares: Option<Epoch>,
    /// A capture has begun in it, if only to be tried.
    pub(super) is_proven: bool,
    /// The epoch that it makes.
    pub(super) epoch: Epoch,
    pub(super) begun: Duration,
    pub(super) progressed: Duration,
}

impl Attempt {
    pub(super) fn progressed(&mut self, now: Duration) {
        self.progressed = now;
    }

    /// The round covers so many bytes now, some of which only the backup named.
    pub(super) fn widened(&mut self, bytes: u64) {
        self.total += bytes.saturating_sub(self.bytes);
        self.bytes = bytes.max(self.bytes);
    }

    /// Notes a round of so many bytes.
    pub(super) fn round(&mut self, now: Duration, bytes: u64) {
        if self.rounds > 0 {
            let rates = Rates::of(bytes, self.bytes, now.saturating_sub(self.round_begun));
            self.outgrown = rates.filter(|_| !shrinks(self.bytes, bytes));
        }
        self.round_begun = now;
        self.rounds += 1;
        self.bytes_before = std::mem::replace(&mut self.bytes, bytes);
        self.total += bytes;
    }

    pub(super) fn begin_capture(&mut self, now: Duration) {
        (self.captured_at, self.logged, self.stored_before) = (now, 0, self.stored);
    }

    pub(super) fn figures(&self, now: Duration) -> SyncFigures {
        SyncFigures {
            base: self.base,
            carrier: self.carrier,
            is_whole: self.is_whole,
            rounds: self.rounds,
            round_bytes: self.bytes,
            bytes: self.total,
            stored: self.stored,
            skipped: self.skipped,
            digests: self.digests,
            elapsed: now.saturating_sub(self.begun),
        }
    }

    /// Whether what was written during the present round is to be the last one: it is small, or rounds do not shrink
    /// any more.
    pub(super) fn is_last_next(&self, small: u64) -> bool {
        self.bytes <= small || self.rounds >= 2 && !shrinks(self.bytes_before, self.bytes)
    }
}

/// Whether a round is smaller than the one before. Less than a sixteenth is what any two rounds differ by.
fn shrinks(before: u64, now: u64) -> bool {
    now < before - before / 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Digest;
    use crate::rolls::Roll;
    use crate::state::Role;

    fn welcome(content: Content, committed: u64, held: u64) -> Welcome {
        Welcome {
            protocol: 1,
            features: 0,
            lineage: Vec::new(),
            highest_epoch_seen: Epoch(held),
            committed: Epoch(committed),
            chain_digest: Digest::ZERO,
            content,
            role: Role::Backup,
            journal_size: None,
            held: Some(Epoch(held)),
            sizes: None,
        }
    }

    fn plan(welcome: &Welcome) -> (Option<u64>, Option<u32>, bool) {
        let mut rolls = RollHistory::default();
        for (era, epoch, at_cut) in [(3, 10, true), (5, 20, false)] {
            rolls.push(Roll { epoch: Epoch(epoch), at_cut, eras: vec![Era(era)] }).unwrap();
        }
        let Plan { base, since, stages } = Plan::new(welcome, &rolls, false, false);
        let in_place = Plan::new(welcome, &rolls, false, true);
        assert!(!in_place.stages);
        assert_eq!(Plan::new(welcome, &rolls, true, false).base, None, "a whole copy was asked for");
        (base.map(|epoch| epoch.0), since.map(|eras| eras[0].0), stages)
    }

    #[test]
    fn each_row_of_the_table() {
        let id = [1; 16];
        assert_eq!(plan(&welcome(Content::Consistent, 9, 12)), (Some(12), Some(3), true));
        assert_eq!(plan(&welcome(Content::Consistent, 30, 30)), (Some(30), Some(5), true));
        assert_eq!(plan(&welcome(Content::Consistent, 5, 5)), (None, None, false));
        assert_eq!(plan(&welcome(Content::Consistent, 0, 0)), (None, None, false));
        let older = Welcome { held: None, ..welcome(Content::Consistent, 12, 12) };
        assert_eq!(plan(&older), (Some(12), Some(3), false), "which epoch it holds is not known");
        let base = |base: u64| Content::Inconsistent { base_id: id, base: Some(Epoch(base)) };
        assert_eq!(plan(&welcome(base(10), 0, 30)), (Some(10), Some(3), false));
        assert_eq!(plan(&welcome(base(9), 0, 30)), (None, None, false));
        let without = Content::Inconsistent { base_id: id, base: None };
        assert_eq!(plan(&welcome(without, 0, 30)), (None, None, false));
        assert_eq!(plan(&welcome(Content::Blank, 0, 0)), (None, None, false));
    }

    #[test]
    fn rounds_go_on_while_they_shrink_and_are_not_small() {
        let mut attempt = Attempt::default();
        let mut next = |bytes| {
            attempt.round(Duration::ZERO, bytes);
            attempt.is_last_next(10)
        };
        assert!(!next(1600) && !next(1499) && !next(1400) && next(1313) && next(5));
        attempt = Attempt::default();
        attempt.round(Duration::ZERO, 10);
        assert!(attempt.is_last_next(10));
    }

    #[test]
    fn rounds_that_do_not_shrink_show_both_rates() {
        let mut attempt = Attempt::default();
        attempt.round(Duration::from_secs(1), 1000);
        attempt.round(Duration::from_secs(3), 1200);
        assert_eq!(attempt.outgrown, Some(Rates { written: 600, copied: 500 }));
        attempt.round(Duration::from_secs(4), 600);
        assert_eq!(attempt.outgrown, None);
    }
}
