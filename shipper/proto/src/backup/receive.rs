//! Receiving: the base copy and the epochs, from frame to durable and acknowledged.
//!
//! Always holds: a frame is journalled or written only after it was checked against its epoch and its
//! place in it; an epoch is acknowledged only when a sync issued after its last frame has succeeded.

use std::time::Duration;

use super::{Backup, BackupAction, CopyStep, Copying, Link, Phase, Sealed};
use crate::digest::EpochVerifier;
use crate::epoch::EpochHeader;
use crate::frame::{Frame, FrameHeader, FrameKind};
use crate::ids::{Digest, Epoch};
use crate::journal::ReserveError;
use crate::message::Message;
use crate::mutant::{self, Mutant};
use crate::record::RecordIter;
use crate::state::Content;

impl Backup {
    pub(super) fn frame(&mut self, now: Duration, frame: Frame) {
        match &mut self.link {
            Link::Down => return,
            Link::Greeting { .. } => {
                return match Message::decode(&frame) {
                    Ok(Message::Hello(hello)) => self.hello(now, &frame.header, hello),
                    Ok(other) => self.close(format!("expected a hello, got {}", other.name())),
                    Err(error) => self.close(format!("expected a hello: {error}")),
                };
            }
            Link::Up { heard, peer, .. } => {
                *heard = now;
                if frame.header.incarnation != peer.incarnation && !mutant::is(Mutant::SkipIncarnation) {
                    return self.bye("a frame of another incarnation".into());
                }
            }
        }
        let result = match frame.header.kind {
            FrameKind::BaseData => self.base_data(frame),
            FrameKind::EpochBegin => self.epoch_begin(frame),
            FrameKind::EpochData | FrameKind::EpochEnd => self.place(frame),
            _ => self.control(now, &frame),
        };
        if let Err(text) = result {
            self.bye(text);
        }
    }

    fn control(&mut self, now: Duration, frame: &Frame) -> Result<(), String> {
        match Message::decode(frame).map_err(|error| error.to_string())? {
            Message::Ping { token } => self.act(BackupAction::Send(Message::Pong { token })),
            Message::Pong { .. } => {}
            Message::SyncBegin { base_id } => return self.sync_begin(now, base_id),
            Message::BaseEnd { .. } => return self.base_end(),
            Message::Bye { text } => self.close(format!("the primary said goodbye: {text}")),
            other => return Err(format!("{} is not for a backup", other.name())),
        }
        Ok(())
    }

    fn sync_begin(&mut self, now: Duration, base_id: [u8; 16]) -> Result<(), String> {
        match self.phase {
            Phase::Blank | Phase::Inconsistent | Phase::Consistent if self.open.is_none() => {}
            _ => return Err("a full sync cannot begin now".into()),
        }
        let copying = Copying { base_id, step: CopyStep::Draining, commit_point_synced: false };
        self.phase = Phase::Copying(copying);
        self.continue_draining(now);
        Ok(())
    }

    /// Once nothing of an earlier content is left to apply, says durably that it is being overwritten.
    pub(super) fn continue_draining(&mut self, now: Duration) {
        let Phase::Copying(Copying { step: step @ CopyStep::Draining, base_id, .. }) = &mut self.phase else {
            return;
        };
        let is_drained = self.sealed.is_empty() && self.sync.running.is_none();
        if is_drained || mutant::is(Mutant::OverwriteUndrained) {
            *step = CopyStep::Marking;
            self.state.content = Content::Inconsistent { base_id: *base_id };
            if let Link::Up { peer, .. } = &self.link {
                self.state.group = Some(peer.group.clone());
                self.state.lineage.clone_from(&peer.lineage);
                self.state.last_incarnation = Some(peer.incarnation);
            }
            self.write_state();
            if mutant::is(Mutant::ReadyBeforeState) {
                self.state_written(now);
            }
        } else {
            self.apply_now(now);
        }
    }

    pub(super) fn state_written(&mut self, now: Duration) {
        match &mut self.phase {
            Phase::Copying(copying) => match copying.step {
                CopyStep::Marking if matches!(self.link, Link::Up { .. }) => {
                    copying.step = CopyStep::Base;
                    self.act(BackupAction::Send(Message::SyncReady));
                }
                CopyStep::Marking => self.phase = Phase::Inconsistent,
                CopyStep::Sealing => {
                    self.phase = Phase::Consistent;
                    self.commit_synced(now);
                }
                _ => {}
            },
            Phase::Promoting(_) => self.promote_marked(),
            _ => {}
        }
    }

