//! The kernel calls that a cut makes, issued directly: device-mapper commands on a descriptor
//! opened before, in a buffer allocated before; sizes and discards of block devices; the process's memory mode and
//! its threads' urgency; how far a socket's data has come. Beside them what the command line asks of the kernel: any
//! command of device-mapper ([`exchange`]) and udev's semaphores ([`semaphore`]).
//!
//! Always holds: this is the only module with `unsafe`, each use being one system call on memory
//! that this module owns. No call of this file on a device allocates or waits for udev (no cookie is ever passed), so every
//! one of them may be made while a device is suspended; the command line's own are in the two modules below it.
//! Layout: `struct dm_ioctl`, `dm_target_spec` and `dm_target_msg` of `linux/dm-ioctl.h`.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall};

use crate::units::{DevNum, Sectors};

pub mod exchange;
pub mod semaphore;

const CONTROL: &str = "/dev/mapper/control";
/// Type of every device-mapper ioctl.
const DM_IOCTL: u8 = 0xfd;
/// Size of `struct dm_ioctl`.
const HEADER: usize = 312;
/// The whole buffer: a table line, a message or a status line beside the header.
const BUFFER: usize = 4096;

// Offsets within `struct dm_ioctl`.
const VERSION: usize = 0;
const DATA_SIZE: usize = 12;
const DATA_START: usize = 16;
const TARGET_COUNT: usize = 20;
const OPEN_COUNT: usize = 24;
const FLAGS: usize = 28;
const EVENT: usize = 32;
const DEV: usize = 40;
const NAME: usize = 48;
const UUID: usize = 176;
const UUID_END: usize = 305;

// `struct dm_target_spec`: start u64, length u64, status i32, next u32, type [u8; 16]; then parameters.
const SPEC_LENGTH: usize = 8;
const SPEC_TYPE: usize = 24;
const SPEC_TYPE_LEN: usize = 16;
const SPEC: usize = 40;
/// `struct dm_target_msg`: sector u64; then the text.
const MESSAGE: usize = 8;

/// The flags of device-mapper, as `linux/dm-ioctl.h` has them.
#[allow(missing_docs)]
pub mod flags {
    pub const READONLY: u32 = 1;
    pub const SUSPEND: u32 = 1 << 1;
    pub const PERSISTENT_DEV: u32 = 1 << 3;
    pub const STATUS_TABLE: u32 = 1 << 4;
    pub const ACTIVE_PRESENT: u32 = 1 << 5;
    pub const INACTIVE_PRESENT: u32 = 1 << 6;
    pub const BUFFER_FULL: u32 = 1 << 8;
    pub const SKIP_LOCKFS: u32 = 1 << 10;
    pub const NOFLUSH: u32 = 1 << 11;
    pub const QUERY_INACTIVE_TABLE: u32 = 1 << 12;
    pub const UEVENT_GENERATED: u32 = 1 << 13;
    pub const UUID: u32 = 1 << 14;
    pub const DATA_OUT: u32 = 1 << 16;
    pub const DEFERRED_REMOVE: u32 = 1 << 17;
}

/// `PR_SET_IO_FLUSHER` of `linux/prctl.h`.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// The commands of device-mapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Command {
    Version = 0,
    RemoveAll = 1,
    ListDevices = 2,
    Create = 3,
    Remove = 4,
    Rename = 5,
    Suspend = 6,
    Status = 7,
    Wait = 8,
    TableLoad = 9,
    TableClear = 10,
    TableDeps = 11,
    TableStatus = 12,
    ListVersions = 13,
    Message = 14,
    SetGeometry = 15,
    TargetVersion = 17,
}

/// What `DM_DEV_STATUS` says of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceState {
    /// I/O is held back.
    pub suspended: bool,
    /// A live table is there.
    pub live: bool,
    /// A table is loaded that the next resume makes live.
    pub inactive: bool,
    /// How many hold the device open.
    pub open_count: u32,
}

/// A channel to device-mapper for the hot path. One per thread: commands to one device are to be
/// serialised by the caller.
#[derive(Debug)]
pub struct DmControl {
    control: File,
    buffer: Box<[u8; BUFFER]>,
}

impl DmControl {
    /// Opens the control node and allocates the buffer.
    ///
    /// # Errors
    /// When the node is not there (device-mapper is not loaded) or may not be opened.
    pub fn open() -> io::Result<Self> {
        let control = File::options().read(true).write(true).open(CONTROL)?;
        Ok(Self { control, buffer: Box::new([0; BUFFER]) })
    }

