//! How large this host's volumes could be, looked at while the daemon runs: a logical volume may be enlarged at any time.
//!
//! Always holds: only the sizes that the kernel lists are read each time; a device is opened, and dm-era asked, only when one
//! of them has changed.

use std::time::Duration;

use ftdm::block_io::{Access, BlockDevice};
use ftdm::stack::{Stack, StackError};
use ftdm_units::Sectors;
use ftship_proto::backup::BackupEvent;
use ftship_proto::group::LocalVolume;

use super::BackupDriver;
use crate::config::{Config, Volume};
use crate::provision::stacks::device_size;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(900);

/// The sizes as they were seen last.
#[derive(Debug)]
pub(super) struct Room {
    at: Duration,
    seen: Vec<u64>,
}

impl Room {
    pub(super) fn new(config: &Config) -> Self {
        Self { at: Duration::ZERO, seen: sizes(config) }
    }
}

fn sizes(config: &Config) -> Vec<u64> {
    config.volume.iter().map(|volume| device_size(&volume.device)).collect()
}

impl BackupDriver {
    /// Looks whether a device has another size, when it is time.
    pub(super) fn look_for_room(&mut self, now: Duration) {
        if now < self.room.at {
            return;
        }
        self.room.at = now + INTERVAL;
        let seen = sizes(&self.config);
        if seen == self.room.seen {
            return;
        }
        self.room.seen = seen;
        match self.config.volume.iter().map(local).collect::<Result<_, _>>() {
            Ok(volumes) => self.core.handle(now, BackupEvent::Room { volumes }),
            Err(error) => log::warn!("a device has another size, but cannot be looked at: {error}"),
        }
    }
}

fn local(volume: &Volume) -> Result<LocalVolume, StackError> {
    let device = BlockDevice::open(&volume.device, Access::default())?;
    let size = match Stack::open(&volume.name) {
        Ok(stack) => room_of(&stack, device.size()),
        Err(StackError::NotFound(_)) => device.size(),
        Err(error) => return Err(error),
    };
    log::info!("{} has {} now, of which {size} can be used", volume.device.display(), device.size());
    Ok(LocalVolume { size, logical_block_size: device.logical_block() })
}

/// How large a stack could be over a device of this size.
pub(super) fn room_of(stack: &Stack, device: Sectors) -> Sectors {
    match stack.room() {
        Ok(room) if room < device => {
            log::warn!(
                "{}: dm-era's metadata has room to track {room} of {device}. Stop this daemon, `ftship setup --remove`, enlarge \
                 the metadata volume (`lvextend`), overwrite its first 4096 bytes with zeros, `ftship setup`",
                stack.name()
            );
            room
        }
        Ok(room) => room,
        Err(error) => {
            log::warn!("{}: {error}", stack.name());
            stack.size()
        }
    }
}
