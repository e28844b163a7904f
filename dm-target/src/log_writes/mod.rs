//! The log that log-writes keeps: its format, an incremental reader that follows it as it grows,
//! and the part of it that makes one epoch.
//!
//! Always holds: nothing here writes; no entry is believed before the super counts it, and no
//! number in the log is used before it was checked against the volume's and the log's size.

pub mod epoch_log;
pub mod format;
pub(crate) mod mark;
pub mod reader;
pub mod status;

use std::io;

/// Something whose bytes can be read at a place: a log device, or a log in memory (bytes).
pub trait BlockRead {
    /// Fills `buffer` from byte `offset` on.
    ///
    /// # Errors
    /// The device's; `UnexpectedEof` beyond its end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl BlockRead for crate::block_io::BlockDevice {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        Self::read_at(self, offset, buffer)
    }
}

impl BlockRead for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = self.get(start..start.saturating_add(buffer.len()));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
