//! After a promote: the old primary lives on, or comes back, and learns that it was promoted over. What follows is in
//! `failback.rs`.
//!
//! Always holds: what is judged is what the guest did, not what the state machine remembers of it. A primary never
//! gives up by itself what its guest wrote while it was not in sync, but for what a power cut takes along: the last
//! moments, and what was written while no daemon ran.

use ftship_proto::backup::Phase;
use ftship_proto::ids::Epoch;
use ftship_proto::primary::PrimaryEvent;

use crate::switching::Gate;
use crate::world::{Event, Side, World};

const SECOND: u64 = 1_000_000;
/// How often the daemon looks who uses the volumes, behind a promote and before.
const LOOK: u64 = 20_000;
const EARLY_LOOK: u64 = 5 * LOOK;
/// A daemon that has run so long without a backup has written down that it is alone.
const NOTED: u64 = 10 * LOOK;
/// By then both sides know where they stand.
const LENGTH: u64 = 40 * SECOND;

/// What has become of the old primary.
#[derive(Debug, Default)]
pub(crate) struct Aftermath {
    promoted: Option<Epoch>,
    pub(crate) demoted: bool,
    ends: u64,
    /// Somebody gives up what the old primary wrote.
    pub(crate) is_discarding: bool,
}

impl Aftermath {
    /// The epoch of the promote.
    pub(crate) fn promoted(&self) -> Option<Epoch> {
        self.promoted
    }
}

impl World {
    /// The guest wrote on the primary's host.
    pub(crate) fn note_guest_write(&mut self) {
        let host = &mut self.primary;
        host.written = true;
        let in_sync = host.daemon.as_ref().is_some_and(|daemon| daemon.core.is_in_sync());
        if !in_sync && host.alone_since.is_none() {
            host.alone_since = Some(self.now);
        }
    }

    /// The power of the primary's host is cut: what only its memory knew is gone.
    pub(crate) fn forget_unnoted(&mut self) {
        let (now, host) = (self.now, &mut self.primary);
        host.written = false;
        host.boots += 1;
        let noted = |since: u64| {
            let until = match &host.daemon {
                // Its state's disk stalls.
                Some(daemon) if !daemon.core.is_state_durable() => 0,
                Some(_) => now,
                None => host.daemon_until.unwrap_or(now),
            };
            host.daemon_since.is_some_and(|from| from.max(since) + NOTED <= until)
        };
        if !host.alone_since.is_some_and(noted) {
            host.alone_since = None;
        }
    }

    pub(crate) fn in_aftermath(&self) -> bool {
        self.operator.aftermath.promoted.is_some()
    }

    /// The backup was promoted. Whether the history goes on.
    pub(crate) fn begin_aftermath(&mut self, at: Epoch) -> bool {
        if self.primary_failed() || self.checker.is_struck() || self.in_aftermath() {
            return self.in_aftermath();
        }
        self.stalled_until = [0; 6];
        self.operator.deadline = u64::MAX;
        let demoted = self.operator.aftermath.demoted;
        let ends = self.now + LENGTH;
        self.operator.aftermath = Aftermath { promoted: Some(at), demoted, ends, is_discarding: false };
        self.note(|_| "AFTERMATH: the old primary is told".into());
        if self.primary.daemon.is_none() {
            if !self.primary.powered {
                let (primary, random) = (&mut self.primary, &mut self.random);
                primary.state.power_cut(random);
                self.guest_power_cut();
                self.primary.alone_since = None;
                self.primary.written = false;
                self.primary.boots += 1;
                self.primary.has_guest = self.random.once_in(3);
            }
            let run = self.primary.run;
            self.schedule(self.now + SECOND, Event::Restart(Side::Primary, run));
        }
        let leaves = self.now + self.random.below(4 * SECOND);
        self.schedule(leaves, Event::GuestLeaves);
        true
    }

    /// The VM is stopped; perhaps its host with it.
    pub(crate) fn guest_leaves(&mut self) {
        self.note(|_| "operator: the VM is stopped".into());
        self.primary.has_guest = false;
        if self.random.coin() {
            self.note(|_| "FAULT CutPrimary".into());
            self.stop(Side::Primary, true);
        }
    }

    /// The daemon looks who uses the volumes.
    pub(crate) fn look(&mut self) {
        if self.in_aftermath() && self.now >= self.operator.aftermath.ends && self.discards_mine() {
            self.operator.aftermath.ends += 5 * SECOND;
        }
        if self.in_aftermath() && self.now >= self.operator.aftermath.ends {
            return self.end_aftermath();
        }
        let next = if self.in_aftermath() { LOOK } else { EARLY_LOOK };
        self.schedule(self.now + next, Event::Look);
        let usage = self.primary.usage();
        if self.primary.daemon.as_ref().is_some_and(|daemon| daemon.core.wants_usage()) {
            self.primary_handle(PrimaryEvent::Used(usage));
        }
    }

    /// The primary stepped down by itself.
    pub(crate) fn stepped_down(&mut self) {
        if self.taken_up() {
            return;
        }
        let alone = self.primary.alone_since;
        let is_legal = alone.is_none() || self.operator.aftermath.is_discarding;
        self.judge_planned(self.operator.aftermath.promoted);
        assert!(is_legal, "what the guest wrote alone since {alone:?} is given up by nobody's word");
        let has_guest = self.primary.has_guest && self.primary.gate != Gate::Shut;
        assert!(!has_guest, "it stepped down while its guest runs");
        self.operator.aftermath.demoted = true;
        self.primary_stop(true);
        self.nobody_is_primary();
    }

    fn end_aftermath(&mut self) {
        let Aftermath { promoted, demoted, is_discarding, .. } = self.operator.aftermath;
        let at = promoted.expect("an aftermath follows a promote");
        self.expect_planned(demoted);
        let alone = self.primary.alone_since;
        let fence = self.primary.daemon.as_ref().map(|daemon| daemon.core.fence());
        match fence {
            _ if demoted => {}
            _ if is_discarding => panic!("the old primary was to be given up, and is not"),
            Some(Some(fence)) => {
                // One that was put back may know of fewer generations.
                let is_fork = fence.fork == at || self.put_back.is_done && fence.fork < at;
                assert!(is_fork, "the fork is {}, the other side was promoted at {at}", fence.fork);
                assert!(alone.is_none() || fence.split, "both sides went on, and it is called {fence:?}");
            }
            Some(None) => panic!("40 seconds after a promote the old primary does not know of it"),
            None => panic!("the old primary does not run"),
        }
        self.checker.promoted(&self.backup.disks, at, self.scenario.noisy);
        let phase = self.backup.daemon.as_ref().map(|daemon| daemon.core.phase().clone());
        assert!(matches!(phase, None | Some(Phase::Promoted)), "the promoted side is {phase:?}");
        self.operator.is_done = true;
    }
}
