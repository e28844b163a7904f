//! What goes wrong, and what the people do about it.
//!
//! Always holds: after the time of faults nothing goes wrong any more and everything is started again; then the pair
//! must get in step by itself.

use std::collections::VecDeque;

use ftship_proto::backup::{BackupEvent, PromoteRefused};
use ftship_proto::frame::{Frame, FrameKind};
use ftship_proto::ids::{Digest, Epoch};
use ftship_proto::message::Message;
use ftship_proto::primary::{PrimaryEvent, Replication, Until};

use crate::aftermath::Aftermath;
use crate::net::Item;
use crate::world::{Event, LaneId, Side, World};

/// How long the pair may take to get in step once nothing goes wrong any more, in microseconds.
const PATIENCE: u64 = 60_000_000;
const SECOND: u64 = 1_000_000;

/// What can go wrong at a random time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillBackup,
    CutBackup,
    KillPrimary,
    CutPrimary,
    Break,
    Partition,
    /// A STAGED that no backup sent.
    StrayStaged,
    /// Frames of an earlier connection turn up on this one.
    OldFrames,
    Stall,
    /// The backup's disks take their time, and the connection does not survive it.
    SlowDisks,
    /// Somebody else connects while the primary's connection lives: says nothing, says the primary's own greeting
    /// once more, or sends frames of an earlier connection.
    SecondConnection,
    /// One write to the journal's ring is lost, or lands elsewhere in it, and nobody is told.
    Misdirect,
    /// Connections end, and once more in the middle of the sync that follows; its next attempt makes the same epoch at the
    /// same place, and something of what it writes goes astray.
    BreakAndLose,
    /// The primary is given up, and the backup promoted, after a crash of its own or not.
    Failover,
    /// The primary's disks are copied, and put back later.
    PutBack,
    /// The volumes are enlarged.
    Grow,
    /// A daemon is stopped on purpose.
    StopPrimary,
    StopBackup,
}

impl Fault {
    pub(crate) const ALL: [Self; 23] = [
        Self::KillBackup,
        Self::CutBackup,
        Self::CutBackup,
        Self::KillPrimary,
        Self::CutPrimary,
        Self::Break,
        Self::Break,
        Self::Partition,
        Self::StrayStaged,
        Self::OldFrames,
        Self::SecondConnection,
        Self::SecondConnection,
        Self::Misdirect,
        Self::Stall,
        Self::Stall,
        Self::SlowDisks,
        Self::SlowDisks,
        Self::SlowDisks,
        Self::SlowDisks,
        Self::Failover,
        Self::Failover,
        Self::StopPrimary,
        Self::StopBackup,
    ];
}

/// See the head of this module.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    pub(crate) is_done: bool,
    is_calm: bool,
    next_id: u64,
    /// The checkpoint that ends the history once it is committed.
    last_checkpoint: Option<u64>,
    is_last_committed: bool,
    /// A promote was asked for; whether it must succeed.
    pub(crate) promoting: Option<bool>,
    /// The epoch that the coordinator chose.
    chosen: Option<Epoch>,
    /// Frames that this primary sent, and its predecessor, for [`Fault::OldFrames`].
    remembered: VecDeque<Frame>,
    old_frames: Vec<Frame>,
    is_mixing: bool,
    /// The connections break behind the next data of a staged sync.
    is_breaking: bool,
    /// The backup is promoted while the next full sync has hardly begun.
    is_hasty: bool,
    /// The present primary's last greeting.
    hello: Option<Frame>,
    pub(crate) deadline: u64,
    pub(crate) aftermath: Aftermath,
    /// The primary stepped down in favour of the backup: nothing may be written there any more.
    pub(crate) handed_over: bool,
    /// From where on the old primary's changes are known, in a pair's second life whose first sync has not ended.
    pub(crate) fork: Option<Epoch>,
}