    /// Drains and holds back all I/O of `dev`, without freezing a file system on it. Succeeds too
    /// when it is suspended already.
    ///
    /// # Errors
    /// The kernel's.
    pub fn suspend(&mut self, dev: DevNum) -> io::Result<()> {
        self.header(dev, flags::SUSPEND | flags::SKIP_LOCKFS, HEADER);
        self.call(Command::Suspend)
    }

    /// Makes a loaded table live, if there is one, and lets I/O flow.
    ///
    /// # Errors
    /// The kernel's.
    pub fn resume(&mut self, dev: DevNum) -> io::Result<()> {
        self.header(dev, 0, HEADER);
        self.call(Command::Suspend)
    }

    /// What the device is doing.
    ///
    /// # Errors
    /// `ENXIO` when there is no such device.
    pub fn state(&mut self, dev: DevNum) -> io::Result<DeviceState> {
        self.header(dev, 0, HEADER);
        self.call(Command::Status)?;
        let flags = self.u32_at(FLAGS);
        Ok(DeviceState {
            suspended: flags & flags::SUSPEND != 0,
            live: flags & flags::ACTIVE_PRESENT != 0,
            inactive: flags & flags::INACTIVE_PRESENT != 0,
            open_count: self.u32_at(OPEN_COUNT),
        })
    }

    /// Drops the table that is loaded but not live, if there is one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn clear(&mut self, dev: DevNum) -> io::Result<()> {
        self.header(dev, 0, HEADER);
        self.call(Command::TableClear)
    }

    /// The status line of the device's only target. On a dm-era device never to be asked while
    /// that is suspended: the kernel would block until it is resumed.
    ///
    /// # Errors
    /// The kernel's; `InvalidData` when the answer is not one target's line.
    pub fn status_line(&mut self, dev: DevNum) -> io::Result<&str> {
        self.line(dev, 0)
    }

    /// The parameters of the live table of a device with one target.
    ///
    /// # Errors
    /// As [`status_line`](Self::status_line).
    pub fn table_line(&mut self, dev: DevNum) -> io::Result<&str> {
        self.line(dev, flags::STATUS_TABLE)
    }

    /// The target of the live table of a device with one target.
    ///
    /// # Errors
    /// As [`status_line`](Self::status_line).
    pub fn target(&mut self, dev: DevNum) -> io::Result<&str> {
        self.line(dev, flags::STATUS_TABLE)?;
        let start = self.u32_at(DATA_START) as usize + SPEC_TYPE;
        let text = self.buffer.get(start..start + SPEC_TYPE_LEN).ok_or_else(malformed)?;
        let end = text.iter().position(|b| *b == 0).ok_or_else(malformed)?;
        std::str::from_utf8(&text[..end]).map_err(|_| malformed())
    }

    fn line(&mut self, dev: DevNum, flags: u32) -> io::Result<&str> {
        self.header(dev, flags, BUFFER);
        self.call(Command::TableStatus)?;
        if self.u32_at(FLAGS) & flags::BUFFER_FULL != 0 || self.u32_at(TARGET_COUNT) != 1 {
            return Err(malformed());
        }
        let start = self.u32_at(DATA_START) as usize + SPEC;
        let text = self.buffer.get(start..).ok_or_else(malformed)?;
        let end = text.iter().position(|b| *b == 0).ok_or_else(malformed)?;
        std::str::from_utf8(&text[..end]).map_err(|_| malformed())
    }

    /// Sends `text` to the device's only target.
    ///
    /// # Errors
    /// The target's own, `InvalidInput` when the text does not fit the buffer.
    pub fn message(&mut self, dev: DevNum, text: &str) -> io::Result<()> {
        let end = HEADER + MESSAGE + text.len();
        if end >= BUFFER || text.contains('\0') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.header(dev, 0, end + 1);
        self.buffer[HEADER..HEADER + MESSAGE].fill(0);
        self.buffer[HEADER + MESSAGE..end].copy_from_slice(text.as_bytes());
        self.buffer[end] = 0;
        self.call(Command::Message)
    }

    /// Loads a table of one target over the whole device; the next resume makes it live.
    ///
    /// # Errors
    /// The target's own, `InvalidInput` when the parameters do not fit the buffer.
    pub fn load(&mut self, dev: DevNum, len: Sectors, target: &str, parameters: &str) -> io::Result<()> {
        let end = HEADER + SPEC + parameters.len();
        if end >= BUFFER || target.len() >= SPEC_TYPE_LEN || parameters.contains('\0') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.header(dev, 0, end + 1);
        self.put_u32(TARGET_COUNT, 1);
        let spec = &mut self.buffer[HEADER..];
        spec[..SPEC].fill(0);
        spec[SPEC_LENGTH..SPEC_LENGTH + 8].copy_from_slice(&len.0.to_ne_bytes());
        spec[SPEC_TYPE..SPEC_TYPE + target.len()].copy_from_slice(target.as_bytes());
        spec[SPEC..SPEC + parameters.len()].copy_from_slice(parameters.as_bytes());
        spec[SPEC + parameters.len()] = 0;
        self.call(Command::TableLoad)
    }

    fn header(&mut self, dev: DevNum, flags: u32, size: usize) {
        self.buffer[..HEADER].fill(0);
        // The lowest interface version with all of these commands; the kernel refuses only another major.
        self.put_u32(VERSION, 4);
        self.put_u32(DATA_SIZE, u32::try_from(size).unwrap_or(u32::MAX));
        self.put_u32(DATA_START, u32::try_from(HEADER).unwrap_or(u32::MAX));
        self.put_u32(FLAGS, flags);
        self.buffer[DEV..DEV + 8].copy_from_slice(&dev.encoded().to_ne_bytes());
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.buffer[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn u32_at(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.buffer[at..at + 4]);
        u32::from_ne_bytes(bytes)
    }

    fn call(&mut self, of: Command) -> io::Result<()> {
        command(&self.control, of, &mut self.buffer[..]).map_err(io::Error::from)
    }
}

