//! A sync: rounds of copying while the volumes run, then a capture, and one exact state.
//!
//! Round 0 copies what the backup lacks, or everything; each further round what was written during the one before, as
//! dm-era's roll before it says. When a round is small, or rounds do not shrink any more, the capture starts; in the
//! pause in which the log is attached dm-era is rolled once more. What that roll names is read while the log has what
//! is written meanwhile, and which overrides it; when the log fills, part of it goes out (`parts.rs`). The first cut
//! after that read is the commit point.
//!
//! Always holds:
//! - Nothing but parts is cut between the beginning of a sync and the end of its last round.
//! - A round copies everything that was written since the roll before the last one ended; the last one, since the last.
//! - A consistent backup keeps its last committed epoch until the sync's one is committed, unless it was told to give
//!   that up; it is told so only when staging does not do, or an operator wants a whole copy, and only once the capture
//!   that the sync needs was seen to begin (`refusal.rs`).

use std::time::Duration;

use ftdm_units::{Era, Sectors};

use super::plan::{Attempt, Carrier, CompareSizes, Plan, SyncFigures};
use super::{Capture, CutOrder, Link, Primary, PrimaryAction, Replication, SyncStep, Told};
use crate::frame::Frame;
use crate::ids::{Digest, Epoch};
use crate::message::{ByeCause, Message};
use crate::mutant::{self, Mutant};
use crate::protocol::{COMPARE, CommitPolicy};
use crate::record::{Record, RecordIter};
use crate::rolls::Roll;
use crate::scope::{Scope, bytes_of};
use crate::state::Content;
use crate::verify::{DigestLength, HashRequest, Place};

/// How many time-outs a step may take without any progress.
const PATIENCE: u32 = 10;
/// Goodbyes of the backup, for what its journal does not take, after which a sync is not staged again.
const STAGED_ATTEMPTS: u32 = 2;
/// What their count is set to then: with each interval it is halved, so the next one is in place at once.
const IN_PLACE: u32 = 2 * STAGED_ATTEMPTS;

/// The sync under way, and what is known of those before.
#[derive(Debug, Default)]
pub(super) struct Syncing {
    pub(super) step: SyncStep,
    pub(super) attempt: Attempt,
    pub(super) last: Option<SyncFigures>,
    /// What an interval is expected to have changed: bytes of the last one.
    pub(super) expected: u64,
    /// An operator wants a whole copy.
    pub(super) wants_whole: bool,
    /// How often staging a sync came to nothing for the backup's reasons since it was in sync.
    pub(super) staged_in_vain: u32,
    pub(super) in_sync_since: Option<Duration>,
    /// Syncs begun by this incarnation; names each roll's purpose.
    pub(super) attempts: u32,
    /// In-place syncs begun by this incarnation; with it, names each of them.
    begun: u32,
}

impl Primary {
    /// Whatever the backup holds: a sync begins.
    pub(super) fn greeted(&mut self, now: Duration) {
        let Link::Up { welcome, .. } = &self.peer.link else { return };
        if !mutant::is(Mutant::NumberFromOne) {
            self.cuts.next_epoch = self.cuts.next_epoch.max(welcome.highest_epoch_seen.next());
        }
        self.note_numbers();
        let Link::Up { welcome, .. } = &self.peer.link else { return };
        if welcome.content == Content::Consistent {
            self.commits.committed = welcome.committed;
            self.repeat_word();
        }
        if self.waits_for_capture(now) {
            return;
        }
        self.set_replication(Replication::Syncing);
        self.begin_sync(now);
    }

    pub(super) fn begin_sync(&mut self, now: Duration) {
        let Some(Plan { base, since, stages }) = self.plan() else { return };
        self.syncing.attempt =
            Attempt { base, stages, is_whole: since.is_none(), begun: now, ..Attempt::default() };
        self.syncing.attempts += 1;
        self.roll(now, since);
    }

    pub(super) fn plan(&self) -> Option<Plan> {
        let Link::Up { welcome, .. } = &self.peer.link else { return None };
        // What is staged continues the backup's own generation.
        let is_older = welcome.lineage.last() != self.durable.state.lineage.last();
        let in_place = self.syncing.staged_in_vain >= STAGED_ATTEMPTS || is_older;
        Some(Plan::new(welcome, &self.durable.state.rolls, self.syncing.wants_whole, in_place))
    }

