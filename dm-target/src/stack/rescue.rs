//! The short way back onto dm-era, for a watchdog: everything that it needs was opened before, and
//! nothing of it depends on the process that stopped.
//!
//! Always holds: discards are shut off before anything else, and the visible device is resumed only when none
//! is in flight ([`crate::discard`]); the table of dm-era is loaded before any resume, which replaces whatever
//! the stopped process had loaded; a capture that is rescued never comes back, so that process finds its tables
//! changed however late it goes on, and knows that its cut is void; a volume that was shut stays shut, whatever the
//! process said last: the table of errors is all that it takes to know.

use std::io;
use std::time::{Duration, Instant};

use super::{Stack, StackError, io_step, unless_refused};
use crate::block_io::{Access, BlockDevice, LayerSettings, SettingError};
use crate::discard::valve::Valve;
use crate::ioctl::{DeviceState, DmControl};
use crate::pause::expedite::Found;
use crate::pause::{self, SHUT};
use crate::units::DevNum;

/// A stack that can be brought back at any time.
#[derive(Debug)]
pub struct Rescue {
    stack: Stack,
    control: DmControl,
    /// Or why the kernel does not have them made: no reason to leave the volume without a rescue.
    settings: Result<LayerSettings, SettingError>,
    /// The same of the gate, where there is one: what is enlarged has lost them.
    gate_settings: Option<Result<LayerSettings, SettingError>>,
    valve: Valve,
    /// Of the kernel's grace periods.
    expedited: Found,
    /// What the visible device pointed at when it was moved.
    log: Option<DevNum>,
}

/// What was found and done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rescued {
    /// The visible device was suspended.
    pub suspended: bool,
    /// It pointed elsewhere, or was about to.
    pub moved: bool,
    /// How long it took.
    pub took: Duration,
}

impl Rescue {
    /// Opens what is needed.
    ///
    /// # Errors
    /// When device-mapper cannot be opened, or what is known of discards.
    pub fn prepare(stack: Stack) -> Result<Self, StackError> {
        let control = DmControl::open().map_err(io_step("open device-mapper"))?;
        let settings = LayerSettings::open(stack.top);
        let gate_settings = stack.gate.map(LayerSettings::open);
        let valve = stack.valve()?;
        Ok(Self { stack, control, settings, gate_settings, valve, expedited: Found::look(), log: None })
    }

    /// The stack.
    #[must_use]
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Whether the visible device is suspended now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_suspended(&mut self) -> io::Result<bool> {
        Ok(self.control.state(self.stack.top)?.suspended)
    }

    /// Points the visible device at dm-era, or what stands in its place, and lets it run, whatever state it
    /// is in. Leaves one alone that runs there, or that was shut. The log is left to [`Stack::recover`].
    ///
    /// # Errors
    /// The kernel's; the visible device is resumed whenever that is possible at all. A setting that is refused is
    /// logged, and so are discards whose limit is: the outlet's table of errors shuts them off as well.
    pub fn act(&mut self) -> io::Result<Rescued> {
        let began = Instant::now();
        let top = self.stack.top;
        self.expedited.put_back();
        let shut = self.valve.shut();
        if let Err(error) = &shut {
            log::error!("shutting off discards of {}: {error}", self.stack.name);
        }
        let state = self.control.state(top)?;
        let below = self.below()?;
        if self.control.target(top)? == SHUT {
            return self.keep_shut(state, began);
        }
        let moved = below != Some(self.stack.floor()) || state.inactive;
        let done = |moved| Rescued { suspended: state.suspended, moved, took: began.elapsed() };
        if !moved && !state.suspended {
            return Ok(done(false));
        }
        self.log = below.filter(|below| *below != self.stack.floor());
        let line = format!("{} 0", self.stack.floor());
        let loaded = self.control.load(top, self.stack.size, "linear", &line);
        if !state.suspended
            && let Some(log) = self.log
        {
            // A log device that is suspended under a running visible one holds writes: these are to end,
            // or the visible device could not be drained.
            self.run(log)?;
        }
        // Somebody died while giving dm-era up, or while enlarging what is below.
        self.run(self.stack.era)?;
        self.stack.gate.map_or(Ok(()), |gate| self.run(gate))?;
        // Before the visible device takes over what the gate takes.
        if let Some(settings) = &self.gate_settings {
            apply(&self.stack, settings);
        }
        let suspended = self.control.suspend(top);
        let closed = self.valve.wait();
        pause::resume(&mut self.control, top)?;
        loaded.and(suspended)?;
        apply(&self.stack, &self.settings);
        if !closed {
            shut?;
        }
        Ok(done(moved))
    }

    /// Leaves a volume that was given up as it is: another side may be writing to its copy.
    fn keep_shut(&mut self, state: DeviceState, began: Instant) -> io::Result<Rescued> {
        let top = self.stack.top;
        if state.inactive {
            self.control.clear(top)?;
        }
        if state.suspended {
            pause::resume(&mut self.control, top)?;
        }
        Ok(Rescued { suspended: state.suspended, moved: false, took: began.elapsed() })
    }

    /// Makes all I/O of the visible device fail: what it holds back belongs to another side's volume by now, or may
    /// soon.
    ///
    /// # Errors
    /// The kernel's; what is held back stays so.
    pub fn shut(&mut self) -> io::Result<()> {
        let top = self.stack.top;
        self.log = self.below()?.filter(|below| *below != self.stack.floor());
        self.control.load(top, self.stack.size, SHUT, "")?;
        self.control.suspend(top)?;
        pause::resume(&mut self.control, top)
    }

    /// Flushes the log that [`act`](Self::act) left behind: what it holds in the kernel's memory is let go,
    /// also while somebody who does not run has it open.
    ///
    /// # Errors
    /// The kernel's, or the volume's.
    pub fn release_log(&mut self) -> io::Result<()> {
        let Some(log) = self.log else { return Ok(()) };
        self.run(log)?;
        BlockDevice::open_dm(log, Access::default()).map_err(io::Error::other)?.flush()
    }

    fn run(&mut self, dev: DevNum) -> io::Result<()> {
        if self.control.state(dev)?.suspended { self.control.resume(dev) } else { Ok(()) }
    }

    /// What the visible device points at.
    fn below(&mut self) -> io::Result<Option<DevNum>> {
        let line = self.control.table_line(self.stack.top)?;
        Ok(line.split_once(' ').and_then(|(device, _)| device.parse().ok()))
    }
}

/// Makes the settings of a layer; a refusal is logged.
fn apply(stack: &Stack, settings: &Result<LayerSettings, SettingError>) {
    match settings {
        Ok(settings) => unless_refused(&stack.name, settings.apply().as_ref()),
        Err(refused) => unless_refused(&stack.name, Err(refused)),
    }
}
