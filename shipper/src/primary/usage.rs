//! Who uses the protected volumes: what decides whether a primary may step down.
//!
//! Always holds: what cannot be found out counts as used; two marks are the same only within one boot, of the same devices,
//! with as many writes.

use ftdm::block_io::sysfs;
use ftdm::stack::Stack;
use ftship_proto::primary::Usage;
use ftship_proto::state::WriteMark;
use sha2::{Digest, Sha256};

/// Another one for each boot of the host.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Looks at the visible devices of a group.
#[derive(Debug)]
pub(super) struct Onlooker {
    stacks: Vec<Stack>,
}

impl Onlooker {
    pub(super) fn new(stacks: &[Stack]) -> Self {
        Self { stacks: stacks.to_vec() }
    }

    /// How they are used now.
    pub(super) fn look(&self) -> Usage {
        let is_open = |stack: &Stack| stack.info().map_or(true, |info| info.open_count > 0);
        let is_written = |stack: &Stack| writes(stack).is_none_or(|writes| writes > 0);
        let (open, written) = (self.stacks.iter().any(is_open), self.stacks.iter().any(is_written));
        Usage { open, written, mark: self.mark() }
    }

    /// What changes with each write, and when a device is made again. `None` on kernels that do not number devices.
    fn mark(&self) -> Option<WriteMark> {
        let mut hash = Sha256::new();
        hash.update(std::fs::read(BOOT_ID).ok()?);
        for stack in &self.stacks {
            let made = std::fs::read_to_string(sysfs(stack.top()).join("diskseq")).ok()?;
            hash.update(made.trim().parse::<u64>().ok()?.to_le_bytes());
            hash.update(writes(stack)?.to_le_bytes());
        }
        hash.finalize().first_chunk().copied().map(WriteMark)
    }
}

/// Writes that the visible device has completed since it was made.
fn writes(stack: &Stack) -> Option<u64> {
    let text = std::fs::read_to_string(sysfs(stack.top()).join("stat")).ok()?;
    text.split_whitespace().nth(4)?.parse().ok()
}
