//! Receiving: the base copy and the epochs, from frame to durable and acknowledged.
//!
//! Always holds: a frame is journalled or written only after it was checked against its epoch and its
//! place in it; an epoch is acknowledged only when a sync issued after its last frame has succeeded.

use std::time::Duration;

use super::phase::CopyStep;
use super::{Backup, BackupAction, Link, Phase, Sealed};
use crate::digest::EpochVerifier;
use crate::epoch::EpochHeader;
use crate::frame::{Frame, FrameHeader, FrameKind};
use crate::ids::{Digest, Epoch, Incarnation};
use crate::journal::ReserveError;
use crate::message::{ByeCause, Message};
use crate::mutant::{self, Mutant};
use crate::protocol::AckPolicy;
use crate::record::RecordIter;

impl Backup {
    pub(super) fn frame(&mut self, now: Duration, frame: Frame) {
        match &mut self.link {
            Link::Down => return,
            Link::Greeting { .. } => {
                return match Message::decode(&frame) {
                    Ok(Message::Hello(hello)) => self.hello(now, &frame.header, hello),
                    Ok(other) => self.close(now, format!("expected a hello, got {}", other.name())),
                    Err(error) => self.close(now, format!("expected a hello: {error}")),
                };
            }
            Link::Clearing { .. } => return self.bye(now, "a frame before the greeting was answered".into()),
            Link::Up { heard, peer, .. } => {
                *heard = now;
                if frame.header.incarnation != peer.incarnation && !mutant::is(Mutant::SkipIncarnation) {
                    return self.bye(now, "a frame of another incarnation".into());
                }
            }
        }
        let result = match frame.header.kind {
            FrameKind::BaseData => self.base_data(frame),
            FrameKind::EpochBegin => self.epoch_begin(now, frame),
            FrameKind::EpochData | FrameKind::EpochEnd => self.place(now, frame),
            _ => self.control(now, &frame),
        };
        if let Err(text) = result {
            self.bye(now, text);
        }
    }

    fn control(&mut self, now: Duration, frame: &Frame) -> Result<(), String> {
        match Message::decode(frame).map_err(|error| error.to_string())? {
            Message::Ping { token } => self.act(BackupAction::Send(Message::Pong { token })),
            Message::Pong { .. } => {}
            Message::SyncBegin { base_id, base } => return self.sync_begin(now, base_id, base),
            Message::BaseEnd { .. } => return self.base_end(),
            Message::Commit { epoch } => return self.commit_word(now, epoch),
            Message::TakeOver { generation } => {
                self.promote(now, generation, None, false);
                // Had it begun, the connection would have ended.
                if !matches!(self.link, Link::Down) {
                    return Err(format!("this side cannot take over: it is {}", self.standing()));
                }
            }
            Message::Hash(request) => return self.question(now, request),
            Message::Bye { text, .. } => self.close(now, format!("the primary said goodbye: {text}")),
            other => return Err(format!("{} is not for a backup", other.name())),
        }
        Ok(())
    }

    fn epoch_begin(&mut self, now: Duration, frame: Frame) -> Result<(), String> {
        if self.open.is_some() {
            return Err("an epoch begins inside another".into());
        }
        let header = EpochHeader::decode(&frame).map_err(|error| error.to_string())?;
        let Link::Up { peer, .. } = &self.link else { return Ok(()) };
        let generation = peer.lineage.last().map(|entry| entry.generation);
        if Some(header.generation) != generation || header.group != peer.group {
            return Err("an epoch of another generation or group".into());
        }
        let is_continued = peer.lineage.last() == self.state.lineage.last();
        if header.previous != self.digest {
            return Err(format!("epoch {} does not continue what this side holds", frame.header.epoch));
        }
        if frame.header.epoch <= self.highest_epoch() || header.last_epoch != frame.header.epoch {
            return Err(format!("epoch {} after {}", frame.header.epoch, self.highest_epoch()));
        }
        let is_behind = header.first_epoch > self.held().next() && !mutant::is(Mutant::StagedOfWrongBase);
        match self.phase.copying() {
            None if self.phase == Phase::Consistent && header.commit_point => {
                if !is_continued {
                    return Err("an epoch of a generation that this side has no epoch of".into());
                }
                if is_behind {
                    let first = header.first_epoch;
                    return Err(format!(
                        "epochs from {first} on do not follow epoch {}, held here",
                        self.held()
                    ));
                }
            }
            Some(CopyStep::Flushing | CopyStep::Flushed | CopyStep::Sealing) if header.commit_point => {}
            Some(CopyStep::Base) if mutant::is(Mutant::CutInLastRound) => {}
            _ => return Err(format!("epoch {} does not fit the state here", frame.header.epoch)),
        }
        self.catches_up = header.first_epoch < header.last_epoch;
        self.open = Some(EpochVerifier::new(self.digest));
        self.place(now, frame)
    }

    /// Refuses records that could not be applied, before anything of them is stored.
    pub(super) fn check_records(&mut self, frame: &Frame) -> Result<(), String> {
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
    fn place(&mut self, now: Duration, frame: Frame) -> Result<(), String> {
        self.check_records(&frame)?;
        let Some(verifier) = &mut self.open else {
            return Err("epoch data outside an epoch".into());
        };
        match self.journal.reserve(&frame) {
            Ok(placement) => {
                let sealed = verifier.push(&frame).map_err(|error| error.to_string())?;
                self.counters.epoch_bytes += frame.payload.len() as u64;
                let FrameHeader { epoch, incarnation, .. } = frame.header;
                self.act(BackupAction::Append { placement, frame });
                if let Some(summary) = sealed {
                    self.seal(epoch, summary.digest, incarnation);
                }
                Ok(())
            }
            // Applying what is committed, or soon will be, makes room; see also `is_stuck`.
            Err(ReserveError::Full) if !self.sealed.is_empty() => {
                self.blocked = Some(frame);
                Ok(())
            }
            Err(error) => {
                let text = format!("epoch {} cannot be journalled: {error}", frame.header.epoch);
                self.leave(now, text, ByeCause::Journal);
                Ok(())
            }
        }
    }

    /// Tries again to place the frame for which there was no room.
    pub(super) fn unblock(&mut self, now: Duration) {
        if let Some(frame) = self.blocked.take() {
            if let Link::Up { heard, .. } = &mut self.link {
                *heard = now;
            }
            if let Err(text) = self.place(now, frame) {
                self.bye(now, text);
            }
        }
    }

    fn seal(&mut self, epoch: Epoch, digest: Digest, incarnation: Incarnation) {
        let (start, end) = self.journal.seal();
        self.open = None;
        self.catches_up = false;
        if let Link::Up { replicates, .. } = &mut self.link {
            *replicates = true;
        }
        self.digest = digest;
        // Nothing else is accepted, see `epoch_begin`.
        self.sealed.push_back(Sealed { epoch, digest, incarnation, start, end, commit_point: true });
        if self.ack() == AckPolicy::Received && self.is_consistent() {
            self.acknowledge();
        }
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
                self.settle(Duration::ZERO);
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
        let is_old = matches!(self.phase.copying(), Some(CopyStep::Draining | CopyStep::Marking));
        if !is_old {
            self.copy_synced(now);
        }
        self.settle(now);
        self.go_on(now);
    }
}
