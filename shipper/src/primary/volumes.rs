//! The group's volumes on the primary, as they are found when the daemon starts.
//!
//! Always holds: every stack of the group is there, tracks, and treats discards as configured; whatever an
//! earlier daemon left of its captures is gone.

use std::path::PathBuf;

use anyhow::Context;
use ftdm::block_io::BlockDevice;
use ftdm::capture::ram_disks::LogPair;
use ftdm::discard::Discards;
use ftdm::pause::pulse::unwatched;
use ftdm::stack::Stack;
use ftdm_units::{Era, SECTOR_SIZE, Sectors};
use ftship_proto::group::{GroupDescription, LocalVolume, VolumeDescription};
use ftship_proto::ids::VolumeUuid;
use ftship_proto::primary::Touched;

use crate::config::{Config, Volume};
use crate::control::VolumeFigures;

/// 64 KiB.
const UNTRACKED: Sectors = Sectors(128);

/// The stacks, in the group's order.
#[derive(Debug)]
pub(super) struct Volumes {
    pub(super) stacks: Vec<Stack>,
    /// What is known to be wrong with the history of one of them.
    pub(super) tracking_lost: Option<String>,
}

impl Volumes {
    /// Opens all, in the size that the pair agreed on, and makes sure that there are RAM disks for their logs, where these are named.
    ///
    /// # Errors
    /// When a stack does not exist, cannot be used as configured, or there are too few RAM disks.
    pub(super) fn open(config: &Config, known: Option<&GroupDescription>) -> anyhow::Result<Self> {
        let mut stacks = config.volume.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
        for (stack, wanted) in stacks.iter_mut().zip(known.into_iter().flat_map(GroupDescription::volumes)) {
            fit(stack, wanted.size).with_context(|| {
                format!(
                    "volume {}: the pair agreed on {}, its stack shows another size",
                    stack.name(),
                    wanted.size
                )
            })?;
        }
        let lost = stacks.iter().find_map(|stack| Some((stack.name(), stack.history().err()?)));
        let tracking_lost = lost.map(|(name, error)| match stacks.len() {
            1 => error.to_string(),
            _ => format!("{name}: {error}"),
        });
        if let (Some(first), [_, ..]) = (stacks.first(), &config.log.devices[..]) {
            let named = config.log.devices.iter().map(PathBuf::as_path);
            LogPair::make_named(first, named, log_size(config))?;
        }
        Ok(Self { stacks, tracking_lost })
    }

    /// Opens each volume for direct reading.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub(super) fn open_eras(&self) -> anyhow::Result<Vec<BlockDevice>> {
        self.stacks.iter().map(|stack| Ok(stack.open_era()?)).collect()
    }

    /// What the backup is told of them.
    pub(super) fn describe(&self, readers: &[BlockDevice]) -> Vec<VolumeDescription> {
        let describe = |(stack, reader): (&Stack, &BlockDevice)| VolumeDescription {
            uuid: VolumeUuid(stack.id().bytes()),
            size: reader.size(),
            logical_block_size: reader.logical_block(),
        };
        self.stacks.iter().zip(readers).map(describe).collect()
    }

    /// The era that each volume's writes go to. `None` when one of them is not tracked, or does not say.
    pub(super) fn eras(&self) -> Option<Vec<Era>> {
        let era = |stack: &Stack| match stack.status() {
            Ok(status) => status.era.map(|era| era.current),
            Err(error) => {
                log::warn!("{}: {error}", stack.name());
                None
            }
        };
        self.stacks.iter().map(era).collect()
    }

    /// For noting which of their granules are written to. Where dm-era does not track a volume any more nothing is
    /// resynchronised from its granules: any size does.
    pub(super) fn touched(&self, readers: &[BlockDevice]) -> Touched {
        let granule =
            |stack: &Stack| stack.history().map_or(UNTRACKED, |history| Sectors(history.block.get().into()));
        Touched::new(self.stacks.iter().zip(readers).map(|(stack, reader)| (reader.size(), granule(stack))))
    }

    /// What the status shows of them before any capture.
    pub(super) fn figures(&self, config: &Config, readers: &[BlockDevice]) -> Vec<VolumeFigures> {
        let figures = |(volume, reader): (&Volume, &BlockDevice)| VolumeFigures {
            name: volume.name.to_string(),
            device: volume.device.display().to_string(),
            size: reader.size().bytes().unwrap_or(u64::MAX),
            ..VolumeFigures::default()
        };
        config.volume.iter().zip(readers).map(figures).collect()
    }
}

/// The group as the pair knows it: the identities of its volumes are those of the first primary, on both hosts.
///
/// # Errors
/// When the volumes here cannot hold those that are known.
pub(super) fn known_as(
    here: GroupDescription,
    known: Option<&GroupDescription>,
) -> anyhow::Result<GroupDescription> {
    let Some(known) = known else { return Ok(here) };
    let (found, wanted) = (here.volumes().len(), known.volumes().len());
    anyhow::ensure!(
        found == wanted,
        "the configuration lists {found} volumes, the pair has {wanted}: list the same ones, in the same order"
    );
    for ((index, wanted), found) in known.indexed().zip(here.volumes()) {
        let VolumeDescription { size, logical_block_size, .. } = *found;
        wanted
            .fits(LocalVolume { size, logical_block_size })
            .with_context(|| format!("{index} of this host, as its stack shows it"))?;
    }
    Ok(known.clone())
}

/// A size that was agreed on may not be shown yet, where somebody died between.
fn fit(stack: &mut Stack, wanted: Sectors) -> anyhow::Result<()> {
    stack.limit(wanted)?;
    if stack.size() < wanted {
        stack.enlarge(wanted, &*unwatched())?;
        stack.show(wanted, &*unwatched())?;
    }
    Ok(())
}

/// What a log has to have where none are named.
pub(super) fn log_size(config: &Config) -> Sectors {
    Sectors(config.log.size.as_u64() / SECTOR_SIZE as u64)
}

fn open(volume: &Volume) -> anyhow::Result<Stack> {
    let name = &volume.name;
    let mut stack =
        Stack::open(name).with_context(|| format!("volume {name}: `ftdm create {name}` builds its stack"))?;
    match (volume.discards, stack.discards()) {
        (Discards::Pass, Discards::Off) => anyhow::bail!(
            "volume {name}: `discards = \"pass\"`, but its stack refuses them: `ftdm remove {name}`, and `ftdm create \
             --discards pass`"
        ),
        (Discards::Off, _) => stack.refuse_discards(),
        (Discards::Pass, Discards::Pass) => {}
    }
    stack.recover().with_context(|| format!("volume {name}"))?;
    // It may have been a backup's.
    stack.set_read_only(false).with_context(|| format!("volume {name}"))?;
    Ok(stack)
}
