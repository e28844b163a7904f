//! The RAM disks that logs are kept on.
//!
//! Always holds: only brd is taken for a log, as it is or joined by dm-linear. It completes a write when it is
//! submitted, so that data is readable when a mark behind it is, and dm-linear adds no wait to that; no other device has
//! been shown to do so. A device in use is refused, and a stale log is wiped before a new one begins. One that nobody
//! named is taken only if it is blank, or has a stale log.

mod free;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::block_io::{Access, AlignedBuffer, BlockDevice, OpenError};
use crate::log_writes::format::{MAGIC, SUPER};
use crate::stack::StackError;
use crate::stack::devices::{load_module, load_module_with};
use crate::units::{DevNum, SECTOR_SIZE, Sectors};

/// brd's major number.
const BRD: u32 = 1;
/// How much of a RAM disk is looked at to tell whether it is blank: file systems and the like have their marks
/// there.
const SEARCHED: usize = 132 << 10;
/// Tells a log that was wiped from somebody else's content.
const TAG: &[u8; 8] = b"ftdm log";
const TAG_AT: usize = 480;
/// The least that a log device may have.
const SMALLEST: Sectors = Sectors(2048);

/// Why a device cannot keep a log.
#[derive(Debug, thiserror::Error)]
pub enum LogDeviceError {
    /// It cannot be opened, or somebody uses it.
    #[error("log device {0}")]
    Open(#[from] OpenError),
    /// Another kind of device.
    #[error("log device {}: device {number} is not a RAM disk (major {BRD}): only brd keeps a log safely", path.display())]
    NotBrd {
        /// Its path.
        path: PathBuf,
        /// Its number.
        number: DevNum,
    },
    /// Too small to be of use.
    #[error("log device {}: {size}: at least {SMALLEST} are needed", path.display())]
    Small {
        /// Its path.
        path: PathBuf,
        /// Its size.
        size: Sectors,
    },
    /// One device given twice.
    #[error("log device {}: two different ones are needed", .0.display())]
    Same(PathBuf),
    /// Of the RAM disks that are there too few may be taken.
    #[error(
        "the log needs {count} RAM disks of {size}, two for each volume; {found}. Without them: make [log] size smaller, name free \
         ones under [log] devices, or set capture = \"era\" with mode = \"interval\". From the next boot on: `options brd \
         rd_nr=COUNT rd_size={}` in /etc/modprobe.d", size.0.div_ceil(2)
    )]
    NoneFree {
        /// How many are needed.
        count: usize,
        /// What each has to have.
        size: Sectors,
        /// Why the ones that are there were not taken, and why there are not more.
        found: String,
    },
    /// Those that are there could not be joined, or the leftovers of others be removed.
    #[error(transparent)]
    Devices(#[from] StackError),
    /// Another capture has it.
    #[error("log device {}: another daemon keeps it for its log", .0.display())]
    Locked(PathBuf),
    /// A part of a log could not be marked as such.
    #[error("log device {path}: {1}", path = .0.display())]
    Mark(PathBuf, #[source] std::io::Error),
    /// The kernel has no RAM disks.
    #[error(
        "the kernel has no module brd, on whose RAM disks the log is kept (Debian: linux-image packages other than \
         -cloud have it; Fedora and RHEL: kernel-modules-extra or kernel-modules)"
    )]
    NoBrd,
}

/// Loads brd with so many RAM disks of that size, unless it is there: then it stays as it is.
///
/// # Errors
/// [`LogDeviceError::NoBrd`].
pub fn load_brd(count: u32, size: Sectors) -> Result<(), LogDeviceError> {
    const LOADED: &str = "/sys/module/brd";
    if !Path::new(LOADED).exists() {
        let kib = size.0.div_ceil(2);
        load_module_with(
            "brd",
            &[format!("rd_nr={count}"), format!("rd_size={kib}"), "max_part=0".to_owned()],
        );
    }
    if Path::new(LOADED).exists() { Ok(()) } else { Err(LogDeviceError::NoBrd) }
}

