//! Parts: what is captured during a last round is cut off whenever the log fills, and sent as part of what is copied.
//!
//! ```text
//!   the log fills ── Cut, which exchanges the log ── ShipPart ── PartEncoded
//!        │
//!        ├── no part can be cut in time: the capture ends, and the round goes on as an ordinary one
//!        └── the backup does not acknowledge the epoch in time: the capture ends; once it has, a sync of what was written
//!            since the capture began follows, over the same connection
//! ```
//! A part is an epoch's content in all but its number: what was written between two instants at which the volumes stood
//! still, as it was at the second one. The epoch goes on after it. Staged, the parts are frames of the sync's one epoch;
//! in place, they are written at once, as everything that is copied.
//!
//! Always holds:
//! - A part goes out after every piece of the copy whose reading began before its cut (`copy.rs`): so nothing that was
//!   read before a write comes after it. What is read later has that write, or one of which a later part tells.
//! - At most `window` parts are cut and not encoded. Writes never wait for them: where they come faster than parts go out
//!   the log fills, the capture ends, and dm-era has where the writes went. The next round copies that, and the next last
//!   round tries again; nothing of what was copied is lost, and both rates are shown.
//! - No round begins before the parts of the one before are out.

use std::time::Duration;

use super::commit::InFlight;
use super::plan::{Carrier, Rates};
use super::{Capture, Cut, CutOrder, Link, Primary, PrimaryAction, SyncStep};

/// Part of the log, in percent, beyond which it is cut off.
const PART_AT: u64 = 30;

impl Primary {
    /// In a last round: cuts a part off if the log has enough for one. Returns whether it did.
    pub(super) fn cut_part(&mut self) -> bool {
        let is_due = self.cuts.log_percent >= PART_AT && !self.parts_full();
        if is_due {
            let epoch = self.cuts.next_epoch;
            (self.cuts.cutting, self.cuts.is_part) = (Some(epoch), true);
            // A part that is void costs more than a longer pause.
            let budget = self.config.pause_limit.max(self.config.pause_budget);
            self.order(CutOrder::Cut(Cut {
                epoch,
                roll: false,
                budget,
                hold: false,
                part: true,
                may_rest: false,
            }));
        }
        is_due
    }

    fn parts_full(&self) -> bool {
        self.syncing.attempt.parts >= self.config.window
    }

    pub(super) fn part_taken(&mut self, now: Duration) {
        if self.capture != Capture::On || self.syncing.step != SyncStep::LastRound {
            return;
        }
        self.cuts.void_run = 0;
        self.syncing.attempt.parts += 1;
        self.syncing.attempt.logged += std::mem::take(&mut self.cuts.log_used);
        self.cuts.log_percent = 0;
        self.act(PrimaryAction::ShipPart);
        self.cuts.cut_at = now + self.retry_interval();
        self.round_over(now);
    }

    /// A part is out: `stored` bytes of frames were made in all of this sync so far, `frames` of them for it.
    pub(super) fn part_encoded(&mut self, now: Duration, stored: u64, frames: u64) {
        self.syncing.attempt.parts = self.syncing.attempt.parts.saturating_sub(1);
        self.syncing.attempt.progressed(now);
        self.syncing.attempt.stored = stored;
        if self.syncing.attempt.carrier == Some(Carrier::InPlace) {
            self.syncing.attempt.frames += frames;
        }
        if self.guard_journal(now, stored) {
            self.round_over(now);
        }
    }

    /// How full the log is in a last round.
    pub(super) fn last_round_log(&mut self, now: Duration) {
        if self.cuts.log_percent >= self.config.log_watermark.into() {
            return self.outrun(now);
        }
        let is_free = self.cuts.cutting.is_none() && self.cuts.void_run == 0;
        if is_free && self.cuts.log_percent >= PART_AT && !self.parts_full() {
            self.cuts.cut_at = now;
            self.cut_timeout(now);
        }
    }

    /// The log overflowed, or logging failed; the capture has ended.
    pub(super) fn log_off(&mut self, now: Duration, reason: &str) {
        match (self.capture, self.syncing.step) {
            // What it loses is given up already.
            (Capture::Stopping | Capture::Off, _) => {}
            (Capture::On, SyncStep::LastRound) => self.outrun(now),
            (Capture::On, SyncStep::Finishing) => self.cut_short(now),
            _ => self.capture_lost(now, reason),
        }
    }

