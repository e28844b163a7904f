//! The cut thread's part in giving the volumes up: what a cut holds back is let through again, or made to fail.
//!
//! Always holds: writes are held back for the time that the configuration allows, whatever the one who ordered it does;
//! once the volumes yield nothing lets them through but [`CaptureJob::Release`](super::capture::CaptureJob::Release).

use std::time::Instant;

use anyhow::Context;
use ftdm::fault;

use super::capture::{CaptureReport, Capturing};
use crate::reactor::Reports;

impl Capturing {
    /// Whether what is held back must not reach the volumes.
    pub(super) fn yields(&self) -> bool {
        self.captures.iter().any(|capture| capture.phase() == ftdm::pulse::Phase::Yielding)
    }

    /// Ends a hold that lasts too long: the volumes go on, or fail where they were given up.
    pub(super) fn watch_hold(&mut self, reports: &Reports<CaptureReport>) {
        if self.hold_ends.is_none_or(|end| Instant::now() < end) {
            return;
        }
        log::error!("writes were held back for {:?}: that is over", self.settings.switch_hold);
        if self.yields() {
            self.shut();
            return reports.send(CaptureReport::Shut);
        }
        match self.release("writes were held back for as long as may be") {
            Ok(report) => reports.send(report),
            Err(error) => self.give_up(&error, reports),
        }
    }

    /// From here on only [`Self::release`] lets writes through. Where that cannot be made sure they go on.
    pub(super) fn yield_up(&mut self) -> anyhow::Result<Option<CaptureReport>> {
        if self.hold_ends.is_none() {
            return Ok(Some(CaptureReport::Released { reason: "they are not held back any more".into() }));
        }
        for at in 0..self.captures.len() {
            if let Err(error) = self.captures[at].yield_up() {
                return self.release(&error.to_string()).map(Some);
            }
        }
        fault::at("switch-yielded");
        Ok(Some(CaptureReport::Yielded))
    }

    /// Lets writes go on.
    ///
    /// # Errors
    /// When the capture was lost meanwhile: it is to be ended.
    pub(super) fn release(&mut self, reason: &str) -> anyhow::Result<CaptureReport> {
        self.hold_ends = None;
        let mut lost = Ok(());
        for capture in &mut self.captures {
            let released = capture.release().with_context(|| format!("volume {}", capture.stack().name()));
            lost = lost.and(released);
        }
        lost?;
        if self.captures.is_empty() {
            // They were shut meanwhile.
            for stack in &self.stacks {
                stack.recover().with_context(|| format!("volume {}", stack.name()))?;
            }
        }
        Ok(CaptureReport::Released { reason: reason.to_owned() })
    }

    /// Makes all I/O of the volumes fail, also where one of them cannot be: that one stays held back.
    pub(super) fn shut(&mut self) {
        self.hold_ends = None;
        for capture in std::mem::take(&mut self.captures) {
            let name = capture.stack().name().clone();
            match capture.shut() {
                Ok(()) => log::warn!("{name} is given up: all I/O fails from here on"),
                Err(error) => log::error!("{name} stays held back: {error}"),
            }
        }
    }
}
