//! The rounds of a sync and the parts of the log between their pieces, as the daemon's driver orders them; and the check
//! that a pair without cuts says why.

use ftdm_units::Sectors;
use ftship_proto::primary::PrimaryEvent;

use crate::encoding::EncodeJob;
use crate::world::World;

impl World {
    /// Begins the round that the last roll noted.
    pub(crate) fn copy(&mut self, unit: Option<Sectors>) {
        let Some(daemon) = &mut self.primary.daemon else { return };
        let (chain, scope) = (daemon.chain, std::mem::take(&mut daemon.scope));
        let sync = daemon.core.sync(std::time::Duration::ZERO).expect("a sync copies");
        self.checker.round(&self.primary, &sync, &scope);
        let Some(daemon) = &mut self.primary.daemon else { return };
        if daemon.plan.begin(chain, scope, unit) {
            return self.primary_handle(PrimaryEvent::Copied { frames: 0 });
        }
        self.copy_order();
    }

    /// Lets out the parts of the log that may go.
    pub(crate) fn ship_parts(&mut self) {
        while let Some(daemon) = &mut self.primary.daemon
            && daemon.plan.lets_parts_out()
            && let Some(part) = daemon.parts.pop_front()
        {
            self.encoder_push(EncodeJob::Part(part));
        }
    }

    pub(crate) fn part_encoded(&mut self, stored: u64, frames: u64) {
        if let Some(daemon) = &mut self.primary.daemon {
            daemon.plan.part_encoded();
            daemon.copied += stored;
            let stored = daemon.copied;
            self.copy_order();
            self.primary_handle(PrimaryEvent::PartEncoded { stored, frames });
        }
    }

    pub(crate) fn copied_piece(&mut self, stored: u64, skipped: u64) {
        if let Some(daemon) = &mut self.primary.daemon {
            daemon.copied += stored;
            daemon.skipped += skipped;
            let (stored, skipped) = (daemon.copied, daemon.skipped);
            self.primary_handle(PrimaryEvent::CopyProgressed { stored, skipped });
        }
    }

    /// In sync, and no epoch has ended for longer than ten: the status says why.
    pub(crate) fn expect_reason(&self) {
        let Some(daemon) = self.primary.daemon.as_ref().filter(|_| !self.scenario.is_interval) else {
            return;
        };
        let core = &daemon.core;
        let is_late = self.now > daemon.last_cut + 10 * self.scenario.epoch_interval;
        if !is_late || !core.is_in_sync() || !core.is_capturing() || core.switch_text().is_some() {
            return;
        }
        let since = daemon.last_cut;
        assert!(
            core.stall_text(self.time()).is_some(),
            "in sync, no cut since {since}, and no reason is shown"
        );
    }
}
