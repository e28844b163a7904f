//! What a primary decides, event by event.

mod comparing;
mod durable;
mod fence;
mod interval;
mod link;
mod switching;
mod verifying;

use std::time::Duration;

use super::*;
use crate::ids::{Generation, Incarnation};
use crate::state::{LineageEntry, Role};
use crate::testing::group;

const SECOND: Duration = Duration::from_secs(1);

fn state() -> DurableState {
    let generation = Generation { number: 1, id: [0xe0; 16] };
    let lineage = vec![LineageEntry { generation, first_epoch: Epoch(1), digest: Digest::ZERO }];
    DurableState { role: Role::Primary, lineage, ..DurableState::new_backup("vm1".parse().unwrap(), [1; 16]) }
}

/// Of a volume whose writes go to era 7.
fn config() -> PrimaryConfig {
    PrimaryConfig {
        group: group(),
        incarnation: Incarnation([0xa1; 16]),
        eras: Some(vec![Era(7); group().volumes().len()]),
        epoch_interval: SECOND / 20,
        interval: false,
        standing: None,
        hooks: None,
        window: 4,
        timeout: SECOND,
        log_watermark: 80,
        pause_budget: SECOND / 100,
        pause_limit: SECOND / 10,
        void_limit: 5,
        small_round: 1 << 20,
        roll_interval: 60 * SECOND,
        commit: CommitPolicy::Auto,
        verify: VerifySizes::default(),
        compare: CompareSizes::default(),
    }
}

fn actions(primary: &mut Primary) -> Vec<PrimaryAction> {
    std::iter::from_fn(|| primary.poll_action()).collect()
}
