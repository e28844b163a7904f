//! What the state machine, the encoder and the cut thread are given of the configuration.
//!
//! Always holds: nothing of it needs a device.

use ftdm_units::Era;
use ftship_proto::epoch::EpochHeader;
use ftship_proto::group::GroupDescription;
use ftship_proto::ids::{Digest, Epoch, Generation, Incarnation};
use ftship_proto::primary::{CompareSizes, PrimaryConfig, Tuning, VerifySizes};
use ftship_proto::protocol::PROTOCOL;

use super::capture::jobs::CaptureSettings;
use super::volumes::log_size;
use crate::config::{CaptureBy, Config, Mode, OnFence, Overrun};

/// A round that is so small a part of the log is the last one before the capture: what comes meanwhile mostly fits then.
const SMALL_ROUND_OF_LOG: u64 = 4;

/// Log use, in percent, beyond which a cut exchanges the log for the other RAM disk.
const ROTATE_AT: u8 = 30;

/// The header of this incarnation's epochs, before any.
pub(super) const fn header(
    group: GroupDescription,
    generation: Generation,
    incarnation: Incarnation,
) -> EpochHeader {
    EpochHeader {
        protocol: PROTOCOL,
        features_optional: 0,
        features_mandatory: 0,
        group,
        incarnation,
        generation,
        first_epoch: Epoch::NONE,
        last_epoch: Epoch::NONE,
        previous: Digest::ZERO,
        commit_point: true,
        staged: Epoch::NONE,
    }
}

/// For the cut thread.
pub(super) fn capture(config: &Config) -> CaptureSettings {
    CaptureSettings {
        logs: config.log_pairs(),
        log_size: log_size(config),
        rotate_at: ROTATE_AT,
        hold: (config.limits.overrun == Overrun::Throttle)
            .then_some((config.limits.log_watermark, config.limits.throttle_lease)),
        switch_hold: config.limits.switch_hold,
        digest_file: config.audit.digest_file.clone(),
    }
}

/// For a primary of this group, whose volumes write to these eras.
pub(super) fn core(
    config: &Config,
    group: GroupDescription,
    incarnation: Incarnation,
    eras: Option<Vec<Era>>,
) -> PrimaryConfig {
    PrimaryConfig {
        group,
        incarnation,
        eras,
        epoch_interval: config.epoch,
        interval: config.mode == Mode::Interval,
        still_budget: (config.capture == CaptureBy::Era).then_some(config.limits.era_pause),
        hooks: config.hooks.policy(),
        window: config.limits.window,
        timeout: config.limits.timeout,
        log_watermark: config.limits.log_watermark,
        throttles: config.limits.overrun == Overrun::Throttle,
        pause_budget: config.limits.pause_budget,
        pause_limit: config.limits.pause_limit,
        void_limit: config.limits.void_cuts,
        small_round: log_size(config).bytes().unwrap_or(u64::MAX) / SMALL_ROUND_OF_LOG,
        roll_interval: config.roll_interval,
        resync_target: config.resync_target,
        fence_lease: (config.limits.on_fence == OnFence::Freeze).then_some(config.limits.fence_lease),
        commit: config.commit.into(),
        verify: VerifySizes::default(),
        compare: CompareSizes::default(),
    }
}

/// What the core may be told anew.
pub(super) const fn tuning(config: &Config) -> Tuning {
    Tuning {
        epoch_interval: config.epoch,
        window: config.limits.window,
        timeout: config.limits.timeout,
        pause_budget: config.limits.pause_budget,
        pause_limit: config.limits.pause_limit,
        void_limit: config.limits.void_cuts,
        roll_interval: config.roll_interval,
        resync_target: config.resync_target,
    }
}
