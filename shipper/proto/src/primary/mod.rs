//! The primary's half of the protocol: when to connect, copy, cut, wait, and when to degrade.
//!
//! Sans-IO: [`Primary::handle`] takes events, [`Primary::poll_action`] yields what the driver must do,
//! time is a parameter.
//!
//! Always holds:
//! - At most one cut and one follow of the log are under way, and at most `window` epochs are cut but not acknowledged:
//!   when the window is full the epoch grows longer (a void tick), the volume never waits. In sync without a cut for ten
//!   epochs there is a reason to be shown (`stall.rs`).
//! - Every epoch is one exact state: while a sync copies, only parts of its epoch are cut (`parts.rs`).
//! - An epoch counts as staged only by a STAGED of its own digest. Where a coordinator commits, or where STAGED
//!   comes before the backup's disk has it, it counts as committed only by a report of the backup.
//! - Whatever is lost (link, log, agreement) ends in [`Replication::Degraded`] with a reason, and the
//!   capture is stopped.
//!
//! ```text
//!                    greeted            first commit point durable there
//!   Degraded ───────────────────► Syncing ─────────────────────────────► InSync
//!      ▲                             │                                     │
//!      └── link, log or agreement lost ────────────────────────────────────┘
//! ```
//!
//! Whoever learns that the other side was promoted steps aside: see `fence.rs`.
//!
//! The steps of these, and of link and capture, are drawn in `step.rs`, which checks each of them.

mod agreed;
mod budget;
mod commit;
mod comparison;
mod copy;
mod cut;
mod durable;
mod events;
mod fence;
mod hold;
mod hooks;
mod idle;
mod interval;
mod link;
mod numbers;
mod orders;
mod parts;
mod plan;
mod refusal;
mod resize;
mod stall;
mod step;
mod still_round;
mod switch;
mod sync;
mod touched;
mod verify;

use std::collections::VecDeque;
use std::time::Duration;

use crate::group::GroupDescription;
use crate::ids::{Epoch, Incarnation};
use crate::mutant::{self, Mutant};
use crate::protocol::CommitPolicy;
use crate::state::DurableState;
use ftdm_units::Era;
use link::Link;
use step::{Capture, SyncStep};

pub use commit::CommitRefused;
pub use comparison::{Comparison, Run};
pub use copy::{Batch, CopyPlan, Told};
pub use events::{PrimaryAction, PrimaryEvent, Until};
pub use fence::{DemoteRefused, Usage};
pub use hooks::OnFailure;
pub use idle::LONGEST_REST;
pub use orders::{Cut, CutOrder, CutResult};
pub use plan::{Carrier, CompareSizes, Rates, SyncFigures};
pub use resize::{ResizeRefused, Resized};
pub use touched::{AfterEpoch, Touched, TouchedBytes};
pub use verify::{MAX_LISTED, VerifyError, VerifyProgress, VerifyReport, VerifySizes};

/// What the primary is told at its start.
#[derive(Clone, Debug)]
pub struct PrimaryConfig {
    /// The protected volumes.
    pub group: GroupDescription,
    /// Drawn at random at this start.
    pub incarnation: Incarnation,
    /// The era that each volume's writes go to, in the group's order; `None` where that is not tracked, or not known.
    pub eras: Option<Vec<Era>>,
    /// Time between two cuts, or between the beginnings of two intervals' syncs.
    pub epoch_interval: Duration,
    /// Nothing is captured between two epochs: each is a sync of what was written since the one before.
    pub interval: bool,
    /// Nothing is ever captured: the last round of each sync is a still round, which may suspend for so long at most.
    pub still_budget: Option<Duration>,
    /// Hooks are run around the instant of each epoch; what is to be done when they fail.
    pub hooks: Option<OnFailure>,
    /// Largest number of epochs that are cut and not acknowledged; where a coordinator commits, not committed.
    pub window: usize,
    /// A peer that is silent for this long is gone.
    pub timeout: Duration,
    /// Part of the log, in percent, beyond which replication degrades.
    pub log_watermark: u8,
    /// In sync, writes wait beyond that: the cut thread holds them, and the core does not degrade.
    pub throttles: bool,
    /// How long the volume may stand still for a cut.
    pub pause_budget: Duration,
    /// How far that is stretched after void cuts: each one in a row doubles it.
    pub pause_limit: Duration,
    /// After this many void cuts in a row replication degrades.
    pub void_limit: u32,
    /// A round of so many bytes, or fewer, is the last one before the capture starts.
    pub small_round: u64,
    /// How often, while in sync, the primary considers rolling dm-era in the pause of a cut.
    pub roll_interval: Duration,
    /// It rolls only if a resync would compare for longer than this.
    pub resync_target: Duration,
    /// Whoever learns that the other side was promoted holds writes back for so long; `None`: goes on.
    pub fence_lease: Option<Duration>,
    /// Who commits.
    pub commit: CommitPolicy,
    /// What a verify works with.
    pub verify: VerifySizes,
    /// What a sync compares.
    pub compare: CompareSizes,
}