    pub(super) fn roll(&mut self, now: Duration, since: Option<Vec<Era>>) {
        if self.enter_sync(now, SyncStep::Rolling) {
            let attempt = self.syncing.attempts;
            self.order(CutOrder::Roll { attempt, since });
        }
    }

    /// An operator wants everything to be copied anew: over a new connection.
    pub(super) fn full_sync(&mut self, now: Duration, id: u64) {
        let result = match (&self.peer.link, &self.replication) {
            (_, Replication::Failed { reason }) => Err(reason.clone()),
            (Link::Up { .. }, _) if self.syncing.step != SyncStep::None && self.syncing.attempt.is_whole => {
                Err("a full sync is under way".to_owned())
            }
            (Link::Up { .. }, _) => {
                self.syncing.wants_whole = true;
                self.forget_refusals(now);
                self.sync_anew(now, "a full sync was asked for");
                Ok(())
            }
            _ => Err("the backup is not connected".to_owned()),
        };
        self.act(PrimaryAction::FullSyncBegun { id, result });
    }

    /// Gives up what is under way and connects again at once.
    fn sync_anew(&mut self, now: Duration, reason: &str) {
        self.degrade(reason);
        self.connect_again(now, reason);
    }

    /// Ends the connection, and begins another one at once.
    pub(super) fn connect_again(&mut self, now: Duration, reason: &str) {
        self.lose_link(now, reason);
        self.connect_at_once(now);
    }

    /// Begins a connection, where there is none.
    pub(super) fn connect_at_once(&mut self, now: Duration) {
        self.peer.link = Link::Down { retry_at: now };
        self.link_timeout(now);
    }

    pub(super) fn rolled(&mut self, now: Duration, attempt: u32, eras: Vec<Era>, bytes: u64) {
        let is_awaited = attempt == self.syncing.attempts || mutant::is(Mutant::RollOfEarlierAttempt);
        if self.syncing.step != SyncStep::Rolling || !is_awaited {
            return;
        }
        self.note_round(now, false, eras, bytes);
        self.add_extension();
        self.copy_round(now);
    }

    /// What the backup's volumes lack counts as written, in the first round.
    fn add_extension(&mut self) {
        let is_first = self.syncing.attempt.rounds == 1 && !self.syncing.attempt.is_whole;
        let extension = if is_first { self.extension() } else { Scope::new() };
        if !extension.is_empty() && !mutant::is(Mutant::GrowthUntold) {
            self.syncing.attempt.is_new = bytes_of(&extension) > self.syncing.attempt.bytes;
            self.act(PrimaryAction::Widen(extension));
        }
    }

    /// Copies what the last roll noted, live; the first one decides how it reaches the backup.
    pub(super) fn copy_round(&mut self, now: Duration) {
        match self.syncing.attempt.carrier {
            Some(_) => self.copy(now, SyncStep::Copying),
            None if self.is_stageable() => self.stage(now, SyncStep::Copying),
            None => {
                self.syncing.staged_in_vain = self.syncing.staged_in_vain.max(STAGED_ATTEMPTS);
                // What is staged and not committed is no base to write over.
                if self.plan().is_some_and(|plan| plan.base != self.syncing.attempt.base) {
                    return self.begin_sync(now);
                }
                self.overwrite(now);
            }
        }
    }

    pub(super) fn roll_failed(&mut self, now: Duration, attempt: u32, reason: &str) {
        if matches!(self.syncing.step, SyncStep::Rolling | SyncStep::Still)
            && attempt == self.syncing.attempts
        {
            self.lose_replication(now, &format!("what was written is not known: {reason}"));
        }
    }

    /// Notes a roll, and the round that copies what was written before it.
    pub(super) fn note_round(&mut self, now: Duration, at_cut: bool, eras: Vec<Era>, bytes: u64) {
        self.note_roll(at_cut, eras.clone());
        self.syncing.attempt.since = eras;
        self.syncing.attempt.round(now, bytes);
    }

    /// Makes a roll durable. One that does not follow the others begins a new history.
    pub(super) fn note_roll(&mut self, at_cut: bool, eras: Vec<Era>) {
        let roll = Roll { epoch: self.last_cut(), at_cut, eras };
        let rolls = &mut self.durable.state.rolls;
        if let Err(error) = rolls.push(roll) {
            rolls.clear();
            // Alone it follows nothing.
            let _ = rolls.push(error.next);
        }
        if !self.commits.committed.is_none() {
            rolls.forget_before(self.commits.committed);
        }
        self.durable.state.highest_epoch_seen =
            self.durable.state.highest_epoch_seen.max(Epoch(self.cuts.next_epoch.0 - 1));
        self.write_state();
    }

