//! Being promoted over: what a primary learns of the other side's history, and how it steps down.
//!
//! ```text
//!                  another side's newer generation            nobody has the volume open,
//!                  of this history, never went on alone       or an operator's demote
//!   primary ───────────────────────────► outdated ─────────────────────────► backup, Outdated
//!      │                                    │ the volume is written to           ▲
//!      │ both went on                       ▼                                    │ resolve --discard-mine
//!      └─────────────────────────────► split brain ──────────────────────────────┘
//! ```
//!
//! What is written meanwhile is `hold.rs`'s.
//!
//! Always holds: a fenced primary replicates to nobody, and stays fenced over restarts; it gives its history up by
//! itself only if it durably has none of its own behind the fork, and by nothing but an operator's word otherwise; it
//! steps down only while nobody has its volumes open, and ceases to be a primary only once that is durable.

use std::time::Duration;

use super::hold::Hold;
use super::{Capture, Primary, PrimaryAction};
use crate::frame::Frame;
use crate::generations::LineageEntry;
use crate::ids::{Epoch, Generation};
use crate::lineage::{Relation, Standing, compare};
use crate::message::{Message, RefuseCode};
use crate::mutant::{self, Mutant};
use crate::state::{Content, Fence, Role, StaleToken, WriteMark};

/// Why a primary does not step down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DemoteRefused {
    /// Nobody was promoted over it.
    #[error(
        "no other side was promoted over this primary, as far as it knows: `ftship switch` changes roles"
    )]
    NotFenced,
    /// It went on alone.
    #[error(
        "both sides went on: `ftship resolve --discard-mine` throws away what this side has behind epoch {0}"
    )]
    Split(Epoch),
    /// There is nothing to resolve.
    #[error("there is no split brain: `ftship demote` is enough")]
    NotSplit,
    /// The backup does not have everything.
    #[error("the pair is not in sync: roles are exchanged only while the backup has everything")]
    NotInSync,
    /// A coordinator decides.
    #[error(
        "this group's coordinator commits: stop the VM, let it commit the last epoch, then demote and promote by it"
    )]
    External,
    /// Nothing holds writes back behind a last cut.
    #[error(
        "with capture = \"era\" no log holds writes back behind a last epoch: stop the VM, `ftship checkpoint --wait`, stop \
         this daemon, and promote the other side"
    )]
    Uncaptured,
    /// Somebody uses the volume.
    #[error("the volume is in use: stop the VM first")]
    InUse,
    /// Somebody was promoted with a higher token.
    #[error(transparent)]
    Stale(#[from] StaleToken),
    /// Nothing could hold writes back behind a last epoch.
    #[error(
        "with capture = \"era\" nothing holds writes back: stop the VM, `ftship checkpoint --wait`, stop this daemon, \
         and `ftship promote` on the other side"
    )]
    NoCapture,
    /// The roles are being exchanged already.
    #[error("the roles are being exchanged already, or the volumes enlarged")]
    UnderWay,
    /// This side has stepped down, and the other was told, but does not answer.
    #[error(
        "this side has stepped down and its volumes fail all I/O; whether the other side took over is not known: if \
         `ftship status` there says that it is a backup, `ftship promote` makes it the primary"
    )]
    Unknown,
    /// The state cannot be written.
    #[error("{0}")]
    Failed(String),
}

/// How the protected volumes are used, as the driver sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Somebody has one of them open.
    pub open: bool,
    /// One of them was written to since its stack was made.
    pub written: bool,
    /// Where that can be told: how often they were.
    pub mark: Option<WriteMark>,
}

/// How far a primary has come with stepping down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SteppingDown {
    /// It is a primary.
    #[default]
    No,
    /// The new role is being made durable.
    Writing,
    /// It is a backup.
    Done,
}

/// What is known of the other side and of the volumes' users, and how far this side has given way.
#[derive(Debug, Default)]
pub(super) struct Fencing {
    /// Where the other side stood when it said so last.
    pub(super) theirs: Option<Box<Standing>>,
    pub(super) usage: Option<Usage>,
    pub(super) stepping_down: SteppingDown,
    /// Who waits for it.
    demoting: Option<u64>,
    /// What becomes of writes while it is promoted over.
    pub(super) hold: Hold,
}

