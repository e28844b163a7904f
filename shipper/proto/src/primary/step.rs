//! The steps of a primary, and from which one may go to which.
//!
//! Always holds: steps are changed by [`Primary::enter_sync`] and [`Primary::enter_capture`] alone, but for
//! degrading, which is legal from everywhere; a change that is not drawn here is a fault of this program, is named
//! as the reason, and degrades. Every step of a sync has a deadline, which progress puts off.
//!
//! ```text
//!   sync       None ──greeted──► Rolling ──scope known: staged──────────► Copying ──small──► Attaching, or Still
//!               ▲ ▲                │  ▲                                    ▲   │                │ capture on, rolled;
//!               │ │                │  └──────────── one more round ────────│───┘                ▼ or read
//!               │ │                └─in place─► Trying ─► Asked ─SyncReady─┘                LastRound
//!               │ │                                                                             │ all queued
//!               │ └───────────── first commit point durable there: in sync ───────── Finishing ◄┘
//!               └── degraded: from every step
//!
//!   Where the guest writes faster than parts of the log go out, or than the cut after them ends, LastRound and Finishing
//!   become Copying again; where it is faster than the acknowledgement, Finishing becomes None, and at once Rolling.
//!
//!   An interval of which little is expected goes from None to Attaching or Still at once; where it was more, on from
//!   there as from Rolling. Where a hook fails, Finishing and Still become Skipping, and an interval later Rolling. What a still
//!   round could not read in time goes on as one more round.
//!
//!   capture    Off ──── Start ─────► Starting ──started──► On
//!               ▲                        │ degraded          │ degraded
//!               └─────── stopped ◄───── Stopping ◄───────────┘
//! ```

use std::time::Duration;

use super::Primary;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capture {
    Off,
    Starting,
    On,
    Stopping,
}

#[derive(Default, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncStep {
    #[default]
    None,
    /// dm-era is being rolled: what the next round copies is what was written before.
    Rolling,
    /// The capture is being tried, before the backup is asked to have its content overwritten.
    Trying,
    /// SyncBegin was sent.
    Asked,
    /// A round is being copied; the volumes run, uncaptured.
    Copying,
    /// The capture is starting; in the pause in which its log is attached dm-era is rolled.
    Attaching,
    /// A still round: dm-era is rolled, and what was written before is read into memory.
    Still,
    /// What was written before the log was attached is being copied, while the log has what is written since; or what
    /// a still round read.
    LastRound,
    /// Everything is queued; the first commit point is not acknowledged yet.
    Finishing,
    /// A hook failed: this interval has no epoch, and what was copied waits for the next round.
    Skipping,
}

impl Capture {
    pub(super) fn may_become(self, next: Self) -> bool {
        use Capture::{Off, On, Starting, Stopping};
        matches!((self, next), (Off, Starting) | (Starting, On) | (Starting | On, Stopping) | (Stopping, Off))
    }
}

impl SyncStep {
    pub(super) fn may_become(self, next: Self) -> bool {
        use SyncStep::{
            Asked, Attaching, Copying, Finishing, LastRound, None, Rolling, Skipping, Still, Trying,
        };
        matches!(
            (self, next),
            (None, Rolling | Attaching | Still)
                | (Rolling, Rolling | Trying | Asked | Copying)
                | (Trying, Asked)
                | (Asked, Copying)
                | (Copying, Rolling | Attaching | Still)
                | (Attaching | Still, LastRound | Rolling | Asked | Copying)
                | (LastRound, Finishing | Copying)
                | (Finishing, None | Copying)
                | (Finishing | Still, Skipping)
                | (Skipping, Rolling | Still)
        )
    }
}

impl Primary {
    /// Takes the next step of a sync. False: there is no such way, and replication is degraded.
    pub(super) fn enter_sync(&mut self, now: Duration, next: SyncStep) -> bool {
        let from = self.syncing.step;
        let is_legal = from.may_become(next);
        if is_legal {
            self.syncing.step = next;
            self.syncing.attempt.progressed(now);
        } else {
            self.lose_replication(
                now,
                &format!("a fault of this program: from {from:?} to {next:?} there is no way"),
            );
        }
        is_legal
    }

    /// Notes what becomes of the capture. False: there is no such way, and nothing was changed.
    pub(super) fn enter_capture(&mut self, next: Capture) -> bool {
        let is_legal = self.capture.may_become(next);
        if is_legal {
            self.capture = next;
        }
        is_legal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_ends_only_by_a_last_round_under_the_capture() {
        use SyncStep::{
            Asked, Attaching, Copying, Finishing, LastRound, None, Rolling, Skipping, Still, Trying,
        };
        let all = [None, Rolling, Trying, Asked, Copying, Attaching, Still, LastRound, Finishing, Skipping];
        let into = |to: SyncStep| all.into_iter().filter(|from| from.may_become(to)).collect::<Vec<_>>();
        assert_eq!(into(None), [Finishing]);
        assert_eq!(into(Finishing), [LastRound]);
        assert_eq!(into(LastRound), [Attaching, Still]);
        assert_eq!(into(Attaching), [None, Copying]);
        assert_eq!(into(Still), [None, Copying, Skipping]);
        assert_eq!(into(Skipping), [Still, Finishing]);
        assert_eq!(into(Copying), [Rolling, Asked, Attaching, Still, LastRound, Finishing]);
        assert_eq!(into(Asked), [Rolling, Trying, Attaching, Still]);
        assert_eq!(into(Trying), [Rolling]);
        assert_eq!(
            into(Rolling),
            [None, Rolling, Copying, Attaching, Still, Skipping],
            "too much to be staged: another plan"
        );
    }

    #[test]
    fn a_capture_that_stops_has_to_be_off_before_it_starts_again() {
        use Capture::{Off, On, Starting, Stopping};
        let all = [Off, Starting, On, Stopping];
        let next = |from: Capture| all.into_iter().filter(|to| from.may_become(*to)).collect::<Vec<_>>();
        assert_eq!(next(Off), [Starting]);
        assert_eq!(next(Starting), [On, Stopping]);
        assert_eq!(next(On), [Stopping]);
        assert_eq!(next(Stopping), [Off]);
    }
}
