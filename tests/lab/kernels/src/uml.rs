//! A release's user-mode-linux: the program that is the kernel, and its modules.
//!
//! Installed, it is used as it is. Fetched, it lies in a folder that hosts see as `/lab/kernel`, like the kernels for
//! virtual machines: `linux.uml`, `lib/modules/RELEASE/` and, where it wants a newer C library than the machine's,
//! that library in `libc/` and its loader as `ld.so`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::debian::{Archive, dependencies, field};
use crate::registers::{self, Help};
use crate::{Kernel, cache, elf, output, release};

/// Debian's package, and where it puts the program and its modules.
const PACKAGE: &str = "user-mode-linux";
const PROGRAM: &str = "usr/bin/linux.uml";
const MODULES: &str = "usr/lib/uml/modules";

/// The C library's package, and where it puts its files: the older places too.
const LIBRARY_PACKAGE: &str = "libc6";
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
const LOADER: &str = "ld-linux-x86-64.so.2";

/// Where hosts see the folder of a kernel that was fetched.
const IN_THE_CAGE: &str = "/lab/kernel";

/// A user-mode-linux kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uml {
    /// The folder in the cache; `None` for the one that is installed.
    folder: Option<PathBuf>,
}

impl Uml {
    /// The one of `kernel`'s release that is, or will be, in `cache`, or is installed.
    #[must_use]
    pub fn new(kernel: Kernel, cache: &Path) -> Self {
        let kernel = kernel.on_this_machine();
        let folder = kernel.suite().map(|_| cache.join("kernels").join(format!("{kernel}-uml")));
        Uml { folder }
    }

    /// The folder that hosts have to see as `/lab/kernel`, if any.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Whether nothing has to be fetched.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.modules().exists() && self.program_here().exists()
    }

    /// The words that start the program where hosts run; the kernel's own command line follows. The lab's programs
    /// are there in the folder `programs`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn command(&self, programs: &str) -> Result<Vec<String>> {
        let wish = std::env::var_os(registers::WISH);
        let mut environment =
            Help::wanted(&self.release()?, registers::area(), wish.as_deref())?.environment(programs);
        let program = match &self.folder {
            Some(folder) if folder.join("libc").exists() => {
                environment.push(format!("LD_LIBRARY_PATH={IN_THE_CAGE}/libc"));
                format!("{IN_THE_CAGE}/linux.uml")
            }
            Some(_) => format!("{IN_THE_CAGE}/linux.uml"),
            None => format!("/{PROGRAM}"),
        };
        // `env` takes nothing of it for itself.
        let mut line = vec!["env".to_owned()];
        line.extend(environment);
        line.push(program);
        line.extend(has_seccomp(&self.release()?).then(|| "seccomp=on".to_owned()));
        Ok(line)
    }

    /// Its release, e.g. `6.1.176`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn release(&self) -> Result<String> {
        release(&self.modules())
    }

    fn program_here(&self) -> PathBuf {
        self.folder.as_ref().map_or_else(|| Path::new("/").join(PROGRAM), |folder| folder.join("linux.uml"))
    }

    fn modules(&self) -> PathBuf {
        let installed = || Path::new("/").join(MODULES);
        self.folder.as_ref().map_or_else(installed, |folder| folder.join("lib/modules"))
    }

    /// Fetches it unless it is there; tells `say` before that.
    ///
    /// # Errors
    /// When the package is not installed, or [`crate::Unavailable`] when it cannot be fetched.
    pub fn provide(&self, kernel: Kernel, cache: &Path, say: &dyn Fn(&str)) -> Result<()> {
        match &self.folder {
            None if self.is_there() => Ok(()),
            None => bail!("/{PROGRAM} is missing: install the Debian package {PACKAGE}"),
            Some(folder) => cache::folder(folder, |partial| fetch(kernel, cache, partial, folder, say)),
        }
    }
}

