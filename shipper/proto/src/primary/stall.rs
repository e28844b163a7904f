//! Why no epoch has ended for a while, although the pair is in sync.
//!
//! Always holds: in sync, and without a cut that succeeded for longer than [`PATIENCE`] epochs, there is a reason to be
//! shown; it names what the next cut waits for, as far as this side knows.

use std::time::Duration;

use super::{Capture, Link, Primary};

/// So many epochs without a cut that succeeded need a reason.
const PATIENCE: u32 = 10;
/// A backup that is silent for so long is worth a word.
const SILENCE: Duration = Duration::from_secs(1);

/// Since when, and what became of the cuts since.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// When the last cut succeeded, or the pair came in sync.
    since: Duration,
    /// Why the last cut since then was void.
    void: Option<String>,
}

impl Stall {
    /// An epoch has ended, or need not.
    pub(super) fn ended(&mut self, now: Duration) {
        self.since = now;
        self.void = None;
    }

    pub(super) fn void(&mut self, reason: &str) {
        self.void = Some(reason.to_owned());
    }
}

impl Primary {
    /// For people: why no epoch has ended for so long, in sync. `None` where that is not long.
    #[must_use]
    pub fn stall_text(&self, now: Duration) -> Option<String> {
        let captures = self.capture == Capture::On && self.is_in_sync();
        let lasts = now.saturating_sub(self.cuts.stall.since);
        if !captures || self.switch.is_some() || lasts <= self.config.epoch_interval * PATIENCE {
            return None;
        }
        Some(format!("no epoch has ended for {lasts:.1?}: {}", self.awaited(now)))
    }

    /// What the next cut waits for.
    pub(super) fn awaited(&self, now: Duration) -> String {
        let void = self.cuts.stall.void.as_ref();
        let void = void.map(|reason| format!("the last cut was void: {reason}"));
        match () {
            () if self.hooks.is_asked() => "the freeze hook has not ended".into(),
            () if self.cuts.cutting.is_some() => {
                let under_way =
                    "a cut is under way and does not end: flushing the volume, or reading its log, is slow";
                void.map_or(under_way.into(), |void| format!("{under_way}; {void}"))
            }
            () if self.commits.in_flight.len() >= self.config.window => {
                let count = self.commits.in_flight.len();
                format!("the window is full, {count} epochs wait for the backup{}", self.silence(now))
            }
            () if !self.has_number() => {
                "the state that notes the next epoch's number is being written, which is slow".into()
            }
            () if !self.journal_has_room() => {
                "the backup's journal has no room for more epochs that nobody has committed".into()
            }
            () => void.unwrap_or_else(|| "the next cut is due".into()),
        }
    }

    /// How long nothing was heard from the backup.
    fn silence(&self, now: Duration) -> String {
        match &self.peer.link {
            Link::Up { heard, .. } if now >= *heard + SILENCE => {
                format!(", from which nothing was heard for {:.1?}", now - *heard)
            }
            _ => String::new(),
        }
    }
}
