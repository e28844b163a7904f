//! Comparing the two sides of a pair that is stopped: a list of digests is written on one host and held against the
//! volumes of the other.
//!
//! ```text
//! ftdm-digests 1              magic and version
//! group NAME
//! unit 2048                   sectors for each digest
//! volume INDEX SECTORS        for each volume, in the group's order, then its digests:
//! HEX                         SHA-256 of each unit; the last one may be shorter
//! end HEX                     SHA-256 of all lines before
//! ```
//!
//! Always holds: the volumes are only read; a list that is cut off, changed, or of other volumes is refused, whatever
//! part of it was compared before.

use std::io::{BufRead, Write};

use anyhow::Context;
use ftdm::block_io::{Access, AlignedBuffer, BlockDevice};
use ftdm_units::{Extent, SECTOR_SIZE, Sector, Sectors};
use ftship_proto::ids::Digest;
use ftship_proto::state::Role;
use ftship_proto::verify::digests_of;
use sha2::{Digest as _, Sha256};

use crate::config::{Config, Volume};
use crate::control::Differing;
use crate::store::journal_view::{EpochLine, EpochState, View};
use crate::store::state_file::{StateFile, agreed_sizes};

const MAGIC: &str = "ftdm-digests 1";
/// Sectors for each digest: 1 MiB.
const UNIT: Sectors = Sectors(2048);
/// Longest line, in bytes.
const MAX_LINE: u64 = 256;

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Where the volumes differ, in units of 1 MiB, neighbours joined.
    pub differing: Vec<Differing>,
    /// Bytes compared.
    pub bytes: u64,
}

/// Writes the digests of the group's volumes on this host.
///
/// # Errors
/// When a volume cannot be read, or the list not be written.
pub fn write(config: &Config, out: &mut impl Write) -> anyhow::Result<u64> {
    let mut hasher = Sha256::new();
    let mut bytes = 0;
    let mut line = |text: String| {
        hasher.update(text.as_bytes());
        hasher.update(b"\n");
        writeln!(out, "{text}").context("writing the list")
    };
    line(MAGIC.into())?;
    line(format!("group {}", config.group))?;
    line(format!("unit {}", UNIT.0))?;
    let sizes = agreed_sizes(&config.state).unwrap_or_default();
    for (index, volume) in config.volume.iter().enumerate() {
        let mut units = Units::open(volume, sizes.get(index).copied())?;
        line(format!("volume {index} {}", units.size().0))?;
        while let Some((extent, digest)) = units.next()? {
            line(digest.to_string())?;
            bytes += extent.len().bytes().unwrap_or(0);
        }
    }
    writeln!(out, "end {}", Digest(hasher.finalize().into())).context("writing the list")?;
    out.flush().context("writing the list")?;
    Ok(bytes)
}

/// Compares the group's volumes on this host with a list that was written on the other.
///
/// # Errors
/// When a volume cannot be read, or the list is not whole, of another group, version or size.
pub fn against(config: &Config, list: &mut impl BufRead) -> anyhow::Result<Comparison> {
    let mut lines = Lines { list, hasher: Sha256::new(), number: 0 };
    let mut found = Comparison::default();
    lines.expect(MAGIC)?;
    lines.expect(&format!("group {}", config.group))?;
    lines.expect(&format!("unit {}", UNIT.0))?;
    let sizes = agreed_sizes(&config.state).unwrap_or_default();
    for (index, volume) in config.volume.iter().enumerate() {
        let mut units = Units::open(volume, sizes.get(index).copied())?;
        lines.expect(&format!("volume {index} {}", units.size().0))?;
        while let Some((extent, digest)) = units.next()? {
            found.bytes += extent.len().bytes().unwrap_or(0);
            if lines.next()? != digest.to_string() {
                found.add(volume, extent);
            }
        }
    }
    let digest = Digest(lines.hasher.clone().finalize().into());
    lines.expect(&format!("end {digest}"))?;
    Ok(found)
}

/// Why this host's volumes do not hold what they will hold: epochs that are in the journal only. `None`: they do.
///
/// # Errors
/// When the state or the journal cannot be read.
pub fn unapplied(config: &Config) -> anyhow::Result<Option<String>> {
    let state = StateFile::open_to_read(&config.state)?.read()?.context("the state is not formatted")?;
    if state.role == Role::Primary {
        return Ok(None);
    }
    let view = View {
        path: &config.journal.device,
        group: &config.group,
        state: Some(&state),
        state_damage: None,
        daemon: false,
        all: false,
    };
    let picture = view.take()?;
    let waits = |line: &&EpochLine| matches!(line.state, EpochState::Committed | EpochState::Staged);
    Ok(picture.epochs.iter().rfind(waits).map(|last| {
        format!(
            "epochs up to {} are in the journal and not on the volumes yet: run the daemon until `ftship status` says that \
             they are, without its primary, and stop it",
            last.epoch
        )
    }))
}

