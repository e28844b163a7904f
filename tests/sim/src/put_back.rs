//! The disks of the primary's host are those of an earlier time again: a snapshot was put back, or the host restored.
//!
//! Always holds: nothing that such a primary ships reaches the backup before a person has decided whose history counts; each
//! of the documented ways on leads to a pair in sync, or to a promote of exactly what the backup held.

use ftship_proto::backup::{BackupEvent, GiveUpRefused};
use ftship_proto::ids::{Epoch, Incarnation};
use ftship_proto::primary::PrimaryEvent;
use ftship_proto::protocol::CommitPolicy;
use ftship_proto::state::{Content as Held, DurableState, Role};

use crate::content::Content;
use crate::disk::Disk;
use crate::eras::Eras;
use crate::operator::Fault;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::world::{Event, Side, World};

const SECOND: u64 = 1_000_000;

/// What a copy of the host's disks holds.
pub(crate) struct Copy {
    volume: Content,
    eras: Eras,
    state: Disk,
}

/// How the person decides.
#[derive(Clone, Copy, Debug)]
enum Decision {
    /// The backup is promoted.
    Promote,
    /// What it holds is given up.
    GiveUp,
    /// The primary goes on in a generation of its own.
    TakeUp,
}

/// See the head of this module.
#[derive(Default)]
pub(crate) struct PutBack {
    copy: Option<Copy>,
    /// Its disks were put back, and nobody has decided yet.
    is_open: bool,
    /// They were.
    pub(crate) is_done: bool,
    decision: Option<Decision>,
}

impl Scenario {
    /// A history of one kind: the primary's disks are copied and put back.
    pub(crate) fn of_put_back(self, random: &mut Random) -> Self {
        let others =
            [Fault::Break, Fault::KillPrimary, Fault::CutPrimary, Fault::CutBackup, Fault::KillBackup];
        let faults = others.into_iter().filter(|_| random.once_in(3)).chain([Fault::PutBack; 2]).collect();
        Self {
            faults,
            fault_interval: 2 * SECOND,
            chaos_until: 30 * SECOND,
            guest_interval: self.guest_interval.max(5_000),
            switches: false,
            settles_first: None,
            refuses_from: None,
            is_cramped: false,
            ring_blocks: self.ring_blocks + 64,
            ..self
        }
    }
}

fn state_of(disk: &Disk) -> DurableState {
    let [a, b] = disk.durable.slots();
    DurableState::load(a, b).expect("a sound state").expect("formatted").0
}

impl World {
    /// The disks of the primary's host are copied as they are; some time later the copy is put back.
    pub(crate) fn copy_disks(&mut self) {
        if self.put_back.is_open || self.put_back.copy.is_some() || !self.primary.powered {
            return;
        }
        let host = &self.primary;
        let mut state = host.state.clone();
        state.sync();
        self.put_back.copy = Some(Copy { volume: host.volume.clone(), eras: host.eras.clone(), state });
        let wait = self.random.range(6, 12) * SECOND;
        self.schedule(self.now + wait, Event::PutBack);
    }

    /// The copy is put back, if the backup has come further than what a crash at that time could have left.
    pub(crate) fn put_back(&mut self) {
        let Some(copy) = self.put_back.copy.take() else { return };
        if self.operator.is_calm() || self.in_aftermath() || !self.primary.powered {
            return;
        }
        let found = self.checker.examine(&self.backup.disks.durable());
        let held = match self.scenario.commit {
            CommitPolicy::Auto => found.choices.last().map_or(Epoch::NONE, |last| last.0),
            CommitPolicy::External => found.committed.unwrap_or(Epoch::NONE),
        };
        let then = state_of(&copy.state);
        let is_ahead = then.numbered.is_some_and(|numbered| held > numbered) && then.role == Role::Primary;
        if !is_ahead || found.state.content != Held::Consistent || found.state.role != Role::Backup {
            return;
        }
        self.note(|_| format!("FAULT the primary's disks are put back; the backup holds {held}"));
        self.stop(Side::Primary, true);
        let Copy { volume, eras, state } = copy;
        let host = &mut self.primary;
        (host.volume, host.eras, host.state) = (volume, eras, state);
        host.unflushed.clear();
        (host.alone_since, host.written) = (None, false);
        self.checker.wrote(&self.primary.volume);
        // What it sent before may be on its way still.
        self.checker.present(Incarnation::default());
        (self.put_back.is_open, self.put_back.is_done) = (true, true);
        let decisions = [Decision::Promote, Decision::GiveUp, Decision::TakeUp];
        self.put_back.decision = Some(decisions[self.random.index(3)]);
        let wait = self.random.range(1, 8 * SECOND);
        self.schedule(self.now + wait, Event::Decide);
    }

    /// A person decides, or sees whether that was done.
    pub(crate) fn decide(&mut self) {
        if self.operator.promoting.is_some() || self.in_aftermath() {
            return;
        }
        self.schedule(self.now + SECOND, Event::Decide);
        let fence = self.primary.daemon.as_ref().and_then(|daemon| daemon.core.fence());
        if fence.is_none() {
            // It has not met the other side yet, or all is decided.
            return;
        }
        match self.put_back.decision {
            Some(Decision::Promote) if !self.operator.is_calm() => {
                self.put_back.is_open = false;
                self.failover();
            }
            Some(Decision::TakeUp) => {
                self.put_back.decision = Some(Decision::GiveUp);
                let (id, generation) = (self.operator.id(), self.random.id());
                self.note(|_| "operator: promote --force on the primary".into());
                self.disown();
                self.primary_handle(PrimaryEvent::TakeUp { id, token: None, generation });
            }
            _ => {
                self.note(|_| "operator: discard mine on the backup".into());
                self.disown();
                self.backup_handle(BackupEvent::GiveUp);
            }
        }
    }

    /// What the backup holds does not count any more.
    fn disown(&mut self) {
        self.put_back.is_open = false;
        self.checker.disowned();
    }

    pub(crate) fn given_up(&mut self, result: &Result<(), GiveUpRefused>) {
        // It is tried again.
        self.note(|_| format!("backup answers {result:?}"));
    }

    /// The primary is one of another generation: its daemon goes on with what its state says.
    pub(crate) fn taken_up(&mut self) -> bool {
        let goes_on = state_of(&self.primary.state).role == Role::Primary;
        if goes_on {
            self.primary_stop(true);
            self.primary_start();
        }
        goes_on
    }

    /// Nothing of such a primary goes to the backup while nobody has decided.
    pub(crate) fn expect_decided(&mut self, incarnation: Incarnation) {
        if !self.put_back.is_open || self.checker.present != incarnation {
            return;
        }
        // A sync in place that was on its way still may have left nothing that could be promoted.
        let [a, b] = self.backup.disks.state.durable.slots();
        let held = DurableState::load(a, b).expect("a sound state").expect("formatted").0.content;
        assert!(
            held != Held::Consistent,
            "a primary whose disks were put back overwrites what the backup holds"
        );
        self.put_back.is_open = false;
    }
}
