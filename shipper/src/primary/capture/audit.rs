//! Digests of whole volumes, read while these stand still, for audits and tests.
//!
//! Always holds: whoever would bring the volumes back hears that the reading goes on.

use std::fs::File;
use std::io::{self, Write};

use anyhow::Context;
use ftdm::block_io::AlignedBuffer;
use ftdm::pause::pulse::{Phase, Pulse};
use ftdm_units::{Extent, SECTOR_SIZE, Sector, Sectors};
use ftship_proto::ids::{Digest, Epoch};
use sha2::{Digest as _, Sha256};

/// Appends `EPOCH SHA256...`, the digests in the group's order.
pub(in crate::primary) fn note_digests(
    file: &mut File,
    epoch: Epoch,
    digests: Vec<io::Result<Digest>>,
) -> anyhow::Result<()> {
    let mut line = epoch.0.to_string();
    for digest in digests {
        line.push_str(&format!(" {}", digest.context("reading a volume for the audit")?));
    }
    writeln!(file, "{line}").context("writing the audit file")
}

/// SHA-256 of a whole volume of `size`, which `read` reads.
pub(in crate::primary) fn volume_digest(
    size: Sectors,
    read: impl Fn(Extent, &mut [u8]) -> io::Result<()>,
    pulse: &dyn Pulse,
) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = AlignedBuffer::new(1 << 20);
    let mut next = Sector(0);
    while let Some(extent) = Extent::between(next, Sector((next.0 + 2048).min(size.0))) {
        pulse.beat(Phase::Paused);
        read(extent, buffer.bytes_mut())?;
        let len = usize::try_from(extent.len().0).unwrap_or(0) * SECTOR_SIZE;
        hasher.update(&buffer.bytes()[..len]);
        next = extent.end();
    }
    Ok(Digest(hasher.finalize().into()))
}
