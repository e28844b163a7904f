//! A sync in place on this side: from the first word to the state that says `Consistent` again.
//!
//! Always holds: nothing is overwritten before the state that says so is durable, and nothing of an earlier
//! content is left to be applied then; the last word is had by the first commit point that is durable behind a
//! flushed base copy. Until the first overwrite is possible the earlier content stays promotable.

use std::time::Duration;

use super::growth::within;
use super::phase::{CopyStep, OwnChanges};
use super::{Backup, BackupAction, Copying, Link, Phase};
use crate::epoch_encoder::PlainEncoder;
use crate::frame::Frame;
use crate::growth::SizeHistory;
use crate::ids::Epoch;
use crate::message::Message;
use crate::mutant::{self, Mutant};
use crate::record::Content as Data;
use crate::scope::Scope;
use crate::state::{Content, DurableState, Role};
use ftdm_units::Era;

impl Backup {
    pub(super) fn sync_begin(
        &mut self,
        now: Duration,
        base_id: [u8; 16],
        base: Option<Epoch>,
    ) -> Result<(), String> {
        match self.phase {
            Phase::Blank | Phase::Inconsistent | Phase::Outdated | Phase::Consistent
                if self.open.is_none() => {}
            _ => return Err("a sync cannot begin now".into()),
        }
        if let Some(base) = base.filter(|base| !self.has_base(*base)) {
            return Err(format!("what is here does not differ from epoch {base} in later changes alone"));
        }
        let (step, before, own) = (CopyStep::Draining, None, OwnChanges::Unread);
        let copying = Copying { base_id, base, step, own, commit_point_synced: false, before };
        self.enter(Phase::Copying(copying));
        self.go_on(now);
        Ok(())
    }

    /// Whether what is here, once it is drained, has what every later epoch is based on.
    fn has_base(&self, base: Epoch) -> bool {
        if mutant::is(Mutant::ResumeWithNewBase) {
            return true;
        }
        match self.state.content {
            Content::Blank => false,
            Content::Inconsistent { base: known, .. } | Content::Outdated { fork: known } => {
                known.is_some_and(|known| base <= known) && self.can_tell_since(base)
            }
            Content::Consistent if self.is_external() => base <= self.committed,
            Content::Consistent => base <= self.held(),
        }
    }

    /// Forgets a history of what this side wrote itself that the volumes' eras do not continue: then only a whole copy
    /// helps.
    pub(super) fn check_own_history(&mut self) {
        let DurableState { role, rolls, content, .. } = &mut self.state;
        let continues = self.config.eras.as_ref().is_some_and(|eras| rolls.is_continued_by(eras));
        if *role != Role::Backup || rolls.last().is_none() || continues {
            return;
        }
        rolls.clear();
        match content {
            Content::Outdated { fork } => *fork = None,
            Content::Inconsistent { base, .. } => *base = None,
            Content::Blank | Content::Consistent => {}
        }
        self.write_state();
    }

    /// Whether this side can tell what it has of its own behind an epoch: it never had anything, or recorded it.
    fn can_tell_since(&self, base: Epoch) -> bool {
        self.state.rolls.last().is_none() || self.state.rolls.start(base).is_some()
    }

    /// The eras in which what this side has of its own behind the sync's base is recorded. `None`: it has nothing, or
    /// everything is copied anyway.
    fn own_since(&self, base: Option<Epoch>) -> Option<Vec<Era>> {
        self.state.rolls.start(base?).map(<[Era]>::to_vec)
    }

    /// Whether everything that may be applied is, and nothing more is about to be committed.
    fn is_drained(&self) -> bool {
        let is_done = if self.is_external() {
            self.apply.is_idle() && !self.has_applicable() && !self.superblocks.is_busy()
        } else {
            self.sealed.is_empty()
        };
        is_done && self.sync.running.is_none()
    }

    /// Once nothing of what is committed is left to apply, says durably that it is being overwritten.
    pub(super) fn continue_draining(&mut self, now: Duration) {
        let Phase::Copying(copying) = &self.phase else { return };
        if copying.step != CopyStep::Draining {
            return;
        }
        if !self.is_drained() && !mutant::is(Mutant::OverwriteUndrained) {
            return self.apply_now(now);
        }
        let (base_id, base, before) = (copying.base_id, copying.base, Some(Box::new(self.state.clone())));
        let (step, own) = (CopyStep::Marking, OwnChanges::Unread);
        self.enter(Phase::Copying(Copying { base_id, base, step, own, commit_point_synced: false, before }));
        if base.is_none() {
            // Nothing of what is here will be left.
            self.state.rolls.clear();
            self.state.sizes = SizeHistory::default();
        }
        if !mutant::is(Mutant::OverwriteUnmarked) {
            self.state.content = Content::Inconsistent { base_id, base };
            self.state.lost = None;
        }
        if let Link::Up { peer, .. } = &self.link {
            self.state.group = Some(peer.group.clone());
            self.state.devices.clone_from(&self.config.devices);
            self.state.lineage.clone_from(&peer.lineage);
            self.state.last_incarnation = Some(peer.incarnation);
        }
        self.write_state();
        if mutant::is(Mutant::ReadyBeforeState) {
            self.state_written(now);
        }
    }

    pub(super) fn state_written(&mut self, now: Duration) {
        self.state_writes = self.state_writes.saturating_sub(1);
        if self.state_writes > 0 {
            return;
        }
        self.given_up();
        match (self.phase.copying(), &self.phase) {
            (Some(CopyStep::Marking), _) => {
                self.forget_commits();
                if let Link::Up { .. } = self.link {
                    self.copy_step(CopyStep::Clearing);
                } else {
                    self.enter(Phase::Inconsistent);
                }
            }
            (Some(CopyStep::Sealing), _) => {
                self.enter(Phase::Consistent);
                self.settle(now);
            }
            (_, Phase::Promoting(_)) => self.promote_marked(),
            _ => {}
        }
        self.schedule_apply(now);
        self.go_on(now);
    }

