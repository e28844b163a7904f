//! The folder of one run: `target/lab/<scenario>/`, and what is where in it.
//!
//! ```text
//! run.log                 what the scenario printed
//! share/                  $SHARE, and /share in both hosts
//! jobs/ID.stdout, .stderr output of background commands
//! primary/, backup/       console.log, disk0.img, disk0.stats
//! bin/                    programs on the hosts' path, as they were when the run began
//! ```
//! What must hold: two runs never use the same folder at the same time, and what an earlier run
//! left is gone before the next begins.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::machines::HOSTS;

/// A run's folder, locked.
#[derive(Debug)]
pub struct Folder {
    name: String,
    path: PathBuf,
    _lock: Flock<File>,
}

impl Folder {
    /// Makes an empty folder in `root` for the scenario `name`; another name is taken while
    /// another run uses that one.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn create(root: &Path, name: &str) -> Result<Self> {
        let locks = root.join(".locks");
        fs::create_dir_all(&locks).with_context(|| format!("cannot make {}", locks.display()))?;
        for number in 1..100 {
            let name = if number == 1 { name.to_owned() } else { format!("{name}.{number}") };
            let lock = File::create(locks.join(&name)).context("cannot make a lock file")?;
            if let Ok(lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
                let folder = Folder { path: root.join(&name), name, _lock: lock };
                folder.prepare().with_context(|| format!("cannot prepare {}", folder.path.display()))?;
                return Ok(folder);
            }
        }
        bail!("99 runs of `{name}` are already using {}", root.display())
    }

    fn prepare(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for folder in [self.programs(), self.jobs(), self.share()] {
            fs::create_dir_all(folder)?;
        }
        for host in HOSTS {
            fs::create_dir_all(self.path.join(host).join("sockets"))?;
            fs::create_dir_all(self.path.join(host).join("scratch"))?;
            fs::set_permissions(self.path.join(host).join("sockets"), Permissions::from_mode(0o755))?;
        }
        fs::set_permissions(self.share(), Permissions::from_mode(0o777))?;
        fs::set_permissions(self.programs(), Permissions::from_mode(0o755))
    }

    /// The run's name: the scenario's, possibly with a number.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The programs for the hosts.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.path.join("bin")
    }

    /// The output of background commands.
    #[must_use]
    pub fn jobs(&self) -> PathBuf {
        self.path.join("jobs")
    }

    /// What scenario and hosts share.
    #[must_use]
    pub fn share(&self) -> PathBuf {
        self.path.join("share")
    }

    /// What the scenario printed.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("run.log")
    }

    /// A file of a host.
    #[must_use]
    pub fn of_host(&self, host: &str, file: &str) -> PathBuf {
        self.path.join(host).join(file)
    }

    /// Removes what takes space and tells nothing afterwards.
    pub fn remove_images(&self) {
        for host in HOSTS {
            let Ok(entries) = fs::read_dir(self.path.join(host)) else { continue };
            for entry in entries.flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "img") {
                    // What stays is only a waste of space.
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        let _ = fs::remove_dir_all(self.programs());
    }
}

/// A folder under a short name: the path of a socket may have 107 bytes at most.
#[derive(Debug)]
pub struct ShortPath {
    folder: File,
}

impl ShortPath {
    /// Opens the folder.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn open(folder: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let file = File::options().read(true).custom_flags(flags.bits()).open(folder);
        Ok(ShortPath { folder: file.with_context(|| format!("cannot open {}", folder.display()))? })
    }

    /// The path of `name` in the folder, valid in this process while `self` lives.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.folder.as_raw_fd()))
    }
}
