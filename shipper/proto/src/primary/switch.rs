//! Exchanging the roles on purpose, also under load: writes are held back behind a last cut, until the other side is the
//! primary, and then fail here.
//!
//! ```text
//!   Settling ──nothing in flight: the last cut, which holds──► Holding ──its epoch is committed──► Yielding
//!                                                                 │                                   │ nobody lets writes through any more
//!       writes go on, this side stays the primary ◄───────────────┴───────── link or time lost ◄──────┤
//!                  ▲                                                                  ▲               ▼
//!                  │ durably the primary again                                        │            Writing
//!               Undoing ◄──────────── link or time lost, or the backup says that ─────┴───────────────┤ durably a backup
//!                                     it was not told, and never will be                              ▼
//!   the role ends ◄────────── Shutting ◄────────── the other side is the primary ─────────────────  Told
//!        ▲                                                                                            │
//!        └──────────────────── nothing was heard for as long as writes may be held: shut ◄────────────┘
//! ```
//!
//! Always holds: the other side is told only when this one is a backup, durably, and nothing but this state machine lets
//! writes through any more; it does so only while the other side cannot have heard, or says itself, at a later meeting,
//! that it is a backup still. So there are never two primaries, and what was written here before the volumes failed is
//! on the other side. If the word is lost there may be none, until somebody promotes the other side.

use std::time::Duration;

use super::fence::{DemoteRefused, SteppingDown};
use super::{Capture, CutOrder, Link, Primary, PrimaryAction};
use crate::ids::Epoch;
use crate::lineage::{Relation, Standing, compare};
use crate::message::Message;
use crate::mutant::{self, Mutant};
use crate::protocol::CommitPolicy;
use crate::state::DurableState;

/// Time between two attempts to hear what became of a word that was sent.
const ASK_INTERVAL: Duration = Duration::from_millis(200);

/// An exchange of roles that is under way.
#[derive(Debug)]
pub(super) struct Switch {
    /// Who asked.
    id: u64,
    /// Random id of the generation that the other side is to make.
    generation: [u8; 16],
    step: Step,
}

/// How far it has come.
#[derive(Debug)]
enum Step {
    /// What is in flight is to be committed first, so that writes wait for one epoch only.
    Settling,
    /// The cut of this epoch was ordered; from its pause on writes are held back.
    Holding(Epoch),
    /// It is committed. Nothing is to let writes through from here on.
    Yielding,
    /// The new role is being made durable; before it the state said this.
    Writing(Box<DurableState>),
    /// The backup was told; the same.
    Told(Box<DurableState>),
    /// It came to nothing: the old role is being made durable again.
    Undoing(String),
    /// The volumes are being shut.
    Shutting,
}

impl Primary {
    /// Hands over to the backup. With `stall` also while somebody has the volumes open.
    pub(super) fn switch(&mut self, now: Duration, id: u64, generation: [u8; 16], stall: bool) {
        let is_open = self.fencing.usage.is_none_or(|usage| usage.open);
        let rests = self.config.interval && self.capture == Capture::Off;
        let refused = match () {
            () if self.config.commit == CommitPolicy::External => Some(DemoteRefused::External),
            () if self.config.still_budget.is_some() => Some(DemoteRefused::NoCapture),
            () if self.config.still_budget.is_some() => Some(DemoteRefused::Uncaptured),
            () if self.switch.is_some() || self.is_stepping_down() || self.resizing.is_some() => {
                Some(DemoteRefused::UnderWay)
            }
            () if !self.is_in_sync() || self.capture != Capture::On && !rests => {
                Some(DemoteRefused::NotInSync)
            }
            () if is_open && !stall => Some(DemoteRefused::InUse),
            () => None,
        };
        if let Some(refused) = refused {
            return self.act(PrimaryAction::DemoteDone { id, result: Err(refused) });
        }
        self.switch = Some(Switch { id, generation, step: Step::Settling });
        self.cuts.cut_at = self.cuts.cut_at.min(now);
        self.cut_timeout(now);
        self.interval_timeout(now);
    }