/// The part of it that may change while the primary runs; see [`PrimaryConfig`] for what each is.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Tuning {
    pub epoch_interval: Duration,
    pub window: usize,
    pub timeout: Duration,
    pub pause_budget: Duration,
    pub pause_limit: Duration,
    pub void_limit: u32,
    pub roll_interval: Duration,
    pub resync_target: Duration,
}

/// The state of replication, as shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replication {
    /// Not replicating; what changes is only tracked.
    Degraded {
        /// Why, for people.
        reason: String,
    },
    /// What the backup lacks is being copied.
    Syncing,
    /// Epochs are committed as they are cut.
    InSync,
    /// Something that must be durable could not be written: nothing is replicated until the daemon starts again.
    Failed {
        /// What, for people.
        reason: String,
    },
}

/// Figures for status displays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrimaryCounters {
    /// Epochs committed by this incarnation.
    pub epochs_committed: u64,
    /// Ticks at which the window was full.
    pub void_ticks: u64,
    /// Ticks at which no cut was made, because nothing was written since the last one.
    pub idle_ticks: u64,
    /// Cuts that failed their checks.
    pub void_cuts: u64,
    /// Times that a hook failed before a cut.
    pub hooks_failed: u64,
}

/// The primary's state machine.
#[derive(Debug)]
pub struct Primary {
    config: PrimaryConfig,
    replication: Replication,
    capture: Capture,
    /// When the next roll is worth its cost.
    rolls: touched::RollClock,
    refusals: refusal::Refusals,
    verify: Option<Box<verify::Verify>>,
    /// What earlier ones found that both sides hold.
    agreed: agreed::Agreed,
    /// The last one used; of no two incarnations the same.
    verify_token: u64,
    /// The exchange of roles that is under way.
    switch: Option<switch::Switch>,
    /// The volumes are being enlarged.
    resizing: Option<resize::Resize>,
    /// They were: this role ends.
    is_resized: bool,
    /// How the guest stands.
    hooks: hooks::GuestHooks,
    durable: durable::Durable,
    /// Whether it can tell which numbers its earlier runs gave to epochs.
    knows_numbers: bool,
    commits: commit::Commits,
    cuts: cut::CutClock,
    peer: link::PeerLink,
    fencing: fence::Fencing,
    syncing: sync::Syncing,
    actions: VecDeque<PrimaryAction>,
    counters: PrimaryCounters,
}

impl Primary {
    /// Goes on with other figures, from the next cut on. A capture that was refused is tried again at once.
    pub fn tune(&mut self, now: Duration, tuning: Tuning) {
        let Tuning {
            epoch_interval,
            window,
            timeout,
            pause_budget,
            pause_limit,
            void_limit,
            roll_interval,
            resync_target,
        } = tuning;
        let config = &mut self.config;
        config.epoch_interval = epoch_interval;
        (config.roll_interval, config.resync_target) = (roll_interval, resync_target);
        (config.window, config.timeout, config.void_limit) = (window, timeout, void_limit);
        (config.pause_budget, config.pause_limit) = (pause_budget, pause_limit);
        self.cuts.cut_at = self.cuts.cut_at.min(now + epoch_interval);
        self.forget_refusals(now);
    }

