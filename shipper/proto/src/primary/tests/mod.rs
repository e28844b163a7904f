//! What a primary decides, event by event.

mod comparing;
mod durable;
mod ending;
mod fence;
mod hold;
mod interval;
mod link;
mod numbering;
mod parting;
mod refusal;
mod resizing;
mod resting;
mod rolling;
mod stalling;
mod switching;
mod verifying;

use std::time::Duration;

use super::*;
use crate::generations::LineageEntry;
use crate::ids::{Digest, Generation, Incarnation};
use crate::message::{Message, Welcome};
use crate::protocol::PROTOCOL;
use crate::state::{Content, Role};
use crate::testing::group;

const SECOND: Duration = Duration::from_secs(1);
const STAMP: Incarnation = Incarnation([0xa1; 16]);

fn state() -> DurableState {
    let generation = Generation { number: 1, id: [0xe0; 16] };
    let lineage = vec![LineageEntry { generation, first_epoch: Epoch(1), digest: Digest::ZERO }];
    // Of a version that did not note which numbers it gave.
    let last_incarnation = Some(Incarnation([0xa0; 16]));
    let blank = DurableState::new_backup("vm1".parse().unwrap(), [1; 16]);
    DurableState { role: Role::Primary, lineage, last_incarnation, ..blank }
}

/// Of a volume whose writes go to era 7.
fn config() -> PrimaryConfig {
    PrimaryConfig {
        group: group(),
        incarnation: STAMP,
        eras: Some(vec![Era(7); group().volumes().len()]),
        epoch_interval: SECOND / 20,
        interval: false,
        still_budget: None,
        hooks: None,
        window: 4,
        timeout: SECOND,
        log_watermark: 80,
        throttles: false,
        pause_budget: SECOND / 100,
        pause_limit: SECOND / 10,
        void_limit: 5,
        small_round: 1 << 20,
        roll_interval: 60 * SECOND,
        resync_target: Duration::ZERO,
        fence_lease: None,
        commit: CommitPolicy::Auto,
        verify: VerifySizes::default(),
        compare: CompareSizes::default(),
    }
}

/// A primary that has noted more numbers of epochs than any test uses: `numbering.rs` is about those.
fn new_primary(config: PrimaryConfig, state: DurableState) -> Primary {
    let mut primary = Primary::new(config, state);
    primary.durable.note_all_numbers();
    primary
}

/// What of a configuration may change while it runs.
fn tuning(config: &PrimaryConfig) -> Tuning {
    Tuning {
        epoch_interval: config.epoch_interval,
        window: config.window,
        timeout: config.timeout,
        pause_budget: config.pause_budget,
        pause_limit: config.pause_limit,
        void_limit: config.void_limit,
        roll_interval: config.roll_interval,
        resync_target: config.resync_target,
    }
}

fn actions(primary: &mut Primary) -> Vec<PrimaryAction> {
    std::iter::from_fn(|| primary.poll_action()).collect()
}

/// What it does about a message.
fn hear(primary: &mut Primary, now: Duration, message: &Message) -> Vec<PrimaryAction> {
    primary.handle(now, PrimaryEvent::Frame(message.encode(1, STAMP)));
    actions(primary)
}

/// The capture was tried before the first sync, and began.
fn tried(primary: &mut Primary) {
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Tried { attempt: 1, result: Ok(()) }));
}

/// A backup greets that holds epoch 7.
fn welcome(primary: &Primary) -> Welcome {
    Welcome {
        protocol: PROTOCOL,
        features: crate::protocol::VERIFY,
        lineage: primary.durable.state.lineage.clone(),
        highest_epoch_seen: Epoch(7),
        committed: Epoch(7),
        chain_digest: Digest([7; 32]),
        content: Content::Consistent,
        role: Role::Backup,
        journal_size: Some(1 << 24),
        held: Some(Epoch(7)),
        sizes: None,
    }
}
