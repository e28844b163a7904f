//! What the primary's daemon is given when it starts.
//!
//! Always holds: it is what the daemon's driver gives it (`shipper/src/primary/settings.rs`).

use std::time::Duration;

use ftship_proto::epoch::EpochHeader;
use ftship_proto::ids::{Digest, Epoch, Incarnation};
use ftship_proto::primary::PrimaryConfig;
use ftship_proto::protocol::PROTOCOL;

use crate::primary_host::PrimaryHost;
use crate::scenario::Scenario;
use crate::verify::Verifier;

impl PrimaryHost {
    /// The header of this incarnation's epochs, before any.
    pub(crate) fn header(&self, incarnation: Incarnation) -> EpochHeader {
        EpochHeader {
            protocol: PROTOCOL,
            features_optional: 0,
            features_mandatory: 0,
            group: self.group.clone(),
            incarnation,
            generation: self.generation,
            first_epoch: Epoch::NONE,
            last_epoch: Epoch::NONE,
            previous: Digest::ZERO,
            commit_point: true,
            staged: Epoch::NONE,
        }
    }

    pub(crate) fn config(&self, scenario: &Scenario, incarnation: Incarnation) -> PrimaryConfig {
        PrimaryConfig {
            group: self.group.clone(),
            incarnation,
            eras: Some(self.eras.now()),
            epoch_interval: Duration::from_micros(scenario.epoch_interval),
            interval: scenario.is_interval,
            still_budget: scenario.is_still.then_some(Duration::from_millis(100)),
            hooks: scenario.hooks,
            window: scenario.window,
            timeout: Duration::from_micros(scenario.timeout),
            log_watermark: 80,
            throttles: false,
            pause_budget: Duration::from_millis(10),
            pause_limit: Duration::from_millis(100),
            void_limit: 5,
            small_round: scenario.small_round,
            roll_interval: Duration::from_micros(scenario.roll_interval),
            resync_target: Duration::ZERO,
            fence_lease: scenario.freezes.then_some(Duration::from_micros(2 * scenario.timeout)),
            commit: scenario.commit,
            verify: Verifier::sizes(scenario),
            compare: scenario.compare,
        }
    }
}
