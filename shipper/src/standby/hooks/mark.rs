//! The mark that a guest may be frozen, `/run/ftdm/GROUP.frozen`, and the thaw of those that were left so.
//!
//! Always holds: the mark is there, whole, before the freeze hook is started, and goes only after a thaw that succeeded. It
//! has all that a thaw needs, so that it needs neither a daemon that starts nor a configuration that is sound. The process
//! that is going to thaw holds a lock on it: nobody else thaws meanwhile.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::thaw;
use crate::config::Config;
use crate::control::DIRECTORY;

/// How often a thaw of a leftover is tried, and how long after each failure.
const TRIES: usize = 5;
const AGAIN: Duration = Duration::from_secs(1);

/// How long a process that holds the mark may take: both hooks for as long as they may, and some time between.
const PATIENCE: Duration = Duration::from_secs(130);
const LOOK: Duration = Duration::from_millis(100);

/// Most that a mark has, in bytes.
const LIMIT: u64 = 64 << 10;

/// What is written in it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Orders {
    epoch: u64,
    /// The thaw hook.
    thaw: Vec<String>,
    timeout: Duration,
}

/// A mark that this process holds.
#[derive(Debug)]
pub(super) struct Mark {
    group: String,
    path: PathBuf,
    orders: Orders,
    _lock: File,
}

fn path_of(folder: &Path, group: &str) -> PathBuf {
    folder.join(format!("{group}.frozen"))
}

impl Mark {
    /// Sets it, before the guest is frozen.
    ///
    /// # Errors
    /// When it cannot be written: then nothing may be frozen.
    pub(super) fn set(config: &Config, epoch: u64) -> anyhow::Result<Self> {
        let orders = Orders { epoch, thaw: config.hooks.thaw.clone(), timeout: config.hooks.timeout };
        Self::set_in(Path::new(DIRECTORY), config.group.as_str(), orders)
    }

    fn set_in(folder: &Path, group: &str, orders: Orders) -> anyhow::Result<Self> {
        let path = path_of(folder, group);
        let new = path.with_extension("frozen.new");
        let set = || -> anyhow::Result<File> {
            let text = serde_json::to_string(&orders)?;
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.try_lock()?;
            std::fs::rename(&new, &path)?;
            Ok(file)
        };
        let lock = set().with_context(|| path.display().to_string())?;
        Ok(Self { group: group.to_owned(), path, orders, _lock: lock })
    }

    /// The one that a process left which is gone. `None`: there is none, or a process has it that is going to thaw.
    ///
    /// # Errors
    /// When it cannot be read: then nobody knows how to thaw.
    pub(super) fn left(group: &str) -> anyhow::Result<Option<Self>> {
        Ok(match Self::found_in(Path::new(DIRECTORY), group)? {
            Found::Left(mark) => Some(mark),
            Found::Nothing | Found::Held => None,
        })
    }

    fn found_in(folder: &Path, group: &str) -> anyhow::Result<Found> {
        let path = path_of(folder, group);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        if file.try_lock().is_err() {
            return Ok(Found::Held);
        }
        let mut text = String::new();
        let read = (&file).take(LIMIT).read_to_string(&mut text).map_err(anyhow::Error::from);
        let orders = read.and_then(|_| Ok(serde_json::from_str(&text)?));
        let orders = orders.with_context(|| {
            format!("{}: the guest may be frozen: thaw it, then remove this file", path.display())
        })?;
        Ok(Found::Left(Self { group: group.to_owned(), path, orders, _lock: file }))
    }

    /// Lets the guest go on.
    ///
    /// # Errors
    /// When the hook fails; the mark stays.
    pub(super) fn thaw(&self) -> anyhow::Result<()> {
        thaw(&self.group, &self.orders.thaw, self.orders.epoch, self.orders.timeout)?;
        std::fs::remove_file(&self.path).with_context(|| self.path.display().to_string())
    }
}

