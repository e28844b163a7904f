//! The RAM disks that logs are kept on.
//!
//! Always holds: only brd is taken for a log. It completes a write when it is submitted, so that
//! data is readable when a mark behind it is; no other device has been shown to do so. A device in
//! use is refused, and a stale log is wiped before a new one begins. One that nobody named is taken only
//! if it is blank, or has a stale log.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::block_io::{Access, AlignedBuffer, BlockDevice, OpenError};
use crate::log_writes::format::{MAGIC, SUPER};
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
        "{count} free RAM disks of {size} are needed, two for each volume; {found}. Unload brd (modprobe -r brd) so that it is loaded again, load \
         it yourself (modprobe brd rd_nr=COUNT rd_size={}), or name them under [log] devices", size.0.div_ceil(2)
    )]
    NoneFree {
        /// How many are needed.
        count: usize,
        /// What each has to have.
        size: Sectors,
        /// Why the ones that are there were not taken.
        found: String,
    },
    /// Another capture has it.
    #[error("log device {}: another daemon keeps it for its log", .0.display())]
    Locked(PathBuf),
    /// brd could not be loaded, or was loaded otherwise.
    #[error("{missing} is not there: {why}")]
    NoBrd {
        /// The first device missing.
        missing: String,
        /// Why and what to do.
        why: String,
    },
}

/// Makes sure that the RAM disks `/dev/ram0` to `/dev/ram{count-1}` exist, loading brd when it is not
/// loaded. One that is loaded is taken as it is, whatever size its devices have.
///
/// # Errors
/// [`LogDeviceError::NoBrd`].
pub fn load_brd(count: u32, size: Sectors) -> Result<(), LogDeviceError> {
    if !Path::new("/sys/module/brd").exists() {
        let kib = size.0.div_ceil(2);
        load_module_with(
            "brd",
            &[format!("rd_nr={count}"), format!("rd_size={kib}"), "max_part=0".to_owned()],
        );
    }
    let missing = (0..count).map(|n| format!("ram{n}")).find(|n| !Path::new("/sys/block").join(n).exists());
    let Some(missing) = missing else { return Ok(()) };
    let why = if Path::new("/sys/module/brd").exists() {
        format!(
            "brd is loaded with fewer than {count} devices: unload it (modprobe -r brd), or load it with rd_nr={count}"
        )
    } else {
        "the kernel has no module brd (Debian: linux-image packages other than -cloud have it)".to_owned()
    };
    Err(LogDeviceError::NoBrd { missing: format!("/dev/{missing}"), why })
}

/// Loads what capturing needs beyond a stack: a daemon that is confined may load no modules itself.
///
/// # Errors
/// [`LogDeviceError::NoBrd`].
pub fn load_for_captures(count: u32, size: Sectors) -> Result<(), LogDeviceError> {
    load_module("dm-log-writes");
    load_brd(count, size)
}

/// Names of the RAM disks that are there, in the order of their numbers.
fn ram_disks() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/block") else { return Vec::new() };
    let number = |name: &str| name.strip_prefix("ram")?.parse::<u32>().ok();
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| number(name).is_some()).collect();
    names.sort_by_key(|name| number(name));
    names
}

/// One RAM disk for a log.
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

    /// Wipes the super of whatever log was there: its count would be believed.
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
    /// Takes the first RAM disks that have `size` and are free, two for each of so many volumes, loading brd when
    /// it is not loaded.
    ///
    /// # Errors
    /// See [`LogDeviceError`]; what is in use, or holds anything but a stale log, was not touched.
    pub fn free(volumes: usize, size: Sectors) -> Result<Vec<Self>, LogDeviceError> {
        let count = 2 * volumes;
        load_brd(u32::try_from(count).unwrap_or(u32::MAX), size)?;
        let (mut free, mut passed_over) = (Vec::with_capacity(count), Vec::new());
        for name in ram_disks() {
            let why = match LogDevice::open(&Path::new("/dev").join(&name)) {
                Ok(device) if device.capacity() < size => format!("{name} has {}", device.capacity()),
                Ok(device) => match device.is_free() {
                    Ok(true) => {
                        free.push(device);
                        if free.len() == count {
                            break;
                        }
                        continue;
                    }
                    Ok(false) => format!("{name} holds something"),
                    Err(e) => format!("{name}: {e}"),
                },
                Err(e) => e.to_string(),
            };
            passed_over.push(why);
        }
        if free.len() < count {
            return Err(LogDeviceError::NoneFree { count, size, found: passed_over.join(", ") });
        }
        let mut free = free.into_iter();
        Ok(std::iter::from_fn(|| Some(Self([free.next()?, free.next()?]))).collect())
    }

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