/// One command of device-mapper. The buffer begins with its header, whose `data_size` is at most the buffer's.
fn command(control: &File, command: Command, buffer: &mut [u8]) -> Result<(), Errno> {
    let size = buffer.get(DATA_SIZE..DATA_SIZE + 4).and_then(|bytes| bytes.try_into().ok());
    let size = size.map_or(usize::MAX, |bytes| u32::from_ne_bytes(bytes) as usize);
    if buffer.len() < HEADER || size > buffer.len() {
        return Err(Errno::EINVAL);
    }
    let request = nix::request_code_readwrite!(DM_IOCTL, command as u8, HEADER);
    // SAFETY: the descriptor is open; the kernel reads and writes at most `data_size` bytes from
    // the pointer, and a header at least, which the buffer has (checked above); it is
    // exclusively borrowed and any bytes are valid in it.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), request, buffer.as_mut_ptr()) };
    Errno::result(result).map(drop)
}

fn semget(key: u32, flags: libc::c_int) -> Result<libc::c_int, Errno> {
    // SAFETY: the call takes integers only.
    Errno::result(unsafe { libc::semget(key.cast_signed(), 1, flags) })
}

fn semop(id: libc::c_int, count: i16, flags: libc::c_int) -> Result<(), Errno> {
    let flags = i16::try_from(flags).map_err(|_| Errno::EINVAL)?;
    let mut operation = libc::sembuf { sem_num: 0, sem_op: count, sem_flg: flags };
    // SAFETY: the one operation lives until the call returns.
    Errno::result(unsafe { libc::semop(id, &raw mut operation, 1) }).map(drop)
}

/// Commands that take no argument.
fn semctl(id: libc::c_int, command: libc::c_int) -> Result<libc::c_int, Errno> {
    // SAFETY: the commands that the callers pass, GETVAL and IPC_RMID, take no further argument.
    Errno::result(unsafe { libc::semctl(id, 0, command) })
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed status from device-mapper")
}

/// Size of an open block device in bytes (`BLKGETSIZE64`).
///
/// # Errors
/// `ENOTTY` when it is not a block device.
pub fn device_bytes(device: &impl AsFd) -> io::Result<u64> {
    let mut bytes = 0u64;
    let request = nix::request_code_read!(0x12, 114, size_of::<usize>());
    query(device.as_fd(), request, &mut bytes)?;
    Ok(bytes)
}

/// Logical block size of an open block device in bytes (`BLKSSZGET`).
///
/// # Errors
/// `ENOTTY` when it is not a block device.
pub fn logical_block_size(device: &impl AsFd) -> io::Result<u32> {
    let mut bytes: u32 = 0;
    query(device.as_fd(), nix::request_code_none!(0x12, 104), &mut bytes)?;
    Ok(bytes)
}

fn query<T>(fd: BorrowedFd<'_>, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: all callers pass integers of exactly the size that their request reads or writes.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// How far what was sent over a TCP connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    /// Bytes that the other side has acknowledged, since the connection began.
    pub acknowledged: u64,
    /// Bytes of the largest segment.
    pub segment: u32,
    /// How often the first of what is not acknowledged was sent again since the last acknowledgement.
    pub retries: u8,
    /// How long ago data came from the other side.
    pub heard: Duration,
}

