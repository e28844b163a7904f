//! The disk from which hosts with `root=debian` boot: a Debian with systemd and udevd, made once and kept.
//!
//! What must hold: the image is either absent or complete, and made anew when its recipe changes; a host gets a
//! copy of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use ftdm_lab_kernels::cache;

/// What makes it.
const RECIPE: &str = include_str!("../../guest/rootfs.sh");

/// What the recipe needs.
const PROGRAMS: [(&str, &str); 2] = [("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs")];

/// An image in the cache folder.
#[derive(Debug)]
pub struct RootImage {
    image: PathBuf,
}

impl RootImage {
    /// The image that is, or will be, in `cache`.
    #[must_use]
    pub fn new(cache: &Path) -> Self {
        RootImage { image: cache.join("debian-root.img") }
    }

    /// Makes the image unless it is there; tells `say` before it does.
    ///
    /// # Errors
    /// When a program is missing, or the packages cannot be had.
    pub fn prepare(&self, say: &dyn Fn(&str)) -> Result<()> {
        let folder = self.image.parent().context("the cache is no folder")?;
        let _lock = cache::lock(&self.image)?;
        let made_by = self.image.with_extension("recipe");
        if self.image.exists() && fs::read_to_string(&made_by).is_ok_and(|recipe| recipe == RECIPE) {
            return Ok(());
        }
        for (program, package) in PROGRAMS {
            if !["/usr/bin", "/usr/sbin", "/sbin"]
                .iter()
                .any(|folder| Path::new(folder).join(program).exists())
            {
                bail!("{program} is missing: install the Debian package {package}");
            }
        }
        say(&format!("making a root disk with Debian (once; a minute, 250 MB) in {}", folder.display()));
        // A recipe that was interrupted leaves no image of which it could be said that it was made by it.
        let made = Command::new("bash").args(["-c", RECIPE, "rootfs"]).arg(&self.image).output();
        let made = made.context("cannot run bash")?;
        if !made.status.success() {
            bail!("cannot make the root disk: {}", String::from_utf8_lossy(&made.stderr).trim());
        }
        fs::write(&made_by, RECIPE).with_context(|| format!("cannot write {}", made_by.display()))
    }

    /// A copy in the file `path`, which must not exist.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn copy_to(&self, path: &Path) -> Result<()> {
        let status = Command::new("cp")
            .args(["--no-clobber", "--sparse=always", "--reflink=auto"])
            .arg(&self.image)
            .arg(path)
            .status()
            .context("cannot run `cp`")?;
        if !status.success() {
            bail!("cannot copy {}", self.image.display());
        }
        Ok(())
    }
}
