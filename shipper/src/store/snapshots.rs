//! Copies of the backup's volumes as they were at a committed epoch: snapshots of LVM's, thin where the volume is thin.
//!
//! Always holds: what belongs to a snapshot is told by the tags of its logical volumes alone, so nothing has to agree
//! with anything; only volumes that carry this group's tag are ever removed; a snapshot that does not have all volumes of
//! the group, because whoever took or removed it was stopped, is said to be incomplete, and the next one removes it first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use ftdm::fault;
use ftship_proto::ids::Epoch;
use serde::{Deserialize, Serialize};

use crate::runtime::command;

/// Longest time for one command of LVM's.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest name.
const MAX_NAME: usize = 32;

const GROUP: &str = "ftdm.group=";
const NAME: &str = "ftdm.snapshot=";
const EPOCH: &str = "ftdm.epoch=";
const TIME: &str = "ftdm.time=";
const KIND: &str = "ftdm.kind=";
/// How many volumes the group had. Earlier versions did not note it.
const VOLUMES: &str = "ftdm.volumes=";

/// What a snapshot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Somebody tries something with it: active and writable.
    Test,
    /// A way back to that epoch: not active; the oldest ones go by themselves.
    Point,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Point => "point",
        }
    }
}

/// What is to be taken.
#[derive(Clone, Debug)]
pub struct Order {
    /// Name of the group.
    pub group: String,
    /// Its volumes on this host.
    pub devices: Vec<PathBuf>,
    /// What for.
    pub kind: Kind,
    /// As the user calls it; `None`: after its epoch.
    pub name: Option<String>,
    /// Room for what changes, as `lvcreate` takes it; only where the volume is not thin.
    pub size: Option<String>,
    /// How many [`Kind::Point`]s are kept.
    pub keep: Option<usize>,
}

/// A snapshot of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// What for.
    pub kind: Kind,
    /// What it holds.
    pub epoch: u64,
    /// When it was taken: seconds since 1970, by this host's clock.
    pub time: u64,
    /// One logical volume of each of the group's.
    pub devices: Vec<PathBuf>,
    /// Whether they are all there. Else it is of no use.
    #[serde(default = "complete")]
    pub complete: bool,
}

/// What earlier versions did not say.
fn complete() -> bool {
    true
}

/// What became of the oldest recovery points.
#[derive(Debug, Default)]
pub struct Removed {
    /// Names of those that are gone.
    pub gone: Vec<String>,
    /// Those that are still there, and why, for people.
    pub kept: Vec<String>,
}

/// Whether `name` may be that of a snapshot.
///
/// # Errors
/// What a name is, for people.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_sound = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.');
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_sound) {
        Ok(())
    } else {
        Err(format!("`{name}`: a snapshot's name is 1 to {MAX_NAME} of a-z A-Z 0-9 _ ."))
    }
}

impl Order {
    /// Takes the snapshot of volumes that hold exactly `epoch` and stand still.
    ///
    /// # Errors
    /// When a volume is not one of LVM's, the name is taken, or LVM has no room; then nothing is left of it.
    pub fn take(&self, epoch: Epoch) -> anyhow::Result<Snapshot> {
        let name = self.name.clone().unwrap_or_else(|| format!("epoch_{epoch}"));
        let time = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        for left in list(&self.group)?.iter().filter(|other| !other.complete) {
            match left.remove() {
                Ok(()) => log::warn!("removed snapshot {}, which is not whole", left.name),
                Err(error) => {
                    log::error!("snapshot {}, which is not whole, is left over: {error:#}", left.name);
                }
            }
        }
        anyhow::ensure!(
            list(&self.group)?.iter().all(|other| other.name != name),
            "there is a snapshot {name} of this group already: `ftship snapshots {} --remove {name}`",
            self.group
        );
        let mut devices = Vec::new();
        for device in &self.devices {
            match self.take_one(device, &name, epoch, time) {
                Ok(taken) => {
                    fault::at("snapshot-of-one");
                    devices.push(taken);
                }
                Err(error) => {
                    for taken in devices {
                        remove_volume(&taken).context("a snapshot that is not whole is left over")?;
                    }
                    return Err(error);
                }
            }
        }
        fault::at("snapshot-taken");
        Ok(Snapshot { name, kind: self.kind, epoch: epoch.0, time, devices, complete: true })
    }

    fn take_one(&self, device: &Path, name: &str, epoch: Epoch, time: u64) -> anyhow::Result<PathBuf> {
        let origin = Origin::of(device)?;
        let copy = format!("{}_{}_{name}", origin.lv, self.kind.text());
        let mut command = lvm("lvcreate");
        command.args(["-q", "-y", "-s", "-n", &copy]);
        for tag in [
            format!("{GROUP}{}", self.group),
            format!("{NAME}{name}"),
            format!("{EPOCH}{epoch}"),
            format!("{TIME}{time}"),
            format!("{KIND}{}", self.kind.text()),
            format!("{VOLUMES}{}", self.devices.len()),
        ] {
            command.args(["--addtag", &tag]);
        }
        match (origin.is_thin, self.kind, &self.size) {
            (true, Kind::Test, _) => command.args(["-kn", "-ay"]),
            (true, Kind::Point, _) => command.args(["-ky"]),
            (false, Kind::Point, _) => anyhow::bail!(
                "{} is not a thin volume: a snapshot of another kind slows every write, so no recovery points are kept \
                 of it",
                device.display()
            ),
            (false, Kind::Test, Some(size)) => command.args(["-L", size]),
            (false, Kind::Test, None) => command.args(["-l", "20%ORIGIN"]),
        };
        run(command.arg(format!("{}/{}", origin.vg, origin.lv)))?;
        Ok(Path::new("/dev").join(origin.vg).join(copy))
    }

