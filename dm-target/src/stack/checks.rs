//! What must be true of the origin and the metadata device before a stack is built on them.
//!
//! Always holds: nothing here writes; the devices stay exclusively open until the checks are over.

use std::path::Path;
use std::time::Duration;

use super::StackError;
use super::devices::{Described, Devices};
use crate::block_io::{Access, AlignedBuffer, BlockDevice, OpenError};
use crate::era::size::{MAX_METADATA_BLOCKS, METADATA_BLOCK_SECTORS, MetadataSize};
use crate::era::superblock::{self, Content, Superblock};
use crate::name::VolumeId;
use crate::table::{BlockSectors, FtTable};
use crate::units::{DevNum, Era, Sectors};

/// How much of the metadata device is searched for somebody else's content.
const SEARCHED: usize = 132 * 1024;
/// udev opens new devices to scan them: wait a little before calling one in use.
const RETRIES: u32 = 20;
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// What the checks found.
pub(crate) struct Checked {
    pub(crate) origin: DevNum,
    pub(crate) metadata: DevNum,
    pub(crate) id: VolumeId,
    /// The era that the metadata had, if it is not new.
    pub(crate) era: Option<Era>,
    /// Sectors of the origin that dm-era is to track: what the table shows, or more where it did so before.
    pub(crate) tracked: Sectors,
}

/// Checks all of it.
pub(crate) fn check(devices: &Devices, table: &FtTable) -> Result<Checked, StackError> {
    let origin = claim("origin", &table.origin, devices)?;
    let refuse =
        |role, path: &Path, why: String| Err(StackError::Refused { role, path: path.to_owned(), why });
    if BlockDevice::open(&table.metadata, Access::default())
        .is_ok_and(|metadata| metadata.number() == origin.number())
    {
        return refuse(
            "metadata",
            &table.metadata,
            "it is the origin: give it a volume of its own".to_owned(),
        );
    }
    let metadata = claim("metadata", &table.metadata, devices)?;
    if origin.size() < table.sectors {
        let why = format!("it has {}, the table asks for {}", origin.size(), table.sectors);
        return refuse("origin", &table.origin, why);
    }
    let (era, tracked) = match content(&metadata)? {
        Content::Blank => (None, table.sectors),
        Content::Era(found) => check_history(table, &found, origin.size())?,
    };
    let needed = MetadataSize::of(tracked, table.block);
    if needed.minimum > MAX_METADATA_BLOCKS {
        let why = format!(
            "{} in blocks of {} sectors need more metadata than dm-era can address: take larger blocks",
            table.sectors,
            table.block.get()
        );
        return refuse("metadata", &table.metadata, why);
    }
    if metadata.size().0 / METADATA_BLOCK_SECTORS < needed.minimum {
        let why = format!(
            "it has {}, at least {} sectors are needed: make it {} (ftdm metadata-size)",
            metadata.size(),
            needed.minimum * METADATA_BLOCK_SECTORS,
            needed.recommended_sectors()
        );
        return refuse("metadata", &table.metadata, why);
    }
    let id = match dm_uuid(origin.number()).as_deref().and_then(VolumeId::from_lvm) {
        Some(id) => id,
        None => VolumeId::random().map_err(|e| StackError::Step {
            step: "draw a random identifier".to_owned(),
            reason: e.to_string(),
        })?,
    };
    Ok(Checked { origin: origin.number(), metadata: metadata.number(), id, era, tracked })
}

/// Opens a device exclusively; a device-mapper device must not be open elsewhere either.
fn claim(role: &'static str, path: &Path, devices: &Devices) -> Result<BlockDevice, StackError> {
    let access = Access { write: true, direct: true, exclusive: true };
    let mut tries = 0;
    loop {
        tries += 1;
        let opened = BlockDevice::open(path, access);
        let others = match &opened {
            Ok(device) => open_elsewhere(devices, device.number())?,
            Err(OpenError::Busy { .. }) => true,
            Err(_) => false,
        };
        if others && tries < RETRIES {
            drop(opened);
            std::thread::sleep(RETRY_AFTER);
            continue;
        }
        let device = opened.map_err(|source| StackError::Device { role, source })?;
        if others {
            let why = "another process has it open: it must be used through the stack only".to_owned();
            return Err(StackError::Refused { role, path: path.to_owned(), why });
        }
        return Ok(device);
    }
}

fn open_elsewhere(devices: &Devices, number: DevNum) -> Result<bool, StackError> {
    let name = devices.list()?.into_iter().find(|(_, n)| *n == number);
    let Some((name, _)) = name else { return Ok(false) };
    Ok(devices.find(&name)?.is_some_and(|Described { open_count, .. }| open_count > 1))
}

fn dm_uuid(number: DevNum) -> Option<String> {
    let text = std::fs::read_to_string(crate::block_io::sysfs(number).join("dm/uuid")).ok()?;
    Some(text.trim().to_owned())
}

/// Blank or dm-era's own; everything else is refused with what it is.
fn content(metadata: &BlockDevice) -> Result<Content, StackError> {
    let unreadable = |source| StackError::Device {
        role: "metadata",
        source: OpenError::Io { path: metadata.path().to_owned(), source },
    };
    let size = metadata.size().bytes().and_then(|n| usize::try_from(n).ok()).unwrap_or(SEARCHED);
    let mut buffer = AlignedBuffer::new(SEARCHED.min(size));
    metadata.read_at(0, buffer.bytes_mut()).map_err(unreadable)?;
    let refused =
        |why: String| StackError::Refused { role: "metadata", path: metadata.path().to_owned(), why };
    if superblock::says_lost(buffer.bytes()) {
        return Err(StackError::Bypassed { metadata: Some(metadata.path().to_owned()) });
    }
    match superblock::parse(buffer.bytes()) {
        Ok(Content::Era(found)) => Ok(Content::Era(found)),
        Ok(Content::Blank) => match signature(buffer.bytes()) {
            None => Ok(Content::Blank),
            Some(found) => Err(refused(format!("it holds {found}: wipe it (wipefs -a) if it may be lost"))),
        },
        Err(e) => {
            let what = signature(buffer.bytes()).map_or_else(|| e.to_string(), |s| format!("it holds {s}"));
            Err(refused(format!(
                "{what}; if its content may be lost, overwrite its first 4096 bytes with zeroes"
            )))
        }
    }
}

