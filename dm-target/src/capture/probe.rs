//! What a kernel has to refuse before a volume is captured on it.
//!
//! log-writes copies a write page by page and takes each part for whole sectors. A direct write from memory that is not
//! aligned to a sector has parts that are not, and is logged shifted: the replica would be wrong, and nothing would say
//! so. Linux refused such writes of a device over log-writes until 6.17; from 6.18 to 7.1 they may be taken.
//!
//! Always holds: a capture begins only where the log's device was seen to refuse them. Nothing is written for that.

use nix::errno::Errno;

use super::{CaptureError, step};
use crate::block_io::{ALIGN, AlignedBuffer, BlockDevice};
use crate::kernel_gate::kernel_release;
use crate::log_writes::BlockRead;
use crate::units::SECTOR_SIZE;

/// How far the memory is off.
const OFF: usize = 16;

/// Makes sure that `log`, opened for direct I/O, takes none from memory that is not aligned to a sector.
pub(super) fn require_alignment(log: &BlockDevice) -> Result<(), CaptureError> {
    let block = usize::try_from(log.logical_block()).unwrap_or(SECTOR_SIZE);
    judge(log, block)
}

fn judge(log: &impl BlockRead, block: usize) -> Result<(), CaptureError> {
    let mut buffer = AlignedBuffer::new(ALIGN + block);
    match log.read_at(0, &mut buffer.bytes_mut()[OFF..OFF + block]) {
        Ok(()) => Err(CaptureError::Unaligned { kernel: kernel_release() }),
        Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(()),
        Err(e) => Err(step("try the log's device")(e)),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Refuses what its alignment does not allow, as the kernel does.
    struct Disk {
        alignment: usize,
        block: usize,
        fails: bool,
    }

    impl BlockRead for Disk {
        fn read_at(&self, _: u64, buffer: &mut [u8]) -> io::Result<()> {
            let is_aligned = (buffer.as_ptr() as usize).is_multiple_of(self.alignment);
            match is_aligned && buffer.len().is_multiple_of(self.block) {
                false => Err(Errno::EINVAL.into()),
                true if self.fails => Err(Errno::EIO.into()),
                true => Ok(()),
            }
        }
    }

    #[test]
    fn a_kernel_that_takes_unaligned_memory_is_refused_by_name() {
        for block in [512, 4096] {
            for alignment in [1, 4, 16] {
                let refused = judge(&Disk { alignment, block, fails: false }, block);
                let text = refused.unwrap_err().to_string();
                assert!(text.contains(&kernel_release()) && text.contains("capture = \"era\""), "{text}");
            }
            for alignment in [32, 512] {
                judge(&Disk { alignment, block, fails: false }, block).unwrap();
            }
            // Not proven: it might have taken it.
            assert!(judge(&Disk { alignment: 4, block, fails: true }, block).is_err());
        }
    }
}
