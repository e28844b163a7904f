//! A capture that cannot begin: found out before a sync needs it, and not tried over and over.
//!
//! A sync in place makes a consistent backup inconsistent, until the first commit point behind it; only a capture comes
//! there. So before such a sync the capture is tried: it begins, follows its log once, and ends. And a capture that was
//! refused twice for the same reason is likely to be refused again: the pair stays connected, and degraded for that
//! reason, and the next try comes after [`FIRST_WAIT`], then after twice as long each time, up to [`LAST_WAIT`]; sooner
//! when an operator reloads the configuration or asks for a full sync.
//!
//! Always holds: a sync that needs a capture and is written in place is asked for only in an attempt in which a capture
//! has begun.

use std::time::Duration;

use super::{Capture, CutOrder, Link, Primary, SyncStep};
use crate::mutant::{self, Mutant};

/// How long a capture is not tried once it was refused twice for the same reason.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// The longest such wait.
const LAST_WAIT: Duration = Duration::from_secs(600);

/// How a capture was refused since one last began.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    reason: String,
    /// How often in a row for this reason.
    count: u32,
    /// None is tried before. `None`: at any time.
    until: Option<Duration>,
}

impl Primary {
    /// Whether a sync has to wait.
    pub(super) fn waits_for_capture(&self, now: Duration) -> bool {
        self.refusals.until.is_some_and(|until| now < until)
    }

    /// Whether a sync in place may begin only after a trial.
    pub(super) fn needs_trial(&self) -> bool {
        let captures = self.config.still_budget.is_none();
        captures && !self.syncing.attempt.is_proven && !mutant::is(Mutant::OverwriteUntried)
    }

    pub(super) fn try_capture(&mut self, now: Duration) {
        if self.enter_sync(now, SyncStep::Trying) {
            self.order(CutOrder::Try { attempt: self.syncing.attempts });
        }
    }

    pub(super) fn capture_tried(&mut self, now: Duration, attempt: u32, result: Result<(), String>) {
        if self.syncing.step != SyncStep::Trying || attempt != self.syncing.attempts {
            return;
        }
        match result {
            Ok(()) => {
                self.syncing.attempt.is_proven = true;
                self.overwrite(now);
            }
            Err(reason) => self.capture_refused(now, &reason),
        }
    }

    pub(super) fn capture_lost(&mut self, now: Duration, reason: &str) {
        self.cuts.give_up();
        self.switch_lost_capture(now, reason);
        match self.capture {
            Capture::Starting => self.capture_refused(now, reason),
            _ => self.lose_replication(now, &format!("capture lost: {reason}")),
        }
    }

    fn capture_refused(&mut self, now: Duration, reason: &str) {
        let Refusals { reason: last, count, until } = &mut self.refusals;
        *count = if last == reason { *count + 1 } else { 1 };
        reason.clone_into(last);
        let text = if *count < 2 {
            *until = None;
            format!("the capture cannot begin: {reason}")
        } else {
            let wait = (FIRST_WAIT * 2u32.saturating_pow((*count - 2).min(16))).min(LAST_WAIT);
            *until = Some(now + wait);
            format!(
                "the capture cannot begin, {count} times for the same reason: {reason}; the next try is {wait:?} after \
                 the last one, or at once after a reload"
            )
        };
        self.lose_replication(now, &text);
    }

    /// Something may have changed: the next try is at once.
    pub(super) fn forget_refusals(&mut self, now: Duration) {
        let waits = self.refusals.until.take().is_some();
        self.refusals = Refusals { until: waits.then_some(now), ..Refusals::default() };
    }

    /// A capture has begun.
    pub(super) fn capture_proven(&mut self) {
        self.syncing.attempt.is_proven = true;
        self.refusals = Refusals::default();
    }

    /// When a connected pair, which does nothing because the capture was refused, tries again.
    pub(super) fn refusal_due(&self) -> Option<Duration> {
        let rests = matches!(self.peer.link, Link::Up { .. }) && self.syncing.step == SyncStep::None;
        self.refusals.until.filter(|_| rests && !self.has_failed() && !self.is_stepping_down())
    }

    pub(super) fn refusal_timeout(&mut self, now: Duration) {
        if self.refusal_due().is_some_and(|due| due <= now) {
            self.refusals.until = None;
            // Where the backup stands by now it says when it is greeted.
            self.connect_again(now, "the capture is tried again");
        }
    }
}