impl Operator {
    /// Notes a frame of the base copy; returns old ones that turn up behind it.
    pub(crate) fn remember(&mut self, frame: &Frame) -> Vec<Frame> {
        if frame.header.kind == FrameKind::Hello {
            self.hello = Some(frame.clone());
        }
        if frame.header.kind != FrameKind::BaseData {
            return Vec::new();
        }
        self.remembered.push_back(frame.clone());
        if self.remembered.len() > 8 {
            self.remembered.pop_front();
        }
        if std::mem::take(&mut self.is_mixing) { std::mem::take(&mut self.old_frames) } else { Vec::new() }
    }

    /// The primary is another one from now on.
    pub(crate) fn forget_primary(&mut self) {
        self.hello = None;
        if !self.remembered.is_empty() {
            self.old_frames = std::mem::take(&mut self.remembered).into();
        }
    }

    pub(crate) fn checkpoint_answered(&mut self, id: u64, is_committed: bool) {
        if self.last_checkpoint == Some(id) {
            self.is_last_committed = is_committed;
            if !is_committed {
                self.last_checkpoint = None;
            }
        }
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.is_calm
    }

    /// Nothing goes wrong any more: somebody was promoted, or is about to be.
    pub(crate) fn settle_for_a_promote(&mut self, now: u64) {
        self.is_calm = true;
        self.deadline = now + PATIENCE;
        self.promoting = Some(false);
    }

