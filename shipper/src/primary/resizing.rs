//! Enlarging the volumes, as operators ask for it.
//!
//! Always holds: the devices are looked at at the moment of asking; the state machine decides everything else.

use std::time::Duration;

use anyhow::Context;
use ftdm::block_io::{Access, BlockDevice};
use ftdm::stack::Stack;
use ftdm_units::Sectors;
use ftship_proto::primary::{PrimaryEvent, ResizeRefused, Resized};

use super::PrimaryDriver;
use crate::config::Volume;
use crate::control::server::ClientId;
use crate::control::{ResizedVolume, Response};

impl PrimaryDriver {
    /// Gives the volumes what their devices have.
    pub(super) fn resize(&mut self, now: Duration, client: ClientId) {
        let found = self.config.volume.iter().map(look).collect::<anyhow::Result<Vec<_>>>();
        match found {
            Ok(found) => {
                let (devices, room) = found.into_iter().unzip();
                self.clients.wait(client);
                self.core.handle(now, PrimaryEvent::Resize { id: client.0 as u64, devices, room });
            }
            Err(error) => {
                let reason = format!("{error:#}");
                self.clients.answer_at_once(client, Response::Failed { reason });
            }
        }
    }

    /// The answer for the one who asked.
    pub(super) fn resized(&self, result: Result<Resized, ResizeRefused>) -> Response {
        let Resized { before, after } = match result {
            Ok(resized) => resized,
            Err(refused) => {
                let volume = refused.volume().and_then(|at| self.config.volume.get(usize::from(at.0)));
                let reason = match volume {
                    Some(volume) => {
                        format!("volume {} ({}): {refused}", volume.name, volume.device.display())
                    }
                    None => refused.to_string(),
                };
                return match refused {
                    ResizeRefused::Failed(_) => Response::Failed { reason },
                    _ => Response::Refused { reason },
                };
            }
        };
        let bytes = |size: Sectors| size.bytes().unwrap_or(u64::MAX);
        let volumes = self.config.volume.iter().zip(before.into_iter().zip(after));
        let volumes = volumes.map(|(volume, (before, after))| ResizedVolume {
            name: volume.name.to_string(),
            before: bytes(before),
            after: bytes(after),
        });
        Response::Resized { volumes: volumes.collect() }
    }
}

/// What a volume's device has, and how much of it dm-era can track.
fn look(volume: &Volume) -> anyhow::Result<(Sectors, Sectors)> {
    let device = BlockDevice::open(&volume.device, Access::default())?.size();
    let stack = Stack::open(&volume.name).and_then(|stack| stack.room());
    Ok((device, stack.with_context(|| format!("volume {}", volume.name))?))
}
