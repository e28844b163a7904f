//! The stacks of a group, as its configuration has them: made before anything opens the volumes, taken down
//! afterwards; and which logical volumes are whose, for udev.
//!
//! Always holds: what is there already and as configured is left as it is; nothing is made until every device of the
//! group is there.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytesize::ByteSize;
use ftdm::block_io::{Access, BlockDevice, sysfs};
use ftdm::capture::ram_disks::load_for_captures;
use ftdm::kernel_gate;
use ftdm::stack::{self, Created, Stack, StackError};
use ftdm::table::{BlockSectors, FtTable};
use ftdm::units::DevNum;
use ftdm_units::{SECTOR_SIZE, Sectors};
use ftship_proto::state::Role;

use crate::config::{Config, NamedDevices, Volume};
use crate::control::VolumeFigures;
use crate::store::state_file::{StateFile, agreed_sizes};

/// How often it is looked whether a device has come.
const LOOK: Duration = Duration::from_millis(200);

/// RAM disks that are loaded at least: other groups of the host want some too, and an unused one takes no memory.
const RAM_DISKS: u32 = 32;

/// Makes the stacks of all volumes, once their devices are there, which is waited for. Returns those that were made.
///
/// # Errors
/// When a device does not come, a volume has no metadata, or a stack cannot be made; those made before stay.
pub fn set_up(config: &Config, patience: Duration) -> anyhow::Result<Vec<String>> {
    // Stacks that are there were made on this kernel: it was judged then.
    if config.volume.iter().any(|volume| !is_there(volume)) {
        kernel_gate::check_running(config.allow_kernel).context("asking for the kernel's release")??;
    }
    let begun = Instant::now();
    let named = NamedDevices::from(config);
    while let Some(missing) = named.needed().find(|device| !device.exists()) {
        let has_come = begun.elapsed() < patience;
        anyhow::ensure!(has_come, "{}: there is no such device{}", missing.display(), waited(patience));
        std::thread::sleep(LOOK);
    }
    // The daemon may not load modules where it is confined.
    let size = Sectors(config.log.size.as_u64() / SECTOR_SIZE as u64);
    let count = u32::try_from(config.volume.len() * 2)?.max(RAM_DISKS);
    if let Err(error) = load_for_captures(count, size) {
        log::warn!("{error}");
    }
    let agreed = agreed_sizes(&config.state).unwrap_or_else(|error| {
        log::info!("{error}; so the sizes of the volumes are those that were tracked, or their devices'");
        Vec::new()
    });
    let state = StateFile::open_to_read(&config.state).and_then(|mut file| file.read()).ok().flatten();
    let is_backup = state.is_some_and(|state| state.role == Role::Backup);
    let mut made = Vec::new();
    for (at, volume) in config.volume.iter().enumerate() {
        let table = table(volume, agreed.get(at).copied())?;
        let result = stack::create(&volume.name, &table, volume.discards, None);
        match result.with_context(|| format!("volume {}", volume.name))? {
            Created::Made => made.push(volume.name.to_string()),
            Created::AlreadyThere => continue,
        }
        if is_backup {
            // Before anybody can open it: the daemon may start late, or not at all.
            Stack::open(&volume.name)?.set_read_only(true)?;
        }
    }
    Ok(made)
}

/// Whether the stack is there, as far as that can be known.
fn is_there(volume: &Volume) -> bool {
    !matches!(Stack::open(&volume.name), Err(StackError::NotFound(_)))
}

/// How long something was waited for, in words that follow others.
fn waited(patience: Duration) -> String {
    if patience.is_zero() { String::new() } else { format!(", after {} s", patience.as_secs()) }
}

/// A stack's table. Its size is the one that the pair agreed on, else the one that is tracked already: a logical volume
/// that was enlarged since must not keep the VM from its disk.
fn table(volume: &Volume, agreed: Option<Sectors>) -> anyhow::Result<FtTable> {
    let metadata = volume.metadata.clone().with_context(|| {
        format!(
            "volume {}: `metadata` is missing in the configuration: which device keeps dm-era's state?",
            volume.name
        )
    })?;
    let device = BlockDevice::open(&volume.device, Access::default())?.size();
    let block = block(volume)?;
    // What is wrong with the metadata is reported where the stack is created.
    let tracked = || stack::tracked_before(&metadata, block, device).unwrap_or_default();
    let sectors = agreed.or_else(tracked).unwrap_or(device);
    anyhow::ensure!(
        sectors <= device,
        "volume {}: {} has {device}, the pair agreed on {sectors}: enlarge it again (`lvextend`)",
        volume.name,
        volume.device.display()
    );
    if sectors < device {
        log::warn!(
            "volume {}: {} has {device}, of which {sectors} are used: that is what the pair agreed on",
            volume.name,
            volume.device.display()
        );
    }
    Ok(FtTable { sectors, metadata, origin: volume.device.clone(), block })
}

