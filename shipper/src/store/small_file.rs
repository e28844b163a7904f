//! The small files of configuration and keys: read with care, written atomically and durably.
//!
//! Always holds: nothing is read here from a file whose owner or permissions would let others decide what it says (or,
//! for a private key, read it); a file is there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What others may not do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrecy {
    /// Write to it.
    Authentic,
    /// Read it or write to it.
    Secret,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct FileError {
    /// The file.
    pub path: String,
    /// Why.
    pub source: io::Error,
}

fn at(path: &Path) -> impl Fn(io::Error) -> FileError + '_ {
    |source| FileError { path: path.display().to_string(), source }
}

impl Secrecy {
    /// Permissions of a new file.
    fn mode(self) -> u32 {
        match self {
            Self::Authentic => 0o644,
            Self::Secret => 0o600,
        }
    }
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: usize, secrecy: Secrecy) -> Result<String, FileError> {
    let file = File::open(path).map_err(at(path))?;
    let facts = file.metadata().map_err(at(path))?;
    let refuse = |text: String| at(path)(io::Error::new(io::ErrorKind::PermissionDenied, text));
    if !facts.is_file() {
        return Err(refuse("is not a regular file".into()));
    }
    let (forbidden, what) = match secrecy {
        Secrecy::Authentic => (0o022, "go-w"),
        Secrecy::Secret => (0o077, "go-rwx"),
    };
    let mode = facts.mode() & 0o7777;
    if mode & forbidden != 0 {
        let name = path.display();
        return Err(refuse(format!("its permissions are {mode:04o}, too open: chmod {what} {name}")));
    }
    if ![0, nix::unistd::geteuid().as_raw()].contains(&facts.uid()) {
        return Err(refuse(format!("belongs to user {}: chown root it", facts.uid())));
    }
    let mut text = String::new();
    file.take(limit as u64 + 1).read_to_string(&mut text).map_err(at(path))?;
    if text.len() > limit {
        let source = io::Error::new(io::ErrorKind::FileTooLarge, format!("is larger than {limit} bytes"));
        return Err(at(path)(source));
    }
    Ok(text)
}

/// Makes a file; one that is there stays as it is, and is the error.
pub(crate) fn create(path: &Path, text: &str, secrecy: Secrecy) -> Result<(), FileError> {
    let written = write_beside(path, text, secrecy)?;
    let linked = fs::hard_link(&written, path);
    // Under its other name it is of no use, linked or not.
    let _ = fs::remove_file(&written);
    linked.and_then(|()| settle(path)).map_err(at(path))
}

/// Makes a file, in place of one that is there.
pub(crate) fn replace(path: &Path, text: &str, secrecy: Secrecy) -> Result<(), FileError> {
    let written = write_beside(path, text, secrecy)?;
    rename(&written, path)
}

/// Gives a file another name, in place of what had that.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).and_then(|()| settle(to)).map_err(at(to))
}

/// Writes a file beside the place where it is to be.
fn write_beside(path: &Path, text: &str, secrecy: Secrecy) -> Result<PathBuf, FileError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let name = PathBuf::from(name);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    // What a process of the same number has left.
    let _ = fs::remove_file(&name);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(secrecy.mode()).open(&name)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(at(&name))?;
    Ok(name)
}

/// Makes the names of a file's folder durable.
fn settle(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
