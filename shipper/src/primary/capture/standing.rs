//! The cut thread's part of an epoch without a capture: what was written is read while the volumes stand still.
//!
//! Always holds: a digest for audits is on its file before the epoch is handed over.

use std::time::Duration;

use ftdm::block_io::BlockDevice;
use ftdm::stack::standing::{StandRequest, stand};
use ftdm_units::{Era, SECTOR_SIZE};
use ftship_proto::ids::Epoch;

use super::Capturing;
use super::audit;
use super::jobs::CaptureReport;
use super::rounds::Rolled;

impl Capturing {
    pub(super) fn stand(
        &mut self,
        attempt: u32,
        since: &[Era],
        epoch: Epoch,
        budget: Duration,
    ) -> CaptureReport {
        let pulse = &*self.heartbeat;
        let mut digests = Vec::new();
        let mut audited = |_, device: &BlockDevice| {
            let read = |extent, buffer: &mut [u8]| device.read_extent(extent, buffer);
            digests.push(audit::volume_digest(device.size(), read, pulse));
        };
        let room =
            usize::try_from(self.settings.log_size.0).unwrap_or(usize::MAX).saturating_mul(SECTOR_SIZE);
        let request = StandRequest {
            since,
            budget,
            room,
            in_pause: if self.audit.is_some() { Some(&mut audited) } else { None },
        };
        let stood = match stand(&self.stacks, request, pulse) {
            Ok(stood) => stood,
            Err((stack, error)) => {
                let (reason, tracking_lost) = (format!("volume {stack}: {error}"), error.tracking_lost());
                return CaptureReport::RollFailed { attempt, reason, tracking_lost };
            }
        };
        if let (Some(file), Ok(_)) = (&mut self.audit, &stood.content)
            && let Err(error) = audit::note_digests(file, epoch, digests)
        {
            let (reason, tracking_lost) = (format!("{error:#}"), false);
            return CaptureReport::RollFailed { attempt, reason, tracking_lost };
        }
        CaptureReport::Stood {
            attempt,
            written: Rolled::of(&stood.volumes),
            content: stood.content,
            pause: stood.pause,
        }
    }
}
