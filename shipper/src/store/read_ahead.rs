//! Reading the journal from one end to the other, in large pieces.
//!
//! Always holds: what is given out is what the device has at that place, and an error is given out only for what was asked
//! for: where a large piece cannot be read, exactly the bytes that are wanted are tried.

use ftdm::block_io::AlignedBuffer;
use ftship_proto::journal::ReadAt;

use crate::store::storage::Storage;

/// Bytes that are read at once: larger than the largest frame.
const WINDOW: usize = 8 << 20;

/// Reads whole blocks of a device that nobody writes to meanwhile.
pub(crate) struct ReadAhead<'a> {
    device: &'a Storage,
    window: AlignedBuffer,
    /// What the window holds: from here, so many bytes.
    at: u64,
    len: usize,
    /// Up to here nothing is read ahead: a place before it could not be read.
    careful_until: u64,
    /// Bytes read so far.
    read: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl<'a> ReadAhead<'a> {
    /// `progress` hears how many bytes were read, after each piece.
    pub(crate) fn new(device: &'a Storage, progress: &'a mut dyn FnMut(u64)) -> Self {
        let window = AlignedBuffer::new(WINDOW);
        Self { device, window, at: 0, len: 0, careful_until: 0, read: 0, progress }
    }

    /// Bytes read so far.
    pub(crate) fn read(&self) -> u64 {
        self.read
    }

    fn end(&self) -> u64 {
        self.at + self.len as u64
    }

    /// Moves the window to `offset`, and fills it from the device; what it holds already is not read again.
    fn move_to(&mut self, offset: u64, wanted: usize) -> std::io::Result<()> {
        let kept = if (self.at..self.end()).contains(&offset) {
            // Less than the window, which is in memory.
            usize::try_from(self.end() - offset).unwrap_or_default()
        } else {
            0
        };
        let held = self.len;
        self.window.bytes_mut().copy_within(held - kept..held, 0);
        (self.at, self.len) = (offset, kept);
        let left = usize::try_from(self.device.len().saturating_sub(self.end())).unwrap_or(usize::MAX);
        let ahead = if offset < self.careful_until { 0 } else { left.min(WINDOW - kept) };
        if kept + ahead >= wanted && self.fill(ahead).is_ok() {
            return Ok(());
        }
        if ahead > 0 {
            self.careful_until = offset + WINDOW as u64;
        }
        self.fill(wanted - kept)
    }

    /// Reads so many bytes after what the window holds.
    fn fill(&mut self, len: usize) -> std::io::Result<()> {
        let (from, to) = (self.len, self.len + len);
        self.device.read_at(self.end(), &mut self.window.bytes_mut()[from..to])?;
        self.len = to;
        self.read += len as u64;
        (self.progress)(self.read);
        Ok(())
    }
}

impl ReadAt for ReadAhead<'_> {
    type Error = std::io::Error;

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Self::Error> {
        if offset < self.at || offset + out.len() as u64 > self.end() {
            self.move_to(offset, out.len())?;
        }
        // It lies in the window.
        let from = usize::try_from(offset - self.at).unwrap_or_default();
        out.copy_from_slice(&self.window.bytes()[from..from + out.len()]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::storage::tests::{forget, scratch};

    const BLOCK: usize = 4096;

    #[test]
    fn it_reads_each_byte_once_and_gives_out_what_is_there() {
        let path = scratch("ahead");
        let len = 3 * WINDOW + 5 * BLOCK;
        let storage = Storage::create(&path, len as u64).unwrap();
        let mut block = AlignedBuffer::new(BLOCK);
        for at in (0..len).step_by(BLOCK) {
            block.bytes_mut().fill(u8::try_from(at / BLOCK % 251).unwrap());
            storage.write_at(at as u64, block.bytes()).unwrap();
        }
        let mut pieces = 0;
        let mut count = |_| pieces += 1;
        let mut ahead = ReadAhead::new(&storage, &mut count);
        let mut out = vec![0; 300 * BLOCK];
        let mut at = 0;
        // As the journal is read: a block, then all of the frame that it begins.
        for frame in (1..300).cycle() {
            let size = (frame * BLOCK).min(len - at);
            for want in [BLOCK.min(size), size] {
                ahead.read_at(at as u64, &mut out[..want]).unwrap();
                let right = |(i, byte): (usize, &u8)| usize::from(*byte) == (at + i) / BLOCK % 251;
                assert!(out[..want].iter().enumerate().all(right));
            }
            at += size;
            if at == len {
                break;
            }
        }
        assert_eq!(ahead.read(), len as u64);
        ahead.read_at(0, &mut out[..BLOCK]).unwrap();
        assert!(ahead.read_at(len as u64, &mut out[..BLOCK]).is_err());
        ahead.read_at((len - BLOCK) as u64, &mut out[..BLOCK]).unwrap();
        assert!(pieces <= 7, "{pieces}");
        forget(&path);
    }
}