    pub(crate) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl World {
    pub(crate) fn begin(&mut self) {
        self.operator.deadline = u64::MAX;
        let patience = if self.scenario.settles_first.is_some() { 4 } else { 1 };
        self.schedule(patience * self.scenario.chaos_until, Event::Calm);
        self.backup_start();
        self.primary_start();
        self.guest_writes();
        self.schedule(0, Event::Look);
        let first = self.random.around(self.scenario.fault_interval);
        self.schedule(first, Event::Fault);
        let first = self.random.around(self.scenario.request_interval);
        self.schedule(first, Event::Request);
        if self.is_external() {
            self.schedule(0, Event::Coordinator);
        }
    }

    /// One thing goes wrong.
    pub(crate) fn fault(&mut self) {
        if self.operator.is_calm {
            return;
        }
        let next = self.now + self.random.around(self.scenario.fault_interval);
        self.schedule(next, Event::Fault);
        if self.scenario.settles_first.is_some() {
            return;
        }
        let fault = self.scenario.faults[self.random.index(self.scenario.faults.len())];
        self.note(|_| format!("FAULT {fault:?}"));
        match fault {
            Fault::KillBackup => self.stop(Side::Backup, false),
            Fault::CutBackup => self.stop(Side::Backup, true),
            Fault::KillPrimary => self.stop(Side::Primary, false),
            Fault::CutPrimary => self.stop(Side::Primary, true),
            Fault::Break => self.net_break_all(false),
            Fault::Partition => {
                self.net.partition_until = self.now + self.random.below(3 * self.scenario.timeout);
            }
            Fault::StrayStaged => self.stray_staged(),
            Fault::OldFrames => self.operator.is_mixing = true,
            Fault::Stall => {
                let lanes = [
                    LaneId::Cut,
                    LaneId::Read,
                    LaneId::Encode,
                    LaneId::Journal,
                    LaneId::Volume,
                    LaneId::State,
                ];
                let lane = lanes[self.random.index(lanes.len())];
                let length = self.random.below(self.scenario.chaos_until / 3);
                self.stalled_until[lane as usize] = self.now + length;
            }
            Fault::SlowDisks => {
                for lane in [LaneId::Journal, LaneId::Volume] {
                    self.stalled_until[lane as usize] = self.now + self.random.below(4 * SECOND);
                }
                let wait = self.random.below(2 * self.scenario.epoch_interval);
                self.schedule(self.now + wait, Event::Break);
                // And the people are quick: a whole copy begins while old epochs are still on their way.
                self.scenario.is_eager = self.random.coin();
                self.operator.is_hasty = self.random.once_in(2);
            }
            Fault::SecondConnection => self.second_connection(),
            Fault::Misdirect => self.misdirects = Some(self.random.below(4)),
            Fault::BreakAndLose => {
                self.net_break_all(true);
                self.operator.is_breaking = true;
            }
            Fault::Failover => self.failover(),
            Fault::PutBack => self.copy_disks(),
            Fault::Grow => self.grow(),
            Fault::StopPrimary => self.ask_primary_to_end(),
            Fault::StopBackup => self.end_backup(),
        }
    }

    /// A daemon dies, or its host's power is cut; it comes back after a while.
    pub(crate) fn stop(&mut self, side: Side, power: bool) {
        if !self.is_powered(side) && !power {
            return;
        }
        match side {
            Side::Primary => {
                if power {
                    self.forget_unnoted();
                }
                self.primary_stop(!power);
                self.primary.daemon_since = None;
                if power {
                    self.primary.powered = false;
                    let (primary, random) = (&mut self.primary, &mut self.random);
                    primary.state.power_cut(random);
                    self.guest_power_cut();
                }
            }
            Side::Backup => {
                self.backup_stop(!power);
                if power {
                    self.backup.powered = false;
                    let (backup, random) = (&mut self.backup, &mut self.random);
                    backup.disks.power_cut(random);
                }
                self.examine_backup();
            }
        }
        let run = if side == Side::Primary { self.primary.run } else { self.backup.run };
        let back = self.now + self.random.around(self.scenario.timeout);
        self.schedule(back, Event::Restart(side, run));
    }

    /// A stop in the middle of what the daemon was about to do.
    pub(crate) fn crash(&mut self, side: Side) {
        let power = self.random.coin();
        self.note(|_| format!("FAULT {side:?} crashes before that, power {power}"));
        self.stop(side, power);
    }

    /// Judges what a restart will find.
    fn examine_backup(&mut self) -> Vec<Epoch> {
        let found = self.checker.examine(&self.backup.disks.view());
        self.note(|_| format!("checker: the backup's disks: {:?}, {:?}", found.state.content, found.choices));
        found.choices.iter().map(|(epoch, _)| *epoch).collect()
    }

    pub(crate) fn restart(&mut self, side: Side, run: u32) {
        match side {
            Side::Primary if run == self.primary.run => self.primary_start(),
            Side::Backup if run == self.backup.run => self.backup_start(),
            _ => return,
        }
        if side == Side::Backup && !self.in_aftermath() && self.operator.promoting.is_some() {
            self.ask_to_promote();
        }
    }

    /// The backup has got a frame of an epoch's data.
    pub(crate) fn data_arrived(&mut self) {
        let is_staged = self.backup.daemon.as_ref().is_some_and(|daemon| daemon.core.is_catching_up());
        if is_staged && std::mem::take(&mut self.operator.is_breaking) && !self.operator.is_calm {
            self.note(|_| "FAULT the connections end in the middle of a sync".into());
            self.net_break_all(true);
            self.misdirects = Some(self.random.range(1, 5));
        }
    }

    fn stray_staged(&mut self) {
        let Some(daemon) = &self.primary.daemon else { return };
        let (Some(conn), epoch) = (daemon.peer, daemon.core.last_cut()) else { return };
        let message = Message::Staged { epoch, digest: Digest([0x5a; 32]) };
        let frame = message.encode(daemon.stamp.generation, daemon.stamp.incarnation);
        self.net_send(conn, Side::Backup, Item::Frame(frame));
    }

    /// The backup hears that a full sync begins: somebody may promote it before anything is overwritten.
    pub(crate) fn full_sync_heard(&mut self) {
        if std::mem::take(&mut self.operator.is_hasty) {
            let stalls = [LaneId::Journal, LaneId::Volume].map(|lane| self.stalled_until[lane as usize]);
            let until = stalls[0].max(stalls[1]).max(self.now) + 20_000;
            let at = self.now + self.random.below(until - self.now);
            self.schedule(at, Event::Failover);
        }
    }

    fn second_connection(&mut self) {
        if !self.backup.is_up() {
            return;
        }
        let conn = self.net_stranger();
        self.backup_accept(conn);
        let frames = match self.random.below(3) {
            0 => Vec::new(),
            1 => self.operator.hello.iter().cloned().collect(),
            _ => self.operator.remembered.iter().cloned().collect::<Vec<_>>(),
        };
        for frame in frames {
            self.net_send(conn, Side::Primary, Item::Frame(frame));
        }
    }

    /// The primary is lost for good; whoever decides promotes the backup.
    pub(crate) fn failover(&mut self) {
        if self.operator.promoting.is_some() || self.operator.is_calm {
            return;
        }
        self.operator.settle_for_a_promote(self.now);
        self.end_faults();
        // A promote while the primary still runs is refused by nobody: it is fenced from outside.
        if self.random.coin() {
            let tells = self.random.coin();
            self.primary_stop(tells);
            self.primary.powered = false;
        }
        if self.backup.is_up() && !self.backup_failed() && self.random.coin() {
            self.operator.chosen = self.choose(None);
            let wait = self.random.below(4 * self.scenario.net_delay.max(20_000));
            return self.schedule(self.now + wait, Event::Promote);
        }
        let power = self.random.coin();
        self.stop(Side::Backup, power || !self.backup.powered);
        self.must_promote();
    }

    /// A promote that is asked for once the backup is back must succeed, if there is anything to promote to.
    pub(crate) fn must_promote(&mut self) -> bool {
        let choices = self.examine_backup();
        let must = !choices.is_empty();
        self.operator.chosen = self.choose(Some(choices));
        let has_choice = !self.is_external() || self.operator.chosen.is_some();
        self.operator.promoting = Some(must && has_choice);
        must
    }

    pub(crate) fn ask_to_promote(&mut self) {
        let (id, epoch) = (self.random.id(), self.operator.chosen);
        self.note(|_| format!("operator: promote {epoch:?}"));
        if let Some(epoch) = epoch {
            self.checker.chosen(epoch);
        }
        self.backup_handle(BackupEvent::Promote { id, epoch, force: false, token: None });
        self.schedule(self.now + SECOND, Event::Calm);
    }

    pub(crate) fn promote_done(&mut self, result: &Result<Epoch, PromoteRefused>) {
        match result {
            Ok(epoch) => {
                if self.operator.promoting.is_none() {
                    self.taken_over(*epoch);
                }
                let chosen = self.operator.chosen;
                let is_chosen = chosen.map_or(!self.is_external(), |chosen| chosen == *epoch);
                assert!(is_chosen, "promoted at {epoch}, asked for was {chosen:?}");
                self.checker.promoted(&self.backup.disks, *epoch, self.scenario.noisy);
                if self.operator.promoting.is_some() && self.begin_aftermath(*epoch) {
                    return;
                }
            }
            Err(refused) => {
                let must = self.operator.promoting == Some(true) && !self.checker.is_struck();
                assert!(!must, "a backup that was promotable after its crash refuses: {refused}");
            }
        }
        if self.operator.promoting.is_some() {
            self.operator.is_done = true;
        }
    }

    /// An operator who watches asks for a whole copy as soon as a sync begins.
    pub(crate) fn state_changed(&mut self) {
        let (now, host) = (self.now, &mut self.primary);
        if let Some(daemon) = host.daemon.as_mut().filter(|daemon| daemon.core.is_in_sync()) {
            daemon.last_cut = now;
        }
        self.judge_in_sync();
        self.is_alone_no_more();
        let Some(daemon) = &self.primary.daemon else { return };
        match daemon.core.replication() {
            Replication::InSync => {
                if self.scenario.switches && !self.operator.is_calm {
                    for _ in 0..self.scenario.asks {
                        let wait = self.random.below(8 * self.scenario.epoch_interval);
                        self.schedule(self.now + wait, Event::Switch);
                    }
                }
                let Some(odds) = self.scenario.settles_first.take() else {
                    self.operator.fork = None;
                    return;
                };
                self.failed_back();
                self.scenario.set_odds(odds);
                self.schedule(self.now + self.scenario.chaos_until, Event::Calm);
            }
            // Whatever the backup holds when they meet again.
            Replication::Degraded { .. } => self.operator.fork = None,
            Replication::Syncing if std::mem::take(&mut self.scenario.is_eager) => self.ask_for_full_sync(),
            _ => {}
        }
    }

    /// Somebody asks for a checkpoint, or a full sync.
    pub(crate) fn request(&mut self) {
        if self.operator.is_calm {
            return;
        }
        let next = self.now + self.random.around(self.scenario.request_interval);
        self.schedule(next, Event::Request);
        self.maybe_verify();
        self.maybe_snapshot();
        if self.random.once_in(self.scenario.odds_whole) && self.scenario.settles_first.is_none() {
            self.ask_for_full_sync();
        } else {
            let until = [Until::Cut, Until::Staged, Until::Committed, Until::Committed];
            let until = until[self.random.index(until.len())];
            self.ask_for_checkpoint(until);
        }
    }

    fn ask_for_full_sync(&mut self) {
        let id = self.operator.id();
        self.note(|_| "operator: full-sync".into());
        self.captures_are_wanted();
        self.primary_handle(PrimaryEvent::FullSync { id });
    }

    pub(crate) fn ask_for_checkpoint(&mut self, until: Until) -> u64 {
        let id = self.operator.id();
        if self.primary.daemon.is_some() {
            self.note(|_| format!("operator: checkpoint {id} until {until:?}"));
            self.checker.requested(id, self.primary.writes);
            self.primary_handle(PrimaryEvent::Checkpoint { id, until });
        }
        id
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.operator.is_calm
    }

    /// There was progress.
    pub(crate) fn more_time(&mut self) {
        self.operator.deadline = self.operator.deadline.max(self.now + PATIENCE);
    }

    pub(crate) fn end_faults(&mut self) {
        let scenario = &mut self.scenario;
        scenario.set_odds([0; 4]);
        if scenario.is_cramped {
            // The guest gives way: what does not fit the journal will never get in sync.
            scenario.guest_interval = scenario.guest_interval.max(2 * scenario.epoch_interval);
            scenario.burst = 1;
        }
        scenario.coordinator_interval = scenario.coordinator_interval.min(scenario.epoch_interval);
        if !scenario.keeps_pace {
            scenario.log_capacity = u64::MAX / 4096;
            scenario.lane_delay = scenario.lane_delay.map(|delay| delay.min(2_000));
        }
        scenario.net_delay = scenario.net_delay.min(2_000);
        self.net.partition_until = 0;
        self.misdirects = None;
    }

    /// Nothing goes wrong any more. Looks once a second whether the pair is in step, and helps.
    pub(crate) fn calm(&mut self) {
        if !self.operator.is_calm {
            self.scenario.settles_first = None;
            self.note(|_| "CALM: nothing goes wrong from now on".into());
            self.operator.is_calm = true;
            self.operator.deadline = self.now + PATIENCE;
            self.end_faults();
            self.end_refusal();
            self.stalled_until = [0; 6];
        }
        self.schedule(self.now + SECOND, Event::Calm);
        if self.operator.promoting.is_some() {
            return;
        }
        if self.backup_failed() {
            self.stop(Side::Backup, false);
        }
        if self.primary_failed() {
            self.stop(Side::Primary, false);
        }
        let Some(daemon) = &self.primary.daemon else { return };
        if daemon.core.switch_text().is_some() {
            // Whatever comes of it.
            return;
        }
        if *daemon.core.replication() == Replication::InSync && self.operator.last_checkpoint.is_none() {
            if !self.last_verifies() {
                return;
            }
            let id = self.operator.next_id + 1;
            self.operator.last_checkpoint = Some(id);
            self.ask_for_checkpoint(Until::Committed);
        }
    }

    /// After each event: has the history come to its end, or to none?
    pub(crate) fn watch(&mut self) {
        self.expect_reason();
        if self.now > self.operator.deadline {
            let primary = self.primary.daemon.as_ref().map(|daemon| daemon.core.replication().clone());
            let backup = self.backup.daemon.as_ref().map(|daemon| daemon.core.phase().clone());
            panic!("stuck: the primary is {primary:?}, the backup {backup:?}");
        }
        if self.operator.is_last_committed && self.operator.promoting.is_none() && !self.plan_failover() {
            self.checker.all_answered();
            self.operator.deadline = self.now + PATIENCE;
            let power = self.random.coin();
            self.stop(Side::Backup, power);
            let must = self.must_promote();
            if !must && self.checker.is_struck() {
                self.operator.is_done = true;
                return;
            }
            assert!(must, "in sync, and not promotable");
        }
    }
}
