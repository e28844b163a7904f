//! What one seed is about: the sizes, the speeds, and how likely what goes wrong is.
//!
//! Always holds: every figure is drawn from the seed alone; the journal holds any single epoch, at least once the
//! guest gives way, so that the pair can get in step when the faults stop.

use ftdm_units::Sectors;
use ftship_proto::primary::CompareSizes;
use ftship_proto::primary::OnFailure;
use ftship_proto::protocol::{AckPolicy, CommitPolicy};

use crate::content::Shape;
use crate::operator::Fault;
use crate::random::Random;
use crate::world::LaneId;

/// Times are in microseconds. Odds are "once in so many", 0 means never.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// What the volumes' devices may have in the end.
    pub(crate) shape: Shape,
    /// What the volumes have at the beginning.
    pub(crate) begins: Vec<usize>,
    pub(crate) noisy: bool,
    pub(crate) ring_blocks: u64,
    /// Blocks that dm-era takes for one.
    pub(crate) granule: usize,
    /// In bytes.
    pub(crate) small_round: u64,
    pub(crate) roll_interval: u64,
    pub(crate) piece: u64,
    pub(crate) compare: CompareSizes,
    pub(crate) ahead: usize,
    pub(crate) window: usize,
    pub(crate) epoch_interval: u64,
    pub(crate) timeout: u64,
    pub(crate) apply_delay: u64,
    pub(crate) log_capacity: u64,
    pub(crate) net_delay: u64,
    pub(crate) output_frames: usize,
    pub(crate) backlog: usize,
    /// Typical time of a job, by [`crate::world::LaneId`].
    pub(crate) lane_delay: [u64; 6],
    pub(crate) guest_interval: u64,
    pub(crate) burst: u64,
    /// Of so many writes one is of zeros.
    pub(crate) odds_zero: u64,
    pub(crate) chaos_until: u64,
    pub(crate) fault_interval: u64,
    pub(crate) faults: Vec<Fault>,
    /// The kernel's counters tell whether the guest wrote.
    pub(crate) counts_writes: bool,
    pub(crate) odds_void: u64,
    pub(crate) odds_lost: u64,
    /// From then on the primary cannot capture, until nothing goes wrong any more.
    pub(crate) refuses_from: Option<u64>,
    pub(crate) odds_disk: u64,
    pub(crate) odds_crash: u64,
    pub(crate) request_interval: u64,
    pub(crate) is_eager: bool,
    /// The primary is of a version that compares nothing in a sync.
    pub(crate) is_older: bool,
    /// Of so many requests one is for a whole copy.
    pub(crate) odds_whole: u64,
    /// The roles are exchanged by those who ask.
    pub(crate) switches: bool,
    /// How often, each time that the pair comes in step.
    pub(crate) asks: u32,
    /// A primary that was promoted over holds the guest's writes back.
    pub(crate) freezes: bool,
    /// Nothing is captured between two epochs.
    pub(crate) is_interval: bool,
    /// What is run around each instant may fail.
    pub(crate) hooks: Option<OnFailure>,
    /// Nothing ever: the last round is read while the volumes stand still.
    pub(crate) is_still: bool,
    /// The backup's volumes are tracked.
    pub(crate) is_tracked: bool,
    /// What the old primary wrote behind a promote is given up, and it becomes a backup.
    pub(crate) fails_back: bool,
    /// The history ends with a planned failover.
    pub(crate) plans: bool,
    /// Nothing goes wrong before the pair was in step once; then these are the odds, in their order below.
    pub(crate) settles_first: Option<[u64; 4]>,
    /// The log and the threads stay as they are when nothing goes wrong any more.
    pub(crate) keeps_pace: bool,
    /// The journal does not hold what the guest may write in one epoch.
    pub(crate) is_cramped: bool,
    pub(crate) commit: CommitPolicy,
    pub(crate) ack: AckPolicy,
    /// Bytes of an epoch that the backup compares, and keeps, in one piece.
    pub(crate) proof_piece: usize,
    /// Time between two looks of the coordinator, where there is one.
    pub(crate) coordinator_interval: u64,
}

const SECOND: u64 = 1_000_000;