    /// A primary that is not connected and only tracks, and goes on from what its durable state says, whose lineage is
    /// never empty.
    #[must_use]
    pub fn new(config: PrimaryConfig, state: DurableState) -> Self {
        let last_cut = state.rolls.last().map_or(Epoch::NONE, |roll| roll.epoch);
        let numbered = state.numbered.unwrap_or(Epoch::NONE);
        let next_epoch = state.highest_epoch_seen.max(last_cut).max(numbered).next();
        let knows_numbers = numbers::known(&state);
        let [a, b, c, d, e, f, g, h, ..] = config.incarnation.0;
        let mut primary = Self {
            config,
            replication: Replication::Degraded { reason: "not connected to the backup yet".into() },
            capture: Capture::Off,
            rolls: touched::RollClock::default(),
            refusals: refusal::Refusals::default(),
            verify: None,
            agreed: agreed::Agreed::default(),
            verify_token: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            switch: None,
            resizing: None,
            is_resized: false,
            hooks: hooks::GuestHooks::default(),
            durable: durable::Durable::new(state),
            knows_numbers,
            commits: commit::Commits::default(),
            cuts: cut::CutClock::new(next_epoch),
            peer: link::PeerLink::default(),
            fencing: fence::Fencing::default(),
            syncing: sync::Syncing::default(),
            actions: VecDeque::new(),
            counters: PrimaryCounters::default(),
        };
        primary.take_over_state();
        primary
    }

    /// Tells what happened at `now` (time since any fixed origin; never goes back).
    pub fn handle(&mut self, now: Duration, event: PrimaryEvent) {
        match event {
            PrimaryEvent::StateWritten => {
                self.durable.written();
                self.stepped_down(now);
                self.resize_noted();
                self.go_on_numbered(now);
            }
            PrimaryEvent::Visited(frame) => self.visited(now, &frame),
            PrimaryEvent::Used(usage) => self.used(now, usage),
            PrimaryEvent::Stopping(usage) => self.stopping(usage),
            PrimaryEvent::Switch { id, generation, stall } => self.switch(now, id, generation, stall),
            PrimaryEvent::TakeUp { id, token, generation } => self.take_up(now, id, generation, token),
            PrimaryEvent::Demote { id, discard } => self.demote(now, id, discard),
            PrimaryEvent::Failed { reason } => self.fail(now, reason),
            PrimaryEvent::Connected => self.connected(now),
            PrimaryEvent::Disconnected { reason } => self.disconnected(now, &reason),
            PrimaryEvent::Frame(frame) => self.frame(now, &frame),
            PrimaryEvent::Cut(result) => self.cut_result(now, result),
            PrimaryEvent::ShippingFailed { reason } => self.capture_lost(now, &reason),
            PrimaryEvent::Widened { bytes } => self.syncing.attempt.widened(bytes),
            PrimaryEvent::PartEncoded { stored, frames } => self.part_encoded(now, stored, frames),
            PrimaryEvent::Froze { token, result } => self.froze(now, token, result),
            PrimaryEvent::ThawedEarly { token } => self.thawed_early(now, token),
            PrimaryEvent::Encoded { epoch, digest, stored, touched } => {
                self.rolls.note(touched);
                self.encoded(epoch, digest, stored);
            }
            PrimaryEvent::Compares { number, places } => self.compares(number, places),
            PrimaryEvent::CopyProgressed { stored, skipped } => self.copy_progressed(now, stored, skipped),
            PrimaryEvent::Copied { frames } => self.copied(now, frames),
            PrimaryEvent::Checkpoint { id, until } => self.checkpoint(now, id, until),
            PrimaryEvent::Commit { id, epoch } => self.commit(id, epoch),
            PrimaryEvent::CheckpointWithdrawn { id } => self.commits.checkpoints.retain(|one| one.id != id),
            PrimaryEvent::Resize { id, devices, room } => self.resize(now, id, &devices, &room),
            PrimaryEvent::FullSync { id } => self.full_sync(now, id),
            PrimaryEvent::Verify { id, repair } => self.verify(now, id, repair),
            PrimaryEvent::Hashed { token, result } => self.hashed(now, token, result),
            PrimaryEvent::Inspected { token, result } => self.inspected(token, result),
            PrimaryEvent::Concluded { token, digests } => self.concluded(now, token, digests),
        }
    }