    /// For people: what a switch does now.
    #[must_use]
    pub fn switch_text(&self) -> Option<&'static str> {
        Some(match self.switch.as_ref()?.step {
            Step::Settling => "the roles are about to be exchanged",
            Step::Holding(_) | Step::Yielding | Step::Writing(_) => {
                "writes are held back: the roles are being exchanged"
            }
            Step::Told(_) => "this side has stepped down: whether the other took over is not known yet",
            Step::Undoing(_) => "the roles are not exchanged: this side becomes the primary again",
            Step::Shutting => "this side has handed over",
        })
    }

    /// No cut is wanted: what was cut last is all there is, or has to be committed first.
    pub(super) fn switch_bars_cuts(&self) -> bool {
        match self.switch.as_ref().map(|switch| &switch.step) {
            None => false,
            Some(Step::Settling) => !self.commits.in_flight.is_empty(),
            Some(_) => true,
        }
    }

    /// A switch waits for its last cut.
    pub(super) fn wants_last_cut(&self) -> bool {
        matches!(&self.switch, Some(Switch { step: Step::Settling, .. }))
    }

    /// The next cut is ordered. Whether it is to hold writes back.
    pub(super) fn is_last_cut(&mut self, epoch: Epoch) -> bool {
        match &mut self.switch {
            Some(Switch { step: step @ Step::Settling, .. }) => {
                *step = Step::Holding(epoch);
                true
            }
            _ => false,
        }
    }

    /// That cut was void: nothing is held back.
    pub(super) fn last_cut_void(&mut self) {
        if let Some(Switch { step: step @ Step::Holding(_), .. }) = &mut self.switch {
            *step = Step::Settling;
        }
    }

    /// More may be committed.
    pub(super) fn switch_committed(&mut self, now: Duration) {
        let (is_settled, committed) =
            (self.commits.in_flight.is_empty() && self.cuts.cutting.is_none(), self.commits.committed);
        let is_in_sync = self.is_in_sync();
        match &mut self.switch {
            Some(Switch { step: Step::Settling, .. }) if is_settled => {
                self.cuts.cut_at = self.cuts.cut_at.min(now);
            }
            Some(Switch { step: step @ Step::Holding(_), .. }) if is_settled && is_in_sync => {
                if matches!(step, Step::Holding(epoch) if *epoch <= committed) {
                    *step = Step::Yielding;
                    if mutant::is(Mutant::SwitchUnyielded) {
                        return self.yielded(now);
                    }
                    self.order(CutOrder::Yield);
                }
            }
            _ => {}
        }
    }

    /// Nobody lets writes through any more.
    pub(super) fn yielded(&mut self, now: Duration) {
        if !matches!(&self.switch, Some(Switch { step: Step::Yielding, .. })) {
            return;
        }
        if !self.is_connected() {
            return self.undo(now, "the connection was lost");
        }
        let before = Box::new(self.durable.state.clone());
        // This side holds what the backup holds.
        self.put_away(self.last_cut());
        self.enter_switch(Step::Writing(before));
        if mutant::is(Mutant::SwitchBeforeState) {
            self.switch_state_durable(now);
        }
        self.write_state();
    }

    /// A version of the state is durable: all that was ordered.
    pub(super) fn switch_state_durable(&mut self, now: Duration) {
        let Some(switch) = &mut self.switch else { return };
        match std::mem::replace(&mut switch.step, Step::Shutting) {
            Step::Writing(before) if matches!(self.peer.link, Link::Up { .. }) => {
                switch.step = Step::Told(before);
                let generation = switch.generation;
                self.act(PrimaryAction::Send(Message::TakeOver { generation }));
            }
            Step::Writing(before) => {
                switch.step = Step::Writing(before);
                self.undo(now, "the connection was lost");
            }
            Step::Undoing(reason) => {
                self.end_switch(Err(DemoteRefused::Failed(reason.clone())));
                self.order(CutOrder::Release);
                self.degrade(&reason);
            }
            other => switch.step = other,
        }
    }

    /// What is held back stays so whatever becomes of replication: nothing degrades now. Otherwise the switch, if there is
    /// one, has failed.
    pub(super) fn switch_outlives(&mut self, reason: &str) -> bool {
        match &self.switch {
            None => false,
            Some(Switch { step: Step::Settling | Step::Holding(_), .. }) => {
                self.end_switch(Err(DemoteRefused::Failed(reason.to_owned())));
                false
            }
            Some(_) => true,
        }
    }

    /// The connection ended: how soon it is asked what became of the word that was sent.
    pub(super) fn ask_soon(&self) -> Option<Duration> {
        matches!(&self.switch, Some(Switch { step: Step::Told(_), .. })).then_some(ASK_INTERVAL)
    }

    /// Whether there is no use in connecting.
    pub(super) fn switch_bars_link(&self) -> bool {
        matches!(&self.switch, Some(Switch { step, .. }) if !matches!(step, Step::Settling | Step::Holding(_) | Step::Told(_)))
    }

    /// The other side was met. Whether that was all there is to it, because it was told to take over.
    pub(super) fn switch_met(&mut self, theirs: &Standing) -> bool {
        if !matches!(&self.switch, Some(Switch { step: Step::Told(_), .. })) {
            return false;
        }
        if let Relation::Outdated { .. } = compare(&self.standing(), theirs) {
            self.fencing.theirs = Some(Box::new(theirs.clone()));
            self.enter_switch(Step::Shutting);
            self.order(CutOrder::Shut);
        }
        true
    }

    /// The other side greets as a backup, over a connection that came after the word was sent: so it will never hear it.
    pub(super) fn switch_unheard(&mut self, now: Duration) -> bool {
        let is_told = matches!(&self.switch, Some(Switch { step: Step::Told(_), .. }));
        if is_told {
            self.undo(now, "the connection was lost, and the other side was not told");
        }
        is_told
    }

    /// Writes are let through, or are about to be: this side is the primary still.
    pub(super) fn released(&mut self, now: Duration, reason: &str) {
        let step = self.switch.as_ref().map(|switch| &switch.step);
        if let Some(Step::Settling | Step::Holding(_) | Step::Yielding) = step {
            self.end_switch(Err(DemoteRefused::Failed(reason.to_owned())));
            self.cuts.cut_at = now;
            if !self.is_connected() {
                self.degrade("the connection was lost");
            }
        }
    }

    /// The capture ended by itself.
    pub(super) fn switch_lost_capture(&mut self, now: Duration, reason: &str) {
        if let Some(Switch { step: Step::Yielding, .. }) = &self.switch {
            self.end_switch(Err(DemoteRefused::Failed(reason.to_owned())));
        }
        self.shut(now);
    }

    /// The volumes fail all I/O: as ordered, or because writes were held back for as long as may be, or the capture was
    /// lost.
    pub(super) fn shut(&mut self, now: Duration) {
        match self.switch.as_ref().map(|switch| &switch.step) {
            Some(Step::Shutting) => self.hand_over(now, Ok(())),
            Some(Step::Told(_)) => self.hand_over(now, Err(DemoteRefused::Unknown)),
            Some(Step::Yielding | Step::Writing(_)) => self.undo(now, "it took too long"),
            _ => {}
        }
    }

    /// The state cannot be written: which role it has on the disk is not known, so nothing may be written here.
    pub(super) fn switch_failed(&mut self, reason: &str) {
        if let Some(Switch { step: Step::Writing(_) | Step::Told(_) | Step::Undoing(_), .. }) = &self.switch {
            self.order(CutOrder::Shut);
        }
        if self.switch.is_some() {
            self.end_switch(Err(DemoteRefused::Failed(reason.to_owned())));
        }
    }

    fn enter_switch(&mut self, next: Step) {
        if let Some(switch) = &mut self.switch {
            switch.step = next;
        }
    }

    fn end_switch(&mut self, result: Result<(), DemoteRefused>) {
        if let Some(Switch { id, .. }) = self.switch.take() {
            self.act(PrimaryAction::DemoteDone { id, result });
        }
    }

    /// This side becomes the primary again, durably, and only then lets writes through.
    fn undo(&mut self, now: Duration, reason: &str) {
        let Some(switch) = &mut self.switch else { return };
        match std::mem::replace(&mut switch.step, Step::Undoing(reason.to_owned())) {
            // A token that was seen meanwhile stays seen.
            Step::Writing(before) | Step::Told(before) => {
                self.durable.state = DurableState { token: self.durable.state.token, ..*before };
            }
            _ => {}
        }
        // It goes on without the other side, and has to say so before anything is written.
        self.durable.state.alone = Some(self.last_cut());
        self.write_state();
        self.lose_link(now, reason);
    }

    fn hand_over(&mut self, now: Duration, result: Result<(), DemoteRefused>) {
        self.fencing.stepping_down = SteppingDown::Done;
        self.end_switch(result);
        self.lose_link(now, "this side has handed over");
        self.act(PrimaryAction::RoleEnded);
    }
}
