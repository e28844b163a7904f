//! The distribution's kernel for QEMU hosts: Debian's package, unpacked into a folder.
//!
//! Nothing is installed on the machine. What must hold: the folder is either absent or complete,
//! also when fetching it was interrupted or two labs begin at the same time.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

/// The package that depends on the current kernel's.
const META_PACKAGE: &str = "linux-image-amd64";

/// The package with the program that the initramfs consists of.
const BUSYBOX_PACKAGE: &str = "busybox-static";

/// A kernel in the cache folder.
#[derive(Debug)]
pub(super) struct DebianKernel {
    folder: PathBuf,
}

impl DebianKernel {
    /// The kernel that is, or will be, in `cache`.
    pub(super) fn new(cache: &Path) -> Self {
        DebianKernel { folder: cache.join("debian-kernel") }
    }

    /// The folder with everything: `vmlinuz`, `busybox`, `lib/modules/RELEASE/`.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A static busybox.
    pub(super) fn busybox(&self) -> PathBuf {
        self.folder.join("busybox")
    }

    /// The files of these modules and of all that they depend on, in the order of loading.
    ///
    /// # Errors
    /// When a module does not exist.
    pub(super) fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let release = only_entry(&self.folder.join("lib/modules"))?;
        let release = release.file_name().unwrap_or_default();
        let mut files: Vec<PathBuf> = Vec::new();
        for name in names {
            let arguments = [OsStr::new("-d"), self.folder.as_os_str(), OsStr::new("-S"), release];
            let text = output(Command::new("modprobe").args(arguments).args(["--show-depends", name]))?;
            for file in text.lines().filter_map(|line| line.strip_prefix("insmod ")) {
                let file = PathBuf::from(file.trim());
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }

    /// Downloads and unpacks the packages unless that has been done; tells `say` before it does.
    ///
    /// # Errors
    /// When the packages cannot be had.
    pub(super) fn fetch(&self, say: &dyn Fn(&str)) -> Result<()> {
        if self.folder.exists() {
            return Ok(());
        }
        let cache = self.folder.parent().context("the cache is no folder")?;
        fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let lock = File::create(self.folder.with_extension("lock")).context("cannot make a lock file")?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .context("cannot lock the cache")?;
        if self.folder.exists() {
            return Ok(()); // another lab has fetched it meanwhile
        }
        let package = kernel_package()?;
        say(&format!(
            "fetching {package} and {BUSYBOX_PACKAGE} (70 MB, once; 400 MB unpacked, not installed) into {}",
            self.folder.display()
        ));
        let partial = self.folder.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).context("cannot remove what an interrupted download left")?;
        }
        unpack(&package, &partial)?;
        fs::rename(&partial, &self.folder).context("cannot name the unpacked kernel's folder")
    }
}

/// The name of the current kernel's package.
fn kernel_package() -> Result<String> {
    let text = output(Command::new("apt-cache").args(["show", "--no-all-versions", META_PACKAGE]))?;
    depends_on(&text).with_context(|| format!("{META_PACKAGE} names no kernel: run `apt-get update`"))
}

/// The kernel's package in the description of a package that depends on it.
fn depends_on(description: &str) -> Option<String> {
    let dependencies = description.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    let mut names = dependencies.split(',').filter_map(|one| one.split_whitespace().next());
    names.find(|name| name.starts_with("linux-image-")).map(str::to_owned)
}

fn unpack(package: &str, folder: &Path) -> Result<()> {
    let work = folder.join("work");
    fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let tree = work.join("tree");
    output(Command::new("apt-get").args(["download", "-q", package, BUSYBOX_PACKAGE]).current_dir(&work))
        .context("if the package lists are old, run `apt-get update`")?;
    for entry in fs::read_dir(&work)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            output(Command::new("dpkg-deb").arg("-x").args([&path, &tree]))?;
        }
    }
    let take = |candidates: &[&str], name: &str| -> Result<()> {
        let found = candidates.iter().map(|candidate| tree.join(candidate)).find(|path| path.exists());
        let found = found.with_context(|| format!("the packages have no {name}"))?;
        let to = folder.join(name);
        fs::rename(&found, &to).with_context(|| format!("cannot move {}", found.display()))
    };
    take(&["bin/busybox", "usr/bin/busybox"], "busybox")?;
    fs::create_dir(folder.join("lib")).context("cannot make a folder")?;
    take(&["lib/modules", "usr/lib/modules"], "lib/modules")?;
    let modules = only_entry(&folder.join("lib/modules"))?;
    let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    take(&[&format!("boot/vmlinuz-{release}")], "vmlinuz")?;
    output(Command::new("depmod").arg("-b").arg(folder).arg(&release))?;
    fs::set_permissions(folder, Permissions::from_mode(0o755)).context("cannot open the kernel's folder")?;
    fs::set_permissions(folder.join("vmlinuz"), Permissions::from_mode(0o644))
        .context("cannot make the kernel readable")?;
    fs::remove_dir_all(&work).context("cannot remove the packages")
}

/// The one thing in a folder.
fn only_entry(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    match <[PathBuf; 1]>::try_from(paths) {
        Ok([path]) => Ok(path),
        Err(paths) => {
            bail!("{} has {} entries instead of one: remove its parent", folder.display(), paths.len())
        }
    }
}

/// Runs a command that must succeed; returns what it prints.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run `{program}`"))?;
    if !output.status.success() {
        bail!("`{program}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_named_by_the_package_that_depends_on_it() {
        let text =
            "Package: linux-image-amd64\nDepends: firmware, linux-image-6.1.0-1-amd64 (= 6.1.1-1)\nSize: 1\n";
        assert_eq!(depends_on(text).unwrap(), "linux-image-6.1.0-1-amd64");
        assert_eq!(depends_on("Package: x\n"), None);
        assert_eq!(depends_on("Depends: libc6\n"), None);
    }

    #[test]
    fn a_failing_command_is_quoted() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 1"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh` failed: why");
    }
}
