//! What a backup starts from: its journal and its volumes, opened, checked and recovered.
//!
//! Always holds: each device is open for this process alone; nothing is written to the volumes and no decision is made
//! here.

use std::sync::Arc;

use bytesize::ByteSize;
use ftdm_units::Sectors;
use ftship_proto::backup::{Backup, BackupConfig, Recovered};
use ftship_proto::state::{DurableState, Role};

use super::identity::{check_identities, identities};
use super::lanes::{LaneReport, Lanes, journal_lane, volume_lane};
use super::redo::Redo;
use super::volume_device::{DiscardCounts, Volumes};
use crate::config::Config;
use crate::runtime::reactor::Reports;
use crate::runtime::supervisor::LongWork;
use crate::store::journal_device::{JournalDevice, JournalFault, Recovery};
use crate::store::state_file::StateFile;

/// A journal that was read, and what it holds.
pub(super) type Journal = (JournalDevice, Recovery);

/// Opens the journal and reads it.
///
/// # Errors
/// When it cannot be used.
pub(super) fn open_journal(config: &Config, state: &DurableState) -> Result<Journal, JournalFault> {
    let mut journal = JournalDevice::open(&config.journal.device)?;
    let mut work = LongWork::begin();
    let mut progress = |read: u64, most| {
        let read = read.min(most);
        let size = |bytes| ByteSize(bytes).display().iec();
        work.goes_on(|| format!("reading the journal: {} so far, of {} at most", size(read), size(most)));
    };
    let recovery = journal.recover(&config.group, state.last_incarnation, &mut progress)?;
    log::info!("journal {}: {}", config.journal.device.display(), recovery.summary);
    Ok((journal, recovery))
}

/// Everything of a backup but its state.
pub(super) struct Opened {
    core: Backup,
    journal: Option<JournalDevice>,
    redo: Option<Redo>,
    volumes: Option<Volumes>,
    /// What the volumes show; none once this host was promoted.
    pub(super) shown: Vec<Sectors>,
    pub(super) discards: Arc<DiscardCounts>,
    /// Why nothing tells what changes on the volumes: coming back to the other side will cost a whole copy.
    pub(super) untracked: Option<String>,
    /// What is wrong with a device, and has cost nothing yet.
    pub(super) damage: Vec<String>,
}

impl Opened {
    /// Opens the volumes of a backup, and decides from where it goes on. Without a journal nothing is held behind the last
    /// epoch that the state names.
    ///
    /// # Errors
    /// When a volume cannot be used, or is not the one that was synced.
    pub(super) fn new(
        config: &Config,
        state: DurableState,
        journal: Option<Journal>,
    ) -> anyhow::Result<Self> {
        let (journal, recovery) = match journal {
            Some((journal, recovery)) => (Some(journal), recovery),
            None => (None, Recovery::without_journal(&state)?),
        };
        let redo = journal.as_ref().map(Redo::of).transpose()?;
        let mut volumes =
            if state.role == Role::Primary { None } else { Some(Volumes::open(&config.volume)?) };
        let mut devices = Vec::new();
        if let Some(volumes) = &mut volumes {
            if let Some(group) = &state.group {
                volumes.check(group)?;
                volumes.enlarge(&group.sizes())?;
            }
            devices = identities(&config.volume);
            check_identities(&config.volume, &state.devices, &devices)?;
        }
        let untracked = volumes.as_ref().and_then(Volumes::untracked);
        if let Some(reason) = &untracked {
            log::warn!(
                "what changes on the volumes is not tracked: {reason}; after a promote the other side needs a whole copy"
            );
        }
        let shown = volumes.as_ref().map(Volumes::shown).unwrap_or_default();
        let core_config = BackupConfig {
            group: config.group.clone(),
            volumes: volumes.as_ref().map(Volumes::local).unwrap_or_default(),
            shown: shown.clone(),
            devices,
            timeout: config.limits.timeout,
            apply_delay: config.journal.apply_delay,
            commit: config.commit.into(),
            ack: config.ack.into(),
            eras: volumes.as_ref().and_then(Volumes::eras),
        };
        let recovered = Recovered {
            state,
            journal: recovery.writer,
            sealed: recovery.sealed,
            applied: recovery.applied,
            applied_digest: recovery.applied_digest,
            lost: recovery.lost,
        };
        Ok(Self {
            core: Backup::new(core_config, recovered),
            journal,
            redo,
            discards: volumes.as_ref().map(Volumes::discards).unwrap_or_default(),
            volumes,
            shown,
            untracked,
            damage: recovery.damage,
        })
    }

    /// What it decides from.
    pub(super) fn core(&self) -> &Backup {
        &self.core
    }

    /// Starts the lanes.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(super) fn start(
        self,
        state: StateFile,
        reports: Reports<LaneReport>,
    ) -> anyhow::Result<(Backup, Lanes)> {
        let Self { core, journal, redo, volumes, .. } = self;
        let volume = volumes.map(|volumes| volume_lane(volumes, redo, reports.clone())).transpose()?;
        Ok((core, Lanes { journal: journal_lane(journal, state, reports)?, volume }))
    }
}
