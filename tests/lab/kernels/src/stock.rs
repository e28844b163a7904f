//! A release's kernel for virtual machines: Debian's packages, unpacked into a folder.
//!
//! Stock configuration, modules as they are shipped, and a static busybox for the initramfs.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::debian::{Archive, dependencies};
use crate::{Kernel, Unavailable, cache, output, release};

/// The package that depends on the current kernel's.
const META_PACKAGE: &str = "linux-image-amd64";

/// The package with the program that the initramfs consists of.
const BUSYBOX_PACKAGE: &str = "busybox-static";

/// How the names of a kernel's packages begin, before its release: newer releases have it in several.
const PARTS: [&str; 4] = ["linux-image-", "linux-base-", "linux-binary-", "linux-modules-"];

/// A kernel in the cache.
#[derive(Debug)]
pub struct Stock {
    kernel: Kernel,
    cache: PathBuf,
    folder: PathBuf,
}

impl Stock {
    /// The kernel of `kernel`'s release that is, or will be, in `cache`.
    #[must_use]
    pub fn new(kernel: Kernel, cache: &Path) -> Self {
        let kernel = kernel.on_this_machine();
        let folder = cache.join("kernels").join(format!("{kernel}-stock"));
        Stock { kernel, cache: cache.to_owned(), folder }
    }

    /// The folder with everything: `vmlinuz`, `busybox`, `lib/modules/RELEASE/`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether nothing has to be fetched.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.folder.exists()
    }

    /// Its release, e.g. `6.1.0-40-amd64`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn release(&self) -> Result<String> {
        release(&self.folder.join("lib/modules"))
    }

    /// A static busybox.
    #[must_use]
    pub fn busybox(&self) -> PathBuf {
        self.folder.join("busybox")
    }

    /// The content of these modules and of all that they depend on, with their names, in the order of loading.
    ///
    /// # Errors
    /// When a module does not exist.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let release = self.release()?;
        let mut files: Vec<PathBuf> = Vec::new();
        for name in names {
            let arguments =
                [OsStr::new("-d"), self.folder.as_os_str(), OsStr::new("-S"), OsStr::new(&release)];
            let text = output(Command::new("modprobe").args(arguments).args(["--show-depends", name]))?;
            for file in text.lines().filter_map(|line| line.strip_prefix("insmod ")) {
                let file = PathBuf::from(file.trim());
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        files.iter().map(|file| content(file)).collect()
    }

    /// Downloads and unpacks the packages unless that has been done; tells `say` before it does.
    ///
    /// # Errors
    /// [`Unavailable`] when the packages cannot be had.
    pub fn provide(&self, say: &dyn Fn(&str)) -> Result<()> {
        cache::folder(&self.folder, |partial| self.fetch(partial, say))
    }

    fn fetch(&self, partial: &Path, say: &dyn Fn(&str)) -> Result<()> {
        if self.kernel != Kernel::Distribution {
            say(&format!("looking for the kernel `{}` in Debian's archive", self.kernel));
        }
        let archive = Archive::open(self.kernel, &self.cache)?;
        let mut packages = kernel_packages(|name| archive.describe(name))?;
        packages.push(BUSYBOX_PACKAGE.to_owned());
        archive.unpack(&packages, &partial.join("tree"), &self.folder, say)?;
        arrange(partial)
    }
}

/// A module's name and content; newer packages compress them.
fn content(file: &Path) -> Result<(String, Vec<u8>)> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let Some(name) = name.strip_suffix(".xz") else {
        let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        return Ok((name.into_owned(), content));
    };
    let unpacked =
        Command::new("xz").arg("-dc").arg(file).output().context("cannot run `xz` (package xz-utils)")?;
    if !unpacked.status.success() {
        anyhow::bail!(
            "cannot unpack {}: {}",
            file.display(),
            String::from_utf8_lossy(&unpacked.stderr).trim()
        );
    }
    Ok((name.to_owned(), unpacked.stdout))
}

/// The packages that the current kernel consists of, by the descriptions that `describe` gives.
fn kernel_packages(describe: impl Fn(&str) -> Result<String>) -> Result<Vec<String>> {
    let mut packages: Vec<String> = Vec::new();
    let mut open = vec![META_PACKAGE.to_owned()];
    while let Some(name) = open.pop() {
        for dependency in dependencies(&describe(&name)?) {
            if is_part(dependency) && !packages.iter().any(|known| known == dependency) {
                packages.push(dependency.to_owned());
                open.push(dependency.to_owned());
            }
        }
    }
    if packages.is_empty() {
        let reason = format!("{META_PACKAGE} names no kernel: run `apt-get update`");
        return Err(Unavailable(reason).into());
    }
    packages.sort();
    Ok(packages)
}