impl Comparison {
    fn add(&mut self, volume: &Volume, extent: Extent) {
        let name = volume.name.to_string();
        match self.differing.last_mut() {
            Some(last) if last.volume == name && last.sector + last.sectors == extent.start().0 => {
                last.sectors += extent.len().0;
            }
            _ => self.differing.push(Differing {
                volume: name,
                sector: extent.start().0,
                sectors: extent.len().0,
            }),
        }
    }
}

/// The lines of a list, which are summed up as they are read.
struct Lines<'a, R> {
    list: &'a mut R,
    hasher: Sha256,
    number: u64,
}

impl<R: BufRead> Lines<'_, R> {
    fn next(&mut self) -> anyhow::Result<String> {
        self.number += 1;
        let mut line = String::new();
        let read = std::io::Read::take(&mut *self.list, MAX_LINE).read_line(&mut line);
        let number = self.number;
        read.with_context(|| format!("line {number} of the list"))?;
        anyhow::ensure!(line.ends_with('\n'), "the list is cut off in line {number}, or is none");
        self.hasher.update(line.as_bytes());
        line.pop();
        Ok(line)
    }

    fn expect(&mut self, wanted: &str) -> anyhow::Result<()> {
        let found = self.next()?;
        let number = self.number;
        anyhow::ensure!(
            found == wanted,
            "line {number} of the list says `{found}`, expected `{wanted}`: it is damaged, of another version or group, or \
             of volumes of other sizes"
        );
        Ok(())
    }
}

/// A volume's units, read past the page cache.
struct Units {
    device: BlockDevice,
    buffer: AlignedBuffer,
    at: Sector,
}

impl Units {
    fn open(volume: &Volume, size: Option<Sectors>) -> anyhow::Result<Self> {
        let device = BlockDevice::open(&volume.device, Access { direct: true, ..Access::default() })?;
        let device = device.limited_to(size.unwrap_or(Sectors(u64::MAX)));
        let len = usize::try_from(UNIT.0).unwrap_or(0) * SECTOR_SIZE;
        Ok(Self { device, buffer: AlignedBuffer::new(len), at: Sector(0) })
    }

    fn size(&self) -> Sectors {
        self.device.size()
    }

    fn next(&mut self) -> anyhow::Result<Option<(Extent, Digest)>> {
        let end = Sector((self.at.0 + UNIT.0).min(self.size().0));
        let Some(extent) = Extent::between(self.at, end) else { return Ok(None) };
        self.at = end;
        let device = &self.device;
        let failed = || format!("{}: reading {extent}", device.path().display());
        device.read_extent(extent, self.buffer.bytes_mut()).with_context(failed)?;
        let len = usize::try_from(extent.len().0).unwrap_or(0) * SECTOR_SIZE;
        let digest = digests_of(&self.buffer.bytes()[..len], UNIT).pop().context("a unit of nothing")?;
        Ok(Some((extent, digest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> anyhow::Result<Vec<String>> {
        let mut bytes = text.as_bytes();
        let mut lines = Lines { list: &mut bytes, hasher: Sha256::new(), number: 0 };
        (0..2).map(|_| lines.next()).collect()
    }

    #[test]
    fn a_list_that_is_cut_off_or_none_is_refused_by_its_line() {
        assert_eq!(lines("a\nb\n").unwrap(), ["a", "b"]);
        for bad in ["a\nb", "a\n", "", &format!("a\n{}\n", "b".repeat(300))] {
            let error = lines(bad).unwrap_err().to_string();
            assert!(error.contains("line 2") || bad.is_empty() && error.contains("line 1"), "{error}");
        }
    }

    #[test]
    fn neighbours_that_differ_are_one_place() {
        let volume = |name: &str| Volume {
            name: name.parse().unwrap(),
            device: "/dev/none".into(),
            metadata: None,
            block: bytesize::ByteSize::kib(64),
            discards: ftdm::discard::Discards::Off,
        };
        let extent = |start| Extent::new(Sector(start), UNIT).unwrap();
        let mut found = Comparison::default();
        for (name, start) in [("a", 0), ("a", 2048), ("a", 8192), ("b", 10240)] {
            found.add(&volume(name), extent(start));
        }
        let found: Vec<_> =
            found.differing.iter().map(|d| (d.volume.as_str(), d.sector, d.sectors)).collect();
        assert_eq!(found, [("a", 0, 4096), ("a", 8192, 2048), ("b", 10240, 2048)]);
    }
}
