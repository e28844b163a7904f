//! The cut thread's part of enlarging the volumes, while nothing is captured.
//!
//! Always holds: the volumes are enlarged one after the other; nothing shows more than what every layer below it has.

use anyhow::Context;
use ftdm::stack::Stack;
use ftdm_units::Sectors;
use ftship_proto::primary::CutResult;

use super::Capturing;

impl Capturing {
    /// Gives the layers below the visible devices at least these sizes.
    pub(super) fn enlarge(&mut self, sizes: &[Sectors]) -> CutResult {
        let enlarged = self.each_size(sizes, |stack, size, pulse| Ok(stack.enlarge(size, pulse)?));
        CutResult::Enlarged(enlarged.map_err(|error| format!("{error:#}")))
    }

    /// Lets the visible devices show these sizes.
    pub(super) fn show(&mut self, sizes: &[Sectors]) -> CutResult {
        let shown = self.each_size(sizes, |stack, size, pulse| Ok(stack.show(size, pulse)?));
        CutResult::Shown(shown.map_err(|error| format!("{error:#}")))
    }

    fn each_size(
        &mut self,
        sizes: &[Sectors],
        change: impl Fn(&mut Stack, Sectors, &dyn ftdm::pause::pulse::Pulse) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.clear_leftovers().map_err(anyhow::Error::msg)?;
        self.heartbeat.ensure();
        for (stack, size) in self.stacks.iter_mut().zip(sizes) {
            let name = stack.name().clone();
            change(stack, *size, &*self.heartbeat).with_context(|| format!("volume {name}"))?;
        }
        Ok(())
    }
}