    fn journal_size(&self) -> u64 {
        let Link::Up { welcome, .. } = &self.peer.link else { return 0 };
        welcome.journal_size.unwrap_or(0)
    }

    /// Half of the journal is for what later rounds add, and for what the capture takes.
    pub(super) fn is_stageable(&self) -> bool {
        self.would_stage(self.syncing.attempt.bytes)
    }

    pub(super) fn would_stage(&self, bytes: u64) -> bool {
        self.syncing.attempt.stages && bytes <= self.journal_size() / 2
    }

    pub(super) fn stage(&mut self, now: Duration, step: SyncStep) {
        let Link::Up { welcome, .. } = &self.peer.link else { return };
        let previous = welcome.chain_digest;
        let first = self.syncing.attempt.base.unwrap_or_default().next();
        self.syncing.attempt.carrier = Some(Carrier::Staged);
        self.syncing.attempt.compares = self.compares_staged();
        self.act(PrimaryAction::OpenChain { previous });
        let (epoch, staged) = (self.cuts.cutting.unwrap_or(self.cuts.next_epoch), self.known_durable());
        self.act(PrimaryAction::OpenCatchUp { first, epoch, staged });
        self.copy(now, step);
    }

    pub(super) fn overwrite(&mut self, now: Duration) {
        if self.needs_trial() {
            return self.try_capture(now);
        }
        let Link::Up { welcome, .. } = &self.peer.link else { return };
        let previous = welcome.chain_digest;
        let mut base_id = self.config.incarnation.0;
        for (byte, count) in base_id.iter_mut().zip(self.syncing.begun.to_le_bytes()) {
            *byte ^= count;
        }
        self.syncing.begun += 1;
        self.syncing.attempt.carrier = Some(Carrier::InPlace);
        self.syncing.attempt.compares = (welcome.features & COMPARE != 0).then_some(Epoch::NONE);
        if !self.enter_sync(now, SyncStep::Asked) {
            return;
        }
        // What the backup has staged and committed is about to be overwritten.
        self.commits.staged = Epoch::NONE;
        self.commits.committed = Epoch::NONE;
        self.commits.committed_digest = Digest::ZERO;
        self.commits.word = Epoch::NONE;
        self.words_unknown("a sync overwrites what the backup has staged");
        self.act(PrimaryAction::OpenChain { previous });
        let base = self.syncing.attempt.base;
        self.act(PrimaryAction::Send(Message::SyncBegin { base_id, base }));
    }

    /// The epoch of which digests are asked for while a sync is staged: the one that the backup holds, and which is on its
    /// volumes sooner or later whatever anybody says.
    fn compares_staged(&self) -> Option<Epoch> {
        let Link::Up { welcome, .. } = &self.peer.link else { return None };
        let is_certain = self.config.commit == CommitPolicy::Auto || welcome.held == Some(welcome.committed);
        self.syncing.attempt.base.filter(|_| welcome.features & COMPARE != 0 && is_certain)
    }

    /// What has one digest in the present round.
    fn unit(&self) -> Sectors {
        let attempt = &self.syncing.attempt;
        let is_all = (attempt.is_whole || attempt.is_new) && attempt.rounds <= 1;
        let CompareSizes { whole, changed } = self.config.compare;
        let coarsest = self.config.group.volumes().iter().map(|volume| volume.block()).max();
        let unit = if is_all { whole } else { changed };
        unit.max(coarsest.unwrap_or(unit))
    }

    pub(super) fn is_comparing(&self) -> bool {
        self.syncing.attempt.compares.is_some()
            && matches!(self.syncing.step, SyncStep::Copying | SyncStep::LastRound)
    }

    /// A batch is about to be read: asks what the backup has there.
    pub(super) fn compares(&mut self, number: u64, places: Vec<Place>) {
        let Some(epoch) = self.syncing.attempt.compares.filter(|_| self.is_comparing()) else { return };
        let (unit, length) = (self.unit(), DigestLength::Short);
        let question = Message::Hash(HashRequest { token: number, epoch, unit, length, places });
        self.syncing.attempt.digests += question.wire_len();
        self.act(PrimaryAction::Send(question));
    }

