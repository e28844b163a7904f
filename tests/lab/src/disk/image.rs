//! The memory of a user-mode-linux that it does not share with the disk: its program's own code and data.
//!
//! To the host that is physical memory from address 0 on, and later kernels (seen on 7.2) keep the page of zeros there,
//! from which the kernel writes whenever it has something to blank. It is read from the process itself, and written there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// The program of the host at the other end of a disk's socket.
#[derive(Debug)]
pub(super) struct ProgramImage {
    memory: File,
    /// Where its first byte is in the process, and how many there are.
    base: u64,
    length: u64,
}

impl ProgramImage {
    /// Of the process that made this connection.
    pub(super) fn of(host: &UnixStream) -> io::Result<Self> {
        let process = getsockopt(host, PeerCredentials)?.pid();
        let folder = format!("/proc/{process}");
        let program = fs::read_link(format!("{folder}/exe"))?;
        let maps = fs::read_to_string(format!("{folder}/maps"))?;
        let (base, length) = span(&maps, &program.to_string_lossy())
            .ok_or_else(|| io::Error::other("the host's program is not in its own memory"))?;
        let memory = File::options().read(true).write(true).open(format!("{folder}/mem"))?;
        Ok(Self { memory, base, length })
    }

    /// Reads at a physical address of the host.
    pub(super) fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.memory.read_exact_at(buffer, self.place(address, buffer.len())?)
    }

    /// Writes at a physical address of the host.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.memory.write_all_at(bytes, self.place(address, bytes.len())?)
    }

    fn place(&self, address: u64, length: usize) -> io::Result<u64> {
        let end = address.checked_add(length as u64).filter(|end| *end <= self.length);
        end.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("no memory is at {address:#x}"))
        })?;
        Ok(self.base + address)
    }
}

/// Where a program lies in memory, what it has not initialised included: from its first mapping to the end of those
/// that follow without a gap.
fn span(maps: &str, program: &str) -> Option<(u64, u64)> {
    let mappings = maps.lines().filter_map(|line| {
        let (from, to) = line.split_whitespace().next()?.split_once('-')?;
        let range = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        Some((range, line.ends_with(program)))
    });
    let mut of_program = mappings.skip_while(|(_, named)| !named).map(|(range, _)| range);
    let (base, mut end) = of_program.next()?;
    for (from, to) in of_program {
        if from != end {
            break;
        }
        end = to;
    }
    Some((base, end - base))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_program_ends_at_the_first_gap() {
        let maps = "00400000-00401000 r--p 00000000 00:31 7 /lab/other\n\
            60000000-60008000 r--p 00000000 00:31 9 /lab/linux\n\
            60008000-60700000 rwxp 00008000 00:31 9 /lab/linux\n\
            60700000-60800000 rwxp 00000000 00:00 0 \n\
            60900000-a0000000 rwxs 00800000 00:01 3 /dev/shm/memory\n";
        assert_eq!(span(maps, "/lab/linux"), Some((0x6000_0000, 0x80_0000)));
        assert_eq!(span(maps, "/lab/none"), None);
    }

    #[test]
    fn what_a_process_has_in_its_image_is_written_to_it() {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let (here, _there) = UnixStream::pair().unwrap();
        let image = ProgramImage::of(&here).unwrap();
        let address = NUMBER.as_ptr().addr() as u64 - image.base;
        image.write(address, &7_u64.to_ne_bytes()).unwrap();
        assert_eq!(NUMBER.load(Ordering::SeqCst), 7);
        assert!(image.write(image.length - 4, &[0; 8]).is_err());
    }

    #[test]
    fn what_a_process_has_in_its_image_is_read_from_it() {
        static NUMBER: &[u8; 8] = b"in image";
        let (here, _there) = UnixStream::pair().unwrap();
        let image = ProgramImage::of(&here).unwrap();
        let mut bytes = [0; 8];
        image.read(NUMBER.as_ptr().addr() as u64 - image.base, &mut bytes).unwrap();
        assert_eq!(&bytes, NUMBER);
        assert!(image.read(image.length - 4, &mut bytes).is_err());
        assert!(image.read(u64::MAX - 3, &mut bytes).is_err());
    }
}
