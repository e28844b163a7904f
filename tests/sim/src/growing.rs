//! Volumes that grow in the middle of everything else: an operator enlarges the first one, by as much as its device has by
//! then.
//!
//! Always holds: the guest never sees a volume become smaller, and writes to no more than it sees; what a volume has beyond
//! that differs on the two sides until a sync has ended. Whatever a backup holds has the sizes of its epoch.

use ftdm_units::Sectors;
use ftship_proto::primary::{CutResult, PrimaryEvent};

use ftship_proto::state::DurableState;

use crate::content::Shape;
use crate::operator::Fault;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::world::World;

impl Scenario {
    /// A history of one kind: volumes grow, while daemons and hosts stop, links end and backups are promoted.
    pub(crate) fn of_growing(self, random: &mut Random) -> Self {
        let others = [
            Fault::Break,
            Fault::KillPrimary,
            Fault::CutPrimary,
            Fault::CutBackup,
            Fault::KillBackup,
            Fault::Failover,
            Fault::SlowDisks,
        ];
        let blocks = 32 << random.below(3);
        let faults = others.into_iter().filter(|_| random.coin()).chain([Fault::Grow; 3]).collect();
        Self {
            shape: Shape(vec![blocks, 16]),
            begins: vec![blocks / 4, 16],
            ring_blocks: self.ring_blocks + 128,
            faults,
            fault_interval: self.chaos_until / 8,
            chaos_until: 2 * self.chaos_until,
            fails_back: true,
            settles_first: None,
            is_cramped: false,
            ..self
        }
    }
}

/// A place that lies on what is shown of its volume: itself, or another one.
pub(crate) fn shown(shape: &Shape, sizes: &[usize], place: usize) -> usize {
    let volume = shape.volume_of(place);
    let start = shape.start(volume);
    start + (place - start) % sizes[usize::from(volume.0)]
}

/// Whether that place lies on volumes of these sizes.
pub(crate) fn is_within(shape: &Shape, sizes: &[usize], place: usize) -> bool {
    shown(shape, sizes, place) == place
}

/// Sizes in blocks.
pub(crate) fn blocks(sizes: &[Sectors]) -> Vec<usize> {
    sizes.iter().map(|size| usize::try_from(size.0).expect("a small volume")).collect()
}

impl World {
    /// The device of the first volume was enlarged on both hosts, and now the volume is to be.
    pub(crate) fn grow(&mut self) {
        let Some(daemon) = &self.primary.daemon else { return };
        let now = daemon.core.state().group.as_ref().unwrap_or(&self.primary.group).sizes();
        let most = self.scenario.shape.0[0] as u64;
        let mut devices = now.clone();
        devices[0] = Sectors((now[0].0 + 1 + self.random.below(most / 4)).min(most));
        self.note(|_| format!("operator: the volumes become as large as {devices:?}, from {now:?}"));
        let (id, room) = (self.operator.id(), devices.clone());
        self.primary_handle(PrimaryEvent::Resize { id, devices, room });
    }

    /// The layers below the visible devices are enlarged, or cannot be.
    pub(crate) fn enlarge(&mut self, fails: bool) -> CutResult {
        assert!(
            self.primary.daemon.as_ref().is_none_or(|daemon| daemon.dirty.is_none()),
            "volumes are enlarged while something is captured"
        );
        CutResult::Enlarged(if fails { Err("no room".into()) } else { Ok(()) })
    }

    /// The visible devices show these sizes, or cannot.
    pub(crate) fn show(&mut self, sizes: &[Sectors], fails: bool) -> CutResult {
        if fails {
            return CutResult::Shown(Err("no memory".into()));
        }
        let [a, b] = self.primary.state.durable.slots();
        let state = DurableState::load(a, b).expect("a sound state").expect("formatted").0;
        let noted = state.group.expect("the state names the volumes").sizes();
        assert_eq!(noted, sizes, "the guest sees sizes that are not durable");
        self.guest_sees(blocks(sizes));
        CutResult::Shown(Ok(()))
    }

    /// The visible devices are as large as this.
    pub(crate) fn guest_sees(&mut self, sizes: Vec<usize>) {
        let before = std::mem::replace(&mut self.primary.shown, sizes);
        let is_smaller = before.iter().zip(&self.primary.shown).any(|(before, now)| now < before);
        assert!(
            !is_smaller,
            "a volume becomes smaller under its guest: {before:?}, {:?}",
            self.primary.shown
        );
    }
}
