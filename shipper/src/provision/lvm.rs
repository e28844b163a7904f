//! The logical volumes of a new group: their sizes as LVM makes them, and making them.
//!
//! Always holds: a size is said as `lvcreate` takes it, and what is made has exactly the size that was shown. What is
//! made bears a tag until all of the group is there: so what an interrupted `init` left is known, and nothing else is
//! ever removed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use bytesize::ByteSize;

use crate::runtime::command;

/// How long LVM may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of a volume of a group that is not complete yet.
const TAG: &str = "ftdm.init";

/// A size as LVM's commands take it: `10G` and `10GiB` are the same, a number alone is in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LvmSize(pub ByteSize);

impl FromStr for LvmSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("`{text}` is no size: 10G, 512M, 1.5t; units are powers of 1024, as LVM's");
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = (text[..end].parse::<f64>().map_err(|_| fault())?, text[end..].trim());
        let letter = match unit.to_ascii_lowercase().as_str() {
            "" => 'm',
            unit if unit.len() == 1 || (unit.len() == 3 && unit.ends_with("ib")) => {
                unit.chars().next().unwrap_or('m')
            }
            _ => return Err(fault()),
        };
        let shift = match letter {
            'b' => 0,
            's' => 9,
            'k' => 10,
            'm' => 20,
            'g' => 30,
            't' => 40,
            'p' => 50,
            'e' => 60,
            _ => return Err(fault()),
        };
        // Whole numbers exactly; a float has room for less.
        let whole = text[..end].parse::<u64>().ok();
        let exact = whole.and_then(|whole| whole.checked_mul(1 << shift));
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bytes = match whole {
            Some(_) => exact.ok_or_else(fault)?,
            None => (number * (1_u64 << shift) as f64).ceil() as u64,
        };
        Ok(Self(ByteSize(bytes)))
    }
}

/// A logical volume that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalVolume {
    /// The volume group.
    pub group: String,
    /// Its name there.
    pub name: String,
    /// Its size: a whole number of the group's extents.
    pub bytes: u64,
    /// What was wished.
    pub wished: u64,
}

impl LogicalVolume {
    /// `vg/vm1`
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    pub(super) fn device(&self) -> PathBuf {
        Path::new("/dev").join(&self.group).join(&self.name)
    }

    /// Its size for people.
    #[must_use]
    pub fn shown(&self) -> String {
        let size = |bytes| ByteSize(bytes).display().iec().to_string();
        if self.bytes == self.wished {
            size(self.bytes)
        } else {
            format!("{} ({}, in whole extents)", size(self.bytes), size(self.wished))
        }
    }

    pub(super) fn make(&self) -> anyhow::Result<()> {
        let mut lvcreate = Command::new("lvcreate");
        // Blank: what lies there from before must not be taken for something.
        lvcreate.args(["--quiet", "--yes", "--wipesignatures", "y", "--zero", "y", "--addtag", TAG]);
        lvcreate.args(["--name", &self.name, "--size", &format!("{}b", self.bytes), &self.group]);
        command::run(&mut lvcreate, PATIENCE).map(drop).with_context(|| format!("making {}", self.path()))
    }
}

pub(super) fn remove(path: &str) -> anyhow::Result<()> {
    command::run(Command::new("lvremove").args(["--quiet", "--yes", path]), PATIENCE).map(drop)
}

/// The group is complete: its volumes are like any others.
pub(super) fn done(paths: &[String]) -> anyhow::Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    command::run(Command::new("lvchange").args(["--quiet", "--deltag", TAG]).args(paths), PATIENCE).map(drop)
}

/// What LVM says of this host, asked once.
#[derive(Debug, Default)]
pub(super) struct Lvm {
    /// Extent and free bytes of each volume group that was asked for.
    groups: BTreeMap<String, (u64, u64)>,
    /// What an interrupted init has left.
    pub(super) leftovers: Vec<String>,
}

/// Volume group and name of `/dev/vg/vm1`.
fn parts(device: &Path) -> anyhow::Result<(String, String)> {
    let parts: Vec<_> = device.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    match &parts[..] {
        [root, dev, group, name] if root == "/" && dev == "dev" && group != "mapper" => {
            Ok((group.clone(), name.clone()))
        }
        _ => anyhow::bail!("{}: say it as /dev/VOLUME-GROUP/NAME", device.display()),
    }
}

