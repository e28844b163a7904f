//! The steps of a primary, and from which one may go to which.
//!
//! Always holds: steps are changed by [`Primary::enter_sync`] and [`Primary::enter_capture`] alone, but for
//! degrading, which is legal from everywhere; a change that is not drawn here is a fault of this program, is named
//! as the reason, and degrades.
//!
//! ```text
//!   sync       None ──SyncBegin sent──► Asked ──SyncReady──► Ready ──capture on──► Copying ──all queued──► Finishing
//!               ▲ ▲                                                                                         │
//!               │ └───────────────────── first commit point acknowledged: in sync ──────────────────────────┘
//!               └── degraded: from every step
//!
//!   capture    Off ──StartCapture──► Starting ──started──► On
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncStep {
    None,
    /// SyncBegin was sent.
    Asked,
    /// The backup is ready; the capture is starting.
    Ready,
    /// The base copy is being read.
    Copying,
    /// The base copy is queued; the first commit point is not acknowledged yet.
    Finishing,
}

impl Capture {
    pub(super) fn may_become(self, next: Self) -> bool {
        use Capture::{Off, On, Starting, Stopping};
        matches!((self, next), (Off, Starting) | (Starting, On) | (Starting | On, Stopping) | (Stopping, Off))
    }
}

impl SyncStep {
    pub(super) fn may_become(self, next: Self) -> bool {
        use SyncStep::{Asked, Copying, Finishing, None, Ready};
        matches!(
            (self, next),
            (None, Asked) | (Asked, Ready) | (Ready, Copying) | (Copying, Finishing) | (Finishing, None)
        )
    }
}

impl Primary {
    /// Takes the next step of a full sync. False: there is no such way, and replication is degraded.
    pub(super) fn enter_sync(&mut self, now: Duration, next: SyncStep) -> bool {
        let from = self.sync;
        let is_legal = from.may_become(next);
        if is_legal {
            self.sync = next;
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
    fn a_full_sync_takes_every_step_in_order_and_none_twice() {
        use SyncStep::{Asked, Copying, Finishing, None, Ready};
        let all = [None, Asked, Ready, Copying, Finishing];
        for (i, from) in all.into_iter().enumerate() {
            let next: Vec<_> = all.into_iter().filter(|to| from.may_become(*to)).collect();
            assert_eq!(next, [all[(i + 1) % all.len()]], "{from:?}");
        }
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