fn fetch(kernel: Kernel, cache: &Path, partial: &Path, folder: &Path, say: &dyn Fn(&str)) -> Result<()> {
    say(&format!("looking for the kernel `{kernel}` in Debian's archive"));
    let archive = Archive::open(kernel, cache)?;
    let description = archive.describe(PACKAGE)?;
    let libraries = wants_newer_library(&description)?;
    let mut packages = vec![PACKAGE.to_owned()];
    packages.extend(libraries.then(|| LIBRARY_PACKAGE.to_owned()));
    let tree = partial.join("tree");
    archive.unpack(&packages, &tree, folder, say)?;
    let take = |from: &Path, name: &str| {
        let to = partial.join(name);
        fs::rename(from, &to).with_context(|| format!("the package has no {}", from.display()))
    };
    take(&tree.join(PROGRAM), "linux.uml")?;
    fs::create_dir(partial.join("lib")).context("cannot make a folder")?;
    take(&tree.join(MODULES), "lib/modules")?;
    if libraries {
        let library = LIBRARIES.iter().map(|place| tree.join(place)).find(|path| path.join(LOADER).exists());
        let library = library.with_context(|| format!("{LIBRARY_PACKAGE} has no {LOADER}"))?;
        take(&library, "libc")?;
        take(&partial.join("libc").join(LOADER), "ld.so")?;
        start_through_own_loader(&partial.join("linux.uml"))?;
    }
    fs::remove_dir_all(&tree).context("cannot remove what is not needed")
}

/// Whether a kernel can run its processes under seccomp instead of ptrace: then a system call takes half the time.
fn has_seccomp(release: &str) -> bool {
    registers::series(release).is_some_and(|series| series >= (6, 16))
}

/// Whether a package wants a newer C library than the machine's.
fn wants_newer_library(description: &str) -> Result<bool> {
    let Some(wanted) = library_wanted(description) else { return Ok(false) };
    let installed = output(Command::new("dpkg-query").args(["-W", "-f", "${Version}", LIBRARY_PACKAGE]))?;
    let newer = Command::new("dpkg").args(["--compare-versions", wanted, "gt", &installed]).status();
    Ok(newer.context("cannot run `dpkg`")?.success())
}

/// The oldest C library that a package is content with.
fn library_wanted(description: &str) -> Option<&str> {
    let depends = field(description, "Depends")?;
    dependencies(description).find(|name| *name == LIBRARY_PACKAGE)?;
    let one = depends.split(',').find(|one| one.split_whitespace().next() == Some(LIBRARY_PACKAGE))?;
    Some(one.split_once(">=")?.1.trim().trim_end_matches(')'))
}

fn start_through_own_loader(program: &Path) -> Result<()> {
    let mut bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    elf::set_interpreter(&mut bytes, &format!("{IN_THE_CAGE}/ld.so"))
        .with_context(|| format!("cannot change {}", program.display()))?;
    fs::write(program, bytes).with_context(|| format!("cannot write {}", program.display()))?;
    fs::set_permissions(program, Permissions::from_mode(0o755)).context("cannot make the kernel executable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_that_a_package_wants() {
        let wanted = |depends: &str| library_wanted(depends).map(str::to_owned);
        assert_eq!(wanted("Depends: a, libc6 (>= 2.38)\n").unwrap(), "2.38");
        assert_eq!(wanted("Depends: libc6\n"), None);
        assert_eq!(wanted("Depends: libc6-dev (>= 2.38)\n"), None);
        assert!(wants_newer_library("Depends: libc6 (>= 999)\n").unwrap());
        assert!(!wants_newer_library("Depends: libc6 (>= 2.2)\n").unwrap());
    }

    #[test]
    fn what_is_fetched_is_seen_in_the_cage() {
        let folder = std::env::temp_dir().join(format!("ftdm-lab-uml-{}", std::process::id()));
        let fetched = Uml { folder: Some(folder.clone()) };
        assert!(!fetched.is_there());
        assert!(fetched.command("/lab/bin").is_err());
        fs::create_dir_all(folder.join("lib/modules/7.2.7")).unwrap();
        assert_eq!(fetched.command("/lab/bin").unwrap(), ["env", "/lab/kernel/linux.uml", "seccomp=on"]);
        fs::create_dir_all(folder.join("libc")).unwrap();
        let line = ["env", "LD_LIBRARY_PATH=/lab/kernel/libc", "/lab/kernel/linux.uml", "seccomp=on"];
        assert_eq!(fetched.command("/lab/bin").unwrap(), line);
        fs::remove_dir_all(folder).unwrap();
    }
}
