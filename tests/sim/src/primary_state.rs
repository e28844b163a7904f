//! The primary's durable state: two slots on a disk of its own, written by a lane of its own.
//!
//! Always holds: a stop tears the write under way at sectors; after its first error the lane does nothing more
//! (`shipper/src/primary/state_lane.rs`).

use ftship_proto::generations::LineageEntry;
use ftship_proto::ids::{Digest, Epoch, Generation};
use ftship_proto::mutant::{self, Mutant};
use ftship_proto::primary::PrimaryEvent;
use ftship_proto::slot::{FIRST_SEQUENCE, SLOT_SIZE, Slot, SlotKind, encode};
use ftship_proto::state::{DurableState, Role};

use crate::cut_reports::PrimaryReport;
use crate::disk::Disk;
use crate::primary_host::PrimaryDaemon;
use crate::world::{LaneId, Side, World};

/// As `ftship format` leaves it.
pub(crate) fn format(formatted_id: [u8; 16], generation: Generation) -> Disk {
    let lineage = vec![LineageEntry { generation, first_epoch: Epoch(1), digest: Digest::ZERO }];
    let blank = DurableState::new_backup(crate::encoding::group_name(), formatted_id);
    let first = DurableState { role: Role::Primary, lineage, ..blank };
    let mut disk = Disk::new(&[(Slot::A.offset(), SLOT_SIZE), (Slot::B.offset(), SLOT_SIZE)]);
    disk.write_slots(FIRST_SEQUENCE, SlotKind::State, &first.encode());
    disk
}

impl World {
    /// What a starting daemon finds.
    pub(crate) fn state_load(&mut self) -> (DurableState, u64) {
        self.primary.state.sync();
        self.rot(Side::Primary);
        let disk = &mut self.primary.state;
        let [a, b] = disk.view.slots();
        let (state, chosen) = DurableState::load(a, b).expect("a sound state").expect("formatted");
        if !mutant::is(Mutant::SlotsInTurn) {
            disk.write_slots(chosen.sequence, SlotKind::State, &state.encode());
        }
        (state, chosen.sequence)
    }

    /// While a daemon is away, one of two sound slots may rot.
    pub(crate) fn rot(&mut self, side: Side) {
        // A source of its own: what is drawn elsewhere is what it was.
        let mut chance = self.random.clone();
        if self.in_aftermath() || !chance.once_in(6) {
            return;
        }
        let slot = Slot::BOTH[chance.index(2)];
        let (disk, kind) = match (side, chance.coin()) {
            (Side::Primary, _) => (&mut self.primary.state, SlotKind::State),
            (Side::Backup, true) => (&mut self.backup.disks.state, SlotKind::State),
            (Side::Backup, false) => (&mut self.backup.disks.journal, SlotKind::JournalSuperblock),
        };
        if disk.rot_slot(kind, slot) {
            self.note(|_| format!("FAULT slot {slot:?} rots, {kind:?} of the {side:?}"));
        }
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
        let at = daemon.state_at + 1;
        let body = state.encode();
        let bytes = encode(at, SlotKind::State, &body).expect("a slot holds it");
        let event = if fails {
            let slot = Slot::BOTH[random.index(2)];
            if slot == Slot::B {
                host.state.write(Slot::A.offset(), &bytes);
                host.state.sync();
            }
            host.state.write(slot.offset(), &bytes);
            host.state.sync_failed(&mut random);
            self.random = random;
            daemon.state.failed = true;
            PrimaryEvent::Failed { reason: "state: I/O error".into() }
        } else {
            if mutant::is(Mutant::SlotsInTurn) {
                host.state.write(crate::lanes::slot_offset(at, Slot::A), &bytes);
                host.state.sync();
            } else {
                host.state.write_slots(at, SlotKind::State, &body);
            }
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
            let (at, mut random) = (daemon.state_at + 1, self.random.clone());
            let bytes = encode(at, SlotKind::State, &state.encode()).expect("a slot holds it");
            if mutant::is(Mutant::SlotsInTurn) {
                self.primary.state.write_torn(crate::lanes::slot_offset(at, Slot::A), &bytes, &mut random);
            } else {
                let slot = Slot::BOTH[random.index(2)];
                if slot == Slot::B {
                    self.primary.state.write(Slot::A.offset(), &bytes);
                    self.primary.state.sync();
                }
                self.primary.state.write_torn(slot.offset(), &bytes, &mut random);
            }
            self.random = random;
        }
    }
}
