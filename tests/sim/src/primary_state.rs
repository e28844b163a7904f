//! The primary's durable state: two slots on a disk of its own, written by a lane of its own.
//!
//! Always holds: a stop tears the write under way at sectors; after its first error the lane does nothing more
//! (`shipper/src/primary/state_lane.rs`).

use ftship_proto::generations::LineageEntry;
use ftship_proto::ids::{Digest, Epoch, Generation};
use ftship_proto::primary::PrimaryEvent;
use ftship_proto::slot::{self, SLOT_SIZE, Slot, SlotKind, SlotPosition};
use ftship_proto::state::{DurableState, Role};

use crate::cut_reports::PrimaryReport;
use crate::disk::Disk;
use crate::primary_host::PrimaryDaemon;
use crate::world::{LaneId, World};

/// As `ftship format` leaves it.
pub(crate) fn format(formatted_id: [u8; 16], generation: Generation) -> Disk {
    let lineage = vec![LineageEntry { generation, first_epoch: Epoch(1), digest: Digest::ZERO }];
    let blank = DurableState::new_backup(crate::encoding::group_name(), formatted_id);
    let first = DurableState { role: Role::Primary, lineage, ..blank };
    let mut disk = Disk::new(&[(Slot::A.offset(), SLOT_SIZE), (Slot::B.offset(), SLOT_SIZE)]);
    for at in [SlotPosition::FIRST, SlotPosition::FIRST.next()] {
        disk.write(at.slot.offset(), &encode(at, &first));
    }
    disk.sync();
    disk
}

fn encode(at: SlotPosition, state: &DurableState) -> [u8; SLOT_SIZE] {
    slot::encode(at.sequence, SlotKind::State, &state.encode()).expect("a slot holds it")
}

impl World {
    /// What a starting daemon finds.
    pub(crate) fn state_load(&mut self) -> (DurableState, SlotPosition) {
        let disk = &mut self.primary.state;
        disk.sync();
        let [a, b] = disk.view.slots();
        DurableState::load(a, b).expect("a sound state").expect("formatted")
    }

    pub(crate) fn state_push(&mut self, state: Box<DurableState>) {
        let Some(daemon) = &mut self.primary.daemon else { return };
        daemon.state.jobs.push_back(state);
        if daemon.state.jobs.len() == 1 && !daemon.state.failed {
            self.lane_begin(LaneId::State, self.primary.run);
        }
    }

    pub(crate) fn state_done(&mut self) {
        let fails = self.random.once_in(self.scenario.odds_disk);
        let mut random = self.random.clone();
        let host = &mut self.primary;
        let Some(daemon) = &mut host.daemon else { return };
        let Some(state) = daemon.state.jobs.pop_front() else { return };
        let at = daemon.state_at.next();
        host.state.write(at.slot.offset(), &encode(at, &state));
        let event = if fails {
            host.state.sync_failed(&mut random);
            self.random = random;
            daemon.state.failed = true;
            PrimaryEvent::Failed { reason: "state: I/O error".into() }
        } else {
            host.state.sync();
            daemon.state_at = at;
            PrimaryEvent::StateWritten
        };
        let goes_on = !daemon.state.jobs.is_empty() && !fails;
        self.note(|_| format!("State lane: {event:?}"));
        self.primary_tell(PrimaryReport::Event(event));
        if goes_on {
            self.lane_begin(LaneId::State, self.primary.run);
        }
    }

    /// The daemon's thread stops wherever it is.
    pub(crate) fn state_interrupted(&mut self, daemon: &PrimaryDaemon) {
        if let Some(state) = daemon.state.jobs.front().filter(|_| !daemon.state.failed) {
            let (at, mut random) = (daemon.state_at.next(), self.random.clone());
            self.primary.state.write_torn(at.slot.offset(), &encode(at, state), &mut random);
            self.random = random;
        }
    }
}