    fn base_data(&mut self, frame: Frame) -> Result<(), String> {
        let Phase::Copying(Copying { step: CopyStep::Base, .. }) = self.phase else {
            return Err("base copy data outside a full sync".into());
        };
        self.check_records(&frame)?;
        let Link::Up { peer, .. } = &self.link else { return Ok(()) };
        self.counters.base_bytes += frame.payload.len() as u64;
        let group = Box::new(peer.group.clone());
        self.act(BackupAction::WriteBase { frame, group });
        Ok(())
    }

    fn base_end(&mut self) -> Result<(), String> {
        let Phase::Copying(Copying { step: step @ CopyStep::Base, .. }) = &mut self.phase else {
            return Err("the end of a base copy outside a full sync".into());
        };
        *step = if mutant::is(Mutant::BaseWithoutFlush) { CopyStep::Flushed } else { CopyStep::Flushing };
        self.flushes += 1;
        self.act(BackupAction::FlushVolumes);
        Ok(())
    }

    pub(super) fn volumes_flushed(&mut self, now: Duration) {
        self.flushes = self.flushes.saturating_sub(1);
        if self.flushes > 0 && !mutant::is(Mutant::AnyFlushEndsBase) {
            return;
        }
        if let Phase::Copying(Copying { step: step @ CopyStep::Flushing, .. }) = &mut self.phase {
            *step = CopyStep::Flushed;
            self.end_full_sync(now);
        }
    }

    fn epoch_begin(&mut self, frame: Frame) -> Result<(), String> {
        if self.open.is_some() {
            return Err("an epoch begins inside another".into());
        }
        let header = EpochHeader::decode(&frame).map_err(|error| error.to_string())?;
        let Link::Up { peer, .. } = &self.link else { return Ok(()) };
        if header.generation.number != peer.generation || header.group != peer.group {
            return Err("an epoch of another generation or group".into());
        }
        if header.previous != self.digest {
            return Err(format!("epoch {} does not continue what this side holds", frame.header.epoch));
        }
        if frame.header.epoch <= self.highest_epoch() || header.last_epoch != frame.header.epoch {
            return Err(format!("epoch {} after {}", frame.header.epoch, self.highest_epoch()));
        }
        match &self.phase {
            Phase::Consistent if header.commit_point => {}
            Phase::Copying(Copying { step: CopyStep::Base, .. }) if !header.commit_point => {}
            Phase::Copying(_) if mutant::is(Mutant::CommitPointAlways) => {}
            Phase::Copying(Copying {
                step: CopyStep::Flushing | CopyStep::Flushed | CopyStep::Sealing,
                ..
            }) => {}
            _ => return Err(format!("epoch {} does not fit the state here", frame.header.epoch)),
        }
        if let Link::Up { replicates, .. } = &mut self.link {
            *replicates = true;
        }
        self.open_commit_point = header.commit_point;
        self.open = Some(EpochVerifier::new(self.digest));
        self.place(frame)
    }