    /// What the backup has of a batch.
    pub(super) fn told(&mut self, frame: &Frame, number: u64, told: Told) {
        self.syncing.attempt.digests += frame.wire_len();
        self.act(PrimaryAction::Told { number, told });
    }

    /// The backup, which was a primary once, names where it has content of its own.
    pub(super) fn differs(&mut self, now: Duration, frame: &Frame) {
        let Link::Up { heard, .. } = &mut self.peer.link else { return };
        *heard = now;
        if self.syncing.step != SyncStep::Asked || self.syncing.attempt.base.is_none() {
            return self.lose_link(now, "the backup names changes of its own that nobody asked for");
        }
        self.syncing.attempt.progressed(now);
        match self.extents_of(frame) {
            Ok(scope) => self.act(PrimaryAction::Widen(scope)),
            Err(error) => self.lose_link(now, &format!("the backup sent nonsense: {error}")),
        }
    }

    fn extents_of(&self, frame: &Frame) -> Result<Scope, String> {
        let mut raw = Vec::new();
        let raw = frame.raw_payload(&mut raw).map_err(|error| error.to_string())?;
        let (kind, count) = (frame.header.kind, frame.header.record_count);
        let records =
            RecordIter::new(raw, kind, count, &self.config.group).map_err(|error| error.to_string())?;
        Ok(records.map(|Record { volume, extent, .. }| (volume, extent)).collect())
    }

    pub(super) fn sync_ready(&mut self, now: Duration) {
        self.copy(now, SyncStep::Copying);
    }

    pub(super) fn copy(&mut self, now: Duration, step: SyncStep) {
        self.syncing.attempt.is_copied = false;
        if self.enter_sync(now, step) {
            let unit = self.syncing.attempt.compares.map(|_| self.unit());
            self.act(PrimaryAction::Copy { unit });
            if mutant::is(Mutant::CutInLastRound) && step == SyncStep::LastRound {
                self.enter_sync(now, SyncStep::Finishing);
            }
        }
    }

    /// Part of a round is out: `stored` bytes of frames in all rounds so far, while `skipped` bytes of the volumes were not
    /// sent.
    pub(super) fn copy_progressed(&mut self, now: Duration, stored: u64, skipped: u64) {
        (self.syncing.attempt.stored, self.syncing.attempt.skipped) = (stored, skipped);
        self.syncing.attempt.progressed(now);
        self.guard_journal(now, stored);
    }

    /// What is staged has to fit the journal whole, with what the capture adds to it. Returns whether it does.
    pub(super) fn guard_journal(&mut self, now: Duration, stored: u64) -> bool {
        let size = self.journal_size();
        let fits = self.syncing.attempt.carrier != Some(Carrier::Staged) || stored <= size - size / 8;
        if !fits && self.syncing.step != SyncStep::None {
            self.syncing.staged_in_vain = IN_PLACE;
            self.sync_anew(now, "what has changed does not fit the backup's journal: it is written in place");
        }
        fits
    }

    /// The backup ended the connection on purpose while something was being staged. Only what its journal does not take
    /// is better written in place: a backup that is restarted keeps what it has.
    pub(super) fn staging_refused(&mut self, cause: ByeCause) {
        if matches!(cause, ByeCause::Other | ByeCause::Unknown(_)) {
            return;
        }
        if self.syncing.step != SyncStep::None && self.syncing.attempt.carrier == Some(Carrier::Staged) {
            self.syncing.staged_in_vain += 1;
            if self.syncing.staged_in_vain >= STAGED_ATTEMPTS {
                self.syncing.staged_in_vain = IN_PLACE;
            }
        }
    }

    pub(super) fn copied(&mut self, now: Duration, frames: u64) {
        self.syncing.attempt.frames += frames;
        self.syncing.attempt.is_copied = true;
        self.round_over(now);
    }

    pub(super) fn finish(&mut self, now: Duration) {
        if !self.guard_journal(now, self.syncing.attempt.stored.saturating_add(self.cuts.log_used))
            || !self.enter_sync(now, SyncStep::Finishing)
        {
            return;
        }
        self.syncing.attempt.epoch = self.cuts.cutting.unwrap_or(self.cuts.next_epoch);
        if self.config.still_budget.is_some() {
            return self.cut_taken(now, None);
        }
        // The commit point need not wait for the next tick.
        self.cuts.cut_at = now;
        self.cut_timeout(now);
    }

