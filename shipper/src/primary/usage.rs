//! Who uses the protected volumes: what decides whether a primary may step down.
//!
//! Always holds: what cannot be found out counts as used.

use ftdm::block_io::sysfs;
use ftdm::stack::Stack;
use ftship_proto::primary::Usage;

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
        Usage { open: self.stacks.iter().any(is_open), written: self.stacks.iter().any(is_written) }
    }
}

/// Writes that the visible device has completed since it was made.
fn writes(stack: &Stack) -> Option<u64> {
    let text = std::fs::read_to_string(sysfs(stack.top()).join("stat")).ok()?;
    text.split_whitespace().nth(4)?.parse().ok()
}
