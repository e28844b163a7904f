//! What both sides were found to hold at an earlier verify: with it a difference that is found later tells whose volume
//! changed.
//!
//! Where the backup still holds what both held, and the primary does not, the primary's volume was changed and nothing
//! was shipped of it: somebody wrote below the stack, or the tracking has missed a write.
//!
//! Always holds: memory is bounded, whatever the size of the volumes; what is not known accuses nobody.

use ftdm_units::Sectors;

use crate::ids::Digest;
use crate::verify::Place;

/// Most blocks that are remembered of all volumes: 64 MiB of memory, for 512 GiB in blocks of 64 KiB.
const MAX_BLOCKS: usize = 8 << 20;

/// The beginning of each block's digest; 0 where it is not known.
#[derive(Debug, Default)]
pub(super) struct Agreed {
    volumes: Vec<Vec<u64>>,
    count: usize,
}

impl Agreed {
    /// Both sides hold this in a block, `place`, of so many sectors.
    pub(super) fn note(&mut self, place: Place, block: Sectors, digest: &Digest) {
        let Some((volume, at)) = index(place, block) else { return };
        if self.volumes.len() <= volume {
            self.volumes.resize(volume + 1, Vec::new());
        }
        let missing = (at + 1).saturating_sub(self.volumes[volume].len());
        if self.count + missing > MAX_BLOCKS {
            return;
        }
        self.count += missing;
        let known = &mut self.volumes[volume];
        known.resize(known.len() + missing, 0);
        known[at] = beginning(digest);
    }

    /// Whether anything is known of that block.
    pub(super) fn knows(&self, place: Place, block: Sectors) -> bool {
        self.at(place, block).is_some()
    }

    /// Whether it is known that both sides held this there.
    pub(super) fn is(&self, place: Place, block: Sectors, digest: &Digest) -> bool {
        self.at(place, block) == Some(beginning(digest))
    }

    fn at(&self, place: Place, block: Sectors) -> Option<u64> {
        let (volume, at) = index(place, block)?;
        self.volumes.get(volume)?.get(at).copied().filter(|known| *known != 0)
    }
}

fn index(place: Place, block: Sectors) -> Option<(usize, usize)> {
    let at = place.extent.start().0.checked_div(block.0)?;
    Some((usize::from(place.volume.0), usize::try_from(at).ok()?))
}

fn beginning(digest: &Digest) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = digest.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::VolumeIndex;
    use crate::testing::extent;

    #[test]
    fn what_is_not_known_or_has_no_room_accuses_nobody() {
        let block = Sectors(128);
        let place = |volume, at: u64| Place { volume: VolumeIndex(volume), extent: extent(at * 128, 128) };
        let (one, other) = (Digest([1; 32]), Digest([2; 32]));
        let mut agreed = Agreed::default();
        agreed.note(place(1, 3), block, &one);
        assert!(agreed.is(place(1, 3), block, &one) && !agreed.is(place(1, 3), block, &other));
        for unknown in [place(0, 3), place(1, 2), place(1, 4), place(2, 3)] {
            assert!(!agreed.knows(unknown, block) && !agreed.is(unknown, block, &one), "{unknown:?}");
        }
        let far = MAX_BLOCKS as u64;
        agreed.note(place(0, far), block, &one);
        assert!(!agreed.knows(place(0, far), block));
        assert_eq!(agreed.volumes[0].len(), 0, "nothing was taken for it");
        agreed.note(place(0, far - 5), block, &one);
        assert!(agreed.knows(place(0, far - 5), block) && agreed.count <= MAX_BLOCKS);
    }
}
