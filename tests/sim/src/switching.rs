//! Exchanging the roles under load: what holds the guest's writes back, and who lets them go on.
//!
//! Always holds: as the daemon's cut thread and the watchdog do it: a hold ends by itself; when the daemon dies the
//! volume is brought back, unless it yields: then it is shut. From the promote on no write of the guest ever reaches the
//! old primary's volume, and that has nothing that the promoted one has not.

use ftship_proto::ids::Epoch;
use ftship_proto::primary::{CutOrder, CutResult, PrimaryEvent};

use crate::world::{Event, Side, World};

/// What becomes of the guest's writes on the primary's host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Gate {
    /// They go to the volume.
    #[default]
    Open,
    /// They wait, until this time at most.
    Held { ends: u64 },
    /// They wait, and whatever ends that makes them fail.
    Yielding { ends: u64 },
    /// They fail.
    Shut,
}

impl World {
    /// Somebody wants the roles to be exchanged, while the guest runs.
    pub(crate) fn ask_for_switch(&mut self) {
        if self.operator.is_calm() {
            return;
        }
        let (id, generation) = (self.operator.id(), self.random.id());
        self.note(|_| "operator: switch".into());
        let usage = self.primary.usage();
        self.primary_handle(PrimaryEvent::Used(usage));
        self.primary_handle(PrimaryEvent::Switch { id, generation, stall: true });
    }

    /// A cut was taken that holds writes back.
    pub(crate) fn hold(&mut self) {
        let ends = self.now + 2 * self.scenario.timeout;
        self.primary.gate = Gate::Held { ends };
        self.schedule(ends, Event::HoldEnds);
    }

    /// It lasts too long.
    pub(crate) fn hold_ends(&mut self) {
        let over = |ends| ends <= self.now;
        match self.primary.gate {
            Gate::Held { ends } if over(ends) => {
                let released = self.perform_switch(&CutOrder::Release);
                self.primary_tell(released.into());
            }
            Gate::Yielding { ends } if over(ends) => {
                let shut = self.perform_switch(&CutOrder::Shut);
                self.primary_tell(shut.into());
            }
            _ => {}
        }
    }

    /// The cut thread's part.
    pub(crate) fn perform_switch(&mut self, order: &CutOrder) -> CutResult {
        let fails = self.random.once_in(12);
        let host = &mut self.primary;
        let (gate, result) = match (order, host.gate) {
            (CutOrder::Yield, Gate::Held { ends }) if !fails => (Gate::Yielding { ends }, CutResult::Yielded),
            (CutOrder::Shut, _) => {
                if let Some(daemon) = &mut host.daemon {
                    daemon.dirty = None;
                }
                (Gate::Shut, CutResult::Shut)
            }
            _ => (Gate::Open, CutResult::Released { reason: "let go".into() }),
        };
        self.primary.gate = gate;
        result
    }

    /// The capture ends, or the daemon: what is held back goes on or fails. Whether it fails.
    pub(crate) fn gate_let_go(&mut self) -> bool {
        let host = &mut self.primary;
        host.gate = match host.gate {
            Gate::Open | Gate::Held { .. } => Gate::Open,
            Gate::Yielding { .. } | Gate::Shut => Gate::Shut,
        };
        host.gate == Gate::Shut
    }

    /// The backup promoted itself because it was told to take over.
    pub(crate) fn taken_over(&mut self, at: Epoch) {
        let gate = self.primary.gate;
        let is_shut = matches!(gate, Gate::Yielding { .. } | Gate::Shut);
        assert!(is_shut || !self.primary.powered, "told to take over while the guest's writes are {gate:?}");
        let (there, here) = (self.checker.writes_of(at), self.primary.writes);
        assert_eq!(there, here, "the other side took over at {at}, behind which the guest wrote");
        self.note(|_| "AFTERMATH: the roles are exchanged".into());
        self.operator.handed_over = true;
        self.operator.settle_for_a_promote(self.now);
        self.end_faults();
    }

    /// The old primary is a backup by its disk, and nobody has promoted the other side: a person does.
    pub(crate) fn nobody_is_primary(&mut self) {
        if self.operator.promoting.is_some() || self.in_aftermath() {
            return;
        }
        self.note(|_| "operator: there is no primary".into());
        self.operator.handed_over = true;
        self.operator.settle_for_a_promote(self.now);
        self.end_faults();
        if self.backup.is_up() && !self.backup_failed() {
            return self.ask_to_promote();
        }
        let power = !self.backup.powered;
        self.stop(Side::Backup, power);
        self.must_promote();
    }
}
