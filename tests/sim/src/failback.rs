//! A pair's second life: the side that was promoted is the primary, and the old primary, which gave up what it had of its
//! own, its backup. The guest writes on the new side before that one is heard of; the roles may be exchanged again.
//!
//! Always holds: both hosts go on with what their disks, and dm-era's metadata on either, held at the end of the first
//! life, and nothing else; the second life's checker knows the guest's volume, and judges anew: so whatever the old primary
//! has of its own must be gone where it is called consistent. Where nothing went wrong before, the first sync copies what
//! either side wrote since the fork, no more.

use ftdm_units::{Era, SECTOR_SIZE};
use ftship_proto::ids::Epoch;
use ftship_proto::primary::PrimaryEvent;
use ftship_proto::scope::{Scope, bytes_of, union};
use ftship_proto::state::{Content as Held, DurableState};

use crate::backup_host::BackupHost;
use crate::content::{self, fill};
use crate::disk::{Disk, Disks};
use crate::eras::Eras;
use crate::lanes::DiskId;
use crate::primary_host::PrimaryHost;
use crate::scenario::Scenario;
use crate::world::World;

/// The era that begins on a backup's volumes when it is promoted in its first life.
pub(crate) const PROMOTED_ERA: Era = Era(7);
/// Bursts of writes that the new primary's guest makes before its daemon starts.
const WRITES_BEFORE: u64 = 20;

impl World {
    /// The pair's second life, if the first one ended with the old primary as a backup.
    pub(crate) fn fail_back(mut self) -> Option<Self> {
        let fork = self.operator.aftermath.promoted()?;
        if !self.operator.aftermath.demoted || self.checker.is_struck() {
            return None;
        }
        let drawn = self.drawn.clone();
        // Nobody asks for a whole copy before the first sync has ended.
        let scenario = Scenario { switches: true, asks: 4, fails_back: false, is_eager: false, ..drawn };
        let mut random = self.random.clone();
        let [a, b] = self.backup.disks.state.view.slots();
        let promoted = DurableState::load(a, b).expect("a sound state").expect("formatted").0;
        let generation = promoted.lineage.last().expect("a promote makes one").generation;
        let [a, b] = self.primary.state.view.slots();
        let demoted = DurableState::load(a, b).expect("a sound state").expect("formatted").0;
        let is_known = demoted.content == Held::Outdated { fork: Some(fork) } && scenario.is_tracked;
        let blank = BackupHost::new(&scenario, &mut random);
        let volumes = self.old_volumes();
        let primary = PrimaryHost {
            volume: content::read(&self.backup.disks.view().volumes, &scenario.shape),
            eras: Eras::in_era(&scenario, PROMOTED_ERA),
            writes: self.primary.writes,
            generation,
            state: self.backup.disks.state,
            ..PrimaryHost::new(&scenario, &mut random)
        };
        let backup = BackupHost {
            disks: Disks { volumes, state: self.primary.state, journal: blank.disks.journal },
            eras: Some(self.primary.eras),
            ..blank
        };
        let mut second = Self::with(scenario, primary, backup, random, self.trace.take());
        second.checker.rolled(&second.primary.eras.now(), second.primary.writes);
        second.operator.fork = is_known.then_some(fork);
        second.note(|world| format!("FAILBACK: the second life; fork {:?}", world.operator.fork));
        for _ in 0..second.random.below(WRITES_BEFORE) {
            second.guest_burst();
        }
        Some(second)
    }

    /// The old primary's volumes, as they are.
    fn old_volumes(&self) -> Vec<Disk> {
        let mut content = self.primary.volume.iter();
        let volume = |blocks: &usize| {
            let mut bytes = vec![0; blocks * SECTOR_SIZE];
            let sectors = bytes.chunks_mut(SECTOR_SIZE).zip(content.by_ref());
            sectors.for_each(|(sector, number)| fill(*number, self.scenario.noisy, sector));
            let mut disk = Disk::new(&[(0, bytes.len())]);
            disk.write(0, &bytes);
            disk.sync();
            disk
        };
        self.scenario.shape.0.iter().map(volume).collect()
    }

    /// Both sides went on: a person gives up what the old primary wrote. Whether that was to be done.
    pub(crate) fn discards_mine(&mut self) -> bool {
        let split = |world: &Self| world.primary.daemon.as_ref()?.core.fence().map(|fence| fence.split);
        if !self.scenario.fails_back || self.operator.aftermath.is_discarding || split(self) != Some(true) {
            return false;
        }
        self.operator.aftermath.is_discarding = true;
        let id = self.operator.id();
        self.note(|_| "operator: discard mine".into());
        let usage = self.primary.usage();
        self.primary_handle(PrimaryEvent::Used(usage));
        self.primary_handle(PrimaryEvent::Demote { id, discard: true });
        true
    }

    /// The backup has content of its own there: the round copies that too.
    pub(crate) fn widen(&mut self, scope: Scope) {
        let Some(daemon) = &mut self.primary.daemon else { return };
        self.checker.rolls.named(&self.primary.eras, &scope);
        daemon.scope = union(std::mem::take(&mut daemon.scope), scope);
        let bytes = bytes_of(&daemon.scope);
        self.primary_handle(PrimaryEvent::Widened { bytes });
    }

    /// dm-era below the backup's volumes notes what is about to be written to one.
    pub(crate) fn note_backup_write(&mut self, disk: DiskId, offset: u64, len: usize) {
        let (DiskId::Volume(volume), Some(eras)) = (disk, &mut self.backup.eras) else { return };
        let start: usize = self.scenario.shape.0[..volume].iter().sum();
        let first = start + usize::try_from(offset).expect("a small volume") / SECTOR_SIZE;
        (first..first + len / SECTOR_SIZE).for_each(|place| eras.note(place));
    }

    /// In step by the first sync, and nothing has gone wrong: what was known of the fork was of use.
    pub(crate) fn failed_back(&mut self) {
        let Some(fork) = self.operator.fork.take() else { return };
        let sync = self.primary.daemon.as_ref().and_then(|daemon| daemon.core.last_sync());
        let since: Option<Epoch> = sync.and_then(|sync| sync.base);
        // A sync whose capture ended early is followed by one from the epoch that it brought.
        assert!(
            since >= Some(fork),
            "the old primary is in step again by more than what changed since the fork: since {since:?}, the fork was {fork}"
        );
    }
}
