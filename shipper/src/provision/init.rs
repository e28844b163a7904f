//! Beginning with a group: which files and volumes it needs, how large they are, and making them.
//!
//! Always holds: what exists is refused before anything is made; what is made is what the plan says.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use bytesize::ByteSize;
use ftdm::block_io::{Access, BlockDevice};
use ftdm::era::size::MetadataSize;
use ftdm::name::StackName;
use ftdm_units::{SECTOR_SIZE, Sectors};
use ftship_proto::ids::GroupName;
use ftship_proto::journal::MIN_JOURNAL_LEN;
use ftship_proto::state::Role;

use crate::config::{Config, DIRECTORY, Limits, default_block};
use crate::link::host::HostAddress;
use crate::provision::lvm::{self, LogicalVolume, Lvm};
use crate::provision::stacks;
use crate::store::small_file::{self, Secrecy};

/// LVM's usual extent, of which the formulas give whole numbers.
const EXTENT: u64 = 4 << 20;
/// The largest granule that `init` chooses.
const LARGEST_BLOCK: u64 = 16 << 20;
/// What the durable state takes.
const STATE: u64 = EXTENT;

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
    pub address: HostAddress,
    /// Where the other one does.
    pub peer: HostAddress,
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
    /// Logical volumes that are missing here.
    pub volumes: Vec<LogicalVolume>,
    /// Those of them that an `init` which was interrupted has left: they are made again.
    pub leftovers: Vec<String>,
    /// What is to be said on the other host to make its part; nothing where that was done first.
    pub command_there: Option<String>,
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

/// The most that one epoch can hold: what the log takes of each volume, and no more than the volumes have.
fn burst(log: u64, sizes: &[u64]) -> u64 {
    sizes.iter().map(|bytes| log.min(*bytes)).sum()
}

/// The journal's size: as wished, else by the formula; a whole epoch has to fit.
fn journal(wished: Option<ByteSize>, burst: u64, total: u64) -> anyhow::Result<u64> {
    let least = burst.max(MIN_JOURNAL_LEN);
    let size = wished.map_or_else(|| journal_size(total).max(least), |size| size.as_u64());
    anyhow::ensure!(
        size >= least,
        "--journal {}: an epoch may have {}, what the log holds: make it at least that, or the --rate lower",
        ByteSize(size).display().iec(),
        ByteSize(least).display().iec()
    );
    Ok(size)
}

/// Thinks it out; changes nothing.
///
/// # Errors
/// When something that is to be made exists, or a volume can neither be opened nor be made.
pub fn plan(wishes: &Wishes) -> anyhow::Result<Plan> {
    let mut lvm = Lvm::default();
    let (mut missing, mut sizes) = (Vec::new(), Vec::new());
    for (_, device) in &wishes.volumes {
        let is_there = device.exists() && !lvm.is_leftover(device);
        let bytes = match (is_there, wishes.size) {
            (true, wished) => {
                let bytes = BlockDevice::open(device, Access::default())?.size().bytes();
                let bytes = bytes.unwrap_or(u64::MAX);
                let wished = wished.map(|size| lvm.rounded(device, size.as_u64())).transpose()?;
                let fits = wished.is_none_or(|size| size == bytes);
                anyhow::ensure!(fits, "{} exists, and has {bytes} bytes", device.display());
                bytes
            }
            (false, Some(size)) => {
                anyhow::ensure!(size.as_u64() > 0, "--size 0: a volume needs some room");
                let made = lvm.volume(device, size.as_u64())?;
                let bytes = made.bytes;
                missing.push(made);
                bytes
            }
            (false, None) => {
                anyhow::bail!("{}: there is no such volume; with --size one is made", device.display())
            }
        };
        missing.push(lvm.volume(&beside(device, "meta"), metadata_size(bytes)?)?);
        sizes.push(bytes);
    }
    let (_, first) = wishes.volumes.first().context("a group has at least one volume")?;
    let burst = burst(log_size(wishes.rate.as_u64(), wishes.epoch), &sizes);
    let journal = journal(wishes.journal, burst, sizes.iter().sum())?;
    missing.push(lvm.volume(&beside(first, "journal"), journal)?);
    missing.push(lvm.volume(&beside(first, "state"), STATE)?);
    let folder = Path::new(DIRECTORY);
    let mine = (folder.join(format!("{}.toml", wishes.group)), text(wishes, &sizes));
    let theirs = (folder.join(format!("{}.peer", wishes.group)), text(&other_side(wishes), &sizes));
    for path in [&mine.0, &theirs.0] {
        anyhow::ensure!(!path.exists(), "{}: it exists already", path.display());
    }
    for (path, text) in [&mine, &theirs] {
        Config::parse(&path.display().to_string(), text)?;
    }
    lvm.check_room(&missing)?;
    let command_there = (wishes.role == Role::Primary).then(|| command_there(wishes, &sizes, journal));
    Ok(Plan { mine, theirs, volumes: missing, leftovers: lvm.leftovers, command_there })
}

