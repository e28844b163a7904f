//! The cut thread's part of enlarging the volumes, while nothing is captured.
//!
//! Always holds: the volumes are enlarged one after the other; nothing shows more than what every layer below it has.

use ftdm::pause::pulse::Pulse;
use ftdm::stack::Stack;
use ftdm_units::Sectors;
use ftship_proto::primary::CutResult;

use super::Capturing;

impl Capturing {
    /// Gives the layers below the visible devices at least these sizes.
    pub(super) fn enlarge(&mut self, sizes: &[Sectors]) -> CutResult {
        CutResult::Enlarged(self.each_size(sizes, |stack, size, pulse| Ok(stack.enlarge(size, pulse)?)))
    }

    /// Lets the visible devices show these sizes.
    pub(super) fn show(&mut self, sizes: &[Sectors]) -> CutResult {
        CutResult::Shown(self.each_size(sizes, |stack, size, pulse| Ok(stack.show(size, pulse)?)))
    }

    fn each_size(
        &mut self,
        sizes: &[Sectors],
        change: impl Fn(&mut Stack, Sectors, &dyn Pulse) -> anyhow::Result<()>,
    ) -> Result<(), String> {
        self.clear_leftovers()?;
        self.heartbeat.ensure();
        for (stack, size) in self.stacks.iter_mut().zip(sizes) {
            let name = stack.name().clone();
            let changed = change(stack, *size, &*self.heartbeat);
            changed.map_err(|error| format!("volume {name}: {error:#}"))?;
        }
        Ok(())
    }
}