impl Primary {
    /// Where this side stands, for the other.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let fork = self.promoted_at();
        let known =
            self.durable.state.alone.unwrap_or(Epoch::NONE).max(self.durable.state.highest_epoch_seen);
        Standing {
            role: Role::Primary,
            content: Content::Consistent,
            numbered: self.numbered(),
            ..self.durable.state.standing(self.commits.committed.max(fork).max(known))
        }
    }

    /// The epoch that the volumes held when this side was promoted; none where it never was.
    #[must_use]
    pub fn promoted_at(&self) -> Epoch {
        let began = self.durable.state.lineage.last().map_or(Epoch::NONE, |entry| entry.first_epoch);
        Epoch(began.0.saturating_sub(1))
    }

    /// What this side has learnt of another that was promoted over it, or beside it.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.durable.state.fenced
    }

    /// What the other side said of itself when it was met last.
    #[must_use]
    pub fn peer_standing(&self) -> Option<&Standing> {
        self.fencing.theirs.as_deref()
    }

    /// Whether the driver is to tell how the volumes are used, every second or so.
    #[must_use]
    pub fn wants_usage(&self) -> bool {
        self.durable.state.fenced.is_some() || self.durable.state.alone.is_none() && !self.is_in_sync()
    }

    /// Goes on without a backup from here: durably so, because somebody may be promoted meanwhile.
    pub(super) fn went_alone(&mut self) {
        if self.durable.state.alone.is_none() && !self.is_stepping_down() && !mutant::is(Mutant::ForgetAlone)
        {
            self.durable.state.alone =
                Some(self.commits.committed.max(self.durable.state.highest_epoch_seen));
            self.write_state();
        }
    }

    /// Once every promote of the backup gives all that this side wrote without it, nothing of that is its own any more.
    pub(super) fn alone_no_more(&mut self) {
        let synced_by = self.commits.synced_by.map(|(_, epoch)| epoch);
        let is_committed = synced_by.is_some_and(|epoch| self.commits.committed >= epoch);
        let is_there = self.is_in_sync() && (is_committed || mutant::is(Mutant::AloneUncommitted));
        if is_there
            && (self.durable.state.alone.take().is_some() | self.durable.state.ended_at.take().is_some())
        {
            self.write_state();
        }
    }

    /// Somebody else knocked: it is told where this side stands, whatever it wants.
    pub(super) fn visited(&mut self, now: Duration, frame: &Frame) {
        // Until a new role is durable nobody may act on it.
        let is_told = self.fencing.stepping_down != SteppingDown::Writing;
        let (code, text) = match Message::decode(frame) {
            Ok(Message::Hello(_)) if !is_told => {
                (RefuseCode::Busy, "this side's role is about to change: ask again".to_owned())
            }
            Ok(Message::Hello(hello)) if hello.group.name() == self.config.group.name() => {
                self.see_token(hello.token);
                self.meet(now, &hello.standing());
                (RefuseCode::Promoted, format!("this side is the {}", self.standing()))
            }
            Ok(Message::Hello(hello)) => {
                let (theirs, mine) = (hello.group.name(), self.config.group.name());
                (RefuseCode::Group, format!("the peer's group is {theirs}, this one is {mine}"))
            }
            _ => (RefuseCode::ProtocolError, "a greeting belongs here".to_owned()),
        };
        let standing = is_told.then(|| Box::new(self.standing()));
        self.act(PrimaryAction::Answer(Message::Refuse { code, text, standing }));
    }

    /// No promote of this side takes a token as low as this any more.
    fn see_token(&mut self, token: u64) {
        if token > self.durable.state.token {
            self.durable.state.token = token;
            self.write_state();
        }
    }

    /// Learns where the other side stands. Whether this side may be its primary.
    pub(super) fn meet(&mut self, now: Duration, theirs: &Standing) -> bool {
        if self.switch_met(theirs) {
            return false;
        }
        self.fencing.theirs = Some(Box::new(theirs.clone()));
        let relation = compare(&self.standing(), theirs);
        match relation {
            Relation::Outdated { fork } => self.fence_in(now, theirs, fork, false),
            Relation::SplitBrain { fork } => self.fence_in(now, theirs, fork, true),
            // The other side has given up what it had.
            Relation::Overtakes { .. } | Relation::Same if theirs.role == Role::Backup => self.unfence(),
            // What it had is gone, and this side has what it wrote itself.
            Relation::Fresh if self.durable.state.fenced.is_some_and(|fence| fence.split) => self.unfence(),
            Relation::Overtakes { .. } | Relation::Same | Relation::Fresh | Relation::Unrelated => {}
        }
        match relation {
            Relation::Overtakes { .. } | Relation::Same => true,
            Relation::Fresh => self.durable.state.fenced.is_none(),
            Relation::Outdated { .. } | Relation::SplitBrain { .. } | Relation::Unrelated => false,
        }
    }

    fn unfence(&mut self) {
        if self.durable.state.fenced.take().is_some() {
            self.let_go();
            self.write_state();
        }
    }

    fn fence_in(&mut self, now: Duration, theirs: &Standing, fork: Epoch, split: bool) {
        let Some(generation) = theirs.generation() else { return };
        // A split is healed by people alone.
        let split = split || self.durable.state.fenced.is_some_and(|fence| fence.split);
        let is_known = self.durable.state.fenced.is_some_and(|fence| fence.generation == generation);
        let fence = Fence { generation, fork, split };
        if self.durable.state.fenced != Some(fence) {
            self.durable.state.fenced = Some(fence);
            self.write_state();
            let text = self.fence_text();
            self.degrade(&text);
            if !is_known {
                self.hold_writes(generation);
            }
        }
        self.step_down(now);
    }

    /// What a fenced primary says of itself.
    #[must_use]
    pub fn fence_text(&self) -> String {
        let Some(Fence { generation, fork, split }) = self.durable.state.fenced else { return String::new() };
        let theirs = match &self.fencing.theirs {
            Some(theirs) => format!("{theirs}"),
            None => format!("generation {}", generation.number),
        };
        let (mine, hold) = (self.standing(), self.hold_text());
        let is_put_back =
            self.fencing.theirs.as_deref().is_some_and(|theirs| self.standing().was_put_back(theirs));
        if is_put_back {
            return format!(
                "the other side, the {}, holds epochs that this side never made, whose last number was {}: the disks of this \
                 host were put back to an earlier time. Nothing is overwritten. `ftship promote` there goes on with what it \
                 holds; `ftship resolve --discard-mine` there gives that up for what is here",
                self.fencing.theirs.as_deref().map_or_else(String::new, Standing::to_string),
                self.last_cut()
            );
        }
        if split {
            format!(
                "both sides went on behind epoch {fork}: the other is the {theirs}; this one the {mine}. Nothing is \
                 overwritten. `ftship resolve --discard-mine` on the side whose writes are to be thrown away{hold}"
            )
        } else {
            format!(
                "the other side was promoted at epoch {fork} and is the {theirs}: this side becomes its backup once \
                 nobody has the volume open, by itself or by `ftship demote`. If the other side is lost for good, \
                 `ftship promote --force` goes on with what is here{hold}"
            )
        }
    }

    /// The driver looked who uses the volumes.
    pub(super) fn used(&mut self, now: Duration, mut usage: Usage) {
        usage.written &= !self.is_as_it_ended(usage);
        self.fencing.usage = Some(usage);
        if usage.written && !self.is_in_sync() {
            self.went_alone();
            if let Some(fence) = &mut self.durable.state.fenced
                && !fence.split
            {
                fence.split = true;
                self.write_state();
                let text = self.fence_text();
                self.degrade(&text);
            }
        }
        self.step_down(now);
    }

    /// Whether nothing was written since the daemon ended the last time, with everything committed.
    fn is_as_it_ended(&self, usage: Usage) -> bool {
        usage.mark.is_some() && usage.mark == self.durable.state.ended_at && !mutant::is(Mutant::EndForgotten)
    }

    /// The daemon is about to end; whoever has a volume open goes on without it.
    pub(super) fn stopping(&mut self, usage: Usage) {
        if self.is_stepping_down() || self.switch_bars_link() || self.has_failed() {
            return;
        }
        if usage.open {
            self.went_alone();
        }
        let is_all_there = !usage.open && self.is_in_sync() && self.commits.holds_all(usage.mark);
        if is_all_there || mutant::is(Mutant::EndAssumed) {
            self.durable.state.ended_at = usage.mark;
        }
        // Nothing is cut any more.
        let last = self.last_cut();
        self.durable.state.numbered = Some(last);
        self.durable.state.highest_epoch_seen = self.durable.state.highest_epoch_seen.max(last);
        self.write_state();
    }

    /// Steps down by itself, where that loses nothing.
    pub(super) fn step_down(&mut self, now: Duration) {
        let Some(fence) = self.durable.state.fenced else { return };
        let went_on =
            (fence.split || self.durable.state.alone.is_some()) && !mutant::is(Mutant::DemoteAnyway);
        let is_unused = self.fencing.usage.is_some_and(|usage| !usage.open && !usage.written);
        let is_settled = self.is_state_durable() && !self.is_resizing();
        if !went_on && is_unused && self.capture == Capture::Off && is_settled {
            self.become_backup(now, fence.fork);
        }
    }

    /// An operator wants it to step down; with `discard` also where that throws away what it has.
    pub(super) fn demote(&mut self, now: Duration, id: u64, discard: bool) {
        let split = self.durable.state.fenced.map(|fence| (fence.fork, fence.split));
        let is_open = self.fencing.usage.is_none_or(|usage| usage.open);
        let result = match split {
            _ if self.has_failed() => Err(DemoteRefused::Failed("the state cannot be written".into())),
            None => Err(DemoteRefused::NotFenced),
            _ if self.is_resizing() => Err(DemoteRefused::UnderWay),
            Some((fork, true)) if !discard => Err(DemoteRefused::Split(fork)),
            Some((_, false)) if discard => Err(DemoteRefused::NotSplit),
            Some(_) if is_open && !self.is_frozen() || self.capture != Capture::Off => {
                Err(DemoteRefused::InUse)
            }
            Some((fork, _)) => {
                self.become_backup(now, fork);
                Ok(())
            }
        };
        match result {
            Ok(()) => self.fencing.demoting = Some(id),
            Err(refused) => self.act(PrimaryAction::DemoteDone { id, result: Err(refused) }),
        }
    }

    /// An operator wants to go on with what this side holds, though another was promoted over it: as the primary of a
    /// generation of its own, whose random id is `generation`. What the other side made is then a split brain.
    pub(super) fn take_up(&mut self, now: Duration, id: u64, generation: [u8; 16], token: Option<u64>) {
        if let Some(stale) = self.stale(token) {
            return self.act(PrimaryAction::DemoteDone { id, result: Err(stale) });
        }
        let is_free = !self.has_failed() && !self.is_stepping_down() && !self.is_resizing();
        let Some(fence) = self.durable.state.fenced.filter(|_| is_free) else {
            return self.act(PrimaryAction::DemoteDone { id, result: Err(DemoteRefused::NotFenced) });
        };
        let at = self.last_cut().max(self.durable.state.highest_epoch_seen).max(fence.fork);
        let at = at.max(self.disown(fence));
        let number = self.durable.state.lineage.last().map_or(0, |entry| entry.generation.number) + 1;
        self.durable.state.lineage.push(LineageEntry {
            generation: Generation { number, id: generation },
            first_epoch: at.next(),
            digest: self.commits.committed_digest,
        });
        (self.durable.state.highest_epoch_seen, self.durable.state.numbered) = (at, Some(at));
        self.durable.state.with_loss = false;
        self.durable.state.token = token.unwrap_or(self.durable.state.token);
        (self.durable.state.alone, self.durable.state.fenced) = (Some(at), None);
        self.let_go();
        self.end_role(now, "this side begins a generation of its own");
        self.fencing.demoting = Some(id);
    }

    /// A person goes on with disks that were put back: what the other side holds of the same generation, up to the epoch that
    /// this returns, is given up, and nothing here tells where it differs.
    fn disown(&mut self, fence: Fence) -> Epoch {
        if Some(fence.generation) != self.durable.state.generation() {
            return Epoch::NONE;
        }
        self.durable.state.rolls.clear();
        self.fencing.theirs.as_ref().map_or(Epoch::NONE, |theirs| theirs.last_epoch)
    }

    /// Why a promote of this side is refused that comes with this token, if it is.
    fn stale(&self, token: Option<u64>) -> Option<DemoteRefused> {
        let seen = self.durable.state.token;
        token.filter(|token| *token <= seen).map(|token| DemoteRefused::Stale(StaleToken { token, seen }))
    }

    /// Makes the new role durable.
    pub(super) fn become_backup(&mut self, now: Duration, fork: Epoch) {
        if self.fencing.stepping_down != SteppingDown::No {
            return;
        }
        self.put_away(fork);
        self.give_up_held();
        self.end_role(now, "this side steps down");
    }

    /// The state of a backup that holds the volumes of epoch `fork`, but for what this side wrote behind it.
    pub(super) fn put_away(&mut self, fork: Epoch) {
        // What it never made it never held.
        let is_own = self.numbered().is_none_or(|numbered| fork <= numbered);
        let is_known = is_own && self.durable.state.rolls.start(fork).is_some();
        self.durable.state.role = Role::Backup;
        self.durable.state.content = Content::Outdated { fork: is_known.then_some(fork) };
        self.durable.state.group.get_or_insert_with(|| self.config.group.clone());
        self.durable.state.highest_epoch_seen = self.durable.state.highest_epoch_seen.max(self.last_cut());
        (self.durable.state.alone, self.durable.state.fenced) = (None, None);
    }

    fn end_role(&mut self, now: Duration, reason: &str) {
        self.fencing.stepping_down = SteppingDown::Writing;
        self.write_state();
        self.lose_link(now, reason);
    }

    /// A version of the state is durable: perhaps the one that says that this side is a backup.
    pub(super) fn stepped_down(&mut self, now: Duration) {
        if self.fencing.stepping_down == SteppingDown::Writing && self.is_state_durable() && !self.shut_held()
        {
            self.fencing.stepping_down = SteppingDown::Done;
            if let Some(id) = self.fencing.demoting.take() {
                self.act(PrimaryAction::DemoteDone { id, result: Ok(()) });
            }
            self.act(PrimaryAction::RoleEnded);
        }
        if self.is_state_durable() {
            self.switch_state_durable(now);
        }
        self.step_down(now);
    }

    /// Whether it is no primary any more, or about to be none.
    pub(super) fn is_stepping_down(&self) -> bool {
        self.fencing.stepping_down != SteppingDown::No
    }
}