    /// Removes the oldest recovery points beyond those that are kept. One that cannot be removed keeps no other.
    ///
    /// # Errors
    /// When LVM does not list them.
    pub fn remove_oldest(&self) -> anyhow::Result<Removed> {
        let Some(keep) = self.keep else { return Ok(Removed::default()) };
        let mut points: Vec<_> =
            list(&self.group)?.into_iter().filter(|snapshot| snapshot.kind == Kind::Point).collect();
        points.sort_by_key(|point| point.epoch);
        points.truncate(points.len().saturating_sub(keep));
        let mut removed = Removed::default();
        for point in points {
            match point.remove() {
                Ok(()) => removed.gone.push(point.name),
                Err(error) => removed.kept.push(format!("recovery point {} stays: {error:#}", point.name)),
            }
        }
        Ok(removed)
    }
}

impl Snapshot {
    /// Removes it, of every volume; or, if one of them is in use, of none.
    ///
    /// # Errors
    /// When one is in use, or LVM fails.
    pub fn remove(&self) -> anyhow::Result<()> {
        let opened = run(lvm("lvs").args(["--noheadings", "-o", "lv_device_open"]).args(&self.devices))?;
        anyhow::ensure!(!opened.contains("open"), "it is in use");
        self.devices.iter().try_for_each(|device| remove_volume(device))
    }
}

/// All snapshots of a group on this host, oldest first.
///
/// # Errors
/// When LVM fails.
pub fn list(group: &str) -> anyhow::Result<Vec<Snapshot>> {
    let selection = format!("lv_tags={GROUP}{group}");
    let output = run(lvm("lvs")
        .args(["--noheadings", "--separator", "|", "-o", "vg_name,lv_name,lv_tags"])
        .args(["-S", &selection]))?;
    let mut snapshots: BTreeMap<(u64, String), Snapshot> = BTreeMap::new();
    for (device, tags) in output.lines().filter_map(volume_line) {
        let tag = |prefix| tags.split(',').find_map(|tag| tag.strip_prefix(prefix));
        let number = |prefix| tag(prefix).and_then(|text: &str| text.parse().ok());
        let (Some(name), Some(epoch), Some(time)) = (tag(NAME), number(EPOCH), number(TIME)) else {
            continue;
        };
        // A selection by tags takes values that merely begin alike on some versions.
        if tag(GROUP) != Some(group) {
            continue;
        }
        let kind = if tag(KIND) == Some("point") { Kind::Point } else { Kind::Test };
        let new =
            || Snapshot { name: name.to_owned(), kind, epoch, time, devices: Vec::new(), complete: true };
        let snapshot = snapshots.entry((epoch, name.to_owned())).or_insert_with(new);
        snapshot.devices.push(device);
        let volumes = number(VOLUMES).map_or(0, |volumes| usize::try_from(volumes).unwrap_or(usize::MAX));
        snapshot.complete = snapshot.devices.len() >= volumes;
    }
    Ok(snapshots.into_values().collect())
}

/// `VG|LV|TAGS`
fn volume_line(line: &str) -> Option<(PathBuf, &str)> {
    let mut fields = line.trim().splitn(3, '|');
    let (vg, lv, tags) = (fields.next()?, fields.next()?, fields.next()?);
    Some((Path::new("/dev").join(vg).join(lv), tags))
}

struct Origin {
    vg: String,
    lv: String,
    is_thin: bool,
}

impl Origin {
    fn of(device: &Path) -> anyhow::Result<Self> {
        let output = run(lvm("lvs")
            .args(["--noheadings", "--separator", "|", "-o", "vg_name,lv_name,segtype"])
            .arg(device))
        .with_context(|| format!("{}: a snapshot needs a logical volume", device.display()))?;
        let line = output.lines().next().unwrap_or_default().trim().to_owned();
        let mut fields = line.split('|').map(str::to_owned);
        let (Some(vg), Some(lv), Some(kind)) = (fields.next(), fields.next(), fields.next()) else {
            anyhow::bail!("{}: lvs answered `{line}`", device.display());
        };
        Ok(Self { vg, lv, is_thin: kind == "thin" })
    }
}

fn remove_volume(device: &Path) -> anyhow::Result<()> {
    run(lvm("lvremove").args(["-q", "-y"]).arg(device)).map(drop)
}

fn lvm(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").env("LVM_SUPPRESS_FD_WARNINGS", "1");
    command
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    command::run(command, PATIENCE).context("LVM (package lvm2)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_lvm_and_a_tag_can_hold() {
        for good in ["a", "before_upgrade.2", &"x".repeat(MAX_NAME)] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", "a b", "a/b", "-a", "a|b", &"x".repeat(MAX_NAME + 1)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_line_of_lvs_is_a_device_and_its_tags() {
        let line = "  vg|vm1_test_a|ftdm.group=vm1,ftdm.epoch=7 ";
        let (device, tags) = volume_line(line).unwrap();
        assert_eq!(
            (device.as_path(), tags),
            (Path::new("/dev/vg/vm1_test_a"), "ftdm.group=vm1,ftdm.epoch=7")
        );
        assert_eq!(volume_line("vg|vm1"), None);
    }
}
