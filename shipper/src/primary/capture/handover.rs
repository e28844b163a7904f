//! The cut thread's part in giving the volumes up: what a cut holds back, or this holds back without one, is let through
//! again, or made to fail.
//!
//! Always holds: writes are held back for the time that the configuration allows, whatever the one who ordered it does;
//! once the volumes yield nothing lets them through but [`CaptureJob::Release`](super::jobs::CaptureJob::Release).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use ftdm::fault;
use ftdm::pause::pulse::{Phase, Pulse};
use ftdm::stack::Held;

use super::Capturing;
use super::jobs::CaptureReport;
use super::unshut::Unshut;
use crate::runtime::reactor::Reports;

impl Capturing {
    /// Whether what is held back must not reach the volumes.
    pub(super) fn yields(&self) -> bool {
        self.captures.iter().any(|capture| capture.phase() == Phase::Yielding)
    }

    /// Ends a hold that lasts too long: the volumes go on, or fail where they were given up.
    pub(super) fn watch_hold(&mut self, reports: &Reports<CaptureReport>) {
        let Some(why) = self.hold_is_over() else { return };
        log::error!("{why}");
        if self.yields() {
            return if let Some(report) = self.shut() {
                reports.send(report);
            };
        }
        match self.release(why) {
            Ok(report) => reports.send(report),
            Err(error) => self.give_up(&error, reports),
        }
    }

    fn hold_is_over(&mut self) -> Option<&'static str> {
        let end = self.hold_ends?;
        if Instant::now() >= end {
            return Some("writes were held back for as long as may be");
        }
        if !self.frozen.as_mut()?.is_held() {
            return Some("another process resumed writes that were held");
        }
        let is_watched = self.heartbeat.beat(Phase::Renewed) || {
            self.heartbeat.ensure();
            self.heartbeat.beat(Phase::Renewed)
        };
        (!is_watched).then_some("no watchdog stands by to let writes go on")
    }

    /// Holds writes back without a capture, all volumes' or none's.
    pub(super) fn freeze(&mut self, lease: Duration) -> CaptureReport {
        self.end_capture();
        let pulse = Arc::clone(&self.heartbeat) as Arc<dyn Pulse>;
        match Held::hold(&self.stacks, &pulse) {
            Ok(held) => self.frozen = Some(held),
            Err(error) => {
                let reason = error.to_string();
                log::error!("writes are not held back: {reason}");
                return CaptureReport::Released { reason };
            }
        }
        self.heartbeat.beat(Phase::Renewed);
        self.hold_ends = Some(Instant::now() + lease);
        CaptureReport::Frozen
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
        self.frozen = None;
        self.unshut = Unshut::none();
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
}