impl Lvm {
    /// Extent and free bytes of a volume group.
    fn group(&mut self, name: &str) -> anyhow::Result<(u64, u64)> {
        if let Some(known) = self.groups.get(name) {
            return Ok(*known);
        }
        let mut vgs = Command::new("vgs");
        vgs.args(["--noheadings", "--nosuffix", "--units", "b", "-o", "vg_extent_size,vg_free", name]);
        let said = command::run(&mut vgs, PATIENCE)?;
        let numbers: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [extent, free] = numbers[..] else { anyhow::bail!("vgs says of {name}: {}", said.trim()) };
        anyhow::ensure!(extent > 0, "vgs says of {name} that its extents have no size");
        self.groups.insert(name.to_owned(), (extent, free));
        Ok((extent, free))
    }

    /// So many bytes as a whole number of extents of the device's group.
    pub(super) fn rounded(&mut self, device: &Path, bytes: u64) -> anyhow::Result<u64> {
        let (extent, _) = self.group(&parts(device)?.0)?;
        bytes.checked_next_multiple_of(extent).context("a size beyond all disks")
    }

    /// Whether an interrupted init has left it.
    pub(super) fn is_leftover(&self, device: &Path) -> bool {
        let Ok((group, name)) = parts(device) else { return false };
        let mut lvs = Command::new("lvs");
        lvs.args(["--noheadings", "-o", "lv_tags", &format!("{group}/{name}")]);
        let tags = command::run(&mut lvs, PATIENCE).unwrap_or_default();
        tags.trim().split(',').any(|tag| tag == TAG)
    }

    /// One that is to be made.
    pub(super) fn volume(&mut self, device: &Path, wished: u64) -> anyhow::Result<LogicalVolume> {
        let (group, name) = parts(device)?;
        let bytes = self.rounded(device, wished)?;
        let volume = LogicalVolume { group, name, bytes, wished };
        if device.exists() {
            anyhow::ensure!(self.is_leftover(device), "{}: it exists already", device.display());
            self.leftovers.push(volume.path());
        }
        Ok(volume)
    }

    /// Whether all of them have room.
    pub(super) fn check_room(&mut self, volumes: &[LogicalVolume]) -> anyhow::Result<()> {
        let mut needed: BTreeMap<&str, u64> = BTreeMap::new();
        // What is left over has its room already.
        for volume in volumes.iter().filter(|volume| !self.leftovers.contains(&volume.path())) {
            let sum = needed.entry(&volume.group).or_default();
            *sum = sum.saturating_add(volume.bytes);
        }
        for (group, bytes) in needed {
            let (_, free) = self.group(group)?;
            let size = |bytes| ByteSize(bytes).display().iec();
            anyhow::ensure!(
                bytes <= free,
                "volume group {group} has {} free, and {} are needed: {}",
                size(free),
                size(bytes),
                volumes
                    .iter()
                    .map(|one| format!("{} {}", one.path(), one.shown()))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_lvm_reads_them() {
        for (text, bytes) in [
            ("10G", 10 << 30),
            ("10g", 10 << 30),
            ("10GiB", 10 << 30),
            ("50M", 50 << 20),
            ("50", 50 << 20),
            ("1.5t", 3 << 39),
            ("0", 0),
            ("8s", 4096),
            ("67108864B", 64 << 20),
            ("18446744073709551615b", u64::MAX),
        ] {
            assert_eq!(text.parse::<LvmSize>(), Ok(LvmSize(ByteSize(bytes))), "{text}");
        }
        for text in ["", "G", "10GB", "10X", "-1", "1.2.3G", "17e", "10 G B"] {
            assert!(text.parse::<LvmSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_in_whole_extents_says_what_was_wished() {
        let (group, name) = parts(Path::new("/dev/vg/vm1")).unwrap();
        let volume = LogicalVolume { group, name, bytes: 52 << 20, wished: 50 << 20 };
        assert_eq!(
            (volume.path().as_str(), volume.shown().as_str()),
            ("vg/vm1", "52.0 MiB (50.0 MiB, in whole extents)")
        );
        assert!(parts(Path::new("/dev/mapper/vg-vm1")).is_err());
    }
}