    /// The log is full, and the backup has not acknowledged the sync's epoch yet: that stays on its way.
    pub(super) fn cut_short(&mut self, now: Duration) {
        if self.commits.in_flight.is_empty() {
            // The cut that would have been its end is not taken, and the copy has not been ended either.
            return self.outrun(now);
        }
        self.syncing.attempt.is_cut_short = true;
        self.end_capture_early();
    }

    /// Once the backup has everything that was cut before the capture ended early, goes on from there, as after a greeting.
    /// Whether it is committed is not waited for: nobody may ask for that before the pair is in sync.
    pub(super) fn catch_up(&mut self, now: Duration) {
        let is_due = self.syncing.step == SyncStep::Finishing && self.syncing.attempt.is_cut_short;
        if !is_due || self.commits.in_flight.iter().any(|one| !one.staged) || !self.is_connected() {
            return;
        }
        self.stands_at_committed();
        let last = std::mem::take(&mut self.commits.in_flight).pop_back();
        if let (Some(InFlight { epoch, digest: Some(digest), .. }), Link::Up { welcome, .. }) =
            (last, &mut self.peer.link)
        {
            (welcome.held, welcome.chain_digest) = (Some(epoch), digest);
        }
        self.syncing.staged_in_vain = 0;
        if self.enter_sync(now, SyncStep::None) {
            self.begin_sync(now);
        }
    }

    /// The guest writes faster than parts go out, or than a cut ends: without a log, the round goes on as one that is not the
    /// last.
    fn outrun(&mut self, now: Duration) {
        let attempt = &mut self.syncing.attempt;
        let written = attempt.logged + self.cuts.log_used;
        let sent = attempt.stored.saturating_sub(attempt.stored_before);
        attempt.overrun = Rates::of(written, sent, now.saturating_sub(attempt.captured_at));
        self.end_capture_early();
        let reason = "the backup is being synchronised, and the guest writes faster than that";
        self.fail_checkpoints(reason);
        if self.enter_sync(now, SyncStep::Copying) {
            self.round_over(now);
        }
    }

    /// What is captured from here on is given up; dm-era has where it was written.
    fn end_capture_early(&mut self) {
        self.enter_capture(Capture::Stopping);
        self.order(CutOrder::Stop);
        // Also if a cut is under way: its result does not count any more.
        self.cuts.give_up();
        self.thaw();
        self.act(PrimaryAction::StateChanged);
    }

    /// Goes on where a round is complete, and all of its parts are out.
    pub(super) fn round_over(&mut self, now: Duration) {
        let waits = self.syncing.attempt.parts > 0;
        match self.syncing.step {
            _ if !self.syncing.attempt.is_copied => {}
            SyncStep::Copying if waits => {}
            // Its epoch is read at once.
            SyncStep::Copying if self.config.still_budget.is_some() && !self.has_number() => {}
            SyncStep::Copying if self.syncing.attempt.is_last_next(self.config.small_round) => {
                self.last_round(now);
            }
            SyncStep::Copying => {
                let since = self.syncing.attempt.since.clone();
                self.roll(now, Some(since));
            }
            // What the cut under way takes is to go before the end of the copy. And the log that waits for the last
            // epoch's acknowledgement is not to wait for parts as well.
            SyncStep::LastRound if self.cuts.is_part || waits => {}
            SyncStep::LastRound => self.finish(now),
            _ => {}
        }
    }

    /// For people, while syncing: that the guest writes faster than is copied, and how fast.
    #[must_use]
    pub fn sync_text(&self) -> Option<String> {
        let attempt = &self.syncing.attempt;
        if self.syncing.step == SyncStep::None {
            return None;
        }
        if attempt.is_cut_short {
            let text = "the log was full before the backup had the sync's epoch: once it has it, what was written since \
                        follows";
            return Some(text.to_owned());
        }
        let shown = |rates: &Rates| (mega(rates.written), mega(rates.copied));
        let overrun = attempt.overrun.as_ref().map(|rates| {
            let (written, sent) = shown(rates);
            format!(
                "the log was full: the guest writes {written} MB/s, and {sent} MB/s are sent, what is copied included; \
                 another round follows, and the sync ends once writers are slower than that"
            )
        });
        overrun.or_else(|| {
            let (written, copied) = shown(attempt.outgrown.as_ref()?);
            Some(format!(
                "rounds of copying do not shrink: the guest writes to blocks of {written} MB/s, and {copied} MB/s are copied"
            ))
        })
    }
}

/// Bytes, in millions.
fn mega(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}
