//! Block devices as files: checked opening, direct I/O through aligned buffers, flushes, and the
//! queue settings in sysfs.
//!
//! Always holds: an open [`BlockDevice`] is a block device, the one whose number it shows; a
//! setting is reported as made only after it was read back.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

use crate::ioctl;
use crate::kernel_gate::{OLDEST, kernel_release};
use crate::pause::standstill::Standstill;
use crate::units::{DevNum, Extent, SECTOR_SIZE, Sectors};

/// Alignment of every buffer here, in memory: enough for any logical block size.
pub const ALIGN: usize = 4096;

/// Zeroed memory aligned for direct I/O.
#[derive(Debug)]
pub struct AlignedBuffer {
    memory: Vec<u8>,
    offset: usize,
    len: usize,
}

impl AlignedBuffer {
    /// `len` zero bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let mut memory = Vec::new();
        // Written, not merely reserved: no page of it is to fault in for the first time in a pause.
        memory.resize(len + ALIGN, 1);
        memory.fill(0);
        let offset = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
        Self { memory, offset, len }
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.offset..self.offset + self.len]
    }

    /// All of it, to write to.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.offset..self.offset + self.len]
    }
}

/// How a device is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access {
    /// For writing too.
    pub write: bool,
    /// Past the page cache.
    pub direct: bool,
    /// Only when nobody holds it: not mounted, not part of another device.
    pub exclusive: bool,
}

