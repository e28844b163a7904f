//! The cut thread's part in a cut: what was ordered becomes a request, and what came of it a report.
//!
//! Always holds: a digest for audits is on its file before the epoch is handed over.

use std::time::Instant;

use ftdm::cut::{CutOutcome, CutRequest, cut};
use ftdm::fault;
use ftdm::stack::era_device::EraReader;

use super::Capturing;
use super::audit;
use super::jobs::{CaptureReport, CutOrder};
use super::rounds;

impl Capturing {
    pub(super) fn cut(&mut self, order: &CutOrder) -> anyhow::Result<Option<CaptureReport>> {
        let CutOrder { epoch, mode, budget, roll, hold, part, may_rest } = *order;
        let Some(capacity) = self.captures.iter().map(|capture| capture.log_usage().1).min() else {
            return Ok(Some(CaptureReport::Void { reason: "not capturing".into() }));
        };
        let mut digests = Vec::with_capacity(self.captures.len());
        let pulse = &*self.heartbeat;
        let mut audit = |_, reader: &EraReader| {
            let read = |extent, buffer: &mut [u8]| reader.read(extent, buffer);
            digests.push(audit::volume_digest(reader.size(), read, pulse));
        };
        let request = CutRequest {
            mode,
            epoch: epoch.0,
            budget,
            roll,
            may_rest,
            hold,
            rotate_above: Some(if part { 0 } else { capacity / 100 * u64::from(self.settings.rotate_at) }),
            in_pause: if self.audit.is_some() && !part { Some(&mut audit) } else { None },
        };
        match cut(&mut self.captures, request)? {
            CutOutcome::Taken { logs, stats } => {
                if hold {
                    fault::at("switch-held");
                    self.hold_ends = Some(Instant::now() + self.settings.switch_hold);
                }
                if let Some(file) = self.audit.as_mut().filter(|_| !part) {
                    audit::note_digests(file, epoch, digests)?;
                }
                let eras = if stats.rolled { rounds::eras(&mut self.captures) } else { None };
                Ok(Some(CaptureReport::Taken { eras, logs, stats: Box::new(stats) }))
            }
            CutOutcome::Idle => Ok(Some(CaptureReport::Idle)),
            CutOutcome::Void { volume, reason, .. } => {
                let reason = match self.stacks.len() {
                    1 => reason.to_string(),
                    _ => format!("{volume}: {reason}"),
                };
                Ok(Some(CaptureReport::Void { reason }))
            }
        }
    }
}
