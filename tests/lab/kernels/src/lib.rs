//! The kernels that the lab's hosts can have: which there are, where each comes from, how it is fetched.
//!
//! A [`Kernel`] names a Debian release. [`uml`] and [`stock`] get that release's user-mode-linux program and its
//! kernel for virtual machines; both take packages from [`debian`] and keep them in folders that [`cache`] makes.
//! What must hold: nothing is installed on the machine, and a kernel that cannot be had is a different error
//! ([`Unavailable`]) from a lab that is broken.

pub mod cache;
pub mod death;
pub mod debian;
pub mod doctor;
mod elf;
pub mod qemu;
pub mod registers;
pub mod stock;
pub mod trial;
pub mod uml;

use std::ffi::OsStr;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};

/// Where a kernel comes from: a Debian release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// The machine's own release: user-mode-linux as it is installed, the kernel that `apt-get` offers here.
    Distribution,
    /// Debian 12's, 6.1.
    Debian12,
    /// Debian 13's, 6.12.
    Debian13,
    /// The newest that Debian has.
    Newest,
}

impl Kernel {
    /// All of them, the default first.
    pub const ALL: [Kernel; 4] = [Kernel::Distribution, Kernel::Debian12, Kernel::Debian13, Kernel::Newest];

    /// The suite of Debian's archive that has it; `None` for the machine's own.
    #[must_use]
    pub fn suite(self) -> Option<&'static str> {
        match self {
            Kernel::Distribution => None,
            Kernel::Debian12 => Some("bookworm"),
            Kernel::Debian13 => Some("trixie"),
            Kernel::Newest => Some("sid"),
        }
    }

    /// The same, but [`Kernel::Distribution`] where the machine is of that release: what is there is not fetched.
    #[must_use]
    pub fn on_this_machine(self) -> Self {
        if self.suite().is_some() && self.suite() == codename().as_deref() {
            Kernel::Distribution
        } else {
            self
        }
    }
}

impl Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kernel::Distribution => "distribution",
            Kernel::Debian12 => "6.1",
            Kernel::Debian13 => "6.12",
            Kernel::Newest => "newest",
        })
    }
}

impl FromStr for Kernel {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Kernel::ALL.into_iter().find(|kernel| kernel.to_string() == name);
        let names = || Kernel::ALL.map(|kernel| kernel.to_string()).join(", ");
        found.with_context(|| format!("there is no kernel `{name}`; available: {}", names()))
    }
}

/// The machine's release, as Debian names it.
fn codename() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(name.trim_matches('"').to_owned())
}

/// A kernel that cannot be had here and now, for a reason that is not the lab's: who asked for it goes without.
#[derive(Debug)]
pub struct Unavailable(pub String);

impl Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// The one thing in a folder.
fn only_entry(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    match <[PathBuf; 1]>::try_from(paths) {
        Ok([path]) => Ok(path),
        Err(paths) => {
            bail!("{} has {} entries instead of one: remove its parent", folder.display(), paths.len())
        }
    }
}

/// The release of the kernel whose modules are in the folder `modules`.
fn release(modules: &Path) -> Result<String> {
    Ok(only_entry(modules)?.file_name().unwrap_or(OsStr::new("")).to_string_lossy().into_owned())
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
    fn each_kernel_has_a_name_of_its_own() {
        for kernel in Kernel::ALL {
            assert_eq!(kernel.to_string().parse::<Kernel>().unwrap(), kernel);
        }
        let error = "5.10".parse::<Kernel>().unwrap_err().to_string();
        assert_eq!(error, "there is no kernel `5.10`; available: distribution, 6.1, 6.12, newest");
    }

    #[test]
    fn a_failing_command_is_quoted() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 1"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh` failed: why");
    }
}