/// Why a device could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file of another kind.
    #[error("{} is not a block device", .0.display())]
    NotBlock(PathBuf),
    /// The node leads to another device than the one meant.
    #[error("{} is device {found}, not {wanted}", path.display())]
    Another {
        /// Node opened.
        path: PathBuf,
        /// Its device.
        found: DevNum,
        /// The one meant.
        wanted: DevNum,
    },
    /// Somebody holds it.
    #[error("{} is in use{}", path.display(), held_by(holders))]
    Busy {
        /// Node opened.
        path: PathBuf,
        /// Kernel names of the devices on top of it, if any; a mount has none.
        holders: Vec<String>,
    },
    /// The system's error.
    #[error("{}: {source}", path.display())]
    Io {
        /// Node opened.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

fn held_by(holders: &[String]) -> String {
    if holders.is_empty() {
        return " (mounted, or opened exclusively)".to_owned();
    }
    format!(" by {}", holders.join(", "))
}

/// An open block device.
#[derive(Debug)]
pub struct BlockDevice {
    file: File,
    path: PathBuf,
    number: DevNum,
    size: Sectors,
    logical_block: u32,
}

impl BlockDevice {
    /// Opens `path`, which may also be `MAJOR:MINOR`.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path, access: Access) -> Result<Self, OpenError> {
        let path = &node_of(path);
        let failed = |source| OpenError::Io { path: path.clone(), source };
        let found = fs::metadata(path).map_err(failed)?;
        if !found.file_type().is_block_device() {
            return Err(OpenError::NotBlock(path.clone()));
        }
        let direct = if access.direct { libc::O_DIRECT } else { 0 };
        let exclusive = if access.exclusive { libc::O_EXCL } else { 0 };
        let mut options = File::options();
        options.read(true).write(access.write).custom_flags(direct | exclusive);
        let file = options.open(path).map_err(|source| match source.raw_os_error() {
            Some(libc::EBUSY) => {
                let holders = holders(DevNum::from_rdev(found.rdev())).unwrap_or_default();
                OpenError::Busy { path: path.clone(), holders }
            }
            _ => failed(source),
        })?;
        let number = DevNum::from_rdev(file.metadata().map_err(failed)?.rdev());
        let bytes = ioctl::device_bytes(&file).map_err(failed)?;
        let logical_block = ioctl::logical_block_size(&file).map_err(failed)?;
        Ok(Self {
            file,
            path: path.clone(),
            number,
            size: Sectors(bytes / SECTOR_SIZE as u64),
            logical_block,
        })
    }

    /// Opens the device-mapper device of this number by its kernel name.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_dm(number: DevNum, access: Access) -> Result<Self, OpenError> {
        let path = PathBuf::from(format!("/dev/dm-{}", number.minor));
        let device = Self::open(&path, access)?;
        if device.number != number {
            return Err(OpenError::Another { path, found: device.number, wanted: number });
        }
        Ok(device)
    }

    /// Only this much of it counts from now on.
    #[must_use]
    pub fn limited_to(self, size: Sectors) -> Self {
        Self { size: self.size.min(size), ..self }
    }

    /// The node it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> DevNum {
        self.number
    }

    /// Looks at its size again: it may have changed since it was opened.
    ///
    /// # Errors
    /// The kernel's.
    pub fn look_again(&mut self) -> io::Result<()> {
        self.size = Sectors(ioctl::device_bytes(&self.file)? / SECTOR_SIZE as u64);
        Ok(())
    }

    /// Its size when it was opened, or looked at again.
    #[must_use]
    pub fn size(&self) -> Sectors {
        self.size
    }

    /// The unit of direct I/O, in bytes.
    #[must_use]
    pub fn logical_block(&self) -> u32 {
        self.logical_block
    }

    /// Fills `buffer` from `offset` bytes on. On a device opened direct both, and the buffer's
    /// length, are to be multiples of the logical block and the buffer aligned.
    ///
    /// # Errors
    /// The device's; `UnexpectedEof` beyond its end.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Fills the beginning of `buffer` with `extent`.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at); `InvalidInput` when the buffer is too small.
    pub fn read_extent(&self, extent: Extent, buffer: &mut [u8]) -> io::Result<()> {
        let offset = extent.start().bytes();
        let len = extent.len().bytes().and_then(|n| usize::try_from(n).ok());
        let (Some(offset), Some(target)) = (offset, len.and_then(|n| buffer.get_mut(..n))) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        self.read_at(offset, target)
    }

    /// Writes all of `data` at `offset` bytes.
    ///
    /// # Errors
    /// The device's.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// Discards `extent`: its content is anything from here on.
    ///
    /// # Errors
    /// `Unsupported` when the device takes no discards; the device's.
    pub fn discard(&self, extent: Extent) -> io::Result<()> {
        let (Some(start), Some(len)) = (extent.start().bytes(), extent.len().bytes()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        ioctl::discard(&self.file, start, len)
    }

    /// Makes it refuse the writes of programs, or take them again.
    ///
    /// # Errors
    /// The system's.
    pub fn set_read_only(&self, is_read_only: bool) -> io::Result<()> {
        ioctl::set_read_only(&self.file, is_read_only)
    }

    /// Locks it (`flock`) against those who do the same, for as long as it is open. Whether that succeeded:
    /// `false` when somebody else has the lock.
    ///
    /// # Errors
    /// The system's.
    pub fn try_lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Returns when what had completed before is on stable storage.
    ///
    /// # Errors
    /// The device's.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// The node of `MAJOR:MINOR`, or the path itself.
fn node_of(path: &Path) -> PathBuf {
    let number = path.to_str().and_then(|text| text.parse::<DevNum>().ok());
    let named = number.and_then(|number| {
        let uevent = fs::read_to_string(sysfs(number).join("uevent")).ok()?;
        let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
        Some(Path::new("/dev").join(name))
    });
    named.unwrap_or_else(|| path.to_owned())
}

/// The folder of a block device in sysfs.
#[must_use]
pub fn sysfs(number: DevNum) -> PathBuf {
    PathBuf::from(format!("/sys/dev/block/{number}"))
}

/// Kernel names of the devices that are built on this one.
///
/// # Errors
/// When there is no such device.
fn holders(number: DevNum) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(sysfs(number).join("holders"))?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Writes an attribute of a device, which nothing else does. Later kernels freeze the device's queue for it, until what
/// is in flight is done and for a grace period of RCU, so this is never done while a volume stands still.
///
/// # Errors
/// The kernel's.
pub fn write_attribute(attribute: &File, value: &str) -> io::Result<()> {
    debug_assert!(!Standstill::is_here(), "an attribute is written in a pause");
    attribute.write_all_at(value.as_bytes(), 0)
}

/// A queue setting that was not accepted.
#[derive(Debug, thiserror::Error)]
#[error("{}: kernel {} does not take {value}: {source}{}", path.display(), kernel_release(), since(source))]
pub struct SettingError {
    path: PathBuf,
    value: &'static str,
    source: io::Error,
}

/// What a kernel needs to be to have a setting that this one lacks.
fn since(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::NotFound => format!("; ftdm needs Linux {}.{} at least", OLDEST.0, OLDEST.1),
        _ => String::new(),
    }
}

/// One queue setting of a device, held open so that it can be made again without opening anything.
#[derive(Debug)]
struct Setting {
    file: File,
    path: PathBuf,
    value: &'static str,
}

