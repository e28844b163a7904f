//! A stack's dm-era device, in the three ways in which it is used: to command it ([`EraControl`]), to read the volume as it
//! is below any log ([`EraReader`]), and both at once, opened before a pause ([`EraDevice`]).
//!
//! Always holds: what a pause needs was opened before it; an era is rolled only after a flush.

use std::io;
use std::sync::Arc;

use super::written_error::{WrittenError, step};
use super::{Mode, Stack, StackError};
use crate::block_io::{BlockDevice, OpenError};
use crate::era::status::EraStatus;
use crate::ioctl::DmControl;
use crate::pause::pulse::{Phase, Pulse};
use crate::pause::{Layers, Pausable};
use crate::units::{DevNum, Extent, Sectors};

/// What a caller may do to dm-era while the visible device stands still at the start of a capture.
#[derive(Debug)]
pub struct EraControl<'a> {
    pub(crate) control: &'a mut DmControl,
    pub(crate) era: DevNum,
    pub(crate) device: &'a BlockDevice,
}

impl EraControl<'_> {
    /// Makes everything that was written durable. To be done before an era is rolled.
    ///
    /// # Errors
    /// The volume's.
    pub fn flush(&self) -> io::Result<()> {
        self.device.flush()
    }

    /// Sends `checkpoint`, `take_metadata_snap` or `drop_metadata_snap`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn message(&mut self, text: &str) -> io::Result<()> {
        self.control.message(self.era, text)
    }

    /// What dm-era says of itself.
    ///
    /// # Errors
    /// The kernel's, or a status that is none.
    pub fn status(&mut self) -> io::Result<EraStatus> {
        self.control.status_line(self.era)?.parse().map_err(io::Error::other)
    }

    /// Flushes, then takes a metadata snapshot, which ends the era. Only while the visible device is
    /// suspended, so that nothing is in flight: a write that the roll overtakes is in the old era only, and
    /// one that is not durable yet could revert in a power cut and would never be shipped again.
    ///
    /// # Errors
    /// The volume's or the kernel's.
    pub fn take_snapshot(&mut self) -> io::Result<()> {
        self.flush()?;
        self.message("take_metadata_snap")
    }

    /// Drops the metadata snapshot. Until then the kernel cannot free what it holds.
    ///
    /// # Errors
    /// The kernel's.
    pub fn drop_snapshot(&mut self) -> io::Result<()> {
        self.message("drop_metadata_snap")
    }
}

/// Reads the volume as it is below the log. Clones share one descriptor.
#[derive(Clone, Debug)]
pub struct EraReader(pub(crate) Arc<BlockDevice>);

impl EraReader {
    /// Opens the dm-era device of a stack.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(stack: &Stack) -> Result<Self, OpenError> {
        Ok(Self(Arc::new(stack.open_era()?)))
    }

    /// Fills the beginning of `buffer` with `extent`. Direct I/O: the buffer is to be aligned
    /// ([`crate::block_io::AlignedBuffer`]), the extent a multiple of the logical block.
    ///
    /// # Errors
    /// The device's.
    pub fn read(&self, extent: Extent, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_extent(extent, buffer)
    }

    /// Size of the volume.
    #[must_use]
    pub fn size(&self) -> Sectors {
        self.0.size()
    }

    /// Unit of direct I/O in bytes.
    #[must_use]
    pub fn logical_block(&self) -> u32 {
        self.0.logical_block()
    }
}

/// dm-era, with what talking to it takes, ready before a pause.
pub(super) struct EraDevice<'p> {
    control: DmControl,
    number: DevNum,
    top: DevNum,
    size: Sectors,
    pub(super) device: BlockDevice,
    /// Who stands by when it is paused.
    pulse: &'p dyn Pulse,
}

impl Pausable for EraDevice<'_> {
    fn layers(&self) -> Layers {
        Layers::top(self.top, self.size)
    }

    fn control(&mut self) -> &mut DmControl {
        &mut self.control
    }

    fn pulse(&self) -> &dyn Pulse {
        self.pulse
    }
}

impl<'p> EraDevice<'p> {
    pub(super) fn open(stack: &Stack, pulse: &'p dyn Pulse) -> Result<Self, WrittenError> {
        let control = DmControl::open().map_err(step("open device-mapper"))?;
        let (number, top, size) = (stack.era, stack.top, stack.size);
        Ok(Self { control, number, top, size, device: stack.open_era()?, pulse })
    }

    pub(super) fn status(&mut self) -> Result<EraStatus, WrittenError> {
        let line = self.control.status_line(self.number).map_err(step("ask dm-era"))?;
        Ok(line.parse().map_err(StackError::from)?)
    }

    pub(super) fn message(&mut self, text: &str) -> io::Result<()> {
        self.control.message(self.number, text)
    }

    /// Refuses a visible device that somebody else holds back, or is about to change.
    pub(super) fn refuse_unless_running(&mut self) -> Result<(), WrittenError> {
        let state = self.control.state(self.top).map_err(step("ask the visible device"))?;
        if state.suspended || state.inactive {
            return Err(WrittenError::InUse { mode: Mode::Tracking, suspended: state.suspended });
        }
        Ok(())
    }

    /// Takes a metadata snapshot, drained and flushed. An error may come after it was taken.
    pub(super) fn roll(&mut self) -> Result<(), WrittenError> {
        self.device.flush().map_err(step("flush the volume in the pause"))?;
        self.pulse.beat(Phase::Paused);
        self.message("take_metadata_snap").map_err(step("roll the era"))
    }
}
