//! Where the state and the journal lie: a block device, or a regular file that is wholly allocated.
//!
//! Always holds: one process writes; what is read is what the disk holds, never what a failed write left in
//! the page cache; a flush succeeds only when everything written before is durable and a file is still as
//! long as when it was opened. A file is never grown here: all its blocks exist before it is used, so no
//! write of the daemon asks a file system for space.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ftdm::block_io::{Access, AlignedBuffer, BlockDevice, OpenError};
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::libc;

/// Bytes zeroed at a time.
const CHUNK: usize = 1 << 20;

/// What is said of a device that does not hold what it was given.
pub(crate) const LOST_WRITE: &str = "the device lost a write; replace it";

/// Why a device or file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A device that cannot be opened.
    #[error(transparent)]
    Device(#[from] OpenError),
    /// The system's error.
    #[error("{path}: {action}: {error}")]
    Io {
        /// The device or file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed. Told by the message, so it is no `source`.
        error: io::Error,
    },
    /// Another process has it.
    #[error("{0}: another process uses it: is the daemon running?")]
    InUse(PathBuf),
    /// A directory, a pipe or the like.
    #[error("{0} is neither a block device nor a regular file")]
    Kind(PathBuf),
    /// A file with holes: a write might find the file system full.
    #[error(
        "{path} is sparse: {allocated} of its {len} bytes are allocated, so a write could fail for want of \
         space; remove it and let `ftship format` make it"
    )]
    Sparse {
        /// The file.
        path: PathBuf,
        /// Bytes that have a place.
        allocated: u64,
        /// Its length.
        len: u64,
    },
}

/// An open device or file.
#[derive(Debug)]
pub struct Storage {
    kind: Kind,
    path: PathBuf,
}

#[derive(Debug)]
enum Kind {
    Device(BlockDevice),
    File { file: File, len: u64 },
}

impl Storage {
    /// Opens `path` for this process alone, to read and write.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        Self::open_with(path, true)
    }

    /// Opens `path` beside whoever writes it, to read only.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub fn open_to_read(path: &Path) -> Result<Self, StorageError> {
        Self::open_with(path, false)
    }

    fn open_with(path: &Path, write: bool) -> Result<Self, StorageError> {
        let failed = |action| move |error| StorageError::Io { path: path.into(), action, error };
        let found = std::fs::metadata(path).map_err(failed("open"))?;
        if found.file_type().is_block_device() {
            let device = BlockDevice::open(path, Access { write, direct: true, exclusive: write })?;
            return Ok(Self { kind: Kind::Device(device), path: path.into() });
        }
        if !found.is_file() {
            return Err(StorageError::Kind(path.into()));
        }
        let file = open_past_the_cache(path, write).map_err(failed("open"))?;
        if write {
            lock(&file, path)?;
            // A failed write leaves pages that look written. Whatever is still dirty goes to the disk now, and
            // the rest is forgotten, so that reading shows the disk.
            file.sync_all().map_err(failed("flush"))?;
        }
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .map_err(|error| failed("drop the page cache")(error.into()))?;
        let len = found.len();
        let allocated = found.blocks().saturating_mul(512);
        if allocated < len {
            return Err(StorageError::Sparse { path: path.into(), allocated, len });
        }
        Ok(Self { kind: Kind::File { file, len }, path: path.into() })
    }

    /// Makes a file of `len` zero bytes, all of them allocated, durably: the file and its name.
    ///
    /// # Errors
    /// When the file is there already, or the file system has no room; then nothing is left behind.
    pub fn create(path: &Path, len: u64) -> Result<Self, StorageError> {
        let failed = |action| move |error| StorageError::Io { path: path.into(), action, error };
        let mut options = File::options();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(path).map_err(failed("create"))?;
        let made = allocate(&file, len).map_err(failed("allocate")).and_then(|()| {
            drop(file);
            let storage = Self::open(path)?;
            storage.zero(len).map_err(failed("zero"))?;
            storage.flush().map_err(failed("flush"))?;
            sync_directory(path).map_err(failed("flush the directory"))?;
            Ok(storage)
        });
        if made.is_err()
            && let Err(error) = std::fs::remove_file(path)
        {
            log::warn!("{}: left behind: {error}", path.display());
        }
        made
    }

    fn zero(&self, len: u64) -> io::Result<()> {
        let zeroes = AlignedBuffer::new(CHUNK);
        let mut offset = 0;
        while offset < len {
            let piece = usize::try_from(len - offset).map_or(CHUNK, |left| left.min(CHUNK));
            self.write_at(offset, &zeroes.bytes()[..piece])?;
            offset += piece as u64;
        }
        Ok(())
    }

    /// The device or file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes when it was opened.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.kind {
            Kind::Device(device) => device.size().bytes().unwrap_or(u64::MAX),
            Kind::File { len, .. } => *len,
        }
    }

    /// Whether it has no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer`, aligned memory of whole blocks, from byte `offset` on.
    ///
    /// # Errors
    /// The disk's; `UnexpectedEof` beyond the end.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match &self.kind {
            Kind::Device(device) => device.read_at(offset, buffer),
            Kind::File { file, .. } => file.read_exact_at(buffer, offset),
        }
    }

    /// Writes `data`, aligned memory of whole blocks, at byte `offset`.
    ///
    /// # Errors
    /// The disk's.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &self.kind {
            Kind::Device(device) => device.write_at(offset, data),
            Kind::File { file, .. } => file.write_all_at(data, offset),
        }
    }

    /// Returns when everything written before is durable.
    ///
    /// # Errors
    /// The disk's: nothing is known about what was written then. Also when a file is not as long any more as
    /// when it was opened: somebody truncated it.
    pub fn flush(&self) -> io::Result<()> {
        match &self.kind {
            Kind::Device(device) => device.flush(),
            Kind::File { file, len } => {
                // Nothing but times can have changed about the file itself.
                file.sync_data()?;
                let now = file.metadata()?.len();
                if now == *len {
                    return Ok(());
                }
                Err(io::Error::other(format!(
                    "the file was {len} bytes long and is {now} now: another process changed it"
                )))
            }
        }
    }
}

