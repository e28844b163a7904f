//! Beginning with a group: which files and volumes it needs, how large they are, and making them.
//!
//! Always holds: what exists is refused before anything is made; what is made is what the plan says.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use bytesize::ByteSize;
use ftdm::block_io::{Access, BlockDevice};
use ftdm::era::size::MetadataSize;
use ftdm::name::StackName;
use ftdm_units::{SECTOR_SIZE, Sectors};
use ftship_proto::ids::GroupName;
use ftship_proto::state::Role;

use crate::config::{Config, DIRECTORY, Limits, default_block};
use crate::provision::stacks;
use crate::runtime::command;
use crate::store::small_file::{self, Secrecy};

/// LVM's usual extent; sizes are whole numbers of it.
const EXTENT: u64 = 4 << 20;
/// The largest granule that `init` chooses.
const LARGEST_BLOCK: u64 = 16 << 20;
/// What the durable state takes.
const STATE: u64 = EXTENT;
/// How long LVM may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a group is made of, on this host.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Its name.
    pub group: GroupName,
    /// The first role of this host.
    pub role: Role,
    /// The volumes to protect.
    pub volumes: Vec<(StackName, PathBuf)>,
    /// Where this host listens.
    pub address: SocketAddr,
    /// Where the other one does.
    pub peer: SocketAddr,
    /// Time between two epochs.
    pub epoch: Duration,
    /// Size of volumes that do not exist yet, which are made.
    pub size: Option<ByteSize>,
    /// Size of the journal, instead of the formula's.
    pub journal: Option<ByteSize>,
    /// The highest rate of writes, in bytes a second, that the log has to take.
    pub rate: ByteSize,
}

/// What is to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// This host's configuration.
    pub mine: (PathBuf, String),
    /// The other host's.
    pub theirs: (PathBuf, String),
    /// Logical volumes that are missing here: group, name, bytes.
    pub volumes: Vec<(String, String, u64)>,
    /// What is to be said on the other host to make its part.
    pub command_there: String,
}

/// The size of the backup's journal for volumes of `total` bytes: an eighth of them, so that a resync of a sixteenth
/// keeps the backup promotable; 64 MiB to 16 GiB.
#[must_use]
pub fn journal_size(total: u64) -> u64 {
    (total / 8).clamp(64 << 20, 16 << 30).next_multiple_of(EXTENT)
}

/// The size of one RAM disk of a log: what is written at `rate` bytes a second while a window of epochs is under way,
/// and in the quarter of a second that a look at the log may take; 64 MiB to 4 GiB.
#[must_use]
pub fn log_size(rate: u64, epoch: Duration) -> u64 {
    let Limits { window, timeout, .. } = Limits::default();
    let under_way = u32::try_from(window).map_or(timeout, |window| (epoch * window).min(timeout));
    let time = under_way + Duration::from_millis(250);
    let bytes = u128::from(rate) * time.as_millis() / 1000;
    u64::try_from(bytes).unwrap_or(u64::MAX).clamp(64 << 20, 4 << 30).next_multiple_of(EXTENT)
}

/// The granule in which a volume of so many bytes is tracked: at most about a million for a volume, so that a roll of
/// dm-era takes as long for a large one as for a small one. 64 KiB to 16 MiB.
#[must_use]
fn tracking_block(volume: u64) -> ByteSize {
    let even = (volume >> 20).checked_next_power_of_two().unwrap_or(LARGEST_BLOCK);
    ByteSize::b(even.clamp(default_block().as_u64(), LARGEST_BLOCK))
}

/// The size of dm-era's metadata of a volume.
fn metadata_size(volume: u64) -> anyhow::Result<u64> {
    let block = stacks::granule(tracking_block(volume)).context("the granule")?;
    let size = MetadataSize::of(Sectors(volume / SECTOR_SIZE as u64), block).recommended_sectors();
    Ok(size.bytes().unwrap_or(u64::MAX).next_multiple_of(EXTENT))
}