/// Asks the kernel (`TCP_INFO`). Offsets within `struct tcp_info` of `linux/tcp.h`.
///
/// # Errors
/// When it is no TCP socket.
pub fn sending(socket: &impl AsFd) -> io::Result<Sending> {
    const RETRANSMITS: usize = 2;
    const SND_MSS: usize = 16;
    const LAST_DATA_RECV: usize = 52;
    const BYTES_ACKED: usize = 120;
    let mut info = [0u8; BYTES_ACKED + 8];
    let mut len = libc::socklen_t::try_from(info.len()).map_err(|_| malformed())?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `len` bytes to a buffer that has as many, and the length; both live until the
    // call returns.
    let result = unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut len)
    };
    Errno::result(result)?;
    let number = |at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&info[at..at + 4]);
        u32::from_ne_bytes(bytes)
    };
    let mut acknowledged = [0; 8];
    acknowledged.copy_from_slice(&info[BYTES_ACKED..]);
    Ok(Sending {
        acknowledged: u64::from_ne_bytes(acknowledged),
        segment: number(SND_MSS),
        retries: info[RETRANSMITS],
        heard: Duration::from_millis(number(LAST_DATA_RECV).into()),
    })
}

/// Makes a block device refuse the writes of programs, and file systems that are to be written to (`BLKROSET`). It is no
/// matter of its table, so it stays so when that changes.
///
/// # Errors
/// `EACCES` without `CAP_SYS_ADMIN`.
pub fn set_read_only(device: &impl AsFd, is_read_only: bool) -> io::Result<()> {
    query(device.as_fd(), nix::request_code_none!(0x12, 93), &mut libc::c_int::from(is_read_only))
}

/// Discards a range, in bytes, of a block device that is open for writing (`BLKDISCARD`). Returns when the
/// device has done so.
///
/// # Errors
/// `EOPNOTSUPP` when the device takes no discards, or not at the moment; the device's.
pub fn discard(device: &impl AsFd, start: u64, len: u64) -> io::Result<()> {
    query(device.as_fd(), nix::request_code_none!(0x12, 119), &mut [start, len])
}

/// Makes the process fit to run below a suspended device: all its memory stays resident, now and
/// later, and neither this thread nor those it starts from here on wait for I/O of the block layer
/// when they allocate. To be called first thing, before any other thread exists.
///
/// # Errors
/// When the process may not lock its memory (`RLIMIT_MEMLOCK`, `CAP_IPC_LOCK`) or lacks
/// `CAP_SYS_RESOURCE`.
pub fn enter_io_path() -> io::Result<()> {
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)?;
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: this option takes integers only.
    let result = unsafe { libc::prctl(PR_SET_IO_FLUSHER, on, unused, unused, unused) };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// How urgent a thread's work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Runs before everything that is not real-time, in the order of this number, 1 to 99.
    RealTime(u8),
    /// As every thread is at its start.
    Ordinary,
    /// A fair share, but never woken before others. Not less than that: where the guest keeps the
    /// processors busy, epochs that are not sent make the log overflow.
    Background,
    /// Runs while nobody else wants the processor, and gives way at once. Where others keep the processors busy it does not
    /// run: only for work that somebody more urgent watches.
    Idle,
}

/// A thread of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadId(libc::pid_t);

impl ThreadId {
    /// The calling thread.
    #[must_use]
    pub fn current() -> Self {
        Self(nix::unistd::gettid().as_raw())
    }
}

impl fmt::Display for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Sets the urgency of the calling thread. What it starts begins as ordinary. The kernel is asked
/// directly, because no crate here covers it: nix has no scheduling policies, and the ones that do bring
/// more `unsafe` than this call.
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE`, or when a control group has no real-time budget.
pub fn set_urgency(urgency: Urgency) -> io::Result<()> {
    set_urgency_of(ThreadId(0), urgency)
}

/// The same for another thread of this process.
///
/// # Errors
/// As [`set_urgency`]; `ESRCH` once it has ended.
pub fn set_urgency_of(thread: ThreadId, urgency: Urgency) -> io::Result<()> {
    let (policy, priority) = match urgency {
        Urgency::RealTime(priority) => (libc::SCHED_FIFO, priority),
        Urgency::Ordinary => (libc::SCHED_OTHER, 0),
        Urgency::Background => (libc::SCHED_BATCH, 0),
        Urgency::Idle => (libc::SCHED_IDLE, 0),
    };
    let param = libc::sched_param { sched_priority: priority.into() };
    // SAFETY: the parameter is read only and lives until the call returns; 0 is the calling thread, and a number that is no
    // thread is refused.
    let result =
        unsafe { libc::sched_setscheduler(thread.0, policy | libc::SCHED_RESET_ON_FORK, &raw const param) };
    Errno::result(result)?;
    Ok(())
}
