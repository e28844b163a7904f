//! The world: one clock, one queue of events, two hosts, the network between them.
//!
//! Always holds: events happen one at a time, in the order of their times; what is due at the same time
//! happens in the order in which it was scheduled. A violation of an invariant is a panic.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::Write;
use std::time::Duration;

use ftship_proto::backup::BackupEvent;

use crate::backup_host::BackupHost;
use crate::checker::Checker;
use crate::coordinator::Coordinator;
use crate::cut_reports::PrimaryReport;
use crate::ending::Planned;
use crate::net::{ConnId, Net};
use crate::operator::Operator;
use crate::primary_host::PrimaryHost;
use crate::put_back::PutBack;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::verify::Verifier;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Primary = 0,
    Backup = 1,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Primary => Self::Backup,
            Self::Backup => Self::Primary,
        }
    }
}

/// Threads that do one job after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneId {
    Cut = 0,
    Read = 1,
    Encode = 2,
    Journal = 3,
    Volume = 4,
    /// The primary's durable state.
    State = 5,
}

#[derive(Debug)]
pub(crate) enum Event {
    Timer(Side),
    Arrives {
        conn: ConnId,
    },
    Established {
        conn: ConnId,
    },
    Refused {
        conn: ConnId,
    },
    Deliver {
        conn: ConnId,
        to: Side,
    },
    /// The first job of a lane is done. Of a daemon's run: another one knows nothing of it.
    Lane(LaneId, u32),
    PrimaryReport(u32, PrimaryReport),
    BackupReport(u32, BackupEvent),
    Guest,
    /// The primary's verifying thread has read what it was asked for.
    VerifyRead(u32),
    Fault,
    /// Connections end, and both ends notice.
    Break,
    Failover,
    Promote,
    /// The primary's daemon looks who uses its volumes.
    Look,
    GuestLeaves,
    /// Somebody wants the roles to be exchanged.
    Switch,
    /// Writes have been held back for as long as may be.
    HoldEnds,
    Request,
    Coordinator,
    Restart(Side, u32),
    /// The primary's disks are put back.
    PutBack,
    /// A person decides whose history counts.
    Decide,
    /// The primary's daemon, of this run, ends as it was asked to.
    EndPrimary(u32),
    Calm,
}

/// Jobs that wait for their thread; the first one is being done.
#[derive(Debug)]
pub(crate) struct Lane<J> {
    pub(crate) jobs: VecDeque<J>,
    pub(crate) failed: bool,
}

impl<J> Default for Lane<J> {
    fn default() -> Self {
        Self { jobs: VecDeque::new(), failed: false }
    }
}

struct Scheduled {
    key: Reverse<(u64, u64)>,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

/// See the head of this module.
pub(crate) struct World {
    /// In microseconds.
    pub(crate) now: u64,
    queue: BinaryHeap<Scheduled>,
    scheduled: u64,
    pub(crate) random: Random,
    pub(crate) scenario: Scenario,
    /// As it was at the beginning.
    pub(crate) drawn: Scenario,
    pub(crate) net: Net,
    pub(crate) primary: PrimaryHost,
    pub(crate) backup: BackupHost,
    pub(crate) checker: Checker,
    pub(crate) operator: Operator,
    pub(crate) coordinator: Coordinator,
    pub(crate) verifier: Verifier,
    pub(crate) put_back: PutBack,
    pub(crate) planned: Planned,
    pub(crate) stalled_until: [u64; 6],
    /// A write to the journal's ring goes astray, behind so many others.
    pub(crate) misdirects: Option<u64>,
    pub(crate) trace: Option<Box<dyn Write>>,
}

impl World {
    /// A history whose scenario is drawn so.
    pub(crate) fn new(
        seed: u64,
        draw: impl FnOnce(&mut Random) -> Scenario,
        trace: Option<Box<dyn Write>>,
    ) -> Self {
        let mut random = Random::new(seed);
        let scenario = draw(&mut random);
        let primary = PrimaryHost::new(&scenario, &mut random);
        let backup = BackupHost::new(&scenario, &mut random);
        Self { verifier: Verifier::new(seed), ..Self::with(scenario, primary, backup, random, trace) }
    }