/// Thinks it out; changes nothing.
///
/// # Errors
/// When something that is to be made exists, or a volume can neither be opened nor be made.
pub fn plan(wishes: &Wishes) -> anyhow::Result<Plan> {
    let (mut missing, mut total) = (Vec::new(), 0);
    let mut sizes = Vec::new();
    for (name, device) in &wishes.volumes {
        let bytes = match (device.exists(), wishes.size) {
            (true, _) => {
                let bytes = BlockDevice::open(device, Access::default())?.size().bytes();
                let bytes = bytes.unwrap_or(u64::MAX);
                let fits = wishes.size.is_none_or(|size| size.as_u64() == bytes);
                anyhow::ensure!(fits, "{} exists, and has {bytes} bytes", device.display());
                bytes
            }
            (false, Some(size)) => {
                missing.push(logical_volume(device, size.as_u64())?);
                size.as_u64()
            }
            (false, None) => {
                anyhow::bail!("{}: there is no such volume; with --size one is made", device.display())
            }
        };
        missing.push(logical_volume(&beside(device, "meta"), metadata_size(bytes)?)?);
        sizes.push((name, bytes));
        total += bytes;
    }
    let (_, first) = wishes.volumes.first().context("a group has at least one volume")?;
    let journal = wishes.journal.map_or_else(|| journal_size(total), |size| size.as_u64());
    missing.push(logical_volume(&beside(first, "journal"), journal)?);
    missing.push(logical_volume(&beside(first, "state"), STATE)?);
    let folder = Path::new(DIRECTORY);
    let bytes: Vec<u64> = sizes.iter().map(|(_, bytes)| *bytes).collect();
    let mine = (folder.join(format!("{}.toml", wishes.group)), text(wishes, &bytes));
    let theirs = (folder.join(format!("{}.peer", wishes.group)), text(&other_side(wishes), &bytes));
    for path in [&mine.0, &theirs.0] {
        anyhow::ensure!(!path.exists(), "{}: it exists already", path.display());
    }
    for (path, text) in [&mine, &theirs] {
        Config::parse(&path.display().to_string(), text)?;
    }
    Ok(Plan { mine, theirs, volumes: missing, command_there: command_there(wishes, &sizes, journal) })
}

/// `/dev/vg/vm1` and `meta`: `/dev/vg/vm1_meta`
fn beside(device: &Path, part: &str) -> PathBuf {
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    device.with_file_name(format!("{name}_{part}"))
}

/// Volume group, name and size of a logical volume that does not exist.
fn logical_volume(device: &Path, bytes: u64) -> anyhow::Result<(String, String, u64)> {
    anyhow::ensure!(!device.exists(), "{}: it exists already", device.display());
    let parts: Vec<_> = device.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    match &parts[..] {
        [root, dev, group, name] if root == "/" && dev == "dev" && group != "mapper" => {
            Ok((group.clone(), name.clone(), bytes))
        }
        _ => anyhow::bail!("{}: say it as /dev/VOLUME-GROUP/NAME", device.display()),
    }
}

fn other_side(wishes: &Wishes) -> Wishes {
    let role = if wishes.role == Role::Primary { Role::Backup } else { Role::Primary };
    Wishes { role, address: wishes.peer, peer: wishes.address, ..wishes.clone() }
}

/// The configuration. `sizes` are those of the volumes, in bytes.
fn text(wishes: &Wishes, sizes: &[u64]) -> String {
    let Wishes { group, role, address, peer, .. } = wishes;
    let first = wishes.volumes.first().map(|(_, device)| device.clone()).unwrap_or_default();
    let epoch = humantime_serde::re::humantime::format_duration(wishes.epoch);
    let mut text = format!(
        "# See ftdm.toml(5). The other host has the same file, with role, address and peer exchanged.\n\
         group = \"{group}\"\nrole = \"{role}\"\naddress = \"{address}\"\npeer = \"{peer}\"\n\
         state = \"{}\"\nepoch = \"{epoch}\"\n",
        beside(&first, "state").display()
    );
    for ((name, device), bytes) in wishes.volumes.iter().zip(sizes) {
        let metadata = beside(device, "meta");
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n[[volume]]\nname = \"{name}\"\ndevice = \"{}\"\nmetadata = \"{}\"\n",
            device.display(),
            metadata.display()
        );
        let block = tracking_block(*bytes);
        if block != default_block() {
            let _ = writeln!(text, "block = \"{} KiB\"", block.as_u64() >> 10);
        }
    }
    let log = log_size(wishes.rate.as_u64(), wishes.epoch) >> 20;
    let journal = beside(&first, "journal");
    let _ = write!(text, "\n[journal]\ndevice = \"{}\"\n\n[log]\nsize = \"{log} MiB\"\n", journal.display());
    text
}

fn command_there(wishes: &Wishes, sizes: &[(&StackName, u64)], journal: u64) -> String {
    let there = other_side(wishes);
    let mut text = format!("ftship init {} --role {} --create-lvs", there.group, there.role);
    for (name, device) in &there.volumes {
        let _ = write!(text, " --volume {name}={}", device.display());
    }
    let _ = write!(text, " --address {} --peer {} --journal {journal}B", there.address, there.peer);
    let epoch = humantime_serde::re::humantime::format_duration(there.epoch).to_string().replace(' ', "");
    let _ = write!(text, " --epoch {epoch} --rate {}B", there.rate.as_u64());
    let mut bytes: Vec<u64> = sizes.iter().map(|(_, bytes)| *bytes).collect();
    bytes.dedup();
    if let [bytes] = bytes[..] {
        let _ = write!(text, " --size {bytes}B");
    }
    text
}

