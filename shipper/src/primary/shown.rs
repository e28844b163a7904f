//! What the status shows of a primary's threads.
//!
//! Always holds: nothing here decides anything.

use ftdm::block_io::BlockDevice;
use ftdm::cut::CutStats;
use ftdm::discard::DiscardFigures;
use ftdm::log_writes::epoch_log::EpochLog;
use ftdm_units::{SECTOR_SIZE, Sectors};

use super::capture::jobs::LogUse;
use super::volumes::Volumes;
use crate::config::Config;
use crate::control::{PauseStages, PrimaryFigures, VolumeFigures};
use crate::runtime::metrics::Latencies;

/// What each stage of the cuts took, in the order of [`CutStats`].
#[derive(Debug, Default)]
pub(super) struct Stages([Latencies; 8]);

impl Stages {
    fn record(&mut self, stats: &CutStats) {
        let CutStats { follow, suspend, flush, log, suspects, verify, resume, data, .. } = *stats;
        for (stage, took) in
            self.0.iter_mut().zip([follow, suspend, flush, log, suspects, verify, resume, data])
        {
            stage.record(took);
        }
    }

    /// What each took.
    pub(super) fn percentiles(&self) -> PauseStages {
        let [follow, suspend, flush, log, suspects, verify, resume, data] =
            self.0.each_ref().map(Latencies::percentiles);
        PauseStages { follow, suspend, flush, log, suspects, verify, resume, data }
    }
}

/// Figures, and alarms that no later event takes back by itself.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) figures: PrimaryFigures,
    pub(super) pauses: Latencies,
    pub(super) stages: Stages,
    /// The parts of pauses that discards took, where there were any.
    pub(super) discard_times: Latencies,
    pub(super) lags: Latencies,
    pub(super) volumes: Vec<VolumeFigures>,
    /// Why nothing is tracked any more; only a new history ends that.
    pub(super) tracking_lost: Option<String>,
    /// What became of the last hooks, where that is an alarm.
    pub(super) hook_alarm: Option<String>,
}

impl Shown {
    /// Before any capture.
    pub(super) fn new(config: &Config, volumes: &Volumes, readers: &[BlockDevice]) -> Self {
        let figures = PrimaryFigures {
            epoch_ms: config.epoch.as_secs_f64() * 1000.0,
            volume_size: readers.iter().map(|reader| reader.size().bytes().unwrap_or(u64::MAX)).sum(),
            ..PrimaryFigures::default()
        };
        Self {
            figures,
            pauses: Latencies::default(),
            stages: Stages::default(),
            discard_times: Latencies::default(),
            lags: Latencies::default(),
            volumes: volumes.figures(config, readers),
            tracking_lost: volumes.tracking_lost.clone(),
            hook_alarm: None,
        }
    }

    /// A cut was taken.
    pub(super) fn note_cut(&mut self, logs: &[EpochLog], stats: &CutStats) {
        self.pauses.record(stats.pause);
        self.stages.record(stats);
        for (volume, log) in self.volumes.iter_mut().zip(logs) {
            let sectors: u64 = log.entries().iter().map(|entry| entry.extent.len().0).sum();
            volume.bytes_written += sectors * SECTOR_SIZE as u64;
            self.figures.bytes_written += sectors * SECTOR_SIZE as u64;
        }
        self.figures.suspect_sectors += stats.suspect_sectors;
        self.figures.log_rotations += stats.rotations as u64;
        if stats.discards > 0 {
            self.discard_times.record(stats.discard);
        }
    }

    /// Keeps how full each log is.
    pub(super) fn note_log_use(&mut self, logs: &[LogUse]) {
        for (volume, log) in self.volumes.iter_mut().zip(logs) {
            (volume.log_used, volume.log_size) = (log.used, log.capacity);
        }
        let fullest = LogUse::fullest(logs);
        (self.figures.log_used, self.figures.log_size) = (fullest.used, fullest.capacity);
    }

    /// Keeps how the guest's discards stand, of all volumes.
    pub(super) fn note_discards(&mut self, discards: DiscardFigures) {
        let bytes = |sectors: Sectors| sectors.bytes().unwrap_or(u64::MAX);
        self.figures.discards_pending = bytes(discards.pending);
        self.figures.discards_given = bytes(discards.given);
        self.figures.discards_forgotten = bytes(discards.forgotten);
    }
}