impl Setting {
    fn open(number: DevNum, name: &str, value: &'static str) -> Result<Self, SettingError> {
        let path = sysfs(number).join("queue").join(name);
        let opened = File::options().read(true).write(true).open(&path);
        match opened {
            Ok(file) => Ok(Self { file, path, value }),
            Err(source) => Err(SettingError { path, value, source }),
        }
    }

    fn apply(&self) -> Result<(), SettingError> {
        self.try_apply().map_err(|source| SettingError { path: self.path.clone(), value: self.value, source })
    }

    /// What is so already is not written: later kernels freeze the queue for each write, and a limit of discards
    /// that was ever lowered to 0 they do not raise again.
    fn try_apply(&self) -> io::Result<()> {
        if self.is_made()? {
            return Ok(());
        }
        write_attribute(&self.file, self.value)?;
        if self.is_made()? { Ok(()) } else { Err(io::Error::other("it reads back otherwise")) }
    }

    fn is_made(&self) -> io::Result<bool> {
        let mut found = [0u8; 32];
        let n = self.file.read_at(&mut found, 0)?;
        Ok(found[..n].trim_ascii() == self.value.as_bytes())
    }
}

/// The settings that every layer below the visible device needs after each table load: no
/// discards (dm-era marks only the first block of one; see [`crate::discard`] for the layers that may take
/// them), and pages that do not change while they are written (log-writes and the disk would see different
/// ones).
#[derive(Debug)]
pub struct LayerSettings {
    discards: Option<Setting>,
    stable: Setting,
}

impl LayerSettings {
    /// Opens the settings of `number`.
    ///
    /// # Errors
    /// When the kernel does not have one of them.
    pub fn open(number: DevNum) -> Result<Self, SettingError> {
        Ok(Self {
            discards: Some(Setting::open(number, "discard_max_bytes", "0")?),
            stable: Setting::open(number, "stable_writes", "1")?,
        })
    }

    /// The same for a layer above which, or which itself, passes discards: they are left as the kernel has
    /// set them up.
    ///
    /// # Errors
    /// When the kernel does not have one of them.
    pub fn open_with_discards(number: DevNum) -> Result<Self, SettingError> {
        Ok(Self { discards: None, stable: Setting::open(number, "stable_writes", "1")? })
    }

    /// Makes them, and reads them back.
    ///
    /// # Errors
    /// When one was not accepted.
    pub fn apply(&self) -> Result<(), SettingError> {
        if let Some(discards) = &self.discards {
            discards.apply()?;
        }
        self.stable.apply()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_as_long_as_asked() {
        for len in [512, 4096, 5 * 4096 + 512] {
            let mut buffer = AlignedBuffer::new(len);
            assert_eq!(buffer.bytes().as_ptr().align_offset(ALIGN), 0);
            assert_eq!(buffer.bytes_mut().len(), len);
            assert!(buffer.bytes().iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn no_attribute_is_written_while_a_volume_stands_still() {
        let path = std::env::temp_dir().join(format!("ftdm-attribute-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        fs::remove_file(path).unwrap();
        let write = || std::panic::catch_unwind(|| write_attribute(&file, "1").unwrap());
        let pause = Standstill::begin();
        let within = Standstill::begin();
        drop(within);
        assert!(write().is_err());
        drop(pause);
        assert!(write().is_ok());
    }

    #[test]
    fn nothing_else_writes_attributes() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut writers = Vec::new();
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap();
                let writes = ["write_all_at(", "fs::write("].iter().any(|call| text.contains(call));
                writers.extend(writes.then(|| path.file_name().unwrap().to_owned()));
            }
        }
        assert_eq!(writers, ["block_io.rs"]);
    }

    #[test]
    fn a_setting_that_the_kernel_lacks_names_the_oldest_that_has_it() {
        let lacking = Setting::open(DevNum { major: 4095, minor: 7 }, "stable_writes", "1").unwrap_err();
        assert!(lacking.to_string().contains("Linux 5.10"), "{lacking}");
    }

    #[test]
    fn what_is_not_a_block_device_is_refused() {
        let refused = BlockDevice::open(Path::new("/dev/null"), Access::default());
        assert!(matches!(refused, Err(OpenError::NotBlock(_))));
        let missing = BlockDevice::open(Path::new("/dev/there-is-none"), Access::default());
        assert!(matches!(missing, Err(OpenError::Io { .. })));
    }
}
