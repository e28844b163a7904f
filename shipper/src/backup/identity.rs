//! Which of this host's logical volumes hold the copies: two of one size are told apart.
//!
//! Always holds: a volume that was not the one that was synced is found before anything is written to it; what has no
//! identity (no logical volume) is taken as it is.

use std::os::unix::fs::MetadataExt;

use ftdm::block_io::sysfs;
use ftdm::name::VolumeId;
use ftdm::units::DevNum;
use ftship_proto::ids::VolumeUuid;

use crate::config::Volume;

/// The identities of the volumes, in the group's order; none where one of them has none.
pub(super) fn identities(volumes: &[Volume]) -> Vec<VolumeUuid> {
    volumes.iter().map(identity).collect::<Option<_>>().unwrap_or_default()
}

fn identity(volume: &Volume) -> Option<VolumeUuid> {
    let number = DevNum::from_rdev(std::fs::metadata(&volume.device).ok()?.rdev());
    let uuid = std::fs::read_to_string(sysfs(number).join("dm/uuid")).ok()?;
    Some(VolumeUuid(VolumeId::from_lvm(uuid.trim())?.bytes()))
}

/// Whether the volumes are those that were synced.
///
/// # Errors
/// The first that is another one.
pub(super) fn check_identities(
    volumes: &[Volume],
    synced: &[VolumeUuid],
    here: &[VolumeUuid],
) -> anyhow::Result<()> {
    for (at, ((volume, here), synced)) in volumes.iter().zip(here).zip(synced).enumerate() {
        anyhow::ensure!(
            here == synced,
            "{} is not the logical volume that holds volume {at} of the group: list the volumes in the order in which \
             they were synced; or, if it was replaced, `ftship format --force` this backup, and let it sync again",
            volume.device.display()
        );
    }
    Ok(())
}