/// `/dev/vg/vm1` and `meta`: `/dev/vg/vm1_meta`
fn beside(device: &Path, part: &str) -> PathBuf {
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    device.with_file_name(format!("{name}_{part}"))
}

fn other_side(wishes: &Wishes) -> Wishes {
    let role = if wishes.role == Role::Primary { Role::Backup } else { Role::Primary };
    Wishes { role, address: wishes.peer.clone(), peer: wishes.address.clone(), ..wishes.clone() }
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

fn command_there(wishes: &Wishes, sizes: &[u64], journal: u64) -> String {
    let there = other_side(wishes);
    let mut text = format!("ftship init {} --role {} --create-lvs", there.group, there.role);
    for (name, device) in &there.volumes {
        let _ = write!(text, " --volume {name}={}", device.display());
    }
    let _ = write!(text, " --address {} --peer {} --journal {journal}B", there.address, there.peer);
    let epoch = humantime_serde::re::humantime::format_duration(there.epoch).to_string().replace(' ', "");
    let _ = write!(text, " --epoch {epoch} --rate {}B", there.rate.as_u64());
    let mut bytes = sizes.to_vec();
    bytes.dedup();
    if let [bytes] = bytes[..] {
        let _ = write!(text, " --size {bytes}B");
    }
    text
}

impl Plan {
    /// Makes the logical volumes that are missing here, and writes both files. `then` is what is to be done with them
    /// before it counts.
    ///
    /// # Errors
    /// When LVM refuses, a file cannot be written, or `then` fails. What was made is removed again, so that the same
    /// can be tried again.
    pub fn carry_out<E>(
        &self,
        with_volumes: bool,
        then: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), Undone<E>> {
        let mut made = Made::default();
        let mut make = || -> anyhow::Result<()> {
            if with_volumes {
                for path in &self.leftovers {
                    log::info!("{path}: an interrupted init left it; it is made again");
                    lvm::remove(path)?;
                }
                for volume in &self.volumes {
                    volume.make()?;
                    made.volumes.push(volume.path());
                    if volume.bytes >= EXTENT {
                        blank(&volume.device()).with_context(|| volume.path())?;
                    }
                }
            }
            for (path, text) in [&self.mine, &self.theirs] {
                small_file::create(path, text, Secrecy::Authentic)?;
                made.files.push(path.clone());
            }
            Ok(())
        };
        let result = make().map_err(Undone::Failed).and_then(|()| then().map_err(Undone::Then));
        let result = result.and_then(|()| {
            let done = if with_volumes { lvm::done(&made.volumes) } else { Ok(()) };
            done.map_err(Undone::Failed)
        });
        if result.is_err() {
            made.undo();
        }
        result
    }
}

/// Why a plan was not carried out.
#[derive(Debug)]
pub enum Undone<E> {
    /// It failed itself.
    Failed(anyhow::Error),
    /// What was to be done then failed.
    Then(E),
}

/// What was made so far.
#[derive(Default)]
struct Made {
    volumes: Vec<String>,
    files: Vec<PathBuf>,
}

impl Made {
    fn undo(&self) {
        for path in &self.files {
            if let Err(error) = std::fs::remove_file(path) {
                log::error!("{} is left over: {error}", path.display());
            }
        }
        for path in &self.volumes {
            if let Err(error) = lvm::remove(path) {
                log::error!("{path} is left over: {error:#}");
            }
        }
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
    fn a_whole_epoch_fits_the_journal() {
        let mib = |n: u64| n << 20;
        assert_eq!(burst(mib(68), &[mib(64), mib(1000)]), mib(132));
        assert_eq!(journal(None, mib(132), mib(1064)).unwrap(), mib(136), "the formula's");
        assert_eq!(journal(None, mib(680), mib(2048)).unwrap(), mib(680));
        assert_eq!(journal(Some(ByteSize::mib(132)), mib(132), mib(1064)).unwrap(), mib(132));
        let text = journal(Some(ByteSize::mib(64)), mib(132), mib(1064)).unwrap_err().to_string();
        assert!(text.contains("132.0 MiB"), "{text}");
        assert!(journal(Some(ByteSize::mib(8)), mib(4), mib(4)).is_err(), "smaller than any journal");
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
