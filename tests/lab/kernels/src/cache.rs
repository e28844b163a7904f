//! Folders and files in the lab's cache that are made once.
//!
//! What must hold: each is either absent or complete, also when making it was interrupted or two labs begin at the
//! same time.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Holds the lock of `path`, in whose folder it is, until what is returned is dropped.
///
/// # Errors
/// When the folder or the lock cannot be made.
pub fn lock(path: &Path) -> Result<File> {
    let folder = path.parent().context("the cache is no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let name = format!("{}.lock", path.file_name().unwrap_or_default().to_string_lossy());
    let lock = File::create(folder.join(name)).context("cannot make a lock file")?;
    lock.lock().context("cannot lock the cache")?;
    Ok(lock)
}

/// Has `make` fill the folder `path`, unless it is there.
///
/// # Errors
/// Those of `make`, and when the cache cannot be written.
pub fn folder(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let _lock = lock(path)?;
    if path.exists() {
        return Ok(()); // another lab has made it meanwhile
    }
    let name = format!("{}.partial", path.file_name().unwrap_or_default().to_string_lossy());
    let partial = path.with_file_name(name);
    if partial.exists() {
        fs::remove_dir_all(&partial).context("cannot remove what an interrupted run left in the cache")?;
    }
    fs::create_dir(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    if let Err(error) = make(&partial) {
        // What stays is removed by the next attempt.
        let _ = fs::remove_dir_all(&partial);
        return Err(error);
    }
    fs::set_permissions(&partial, Permissions::from_mode(0o755))
        .context("cannot open a folder to the hosts")?;
    fs::rename(&partial, path).with_context(|| format!("cannot name {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn a_folder_is_absent_or_complete() {
        let root = std::env::temp_dir().join(format!("ftdm-lab-cache-{}", std::process::id()));
        let path = root.join("6.1-thing");
        let fails = folder(&path, |partial| {
            fs::write(partial.join("half"), "")?;
            bail!("no more")
        });
        assert_eq!(fails.unwrap_err().to_string(), "no more");
        assert!(!path.exists());
        folder(&path, |partial| Ok(fs::write(partial.join("whole"), "")?)).unwrap();
        folder(&path, |_| bail!("made twice")).unwrap();
        assert!(path.join("whole").exists() && !path.join("half").exists());
        fs::remove_dir_all(&root).unwrap();
    }
}
