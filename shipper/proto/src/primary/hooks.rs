//! Hooks: what an operator has run before and after the instant of an epoch, so that the guest's file systems are clean in it.
//!
//! ```text
//!   the cut, or the pause, is due ── Freeze ── Frozen ── cut, or pause ── Thaw
//!                                       └── failed: this interval is skipped, or cut all the same
//! ```
//!
//! Always holds: nothing is frozen for longer than one try: whatever becomes of the cut, the thaw follows. A guest that goes
//! on although nobody ordered it (the hold's own time-out, or its process was killed) counts as a hook that failed, also if its
//! cut was taken already. What is skipped loses nothing: the same epoch goes on with another round, an interval later; until then the backup keeps what it has.

use std::time::Duration;

use super::{Capture, Carrier, CutOrder, Primary, PrimaryAction, SyncStep};

/// A backup that is not in sync does not wait for a whole interval.
const SOON: Duration = Duration::from_secs(10);

/// What is to be done when a hook fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// No epoch in this interval.
    Skip,
    /// The epoch is cut all the same.
    Cut,
}

/// How the guest stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Frozen {
    #[default]
    No,
    /// It was asked for.
    Asked,
    /// Yes, or it could not be, and that is no reason not to cut.
    Yes,
}

/// How the guest stands, and how often a freeze was asked for.
#[derive(Debug, Default)]
pub(super) struct GuestHooks {
    frozen: Frozen,
    freezes: u64,
    /// When what a failed hook had skipped is tried again.
    skips_until: Duration,
}

impl GuestHooks {
    /// Whether a freeze was asked for and has not been answered.
    pub(super) fn is_asked(&self) -> bool {
        self.frozen == Frozen::Asked
    }

    /// Asks for a freeze, where the guest is neither frozen nor about to be. Returns the number of the request.
    fn ask(&mut self) -> Option<u64> {
        (self.frozen == Frozen::No).then(|| {
            self.freezes += 1;
            self.frozen = Frozen::Asked;
            self.freezes
        })
    }

    /// Whether this answers the last request, and that waits for it.
    fn awaits(&self, token: u64) -> bool {
        self.is_asked() && token == self.freezes
    }

    /// Returns whether a thaw is to follow.
    fn end(&mut self) -> bool {
        std::mem::take(&mut self.frozen) != Frozen::No
    }
}

impl Primary {
    /// Before a cut, or a pause. Whether it may be done now; else it is done when the guest is frozen.
    pub(super) fn freezes_first(&mut self) -> bool {
        // Behind the last cut of a switch writes are held back anyway.
        if self.config.hooks.is_none() || self.hooks.frozen == Frozen::Yes || self.wants_last_cut() {
            return false;
        }
        if let Some(token) = self.hooks.ask() {
            let epoch = self.cuts.next_epoch;
            self.act(PrimaryAction::Freeze { token, epoch });
        }
        true
    }

    /// The instant is over, or comes to nothing.
    pub(super) fn thaw(&mut self) {
        if self.hooks.end() {
            self.act(PrimaryAction::Thaw);
        }
    }

    /// The guest goes on, and nobody ordered that. A cut that was not ordered yet is skipped, or made all the same, as when the
    /// freeze fails; of one that was, nobody can tell whether it is clean.
    pub(super) fn thawed_early(&mut self, now: Duration, token: u64) {
        if token != self.hooks.freezes || self.hooks.is_asked() {
            return;
        }
        self.counters.hooks_failed += 1;
        let waits = self.hooks.frozen == Frozen::Yes && self.cuts.cutting.is_none();
        if waits && !self.cuts_unfrozen() {
            self.skip(now, "the guest went on before its cut, although nobody had it thawed");
        }
    }

    /// Whether a cut is made although the guest cannot be frozen for it.
    fn cuts_unfrozen(&self) -> bool {
        // Until its first epoch a backup that is overwritten is nothing at all.
        let is_first =
            self.syncing.step != SyncStep::None && self.syncing.attempt.carrier == Some(Carrier::InPlace);
        self.config.hooks == Some(OnFailure::Cut) || is_first
    }

    pub(super) fn froze(&mut self, now: Duration, token: u64, result: Result<(), String>) {
        if !self.hooks.awaits(token) {
            return;
        }
        if let Err(reason) = result {
            self.counters.hooks_failed += 1;
            if !self.cuts_unfrozen() {
                return self.skip(now, &reason);
            }
        }
        self.hooks.frozen = Frozen::Yes;
        match (self.syncing.step, self.config.still_budget) {
            (SyncStep::Still, Some(budget)) => self.order_still_round(budget),
            _ => {
                // It was due when the freeze was asked for.
                self.cuts.cut_at = now;
                self.cut_timeout(now);
            }
        }
    }

    /// No epoch now. What was copied stays where it is, and another round follows.
    fn skip(&mut self, now: Duration, reason: &str) {
        self.thaw();
        let reason = format!("the epoch is skipped: {reason}");
        self.fail_checkpoints(&reason);
        if self.syncing.step == SyncStep::None {
            return self.rest();
        }
        if self.capture == Capture::On {
            self.enter_capture(Capture::Stopping);
            self.order(CutOrder::Stop);
        }
        if self.enter_sync(now, SyncStep::Skipping) {
            let wait = self.config.epoch_interval;
            self.hooks.skips_until = now + if self.is_in_sync() { wait } else { wait.min(SOON) };
        }
    }

    /// When what was skipped is tried again: at once, if somebody waits for a checkpoint.
    pub(super) fn skipped_until(&self) -> Option<Duration> {
        let at = if self.commits.checkpoints.is_empty() { self.hooks.skips_until } else { Duration::ZERO };
        (self.syncing.step == SyncStep::Skipping).then_some(at)
    }

    pub(super) fn hooks_timeout(&mut self, now: Duration) {
        if self.skipped_until().is_some_and(|at| at <= now) {
            let since = self.syncing.attempt.since.clone();
            match self.syncing.attempt.carrier {
                Some(_) => self.roll(now, Some(since)),
                // Nothing was copied yet.
                None => self.last_round(now),
            }
        }
    }
}
