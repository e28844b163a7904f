//! The cut thread's part in a cut: what was ordered becomes a request, and what came of it a report.
//!
//! Always holds: a digest for audits is on its file before the epoch is handed over.

use std::time::Instant;

use ftdm::cut::{CutMode, CutOutcome, CutRequest, cut};
use ftdm::fault;
use ftdm::stack::era_device::EraReader;
use ftship_proto::primary::{Cut, CutResult};

use super::Capturing;
use super::audit;
use super::jobs::{Cargo, CutReport};
use super::rounds;

impl Capturing {
    pub(super) fn cut(&mut self, order: Cut, mode: CutMode) -> anyhow::Result<Option<CutReport>> {
        let Cut { epoch, budget, roll, hold, part, may_rest } = order;
        let Some(capacity) = self.captures.iter().map(|capture| capture.log_usage().1).min() else {
            return Ok(Some(CutResult::Void { reason: "not capturing".into() }.into()));
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
                Ok(Some(CutReport::Result(CutResult::Taken { eras }, Cargo::Captured(logs, Box::new(stats)))))
            }
            CutOutcome::Idle => Ok(Some(CutResult::Idle.into())),
            CutOutcome::Void { volume, reason, .. } => {
                let reason = match self.stacks.len() {
                    1 => reason.to_string(),
                    _ => format!("{volume}: {reason}"),
                };
                Ok(Some(CutResult::Void { reason }.into()))
            }
        }
    }
}
