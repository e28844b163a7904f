//! The cut thread's part of a still round, an epoch without a capture: what was written is read while the volumes are
//! suspended.
//!
//! Always holds: a digest for audits is on its file before the epoch is handed over.

use std::time::Duration;

use ftdm::block_io::BlockDevice;
use ftdm::stack::still_round::{StillRequest, still_round};
use ftdm_units::{Era, SECTOR_SIZE};
use ftship_proto::ids::Epoch;
use ftship_proto::primary::CutResult;
use ftship_proto::scope::bytes_of;

use super::Capturing;
use super::audit;
use super::jobs::{Cargo, CutReport};
use super::rounds::Rolled;

impl Capturing {
    pub(super) fn still_round(
        &mut self,
        attempt: u32,
        since: &[Era],
        epoch: Epoch,
        budget: Duration,
    ) -> CutReport {
        let pulse = &*self.heartbeat;
        let mut digests = Vec::new();
        let mut audited = |_, device: &BlockDevice| {
            let read = |extent, buffer: &mut [u8]| device.read_extent(extent, buffer);
            digests.push(audit::volume_digest(device.size(), read, pulse));
        };
        let room =
            usize::try_from(self.settings.log_size.0).unwrap_or(usize::MAX).saturating_mul(SECTOR_SIZE);
        let request = StillRequest {
            since,
            budget,
            room,
            in_pause: if self.audit.is_some() { Some(&mut audited) } else { None },
        };
        let round = match still_round(&self.stacks, request, pulse) {
            Ok(round) => round,
            Err((stack, error)) => {
                let (reason, tracking_lost) = (format!("volume {stack}: {error}"), error.tracking_lost());
                return CutResult::RollFailed { attempt, reason, tracking_lost }.into();
            }
        };
        if let (Some(file), Ok(_)) = (&mut self.audit, &round.content)
            && let Err(error) = audit::note_digests(file, epoch, digests)
        {
            let (reason, tracking_lost) = (format!("{error:#}"), false);
            return CutResult::RollFailed { attempt, reason, tracking_lost }.into();
        }
        let Rolled { eras, scope } = Rolled::of(&round.volumes);
        let bytes = bytes_of(&scope);
        let (result, content) = match round.content {
            Ok(content) => (CutResult::Still { attempt, eras, bytes }, Some(content)),
            Err(reason) => {
                let reason = reason.to_owned();
                (CutResult::StillUnread { attempt, eras, bytes, reason }, None)
            }
        };
        CutReport::Result(result, Cargo::Still(scope, content, round.pause))
    }
}