    /// The world at the beginning of a life of these hosts.
    pub(crate) fn with(
        scenario: Scenario,
        primary: PrimaryHost,
        backup: BackupHost,
        random: Random,
        trace: Option<Box<dyn Write>>,
    ) -> Self {
        let mut checker = Checker::new(&scenario);
        checker.wrote(&primary.volume);
        Self {
            now: 0,
            queue: BinaryHeap::new(),
            scheduled: 0,
            verifier: Verifier::new(random.clone().next()),
            drawn: scenario.clone(),
            random,
            scenario,
            net: Net::default(),
            primary,
            backup,
            checker,
            operator: Operator::default(),
            coordinator: Coordinator::default(),
            put_back: PutBack::default(),
            planned: Planned::default(),
            stalled_until: [0; 6],
            misdirects: None,
            trace,
        }
    }

    /// Runs the history to its end. Returns the number of events.
    pub(crate) fn run(&mut self) -> u64 {
        self.note(|world| format!("{:?}", world.scenario));
        self.begin();
        let mut events = 0;
        while !self.operator.is_done {
            let Some(Scheduled { key: Reverse((at, _)), event }) = self.queue.pop() else { break };
            self.now = at;
            events += 1;
            self.happen(event);
            self.primary_pump();
            self.watch();
        }
        events
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Timer(Side::Primary) => self.primary_timer(),
            Event::Timer(Side::Backup) => self.backup_timer(),
            Event::Arrives { conn } => self.net_arrives(conn),
            Event::Established { conn } => self.primary_established(conn),
            Event::Refused { conn } => self.primary_refused(conn),
            Event::Deliver { conn, to } => self.net_deliver(conn, to),
            Event::Lane(lane @ (LaneId::Journal | LaneId::Volume), run) => self.backup_lane(lane, run),
            Event::Lane(lane, run) => self.primary_lane(lane, run),
            Event::PrimaryReport(run, report) => self.primary_report(run, report),
            Event::BackupReport(run, report) => self.backup_report(run, report),
            Event::Guest => self.guest_writes(),
            Event::VerifyRead(run) => self.verify_read_done(run),
            Event::Fault => self.fault(),
            Event::Failover => self.failover(),
            Event::Promote => self.ask_to_promote(),
            Event::Look => self.look(),
            Event::GuestLeaves => self.guest_leaves(),
            Event::Switch => self.ask_for_switch(),
            Event::HoldEnds => self.hold_ends(),
            Event::Break => self.net_break_all(true),
            Event::Request => self.request(),
            Event::Coordinator => self.coordinate(),
            Event::Restart(side, run) => self.restart(side, run),
            Event::PutBack => self.put_back(),
            Event::Decide => self.decide(),
            Event::EndPrimary(run) => self.end_primary(run),
            Event::Calm => self.calm(),
        }
    }

    pub(crate) fn schedule(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.queue.push(Scheduled { key: Reverse((at, self.scheduled)), event });
    }

    /// When a job that begins now is done.
    pub(crate) fn job_end(&mut self, lane: LaneId) -> u64 {
        let typical = self.scenario.lane_delay[lane as usize];
        let stalled = self.stalled_until[lane as usize];
        self.now.max(stalled) + self.random.around(typical)
    }

    pub(crate) fn time(&self) -> Duration {
        Duration::from_micros(self.now)
    }

    pub(crate) fn is_powered(&self, side: Side) -> bool {
        match side {
            Side::Primary => self.primary.powered,
            Side::Backup => self.backup.powered,
        }
    }

    /// One line of the trace.
    pub(crate) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = line(self);
            let time = self.time();
            if let Some(trace) = &mut self.trace {
                // A trace that cannot be written ends with its reader.
                let _ = writeln!(trace, "{:>12.6} {line}", time.as_secs_f64());
            }
        }
    }
}
