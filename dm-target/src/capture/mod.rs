//! Capturing every write of a stack: putting log-writes between the visible device and dm-era,
//! following its log, and taking it out again.
//!
//! Always holds: the layers below are set up (stable pages; discards off, or taken in by the log) before the visible device
//! is pointed at them; what was read of the log belongs to the epoch that is being captured, until a
//! cut hands it over; a capture that was lost says so at every later call. Cuts are in [`crate::cut`].

mod attach;
mod errors;
mod hand_over;
mod idle;
pub mod memory;
mod probe;
pub mod ram_disks;
mod throttle;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::block_io::{Access, BlockDevice};
use crate::capture::idle::Idle;
use crate::capture::memory::CaptureMemory;
use crate::capture::ram_disks::LogPair;
use crate::discard::{DiscardFigures, Discards, Ledger, Outlet};
use crate::fold::truth::Plan;
use crate::ioctl::{DeviceState, DmControl};
use crate::log_writes::epoch_log::EpochLog;
use crate::log_writes::format::LogSector;
use crate::log_writes::mark::Mark;
use crate::log_writes::reader::{LogReader, Unfetched};
use crate::log_writes::status::LogStatus;
use crate::pause::helper::Helper;
use crate::pause::pool::PausePool;
use crate::pause::pulse::{Phase, Pulse};
use crate::pause::stillness::Stillness;
use crate::pause::{Layers, Pausable};
use crate::stack::devices::{Devices, NewDevice, TargetLine};
use crate::stack::era_device::{EraControl, EraReader};
use crate::stack::{Mode, Stack, StackError, io_step, remove_log};
use crate::units::{DevNum, SECTOR_SIZE, Sector, Sectors};

pub(crate) use errors::step;
pub use errors::{CaptureError, LostReason};

/// How long a mark outside a pause may take to become readable.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two looks for a mark: enough for the log's thread to get a processor to itself. While the volume runs
/// it doubles with each look, for the thread may have an epoch's writes to log before.
const BETWEEN_LOOKS: Duration = Duration::from_micros(20);
const LONGEST_BETWEEN_LOOKS: Duration = Duration::from_millis(1);
/// What may be left to read in a pause without a further round before.
const FEW_BYTES: u64 = 512 << 10;
/// How long suspects are read while the volume runs, how many runs at a time, and how much content is kept of them.
const LIVE_TIME: Duration = Duration::from_millis(10);
const LIVE_RUNS: usize = 32;
const LIVE_BYTES: usize = 4 << 20;
/// How often the log is followed at most before a pause.
const FOLLOW_ROUNDS: u32 = 3;
/// Entries between two looks at the clock.
const LOOK_EVERY: usize = 32;
/// Entries made room for before a pause, in which nothing is allocated.
const PAUSE_ENTRIES: usize = 1 << 15;

/// What following the log found.
#[derive(Debug)]
pub enum Followed {
    /// Everything that had completed before is read.
    Current {
        /// How long the mark took to become readable: the log's backlog.
        mark: Duration,
    },
    /// The log is behind by more than the patience of a second.
    Behind,
    /// The flush failed: the volume has a problem of its own.
    FlushFailed(io::Error),
}