/// Bytes of a device now, as the kernel's list of devices shows them; 0: not known. It opens nothing.
pub(crate) fn device_size(device: &Path) -> u64 {
    let size = || {
        let number = DevNum::from_rdev(std::fs::metadata(device).ok()?.rdev());
        let sectors: u64 = std::fs::read_to_string(sysfs(number).join("size")).ok()?.trim().parse().ok()?;
        Sectors(sectors).bytes()
    };
    size().unwrap_or(0)
}

/// The figures, with the sizes that the logical volumes have now.
pub(crate) fn with_device_sizes(figures: &[VolumeFigures]) -> Vec<VolumeFigures> {
    let now = |figures: &VolumeFigures| {
        let device_size = device_size(Path::new(&figures.device));
        VolumeFigures { device_size, ..figures.clone() }
    };
    figures.iter().map(now).collect()
}

/// The granule of a volume.
pub(crate) fn block(volume: &Volume) -> anyhow::Result<BlockSectors> {
    granule(volume.block)
        .with_context(|| format!("volume {}: `block`: dm-era does not take {}", volume.name, volume.block))
}

/// A tracking granule of that many bytes; none where dm-era does not take it.
pub(crate) fn granule(bytes: ByteSize) -> Option<BlockSectors> {
    u32::try_from(bytes.as_u64() / SECTOR_SIZE as u64).ok().and_then(BlockSectors::new)
}

/// Takes the stacks down; those that are in use stay and are an error.
///
/// # Errors
/// When a stack is open or cannot be removed.
pub fn take_down(config: &Config) -> anyhow::Result<()> {
    let mut first = Ok(());
    for volume in &config.volume {
        match stack::remove(&volume.name) {
            Ok(()) | Err(StackError::NotFound(_)) => {}
            Err(error) if first.is_ok() => {
                first = Err(error).with_context(|| format!("volume {}", volume.name));
            }
            Err(error) => log::error!("volume {}: {error}", volume.name),
        }
    }
    first
}

/// What a group has a logical volume for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The group.
    pub group: String,
    /// `origin`, `metadata`, `journal` or `state`.
    pub part: &'static str,
    /// With it, everything is there that setting the group up needs.
    pub is_complete: bool,
}

/// Whose a logical volume is that has these names; the first of the configurations that has it, whether or not
/// something else is wrong with that one.
#[must_use]
pub fn claim(configs: &[NamedDevices], names: &[PathBuf], exists: &dyn Fn(&Path) -> bool) -> Option<Claim> {
    configs.iter().find_map(|config| {
        let is = |device: &PathBuf| names.contains(device);
        let part = if config.volumes.iter().any(|(device, _)| is(device)) {
            "origin"
        } else if config.volumes.iter().filter_map(|(_, metadata)| metadata.as_ref()).any(is) {
            "metadata"
        } else if config.journal.as_ref().is_some_and(is) {
            "journal"
        } else if config.state.as_ref().is_some_and(is) {
            "state"
        } else {
            return None;
        };
        let is_complete = config.needed().all(|device| is(device) || exists(device));
        Some(Claim { group: config.group.clone(), part, is_complete })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logical_volume_is_claimed_by_its_use_and_the_last_to_come_completes_the_group() {
        let configs = [NamedDevices {
            group: "vm1".into(),
            volumes: vec![("/dev/vg/d".into(), Some("/dev/vg/m".into()))],
            journal: Some("/dev/vg/j".into()),
            state: Some("/dev/vg/s".into()),
        }];
        let names = |lv: &str| [format!("/dev/vg/{lv}").into(), format!("/dev/mapper/vg-{lv}").into()];
        let found = |lv: &str, there: &[&str]| {
            let exists = |path: &Path| there.iter().any(|lv| path == Path::new(&format!("/dev/vg/{lv}")));
            claim(&configs, &names(lv), &exists).map(|claim| (claim.part, claim.is_complete))
        };
        assert_eq!(found("d", &[]), Some(("origin", false)));
        assert_eq!(found("d", &["m"]), Some(("origin", true)));
        assert_eq!(found("m", &["d"]), Some(("metadata", true)));
        assert_eq!((found("j", &[]), found("s", &["d"])), (Some(("journal", false)), Some(("state", false))));
        assert_eq!(found("x", &["d", "m"]), None);
    }
}