    /// Once what nobody committed is out of the way, lets the base copy come.
    pub(super) fn continue_clearing(&mut self, now: Duration) {
        if self.phase.copying() != Some(CopyStep::Clearing) {
            return;
        }
        let is_clear = self.sealed.is_empty() || mutant::is(Mutant::OverwriteUndrained);
        if !is_clear || self.superblocks.is_busy() {
            return self.apply_now(now);
        }
        let Phase::Copying(copying) = &mut self.phase else { return };
        let (base, own) = (copying.base, copying.own);
        let since = self.own_since(base).filter(|_| !mutant::is(Mutant::OwnUntold));
        match (own, since) {
            (OwnChanges::Unread, Some(since)) => {
                if let Phase::Copying(copying) = &mut self.phase {
                    copying.own = OwnChanges::Reading;
                }
                self.reads += 1;
                self.act(BackupAction::ReadOwn { since });
            }
            (OwnChanges::Reading, _) => {}
            (OwnChanges::Told, _) | (OwnChanges::Unread, None) => {
                self.copy_step(CopyStep::Base);
                self.act(BackupAction::Send(Message::SyncReady));
            }
        }
    }

    /// What this side has of its own behind the sync's base is known, and told; or never will be.
    pub(super) fn own_read(&mut self, now: Duration, result: Result<Scope, String>) {
        self.reads = self.reads.saturating_sub(1);
        let is_awaited = self.reads == 0 && self.phase.copying() == Some(CopyStep::Clearing);
        let Phase::Copying(copying) = &mut self.phase else { return };
        if !is_awaited || copying.own != OwnChanges::Reading {
            return;
        }
        copying.own = OwnChanges::Told;
        let base_id = copying.base_id;
        match result.and_then(|scope| self.tell_own(&scope)) {
            Ok(()) => self.continue_clearing(now),
            Err(reason) => {
                self.state.rolls.clear();
                self.state.content = Content::Inconsistent { base_id, base: None };
                self.write_state();
                self.bye(
                    now,
                    format!("what this side wrote itself is not known, so a whole copy is needed: {reason}"),
                );
            }
        }
    }

    fn tell_own(&mut self, scope: &Scope) -> Result<(), String> {
        let Link::Up { peer, .. } = &self.link else { return Ok(()) };
        let mut frames = Vec::new();
        let mut encoder = PlainEncoder::differs(peer.group.clone(), peer.generation, peer.incarnation);
        for (volume, extent) in within(scope, &peer.group) {
            let pushed = encoder.push(volume, extent, Data::Unknown, &mut |frame| frames.push(frame));
            pushed.map_err(|error| error.to_string())?;
        }
        encoder.flush(&mut |frame| frames.push(frame));
        frames.into_iter().for_each(|frame| self.act(BackupAction::SendFrame(frame)));
        Ok(())
    }

    pub(super) fn base_data(&mut self, frame: Frame) -> Result<(), String> {
        if self.phase.copying() != Some(CopyStep::Base) {
            return Err("base copy data outside a sync in place".into());
        }
        self.check_records(&frame)?;
        let Link::Up { peer, .. } = &self.link else { return Ok(()) };
        self.counters.base_bytes += frame.payload.len() as u64;
        let group = Box::new(peer.group.clone());
        self.act(BackupAction::WriteBase { frame, group });
        Ok(())
    }

    pub(super) fn base_end(&mut self) -> Result<(), String> {
        if self.phase.copying() != Some(CopyStep::Base) {
            return Err("the end of a base copy outside a sync in place".into());
        }
        self.copy_step(CopyStep::Flushing);
        if mutant::is(Mutant::BaseWithoutFlush) {
            self.copy_step(CopyStep::Flushed);
        }
        self.flushes += 1;
        self.act(BackupAction::FlushVolumes);
        Ok(())
    }

    pub(super) fn volumes_flushed(&mut self, now: Duration) {
        self.flushes = self.flushes.saturating_sub(1);
        if self.flushes > 0 && !mutant::is(Mutant::AnyFlushEndsBase) {
            return;
        }
        if self.phase.copying() == Some(CopyStep::Flushing) {
            self.copy_step(CopyStep::Flushed);
            self.end_full_sync(now);
        }
    }

    /// What the journal's sync means to a sync in place: an epoch that came behind the copy is durable.
    pub(super) fn copy_synced(&mut self, now: Duration) {
        let newest = self.synced;
        let Phase::Copying(copying) = &mut self.phase else { return };
        copying.commit_point_synced |= self.sealed.iter().any(|sealed| sealed.epoch <= newest);
        self.end_full_sync(now);
    }

    /// Base copy flushed and a commit point durable: from here on this side is promotable.
    fn end_full_sync(&mut self, now: Duration) {
        let Phase::Copying(copying) = &self.phase else { return };
        let has_commit_point =
            copying.commit_point_synced || mutant::is(Mutant::ConsistentWithoutCommitPoint);
        if copying.step == CopyStep::Flushed && has_commit_point {
            self.copy_step(CopyStep::Sealing);
            self.state.content = Content::Consistent;
            // What this side had of its own is overwritten, and so is what had other sizes.
            self.state.rolls.clear();
            self.state.sizes = SizeHistory::default();
            self.state.highest_epoch_seen = self.state.highest_epoch_seen.max(self.synced);
            self.write_state();
            if mutant::is(Mutant::AckBeforeState) {
                self.enter(Phase::Consistent);
                return self.settle(now);
            }
        }
        self.schedule_apply(now);
    }
}