impl Scenario {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let count = [1, 1, 2, 3][random.index(4)];
        let shape = Shape((0..count).map(|_| 8 << random.below(5)).collect());
        let blocks = shape.blocks();
        let is_cramped = random.once_in(10);
        let ring_blocks = draw_ring(random, blocks as u64, is_cramped);
        let epoch_interval = 20_000 << random.below(5);
        let pick = |random: &mut Random, from: &[u64]| from[random.index(from.len())];
        let delays = [50, 500, 5_000, epoch_interval / 2, epoch_interval * 2];
        let lane_delay = std::array::from_fn(|_| pick(random, &delays));
        let chaos_until = epoch_interval * random.range(20, 60);
        let all = Fault::ALL;
        // Few kinds at a time: faults that hide one another are seen apart.
        let kinds = random.range(1, 6);
        let faults = (0..kinds).map(|_| all[random.index(all.len())]).collect();
        // A source of its own: the other figures are what they were.
        let mut chance = random.clone();
        let proof_piece = [0, 1500, 1 << 20][chance.clone().index(3)];
        let mut scenario = Self {
            proof_piece,
            begins: shape.0.clone(),
            shape,
            noisy: random.coin(),
            ring_blocks,
            granule: 1 << random.below(5),
            small_round: 512 << random.below(6),
            roll_interval: epoch_interval * pick(random, &[1, 5, 1000]),
            piece: 1 << random.range(1, 5),
            compare: draw_compare(&mut chance),
            ahead: usize::try_from(random.range(1, 4)).unwrap_or(1),
            window: usize::try_from(random.range(1, 6)).unwrap_or(1),
            epoch_interval,
            timeout: pick(random, &[SECOND / 2, SECOND, 3 * SECOND]),
            apply_delay: pick(random, &[0, epoch_interval, 4 * epoch_interval, 2 * SECOND]),
            log_capacity: pick(random, &[blocks as u64, 4 * blocks as u64, 1 << 20]),
            net_delay: pick(random, &[20, 200, 2_000, epoch_interval / 2]),
            output_frames: random.index(16) + 1,
            backlog: 1 << random.range(10, 22),
            lane_delay,
            guest_interval: epoch_interval / random.range(1, 6),
            burst: random.range(1, 6),
            odds_zero: 8,
            chaos_until,
            fault_interval: chaos_until / random.range(1, 8),
            faults,
            counts_writes: random.clone().below(3) == 1,
            odds_void: pick(random, &[0, 0, 4, 20]),
            odds_lost: pick(random, &[0, 0, 0, 30]),
            refuses_from: chance.once_in(6).then(|| chance.below(chaos_until)),
            odds_disk: pick(random, &[0, 0, 0, 100, 400]),
            odds_crash: pick(random, &[0, 0, 0, 50, 200]),
            request_interval: chaos_until / random.range(2, 12),
            is_eager: random.once_in(20),
            is_older: false,
            odds_whole: 16,
            asks: 1,
            switches: random.clone().next().is_multiple_of(2),
            freezes: random.clone().next().is_multiple_of(3),
            is_interval: random.clone().below(8) < 2,
            hooks: draw_hooks(&mut random.clone()),
            is_still: random.clone().below(8) == 1,
            settles_first: None,
            is_tracked: false,
            fails_back: false,
            plans: false,
            keeps_pace: false,
            is_cramped,
            commit: if random.coin() { CommitPolicy::External } else { CommitPolicy::Auto },
            ack: if random.once_in(3) { AckPolicy::Received } else { AckPolicy::Durable },
            coordinator_interval: epoch_interval * pick(random, &[1, 1, 3, 10]),
        };
        scenario.adjust(random);
        scenario
    }

    /// What depends on other figures.
    fn adjust(&mut self, random: &mut Random) {
        self.is_tracked = random.coin();
        if !self.is_interval {
            self.hooks = None;
        }
        if self.is_still {
            // Several rounds of one epoch: a ring of few frames would have hardly any of these.
            self.ring_blocks += 64;
        }
        if random.coin() {
            let odds = [self.odds_void, self.odds_lost, self.odds_disk, self.odds_crash];
            self.settles_first = Some(odds);
            self.set_odds([0; 4]);
        }
    }

    /// A history of one kind: nothing goes wrong but power cuts of the primary's host, and dm-era is rolled at each cut,
    /// so that a write which such a cut takes back was noted before the roll that the next sync starts from.
    pub(crate) fn of_power_cuts(self) -> Self {
        let epoch_interval = self.epoch_interval;
        Self {
            ring_blocks: self.ring_blocks + 64,
            roll_interval: epoch_interval,
            lane_delay: [50; 6],
            net_delay: 20,
            log_capacity: 1 << 20,
            guest_interval: epoch_interval,
            burst: 1,
            chaos_until: 150 * epoch_interval,
            fault_interval: 20 * epoch_interval,
            faults: vec![Fault::CutPrimary],
            timeout: SECOND / 2,
            apply_delay: 0,
            odds_void: 0,
            odds_lost: 0,
            refuses_from: None,
            odds_disk: 0,
            odds_crash: 0,
            is_eager: false,
            switches: false,
            is_interval: false,
            hooks: None,
            is_still: false,
            settles_first: None,
            is_cramped: false,
            commit: CommitPolicy::Auto,
            ack: AckPolicy::Durable,
            ..self
        }
    }

    /// A history of one kind: whole copies that are broken off at each of their steps, so that what is left of one is met
    /// by the next; a volume is just as many pieces as may be under way.
    pub(crate) fn of_broken_copies(self, random: &mut Random) -> Self {
        let epoch_interval = self.epoch_interval;
        let (piece, ahead) = (1 << random.range(1, 4), random.range(2, 9));
        let slow = [500, 5_000, epoch_interval, 4 * epoch_interval][random.index(4)];
        let mut lane_delay = self.lane_delay.map(|delay| delay.min(5_000));
        lane_delay[LaneId::Volume as usize] = slow;
        let blocks = usize::try_from(piece * ahead).unwrap_or(1);
        let kinds =
            [Fault::CutBackup, Fault::KillBackup, Fault::KillPrimary, Fault::SlowDisks, Fault::SlowDisks];
        Self {
            shape: Shape(vec![blocks]),
            begins: vec![blocks],
            ring_blocks: self.ring_blocks.max(64 + 4 * piece * ahead),
            piece,
            ahead: usize::try_from(ahead).unwrap_or(1),
            lane_delay,
            chaos_until: 100 * epoch_interval,
            fault_interval: 4 * epoch_interval,
            request_interval: 3 * epoch_interval,
            is_older: random.coin(),
            odds_whole: 2,
            faults: kinds.into_iter().filter(|_| random.coin()).chain([Fault::Break]).collect(),
            odds_disk: 0,
            settles_first: None,
            is_cramped: false,
            ..self
        }
    }

    /// A history of one kind: links break while epochs of several frames are on their way, so that the next attempt at the same
    /// epoch lies where the one before did; and writes to the journal go astray.
    pub(crate) fn of_lost_writes(self, random: &mut Random) -> Self {
        let epoch_interval = self.epoch_interval;
        let kinds = [Fault::KillBackup, Fault::CutBackup, Fault::SlowDisks, Fault::Failover];
        let often = [Fault::BreakAndLose, Fault::BreakAndLose, Fault::BreakAndLose, Fault::Misdirect];
        Self {
            ring_blocks: self.ring_blocks + 32,
            lane_delay: self.lane_delay.map(|delay| delay.min(epoch_interval / 8)),
            net_delay: self.net_delay.min(epoch_interval / 8),
            timeout: SECOND / 2,
            log_capacity: 1 << 20,
            guest_interval: epoch_interval / 4,
            burst: 6,
            chaos_until: 10 * SECOND,
            fault_interval: SECOND / 2,
            faults: often.into_iter().chain(kinds.into_iter().filter(|_| random.once_in(4))).collect(),
            odds_void: 0,
            odds_lost: 0,
            odds_disk: 0,
            is_eager: false,
            is_interval: false,
            hooks: None,
            is_still: false,
            settles_first: None,
            is_cramped: false,
            ..self
        }
    }

    /// A history of one kind: a last round takes longer than the log takes to fill, for good; a steady state does not.
    pub(crate) fn of_small_logs(self, random: &mut Random) -> Self {
        let epoch_interval = 20_000;
        let blocks = 16 << random.below(3);
        let slow = [4_000, 8_000, 12_000][random.index(3)];
        let mut lane_delay = [500; 6];
        lane_delay[[LaneId::Read, LaneId::Encode][random.index(2)] as usize] = slow;
        lane_delay[LaneId::Cut as usize] = [50, 500, 4_000][random.index(3)];
        let volumes = [vec![blocks], vec![blocks, 16]][random.index(2)].clone();
        Self {
            begins: volumes.clone(),
            shape: Shape(volumes),
            ring_blocks: if random.coin() { self.ring_blocks + 64 } else { self.ring_blocks + 1024 },
            granule: 1 << random.below(3),
            piece: 1 << random.below(2),
            ahead: usize::try_from(random.range(1, 9)).unwrap_or(1),
            small_round: 512,
            epoch_interval,
            window: usize::try_from(random.range(3, 6)).unwrap_or(3),
            lane_delay,
            net_delay: [20, 200, 2_000][random.index(3)],
            output_frames: random.index(16) + 4,
            apply_delay: 0,
            log_capacity: random.range(40, 64),
            odds_zero: 2,
            guest_interval: 5_000,
            burst: 2,
            chaos_until: 2 * SECOND,
            fault_interval: SECOND / random.range(1, 4),
            request_interval: SECOND / 2,
            odds_lost: 0,
            odds_void: self.odds_void.saturating_mul(4),
            odds_disk: 0,
            is_eager: false,
            is_interval: false,
            hooks: None,
            is_still: false,
            is_cramped: false,
            keeps_pace: true,
            coordinator_interval: epoch_interval,
            ..self
        }
    }

    /// How likely it is from now on that something goes wrong by itself.
    pub(crate) fn set_odds(&mut self, odds: [u64; 4]) {
        [self.odds_void, self.odds_lost, self.odds_disk, self.odds_crash] = odds;
    }
}

/// Blocks of the journal's ring, which holds what the volumes hold, unless it is cramped.
fn draw_ring(random: &mut Random, blocks: u64, is_cramped: bool) -> u64 {
    let volume_blocks = (blocks * 600).div_ceil(4096);
    8 + if is_cramped { random.below(8) } else { volume_blocks + random.below(3 * volume_blocks + 24) }
}

fn draw_compare(chance: &mut Random) -> CompareSizes {
    CompareSizes { whole: Sectors(1 << chance.below(5)), changed: Sectors(1 << chance.below(3)) }
}

fn draw_hooks(chance: &mut Random) -> Option<OnFailure> {
    match chance.below(8 * 3) {
        8 | 9 => Some(OnFailure::Skip),
        16 | 17 => Some(OnFailure::Cut),
        _ => None,
    }
}