fn is_part(name: &str) -> bool {
    let rest = PARTS.iter().find_map(|part| name.strip_prefix(part));
    rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

/// Makes a kernel's folder of the packages that were unpacked into its `tree`.
fn arrange(folder: &Path) -> Result<()> {
    let tree = folder.join("tree");
    let take = |candidates: &[PathBuf], name: &str| -> Result<()> {
        let found = candidates.iter().find(|path| path.exists());
        let found = found.with_context(|| format!("the packages have no {name}"))?;
        let to = folder.join(name);
        fs::rename(found, &to).with_context(|| format!("cannot move {}", found.display()))
    };
    take(&[tree.join("bin/busybox"), tree.join("usr/bin/busybox")], "busybox")?;
    fs::create_dir(folder.join("lib")).context("cannot make a folder")?;
    take(&[tree.join("lib/modules"), tree.join("usr/lib/modules")], "lib/modules")?;
    let release = release(&folder.join("lib/modules"))?;
    // Newer packages have the kernel among its modules.
    let newer = folder.join("lib/modules").join(&release).join("vmlinuz");
    take(&[tree.join(format!("boot/vmlinuz-{release}")), newer], "vmlinuz")?;
    output(Command::new("depmod").arg("-b").arg(folder).arg(&release))?;
    fs::set_permissions(folder.join("vmlinuz"), Permissions::from_mode(0o644))
        .context("cannot make the kernel readable")?;
    fs::remove_dir_all(&tree).context("cannot remove what is not needed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(descriptions: &[(&str, &str)]) -> Result<Vec<String>> {
        kernel_packages(|name| {
            let found = descriptions.iter().find(|(known, _)| *known == name);
            found.map(|(_, text)| format!("Package: {name}\nDepends: {text}\n")).context("no such package")
        })
    }

    #[test]
    fn the_kernel_is_named_by_the_package_that_depends_on_it() {
        let found = packages(&[
            (META_PACKAGE, "firmware, linux-image-6.1.0-1-amd64 (= 6.1.1-1)"),
            ("linux-image-6.1.0-1-amd64", "kmod, initramfs-tools | linux-initramfs-tool"),
        ]);
        assert_eq!(found.unwrap(), ["linux-image-6.1.0-1-amd64"]);
        let error = packages(&[(META_PACKAGE, "libc6, linux-base (>= 4.12)")]).unwrap_err();
        assert!(error.downcast_ref::<Unavailable>().is_some());
    }

    #[test]
    fn older_and_newer_packages_come_to_the_same() {
        let layouts = [
            ["bin/busybox", "lib/modules/6.1/modules.order", "boot/vmlinuz-6.1"],
            ["usr/bin/busybox", "usr/lib/modules/7.2/modules.order", "usr/lib/modules/7.2/vmlinuz"],
        ];
        for (number, files) in layouts.into_iter().enumerate() {
            let folder = std::env::temp_dir().join(format!("ftdm-lab-stock-{}-{number}", std::process::id()));
            for file in files {
                let path = folder.join("tree").join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            arrange(&folder).unwrap();
            for name in ["busybox", "vmlinuz", "lib/modules"] {
                assert!(folder.join(name).exists(), "{name}");
            }
            assert!(!folder.join("tree").exists());
            fs::remove_dir_all(folder).unwrap();
        }
    }

    #[test]
    fn a_kernel_in_parts_is_taken_whole() {
        let found = packages(&[
            (META_PACKAGE, "linux-image-7.2-amd64"),
            ("linux-image-7.2-amd64", "dracut, linux-base-7.2-amd64 (= 7), linux-modules-7.2-amd64 (= 7)"),
            ("linux-modules-7.2-amd64", "kmod, linux-base-7.2-amd64 (= 7)"),
            ("linux-base-7.2-amd64", ""),
        ]);
        assert_eq!(
            found.unwrap(),
            ["linux-base-7.2-amd64", "linux-image-7.2-amd64", "linux-modules-7.2-amd64"]
        );
    }
}