/// Known contents by what they have at a fixed place.
fn signature(start: &[u8]) -> Option<&'static str> {
    const KNOWN: [(usize, &[u8], &str); 13] = [
        (1080, &[0x53, 0xef], "an ext2/3/4 file system"),
        (0, b"XFSB", "an XFS file system"),
        (65_600, b"_BHRfS_M", "a btrfs file system"),
        (0, b"LUKS\xba\xbe", "a LUKS volume"),
        (536, b"LVM2 001", "an LVM physical volume"),
        (4086, b"SWAPSPACE2", "swap space"),
        (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "a member of an md array"),
        (0, &[0xfc, 0x4e, 0x2b, 0xa9], "a member of an md array"),
        (512, b"EFI PART", "a partition table"),
        (32_769, b"CD001", "an ISO 9660 file system"),
        (65_588, b"ReIsEr", "a ReiserFS file system"),
        (32, &[0xb8, 0x9d, 0x9a, 0x01], "metadata of a thin pool"),
        (510, &[0x55, 0xaa], "a boot sector or partition table"),
    ];
    KNOWN
        .iter()
        .find(|(at, magic, _)| start.get(*at..*at + magic.len()) == Some(magic))
        .map(|(.., what)| *what)
}

/// The era of a history, and how much of the origin it tracks.
fn check_history(
    table: &FtTable,
    found: &Superblock,
    origin: Sectors,
) -> Result<(Option<Era>, Sectors), StackError> {
    let refuse =
        |why: String| Err(StackError::Refused { role: "metadata", path: table.metadata.clone(), why });
    if found.data_block != table.block.get() {
        return refuse(format!(
            "it tracks blocks of {} sectors, the table asks for {}",
            found.data_block,
            table.block.get()
        ));
    }
    if found.blocks == 0 {
        return Ok((None, table.sectors));
    }
    let block = u64::from(table.block.get());
    let blocks = u64::from(found.blocks);
    let tracked = match blocks == table.block.count(table.sectors) {
        true => table.sectors,
        // The last block may be a part only: the end of the origin as it was, or as it is.
        false => Sectors(blocks * block).min(origin),
    };
    if tracked < table.sectors || table.block.count(tracked) != blocks {
        return refuse(format!(
            "it tracks a volume of {blocks} blocks, the table's has {}, the origin {}: it belongs to another volume, or \
             the size changed. Use the size that it tracks, or for a new history zero its first 4096 bytes",
            table.block.count(table.sectors),
            table.block.count(origin)
        ));
    }
    Ok((Some(found.current_era), tracked))
}

/// How much of `origin` a metadata device tracks already, where it tracks anything.
///
/// # Errors
/// When it cannot be read, or holds something else.
pub fn tracked_before(
    metadata: &Path,
    block: BlockSectors,
    origin: Sectors,
) -> Result<Option<Sectors>, StackError> {
    let opened = BlockDevice::open(metadata, Access { direct: true, ..Access::default() });
    let device = opened.map_err(|source| StackError::Device { role: "metadata", source })?;
    Ok(match content(&device)? {
        Content::Era(found) if found.blocks > 0 => {
            Some(Sectors(u64::from(found.blocks) * u64::from(block.get())).min(origin))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_recognised_where_they_are() {
        let mut start = vec![0u8; SEARCHED];
        assert_eq!(signature(&start), None);
        start[65_600..65_608].copy_from_slice(b"_BHRfS_M");
        assert_eq!(signature(&start), Some("a btrfs file system"));
        assert_eq!(signature(&start[..4096]), None);
        start[1080..1082].copy_from_slice(&[0x53, 0xef]);
        assert_eq!(signature(&start), Some("an ext2/3/4 file system"));
    }

    #[test]
    fn metadata_of_another_volume_is_refused_and_of_none_is_new() {
        let table: FtTable = "0 1280 ft m o 128".parse().unwrap();
        let found = Superblock {
            data_block: 128,
            blocks: 10,
            current_era: Era(5),
            writeset_tree_root: 0,
            era_array_root: 0,
            snapshot: None,
        };
        let check = |blocks, data_block, origin| {
            check_history(&table, &Superblock { blocks, data_block, ..found }, Sectors(origin)).ok()
        };
        assert_eq!(check(10, 128, 1280), Some((Some(Era(5)), Sectors(1280))));
        assert_eq!(check(0, 128, 1280), Some((None, Sectors(1280))));
        assert_eq!(check(10, 64, 1280), None);
        assert_eq!(check(9, 128, 1280), None, "less than the table shows");
        // The origin was enlarged, or the table shows less of it than was tracked.
        assert_eq!(check(10, 128, 12_800), Some((Some(Era(5)), Sectors(1280))));
        assert_eq!(check(11, 128, 12_800), Some((Some(Era(5)), Sectors(1408))));
        assert_eq!(check(11, 128, 1300), Some((Some(Era(5)), Sectors(1300))));
        assert_eq!(check(12, 128, 1300), None, "more than the origin has");
    }
}
