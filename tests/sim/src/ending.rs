//! Daemons that are stopped on purpose, and the planned failover without a switch: the VM is stopped, a checkpoint committed,
//! the daemon stopped, the other side promoted.
//!
//! Always holds: a stopped daemon does what the driver's `stop` does: it asks for a last epoch, says goodbye, and its lanes end
//! what they were given. After a planned failover the old primary becomes the backup by itself, unless somebody wrote there.

use ftship_proto::ids::Epoch;
use ftship_proto::message::{ByeCause, Message};
use ftship_proto::primary::{PrimaryEvent, Until};
use ftship_proto::slot::SlotKind;

use crate::world::{Event, LaneId, Side, World};

const SECOND: u64 = 1_000_000;

/// How far a planned failover has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    /// None is under way.
    #[default]
    No,
    /// The VM is stopped, and this checkpoint is waited for.
    Checkpoint(u64),
    /// It is committed: the daemon may be stopped.
    Committed,
    /// The daemon was stopped; whether everything was committed by then.
    Ended { has_all: bool, boots: u64 },
}

/// See the head of this module.
#[derive(Debug, Default)]
pub(crate) struct Planned {
    step: Step,
    /// Somebody starts the VM where it ran before.
    is_started_again: bool,
}

impl World {
    /// The pair is in step at the end of the history. Whether that goes on with a planned failover.
    pub(crate) fn plan_failover(&mut self) -> bool {
        if !self.scenario.plans || self.checker.is_struck() {
            return false;
        }
        if self.planned.step == Step::No {
            self.note(|_| "operator: a planned failover: the VM is stopped".into());
            self.primary.has_guest = false;
            self.primary_handle(PrimaryEvent::Used(self.primary.usage()));
            let id = self.ask_for_checkpoint(Until::Committed);
            self.planned.step = Step::Checkpoint(id);
            // Not everybody waits.
            let wait = if self.random.once_in(4) { self.random.below(50_000) } else { 20 * SECOND };
            self.schedule(self.now + wait, Event::EndPrimary(self.primary.run));
        }
        true
    }

    pub(crate) fn planned_checkpoint(&mut self, id: u64, is_committed: bool) {
        if self.planned.step == Step::Checkpoint(id) && is_committed {
            self.planned.step = Step::Committed;
            self.schedule(self.now + 1, Event::EndPrimary(self.primary.run));
        }
    }

    /// A person, or the service manager, stops the primary's daemon: it asks for a last epoch.
    pub(crate) fn ask_primary_to_end(&mut self) {
        if self.primary.daemon.is_none() {
            return;
        }
        self.primary_handle(PrimaryEvent::Used(self.primary.usage()));
        self.ask_for_checkpoint(Until::Committed);
        let wait = self.random.below(self.scenario.timeout);
        self.schedule(self.now + wait, Event::EndPrimary(self.primary.run));
    }

    /// It ends.
    pub(crate) fn end_primary(&mut self, run: u32) {
        let is_over = self.operator.is_calm() && self.planned.step == Step::No;
        if run != self.primary.run || self.primary.daemon.is_none() || is_over {
            return;
        }
        self.note(|_| "operator: the primary's daemon is stopped".into());
        let usage = self.primary.usage();
        self.primary_handle(PrimaryEvent::Stopping(usage));
        let host = &mut self.primary;
        let Some(daemon) = &mut host.daemon else { return };
        let has_failed = daemon.state.failed;
        // The lane ends what it was given.
        for state in daemon.state.jobs.drain(..).filter(|_| !has_failed) {
            daemon.state_at += 1;
            host.state.write_slots(daemon.state_at, SlotKind::State, &state.encode());
        }
        self.primary_send(&Message::Bye { text: "the daemon stops".into(), cause: ByeCause::Other });
        self.primary_stop(true);
        self.primary.daemon_since = None;
        if self.planned.step == Step::No {
            let back = self.now + self.random.around(self.scenario.timeout);
            return self.schedule(back, Event::Restart(Side::Primary, self.primary.run));
        }
        let has_all = self.planned.step == Step::Committed && !has_failed;
        self.planned.step = Step::Ended { has_all, boots: self.primary.boots };
        self.planned.is_started_again = self.random.once_in(4);
        if self.planned.is_started_again {
            self.note(|_| "operator: the VM is started again, by mistake".into());
            self.primary.has_guest = true;
            (0..3).for_each(|_| self.guest_burst());
        }
        let promotable = self.must_promote();
        assert!(promotable, "in sync, stopped, and not promotable");
        self.ask_to_promote();
    }

    /// The backup's daemon is stopped.
    pub(crate) fn end_backup(&mut self) {
        if self.backup.daemon.is_none() || self.backup_failed() {
            return;
        }
        self.note(|_| "operator: the backup's daemon is stopped".into());
        self.backup_send(&Message::Bye { text: "the daemon stops".into(), cause: ByeCause::Other });
        for lane in [LaneId::Journal, LaneId::Volume] {
            self.finish_lane(lane);
        }
        self.stop(Side::Backup, false);
    }

    /// The old primary of a planned failover steps down by itself only if it has nothing of its own. What was written while
    /// no daemon ran cannot be known behind a power cut.
    pub(crate) fn judge_planned(&self, promoted: Option<Epoch>) {
        let Step::Ended { boots, .. } = self.planned.step else { return };
        if let Some(at) = promoted.filter(|_| boots == self.primary.boots) {
            let (there, here) = (self.checker.writes_of(at), self.primary.writes);
            assert_eq!(there, here, "it gives up what was written before its daemon was stopped");
        }
    }

    /// At the end it is a backup, by itself.
    pub(crate) fn expect_planned(&self, demoted: bool) {
        if let Step::Ended { has_all: true, .. } = self.planned.step {
            let is_due = demoted || self.planned.is_started_again;
            assert!(is_due, "after a planned failover the old primary does not become the backup by itself");
        }
    }
}
