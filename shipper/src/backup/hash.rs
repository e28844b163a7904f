//! What the backup's volumes hold, by digests.
//!
//! Always holds: nothing is written; one piece is held in memory at a time.

use anyhow::Context;
use ftdm_units::{SECTOR_SIZE, Sectors};
use ftship_proto::verify::{Digests, HashRequest, Place};

use super::volume_device::Volumes;

impl Volumes {
    /// The digests that `request` asks for, of what the volumes hold now.
    ///
    /// # Errors
    /// When a volume cannot be read. That fails nothing else.
    pub(super) fn digests(&mut self, request: &HashRequest) -> anyhow::Result<Digests> {
        let mut digests = Digests::none(request.length);
        for place in &request.places {
            self.digest_place(*place, request, &mut digests)?;
        }
        Ok(digests)
    }

    fn digest_place(&mut self, place: Place, request: &HashRequest, out: &mut Digests) -> anyhow::Result<()> {
        let (device, buffer) =
            self.reader(place.volume).with_context(|| format!("{} is not open", place.volume))?;
        // Whole units at a time, as many as the buffer holds: a unit is never longer than that.
        let held = Sectors((buffer.bytes().len() / SECTOR_SIZE) as u64);
        let step = Sectors(held.0 - held.0 % request.unit.0);
        for piece in place.units(step) {
            device
                .read_extent(piece.extent, buffer.bytes_mut())
                .with_context(|| format!("volume {}: reading {}", device.path().display(), piece.extent))?;
            let len = usize::try_from(piece.extent.len().0).unwrap_or(0) * SECTOR_SIZE;
            out.add(&buffer.bytes()[..len], request.unit);
        }
        Ok(())
    }
}