    /// A cut is taken. Where it ends a sync in place, what was copied is complete.
    pub(super) fn end_copy(&mut self) {
        let is_first = self.syncing.step == SyncStep::Finishing && self.commits.in_flight.is_empty();
        if is_first && self.syncing.attempt.carrier == Some(Carrier::InPlace) {
            let (frames, bytes) = (self.syncing.attempt.frames, self.syncing.attempt.total);
            self.act(PrimaryAction::SendInOrder(Message::BaseEnd { frames, bytes }));
        }
    }

    /// What was written since the last roll becomes one exact state.
    pub(super) fn last_round(&mut self, now: Duration) {
        if let Some(budget) = self.config.still_budget {
            return self.still_round(now, budget);
        }
        if self.enter_sync(now, SyncStep::Attaching) {
            self.start_capture();
        }
    }

    fn start_capture(&mut self) {
        // A capture that is still winding up starts anew from `capture_stopped`.
        if self.capture == Capture::Off && self.syncing.step == SyncStep::Attaching {
            self.enter_capture(Capture::Starting);
            let since = self.syncing.attempt.since.clone();
            self.order(CutOrder::Start { since });
        }
    }

    pub(super) fn capture_started(&mut self, now: Duration, eras: Vec<Era>, bytes: u64) {
        // Else degraded meanwhile: the stop is on its way.
        if self.capture != Capture::Starting || !self.enter_capture(Capture::On) {
            return;
        }
        self.cuts.cut_at = now + self.config.epoch_interval;
        (self.cuts.log_percent, self.cuts.log_used) = (0, 0);
        self.rolls.begin_interval(now);
        self.capture_proven();
        self.note_round(now, false, eras, bytes);
        self.syncing.attempt.begin_capture(now);
        if self.syncing.attempt.carrier.is_none() {
            return self.went_straight(now);
        }
        if mutant::is(Mutant::LastRoundForgotten) {
            self.enter_sync(now, SyncStep::LastRound);
            return self.finish(now);
        }
        self.copy(now, SyncStep::LastRound);
    }

    pub(super) fn capture_stopped(&mut self) {
        self.enter_capture(Capture::Off);
        self.cuts.give_up();
        self.start_capture();
    }

    /// The first commit point is on the backup, durably.
    pub(super) fn synced(&mut self, now: Duration) {
        if self.enter_sync(now, SyncStep::None) {
            self.syncing.in_sync_since = Some(now);
            self.cuts.stall.ended(now);
            let after =
                self.syncing.attempt.base.filter(|_| self.syncing.attempt.carrier == Some(Carrier::Staged));
            self.commits.synced_by = Some((after.unwrap_or_default(), self.syncing.attempt.epoch));
            self.syncing.wants_whole = false;
            self.syncing.expected =
                if self.syncing.attempt.is_whole { 0 } else { self.syncing.attempt.total };
            // The next interval may well change as much.
            self.syncing.staged_in_vain =
                if self.config.interval { self.syncing.staged_in_vain / 2 } else { 0 };
            let figures = self.syncing.attempt.figures(now);
            self.rolls.learn(&figures);
            self.syncing.last = Some(figures);
            self.set_replication(Replication::InSync);
        }
    }

    /// Replication cannot go on over this link: degrade, and let the backup see the connection end.
    pub(super) fn lose_replication(&mut self, now: Duration, reason: &str) {
        self.degrade(reason);
        self.lose_link(now, reason);
    }

    /// When the present step is given up unless there is progress.
    pub(super) fn sync_deadline(&self) -> Option<Duration> {
        match self.syncing.step {
            SyncStep::None => None,
            SyncStep::Skipping => self.skipped_until(),
            _ => Some(self.syncing.attempt.progressed + self.config.timeout * PATIENCE),
        }
    }

    pub(super) fn sync_timeout(&mut self, now: Duration) {
        if self.syncing.step != SyncStep::Skipping && self.sync_deadline().is_some_and(|at| at <= now) {
            let reason = format!("the sync made no progress for {:?}", self.config.timeout * PATIENCE);
            self.lose_replication(now, &reason);
        }
    }
}