impl Plan {
    /// Makes the logical volumes that are missing here.
    ///
    /// # Errors
    /// When LVM refuses; those that were made before are removed again.
    pub fn make_volumes(&self) -> anyhow::Result<()> {
        for (at, (group, name, bytes)) in self.volumes.iter().enumerate() {
            let mut lvcreate = Command::new("lvcreate");
            // Blank: whatever lies there from before must not be taken for something.
            lvcreate.args(["--quiet", "--yes", "--wipesignatures", "y", "--zero", "y", "--name", name]);
            let made = command::run(lvcreate.args(["--size", &format!("{bytes}b"), group]), PATIENCE);
            if let Err(error) = made {
                for (group, name, _) in &self.volumes[..at] {
                    let path = format!("{group}/{name}");
                    let removed = command::run(Command::new("lvremove").args(["--yes", &path]), PATIENCE);
                    if let Err(error) = removed {
                        log::error!("{path} is left over: {error:#}");
                    }
                }
                return Err(error).with_context(|| format!("making {group}/{name}"));
            }
            if bytes >= &EXTENT {
                blank(&Path::new("/dev").join(group).join(name))
                    .with_context(|| format!("{group}/{name}"))?;
            }
        }
        Ok(())
    }

    /// Writes both files.
    ///
    /// # Errors
    /// When one cannot be written, or exists.
    pub fn write_files(&self) -> anyhow::Result<()> {
        for (path, text) in [&self.mine, &self.theirs] {
            small_file::create(path, text, Secrecy::Authentic)?;
        }
        Ok(())
    }
}

/// Zeros where state, journal and dm-era look for what they know: extents of removed volumes keep their content.
fn blank(device: &Path) -> anyhow::Result<()> {
    let mut file = File::options().write(true).open(device)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..EXTENT >> 20 {
        file.write_all(&zeros)?;
    }
    Ok(file.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_documented_formulas_within_their_bounds() {
        assert_eq!(
            (journal_size(0), journal_size(8 << 30), journal_size(1 << 60)),
            (64 << 20, 1 << 30, 16 << 30)
        );
        let ms = Duration::from_millis;
        let block = |gib: u64| tracking_block(gib << 30).as_u64() >> 10;
        assert_eq!((block(0), block(64), block(65)), (64, 64, 128), "KiB");
        assert_eq!((block(1 << 10), block(16 << 10), block(64 << 10)), (1 << 10, 16 << 10, 16 << 10));
        assert_eq!(tracking_block(u64::MAX).as_u64(), 16 << 20);
        assert_eq!(log_size(100 << 20, ms(50)), 68 << 20);
        assert_eq!((log_size(1, ms(50)), log_size(u64::MAX, ms(50))), (64 << 20, 4 << 30));
        assert_eq!(log_size(100 << 20, Duration::from_secs(3600)), 528 << 20);
    }

    #[test]
    fn both_files_are_sound_and_each_other_s_mirror() {
        let wishes = Wishes {
            group: "vm1".parse().unwrap(),
            role: Role::Primary,
            volumes: vec![
                ("a".parse().unwrap(), "/dev/vg/a".into()),
                ("b".parse().unwrap(), "/dev/vg/b".into()),
            ],
            address: "10.9.0.1:7789".parse().unwrap(),
            peer: "10.9.0.2:7789".parse().unwrap(),
            epoch: Duration::from_millis(50),
            size: None,
            journal: None,
            rate: ByteSize::mib(100),
        };
        let sizes = [1 << 30, 1 << 40];
        let mine = Config::parse("mine", &text(&wishes, &sizes)).unwrap();
        let theirs = Config::parse("theirs", &text(&other_side(&wishes), &sizes)).unwrap();
        assert_eq!((mine.address, mine.peer), (theirs.peer, theirs.address));
        assert_eq!((mine.role, theirs.role), (Role::Primary, Role::Backup));
        assert_eq!(mine.volume[1].metadata, Some("/dev/vg/b_meta".into()));
        assert_eq!(
            mine.volume.iter().map(|volume| volume.block.as_u64()).collect::<Vec<_>>(),
            [64 << 10, 1 << 20]
        );
        assert_eq!(mine.volume[1].block, theirs.volume[1].block);
        assert_eq!(text(&other_side(&other_side(&wishes)), &sizes), text(&wishes, &sizes));
    }
}