    /// Refuses records that could not be applied, before anything of them is stored.
    fn check_records(&mut self, frame: &Frame) -> Result<(), String> {
        let Link::Up { peer, .. } = &self.link else { return Ok(()) };
        let FrameHeader { kind, record_count, .. } = frame.header;
        if !kind.carries_records() {
            return Ok(());
        }
        let raw = frame.raw_payload(&mut self.scratch).map_err(|error| error.to_string())?;
        RecordIter::new(raw, kind, record_count, &peer.group).map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Checks the frame against its epoch and gives it its place in the journal; keeps it when there is
    /// no room yet.
    fn place(&mut self, frame: Frame) -> Result<(), String> {
        self.check_records(&frame)?;
        let Some(verifier) = &mut self.open else {
            return Err("epoch data outside an epoch".into());
        };
        match self.journal.reserve(&frame) {
            Ok(placement) => {
                let sealed = verifier.push(&frame).map_err(|error| error.to_string())?;
                self.counters.epoch_bytes += frame.payload.len() as u64;
                let epoch = frame.header.epoch;
                self.act(BackupAction::Append { placement, frame });
                if let Some(summary) = sealed {
                    self.seal(epoch, summary.digest);
                }
                Ok(())
            }
            // Applying what is committed will make room.
            Err(ReserveError::Full) if !self.sealed.is_empty() => {
                self.blocked = Some(frame);
                Ok(())
            }
            Err(error) => Err(format!("epoch {} cannot be journalled: {error}", frame.header.epoch)),
        }
    }

    /// Tries again to place the frame for which there was no room.
    pub(super) fn unblock(&mut self, now: Duration) {
        if let Some(frame) = self.blocked.take() {
            if let Link::Up { heard, .. } = &mut self.link {
                *heard = now;
            }
            if let Err(text) = self.place(frame) {
                self.bye(text);
            }
        }
    }

    fn seal(&mut self, epoch: Epoch, digest: Digest) {
        let (start, end) = self.journal.seal();
        self.open = None;
        self.digest = digest;
        let commit_point = self.open_commit_point;
        self.sealed.push_back(Sealed { epoch, digest, start, end, commit_point });
        self.sync_journal();
    }

    /// Starts a sync for everything sealed, unless one is under way: then its end starts the next.
    pub(super) fn sync_journal(&mut self) {
        let Some(newest) = self.sealed.back().map(|last| last.epoch) else { return };
        if self.sync.running.is_none() && newest > self.synced {
            let ticket = self.sync.next_ticket;
            self.sync.next_ticket += 1;
            self.sync.running = Some((ticket, newest));
            self.act(BackupAction::SyncJournal { ticket });
            if mutant::is(Mutant::AckBeforeSync) {
                self.synced = newest;
                self.commit_synced(Duration::ZERO);
            }
        }
    }

    pub(super) fn journal_synced(&mut self, now: Duration, ticket: u64) {
        let Some((running, newest)) = self.sync.running.take() else { return };
        debug_assert_eq!(running, ticket, "syncs end in the order in which they were issued");
        let sealed = self.sealed.back().filter(|_| mutant::is(Mutant::SyncCoversLaterEpochs));
        let newest = sealed.map_or(newest, |last| last.epoch);
        self.synced = newest;
        self.journal.note_synced(newest);
        self.sync_journal();
        // While draining, what is sealed belongs to the content that is still held.
        if let Phase::Copying(copying) = &mut self.phase
            && (copying.step != CopyStep::Draining || mutant::is(Mutant::OldCommitPointCounts))
        {
            let mut durable = self.sealed.iter().filter(|sealed| sealed.epoch <= newest);
            copying.commit_point_synced |= durable.clone().any(|sealed| sealed.commit_point);
            if !copying.commit_point_synced {
                let last = durable.next_back().map(|sealed| (sealed.epoch, sealed.digest));
                if let (Some((epoch, digest)), Link::Up { .. }) = (last, &self.link) {
                    self.act(BackupAction::Send(Message::Staged { epoch, digest }));
                }
            }
            self.end_full_sync(now);
        } else if !matches!(self.phase, Phase::Copying(_)) || !mutant::is(Mutant::CommitsLostInDraining) {
            self.commit_synced(now);
        }
        self.schedule_apply(now);
        self.continue_draining(now);
        self.promote_continue(now);
    }

    /// Base copy flushed and a commit point durable: from here on this side is promotable.
    fn end_full_sync(&mut self, now: Duration) {
        let Phase::Copying(copying) = &mut self.phase else { return };
        let has_commit_point =
            copying.commit_point_synced || mutant::is(Mutant::ConsistentWithoutCommitPoint);
        if copying.step == CopyStep::Flushed && has_commit_point {
            copying.step = CopyStep::Sealing;
            self.state.content = Content::Consistent;
            self.state.highest_epoch_seen = self.state.highest_epoch_seen.max(self.synced);
            self.write_state();
            if mutant::is(Mutant::AckBeforeState) {
                self.phase = Phase::Consistent;
                return self.commit_synced(now);
            }
        }
        self.schedule_apply(now);
    }

    /// What is durable in the journal of a consistent backup is committed, and said to be.
    fn commit_synced(&mut self, now: Duration) {
        if self.state.content != Content::Consistent {
            return self.schedule_apply(now);
        }
        let mut newly = self.sealed.iter().filter(|sealed| {
            sealed.commit_point && sealed.epoch > self.committed && sealed.epoch <= self.synced
        });
        self.counters.epochs_committed += newly.clone().count() as u64;
        if let Some(last) = newly.next_back().copied() {
            self.committed = last.epoch;
            self.committed_digest = last.digest;
            if let Link::Up { .. } = self.link {
                let Sealed { epoch, digest, .. } = last;
                self.act(BackupAction::Send(Message::Staged { epoch, digest }));
            }
        }
        self.schedule_apply(now);
    }
}