/// Opens with direct I/O; where the file system has none, without.
fn open_past_the_cache(path: &Path, write: bool) -> io::Result<File> {
    let open = |flags| File::options().read(true).write(write).custom_flags(flags).open(path);
    match open(libc::O_DIRECT) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(0),
        result => result,
    }
}

fn lock(file: &File, path: &Path) -> Result<(), StorageError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => StorageError::InUse(path.into()),
        TryLockError::Error(error) => StorageError::Io { path: path.into(), action: "lock", error },
    })
}

fn allocate(file: &File, len: u64) -> io::Result<()> {
    let len = libc::off_t::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    fallocate(file, FallocateFlags::empty(), 0, len)?;
    file.sync_all()
}

/// Makes the file's name durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A path in a folder of its own, on a file system that may or may not know direct I/O.
    pub(crate) fn scratch(name: &str) -> PathBuf {
        let mut id = [0; 8];
        getrandom::fill(&mut id).unwrap();
        let folder = std::env::temp_dir().join(format!("ftship-{:x}", u64::from_le_bytes(id)));
        std::fs::create_dir(&folder).unwrap();
        folder.join(name)
    }

    pub(crate) fn forget(path: &Path) {
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_created_file_is_whole_locked_and_keeps_what_is_written() {
        let path = scratch("journal");
        let storage = Storage::create(&path, 1 << 20).unwrap();
        assert_eq!(storage.len(), 1 << 20);
        assert!(matches!(Storage::open(&path), Err(StorageError::InUse(_))));
        let mut buffer = AlignedBuffer::new(8192);
        buffer.bytes_mut().fill(7);
        storage.write_at(4096, buffer.bytes()).unwrap();
        storage.flush().unwrap();
        drop(storage);
        let storage = Storage::open(&path).unwrap();
        storage.read_at(0, buffer.bytes_mut()).unwrap();
        assert!(buffer.bytes()[..4096].iter().all(|b| *b == 0));
        assert!(buffer.bytes()[4096..].iter().all(|b| *b == 7));
        assert!(matches!(Storage::create(&path, 1 << 20), Err(StorageError::Io { action: "create", .. })));
        forget(&path);
    }

    #[test]
    fn a_sparse_file_is_refused() {
        let path = scratch("sparse");
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let text = Storage::open(&path).unwrap_err().to_string();
        assert!(text.contains("sparse") && text.contains("ftship format"), "{text}");
        forget(&path);
    }

    #[test]
    fn a_file_that_shrinks_fails_its_next_flush() {
        let path = scratch("shrinks");
        let storage = Storage::create(&path, 1 << 20).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
        let text = storage.flush().unwrap_err().to_string();
        assert!(text.contains("1048576") && text.contains("4096"), "{text}");
        let mut buffer = AlignedBuffer::new(4096);
        assert!(storage.read_at(8192, buffer.bytes_mut()).is_err());
        forget(&path);
    }

    #[test]
    fn what_is_neither_device_nor_file_is_refused() {
        assert!(matches!(Storage::open(Path::new("/")), Err(StorageError::Kind(_))));
        assert!(matches!(Storage::open(Path::new("/dev/null")), Err(StorageError::Kind(_))));
    }
}