/// What there is of a mark.
#[derive(Debug)]
enum Found {
    Nothing,
    /// By a process that is going to thaw.
    Held,
    Left(Mark),
}

/// Before a daemon begins: thaws what a process that is gone left frozen. A thaw that fails is tried again a few times.
///
/// # Errors
/// The last one's; the mark stays.
pub fn thaw_leftover(group: &str) -> anyhow::Result<()> {
    Mark::left(group)?.map_or(Ok(()), |mark| thaw_again_and_again(&mark, AGAIN))
}

/// After a daemon's end, for the service manager: the same, and where a process is going to thaw, waits for that. The
/// manager kills what is left of the service once this has ended.
///
/// # Errors
/// The same.
pub fn thaw_after_the_end(group: &str) -> anyhow::Result<()> {
    thaw_after_the_end_in(Path::new(DIRECTORY), group, AGAIN)
}

fn thaw_after_the_end_in(folder: &Path, group: &str, again: Duration) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        match Mark::found_in(folder, group)? {
            Found::Nothing => return Ok(()),
            Found::Left(mark) => return thaw_again_and_again(&mark, again),
            Found::Held => anyhow::ensure!(
                begun.elapsed() < PATIENCE,
                "{}: the process that is going to thaw does not get on",
                path_of(folder, group).display()
            ),
        }
        std::thread::sleep(LOOK);
    }
}

fn thaw_again_and_again(mark: &Mark, again: Duration) -> anyhow::Result<()> {
    log::warn!("a daemon that is gone left the guest frozen: thawing it");
    let mut tries = 1;
    loop {
        match mark.thaw() {
            Ok(()) => return Ok(()),
            Err(error) if tries < TRIES => log::error!("the thaw hook: {error:#}; trying again"),
            Err(error) => return Err(error).context("the guest stays frozen: the thaw hook failed"),
        }
        tries += 1;
        std::thread::sleep(again);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(script: &str) -> Orders {
        let thaw = ["sh", "-c", script].map(str::to_owned).to_vec();
        Orders { epoch: 7, thaw, timeout: Duration::from_secs(30) }
    }

    fn thaw_in(folder: &Path) -> anyhow::Result<()> {
        thaw_after_the_end_in(folder, "vm1", Duration::ZERO)
    }

    #[test]
    fn whoever_finds_it_thaws_unless_its_owner_lives() {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        let script = format!("echo $FTDM_GROUP $FTDM_EPOCH >> {}", said.display());
        let mark = Mark::set_in(folder.path(), "vm1", orders(&script)).unwrap();
        assert!(matches!(Mark::found_in(folder.path(), "vm1").unwrap(), Found::Held));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| thaw_in(folder.path()).unwrap());
            std::thread::sleep(3 * LOOK);
            assert!(!waiting.is_finished() && !said.exists(), "its owner is going to thaw");
            // It is killed instead.
            drop(mark);
        });
        thaw_in(folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&said).unwrap(), "vm1 7\n", "once");
    }

    #[test]
    fn a_thaw_that_fails_is_tried_again_and_the_mark_stays() {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        let script = format!("echo >> {0}; test $(wc -l < {0}) = 3", said.display());
        drop(Mark::set_in(folder.path(), "vm1", orders(&script)).unwrap());
        thaw_in(folder.path()).unwrap();
        assert!(!path_of(folder.path(), "vm1").exists());
        drop(Mark::set_in(folder.path(), "vm1", orders("echo no agent >&2; exit 1")).unwrap());
        let error = format!("{:#}", thaw_in(folder.path()).unwrap_err());
        assert!(error.contains("no agent") && error.contains("stays frozen"), "{error}");
        assert!(path_of(folder.path(), "vm1").exists());
    }

    #[test]
    fn a_mark_that_nobody_can_read_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(path_of(folder.path(), "vm1"), "7\n").unwrap();
        let error = format!("{:#}", thaw_in(folder.path()).unwrap_err());
        assert!(error.contains("vm1.frozen: the guest may be frozen"), "{error}");
    }
}