/// What [`Capture::start`] may be given to do while the volume stands still.
pub type AtSwitch<'a> = &'a mut dyn FnMut(&mut EraControl<'_>) -> io::Result<()>;

/// What a capture stands on.
struct Below {
    log_number: DevNum,
    era: Arc<BlockDevice>,
    ledger: Ledger,
    discards_to: Option<BlockDevice>,
}

/// A capture in progress. Dropping it changes nothing on the devices: [`stop`](Self::stop) ends it,
/// [`Stack::recover`] clears up after one that was dropped.
#[derive(Debug)]
pub struct Capture {
    pub(crate) stack: Stack,
    pub(crate) control: DmControl,
    pub(crate) log_number: DevNum,
    pub(crate) log_flush: Arc<BlockDevice>,
    /// Where the volume is one of a group.
    pub(crate) helper: Option<Helper>,
    pub(crate) rams: LogPair,
    pub(crate) active: usize,
    /// The other log is loaded and takes over at the next suspend and resume of the log device.
    pub(crate) spare_ready: bool,
    pub(crate) reader: LogReader,
    /// The log that was in use before, as long as data in it is still to be fetched.
    left: Option<(usize, Unfetched)>,
    pub(crate) epoch: EpochLog,
    memory: CaptureMemory,
    pub(crate) era: EraReader,
    pub(crate) pool: PausePool,
    pub(crate) plan: Plan,
    /// Where suspects are read next while the volume runs.
    live_from: Sector,
    pub(crate) status: LogStatus,
    nonce: u64,
    marks: u64,
    pub(crate) lost: bool,
    /// Writes are held back until the next cut.
    pub(crate) held: bool,
    /// They are never to reach the volume.
    pub(crate) yields: bool,
    pub(crate) hold_percent: Option<u8>,
    pub(crate) stillness: Stillness,
    pub(crate) idle: Idle,
    pub(crate) ledger: Ledger,
    pub(crate) pulse: Arc<dyn Pulse>,
}

impl Capture {
    /// Begins to capture a stack that tracks. `at_switch` runs while the visible device stands still,
    /// just before the first write is logged: there dm-era is flushed and rolled. `memory` is what an earlier capture left.
    /// `pulse` hears of every step from here on.
    ///
    /// # Errors
    /// See [`CaptureError`]; after one the stack tracks as before.
    pub fn start(
        stack: &Stack,
        rams: LogPair,
        memory: CaptureMemory,
        at_switch: Option<AtSwitch<'_>>,
        pulse: Arc<dyn Pulse>,
    ) -> Result<Self, CaptureError> {
        let status = stack.status()?;
        if status.mode != Mode::Tracking || status.suspended {
            let (mode, suspended) = (status.mode, status.suspended);
            return Err(CaptureError::NotTracking { name: stack.name.to_string(), mode, suspended });
        }
        let devices = Devices::open()?;
        devices.require(&[("log-writes", "dm-log-writes")])?;
        let era = Arc::new(stack.open_era().map_err(StackError::from)?);
        rams.0[0].wipe().map_err(step("wipe the old log"))?;
        let (outlet, discards_to) = Outlet::open(stack)?.unzip();
        let ledger = Ledger::new(outlet);
        let name = stack.name.log();
        let line = TargetLine {
            len: stack.size,
            target: "log-writes".to_owned(),
            parameters: format!("{} {}", stack.floor(), rams.0[0].number()),
        };
        let discards = if ledger.passes() { Discards::Pass } else { Discards::Off };
        let new = NewDevice { name: &name, uuid: &stack.id.log(), line, discards, minor: None };
        let made = devices.make(&new);
        if made.is_err() {
            ledger.shut();
        }
        let log_number = made?.number;
        let below = Below { log_number, era, ledger, discards_to };
        let begun = Self::begin(stack, rams, memory, below, at_switch, pulse);
        if begun.is_err() {
            // The log is removed also where discards cannot be shut off.
            let shut = stack.valve().and_then(|valve| valve.shut().map_err(io_step("shut off discards")));
            if let Err(e) = shut {
                log::error!("{}: {e}", stack.name);
            }
            if let Err(e) = remove_log(&devices, stack) {
                log::error!("{name} was left behind: {e}");
            }
        }
        begun
    }

    fn begin(
        stack: &Stack,
        rams: LogPair,
        memory: CaptureMemory,
        Below { log_number, era, ledger, discards_to }: Below,
        at_switch: Option<AtSwitch<'_>>,
        pulse: Arc<dyn Pulse>,
    ) -> Result<Self, CaptureError> {
        let unit =
            LogSector::new(era.logical_block()).ok_or(CaptureError::LogicalBlock(era.logical_block()))?;
        let open = |access| BlockDevice::open_dm(log_number, access).map_err(StackError::from);
        probe::require_alignment(&open(Access { direct: true, ..Access::default() })?)?;
        let nonce = getrandom::u64().map_err(|e| step("draw a random number")(io::Error::other(e)))?;
        let mut memory = memory.ready(PAUSE_ENTRIES);
        let reader = LogReader::new(unit, stack.size, rams.0[0].capacity());
        let mut capture = Self {
            control: DmControl::open().map_err(step("open device-mapper"))?,
            log_number,
            log_flush: Arc::new(open(Access::default())?),
            helper: None,
            rams,
            active: 0,
            spare_ready: false,
            reader,
            left: None,
            epoch: memory.next_epoch(),
            memory,
            pool: PausePool::start(Arc::clone(&era), discards_to).map_err(step("start reading threads"))?,
            plan: Plan::default(),
            live_from: Sector(0),
            status: LogStatus { entries: 0, used: Sectors(0), on: true },
            era: EraReader(era),
            nonce,
            marks: 0,
            lost: false,
            held: false,
            yields: false,
            hold_percent: None,
            stillness: Stillness::open(stack.top).map_err(step("open the counters of the visible device"))?,
            idle: Idle::default(),
            ledger,
            pulse,
            stack: stack.clone(),
        };
        capture.switch_on(at_switch)?;
        Ok(capture)
    }

    /// Ends the capture: the visible device goes back to dm-era within one suspend, and the log is
    /// removed. Returns how long the volume stood still, and the memory for the next capture. What was captured since the
    /// last cut is given up: dm-era has where it was.
    ///
    /// # Errors
    /// When a step fails; [`Stack::recover`] then does the rest.
    pub fn stop(mut self) -> Result<(Duration, CaptureMemory), CaptureError> {
        let paused = self.switch_off();
        self.ledger.shut();
        let paused = paused?;
        let Self { log_flush, helper, rams, stack, mut memory, epoch, .. } = self;
        memory.keep(epoch);
        drop((helper, log_flush, rams));
        remove_log(&Devices::open()?, &stack)?;
        Ok((paused, memory))
    }

    /// Reads what is in the log so far, so that little is left for the pause: flushes, marks, and
    /// reads up to the mark. Where nothing was written since the last time it only makes sure that the log is there.
    ///
    /// # Errors
    /// When the capture is lost.
    pub fn follow(&mut self) -> Result<Followed, LostReason> {
        self.look();
        if self.is_followed() {
            self.refuse_when_lost()?;
            let own = self.refuse_when_taken_over();
            self.note_lost(own)?;
            return Ok(Followed::Current { mark: Duration::ZERO });
        }
        self.follow_log()
    }

    /// The same, after a look at the counters, which decide nothing here.
    pub(crate) fn follow_log(&mut self) -> Result<Followed, LostReason> {
        self.refuse_when_lost()?;
        let own = self.refuse_when_taken_over();
        self.note_lost(own)?;
        let mut rounds = 0;
        loop {
            rounds += 1;
            self.pulse.beat(self.phase());
            self.hold_when_full()?;
            if let Err(e) = self.flush_log() {
                return Ok(Followed::FlushFailed(e));
            }
            let began = Instant::now();
            let mark = self.mark("tick", 0).map_err(LostReason::Status)?;
            let seen = self.read_to(&mark, began + PATIENCE, self.phase());
            let seen = self.note_lost(seen)?;
            let mark = began.elapsed();
            self.index();
            self.read_live();
            self.reserve();
            if seen != Seen::Mark {
                return Ok(Followed::Behind);
            }
            // Reading much takes long enough for much to come: then once more, so that the pause is short.
            if rounds == FOLLOW_ROUNDS || !self.is_behind()? {
                self.idle.followed();
                return Ok(Followed::Current { mark });
            }
        }
    }

    /// Log space that was given out and not read yet, in bytes.
    fn unread(&mut self) -> Result<u64, LostReason> {
        let status = self.ask();
        let used = self.note_lost(status)?.used.0;
        Ok(used.saturating_sub(self.reader.consumed().0).saturating_mul(SECTOR_SIZE as u64))
    }

    /// So much has come since the log was followed that a pause would have to read it.
    pub(crate) fn is_behind(&mut self) -> Result<bool, LostReason> {
        Ok(self.unread()? >= FEW_BYTES)
    }

    /// What this capture is doing between cuts.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.held {
            _ if self.yields => Phase::Yielding,
            true => Phase::Held,
            false => Phase::Capturing,
        }
    }

    /// Gives back the memory of an epoch that was folded.
    pub fn recycle(&mut self, log: EpochLog) {
        self.memory.keep(log);
    }

    /// Log space used and there, in bytes, when the log was looked at last. When the first nears the
    /// second, stop before the kernel does.
    #[must_use]
    pub fn log_usage(&self) -> (u64, u64) {
        let capacity = self.rams.0[self.active].bytes();
        (self.status.used.bytes().unwrap_or(capacity), capacity)
    }

    /// The same, asked of the kernel now.
    ///
    /// # Errors
    /// When the capture is lost.
    pub fn check(&mut self) -> Result<(u64, u64), LostReason> {
        self.refuse_when_lost()?;
        let status = self.ask();
        self.note_lost(status)?;
        Ok(self.log_usage())
    }

    /// Reads the volume below the log.
    #[must_use]
    pub fn reader(&self) -> &EraReader {
        &self.era
    }

    /// The stack that is captured.
    #[must_use]
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// How the guest's discards stand.
    #[must_use]
    pub fn discards(&self) -> DiscardFigures {
        self.ledger.figures()
    }

    /// Sends a message to dm-era or asks its status, outside a pause.
    pub fn era_control(&mut self) -> EraControl<'_> {
        EraControl { control: &mut self.control, era: self.stack.era, device: &self.era.0 }
    }

    pub(crate) fn refuse_when_lost(&self) -> Result<(), LostReason> {
        if self.lost { Err(LostReason::Earlier) } else { Ok(()) }
    }

    /// Whether the visible device still points at this capture's log. Nothing but a new capture ever
    /// points it there again, so that it does *after* something was done proves that nobody interfered
    /// before or meanwhile.
    pub(crate) fn refuse_when_taken_over(&mut self) -> Result<(), LostReason> {
        let log = self.log_number;
        let line = self.control.table_line(self.stack.top).map_err(LostReason::Status)?;
        let below = line.split_once(' ').and_then(|(device, _)| device.parse::<DevNum>().ok());
        if below == Some(log) { Ok(()) } else { Err(LostReason::TakenOver) }
    }

    pub(crate) fn note_lost<T>(&mut self, result: Result<T, LostReason>) -> Result<T, LostReason> {
        self.lost |= result.is_err();
        result
    }

    /// Makes sure of a thread that pauses this volume while others of the group are paused.
    pub(crate) fn ready_helper(&mut self) {
        if self.helper.is_none() {
            match Helper::start(Arc::clone(&self.log_flush)) {
                Ok(helper) => self.helper = Some(helper),
                Err(e) => log::warn!("{} is paused after the others: {e}", self.stack.name),
            }
        }
    }

    /// Moves what completed before into the log.
    pub(crate) fn flush_log(&self) -> io::Result<()> {
        self.log_flush.flush()
    }

    /// Sends a mark that no other capture, and no other cut of this one, can have sent.
    pub(crate) fn mark(&mut self, kind: &str, epoch: u64) -> io::Result<Mark> {
        self.marks += 1;
        let mark = Mark::new(format_args!("ftdm-{:016x}-{}-{kind}-{epoch}", self.nonce, self.marks))?;
        self.control.message(self.log_number, mark.message()?)?;
        Ok(mark)
    }

    /// Asks log-writes how far it is; an error when it is off.
    pub(crate) fn ask(&mut self) -> Result<LogStatus, LostReason> {
        let line = self.control.status_line(self.log_number).map_err(LostReason::Status)?;
        let malformed = || LostReason::Status(io::ErrorKind::InvalidData.into());
        self.status = LogStatus::parse(line).ok_or_else(malformed)?;
        if self.status.on { Ok(self.status) } else { Err(LostReason::LogOff) }
    }

    /// Reads the log until `mark` was read, or until `deadline`: all of it, and in a pause the headers alone.
    pub(crate) fn read_to(
        &mut self,
        mark: &Mark,
        deadline: Instant,
        phase: Phase,
    ) -> Result<Seen, LostReason> {
        let is_paused = phase == Phase::Paused;
        let (mut count, mut between) = (0, BETWEEN_LOOKS);
        loop {
            self.pulse.beat(phase);
            if phase == Phase::Capturing {
                self.hold_when_full()?;
            }
            let Self { rams, active, reader, epoch, .. } = &mut *self;
            let ram = rams.0[*active].device();
            let mut seen = false;
            let on_mark = |text: &[u8]| seen |= text == mark.payload();
            let all = if is_paused {
                let goes_on = |epoch: &EpochLog| {
                    count += 1;
                    epoch.has_room() && (count % LOOK_EVERY != 0 || Instant::now() < deadline)
                };
                reader.scan(ram, epoch, on_mark, goes_on)?
            } else {
                reader.follow(ram, epoch, on_mark)?;
                true
            };
            if seen {
                return Ok(Seen::Mark);
            }
            if !all && !epoch.has_room() {
                return Ok(Seen::TooMuch);
            }
            if Instant::now() >= deadline {
                self.ask()?;
                return Ok(Seen::Late);
            }
            std::thread::sleep(between);
            if !is_paused {
                between = (between * 2).min(LONGEST_BETWEEN_LOOKS);
            }
        }
    }

    /// The log in use is the other one from here on; what was read of it before is fetched later.
    pub(crate) fn change_log(&mut self) {
        let before = self.active;
        self.active = 1 - before;
        let capacity = self.rams.0[self.active].capacity();
        self.left = Some((before, self.reader.restart(capacity)));
    }

    /// Reads the data of what was read in a pause. To be called behind it, before the log that it is in is wiped.
    pub(crate) fn fetch(&mut self) -> Result<(), LostReason> {
        if let Some((before, unfetched)) = self.left.take() {
            unfetched.fetch(self.rams.0[before].device(), &mut self.epoch)?;
        }
        self.reader.fetch(self.rams.0[self.active].device(), &mut self.epoch)?;
        Ok(())
    }

    /// Sorts what was read, so that a cut has only its last part left to sort.
    pub(crate) fn index(&mut self) {
        self.epoch.index();
        self.ledger.note(&self.epoch.entries);
    }

    /// Reads some of the suspects while the volume runs, so that the pause has only those to read that are touched from here
    /// on. Whatever fails is read there.
    fn read_live(&mut self) {
        let until = Instant::now() + LIVE_TIME;
        loop {
            let Self { epoch, plan, pool, live_from, .. } = &mut *self;
            let before = epoch.truth.len();
            if before > LIVE_BYTES {
                return;
            }
            let sorted = epoch.order.len();
            plan.make(epoch, sorted);
            if plan.size() == 0 {
                return;
            }
            let next = plan.keep(*live_from, LIVE_RUNS, before);
            *live_from = next.unwrap_or(Sector(0));
            if let Err(e) = pool.read(&plan.reads, &mut epoch.truth, until + PATIENCE) {
                epoch.truth.truncate(before);
                log::debug!("reading suspects of {}: {e}", self.stack.name);
                return;
            }
            plan.done(epoch);
            self.pulse.beat(self.phase());
            if next.is_none() || Instant::now() >= until {
                return;
            }
        }
    }

    fn reserve(&mut self) {
        self.epoch.reserve(PAUSE_ENTRIES);
        self.plan.reserve(&self.epoch, PAUSE_ENTRIES);
        if let Some(next) = self.memory.upcoming() {
            next.reserve(PAUSE_ENTRIES);
        }
    }

    /// Hands over the epoch that was captured and begins the next.
    pub(crate) fn take_epoch(&mut self) -> EpochLog {
        self.ledger.close(&mut self.epoch);
        self.epoch.trim();
        let next = self.memory.next_epoch();
        std::mem::replace(&mut self.epoch, next)
    }

    pub(crate) fn top_state(&mut self) -> io::Result<DeviceState> {
        self.control.state(self.stack.top)
    }
}

impl Pausable for Capture {
    fn layers(&self) -> Layers {
        Layers::top(self.stack.top, self.stack.size)
    }

    fn control(&mut self) -> &mut DmControl {
        &mut self.control
    }

    fn pulse(&self) -> &dyn Pulse {
        &*self.pulse
    }

    fn stillness(&self) -> Option<&Stillness> {
        Some(&self.stillness)
    }
}

/// How far [`Capture::read_to`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Up to the mark.
    Mark,
    /// The mark was not readable in time.
    Late,
    /// There was more to read than allowed.
    TooMuch,
}