/// Loads what capturing needs beyond a stack: a daemon that is confined may load no modules itself.
///
/// # Errors
/// [`LogDeviceError::NoBrd`].
pub fn load_for_captures(count: u32, size: Sectors) -> Result<(), LogDeviceError> {
    load_module("dm-log-writes");
    load_brd(count, size)
}

/// One RAM disk for a log, or several that are joined.
#[derive(Debug)]
pub struct LogDevice {
    device: BlockDevice,
}

impl LogDevice {
    /// Takes `path`, which nobody may be using.
    ///
    /// # Errors
    /// See [`LogDeviceError`].
    pub fn open(path: &Path) -> Result<Self, LogDeviceError> {
        let access = Access { write: true, direct: true, exclusive: true };
        let exclusive = BlockDevice::open(path, access)?;
        if exclusive.number().major != BRD {
            return Err(LogDeviceError::NotBrd { path: path.to_owned(), number: exclusive.number() });
        }
        if exclusive.size() < SMALLEST {
            return Err(LogDeviceError::Small { path: path.to_owned(), size: exclusive.size() });
        }
        // device-mapper claims it for itself: keep it open, but not exclusively.
        drop(exclusive);
        let device = BlockDevice::open(path, Access { exclusive: false, ..access })?;
        // The one of the two that no table names at the moment is claimed by nobody else.
        match device.try_lock() {
            Ok(true) => Ok(Self { device }),
            Ok(false) => Err(LogDeviceError::Locked(path.to_owned())),
            Err(source) => Err(OpenError::Io { path: path.to_owned(), source }.into()),
        }
    }

    /// Of RAM disks that were joined just now. No other process can take them: device-mapper has them.
    fn joined(number: DevNum) -> Result<Self, LogDeviceError> {
        Ok(Self {
            device: BlockDevice::open_dm(number, Access { write: true, direct: true, exclusive: false })?,
        })
    }

    /// Whether nobody has put anything there but a log.
    fn is_free(&self) -> std::io::Result<bool> {
        let mut start = AlignedBuffer::new(SEARCHED);
        self.device.read_at(0, start.bytes_mut())?;
        let bytes = start.bytes();
        let is_ours = bytes.starts_with(&MAGIC.to_le_bytes()) || bytes[TAG_AT..].starts_with(TAG);
        Ok(is_ours || bytes.iter().all(|byte| *byte == 0))
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> DevNum {
        self.device.number()
    }

    /// Its size.
    #[must_use]
    pub fn capacity(&self) -> Sectors {
        self.device.size()
    }

    /// The open device.
    #[must_use]
    pub fn device(&self) -> &BlockDevice {
        &self.device
    }

    /// Wipes the super of any log that was there, whose count would be believed, and says instead that the device is for
    /// logs.
    ///
    /// # Errors
    /// The device's.
    pub fn wipe(&self) -> std::io::Result<()> {
        let mut blank = AlignedBuffer::new(SUPER);
        // In the super's own sector: gone as soon as there is a super, which tells the same.
        blank.bytes_mut()[TAG_AT..TAG_AT + TAG.len()].copy_from_slice(TAG);
        self.device.write_at(0, blank.bytes())
    }

    /// Its size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.capacity().0.saturating_mul(SECTOR_SIZE as u64)
    }
}

/// The two RAM disks of one volume: one has the log, the other is ready for the next.
#[derive(Debug)]
pub struct LogPair(pub(crate) [LogDevice; 2]);

impl LogPair {
    /// Takes two different devices.
    ///
    /// # Errors
    /// See [`LogDeviceError`].
    pub fn open(first: &Path, second: &Path) -> Result<Self, LogDeviceError> {
        let one = LogDevice::open(first)?;
        let is_same =
            std::fs::metadata(second).is_ok_and(|found| DevNum::from_rdev(found.rdev()) == one.number());
        if is_same {
            return Err(LogDeviceError::Same(first.to_owned()));
        }
        Ok(Self([one, LogDevice::open(second)?]))
    }
}
