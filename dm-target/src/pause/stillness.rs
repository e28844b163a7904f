//! The proof that nobody writes to a device that is not suspended.
//!
//! Always holds: two looks that are equal and show nothing in flight prove that no write was submitted
//! and completed between them; with the kernel's counting switched off there is no proof. What they
//! cannot see is a page cache above: whoever asks for a cut without a suspend opens the device with
//! `O_DIRECT`, or has synced it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::block_io::{sysfs, write_attribute};
use crate::units::DevNum;

/// Numbers in `stat` that change with each write: writes and their sectors, discards and theirs, flushes
/// (`Documentation/block/stat.rst`).
const FIELDS: [usize; 5] = [4, 6, 11, 13, 15];

/// The kernel's counters of one device, opened before.
#[derive(Debug)]
pub(crate) struct Stillness {
    stat: File,
    in_flight: File,
    counts: File,
}

/// What the counters said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Writes submitted and not completed.
    pub(crate) in_flight: u64,
    written: [u64; FIELDS.len()],
}

impl Stillness {
    /// Opens the counters of `device`, and has the kernel count.
    pub(crate) fn open(device: DevNum) -> io::Result<Self> {
        // Linux 6.1 shows 0 here for device-mapper and counts all the same; later ones do as it says.
        let counts = File::options().write(true).open(sysfs(device).join("queue/iostats"))?;
        write_attribute(&counts, "1")?;
        Self::open_as_it_is(device)
    }

    /// Opens the counters of `device`, which may not count.
    pub(crate) fn open_as_it_is(device: DevNum) -> io::Result<Self> {
        let open = |name: &str| File::open(sysfs(device).join(name));
        Ok(Self { stat: open("stat")?, in_flight: open("inflight")?, counts: open("queue/iostats")? })
    }

    /// Writes and discards submitted and not completed.
    pub(crate) fn writes_in_flight(&self) -> io::Result<u64> {
        number(read(&self.in_flight, &mut [0; 512])?, 1)
    }

    /// Looks at the counters. Does not allocate.
    pub(crate) fn look(&self) -> io::Result<Look> {
        let mut buffer = [0; 512];
        if read(&self.counts, &mut buffer)?.trim() != "1" {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        let in_flight = number(read(&self.in_flight, &mut buffer)?, 1)?;
        let text = read(&self.stat, &mut buffer)?;
        let mut written = [0; FIELDS.len()];
        for (count, field) in written.iter_mut().zip(FIELDS) {
            *count = number(text, field)?;
        }
        Ok(Look { in_flight, written })
    }
}

fn read<'a>(file: &File, buffer: &'a mut [u8]) -> io::Result<&'a str> {
    let len = file.read_at(buffer, 0)?;
    std::str::from_utf8(&buffer[..len]).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn number(text: &str, field: usize) -> io::Result<u64> {
    let word = text.split_ascii_whitespace().nth(field);
    word.and_then(|word| word.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_nought_and_missing_ones_are_errors() {
        let text = "  10 0 80 1 20 0 160 2 0 3 4 5 6 7 8 9 10\n";
        assert_eq!(FIELDS.map(|field| number(text, field).unwrap()), [20, 160, 5, 7, 9]);
        assert!(number(text, 17).is_err());
        assert!(number("a b", 1).is_err());
    }
}