    /// Tells that time has come to `now`.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.link_timeout(now);
        self.sync_timeout(now);
        self.refusal_timeout(now);
        self.cut_timeout(now);
        self.interval_timeout(now);
        self.hooks_timeout(now);
        self.verify_timeout(now);
        self.resize_timeout(now);
    }

    /// When [`Self::handle_timeout`] is due at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let link = match &self.peer.link {
            Link::Down { .. } if self.is_barred() => None,
            Link::Down { retry_at } => Some(*retry_at),
            Link::Connecting { deadline } | Link::Greeting { deadline } => Some(*deadline),
            Link::Up { heard, ping_at, .. } => Some((*ping_at).min(*heard + self.config.timeout)),
        };
        let cuts = self.capture == Capture::On && self.cuts.cutting.is_none();
        let cut = (cuts && !self.hooks.is_asked()).then_some(self.cuts.cut_at);
        let dues = [
            link,
            cut,
            self.interval_due(),
            self.sync_deadline(),
            self.refusal_due(),
            self.verify_due(),
            self.resize_due(),
        ];
        dues.into_iter().flatten().min()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<PrimaryAction> {
        self.actions.pop_front()
    }

    /// The state of replication.
    #[must_use]
    pub fn replication(&self) -> &Replication {
        &self.replication
    }

    /// Whether every epoch is committed on the backup as it is cut.
    #[must_use]
    pub fn is_in_sync(&self) -> bool {
        self.replication == Replication::InSync
    }

    /// Whether a backup is connected and greeted.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.peer.link, Link::Up { .. })
    }

    /// Why there is no connection, as last seen.
    #[must_use]
    pub fn link_error(&self) -> Option<&str> {
        self.peer.error.as_deref()
    }

    /// Whether writes are being captured.
    #[must_use]
    pub fn is_capturing(&self) -> bool {
        self.capture == Capture::On
    }

    /// The last epoch that the backup acknowledged by STAGED, of those that could be committed.
    #[must_use]
    pub fn staged(&self) -> Epoch {
        self.commits.staged.max(self.commits.committed)
    }

    /// The last epoch that the backup has committed, as far as this side knows.
    #[must_use]
    pub fn committed(&self) -> Epoch {
        self.commits.committed
    }

    /// The last epoch that the backup said is on its volumes.
    #[must_use]
    pub fn peer_applied(&self) -> Epoch {
        self.peer.applied
    }

    /// The last epoch that was cut by this incarnation, or the backup's highest.
    #[must_use]
    pub fn last_cut(&self) -> Epoch {
        Epoch(self.cuts.next_epoch.0 - 1)
    }

    /// Epochs cut and not acknowledged; where a coordinator commits, not committed.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.commits.in_flight.len()
    }

    /// The sync under way.
    #[must_use]
    pub fn sync(&self, now: Duration) -> Option<SyncFigures> {
        (self.syncing.step != SyncStep::None).then(|| self.syncing.attempt.figures(now))
    }

    /// The last sync that came to its end.
    #[must_use]
    pub fn last_sync(&self) -> Option<SyncFigures> {
        self.syncing.last
    }

    /// Figures for status displays.
    #[must_use]
    pub fn counters(&self) -> PrimaryCounters {
        self.counters
    }

    fn act(&mut self, action: PrimaryAction) {
        self.actions.push_back(action);
    }

    fn set_replication(&mut self, replication: Replication) {
        if self.replication != replication {
            let was_in_sync = self.is_in_sync();
            self.replication = replication;
            if was_in_sync {
                self.went_alone();
            }
            self.act(PrimaryAction::StateChanged);
        }
    }

    /// Ends replication for this reason; the volume goes on, its changes are only tracked.
    fn degrade(&mut self, reason: &str) {
        if self.switch_outlives(reason) {
            return;
        }
        if matches!(self.capture, Capture::Starting | Capture::On) {
            self.enter_capture(Capture::Stopping);
            self.order(CutOrder::Stop);
        }
        if matches!(self.syncing.step, SyncStep::Copying | SyncStep::LastRound) {
            self.act(PrimaryAction::StopCopy);
        }
        if self.config.still_budget.is_some() {
            self.cuts.cutting = None;
        }
        self.thaw();
        self.syncing.step = SyncStep::None;
        self.interrupt_verify(reason);
        self.commits.in_flight.clear();
        let answered = if mutant::is(Mutant::ForgetCheckpoint) { 1 } else { 0 };
        self.commits.checkpoints.drain(..answered.min(self.commits.checkpoints.len()));
        self.fail_checkpoints(reason);
        if !self.has_failed() {
            self.set_replication(Replication::Degraded { reason: reason.to_owned() });
        }
    }
}

#[cfg(test)]
mod tests;
