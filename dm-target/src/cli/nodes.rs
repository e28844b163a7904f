//! The nodes in /dev/mapper, where udev does not make them.
//!
//! Always holds: nothing but nodes of device-mapper and links to them is replaced or removed; `control` never is.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ftdm::units::DevNum;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Uid, chown};

/// Device-mapper's own node, beside those of the devices.
pub(crate) const CONTROL: &[u8] = b"control";

/// Whose a node is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

/// Where the nodes are.
pub(crate) fn folder() -> PathBuf {
    match std::env::var_os("DM_DEV_DIR") {
        Some(dev) if dev.as_bytes().starts_with(b"/") => Path::new(&dev).join("mapper"),
        _ => PathBuf::from("/dev/mapper"),
    }
}

pub(crate) fn path(name: &[u8]) -> PathBuf {
    folder().join(OsStr::from_bytes(name))
}

/// Makes the node, unless it is there.
pub(crate) fn add(name: &[u8], number: DevNum, owner: Owner) -> Result<(), String> {
    let path = path(name);
    match fs::metadata(&path) {
        Ok(found) if !found.file_type().is_block_device() => {
            return Err(format!("A non-block device file at '{}' is already present", path.display()));
        }
        Ok(found) if DevNum::from_rdev(found.rdev()) == number => return Ok(()),
        Ok(_) => remove_at(&path)
            .map_err(|e| format!("Unable to unlink device node for '{}': {}", show(name), reason(&e)))?,
        Err(_) => {
            let _ = remove_at(&path);
        }
    }
    fs::create_dir_all(folder())
        .map_err(|e| format!("{}: mkdir failed: {}", folder().display(), reason(&e)))?;
    let device = makedev(number.major.into(), number.minor.into());
    let mode = Mode::from_bits_truncate(owner.mode & 0o7777);
    let before = nix::sys::stat::umask(Mode::empty());
    let made = mknod(&path, SFlag::S_IFBLK, mode, device);
    nix::sys::stat::umask(before);
    made.map_err(|e| format!("{}: mknod for {} failed: {}", path.display(), show(name), e.desc()))?;
    chown(&path, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
        .map_err(|e| format!("{}: chown failed: {}", path.display(), e.desc()))
}

/// Removes the node, if there is one.
pub(crate) fn remove(name: &[u8]) -> Result<(), String> {
    if name == CONTROL {
        return Ok(());
    }
    remove_at(&path(name))
        .map_err(|e| format!("Unable to unlink device node for '{}': {}", show(name), reason(&e)))
}

fn remove_at(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Gives the node of a device another name.
pub(crate) fn rename(old: &[u8], new: &[u8]) -> Result<(), String> {
    let (from, to) = (path(old), path(new));
    if fs::symlink_metadata(&from).is_err() {
        return Ok(());
    }
    fs::rename(&from, &to).map_err(|e| {
        format!("Unable to rename device node from '{}' to '{}': {}", show(old), show(new), reason(&e))
    })
}

/// The names of all nodes.
pub(crate) fn names() -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder()).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().as_bytes().to_vec()).collect()
}

fn show(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

pub(crate) fn reason(error: &io::Error) -> String {
    error
        .raw_os_error()
        .map_or_else(|| error.to_string(), |code| nix::errno::Errno::from_raw(code).desc().to_owned())
}

/// Whether it is a block device's node, or a link that leads nowhere.
pub(crate) fn is_block(name: &[u8]) -> bool {
    fs::metadata(path(name)).map_or(true, |found| found.file_type().is_block_device())
}
